"""What a search found, as a spec of its own."""

from __future__ import annotations

from ablate.errors import Problem, UserError, did_you_mean
from ablate.findings import best_spec, findings_of
from ablate.searching.setup import Held
from ablate.spec import Assignment, apply
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
    dimensions = {dimension.path: dimension for dimension in held.grid.dimensions}
    assigned = [
        Assignment(tuple(path.split(".")), value, dimensions[path].place, f"{path}={trial.labels[path]}")
        for path, value in trial.values.items()
        if path in trial.labels
    ]
    return best_spec(apply(held.plan.spec, assigned).tree, found, trial)
