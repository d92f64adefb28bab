"""The best trial of each variant's tuning, as the study of it has them, and the plan of a study with their values."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ablate.design import StudyPlan, Variant, variant_at
from ablate.errors import Problem, UserError
from ablate.searching.setup import evaluated, section
from ablate.space import Chosen, Dimension, Grid
from ablate.space.trying import level_of
from ablate.spec import Assignment, Spec
from ablate.store import TUNING, Study, is_study
from ablate.tuning.held import SECTION, Held, held_of

FREE = ("file", "budget", "seed")
"""What of a search's section does not come from the space."""


@dataclass(frozen=True)
class Winner:
    """The best trial of a variant's tuning, of so many that have a result."""

    number: int
    value: float
    trained: int
    record: Mapping[str, Any]


def as_far_as_tuned(plan: StudyPlan, folder: Path) -> StudyPlan:
    """The plan with what the folder has of its tuning: of each variant whose trials are done. Nothing is trained.

    ``UserError``: the folder has a tuning by another space, or of other variants.
    """
    held = held_of(plan.spec)
    if held is None or not is_study(folder / TUNING):
        return plan
    return with_winners(plan, held, Study.open(folder / TUNING), settled_numbers(folder), whole=False)


def settled_numbers(folder: Path) -> dict[str, int]:
    """Variant → the number of the trial that its recipe is from, of the variants that the study itself has."""
    if not is_study(folder):
        return {}
    with suppress(UserError):  # what is damaged there is told when the study goes on
        tuned = {record["name"]: record["certificate"].get("tuning") for record in Study.open(folder).variants}
        return {name: tuning["number"] for name, tuning in tuned.items() if tuning}
    return {}


def with_winners(
    plan: StudyPlan, held: Held, study: Study, settled: Mapping[str, int], *, whole: bool = True
) -> StudyPlan:
    """The plan with each variant's recipe as it was tuned; variants that come to be equal are duplicates, as ever.

    ``settled``: numbers that were chosen before. Not ``whole``: variants that are still to be tuned stay as written.
    """
    check_same(study, held)
    winners: dict[str, Winner] = {}
    problems: list[Problem] = []
    for variant in plan.distinct:
        records = records_of(study, variant.name)
        if not whole and variant.name not in settled and len(_ended(study, records)) < held.spec.trials:
            continue
        winner = _winner(study, held, records, settled.get(variant.name))
        if winner is None:
            problems.append(_none_finished(study, variant.name, records))
        else:
            winners[variant.name] = winner
            problems += _not_the_same(plan, held, variant, winner, study)
    if problems:
        raise UserError(problems)
    most = max((winner.trained for winner in winners.values()), default=0)
    variants = []
    for variant in plan.variants:
        found = winners.get(variant.duplicate_of or variant.name)
        variants.append(variant if found is None else _tuned(plan, held, variant, found, most))
    _merge(variants)
    return replace(plan, variants=variants)


def records_of(study: Study, name: str) -> list[dict[str, Any]]:
    """The proposals of a variant that are trained, in order."""
    own = [record for record in study.proposals() if record["name"] == f"{name}/{record['number']}"]
    return [record for record in own if record["outcome"] == "trained"]


def check_same(study: Study, held: Held) -> None:
    """``UserError`` where the study was tuned over another space."""
    was, now = (
        {key: value for key, value in said.items() if key not in FREE}
        for said in (study.spec.get("search") or {}, plain(section(held.space)))
    )
    if was != now:
        differing = [key for key in dict.fromkeys([*was, *now]) if was.get(key) != now.get(key)]
        message = f"{study.folder} was tuned over another space than {held.space.file}: they differ in "
        raise UserError(Problem(f"{message}{', '.join(differing)}", hint="choose another --out, or put the space back"))


def plain(data: Any) -> Any:
    """As a study's ``spec.yaml`` gives it back."""
    return json.loads(json.dumps(data))


def _ended(study: Study, records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return study.results([record["trial"] for record in records])


def _winner(study: Study, held: Held, records: Sequence[Mapping[str, Any]], settled: int | None) -> Winner | None:
    """The best of those that finished, the first of equals; or the one that was chosen before."""
    results = _ended(study, records)
    values = {
        record["number"]: results[record["trial"]]["metrics"].get(held.objective, math.nan)
        for record in records
        if record["trial"] in results and results[record["trial"]]["status"] == "finished"
    }
    finite = {number: float(value) for number, value in values.items() if math.isfinite(value)}
    sign = 1.0 if held.highest else -1.0
    number = settled if settled in finite else max(finite, key=lambda each: sign * finite[each], default=None)
    if number is None:
        return None
    record = next(record for record in records if record["number"] == number)
    return Winner(number, finite[number], len(results), record)


def _none_finished(study: Study, name: str, records: Sequence[Mapping[str, Any]]) -> Problem:
    fates = Counter(result["status"] for result in _ended(study, records).values())
    refused = Counter(
        record["outcome"]
        for record in study.proposals()
        if record["name"] == f"{name}/{record['number']}" and record["outcome"] != "trained"
    )
    said = ", ".join(f"{count} {kind}" for kind, count in [*fates.items(), *refused.items()]) or "none was proposed"
    message = f"'{name}' has no recipe: none of the trials that were to tune it finished ({said})"
    return Problem(message, SECTION, hint=f"see ablate status {study.folder}, and change the space")


def _not_the_same(plan: StudyPlan, held: Held, variant: Variant, winner: Winner, study: Study) -> Iterable[Problem]:
    """The trial on record is of another network, or recipe, than the variant is now."""
    now = variant_with(
        evaluated(held.space, plan.spec), plan, variant, variant.name, _assignments(held.grid, winner.record)
    )
    if now.identity != winner.record["variant"]["identity"]:
        message = f"{study.folder}: '{variant.name}' was tuned as another network or recipe than it is now"
        yield Problem(message, hint="choose another --out")


def _tuned(plan: StudyPlan, held: Held, variant: Variant, winner: Winner, most: int) -> Variant:
    found = variant_with(plan.spec, plan, variant, variant.name, _assignments(held.grid, winner.record))
    found.levels, found.patched, found.baseline = dict(variant.levels), variant.patched, variant.baseline
    found.control = variant.control
    found.tuning = {
        "space": held.space.file,
        "trials": held.spec.trials,
        "trained": winner.trained,
        "most": most,
        "seed": held.spec.seed,
        "objective": held.objective,
        "value": winner.value,
        "number": winner.number,
        "trial": winner.record["trial"],
        "values": dict(winner.record["levels"]),
    }
    return found


def variant_with(
    spec: Spec, plan: StudyPlan, variant: Variant, name: str, assignments: Iterable[Assignment]
) -> Variant:
    """A variant's levels on a spec, and after them the values of a point of the space."""
    tuned = sorted(assignments, key=lambda assignment: len(assignment.path))
    levels = [*variant.patched, *map(level_of, tuned)]
    return variant_at(spec, name, levels, phases=plan.design == "ladder")


def _assignments(grid: Grid, record: Mapping[str, Any]) -> list[Assignment]:
    """What a proposal on record assigns."""
    chosen: list[tuple[Dimension, Chosen]] = []
    for dimension in grid.dimensions:
        label, value = record["levels"].get(dimension.path), record["values"].get(dimension.path)
        if dimension.span is not None and label is not None:
            chosen.append((dimension, value))
        chosen += [(dimension, index) for index, option in enumerate(dimension.options) if option.label == label]
    return [dimension.assignment(each) for dimension, each in chosen]


def _merge(variants: Sequence[Variant]) -> None:
    """Note which are the same as one before; whatever was the same stays so, having been given the same values."""
    first: dict[tuple[str | None, ...], str] = {}
    for variant in variants:
        known = first.setdefault(variant.sameness, variant.name)
        variant.duplicate_of = None if known == variant.name else known
