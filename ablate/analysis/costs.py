"""What a metric costs: each variant's mean against its FLOPs, its parameters and its time, and the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ablate import stats
from ablate.analysis.arms import Arm
from ablate.quantities import COSTS, less_is_better

PRICES = ("flops", "params", "seconds")
Point = tuple[float, float]


@dataclass(frozen=True)
class Priced:
    """A variant: its cost, and the mean of the metric over ``n`` finished trials with its 95% t-interval."""

    variant: str
    cost: float
    mean: float
    interval: stats.Interval | None
    n: int


@dataclass(frozen=True)
class Trade:
    """A metric against one cost (MACs, parameters, or seconds a trial).

    ``front`` names the variants that none beats in one without being worse in the other, the cheapest first, by their
    means alone: neighbours on it may be apart by less than their intervals. ``steps`` are the corners of the line
    between what was reached and what was not.
    """

    cost: str
    metric: str
    points: tuple[Priced, ...]
    front: tuple[str, ...]
    steps: tuple[Point, ...]


def trades_of(arms: Sequence[Arm], metric: str) -> list[Trade]:
    """One for each cost in which the variants differ; of duplicates the first alone, as they are one network."""
    own = [arm for arm in arms if not arm.record.get("duplicate_of")]
    trades = [trade(cost, metric, [each for arm in own if (each := _priced(arm, cost, metric))]) for cost in PRICES]
    return [each for each in trades if len({point.cost for point in each.points}) > 1]


def _priced(arm: Arm, cost: str, metric: str) -> Priced | None:
    found = arm.summary(metric)
    seconds = list(arm.values("seconds").values())
    price = arm.cost(cost) if cost in COSTS else stats.summary(seconds).mean if seconds else None
    if price is None or found is None:
        return None
    return Priced(arm.name, price, found.mean, found.interval, found.n)


def trade(cost: str, metric: str, points: Sequence[Priced]) -> Trade:
    """These variants with their front."""
    way = "minimize" if less_is_better(metric) else "maximize"
    sign = 1 if way == "minimize" else -1
    front: list[Priced] = []
    for point in sorted(points, key=lambda each: (each.cost, sign * each.mean)):
        equal = bool(front) and (point.cost, point.mean) == (front[-1].cost, front[-1].mean)
        if not front or equal or sign * point.mean < sign * front[-1].mean:
            front.append(point)
    steps = corners([(each.cost, each.mean) for each in front], "minimize")
    return Trade(cost, metric, tuple(points), tuple(each.variant for each in front), steps)


def corners(points: Sequence[Point], way: str) -> tuple[Point, ...]:
    """The line through points of a front, which come by their x; ``way`` says which x is better.

    Between two of them, who spends x of the one can have no more than its y.
    """
    line = list(points[:1])
    for (x, y), (next_x, next_y) in pairwise(points):
        line += [(next_x, y) if way == "minimize" else (x, next_y), (next_x, next_y)]
    return tuple(line)
