"""Means, differences and their intervals. All intervals are 95% unless said otherwise.

An interval needs two values; with one there is None, never a guess. A value that is not finite is refused: what a
diverged trial measured must not be averaged away; the table counts it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any, Literal, NamedTuple

import numpy as np

LEVEL = 0.95
ROUNDING = 1e-9
"""Of the values: what a difference of two may be off by."""
FEWEST_RESAMPLED = 10
"""Over three values a percentile bootstrap of the mean covers 75% of the time, not 95%; over ten, some 90%."""
RESAMPLES = 10_000

Method = Literal["t", "bootstrap"]


class Interval(NamedTuple):
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Summary:
    """Mean, standard deviation (n − 1) and t-interval of the mean; with one value, ``sd`` and ``interval`` are None."""

    mean: float
    sd: float | None
    n: int
    interval: Interval | None


@dataclass(frozen=True)
class Difference:
    """The mean of a − b. ``seeds`` are those that both have; None where nothing can be said (``n`` of 0 or 1)."""

    mean: float | None
    sd: float | None
    n: int
    interval: Interval | None
    seeds: tuple[Any, ...] = ()


def summary(values: Iterable[float], level: float = LEVEL, method: Method = "t") -> Summary:
    """Mean, standard deviation and interval of the mean of at least one value; of a bootstrap, ten for an interval."""
    array = finite(values)
    if array.size == 0:
        raise ValueError("a summary needs a value")
    mean, sd = moments(array)
    if sd is None:
        return Summary(mean, None, 1, None)
    if method == "bootstrap":
        enough = array.size >= FEWEST_RESAMPLED
        return Summary(mean, sd, array.size, bootstrap_interval(array, level) if enough else None)
    return Summary(mean, sd, array.size, around(mean, t_quantile(array.size - 1, level) * sd / math.sqrt(array.size)))


def bootstrap_interval(values: Iterable[float], level: float = LEVEL) -> Interval:
    """Bias-corrected and accelerated bootstrap interval of the mean (Efron, 1987), by ``scipy.stats.bootstrap``.

    ``ValueError`` for fewer than ten values: it would be far too narrow. The same values give the same interval.
    """
    array = finite(values)
    if array.size < FEWEST_RESAMPLED:
        raise ValueError(f"a bootstrap over {array.size} values is too narrow; at least {FEWEST_RESAMPLED} are needed")
    if (array == array[0]).all():
        return Interval(float(array[0]), float(array[0]))
    found = scipy_part("stats").bootstrap(
        (array,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=level,
        method="BCa",
        random_state=np.random.default_rng(0),
    )
    return Interval(float(found.confidence_interval.low), float(found.confidence_interval.high))


def paired_difference(
    a: Mapping[Any, float], b: Mapping[Any, float], level: float = LEVEL, method: Method = "t"
) -> Difference:
    """a − b, seed by seed. A seed that only one side has is left out; ``n`` is how many pairs there were."""
    seeds = tuple(seed for seed in a if seed in b)
    if not seeds:
        return Difference(None, None, 0, None)
    differences = np.array([a[seed] - b[seed] for seed in seeds])
    if np.ptp(differences) <= ROUNDING * max(abs(side[seed]) for side in (a, b) for seed in seeds):
        differences[:] = differences[0]  # equal but for the rounding of a subtraction, which is no spread
    found = summary(differences, level, method)
    return Difference(found.mean, found.sd, found.n, found.interval, seeds)


def unpaired_difference(a: Iterable[float], b: Iterable[float]) -> Difference:
    """mean(a) − mean(b) with Welch's interval (Satterthwaite's degrees of freedom).

    ``n`` counts the values of both sides. No interval with fewer than two values on either side. ``sd`` stays None:
    the sides have one each.
    """
    first, second = finite(a), finite(b)
    n = first.size + second.size
    if first.size == 0 or second.size == 0:
        return Difference(None, None, n, None)
    (mean_a, sd_a), (mean_b, sd_b) = moments(first), moments(second)
    mean = mean_a - mean_b
    if sd_a is None or sd_b is None:
        return Difference(mean, None, n, None)
    share_a, share_b = sd_a**2 / first.size, sd_b**2 / second.size
    error = math.sqrt(share_a + share_b)
    if error == 0:
        return Difference(mean, None, n, Interval(mean, mean))
    # Shares of the whole, since the squares of small variances underflow.
    part_a, part_b = share_a / (share_a + share_b), share_b / (share_a + share_b)
    freedom = 1 / (part_a**2 / (first.size - 1) + part_b**2 / (second.size - 1))
    return Difference(mean, None, n, around(mean, t_quantile(freedom) * error))


def prediction_interval(values: Iterable[float]) -> Interval | None:
    """Where one more run of the same kind falls, in 95% of cases; None for fewer than two values."""
    array = finite(values)
    if array.size < 2:
        return None
    mean, sd = moments(array)
    assert sd is not None
    return around(mean, t_quantile(array.size - 1) * sd * math.sqrt(1 + 1 / array.size))


@lru_cache(maxsize=1024)
def t_quantile(freedom: float, level: float = LEVEL) -> float:
    """The two-sided quantile of Student's t: ``level`` of the distribution lies within ± it."""
    return float(scipy_part("special").stdtrit(freedom, (1 + level) / 2))


def finite(values: Iterable[float]) -> np.ndarray:
    array = np.asarray(list(values), dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError("a value is not finite: count it as failed, do not average it")
    return array


def moments(array: np.ndarray) -> tuple[float, float | None]:
    """Mean and standard deviation; that of equal values is exactly zero, whatever the rounding of their mean."""
    if array.size == 1:
        return float(array[0]), None
    if (array == array[0]).all():
        return float(array[0]), 0.0
    return float(array.mean()), float(array.std(ddof=1))


def around(mean: float, half_width: float) -> Interval:
    return Interval(mean - half_width, mean + half_width)


def scipy_part(module: str) -> Any:
    """Late, since scipy takes longer to import than a table to print."""
    return import_module(f"scipy.{module}")
