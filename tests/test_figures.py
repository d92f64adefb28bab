"""Figures: the same bytes again, plain text whatever the labels are, nothing left behind; numbers are findings' own."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from ablate.figures import Figure, search_figures
from ablate.figures.canvas import LONGEST, label, tick_labels
from ablate.findings import Importance, findings_of
from tests.searches import BLOCK, LR, REDUCTION, SPACE, search, trained

HOSTILE = "<script>$\\frac{1}$ & a_long_name_that_does_not_fit_anywhere"


def figures(folder: Path, objectives: dict[str, str], blocks: tuple[str, ...] = ("se", "simam")) -> list[Figure]:
    trials: list[dict[str, Any]] = []
    for number in range(6):
        values = {BLOCK: blocks[number % 2], LR: 0.001 * 3**number, REDUCTION: [2, 4][number % 2]}
        values = values if number else {key: values[key] for key in (BLOCK, LR)}
        trials.append(trained(number, values, {"val.accuracy": 90 + number % 3}, flops=40_000_000 + 1000 * number))
    found = findings_of(search(folder, trials, objectives=objectives, space={**SPACE, BLOCK: {"choice": list(blocks)}}))
    by_path = [
        Importance(path, metric, 0.5 if path == LR else None, 0.2, 6) for metric in objectives for path in found.varying
    ]
    return list(search_figures(found, by_path))


def words(svg: bytes) -> str:
    return " ".join("".join(text.itertext()) for text in ElementTree.fromstring(svg).findall(".//{*}text"))


def test_of_the_same_numbers_the_same_bytes_and_matplotlib_as_it_was(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    first, again = (figures(tmp_path / name, {"val.accuracy": "maximize", "flops": "minimize"}) for name in "ab")
    assert [each.name for each in first] == ["history", "front", "slices", "importance"]
    assert first == again
    assert dict(matplotlib.rcParams) == before
    for each in first:
        json.dumps(each.numbers, allow_nan=False)
        assert each.images.png.startswith(b"\x89PNG")
        assert b"<dc:date>" not in each.images.svg
    shown = {each.name: words(each.images.svg) for each in first}
    assert "flops (MACs), less is better" in shown["front"]
    assert "reduction, active in 5 of 6" in shown["slices"]
    assert "not told" in shown["importance"]


def test_labels_are_plain_text_and_escaped(tmp_path: Path) -> None:
    with matplotlib.rc_context({"text.usetex": True, "svg.fonttype": "path"}):  # what a user's own settings could say
        made = figures(tmp_path, {"val.accuracy": "maximize"}, (HOSTILE, "simam"))
    assert [each.name for each in made] == ["history", "slices", "importance"]
    for each in made:
        assert b"<script" not in each.images.svg
    assert label(HOSTILE) in words(made[1].images.svg)
    assert len(label(HOSTILE)) == LONGEST


@pytest.mark.parametrize(
    ("metric", "ticks", "texts"),
    [
        ("val.accuracy", [95.0, 97.5, 100.0], ["95.0", "97.5", "100.0"]),
        ("flops", [40e6, 41.25e6, 42.5e6], ["40.00 M", "41.25 M", "42.50 M"]),
        ("params", [0.0, 500.0, 1000.0], ["0.0 k", "0.5 k", "1.0 k"]),
        ("latency", [0.001, 0.0015], ["1.0", "1.5"]),
        ("memory", [2**20, 2 * 2**20], ["1 MiB", "2 MiB"]),
        ("naswot", [-2.0, 0.0], ["−2", "0"]),
        ("val.loss", [1.0], ["1"]),
        ("val.loss", [0.0], ["0"]),
        ("val.loss", [], []),
    ],
)
def test_ticks_say_what_they_are_at(metric: str, ticks: list[float], texts: list[str]) -> None:
    assert tick_labels(metric, ticks) == texts
