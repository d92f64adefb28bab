"""Statistics of a study: summaries, differences, intervals, tests, effects, verdicts. Pure functions of numbers.

All intervals are 95% unless said otherwise. An interval needs two values; with one there is None, never a guess.
A value that is not finite is refused: what a diverged trial measured must not be averaged away; the table counts it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, NamedTuple

import numpy as np

LEVEL = 0.95
POWER = 0.8
MOST_SIGN_FLIPS = 40
"""Differences up to which the sign-flip p is exact: 2**20 sums for each half."""

Verdict = Literal["reproduced", "differs", "inconclusive", "not run", "not reproducible"]


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


@dataclass(frozen=True)
class RankCorrelation:
    """From −1 (opposite orders) over 0 to 1 (one order); None where nothing can be said. ``n`` pairs."""

    spearman: float | None
    kendall: float | None
    n: int


def summary(values: Iterable[float]) -> Summary:
    """Mean, standard deviation and 95% t-interval of at least one value."""
    array = _finite(values)
    if array.size == 0:
        raise ValueError("a summary needs a value")
    mean, sd = _moments(array)
    if sd is None:
        return Summary(mean, None, 1, None)
    return Summary(mean, sd, array.size, _around(mean, t_quantile(array.size - 1) * sd / math.sqrt(array.size)))


def paired_difference(a: Mapping[Any, float], b: Mapping[Any, float]) -> Difference:
    """a − b, seed by seed. A seed that only one side has is left out; ``n`` is how many pairs there were."""
    seeds = tuple(seed for seed in a if seed in b)
    if not seeds:
        return Difference(None, None, 0, None)
    found = summary([a[seed] - b[seed] for seed in seeds])
    return Difference(found.mean, found.sd, found.n, found.interval, seeds)


def unpaired_difference(a: Iterable[float], b: Iterable[float]) -> Difference:
    """mean(a) − mean(b) with Welch's interval (Satterthwaite's degrees of freedom).

    ``n`` counts the values of both sides. No interval with fewer than two values on either side. ``sd`` stays None:
    the sides have one each.
    """
    first, second = _finite(a), _finite(b)
    n = first.size + second.size
    if first.size == 0 or second.size == 0:
        return Difference(None, None, n, None)
    (mean_a, sd_a), (mean_b, sd_b) = _moments(first), _moments(second)
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
    return Difference(mean, None, n, _around(mean, t_quantile(freedom) * error))


def hedges_g(a: Iterable[float], b: Iterable[float]) -> float | None:
    """(mean(a) − mean(b)) / pooled sd, times the exact small-sample factor (Hedges, 1981).

    None with fewer than two values on either side, or where neither side varies.
    """
    first, second = _finite(a), _finite(b)
    if first.size < 2 or second.size < 2:
        return None
    (mean_a, sd_a), (mean_b, sd_b) = _moments(first), _moments(second)
    assert sd_a is not None
    assert sd_b is not None
    freedom = first.size + second.size - 2
    pooled = math.sqrt(((first.size - 1) * sd_a**2 + (second.size - 1) * sd_b**2) / freedom)
    if pooled == 0:
        return None
    correction = math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)
    return correction * (mean_a - mean_b) / pooled


def sign_flip_p(differences: Iterable[float]) -> float | None:
    """Exact two-sided p of paired differences: the share of all 2**n sign patterns with a mean at least as far from 0.

    None without a difference. ``ValueError`` beyond ``MOST_SIGN_FLIPS`` differences.
    """
    array = _finite(differences)
    if array.size == 0:
        return None
    if array.size > MOST_SIGN_FLIPS:
        raise ValueError(f"{array.size} differences: the exact test takes at most {MOST_SIGN_FLIPS}")
    # Equal sums differ in their last bits, depending on the order of the additions.
    threshold = abs(math.fsum(array)) - 1e-9 * math.fsum(np.abs(array))
    if threshold <= 0:
        return 1.0
    left, right = _signed_sums(array[: array.size // 2]), np.sort(_signed_sums(array[array.size // 2 :]))
    beyond: int = np.sum(right.size - np.searchsorted(right, threshold - left)).item()
    return float(2 * beyond / 2**array.size)


def smallest_p(n: int, comparisons: int = 1) -> float:
    """The smallest p that ``n`` pairs can give by sign flips, after Holm over ``comparisons``."""
    if n < 0 or comparisons < 1:
        raise ValueError("smallest_p takes n >= 0 pairs and comparisons >= 1")
    return min(1.0, comparisons * 2.0 ** (1 - n))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p (1979), in the order given: step down, never decreasing, at most 1."""
    if any(not 0 <= p <= 1 for p in ps):
        raise ValueError("a p lies between 0 and 1")
    adjusted = [0.0] * len(ps)
    highest = 0.0
    for rank, position in enumerate(sorted(range(len(ps)), key=lambda position: ps[position])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[position]))
        adjusted[position] = highest
    return adjusted


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> RankCorrelation:
    """How far two orders of the same things agree: Spearman's rho and Kendall's tau-b, of values pair by pair.

    None for both below three pairs, and where one side does not vary.
    """
    first, second = _finite(a), _finite(b)
    if first.size != second.size:
        raise ValueError(f"{first.size} values can't be paired with {second.size}")
    if first.size < 3 or (first == first[0]).all() or (second == second[0]).all():
        return RankCorrelation(None, None, first.size)
    scipy = _scipy("stats")
    rho, tau = scipy.spearmanr(first, second).statistic, scipy.kendalltau(first, second).statistic
    return RankCorrelation(float(rho), float(tau), first.size)


def detectable_difference(sd: float, n: int) -> float | None:
    """The true difference that a paired t-test over ``n`` seeds finds with 80% power at the 5% level, two-sided.

    ``sd`` is that of the paired differences, in the metric's unit: √2 times one arm's where the arms are uncorrelated.
    None for fewer than two seeds.
    """
    if not (math.isfinite(sd) and sd >= 0):
        raise ValueError("a standard deviation is finite and not negative")
    if n < 2:
        return None
    special, critical = _scipy("special"), t_quantile(n - 1)
    # The noncentral t is (z + shift) / spread; averaged over the spread's quantiles, since scipy's own distribution
    # function (nctdtr, 1.17) returns NaN in the tail that is needed here.
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    spread = np.sqrt(special.gammaincinv((n - 1) / 2, quantiles) * 2 / (n - 1))

    def lack(shift: float) -> float:
        missed = special.ndtr(critical * spread - shift) - special.ndtr(-critical * spread - shift)
        return float(1 - missed.mean() - POWER)

    return float(_scipy("optimize").brentq(lack, 0.0, 4 * critical) * sd / math.sqrt(n))


def prediction_interval(values: Iterable[float]) -> Interval | None:
    """Where one more run of the same kind falls, in 95% of cases; None for fewer than two values."""
    array = _finite(values)
    if array.size < 2:
        return None
    mean, sd = _moments(array)
    assert sd is not None
    return _around(mean, t_quantile(array.size - 1) * sd * math.sqrt(1 + 1 / array.size))


def verdict(values: Iterable[float], published: float, plus_minus: float = 0.0) -> Verdict:
    """Whether a published value is what these runs would give.

    ``differs`` outside the 95% prediction interval for one more run, widened on either side by the paper's own
    ``plus_minus``. Inside it, ``reproduced`` from three runs on; with two the interval spans 15.6 standard deviations
    on either side, so that nearly anything lies in it: ``inconclusive``, as with one. So, too, where all runs gave one
    value and the paper another: a spread of zero says how coarse the metric is, not how far runs lie apart.
    """
    array = _finite(values)
    if not (math.isfinite(published) and math.isfinite(plus_minus) and plus_minus >= 0):
        raise ValueError("a published value is finite, and its plus_minus not negative")
    if array.size == 0:
        return "not run"
    interval = prediction_interval(array)
    if interval is None:
        return "inconclusive"
    inside = interval.low - plus_minus <= published <= interval.high + plus_minus
    if inside:
        return "reproduced" if array.size >= 3 else "inconclusive"
    return "differs" if interval.half_width > 0 else "inconclusive"


def verdict_exact(
    value: float | None,
    published: float,
    plus_minus: float = 0.0,
    *,
    printed_to: float | None = None,
    impossible: bool = False,
) -> Verdict:
    """The verdict on a number that no seed changes (parameters, FLOPs): does it round to what the paper printed?

    The last digit that the paper gives decides: 25.6e6 stands for 25.55e6 to 25.65e6. Where that is a 0, the number
    alone does not say so: ``printed_to`` is what a unit of that digit is worth (1e5 for 28.0 M). With ``impossible``, a
    value that differs is ``not reproducible``: someone has shown that no network as described can have it.
    """
    if value is None:
        return "not run"
    half = half_a_digit(published) if printed_to is None else printed_to / 2
    if abs(value - published) <= plus_minus + half * (1 + 1e-9):
        return "reproduced"
    return "not reproducible" if impossible else "differs"


def half_a_digit(number: float) -> float:
    """Half a unit of the last significant digit, as Python writes the number: 0.05 for 90.9, 50000 for 25.6e6."""
    mantissa, _, exponent = f"{float(number)!r}e0".partition("e")
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    fraction = fraction.rstrip("0")
    power = int(exponent.split("e")[0])
    if fraction:
        return 0.5 * 10.0 ** (power - len(fraction))
    zeros = len(whole) - len(whole.rstrip("0")) if whole.strip("0") else 0
    return 0.5 * 10.0 ** (power + zeros)


def t_quantile(freedom: float, level: float = LEVEL) -> float:
    """The two-sided quantile of Student's t: ``level`` of the distribution lies within ± it."""
    return float(_scipy("special").stdtrit(freedom, (1 + level) / 2))


def _finite(values: Iterable[float]) -> np.ndarray:
    array = np.asarray(list(values), dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError("a value is not finite: count it as failed, do not average it")
    return array


def _moments(array: np.ndarray) -> tuple[float, float | None]:
    """Mean and standard deviation; that of equal values is exactly zero, whatever the rounding of their mean."""
    if array.size == 1:
        return float(array[0]), None
    if (array == array[0]).all():
        return float(array[0]), 0.0
    return float(array.mean()), float(array.std(ddof=1))


def _around(mean: float, half_width: float) -> Interval:
    return Interval(mean - half_width, mean + half_width)


def _signed_sums(array: np.ndarray) -> np.ndarray:
    """The sums under all sign patterns: 2**n of them."""
    sums = np.zeros(1)
    for value in array:
        sums = np.concatenate([sums + value, sums - value])
    return sums


def _scipy(module: str) -> Any:
    """Late, since scipy takes longer to import than a table to print."""
    return import_module(f"scipy.{module}")
