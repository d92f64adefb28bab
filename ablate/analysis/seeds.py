"""Each variant's values of one metric, seed by seed, with what papers published of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ablate import stats
from ablate.analysis.arms import Arm
from ablate.quantities import less_is_better


@dataclass(frozen=True)
class Spread:
    """A variant: its values by seed, their mean with the 95% interval, in the metric's unit.

    ``trials`` counts those of the design, of which some may have no value; ``published`` are paper → value.
    """

    variant: str
    values: Mapping[str, float]
    mean: float | None
    interval: stats.Interval | None
    trials: int
    published: Mapping[str, float] = field(default_factory=dict)


def spreads_of(
    arms: Sequence[Arm], metric: str, published: Mapping[str, Mapping[str, float]] | None = None
) -> list[Spread]:
    """One for each variant, in their order; ``published`` are variant → paper → value."""
    return [_spread(arm, metric, (published or {}).get(arm.name, {})) for arm in arms]


def _spread(arm: Arm, metric: str, published: Mapping[str, float]) -> Spread:
    values = arm.values(metric)
    found = arm.summary(metric)
    mean, interval = (found.mean, found.interval) if found else (None, None)
    return Spread(arm.name, values, mean, interval, len(arm.results), published)


def told(arms: Sequence[Arm], metric: str | None, most: int) -> list[Arm]:
    """The ``most`` that say most, in their order: the baselines, and then those with the best means of the metric."""
    if len(arms) <= most:
        return list(arms)
    baselines = {arm.baseline for arm in arms}
    sign = 1 if metric and less_is_better(metric) else -1

    def rank(index: int) -> tuple[bool, bool, float, int]:
        values = list(arms[index].values(metric).values()) if metric else []
        mean = sign * sum(values) / len(values) if values else 0.0
        return arms[index].name not in baselines, not values, mean, index

    return [arms[index] for index in sorted(sorted(range(len(arms)), key=rank)[:most])]
