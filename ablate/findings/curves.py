"""The numbers of a search's figures: how it went on, the front, and each objective along each path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ablate.analysis.costs import Point, corners
from ablate.findings.scales import Scale, scale_of
from ablate.findings.values import Findings, Trial, is_trained


@dataclass(frozen=True)
class History:
    """One objective by the number of the proposal.

    ``finished`` are all that have a value, ``best`` those that were better than all before them; ``pruned`` have the
    value of their last epoch, and are never the best.
    """

    objective: str
    way: str
    finished: tuple[tuple[int, float], ...]
    best: tuple[tuple[int, float], ...]
    pruned: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Front:
    """Two objectives against each other. ``front`` and ``others`` are the ranked trials, as (name, x, y).

    ``steps`` are the corners of the line that separates what was reached from what was not; none with three objectives
    or more, of which two do not tell who is on the front.
    """

    x: str
    y: str
    ways: tuple[str, str]
    front: tuple[tuple[str, float, float], ...]
    others: tuple[tuple[str, float, float], ...]
    steps: tuple[Point, ...]


@dataclass(frozen=True)
class Panel:
    """One objective along one path: (name, where on the scale, value) of the ranked trials in which it is active."""

    objective: str
    way: str
    scale: Scale
    points: tuple[tuple[str, float | str, float], ...]
    inactive: int
    """How many ranked trials the path is not active in."""


def histories(found: Findings) -> list[History]:
    """One for each objective."""
    return [_history(found, metric, way) for metric, way in found.objectives.items()]


def _history(found: Findings, metric: str, way: str) -> History:
    finished = _values(found, metric, "finished")
    best: list[tuple[int, float]] = []
    for number, value in finished:
        if not best or (value < best[-1][1] if way == "minimize" else value > best[-1][1]):
            best.append((number, value))
    pruned = _values(found, metric, "pruned") if is_trained(metric) else ()
    return History(metric, way, finished, tuple(best), pruned)


def _values(found: Findings, metric: str, status: str) -> tuple[tuple[int, float], ...]:
    values = [(trial.number, trial.value(metric)) for trial in found.trials if trial.status == status]
    return tuple((number, value) for number, value in values if value is not None)


def fronts(found: Findings) -> list[Front]:
    """The first objective that only training tells, upwards, against each other one; none for a single objective."""
    objectives = found.objectives
    y = next((metric for metric in objectives if is_trained(metric)), next(iter(objectives), ""))
    return [_front(found, x, y) for x in objectives if x != y]


def _front(found: Findings, x: str, y: str) -> Front:
    def placed(trial: Trial) -> tuple[str, float, float]:
        return trial.name, trial.metrics[x], trial.metrics[y]

    ways = found.objectives[x], found.objectives[y]
    front = tuple(sorted(map(placed, found.front), key=lambda each: each[1:]))
    others = tuple(map(placed, found.ranked[found.on_front :]))
    steps = corners([(a, b) for _, a, b in front], ways[0]) if len(found.objectives) == 2 else ()
    return Front(x, y, ways, front, others, steps)


def slices(found: Findings, paths: Sequence[str] | None = None) -> list[list[Panel]]:
    """A row for each of these paths, or of all that vary; in it a panel for each objective."""
    scales = [scale_of(found, path) for path in (found.varying if paths is None else paths)]
    objectives = found.objectives.items()
    return [[_panel(found, scale, metric, way) for metric, way in objectives] for scale in scales]


def _panel(found: Findings, scale: Scale, metric: str, way: str) -> Panel:
    placed = [(trial.name, scale.of(trial), trial.metrics[metric]) for trial in found.ranked]
    points = tuple((name, where, value) for name, where, value in placed if where is not None)
    return Panel(metric, way, scale, points, len(placed) - len(points))
