"""Which paths mattered: fANOVA and PED-ANOVA, by Optuna's evaluators on a study made of the records.

fANOVA (Hutter, Hoos and Leyton-Brown, 2014): the share of an objective's variance over the space that a path explains
by itself, as a random forest sees it; what is missing from 1 are interactions. PED-ANOVA (Watanabe, Bansal and Hutter,
2023, arXiv:2304.10255; for conditional paths arXiv:2601.20800): how differently a path is spread among the best trials
than among all.

The evaluators are given the space as it is drawn from, logarithms where ``log`` says so. Optuna's fANOVA weighs two
things wrongly, which are kept from it: of whole numbers the two ends would count half, and a choice of three or more
would be averaged over vectors that stand for several of its values at once, or for none, and lose much of its share.
So each step and each category is a unit of a line.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ablate.findings.scales import Scale, scale_of
from ablate.findings.values import Findings

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study

LEAST = 10
"""Ranked trials, without which nothing is said: a forest of fewer finds importance in noise."""
DEPTH = 6
"""Of a forest's trees. With 1,000 trials, 16 of them give shares within 0.02 of those of Optuna's own 64 trees of depth
64, which take a minute."""
BEST, LEAST_BEST = 0.1, 5
"""The part of the trials that are PED-ANOVA's best ones, and the fewest that these are."""


@dataclass(frozen=True)
class Importance:
    """Of one path for one objective.

    ``fanova`` is a share of the variance among the ``n`` ranked trials in which the path is active; None where these
    are fewer than ``LEAST``, or either does not vary among them. ``ped_anova`` is a share of the sum over all paths,
    over all ranked trials; None where no path makes a difference.
    """

    path: str
    objective: str
    fanova: float | None
    ped_anova: float | None
    n: int


def importances(found: Findings) -> list[Importance]:
    """For each objective and each path that varies; none with fewer than ``LEAST`` ranked trials, and none of a tuning.

    Errors: ``ImportError`` without scikit-learn.
    """
    if len(found.ranked) < LEAST or found.tuned:
        return []
    scales = [scale_of(found, path) for path in found.varying]
    with _quiet():
        around, exact = _study(found, scales, around=0.5), _study(found, scales, around=0.0)
        return [each for metric in found.objectives for each in _of_objective(found, scales, metric, around, exact)]


def _of_objective(
    found: Findings, scales: Sequence[Scale], metric: str, around: Study, exact: Study
) -> list[Importance]:
    active = {scale.path: sum(scale.of(trial) is not None for trial in found.ranked) for scale in scales}
    if len({trial.metrics[metric] for trial in found.ranked}) == 1:
        return [Importance(path, metric, None, None, n) for path, n in active.items()]
    fanova, ped_anova = _fanova(found, scales, metric, around), _ped_anova(found, scales, metric, exact)
    return [Importance(path, metric, fanova.get(path), ped_anova.get(path), n) for path, n in active.items()]


def _fanova(found: Findings, scales: Sequence[Scale], metric: str, study: Study) -> dict[str, float]:
    """Paths that are active in the same trials share a forest, with all others that are active in all of these."""
    from optuna.importance import FanovaImportanceEvaluator

    index = list(found.objectives).index(metric)
    groups: dict[frozenset[str], list[Scale]] = {}
    for scale in scales:
        names = frozenset(trial.name for trial in found.ranked if scale.of(trial) is not None)
        groups.setdefault(names, []).append(scale)
    told: dict[str, float] = {}
    for names, own in groups.items():
        among = [trial for trial in found.ranked if trial.name in names]
        shared = [scale.path for scale in scales if all(scale.of(trial) is not None for trial in among)]
        wanted = [scale.path for scale in own if len({scale.of(trial) for trial in among}) > 1]
        if len(among) < LEAST or not wanted or len({trial.metrics[metric] for trial in among}) == 1:
            continue
        trees = min(64, max(16, 8_000 // len(among)))
        evaluator = FanovaImportanceEvaluator(n_trees=trees, max_depth=DEPTH, seed=0)
        shares = evaluator.evaluate(study, shared, target=lambda trial: trial.values[index])
        told |= {path: float(shares[path]) for path in wanted}
    return told


def _ped_anova(found: Findings, scales: Sequence[Scale], metric: str, study: Study) -> dict[str, float]:
    from optuna.importance import PedAnovaImportanceEvaluator

    index, sign = list(found.objectives).index(metric), -1 if found.objectives[metric] == "maximize" else 1
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(BEST, LEAST_BEST / len(found.ranked)))
    # of a target, the least values count as the best
    told = evaluator.evaluate(study, [s.path for s in scales], target=lambda trial: sign * trial.values[index])
    total = sum(told.values())
    return {path: float(value / total) for path, value in told.items()} if total > 0 else {}


def _study(found: Findings, scales: Sequence[Scale], around: float) -> Study:
    """A study in memory of the ranked trials, each with the paths active in it. ``around``: see ``_distribution``."""
    from optuna.study import StudyDirection, create_study
    from optuna.trial import create_trial

    study = create_study(directions=[StudyDirection[way.upper()] for way in found.objectives.values()])
    distributions = {scale.path: _distribution(scale, around) for scale in scales}
    for trial in found.ranked:
        where = {scale.path: _at(scale, scale.of(trial), around) for scale in scales}
        active = {path: value for path, value in where.items() if value is not None}
        own = {path: distributions[path] for path in active}
        values = [trial.metrics[metric] for metric in found.objectives]
        study.add_trial(create_trial(params=active, distributions=own, values=values))
    return study


def _distribution(scale: Scale, around: float) -> BaseDistribution:
    """For fANOVA numbers alone, steps and categories with ``around`` of one on either side; for PED-ANOVA as drawn."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if around and (scale.step or scale.categories):
        last = len(scale.categories) - 1 if scale.categories else _position(scale, scale.high)
        return FloatDistribution(-around, last + around)
    if scale.categories:
        return CategoricalDistribution(list(scale.categories))
    if scale.step:
        return IntDistribution(0, round(_position(scale, scale.high)))
    return FloatDistribution(_position(scale, scale.low), _position(scale, scale.high))


def _at(scale: Scale, where: float | str | None, around: float) -> float | str | None:
    if isinstance(where, str):
        return float(list(scale.categories).index(where)) if around else where
    return None if where is None else _position(scale, where)


def _position(scale: Scale, value: float) -> float:
    """What is drawn evenly: the number of the step, the logarithm, or the number itself."""
    if scale.step:
        return round((value - scale.low) / scale.step)
    return math.log(value) if scale.log else value


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's log and warnings: what they say, how few trials there are, the table says in its own words."""
    from optuna import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
