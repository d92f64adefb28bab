"""Sizes of effects, and how far two sides go together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ablate.stats.intervals import finite, moments, scipy_part


@dataclass(frozen=True)
class RankCorrelation:
    """From −1 (opposite orders) over 0 to 1 (one order); None where nothing can be said. ``n`` pairs."""

    spearman: float | None
    kendall: float | None
    n: int


def hedges_g(a: Iterable[float], b: Iterable[float]) -> float | None:
    """(mean(a) − mean(b)) / pooled sd, times the exact small-sample factor (Hedges, 1981).

    None with fewer than two values on either side, or where neither side varies.
    """
    first, second = finite(a), finite(b)
    if first.size < 2 or second.size < 2:
        return None
    (mean_a, sd_a), (mean_b, sd_b) = moments(first), moments(second)
    assert sd_a is not None
    assert sd_b is not None
    freedom = first.size + second.size - 2
    pooled = math.sqrt(((first.size - 1) * sd_a**2 + (second.size - 1) * sd_b**2) / freedom)
    if pooled == 0:
        return None
    correction = math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom - 1) / 2)) / math.sqrt(freedom / 2)
    return correction * (mean_a - mean_b) / pooled


def correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Pearson's correlation, value by value; None below three pairs, and where one side does not vary."""
    first, second = finite(a), finite(b)
    if first.size != second.size:
        raise ValueError(f"{first.size} values can't be paired with {second.size}")
    if first.size < 3 or (first == first[0]).all() or (second == second[0]).all():
        return None
    left, right = first - first.mean(), second - second.mean()
    # each scaled by itself first, since the squares of small deviations underflow
    left, right = left / np.abs(left).max(), right / np.abs(right).max()
    return float(np.clip(left @ right / math.sqrt((left @ left) * (right @ right)), -1.0, 1.0))


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> RankCorrelation:
    """How far two orders of the same things agree: Spearman's rho and Kendall's tau-b, of values pair by pair.

    None for both below three pairs, and where one side does not vary.
    """
    first, second = finite(a), finite(b)
    if first.size != second.size:
        raise ValueError(f"{first.size} values can't be paired with {second.size}")
    if first.size < 3 or (first == first[0]).all() or (second == second[0]).all():
        return RankCorrelation(None, None, first.size)
    scipy = scipy_part("stats")
    rho, tau = scipy.spearmanr(first, second).statistic, scipy.kendalltau(first, second).statistic
    return RankCorrelation(float(rho), float(tau), first.size)
