"""What papers published, beside what was measured, and the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ablate import stats
from ablate.quantities import COSTS, format_value, unit_of
from ablate.report.arms import Arm, Part
from ablate.report.values import Cell, Column, format_published

COST_VERDICTS = "Verdict on a cost: reproduced if it rounds to the published number, to the digits that were printed."


@dataclass(frozen=True)
class Published:
    """One entry of the spec's ``paper`` section."""

    label: str
    metric: str
    values: Mapping[str, tuple[float, float]]
    """name → (value, plus_minus)"""
    printed_to: float | None = None
    not_reproducible: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Published:
        label = str(entry.get("title", "paper"))
        if entry.get("table") is not None:
            label += f" Table {entry['table']}"
        values = {name: _published(value) for name, value in entry["values"].items()}
        reasons = entry.get("not_reproducible") or {}
        return cls(label, str(entry["metric"]), values, entry.get("printed_to"), reasons)


def told_apart(papers: list[Published]) -> list[Published]:
    """Two entries for one table of a paper (two metrics of it) have labels of their own."""
    labels = Counter(paper.label for paper in papers)
    return [replace(p, label=f"{p.label} {p.metric}") if labels[p.label] > 1 else p for p in papers]


def only_published(arms: list[Arm], papers: list[Published]) -> list[Arm]:
    names = dict.fromkeys(name for paper in papers for name in paper.values)
    return [Arm(name) for name in names if name not in {arm.name for arm in arms}]


def paper_parts(paper: Published, alone: bool) -> list[Part]:
    metric = paper.metric
    uncertain = any(plus_minus for _, plus_minus in paper.values.values())

    def published(arm: Arm) -> Cell:
        if arm.name not in paper.values:
            return Cell()
        value, plus_minus = paper.values[arm.name]
        text = format_published(metric, value, paper.printed_to)
        if not plus_minus:
            return Cell(text, value)
        interval = stats.Interval(value - plus_minus, value + plus_minus)
        return Cell(f"{text} ± {format_value(metric, plus_minus)}", value, interval)

    def verdict(arm: Arm) -> Cell:
        if arm.name not in paper.values:
            return Cell()
        if metric in COSTS:
            return verdict_on_cost(
                arm.cost(metric), *paper.values[arm.name], paper.printed_to, paper.not_reproducible.get(arm.name)
            )
        return Cell(stats.verdict(arm.values(metric).values(), *paper.values[arm.name]))

    return [
        (Column(paper.label, unit_of(metric), "right", "estimate" if uncertain else "number"), published),
        (Column("verdict" if alone else f"verdict on {paper.label}"), verdict),
    ]


def verdict_on_cost(
    value: float | None, published: float, plus_minus: float, printed_to: float | None, reason: str | None
) -> Cell:
    """The verdict on parameters or FLOPs; with a ``reason`` why none could have it, that as a footnote."""
    found = stats.verdict_exact(value, published, plus_minus, printed_to=printed_to, impossible=reason is not None)
    return Cell(found, note=reason or "" if found == "not reproducible" else "")


def _published(value: Any) -> tuple[float, float]:
    if isinstance(value, Mapping):
        return float(value["value"]), float(value.get("plus_minus") or 0.0)
    return float(value), 0.0
