"""CMA-ES with margin for ranges of numbers: Hansen, 2016 (arXiv:1604.00772); Hamano et al., 2022 (arXiv:2205.13482).

Optuna's own sampler pickles its optimizer into the journal, and whoever opens a journal runs what is in it. Here a
trial keeps its generation and its raw point; the optimizer is made anew of them at every draw, in milliseconds.
Parameters that are no such range, or not there at every point, are drawn at random.
"""

from __future__ import annotations

from math import exp, log
from typing import Any

import numpy as np
from cmaes import CMAwM
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

ASKED = "cmaes:asked"
"""A trial's attribute: the generation it belongs to and its point, from 0 to 1, before it was rounded to a step."""
SPREAD = 1 / 6
"""The first standard deviation, as a share of each range (as Optuna has it)."""


class CmaEs(BaseSampler):
    """One draw of the present generation."""

    def __init__(self, ranges: dict[str, BaseDistribution], seed: int, population: int | None, startup: int) -> None:
        self._ranges = ranges
        self._startup = startup
        self._random = RandomSampler(seed=seed)
        self._optimizer = CMAwM(
            mean=np.full(len(ranges), 0.5),
            sigma=SPREAD,
            bounds=np.tile([0.0, 1.0], (len(ranges), 1)),
            steps=np.array([_step(each) for each in ranges.values()]),
            seed=seed,
            population_size=population,
        )

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._ranges

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        generations: dict[int, list[tuple[np.ndarray, float]]] = {}
        trials = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        if len(trials) < self._startup:
            return {}
        for told in trials:
            if asked := told.system_attrs.get(ASKED):
                assert told.value is not None
                solution = np.array(asked["point"]), sign * told.value
                generations.setdefault(asked["generation"], []).append(solution)
        size = self._optimizer.population_size
        while len(told_of := generations.get(self._optimizer.generation, [])) >= size:
            self._optimizer.tell(told_of[:size])
        encoded, raw = self._optimizer.ask()
        asked = {"generation": self._optimizer.generation, "point": [float(number) for number in raw]}
        study._storage.set_trial_system_attr(trial._trial_id, ASKED, asked)
        return {name: _value(each, float(x)) for (name, each), x in zip(self._ranges.items(), encoded, strict=True)}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)


def _step(distribution: BaseDistribution) -> float:
    """Of the range from 0 to 1; 0 where it is continuous, which the logarithm of a whole number is as well."""
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if distribution.log or distribution.step is None:
        return 0.0
    return distribution.step / (distribution.high - distribution.low)


def _value(distribution: BaseDistribution, x: float) -> int | float:
    """The parameter's value at ``x`` from 0 to 1."""
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    value: float
    if isinstance(distribution, IntDistribution) and distribution.log:  # half a number's room at either end
        value = round(exp(log(low - 0.5) + x * (log(high + 0.5) - log(low - 0.5))))
    elif distribution.log:
        value = exp(log(low) + x * (log(high) - log(low)))
    elif step is not None:
        value = low + round(x * (high - low) / step) * step
    else:
        value = low + x * (high - low)
    bounded = min(max(value, low), high)
    return int(bounded) if isinstance(distribution, IntDistribution) else bounded
