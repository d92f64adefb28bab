"""Running one trial into the store, and the executor that does so in this process.

Every executor runs ``run_trial`` on the same trials, so their results are equal.
"""

from __future__ import annotations

import io
import os
import platform
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from ablate.checkpoints import Checkpoints
from ablate.code import code_digest
from ablate.data.dataset import DataSpec, ImageData
from ablate.data.loading import cores_given
from ablate.design import Variant
from ablate.disk import InUseError
from ablate.driving import Attempt, Driver
from ablate.errors import UserError
from ablate.faults import RankLostError
from ablate.numerics import process_settings
from ablate.placing import available_cpus
from ablate.processes import epochs_together
from ablate.resolving import Resolved
from ablate.store import Study
from ablate.train import Outcome, Row, Trial, epochs
from ablate.workers import Use

Training = Callable[[Checkpoints], Generator[Row, None, Outcome]]
"""A trial's training, not yet begun, from the checkpoint that there may be."""


def run_trial(study: Study, trial: Trial, attempt: int, training: Training) -> Generator[Row, None, dict[str, Any]]:
    """Train one trial into its folder, a row after each epoch; the result is returned, and recorded by the driver.

    It goes on from its last checkpoint. An earlier attempt that outlived its sweep has the folder until it is gone.
    """
    code = code_digest()
    about = {"variant": trial.variant, "seed": trial.seed, "study": study.folder.name, "attempt": attempt, "code": code}
    with study.working(trial.hash):
        study.begin({"hash": trial.hash, **about, "numerics": trial.numerics.as_dict()}, resume=True)
        with closing(training(Checkpoints(study.folder, trial.hash, code))) as running:
            while True:
                try:
                    row = next(running)
                except StopIteration as end:
                    return _stored(study, trial, end.value) | {"code": code}
                if row["epoch"] == 1:  # what an earlier attempt without a checkpoint had measured
                    study.rewrite_metrics(trial.hash, [])
                study.append_metrics(trial.hash, row)
                yield row


def _stored(study: Study, trial: Trial, outcome: Outcome) -> dict[str, Any]:
    if outcome.predictions is not None:
        study.save_predictions(trial.hash, outcome.predictions)
    if outcome.weights is not None:
        buffer = io.BytesIO()
        torch.save(outcome.weights, buffer)
        study.save_checkpoint(trial.hash, buffer.getvalue())
    return outcome.result


@dataclass(frozen=True)
class Work:
    """What an executor needs to know of the trials that a driver gives out, by hash. A search adds some as it goes."""

    trials: dict[str, Trial]
    variants: dict[str, Variant]
    data_of: Callable[[DataSpec], ImageData]
    settled: Resolved
    at_once: int | None = None
    """How many trials run at once, if somebody said so."""


class _TimeIsUp(BaseException):
    """Raised in the midst of a trial. No block's ``except Exception`` holds it up."""


def run_here(driver: Driver, work: Work) -> None:
    """One attempt after another, in this process."""
    # a trial that runs alone has the machine: what its threads leave may decode images
    with process_settings(work.settled.numerics), cores_given(available_cpus()):
        while not driver.over:
            attempt = driver.next()
            if attempt is None:  # nothing runs here between two attempts: a search has found none yet
                continue
            hash = attempt.trial.hash
            try:
                _run(driver, attempt, work.trials[hash], work.data_of(work.variants[hash].data))
            except _TimeIsUp:
                driver.timed_out(attempt)
            except (RankLostError, InUseError) as error:  # InUseError: an earlier attempt still runs, somewhere
                driver.lost(attempt, str(error))
            except UserError as error:  # a full disk: no other trial would fare better
                driver.refused(error.problems)


def _run(driver: Driver, attempt: Attempt, trial: Trial, data: ImageData) -> None:
    def training(checkpoints: Checkpoints) -> Generator[Row, None, Outcome]:
        begin = epochs if trial.numerics.devices == 1 else epochs_together
        return begin(trial, data, checkpoints=checkpoints)

    driver.started(attempt, node=platform.node(), pid=os.getpid())
    use = Use(trial.numerics.device)
    with (
        _Alarm(driver.policy.trial_timeout) as alarm,
        closing(run_trial(driver.study, trial, attempt.number, training)) as running,
    ):
        while True:
            try:
                with alarm.raising():
                    row = next(running)
            except StopIteration as end:
                driver.ended(attempt, end.value)
                return
            goes_on = driver.epoch(attempt, row, use.since_last())
            if driver.over:
                return
            if not goes_on:
                running.close()
                driver.pruned(attempt)
                return
            if driver.overdue():  # where no alarm could be set, or it came while nothing was to be ended
                raise _TimeIsUp


class _Alarm:
    """Ends what runs in ``raising()`` after so many seconds, in the main thread of a system that has such alarms."""

    def __init__(self, seconds: float | None) -> None:
        here = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
        self._seconds = seconds if here else None
        self._armed = False

    def __enter__(self) -> _Alarm:
        if self._seconds is not None:
            self._before = signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, self._seconds)
        return self

    def __exit__(self, *error: object) -> None:
        if self._seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)

    @contextmanager
    def raising(self) -> Iterator[None]:
        self._armed = True
        try:
            yield
        finally:
            self._armed = False

    def _ring(self, number: int, frame: object) -> None:
        if self._armed:
            raise _TimeIsUp


@contextmanager
def ended_by_sigterm(driver: Driver) -> Iterator[None]:
    """A batch system that wants the machine back sends SIGTERM first: the sweep ends as by Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        driver.stop("interrupted")
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
