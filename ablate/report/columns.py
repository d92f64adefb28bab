"""Columns that installed packages add to the table, by entry points of the group ``ablate.columns``.

    def best_epoch(row: ablate.Row):
        return {seed: result["selected_epoch"] for seed, result in row.results.items()}

    best_epoch.unit = "epoch"

It is called for each row. What it returns decides the cell: a number; a text; a value by seed, shown as its mean with
an interval over the seeds; or None, for an empty one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from ablate import stats
from ablate.analysis.arms import Arm
from ablate.errors import printable
from ablate.plugins import COLUMNS, plugins, refused, why_not
from ablate.report.arms import Part
from ablate.report.values import Cell, Column

Value = float | int | str | Mapping[int, float | None] | None


@dataclass(frozen=True)
class Row:
    """What a column sees of a variant. Of the test split it has nothing before every trial has a result."""

    variant: str
    levels: Mapping[str, str] = field(default_factory=dict)
    """Factor → level."""
    cost: Mapping[str, float] = field(default_factory=dict)
    """``params``, ``flops`` (multiply-accumulates for one example)."""
    results: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """Of the trials that finished, by seed: ``metrics`` (name → value), ``epochs``, ``seconds`` and more."""
    baseline: Row | None = None
    """What it is compared with; None of a baseline."""


@runtime_checkable
class TableColumn(Protocol):
    """A function of a row. An attribute ``unit`` stands in the column's header."""

    def __call__(self, row: Row) -> Value: ...


def column_names() -> list[str]:
    """Of what is installed."""
    return list(plugins(COLUMNS))


def unusable_column(name: str, builtin: bool) -> str:
    """Why an installed column can't be used; empty where it can, or where none has the name."""
    return why_not(COLUMNS, name, builtin)


def column_part(name: str, arms: Sequence[Arm], hidden: bool) -> Part:
    """The column of that name. ``hidden``: whether results of the test split may not be seen yet."""
    plugin = plugins(COLUMNS)[name]
    made: Callable[[Row], Value] = plugin.load()
    if not callable(made):
        raise refused(plugin, f"is no function of a row: {type(made).__name__}")
    unit = str(getattr(made, "unit", ""))
    rows = {arm.name: _row(arm, {each.name: each for each in arms}, hidden) for arm in arms}
    cells: dict[str, Cell] = {}
    for arm in arms:
        try:
            cells[arm.name] = _cell(made(rows[arm.name]), arm) if arm.run else Cell()
        except Exception as error:  # a stranger's code: the rest of the table is shown all the same
            said = printable(f"{plugin} raises {type(error).__name__}: {str(error).strip()[:200]}")
            cells[arm.name] = Cell("failed", note=said)
    over_seeds = any(cell.n is not None for cell in cells.values())
    numbers = any(cell.value is not None for cell in cells.values())
    kind = "estimate" if over_seeds else "number" if numbers else "text"
    return Column(name, unit, "right" if numbers else "left", kind), lambda arm: cells[arm.name]  # type: ignore[arg-type]


def _row(arm: Arm, arms: Mapping[str, Arm], hidden: bool) -> Row:
    baseline = arms.get(arm.baseline) if arm.baseline is not None else None
    return Row(
        variant=arm.name,
        levels=dict(arm.record.get("levels") or {}),
        cost={name: value for name, value in (arm.record.get("cost") or {}).items() if value is not None},
        results={int(seed): _shown(result, hidden) for seed, result in arm.finished().items()},
        baseline=_row(baseline, {}, hidden) if baseline is not None else None,
    )


def _shown(result: Mapping[str, Any], hidden: bool) -> Mapping[str, Any]:
    if not hidden:
        return result
    metrics = {name: value for name, value in (result.get("metrics") or {}).items() if not name.startswith("test.")}
    return {**result, "metrics": metrics}


def _cell(value: Value, arm: Arm) -> Cell:
    if value is None:
        return Cell()
    if isinstance(value, str):
        return Cell(printable(value))
    if isinstance(value, Mapping):
        return _over_seeds([float(each) for each in value.values() if each is not None and math.isfinite(each)], arm)
    if not math.isfinite(value):
        return Cell("not finite")
    return Cell(_text(value), value)


def _over_seeds(values: Sequence[float], arm: Arm) -> Cell:
    if not values:
        return Cell("not measured" if arm.finished() else "none finished")
    found = stats.summary(values, method=arm.method)
    count = f" (n={found.n})" if found.n != len(arm.results) else ""
    if found.interval is None:
        return Cell(f"{_text(found.mean)}{count}", found.mean, None, found.n)
    half = f" ± {_text(found.interval.half_width)}"
    between = f" [{_text(found.interval.low)}, {_text(found.interval.high)}]"
    text = f"{_text(found.mean)}{between if arm.method == 'bootstrap' else half}{count}"
    return Cell(text, found.mean, found.interval, found.n)


def _text(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}".replace("-", "−")
