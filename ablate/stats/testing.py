"""Tests of paired differences by flips of their signs, and the correction for their number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from ablate.stats.intervals import finite

MOST_EXACT = 32
"""Differences up to which the sign-flip p is exact: 2**16 sums for each half."""
PATTERNS = 99_999
"""Patterns that are drawn where there are more."""


def sign_flip_p(differences: Iterable[float]) -> float | None:
    """Two-sided p of paired differences: the share of all 2**n sign patterns with a mean at least as far from 0.

    None without a difference. Beyond ``MOST_EXACT`` differences the patterns are drawn, and those at hand counted in
    (Phipson and Smyth, 2010): no p is too small then either.
    """
    array = finite(differences)
    if array.size == 0:
        return None
    # Equal sums differ in their last bits, depending on the order of the additions.
    threshold = abs(math.fsum(array)) - 1e-9 * math.fsum(np.abs(array))
    if threshold <= 0:
        return 1.0
    if array.size > MOST_EXACT:
        return _drawn_p(array, threshold)
    left, right = _signed_sums(array[: array.size // 2]), np.sort(_signed_sums(array[array.size // 2 :]))
    beyond: int = np.sum(right.size - np.searchsorted(right, threshold - left)).item()
    return float(2 * beyond / 2**array.size)


def smallest_p(n: int, comparisons: int = 1) -> float:
    """The smallest p that ``n`` pairs can give by sign flips, after Holm over ``comparisons``."""
    if n < 0 or comparisons < 1:
        raise ValueError("smallest_p takes n >= 0 pairs and comparisons >= 1")
    return min(1.0, comparisons * (2.0 ** (1 - n) if n <= MOST_EXACT else 1 / (PATTERNS + 1)))


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


def _drawn_p(array: np.ndarray, threshold: float) -> float:
    """The same differences give the same p."""
    draw, beyond = np.random.default_rng(0), 1
    for part in np.array_split(np.empty(PATTERNS), math.ceil(PATTERNS * array.size / 10**6)):
        signs = draw.integers(0, 2, (part.size, array.size), dtype=np.int8)
        beyond += int(np.sum(np.abs((2 * signs - 1) @ array) >= threshold))
    return beyond / (PATTERNS + 1)


def _signed_sums(array: np.ndarray) -> np.ndarray:
    """The sums under all sign patterns: 2**n of them."""
    sums = np.zeros(1)
    for value in array:
        sums = np.concatenate([sums + value, sums - value])
    return sums
