"""What ends a trial early: Ray Tune's own schedulers, without its loop.

ASHA (Li et al., 2018, arXiv:1810.05934), the same in several brackets, which is Hyperband without its waiting, and the
median rule of Vizier (Golovin et al., 2017). The executors ask here, whichever they are, and so do replays.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from ablate.errors import Problem, UserError

if TYPE_CHECKING:
    from ablate.proposing.schedulers import Scheduler
    from ablate.space import PrunerSpec


class Pruner:
    """Judges trials by one metric, epoch by epoch.

    ``epochs`` is how many each trial is trained for; ``UserError`` where its grace is as long. A pruner that is
    begun anew is told with ``recall`` what the trials before measured.
    """

    def __init__(self, spec: PrunerSpec, mode: Literal["maximize", "minimize"], epochs: int) -> None:
        if spec.grace >= epochs:
            message = f"{spec.grace} epochs of grace, and a trial has {epochs}: nothing would ever be ended"
            hint = f"at most {epochs - 1}, or no pruner" if epochs > 1 else "leave the pruner out"
            raise UserError(Problem(message, "pruner.grace", hint=hint))
        self._spec = spec
        self._mode = mode
        self._epochs = epochs
        self._rows: dict[str, dict[int, float]] = {}
        self._judged: dict[tuple[str, int], bool] = {}
        self._scheduler = self._begun()

    def judge(self, trial: str, epoch: int, value: float) -> bool:
        """Whether to end the trial after this epoch. Asked again, it says the same.

        A value that is not finite is no measure of anything: nothing is ended for it, and nobody held against it.
        """
        key = trial, epoch
        if key not in self._judged:
            if epoch >= self._epochs or not math.isfinite(value):
                self._remember(trial, epoch, value)
                return False
            rows = self._rows.get(trial, {})
            scheduler = self._scheduler if epoch > max(rows, default=0) else self._without(trial, epoch)
            self._judged[key] = scheduler.ends(trial, epoch, value)
            self._rows.setdefault(trial, {})[epoch] = value
        return self._judged[key]

    def recall(self, trial: str, rows: Iterable[tuple[int, float]]) -> None:
        """What a trial measured before this pruner was begun, as (epoch, value). Judges nothing."""
        for epoch, value in rows:
            self._remember(trial, epoch, value)

    def _remember(self, trial: str, epoch: int, value: float) -> None:
        rows = self._rows.setdefault(trial, {})
        if epoch not in rows and math.isfinite(value):
            rows[epoch] = value
            self._scheduler.learn(trial, epoch, value)

    def _without(self, trial: str, epoch: int) -> Scheduler:
        """A scheduler that does not know yet what the trial measured in this epoch and later."""
        scheduler = self._begun()
        for other, rows in self._rows.items():
            for at, value in sorted(rows.items()):
                if other != trial or at < epoch:
                    scheduler.learn(other, at, value)
        return scheduler

    def _begun(self) -> Scheduler:
        from ablate.proposing.schedulers import begun

        return begun(self._spec, self._mode, self._epochs)
