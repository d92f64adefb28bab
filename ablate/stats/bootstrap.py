"""What the sampling of the images would do, by resampling them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ablate.stats.intervals import LEVEL, RESAMPLES, Interval, finite


def example_interval(per_example: Iterable[float]) -> Interval | None:
    """95% percentile bootstrap interval of a mean over examples: the sampling of the images, with these very seeds.

    ``per_example``: of each image, what its seeds come to in the mean; of a difference, that difference, so that both
    sides are resampled together. None for fewer than two examples. The same values give the same interval.
    """
    array = finite(per_example)
    if array.size < 2:
        return None
    # Of few distinct values the counts of each are drawn, which is the same and far faster than drawing examples.
    values, counts = np.unique(array, return_counts=True)
    draws = np.random.default_rng(0).multinomial(array.size, counts / array.size, size=RESAMPLES)
    low, high = np.quantile(draws @ values / array.size, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
