"""Ray Tune's schedulers with stand-ins for its trials and its controller. Importing this takes Ray two seconds."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

from ablate.space import PrunerSpec
from ablate.streams import stream_seed

EPOCH, VALUE = "epoch", "value"
REDUCTION, BRACKETS, SAMPLES = 3, 3, 3
"""Where the spec leaves them open."""


@dataclass(frozen=True)
class _Trial:
    """Of Tune's trials, what its schedulers read."""

    trial_id: str


class _Controller:
    """Of Tune's controller, what its schedulers read: nothing waits for a place."""

    def get_live_trials(self) -> list[_Trial]:
        return []


class Brackets(AsyncHyperBandScheduler):
    """ASHA in one bracket or more. A trial's bracket is drawn by its name, where Tune takes numpy's global stream."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        if trial.trial_id not in self._trial_info:
            sizes = [len(bracket._rungs) for bracket in self._brackets]
            weights = [math.exp(size - max(sizes)) for size in sizes]
            draws = random.Random(stream_seed("search", "bracket", trial.trial_id))
            self._trial_info[trial.trial_id] = draws.choices(self._brackets, weights)[0]


class Scheduler:
    """One of Tune's, asked for its judgement."""

    def __init__(self, scheduler: TrialScheduler) -> None:
        self._scheduler = scheduler
        self._controller: Any = _Controller()

    def ends(self, trial: str, epoch: int, value: float) -> bool:
        """Whether it ends the trial for what that measured; knows the value from then on."""
        added = self._added(trial)
        action = self._scheduler.on_trial_result(self._controller, added, {EPOCH: epoch, VALUE: value})
        return bool(action == TrialScheduler.STOP)

    def learn(self, trial: str, epoch: int, value: float) -> None:
        """Knows the value from then on, and judges nothing: what Tune says of a trial that is complete."""
        self._scheduler.on_trial_complete(self._controller, self._added(trial), {EPOCH: epoch, VALUE: value})

    def _added(self, name: str) -> Any:
        trial: Any = _Trial(name)
        self._scheduler.on_trial_add(self._controller, trial)
        return trial


def begun(spec: PrunerSpec, mode: str, epochs: int) -> Scheduler:
    """The scheduler that a spec names, for trials of so many epochs."""
    way = "max" if mode == "maximize" else "min"
    if spec.name == "median":
        samples = spec.samples or SAMPLES
        rule = MedianStoppingRule(EPOCH, VALUE, way, grace_period=spec.grace, min_samples_required=samples)
        return Scheduler(rule)
    brackets = (spec.brackets or BRACKETS) if spec.name == "hyperband" else 1
    return Scheduler(Brackets(EPOCH, VALUE, way, epochs, spec.grace, spec.reduction or REDUCTION, brackets))
