"""What a search found, as a spec of its own."""

from __future__ import annotations

from typing import Any

from ablate.design import variant_at
from ablate.errors import Problem, UserError, did_you_mean
from ablate.findings import best_spec, findings_of
from ablate.searching.candidates import point_of
from ablate.searching.setup import Held
from ablate.space.trying import level_of
from ablate.store import Study


def winner(held: Held, study: Study, number: str | None = None) -> str:
    """The text of a spec that trains the best trial's network by itself, or that of another ``number``.

    Of several objectives the best in the first one is taken. ``UserError``: nothing was found, or no such trial.
    """
    found = findings_of(study)
    trials = {trial.name: trial for trial in found.trials}
    if number is not None and number not in trials:
        raise UserError(Problem(f"no trial {number} in {study.folder}", hint=did_you_mean(number, trials)))
    if number is None and not found.ranked:
        raise UserError(
            Problem(f"{study.folder} has no finished trial yet", hint="ablate status says what became of them")
        )
    trial = trials[number] if number is not None else found.ranked[0]
    point = point_of(held.grid, {"levels": trial.labels, "values": trial.values})
    levels = [level_of(assignment) for assignment in held.grid.assignments(point)]
    variant = variant_at(held.plan.spec, trial.name, levels)
    for orphan in variant.orphans:
        _remove(variant.tree, orphan.path)
    return best_spec(variant.tree, found, trial)


def _remove(tree: dict[str, Any], path: str) -> None:
    """What was written for another block than the one that stands there now: a plain spec may not say it."""
    for key in tree:
        if path == key:
            del tree[key]
            return
        if path.startswith(f"{key}.") and isinstance(tree[key], dict):
            _remove(tree[key], path.removeprefix(f"{key}."))
