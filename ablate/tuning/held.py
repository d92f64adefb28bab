"""The section ``tune`` of a spec, held against the spec and the space that it names.

What is tuned is the recipe, and the same for all variants: a path of the network would make another variant of it, and
one that a level assigns would undo what is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ablate.collect import Collector
from ablate.design import Level, StudyPlan, study_plan
from ablate.errors import Problem, UserError
from ablate.grammar import TuneSpec
from ablate.space import Grid, Space, grid_on, load_space
from ablate.space.trying import check_points
from ablate.spec import Assignment, Spec, apply, read_section, selector, split_path
from ablate.spec.loading import as_typed, enclosing_specs, file_beside

SECTION = "tune"
SPACES = "search_spaces"
"""The folder beside ``specs`` that a spec may name a space of."""
AUGMENTED = (("data", "augment"), ("data", "mix"))
"""What belongs to the recipe of the section ``data``; the rest of it is what the variants are compared on."""

T = TypeVar("T")


@dataclass(frozen=True)
class Held:
    """What every variant of a study is tuned by."""

    spec: TuneSpec
    space: Space
    grid: Grid

    @property
    def objective(self) -> str:
        return next(iter(self.space.model.objectives))

    @property
    def highest(self) -> bool:
        """Whether the highest value of the objective is the best."""
        return self.space.model.objectives[self.objective] == "maximize"


def planned(spec: Spec) -> StudyPlan:
    """The plan of a spec whose section ``tune``, if it has one, is sound. ``UserError`` with all that is wrong."""
    found: list[Problem] = []
    plan = _tried(found, lambda: study_plan(spec))
    held = _tried(found, lambda: held_of(spec))
    if plan is not None and held is not None:
        found += _problems(plan, held)
    collector = Collector(spec.tree)
    collector.extend(dict.fromkeys(found))
    collector.raise_if_any()
    assert plan is not None
    return plan


def held_of(spec: Spec) -> Held | None:
    """The section with its space; None where the spec has none. ``UserError`` where either is wrong by itself."""
    tree = apply(spec).tree
    if SECTION not in tree:
        return None
    collector = Collector(tree)
    section = read_section(TuneSpec, tree[SECTION], collector, (SECTION,))
    file = _file(section.space, spec, collector) if section is not None else None
    collector.raise_if_any()
    assert file is not None
    space = load_space(as_typed(file))
    collector = Collector(space.tree)
    collector.extend(_space_problems(space))
    collector.raise_if_any()
    return Held(section, space, grid_on(space, spec, trained=True))


def _file(name: str, spec: Spec, collector: Collector) -> Path | None:
    """The space's file: where ``extends`` may reach, or among the project's spaces; the command line may name any."""
    specs = enclosing_specs(spec.folder)
    spaces = (specs.parent if specs.name == "specs" else specs) / SPACES
    named = any(assignment.path == (SECTION, "space") for assignment in spec.sets)
    file = file_beside(spec.folder, name)
    if file is None:
        collector.add((SECTION, "space"), f"'{name}' is not a file's name", key=False)
    elif not named and not any(file.is_relative_to(top) for top in (specs, spaces)):
        message = f"'{name}' is outside {as_typed(specs)} and {as_typed(spaces)}"
        collector.add((SECTION, "space"), message, "keep it beneath, or name it by --set tune.space=FILE", key=False)
    elif not file.is_file():
        collector.add((SECTION, "space"), f"no file '{name}'", f"looked for {as_typed(file)}", key=False)
    return file


def _space_problems(space: Space) -> Iterator[Problem]:
    """Why no spec could be tuned by this space."""
    collector = Collector(space.tree)
    objectives, budget = list(space.model.objectives), space.model.budget
    if len(objectives) != 1 or not objectives[0].startswith("val."):
        message = "variants are tuned by one metric of the validation split, and here "
        message += f"they would be by {', '.join(objectives)}" if objectives else "none is stated"
        collector.add(
            ("objectives" if "objectives" in space.tree else "space",), message, "objectives: {val.accuracy: maximize}"
        )
    for key, value in (("epochs", budget.epochs), ("time", budget.time)):
        if value is not None:
            message = "would give one variant more trials than another: tune.trials alone ends their searches"
            collector.add(("budget", key), message, "leave it out")
    for path in space.distributions:
        keys = split_path(path)
        if keys[0] == "network":
            message = "would make it another variant: what is tuned is the recipe, train, data.augment and data.mix"
            collector.add(("space", path), message, "vary the network by a factor, or by ablate search")
        elif keys[0] == "data" and keys[:2] not in AUGMENTED:
            message = (
                "is what the variants are compared on: what is tuned is the recipe, train, data.augment and data.mix"
            )
            collector.add(("space", path), message, "leave it out")
    yield from collector.problems


def _problems(plan: StudyPlan, held: Held) -> list[Problem]:
    """Why the variants of this plan can't be tuned so."""
    collector = Collector(plan.tree)
    section = plan.tree[SECTION]
    if held.spec.seed in plan.possible_seeds:
        path = (SECTION, "seed") if "seed" in section else (SECTION,)
        message = f"{held.spec.seed} is among the seeds of the study, whose trials the tuning must not have seen"
        collector.add(path, message, "another seed: tune.seed", key=False)
    without = [variant.name for variant in plan.distinct if variant.data.val is None]
    if without:
        of = "" if len(without) == len(plan.distinct) else f", which variant '{without[0]}' has not"
        collector.add((SECTION,), f"{held.objective} needs a validation split{of}", "add data.val")
    for variant in plan.distinct:
        stopping = variant.train.early_stopping
        if stopping is not None and stopping.monitor.startswith("test."):
            message = f"{stopping.monitor} would stop the trials of '{variant.name}', and a tuning reads no test split"
            collector.add((SECTION,), message, "monitor a metric of val")
            break
        if variant.train.evaluates_test:
            message = f"evaluate.test has '{variant.name}' read the test split, and a tuning reads none"
            collector.add((SECTION,), message, "leave evaluate.test out")
            break
    collector.extend(_conflicts(plan, held))
    if not collector.problems:
        collector.extend(_unfit(plan, held))
    return collector.problems


def _conflicts(plan: StudyPlan, held: Held) -> Iterator[Problem]:
    """Paths, and paths of conditions, that a level assigns, or one above or below."""
    levels: dict[str, Level] = {level.layer: level for variant in plan.variants for level in variant.patched}
    assigned = [each for level in levels.values() for each in level.assignments]
    collector = Collector(held.space.tree)
    for path, distribution in held.space.distributions.items():
        keys = split_path(path)
        other = next((each for each in assigned if _meet(each.path, keys) or _chooses(keys, each.path)), None)
        if other is not None:
            message = f"{_who(other)} assigns {other.dotted}: what is compared can't be tuned"
            collector.add(("space", path), message, "leave it out here, or in the ablation")
        for about in distribution.when or ():
            other = next((each for each in assigned if _meet(each.path, split_path(about))), None)
            if other is not None and about not in held.space.distributions:
                message = f"{_who(other)} assigns {other.dotted}: the variants would not be tuned alike"
                collector.add(("space", path, "when", about), message, "leave the condition out")
    yield from collector.problems


def _meet(path: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether one is the other, or above it."""
    depth = min(len(path), len(other))
    return path[:depth] == other[:depth]


def _chooses(keys: tuple[str, ...], path: tuple[str, ...]) -> bool:
    """Whether ``keys`` is the ``name`` that decides what may stand at ``path``, beside it or below."""
    beside = keys[:-1]
    return selector(beside) == keys[-1] and path[: len(beside)] == beside


def _who(assignment: Assignment) -> str:
    place = assignment.place
    return f"{assignment.layer} ({place.file}:{place.line})"


def _unfit(plan: StudyPlan, held: Held) -> Iterable[Problem]:
    """What is wrong with sampler or pruner; with values or paths of the space, where no variant takes all of them."""
    from ablate.searching.setup import check_search  # what training needs, which a spec without the section does not

    try:
        check_search(held.space, plan, held.grid)
    except UserError as error:
        return error.problems
    first: Iterable[Problem] = ()
    for variant in plan.distinct:
        try:
            check_points(held.grid, plan.spec, variant.patched)
        except UserError as error:
            first = first or error.problems
        else:
            return ()
    return first


def _tried(found: list[Problem], what: Callable[[], T]) -> T | None:
    try:
        return what()
    except UserError as error:
        found += error.problems
        return None
