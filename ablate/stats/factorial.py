"""Main effects and interactions of a complete grid, seed by seed.

A cell is a combination of levels; its values are by seed. Effects are deviations from means over the grid (effect
coding), so that those of one factor add up to 0, and so do an interaction's along either factor. Each is computed in
every seed alone and then averaged over seeds: pairing takes out what a seed gives to all cells.
"""

from __future__ import annotations

import numpy as np

from ablate.stats.intervals import Difference, summary


def main_effects(cells: np.ndarray, axis: int) -> list[Difference]:
    """Of each level of the factor at ``axis``: its marginal mean minus the grand mean. ``cells``: levels …, seeds."""
    by_level = np.moveaxis(cells, axis, 0)
    others = tuple(range(1, by_level.ndim - 1))
    marginal = by_level.mean(axis=others) if others else by_level
    return [_over_seeds(row) for row in marginal - marginal.mean(axis=0)]


def interactions(cells: np.ndarray, first: int, second: int) -> list[list[Difference]]:
    """Of each pair of levels of two factors: how far their mean is from what both main effects add up to."""
    pair = np.moveaxis(cells, (first, second), (0, 1))
    others = tuple(range(2, pair.ndim - 1))
    table = pair.mean(axis=others) if others else pair
    centred = table - table.mean(axis=0) - table.mean(axis=1)[:, None] + table.mean(axis=(0, 1))
    return [[_over_seeds(seeds) for seeds in row] for row in centred]


def _over_seeds(values: np.ndarray) -> Difference:
    found = summary(values.tolist())
    return Difference(found.mean, found.sd, found.n, found.interval)
