"""The trials of a search as its sampler sees them, in memory, and their journal.

The two differ where a sampler is to learn from a point that was never trained. A refused point is of no use to an
evolution, which asks again; TPE takes it among the bad ones by how far it breaks the constraints; the Gaussian process
models the constraints by it, and needs an objective for that: the mean of those told so far says neither good nor bad.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import InMemoryStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ablate.errors import Problem, UserError
from ablate.proposing.journal import Journal, quiet
from ablate.proposing.parameters import Parameters, differing

HIDDEN, OF_STUDY, REFUSED = "search:hidden", "search:study", "search:refused"
"""A trial's attributes: its values of parameters that are not active; what its sampler noted of the study; that it was
refused, with the objectives that stand in for its own."""
POSSIBLE = "possible"
"""The constraint that a point breaks of which no network can be made, or which a filter refused: no number says by how
much, so that a Gaussian process can't model it, and it is none of a space's own."""
_FLEETING = "relative_params"
"""What samplers write while a point is being settled, for others that run at the same time."""


class Trials:
    """By number, from 0 on. ``learns`` says what a refused trial is to the sampler."""

    def __init__(
        self,
        parameters: Parameters,
        objectives: Mapping[str, str],
        journal: Path | None,
        name: str,
        learns: TrialState,
    ) -> None:
        self.parameters = parameters
        self.objectives = objectives
        self._name = name
        self._learns = learns
        self._storage = InMemoryStorage()
        directions = [StudyDirection[way.upper()] for way in objectives.values()]
        with quiet():
            self._study_id = self._storage.create_new_study(directions, name)
        self._drafted: int | None = None
        self._journal = None if journal is None else Journal(journal, name, objectives)
        self.recorded = [] if self._journal is None else list(self._journal.trials())
        """As the journal had them when it was opened."""
        for trial in self.recorded:
            self._restore(trial)

    def study(self) -> Study:
        """For one draw: a study remembers the trials that it once looked up."""
        with quiet():
            return optuna.study.Study(self._name, self._storage)

    def draft(self) -> FrozenTrial:
        """The next trial, without a point as yet. The same one until it is settled."""
        if self._drafted is None:
            self._drafted = self._storage.create_new_trial(self._study_id)
        for key in self._storage.get_trial(self._drafted).system_attrs:
            if _FLEETING in key:
                self._storage.set_trial_system_attr(self._drafted, key, "")
        return self._storage.get_trial(self._drafted)

    def noted(self) -> dict[str, Any]:
        """What samplers noted of the study as a whole."""
        return dict(self._storage.get_study_system_attrs(self._study_id))

    def forget(self, key: str) -> None:
        """What the sampler noted of the draft, where the draft's point is not what it drew."""
        draft = self.draft()
        if key in draft.system_attrs:
            self._storage.set_trial_system_attr(draft._trial_id, key, None)

    def settle(self, active: Mapping[str, Any], hidden: Mapping[str, Any], noted_before: Mapping[str, Any]) -> None:
        """The draft becomes a trial that runs."""
        draft = self.draft()
        every = {**active, **hidden}
        for name, distribution in self.parameters.all.items():
            if name in every:
                value = distribution.to_internal_repr(every[name])
                self._storage.set_trial_param(draft._trial_id, name, value, distribution)
        if self._journal is not None:
            kept = {key: value for key, value in draft.system_attrs.items() if _FLEETING not in key}
            fresh = {key: value for key, value in self.noted().items() if key not in noted_before}
            kept |= {HIDDEN: dict(hidden)} if hidden else {}
            kept |= {OF_STUDY: fresh} if fresh else {}
            self._journal.add(_trial(TrialState.RUNNING, active, self.parameters, kept))
        self._drafted = None

    def tell(self, number: int, values: list[float], constraints: Mapping[str, float]) -> None:
        self._end(number, TrialState.COMPLETE, values, constraints)
        if self._journal is not None:
            self._journal.end(number, TrialState.COMPLETE, values, constraints)

    def refuse(self, number: int, constraints: Mapping[str, float], known: Mapping[str, float]) -> None:
        stand_ins = self._stand_ins(known)
        self._refused(number, constraints, stand_ins)
        if self._journal is not None:
            self._journal.end(number, TrialState.PRUNED, None, constraints, {REFUSED: stand_ins})

    def prune(self, number: int, epoch: int, value: float) -> None:
        self._pruned(number, {epoch: value})
        if self._journal is not None:
            self._journal.end(number, TrialState.PRUNED, reports={epoch: value})

    def fail(self, number: int) -> None:
        self._end(number, TrialState.FAIL)
        if self._journal is not None:
            self._journal.end(number, TrialState.FAIL)

    def note(self, number: int, attributes: Mapping[str, Any]) -> None:
        if self._journal is not None:
            self._journal.note(number, attributes)

    def _restore(self, trial: FrozenTrial) -> None:
        """As it was when the journal's lines were written."""
        other = differing(trial.distributions, self.parameters)
        if other:
            message = f"the proposals so far are of another space: {', '.join(other)}"
            raise UserError(Problem(message, hint="begin another search (--out)"))
        for key, value in trial.system_attrs.get(OF_STUDY, {}).items():
            self._storage.set_study_system_attr(self._study_id, key, value)
        every = {**trial.params, **trial.system_attrs.get(HIDDEN, {})}
        own = (HIDDEN, OF_STUDY, REFUSED)
        kept = {k: v for k, v in trial.system_attrs.items() if k not in own and not k.startswith("constraints")}
        self._storage.create_new_trial(self._study_id, _trial(TrialState.RUNNING, every, self.parameters, kept))
        if trial.state == TrialState.COMPLETE:
            self._end(trial.number, TrialState.COMPLETE, list(trial.values), trial.constraints)
        elif trial.state == TrialState.PRUNED and REFUSED in trial.system_attrs:
            self._refused(trial.number, trial.constraints, trial.system_attrs[REFUSED])
        elif trial.state == TrialState.PRUNED:
            self._pruned(trial.number, trial.intermediate_values)
        elif trial.state == TrialState.FAIL:
            self._end(trial.number, TrialState.FAIL)

    def _stand_ins(self, known: Mapping[str, float]) -> list[float]:
        """An objective that is known, and of the others the mean so far."""
        told = self._storage.get_all_trials(self._study_id, deepcopy=False, states=(TrialState.COMPLETE,))
        columns = zip(*(trial.values for trial in told), strict=True) if told else [[0.0]] * len(self.objectives)
        means = [math.fsum(column) / max(1, len(told)) for column in columns]
        return [float(known.get(name, mean)) for name, mean in zip(self.objectives, means, strict=True)]

    def _refused(self, number: int, constraints: Mapping[str, float], stand_ins: list[float]) -> None:
        if self._learns == TrialState.COMPLETE and POSSIBLE not in constraints:
            self._end(number, TrialState.COMPLETE, stand_ins, constraints)
        elif self._learns == TrialState.PRUNED:
            self._end(number, TrialState.PRUNED, None, constraints)
        else:
            self._end(number, TrialState.FAIL)

    def _pruned(self, number: int, reports: Mapping[int, float]) -> None:
        if len(self.objectives) == 1:  # of several, no one report says how good it was
            for epoch, value in reports.items():
                self._storage.set_trial_intermediate_value(number, epoch, value)
        self._end(number, TrialState.PRUNED)

    def _end(
        self,
        number: int,
        state: TrialState,
        values: list[float] | None = None,
        constraints: Mapping[str, float] | None = None,
    ) -> None:
        if constraints:
            with quiet():
                trial = optuna.trial.Trial(self.study(), number)
                for name, value in constraints.items():
                    trial.set_constraint(name, value)
        self._storage.set_trial_state_values(number, state, values)


def _trial(
    state: TrialState, values: Mapping[str, Any], parameters: Parameters, attributes: dict[str, Any]
) -> FrozenTrial:
    """In the order of the parameters, so that what is read again is what was written."""
    params = {name: values[name] for name in parameters.all if name in values}
    return FrozenTrial(
        number=-1,  # the storage counts
        trial_id=-1,
        state=state,
        value=None,
        datetime_start=datetime.now(),
        datetime_complete=None,
        params=params,
        distributions={name: parameters.all[name] for name in params},
        user_attrs={},
        system_attrs=attributes,
        intermediate_values={},
    )
