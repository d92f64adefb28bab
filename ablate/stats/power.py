"""What so many seeds can show, and how many would be needed."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from ablate.stats.intervals import LEVEL, scipy_part, t_quantile

POWER = 0.8
QUANTILES = 5_000
ALPHA = 1 - LEVEL


def detectable_difference(sd: float, n: int, alpha: float = ALPHA) -> float | None:
    """The true difference that a paired t-test over ``n`` seeds finds with 80% power at the level alpha, two-sided.

    ``sd`` is that of the paired differences, in the metric's unit: √2 times one arm's where the arms are uncorrelated.
    None for fewer than two seeds.
    """
    if not (math.isfinite(sd) and sd >= 0):
        raise ValueError("a standard deviation is finite and not negative")
    return None if n < 2 else _detectable(n, alpha) * sd


def seeds_to_detect(sd: float, difference: float, alpha: float = ALPHA, most: int = 10_000) -> int | None:
    """How many seeds a paired t-test needs to find a true ``difference`` with 80% power; None beyond ``most``.

    ``sd`` as for ``detectable_difference``, which this inverts.
    """
    if not math.isfinite(difference):
        raise ValueError("a difference is finite")
    few, many = 2, most
    if not abs(difference) > 0 or _detectable(most, alpha) * sd > abs(difference):
        return None
    while few < many:
        middle = (few + many) // 2
        few, many = (few, middle) if _detectable(middle, alpha) * sd <= abs(difference) else (middle + 1, many)
    return few


@lru_cache(maxsize=4096)
def _detectable(n: int, alpha: float) -> float:
    """In standard deviations of the paired differences."""
    special, critical = scipy_part("special"), t_quantile(n - 1, 1 - alpha)
    # The noncentral t is (z + shift) / spread; averaged over the spread's quantiles, since scipy's own distribution
    # function (nctdtr, 1.17) returns NaN in the tail that is needed here.
    quantiles = (np.arange(QUANTILES) + 0.5) / QUANTILES
    spread = np.sqrt(special.gammaincinv((n - 1) / 2, quantiles) * 2 / (n - 1))

    def lack(shift: float) -> float:
        missed = special.ndtr(critical * spread - shift) - special.ndtr(-critical * spread - shift)
        return float(1 - missed.mean() - POWER)

    below, above = 0.0, 4 * critical
    for _ in range(50):  # bisection: scipy.optimize takes longer to import than all of a report's statistics
        middle = (below + above) / 2
        below, above = (middle, above) if lack(middle) < 0 else (below, middle)
    return above / math.sqrt(n)
