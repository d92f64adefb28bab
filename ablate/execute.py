"""Running one trial into the store, and the executor that does so in this process.

Every executor runs ``run_trial`` on the same trials, so their results are equal.
"""

from __future__ import annotations

import io
from collections.abc import Generator
from contextlib import closing
from typing import Any

import torch

from ablate.data.loading import cores_given
from ablate.numerics import process_settings
from ablate.placing import available_cpus
from ablate.prepare import Prepared
from ablate.processes import epochs_together
from ablate.store import Study
from ablate.train import Outcome, Row, Trial, epochs


class Progress:
    """Who is told how a sweep goes: a live table, plain lines; this one tells nobody."""

    def begin(self, trials: list[Trial], finished: int) -> None:
        """The sweep starts; so many of the trials were finished before."""

    def started(self, trial: Trial) -> None:
        """A trial starts, or starts again after its worker died."""

    def epoch(self, trial: Trial, row: Row) -> None:
        """A trial has finished an epoch."""

    def ended(self, trial: Trial, result: dict[str, Any]) -> None:
        """A trial has its result."""

    def lost(self, trial: Trial, reason: str) -> None:
        """A trial ended without a result."""

    def end(self) -> None:
        """The sweep is over, in whatever way."""


def run_trial(
    study: Study, trial: Trial, running: Generator[Row, None, Outcome]
) -> Generator[Row, None, dict[str, Any]]:
    """Train one trial into its folder, a row after each epoch; the result is returned, and recorded by the driver.

    ``running`` is its training, not yet begun: ``train.epochs`` or what stands for it on several devices.
    """
    study.begin(
        {"hash": trial.hash, "variant": trial.variant, "seed": trial.seed, "numerics": trial.numerics.as_dict()}
    )
    while True:
        try:
            row = next(running)
        except StopIteration as end:
            return _stored(study, trial, end.value)
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


def record(study: Study, trial: Trial, result: dict[str, Any]) -> None:
    """The driver's part: the readings of the test split, then the result."""
    for reading in range(result["test_readings"]):
        study.expose(by="sweep", trial=trial.hash, variant=trial.variant, seed=trial.seed, reading=reading + 1)
    study.finish(trial.hash, result)


def run_here(trials: list[Trial], prepared: Prepared, study: Study, progress: Progress) -> None:
    """One trial after another, in this process."""
    # a trial that runs alone has the machine: what its threads leave may decode images
    with process_settings(prepared.numerics), cores_given(available_cpus()):
        for trial in trials:
            progress.started(trial)
            begin = epochs if trial.numerics.devices == 1 else epochs_together
            running = begin(trial, prepared.data_of(trial.variant))
            with closing(running):
                result = _driven(run_trial(study, trial, running), trial, progress)
            record(study, trial, result)
            progress.ended(trial, result)


def _driven(running: Generator[Row, None, dict[str, Any]], trial: Trial, progress: Progress) -> dict[str, Any]:
    while True:
        try:
            progress.epoch(trial, next(running))
        except StopIteration as end:
            result: dict[str, Any] = end.value
            return result
