"""Which figures a study has, each with its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ablate.analysis.arms import Arm
from ablate.analysis.comparisons import Comparison
from ablate.analysis.costs import trades_of
from ablate.analysis.curves import Curve, curves_of, rows_of
from ablate.analysis.effects import Effect, Effects, Interaction
from ablate.analysis.papers import other_budget, published_in
from ablate.analysis.seeds import Spread, spreads_of, told
from ablate.analysis.widths import is_complete
from ablate.errors import listed
from ablate.figures import by_epoch, by_factor, by_variant, sentences
from ablate.figures.canvas import draw
from ablate.figures.figure import Figure
from ablate.figures.looks import LOOKS, looks_of
from ablate.figures.sentences import counted, quantity
from ablate.store import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

MOST_ROWS = 60
MOST_PANELS = 6
"""Of factors, and of pairs of them."""
BANDS = {
    "95% t-interval": "95% t-intervals",
    "lowest to highest": "from the lowest to the highest seed",
    "": "none, for a single seed",
}


def study_figures(
    study: Study,
    arms: Sequence[Arm],
    metric: str | None,
    comparisons: Sequence[Comparison] = (),
    effects: Effects | None = None,
) -> Iterator[Figure]:
    """``seeds``, ``curves``, ``costs``, ``effects`` and ``interactions``, as far as they say anything.

    ``metric`` is what the variants are compared by. Of what is too much for a figure, it says how much is left out;
    the numbers name it. An element's id is ``point:SERIES:SEED``, its series the variant's place in ``arms``.
    """
    title = str(study.spec.get("name") or study.folder.name)

    def figure(name: str, numbers: dict[str, Any], text: str, act: Callable[[Canvas], None]) -> Figure:
        images = draw(f"{title}: {name}", act)  # first, as numbers may say what found no room
        return Figure(name, numbers, images, text)

    if metric and any(arm.values(metric) for arm in arms):
        yield figure(*_seeds(study, arms, metric, comparisons))
    if drawn := _curves(study, arms, metric):
        yield figure(*drawn)
    if metric and (drawn := _costs(arms, metric)):
        yield figure(*drawn)
    if effects and effects.main:
        yield figure(*_effects(effects))
        yield figure(*_interactions(effects))


Drawn = tuple[str, dict[str, Any], str, "Callable[[Canvas], None]"]
"""Name, numbers, text, and what draws it."""


def _seeds(study: Study, arms: Sequence[Arm], metric: str, comparisons: Sequence[Comparison]) -> Drawn:
    published, why_not = _published(study, metric)
    shown = {arm.name for arm in told(arms, metric, MOST_ROWS)}
    every = spreads_of(arms, metric, published)
    series, rows = zip(*[(index, row) for index, row in enumerate(every) if row.variant in shown], strict=True)
    hover: dict[str, str] = {}
    for index, row in zip(series, rows, strict=True):
        hover |= {_id(index, key): f"{row.variant}, {said}" for key, said in _said_of(row, metric)}
    baselines = {arm.baseline for arm in arms if arm.baseline is not None}
    baseline = next(iter(baselines)) if len(baselines) == 1 else None
    notes = [*_left_out(arms, len(rows)), *why_not]
    numbers = {
        "metric": metric,
        "variants": [_spread_record(row) for row in every],
        "not_drawn": [row.variant for row in every if row.variant not in shown],
        "hover": hover,
    }
    text = " ".join([sentences.seeds_text(metric, rows, comparisons), *notes])

    def act(canvas: Canvas) -> None:
        by_variant.seeds(canvas, metric, rows, baseline, lambda row, key: _id(series[row], key), notes)

    return "seeds", numbers, text, act


def _said_of(row: Spread, metric: str) -> Iterator[tuple[str, str]]:
    """The key of each of its points, and what it stands for."""
    for seed, value in row.values.items():
        yield seed, f"seed {seed}: {quantity(metric, value)}"
    for number, (paper, value) in enumerate(row.published.items()):
        yield by_variant.published_key(number), f"{paper}: {quantity(metric, value)}"
    if row.mean is not None:
        yield "mean", f"mean of {counted(len(row.values), 'seed')}: {quantity(metric, row.mean)}"


def _spread_record(row: Spread) -> dict[str, Any]:
    return {**asdict(row), "interval": row.interval and [*row.interval]}


def _published(study: Study, metric: str) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Variant → paper → value, and why there are none though papers have some."""
    found: dict[str, dict[str, float]] = {}
    for paper in published_in(study):
        for name, (value, _) in paper.values.items() if paper.metric == metric else ():
            found.setdefault(name, {})[paper.label] = value
    if found and (budget := other_budget(study)):
        return {}, [f"Published values are not drawn: another budget ({budget})."]
    return found, []


def _curves(study: Study, arms: Sequence[Arm], metric: str | None) -> Drawn | None:
    own = [arm for arm in arms if not arm.record.get("duplicate_of")]
    finished = [arm for arm in own if arm.finished()]
    shown = told(finished, metric, len(LOOKS))
    found = curves_of(rows_of(study, shown), hidden=[] if is_complete(study, arms) else ["test"])
    # a single epoch is a point, not a curve
    if max((len(curve.epochs) for curve in found), default=0) < 2:
        return None
    series = {arm.name: index for index, arm in enumerate(arms)}
    ids = {(curve.metric, curve.variant): f"line:{curve.metric}:{series[curve.variant]}" for curve in found}
    hover = {
        ids[curve.metric, curve.variant]: f"{curve.variant}, {curve.metric} after epoch {curve.epochs[-1]}: "
        + quantity(curve.metric, curve.mean[-1])
        for curve in found
    }
    names = [arm.name for arm in shown]
    notes = [*_about_curves(found, shown), *_left_out(finished, len(shown))]
    if len(finished) < len(own):
        notes.append(f"Without a finished trial: {listed([arm.name for arm in own if not arm.finished()])}.")
    numbers = {
        "curves": [asdict(curve) for curve in found],
        "not_drawn": [arm.name for arm in own if arm.name not in names],
        "hover": hover,
    }
    baselines = {arm.baseline for arm in arms}
    looks = looks_of(names, next((name for name in names if name in baselines), None))
    text = " ".join([sentences.curves_text(found), *notes])
    return "curves", numbers, text, lambda canvas: by_epoch.curves(canvas, found, looks, ids, notes)


def _about_curves(found: Sequence[Curve], shown: Sequence[Arm]) -> list[str]:
    bands: dict[str, list[str]] = {}
    for curve in found:
        bands.setdefault(curve.band, []).append(curve.variant)
    parts = [
        BANDS[band] + ("" if len(bands) == 1 else f" ({', '.join(dict.fromkeys(names))})")
        for band, names in bands.items()
    ]
    said = [f"Lines: means over seeds. Bands: {'; '.join(parts)}."]
    if any(len({*curve.n}) > 1 for curve in found):
        said.append("Where trials ended early, the mean is over those still training.")
    unfinished = sum(len(arm.results) - len(arm.finished()) for arm in shown)
    if unfinished:
        said.append(f"In no mean: {counted(unfinished, 'trial')} that did not finish.")
    return said


def _costs(arms: Sequence[Arm], metric: str) -> Drawn | None:
    trades = trades_of(arms, metric)
    if not trades:
        return None
    series = {arm.name: index for index, arm in enumerate(arms)}

    def identify(cost: str, name: str) -> str:
        return f"point:{cost}-{series[name]}:mean"

    hover = {
        identify(each.cost, point.variant): f"{point.variant}: {quantity(each.cost, point.cost)}, "
        + quantity(metric, point.mean)
        for each in trades
        for point in each.points
    }
    notes = ["Points: means over seeds; lines: their 95% intervals; the Pareto front is that of the means."]
    numbers: dict[str, Any] = {"trades": [asdict(each) for each in trades], "hover": hover}

    def act(canvas: Canvas) -> None:
        numbers["not_named"] = dict(by_variant.costs(canvas, trades, identify, notes))

    return "costs", numbers, " ".join([sentences.costs_text(trades), *notes]), act


def _effects(found: Effects) -> Drawn:
    factors: dict[str, list[Effect]] = {}
    for each in found.main:
        factors.setdefault(each.factor, []).append(each)
    drawn = list(factors.values())[:MOST_PANELS]
    hover = {
        _place_id(panel, 0, place): f"{each.factor} {each.level}: {quantity(found.metric, each.mean)}"
        for panel, levels in enumerate(drawn)
        for place, each in enumerate(levels)
    }
    notes = ["Intervals: 95% t-intervals of the difference to the mean over the grid, paired by seed."]
    if len(drawn) < len(factors):
        notes.append(f"Drawn: {len(drawn)} of {len(factors)} factors.")
    numbers = {"metric": found.metric, "main": [asdict(each) for each in found.main], "hover": hover}
    text = " ".join([sentences.effects_text(found), *notes])
    return "effects", numbers, text, lambda canvas: by_factor.effects(canvas, found.metric, drawn, _place_id, notes)


def _interactions(found: Effects) -> Drawn:
    pairs: dict[tuple[str, str], list[Interaction]] = {}
    for each in found.interactions:
        pairs.setdefault(each.factors, []).append(each)
    drawn = list(pairs.values())[:MOST_PANELS]
    hover = {
        _place_id(*at): f"{' and '.join(each.levels)}: {quantity(found.metric, each.mean)}"
        for panel, cells in enumerate(drawn)
        for at, each in by_factor.places_of(panel, cells)
    }
    notes = [
        "Short bars: what the main effects add up to. Intervals: 95% t-intervals of the distance from it, by seed."
    ]
    if len(drawn) < len(pairs):
        notes.append(f"Drawn: {len(drawn)} of {len(pairs)} pairs of factors.")
    numbers = {"metric": found.metric, "cells": [asdict(each) for each in found.interactions], "hover": hover}
    text = " ".join([sentences.interactions_text(found.metric, found.interactions), *notes])

    def act(canvas: Canvas) -> None:
        by_factor.interactions(canvas, found.metric, drawn, _place_id, notes)

    return "interactions", numbers, text, act


def _left_out(arms: Sequence[Arm], drawn: int) -> list[str]:
    if drawn == len(arms):
        return []
    return [f"Drawn: {drawn} of {len(arms)} variants, the baselines and those with the best means."]


def _id(series: int, key: str) -> str:
    return f"point:{series}:{key}"


def _place_id(panel: int, line: int, place: int) -> str:
    return f"point:{panel}-{line}-{place}:mean"
