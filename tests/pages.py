"""Pages of made-up studies, and what an HTML parser sees of them."""

from __future__ import annotations

from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from ablate.analysis.arms import arms_of
from ablate.figures import Figure
from ablate.figures.canvas import Images
from ablate.report.page import page
from ablate.report.tables import ablation_table
from ablate.store import Study
from tests.tabled import Outcome, build

VOID = {"meta", "link", "br", "img", "input", "hr"}
CERTIFICATE: dict[str, Any] = {
    "identity": "1" * 32,
    "fingerprint": "f" * 32,
    "init": "kaiming_fan_out",
    "keys": {"used": 41, "orphans": [], "inactive": []},
    "difference": {
        "baseline": "none",
        "added": ["stage1_attention"],
        "removed": [],
        "changed": {"head": {"width": [16, 32]}},
        "params": 1641,
        "flops": -7,
        "by_insertion": {"attention": [1641, 103530]},
        "by_stage": {"stage1_attention": [163, 76960]},
    },
    "passes": {
        "batch": 8,
        "nodes": 83,
        "first_loss": 2.25,
        "gradients": {
            "parameters": 77,
            "with_gradient": 74,
            "invariant": ["key.bias"],
            "cancelled_by_batch_norm": ["a", "b"],
        },
        "starts_as_baseline": True,
    },
    "shared": {"of": 137, "shared": 116, "equal": 113, "unequal_by_difference": ["head.weight"]},
    "first_batches": {"equal": False, "differ_by": ["augmentation"]},
    "protocol": ["The weights of the last epoch are reported."],
    "cost": {"params": 269722, "by_stage": {"stem": [464, 442368]}},
    "failures": [],
}
DIAGRAM = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">'
    '<g><title>conv1</title><rect width="9" height="9"/></g></svg>'
)
PICTURE = b"""<?xml version="1.0"?>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 300 100">
 <title>seeds</title><metadata>none</metadata><defs><style>*{stroke: red}</style><path id="dot" d="M0 3L3 0L0 -3z"/>
 <clipPath id="box"><rect width="300" height="100"/></clipPath></defs>
 <g id="point:0:0" clip-path="url(#box)">
  <use xlink:href="#dot" x="50" y="50" style="fill: #0072b2; stroke: #000000"/></g>
 <g id="point:0:1"><use xlink:href="#dot" x="150" y="50"/></g>
 <text style="font: 7px 'DejaVu Sans', sans-serif; text-anchor: middle" x="9" y="9">axis</text>
</svg>"""


def figure(name: str = "seeds") -> Figure:
    hover = {"point:0:0": "none, seed 0: 97.00%", "point:0:1": "none, seed 1: 96.00%"}
    return Figure(name, {"hover": hover}, Images(PICTURE, b""), f"{name} of one variant.")


def paged(study: Study, figures: Iterable[Figure] = ()) -> str:
    arms = arms_of(study)
    return page(study, arms, {"table": ablation_table(study, None, arms)}, list(figures))


def made(folder: Path, outcomes: dict[str, list[Outcome]], spec: dict[str, Any] | None = None, **own: Any) -> Study:
    """A study whose variants have certificates, patches and a diagram; ``own`` is every record's."""
    patch = [["network.insert.attention", {"block": "cbam"}], ["train.schedule", None]]
    more = {name: {"certificate": CERTIFICATE, "patch": patch, **own} for name in outcomes}
    study = build(folder, outcomes, spec, more)
    return Study.create(study.folder, study.spec, study.variants, {"torch": "2.6"}, {"f" * 32: DIAGRAM})


class Seen(HTMLParser):
    """What a browser would make of a page: elements with their attributes, and the text of each kind of element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> ends another element"

    def handle_data(self, data: str) -> None:
        for tag in {*self._open}:
            self.texts[tag][-1] += data

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.elements if attribute in attributes]
