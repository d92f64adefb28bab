"""A grid's main effects and interactions, with their intervals over seeds."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablate import stats
from ablate.analysis.arms import Arm
from ablate.store import Study

MOST_FACTORS = 8


@dataclass(frozen=True)
class Effect:
    """The marginal mean of a level, and by how much it differs from the mean over the grid, paired by seed."""

    factor: str
    level: str
    mean: float
    difference: stats.Difference


@dataclass(frozen=True)
class Interaction:
    """The mean of two factors' levels together, and how far it is from what their main effects add up to."""

    factors: tuple[str, str]
    levels: tuple[str, str]
    mean: float
    difference: stats.Difference


@dataclass(frozen=True)
class Effects:
    """All of a grid. ``why_not``: why there are none, such as cells that are missing."""

    metric: str
    main: tuple[Effect, ...] = ()
    interactions: tuple[Interaction, ...] = ()
    why_not: str = ""
    seeds: tuple[str, ...] = ()
    """The seeds that every cell has: no other enters."""


def effects_of(study: Study, metric: str, arms: Sequence[Arm]) -> Effects | None:
    """None where the study is no grid of two or more factors."""
    if (study.spec.get("ablation") or {}).get("design", "grid") != "grid":
        return None
    rows = [arm for arm in arms if arm.control_of is None]
    factors = list(dict.fromkeys(factor for arm in rows for factor in arm.record.get("levels") or {}))
    if not 2 <= len(factors) <= MOST_FACTORS:
        return None
    inactive = [arm.name for arm in rows if any(_level(arm, factor) is None for factor in factors)]
    if inactive:
        return Effects(metric, why_not=f"in {len(inactive)} variants a factor has nothing to act on ({inactive[0]})")
    levels = [list(dict.fromkeys(_level(arm, factor) for arm in rows)) for factor in factors]
    cells = {tuple(_level(arm, factor) for factor in factors): arm for arm in rows}
    missing = [" / ".join(map(str, cell)) for cell in itertools.product(*levels) if cell not in cells]
    if missing:
        return Effects(metric, why_not=f"{len(missing)} cells of the grid are not in the design ({missing[0]})")
    values = {cell: arm.values(metric) for cell, arm in cells.items()}
    seeds = [seed for seed in rows[0].results if all(seed in own for own in values.values())]
    if not seeds:
        return Effects(metric, why_not="no seed has a value in every cell")
    grid = np.array([[values[cell][seed] for seed in seeds] for cell in itertools.product(*levels)])
    grid = grid.reshape(*map(len, levels), len(seeds))
    return Effects(
        metric, tuple(_main(grid, factors, levels)), tuple(_pairwise(grid, factors, levels)), "", tuple(seeds)
    )


def _level(arm: Arm, factor: str) -> Any:
    return (arm.record.get("levels") or {}).get(factor)


def _main(grid: np.ndarray, factors: list[str], levels: list[list[str]]) -> list[Effect]:
    return [
        Effect(factor, str(level), float(np.take(grid, index, axis).mean()), difference)
        for axis, factor in enumerate(factors)
        for index, (level, difference) in enumerate(zip(levels[axis], stats.main_effects(grid, axis), strict=True))
    ]


def _pairwise(grid: np.ndarray, factors: list[str], levels: list[list[str]]) -> list[Interaction]:
    found = []
    for first, second in itertools.combinations(range(len(factors)), 2):
        pair = np.moveaxis(grid, (first, second), (0, 1))
        for i, row in enumerate(stats.interactions(grid, first, second)):
            for j, difference in enumerate(row):
                names, own = (factors[first], factors[second]), (str(levels[first][i]), str(levels[second][j]))
                found.append(Interaction(names, own, float(pair[i, j].mean()), difference))
    return found
