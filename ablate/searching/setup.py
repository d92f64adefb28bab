"""A space on a spec, settled: checked, its data loaded, its numerics resolved, its folder known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ablate.collect import Collector
from ablate.data.dataset import DataSpec, ImageData
from ablate.design import StudyPlan, Variant, search_plan
from ablate.driving import Policy
from ablate.errors import Problem, UserError
from ablate.prepare import folder_of, loader
from ablate.proposing import Pruner
from ablate.proposing.parameters import Parameters
from ablate.proposing.samplers import sampler_problems
from ablate.resolving import Resolved, resolved
from ablate.searching.source import Aims
from ablate.space import KNOWN_METRICS, Grid, Space, grid_on
from ablate.space.conditions import above
from ablate.space.trying import check_points
from ablate.spec import Assignment, Spec, apply
from ablate.sweeping import policy_of
from ablate.yamlfile import place_of


@dataclass
class Held:
    """A space held against a spec: what varies there, and what is wanted."""

    space: Space
    plan: StudyPlan
    grid: Grid

    @property
    def baseline(self) -> Variant:
        """The spec as written: what every network of the search is certified against."""
        return self.plan.variants[0]

    @property
    def aims(self) -> Aims:
        model = self.space.model
        return Aims(
            model.objectives, model.budget, model.constraints, model.filter, model.pruned_on if model.pruner else None
        )


@dataclass
class Searchable(Held):
    """The same, settled: everything that is known before the first proposal."""

    settled: Resolved
    folder: Path
    data_of: Callable[[DataSpec], ImageData]
    at_once: int | None = None


def held(space: Space, spec: Spec) -> Held:
    """Hold a space against a spec. ``UserError`` with all that is wrong, as far as it shows before data are loaded."""
    spec = evaluated(space, spec)
    grid = grid_on(space, spec, trained=True)
    plan = search_plan(spec, section(space), space.model.budget.trials)
    found = [
        *_problems(lambda: check_objectives(space, plan, grid)),
        *_problems(lambda: check_search(space, plan, grid)),
    ]
    found = found or _problems(lambda: check_points(grid, plan.spec))
    if found:
        raise UserError(found)
    return Held(space, plan, grid)


def _problems(check: Callable[[], None]) -> list[Problem]:
    try:
        check()
    except UserError as error:
        return list(error.problems)
    return []


def settle(
    held: Held, *, folder: Path | None = None, concurrent: int | None = None, measure: bool = True
) -> Searchable:
    """Load the data and settle the numerics. ``UserError`` where that can't be done.

    ``folder`` is where the search is or will be (default: ``runs/SPEC-SPACE``), ``concurrent`` how many trials run at
    once, ``measure`` whether training steps are timed to find how they are placed best.
    """
    plan = held.plan
    where = folder if folder is not None else default_folder(held.space, plan)
    data: dict[str, ImageData] = {}
    data_of = loader(plan, data)
    settled = resolved(plan, data_of, folder=where, concurrent=concurrent, measure=measure)
    at_once = settled.placement.concurrent if concurrent or plan.execution.max_concurrent != "auto" else None
    return Searchable(held.space, plan, held.grid, settled, where, data_of, at_once)


def default_folder(space: Space, plan: StudyPlan) -> Path:
    """``runs/SPEC-SPACE``."""
    found, file = folder_of(plan), Path(space.file)
    return found.with_name(f"{found.name}-{file.stem if file.suffix else 'search'}")


def section(space: Space) -> dict[str, Any]:
    """What a study's ``spec.yaml`` says of the search."""
    model = space.model
    said = model.model_dump(mode="json", exclude_none=True, include=set(_SAID))
    return {"file": space.file, "space": space.tree["space"], **{key: value for key, value in said.items() if value}}


_SAID = ("objectives", "constraints", "sampler", "pruner", "filter", "budget")


def evaluated(space: Space, spec: Spec) -> Spec:
    """The spec with an evaluation after each epoch, where trials are pruned by one and it says nothing of that."""
    metric = space.model.pruned_on if space.model.pruner else None
    if metric is None or not metric.startswith("val."):
        return spec
    train, data = (apply(spec).tree.get(key) for key in ("train", "data"))
    if not isinstance(train, dict) or "evaluate" in train or not isinstance(data, dict) or "val" not in data:
        return spec  # without a validation split the objective is what is wrong
    place = place_of(space.tree, ("pruner",))
    assert place is not None
    every = Assignment(("train", "evaluate"), {"every": 1}, place, "pruner")
    return replace(spec, profiled=(*spec.profiled, every))


def check_search(space: Space, plan: StudyPlan, grid: Grid) -> None:
    """``UserError`` where the sampler can't search this space, or the pruner would never end anything."""
    model = space.model
    found = sampler_problems(model.chosen_sampler, Parameters(grid), model.objectives)
    try:
        pruner_of(space, plan)
    except UserError as error:
        found += error.problems
    if found:
        placed = [replace(each, place=place_of(space.tree, tuple(each.path.split(".")), key=False)) for each in found]
        raise UserError(placed)


def pruner_of(space: Space, plan: StudyPlan) -> Pruner | None:
    """What ends trials early, if anything does."""
    model = space.model
    if model.pruner is None or model.pruned_on is None:
        return None
    return Pruner(model.pruner, model.objectives[model.pruned_on], plan.variants[0].train.epochs)


SAME_IMAGES = ("data.augment", "data.mix", "data.normalize")
"""Of ``data``: what says how images are shown to a network, and not which they are."""


def check_objectives(space: Space, plan: StudyPlan, grid: Grid) -> None:
    """``UserError`` where a trial could not have an objective that is asked for, or not on the images of the others."""
    collector = Collector(space.tree)
    if not space.model.objectives:
        collector.add(("objectives",), "missing: what is to be found", "objectives: {val.accuracy: maximize}")
    for metric in space.model.objectives:
        if metric.startswith("val.") and plan.variants[0].data.val is None:
            collector.add(("objectives", metric), "needs a validation split, which the spec has not", "add data.val")
    told = next((metric for metric in space.model.objectives if metric.startswith("val.")), None)
    for dimension in grid.dimensions if told else ():
        if dimension.path.startswith("data.") and not above(dimension.path, SAME_IMAGES):
            message = f"may change the images that '{told}' is of: trials evaluated on other images can't be compared"
            collector.extend([Problem(message, dimension.path, dimension.place, "leave it out")])
    if all(metric in KNOWN_METRICS for metric in space.model.objectives) and space.model.objectives:
        message = "all of these are known without training"
        collector.add(("objectives",), message, "ablate search --static")
    collector.raise_if_any()


def search_policy(prepared: Searchable) -> Policy:
    """``execution`` of the spec, with the space's own limit of time."""
    policy = policy_of(prepared.plan.execution)
    limits = [limit for limit in (policy.budget, prepared.aims.budget.time) if limit is not None]
    return replace(policy, budget=min(limits, default=None))
