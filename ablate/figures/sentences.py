"""What a study's figures show, in sentences with their numbers: for captions, and for who can't see them."""

from __future__ import annotations

from collections.abc import Sequence

from ablate import stats
from ablate.analysis.comparisons import Comparison
from ablate.analysis.costs import Trade
from ablate.analysis.curves import Curve
from ablate.analysis.effects import Effect, Effects, Interaction
from ablate.analysis.seeds import Spread
from ablate.errors import listed
from ablate.quantities import format_value, less_is_better, unit_of


def quantity(metric: str, value: float) -> str:
    """With its unit, as in a sentence."""
    unit = unit_of(metric)
    return format_value(metric, value) + (unit if unit == "%" else f" {unit}" if unit else "")


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def seeds_text(metric: str, rows: Sequence[Spread], comparisons: Sequence[Comparison]) -> str:
    """Best and worst, and the largest difference to a baseline."""
    said = [f"{metric} of {counted(len(rows), 'variant')}: a dot per seed, the mean, and its 95% interval."]
    told = [(row.mean, row) for row in rows if row.mean is not None]
    told.sort(key=lambda each: each[0] if less_is_better(metric) else -each[0])
    if told:
        (best, first), (worst, last) = told[0], told[-1]
        said.append(f"Best mean: {first.variant}, {quantity(metric, best)} ({counted(len(first.values), 'seed')}).")
        if len(told) > 1:
            said.append(f"Worst: {last.variant}, {quantity(metric, worst)}.")
    shown = {row.variant for row in rows}
    own = [
        (each, each.paired.mean)
        for each in comparisons
        if each.kind == "baseline" and each.variant in shown and each.paired.mean is not None
    ]
    if own:
        most, mean = max(own, key=lambda each: abs(each[1]))
        said.append(
            f"Farthest from its baseline {most.baseline}: {most.variant}, by {_difference(metric, mean, most.paired)}."
        )
    return " ".join(said)


def _difference(metric: str, mean: float, found: stats.Difference) -> str:
    unit = "points" if unit_of(metric) == "%" else unit_of(metric)
    text = f"{format_value(metric, mean, sign=True)} {unit}".rstrip()
    if found.interval is None:
        return text
    low, high = (format_value(metric, end, sign=True) for end in found.interval)
    return f"{text}, 95% interval [{low}, {high}]"


def curves_text(found: Sequence[Curve]) -> str:
    """Where each variant ends on the last of the splits."""
    metrics = list(dict.fromkeys(curve.metric for curve in found))
    last = [curve for curve in found if curve.metric == metrics[-1]]
    ends = [f"{each.variant} {quantity(each.metric, each.mean[-1])} (epoch {each.epochs[-1]})" for each in last]
    return f"{listed(metrics)} by epoch, mean over seeds. {metrics[-1]} ends at: {'; '.join(ends)}."


def costs_text(trades: Sequence[Trade]) -> str:
    """Who is on which front."""
    said = [f"{trades[0].metric} against {listed([each.cost for each in trades])}, a point per variant."]
    for trade in trades:
        by_name = {point.variant: point for point in trade.points}
        ends = [by_name[name] for name in dict.fromkeys((trade.front[0], trade.front[-1]))]
        texts = [
            f"{each.variant} ({quantity(trade.cost, each.cost)}, {quantity(trade.metric, each.mean)})" for each in ends
        ]
        of = f"{len(trade.front)} of {counted(len(trade.points), 'variant')}"
        said.append(f"Pareto front in {trade.cost}: {of}, {' to '.join(texts)}.")
    return " ".join(said)


def effects_text(found: Effects) -> str:
    """The best level of each factor."""
    factors: dict[str, list[Effect]] = {}
    for each in found.main:
        factors.setdefault(each.factor, []).append(each)
    sign = -1 if less_is_better(found.metric) else 1
    best = [max(levels, key=lambda each: sign * each.mean) for levels in factors.values()]
    parts = [
        f"{each.factor}: {each.level}, {_difference(found.metric, each.difference.mean or 0.0, each.difference)}"
        for each in best
    ]
    return (
        f"{found.metric} by the level of each factor, averaged over all other factors, with its 95% interval over "
        f"{counted(len(found.seeds), 'seed')}. The best levels, against the mean over the grid: {'; '.join(parts)}."
    )


def interactions_text(metric: str, cells: Sequence[Interaction]) -> str:
    """The cell that is farthest from what the main effects add up to."""
    most = max(cells, key=lambda each: abs(each.difference.mean or 0.0))
    of = " and ".join(f"{factor} {level}" for factor, level in zip(most.factors, most.levels, strict=True))
    difference = _difference(metric, most.difference.mean or 0.0, most.difference)
    return (
        f"Mean {metric} of the levels of two factors together, with a line for each level of the one. Farthest from "
        f"what the main effects add up to: {of}, by {difference}."
    )
