"""The samplers of a search: which of Optuna's, and one fresh for every draw.

What a sampler draws hangs on the trials so far and on a seed of that draw alone, never on what it drew before in this
process: so a search that was killed goes on as if it had not been.
"""

from __future__ import annotations

from collections.abc import Mapping
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

__all__ = ["ASKED", "WHOLE", "draw", "sampler_of", "sampler_problems"]

WHOLE = ("nsga2", "nsga3", "gp")
"""These know no parameters that are there at some points only. They are asked for a value of all of them; one that is
not active at the point changes nothing, and is handed on to later points like the others."""
STARTUP = 10
"""Points at random before TPE and the Gaussian process model anything."""
POPULATION = 24
"""Of NSGA-II and NSGA-III: with Optuna's 50, a search of 50 trials would be one generation, drawn at random."""
MOST_GRID = 1_000_000


def sampler_of(name: str, spec: SamplerSpec, parameters: Parameters, *draw: str | int) -> BaseSampler:
    """A fresh sampler for one draw, seeded by the spec's seed and the draw's name."""
    seed = stream_seed("search", spec.seed, *draw) % 2**32
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


def draw(
    sampler: BaseSampler, study: Study, draft: FrozenTrial, parameters: Parameters, whole: bool
) -> tuple[Point, dict[str, Any]]:
    """A point, and the values of all parameters that were asked for: every one if ``whole``, else the active ones."""
    sampler.before_trial(study, draft)
    space = {name: found for name, found in sorted(parameters.all.items()) if not found.single()}
    relative = sampler.sample_relative(
        study, draft, space if whole else sampler.infer_relative_search_space(study, draft)
    )
    values: dict[str, Any] = {}

    def value(name: str) -> Any:
        if name not in values:
            found = parameters.all[name]
            if found.single():
                values[name] = only(found)
            elif name in relative:
                values[name] = relative[name]
            else:
                values[name] = sampler.sample_independent(study, draft, name, found)
        return values[name]

    for name in parameters.all if whole else ():
        value(name)
    return parameters.point(value), values


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
