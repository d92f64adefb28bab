"""The searches that tune the variants of a study: one for each, side by side in a study of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ablate.beforehand import RayBeforehand
from ablate.cache import Cache
from ablate.certify import Certifier
from ablate.data.dataset import DataSpec, ImageData
from ablate.design import StudyPlan, Variant, trial_hash
from ablate.design.variant import digest
from ablate.errors import Problem, UserError
from ablate.execute import Work
from ablate.grammar import ReportSpec
from ablate.known import Known
from ablate.prepare import environment, loader
from ablate.progress import Progress
from ablate.proposing import Proposer, Pruner
from ablate.resolving import resolved
from ablate.searching.candidates import Candidate, Candidates
from ablate.searching.run import drive
from ablate.searching.setup import evaluated, section
from ablate.searching.source import Aims, Search
from ablate.space import BudgetSpec, Grid, Point
from ablate.spec import Spec
from ablate.store import JOURNAL, TUNING, Study
from ablate.sweeping import ExecutorName, policy_of
from ablate.tuning.held import SECTION, Held, held_of
from ablate.tuning.winners import plain, settled_numbers, variant_with, with_winners
from ablate.yamlfile import Mapping

OF_THE_STUDY = ("ablation", "report", "paper", SECTION)
"""Sections that are of the study which is tuned: it may get more variants while the others stay as they were tuned."""


def tuned(
    plan: StudyPlan,
    folder: Path,
    *,
    executor: ExecutorName = "ray",
    concurrent: int | None = None,
    progress: Progress | None = None,
    cache: Cache | None = None,
    beforehand: RayBeforehand | None = None,
) -> StudyPlan:
    """The plan with the recipe of each variant tuned, which is done in ``folder/tuning`` as far as it is not.

    A variant that the study in the folder has keeps the recipe with which it was begun. Without a section ``tune`` the
    plan is returned as it is. ``UserError``: the folder was tuned otherwise, a variant has no trial that finished, or
    nothing can go on; ``KeyboardInterrupt``: interrupted. The same call goes on.
    """
    held = held_of(plan.spec)
    if held is None:
        return plan
    _check_begun(plan, folder)
    settled = settled_numbers(folder)
    waiting = [variant for variant in plan.distinct if variant.name not in settled]
    if waiting:
        _run(
            plan,
            held,
            waiting,
            folder,
            executor=executor,
            concurrent=concurrent,
            progress=progress or Progress(),
            cache=cache,
            beforehand=beforehand,
        )
    return with_winners(plan, held, Study.open(folder / TUNING), settled)


def _check_begun(plan: StudyPlan, folder: Path) -> None:
    """``UserError`` where the study's variants were tuned otherwise, or not at all: before anything is trained."""
    was = now = plain(plan.tree[SECTION])
    with suppress(UserError):  # a damaged one is written anew when the study goes on
        was = Study.open(folder).spec.get(SECTION, {})
    if now != was:
        differing = sorted(f"{SECTION}.{key}" for key in {*now, *was} if now.get(key) != was.get(key))
        message = f"{folder} holds a study that was tuned otherwise: they differ in {', '.join(differing)}"
        raise UserError(Problem(message, hint="choose another --out"))


def _run(
    plan: StudyPlan,
    held: Held,
    waiting: Sequence[Variant],
    folder: Path,
    *,
    executor: ExecutorName,
    concurrent: int | None,
    progress: Progress,
    cache: Cache | None,
    beforehand: RayBeforehand | None,
) -> None:
    """Search the recipes of the variants that wait, as far as the study of the tuning does not have them."""
    own = _plan_of(plan, held, waiting)
    data_of = without_test(loader(own))
    settled = resolved(own, data_of, folder=folder / TUNING, concurrent=concurrent)
    at_once = settled.placement.concurrent if concurrent or own.execution.max_concurrent != "auto" else None
    study = Study.create(folder / TUNING, {**own.tree, "numerics": settled.numerics.as_dict()}, [], environment())
    policy = policy_of(own.execution)
    with study.hold():
        work = Work({}, {}, data_of, settled, at_once)
        certifier, known = (kind(data_of, settled.numerics, held.spec.seed) for kind in (Certifier, Known))
        searches = []
        for variant in waiting:
            recipes = Recipes(
                own.spec,
                held.grid,
                variant,
                seed=held.spec.seed,
                numerics=settled.numerics,
                data_of=data_of,
                certifier=certifier,
                known=known,
                plan=plan,
            )
            searches.append(
                _search(held, variant, recipes, study, work, cache=cache, trial_timeout=policy.trial_timeout)
            )
        trials = held.spec.trials * len(waiting)
        epochs = max(variant.train.epochs for variant in waiting)
        drive(study, searches, work, policy, executor, progress, cache, beforehand, trials=trials, epochs=epochs)
        _check_whole(study, held, searches)


def _plan_of(plan: StudyPlan, held: Held, waiting: Sequence[Variant]) -> StudyPlan:
    """What the study of the tuning is planned by: the recipe's search, and nothing of what varies."""
    kept = {key: value for key, value in plan.tree.items() if key not in OF_THE_STUDY}
    said = {**section(held.space), "budget": {"trials": held.spec.trials * len(plan.distinct)}, "seed": held.spec.seed}
    tree = Mapping({**kept, "search": said}, plan.tree.keys_at, plan.tree.values_at)
    execution = plan.execution
    if execution.compile == "auto":  # as in any search, networks are many and trials short
        execution = execution.model_copy(update={"compile": False})
    return replace(
        plan,
        spec=evaluated(held.space, plan.spec),
        tree=tree,
        variants=list(waiting),
        seeds=[held.spec.seed],
        execution=execution,
        report=ReportSpec(),
        paper=[],
        design="search",
        expected=held.spec.trials * len(waiting),
    )


def _search(
    held: Held,
    variant: Variant,
    recipes: Recipes,
    study: Study,
    work: Work,
    *,
    cache: Cache | None,
    trial_timeout: float | None,
) -> Search:
    """One variant's search: with the sampler's seed that all have, so that all are proposed the same to begin with."""
    model = held.space.model
    monitored = held.objective if model.pruner else None
    aims = Aims(model.objectives, BudgetSpec(trials=held.spec.trials), model.constraints, model.filter, monitored)
    proposer = Proposer(
        held.grid,
        aims.objectives,
        model.chosen_sampler,
        constraints=aims.constraints,
        journal=study.folder / JOURNAL,
        name=variant.name,
    )
    pruner = Pruner(model.pruner, model.objectives[held.objective], variant.train.epochs) if model.pruner else None
    return Search(
        study,
        recipes,
        proposer,
        aims,
        pruner=pruner,
        name=variant.name,
        cache=cache,
        trials=work.trials,
        variants=work.variants,
        trial_timeout=trial_timeout,
    )


def _check_whole(study: Study, held: Held, searches: Sequence[Search]) -> None:
    """``UserError`` where the tuning ended before it was done, or had done more before than is asked for now."""
    problems = []
    for search in searches:
        count, name = len(search.results), search.name
        if not search.exhausted:
            message = f"the tuning is not done: '{name}' has {count} of {held.spec.trials} trials"
            problems.append(Problem(message, hint="the same command goes on with it"))
        elif count > held.spec.trials:
            message = f"'{name}' was tuned by {count} trials in {study.folder}, and tune.trials is {held.spec.trials}"
            problems.append(Problem(message, hint="trials can be added, not taken away; or choose another --out"))
    if problems:
        raise UserError(problems)


class Recipes(Candidates):
    """The points of the space for one variant: its network with another recipe."""

    def __init__(self, spec: Spec, grid: Grid, variant: Variant, *, plan: StudyPlan, **settled: Any) -> None:
        super().__init__(spec, grid, variant, **settled)
        self.plan = plan

    def built(self, name: str, point: Point) -> Candidate:
        variant = variant_with(self.spec, self.plan, self.baseline, name, self.grid.assignments(point))
        variant.baseline = self.baseline.name
        content = self.data_of(variant.data).content_hash
        return Candidate(variant, trial_hash(variant, self.seed, content, self.numerics.as_dict()))


def without_test(data_of: Callable[[DataSpec], ImageData]) -> Callable[[DataSpec], ImageData]:
    """Loads what ``data_of`` does, without the test split, which nobody reads then; other data, by their hash."""
    made: dict[str, ImageData] = {}

    def loaded(spec: DataSpec) -> ImageData:
        data = data_of(spec)
        content = digest([data.content_hash, "without test"])
        return made.setdefault(content, replace(data, test=None, content_hash=content))

    return loaded
