"""The best first, and what no other beats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ablate.findings.values import Trial

FINISHED = "finished"


def ranked(trials: Sequence[Trial], objectives: Mapping[str, str]) -> tuple[tuple[Trial, ...], int]:
    """Those that can be ranked, the best first, and how many of them are on the front.

    Of one objective in its order, of several first those on the front; there and behind it by the objectives in turn.
    Of equal ones that of fewer FLOPs, then of fewer parameters, then the earlier; they are on the front together.
    """
    if not objectives:
        return (), 0
    able = [t for t in trials if t.status == FINISHED and all(t.value(metric) is not None for metric in objectives)]
    if not able:
        return (), 0
    costs = np.array([[_cost(trial, metric, way) for metric, way in objectives.items()] for trial in able])
    ties = [[trial.metrics.get(name, math.inf) for trial in able] for name in ("params", "flops")]
    order = np.lexsort([*ties, *costs.T[::-1]])
    best = undominated(costs[order])
    front = [able[index] for index in order[best]]
    return (*front, *(able[index] for index in order[~best])), len(front)


def undominated(costs: np.ndarray) -> np.ndarray:
    """Which rows no other is at most equal to in every column and less in one; all are to be small.

    The rows are sorted by their columns in turn: what dominates a row then stands before it, and is itself on the
    front or behind one that dominates both.
    """
    on_front = np.zeros(len(costs), dtype=bool)
    for index, row in enumerate(costs):
        others = costs[:index][on_front[:index]]
        on_front[index] = not ((others <= row).all(axis=1) & (others < row).any(axis=1)).any()
    return on_front


def _cost(trial: Trial, metric: str, way: str) -> float:
    value = trial.value(metric)
    assert value is not None
    return value if way == "minimize" else -value
