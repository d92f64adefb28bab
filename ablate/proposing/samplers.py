"""The samplers of a search: which of Optuna's, and one fresh for every proposal.

What a sampler draws hangs on the trials so far and on a seed of that proposal alone, never on what was drawn before in
this process: so a search that was killed goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from ablate.errors import Problem
from ablate.proposing.cmaes import ASKED, CmaEs
from ablate.proposing.parameters import Parameters, only
from ablate.space import Point
from ablate.streams import stream_seed

if TYPE_CHECKING:
    from ablate.space import SamplerSpec

__all__ = ["ASKED", "WHOLE", "draws", "sampler_of", "sampler_problems"]

WHOLE = ("nsga2", "nsga3", "gp")
"""These know no parameters that are there at some points only. They are asked for a value of all of them; one that is
not active at the point changes nothing, and is handed on to later points like the others."""
STARTUP = 10
"""Points at random before TPE and the Gaussian process model anything."""
POPULATION = 24
"""Of NSGA-II and NSGA-III: with Optuna's 50, a search of 50 trials would be one generation, drawn at random."""
MOST_GRID = 1_000_000


def sampler_of(name: str, spec: SamplerSpec, parameters: Parameters, *stream: str | int) -> BaseSampler:
    """A fresh sampler that is seeded by the spec's seed and the name of the stream."""
    seed = stream_seed("search", spec.seed, *stream) % 2**32
    startup, population = spec.startup or STARTUP, spec.population or POPULATION
    if name == "tpe":
        return TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, group=True, constant_liar=True)
    if name == "gp":
        return GPSampler(seed=seed, n_startup_trials=startup)
    if name == "nsga2":
        return NSGAIISampler(seed=seed, population_size=population)
    if name == "nsga3":
        return NSGAIIISampler(seed=seed, population_size=population)
    if name == "cmaes":
        return CmaEs(parameters.ranges, seed, spec.population, spec.startup or 0)
    assert name in ("random", "grid"), name
    return RandomSampler(seed=seed)


def draws(
    sampler: BaseSampler, study: Study, draft: Callable[[], FrozenTrial], parameters: Parameters, whole: bool
) -> Iterator[tuple[Point, dict[str, Any]]]:
    """Points for the trial that is drafted, one after the other, without end.

    With each the values of all parameters that were asked for: every one if ``whole``, else those that are active.
    """
    sampler.before_trial(study, draft())
    space = {name: found for name, found in sorted(parameters.all.items()) if not found.single()}
    if not whole:
        space = sampler.infer_relative_search_space(study, draft())
    while True:
        trial = draft()
        values = _Values(sampler, study, trial, parameters, sampler.sample_relative(study, trial, space))
        for name in parameters.all if whole else ():
            values[name]
        yield parameters.point(values.__getitem__), values


class _Values(dict[str, Any]):
    """Parameter → value; what was not drawn together is drawn when it is asked for."""

    def __init__(
        self, sampler: BaseSampler, study: Study, trial: FrozenTrial, parameters: Parameters, together: dict[str, Any]
    ) -> None:
        super().__init__()
        self._sampler, self._study, self._trial = sampler, study, trial
        self._parameters, self._together = parameters, together

    def __missing__(self, name: str) -> Any:
        found = self._parameters.all[name]
        if found.single():
            self[name] = only(found)
        elif name in self._together:
            self[name] = self._together[name]
        else:
            self[name] = self._sampler.sample_independent(self._study, self._trial, name, found)
        return self[name]


def sampler_problems(spec: SamplerSpec, parameters: Parameters, objectives: Mapping[str, str]) -> list[Problem]:
    """Why this sampler can't search this space for these objectives, and which one can."""
    path = "sampler.name"
    several = len(objectives) > 1
    if spec.name == "cmaes" and several:
        message = f"cmaes has one objective, and here are {len(objectives)}: {', '.join(objectives)}"
        return [Problem(message, path, hint="use nsga2, nsga3, tpe or gp")]
    if spec.name == "cmaes" and len(parameters.ranges) < 2:
        found = ", ".join(parameters.ranges) or "none"
        message = f"cmaes needs two ranges of numbers (int, float) that vary at every point; this space has {found}"
        return [Problem(message, path, hint=f"use {'nsga2' if several else 'tpe, which takes choices too'}")]
    if spec.name == "grid":
        endless = [dimension.path for dimension in parameters.grid.dimensions if dimension.span is not None]
        if endless:
            message = f"a grid has no end where a float has no step: {', '.join(endless)}"
            return [Problem(message, path, hint="give it a step, or use random")]
        count = parameters.grid.count
        assert count is not None
        if count > MOST_GRID:
            message = f"a grid of {count:,} points; at most {MOST_GRID:,} can be listed"
            return [Problem(message, path, hint="use random")]
    return []
