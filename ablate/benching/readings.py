"""Readings of the clock: the stages of a training step, one way to train beside another, the peak of this machine.

What is measured depends on what else the machine does. So: a reading to warm up, which does not count; then medians,
and how sure they are; and what is compared takes turns, so that a machine that slows down slows both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor

from ablate.costing import waiter
from ablate.data.dataset import ImageData
from ablate.evaluating import evaluate
from ablate.measuring import endless
from ablate.numerics import PRECISIONS, set_process
from ablate.optimizing import parts_of
from ablate.streams import generator
from ablate.train import Run, Trial
from ablate.trainable import training_mode

WARM_UP = 1
SURE = 0.99
"""How often the interval around a median holds the median of all readings that there could be."""
LEAST, MOST = 8, 200
"""Readings of one thing, however long they take and however short they are: fewer have no interval that sure."""
SIZES = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices whose product counts as the peak."""

Clock = Callable[[], float]
"""Seconds, of which only differences matter."""
Reading = Callable[[], float]
"""Seconds that a step took."""


@dataclass(frozen=True)
class Timing:
    """How long to measure, and by what clock: ``steps`` readings, or else for ``seconds``, and at least ``LEAST``."""

    seconds: float = 2.0
    steps: int | None = None
    clock: Clock = time.perf_counter

    def turns(self) -> Iterator[int]:
        """0, 1, 2, … for as long as is to be measured."""
        began = self.clock()
        for turn in count():
            enough = self.steps if self.steps is not None else LEAST if self.clock() - began >= self.seconds else MOST
            if turn >= enough:
                return
            yield turn


@dataclass(frozen=True)
class Spread:
    """The median of ``count`` readings, and an interval that holds that of all there could be."""

    median: float
    low: float
    high: float
    count: int


def spread(values: Sequence[float]) -> Spread:
    """The interval is ``SURE`` for independent readings of any distribution: half of them are below the median.

    It is from the k-th smallest to the k-th greatest, with the greatest k that is sure enough (David and Nagaraja,
    Order Statistics, 2003, 7.1). Of fewer than ``LEAST`` it is from the smallest to the greatest, and less sure.
    """
    ordered, count = sorted(values), len(values)
    k = max(1, int(binom.ppf((1 - SURE) / 2, count, 0.5)))
    return Spread(float(np.median(ordered)), float(ordered[k - 1]), float(ordered[-k]), count)


class Training:
    """A trial that trains for as long as it is asked to, a step at a time, in this process."""

    def __init__(self, trial: Trial, data: ImageData, clock: Clock = time.perf_counter, burst: int = 1) -> None:
        """``burst``: steps in a reading; one after another where waiting for the device after each would slow it."""
        self.trial = endless(trial)
        self.run = Run(self.trial, data)
        self.data, self.clock, self.burst = data, clock, burst
        self.wait = waiter(trial.numerics.device)
        self.batches = self._full_batches()
        training_mode(self.run.network, trial.trainable)

    @property
    def batch_size(self) -> int:
        return self.trial.train.batch_size if len(self.run.batches) > 1 else len(self.data.train)

    def _full_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Epoch after epoch, without the last batch of each where it has another size: that one costs otherwise."""
        number, size = len(self.run.batches), self.batch_size
        full = number if number * size == len(self.data.train) else number - 1
        for epoch in count():
            yield from islice(self.run.batches.epoch(epoch), full)

    def step(self) -> float:
        """Seconds of a step, its batch included."""
        set_process(self.trial.numerics)
        self.wait()
        began = self.clock()
        for _ in range(self.burst):
            self.run.one_step(*next(self.batches))
        self.wait()
        return (self.clock() - began) / self.burst

    def stages(self) -> dict[str, float]:
        """Seconds of each stage of a step; of a batch in parts (``micro_batch``) those of all parts together.

        The device is waited for after each, which on CUDA costs time of its own.
        """
        set_process(self.trial.numerics)
        laps = _laps(self.clock, self.wait)
        next(laps)
        x, y = next(self.batches)
        seconds = {"data": next(laps), "forward": 0.0, "backward": 0.0}
        for number, part in enumerate(parts_of(len(x), self.run.recipe.micro_batch)):
            loss, _ = self.run.forward(x, y, part, number)
            seconds["forward"] += next(laps)
            self.run.backward(loss, number)
            seconds["backward"] += next(laps)
        self.run.move()
        seconds["optimiser"] = next(laps)
        return seconds

    def evaluation(self) -> Callable[[], tuple[float, int]]:
        """Seconds and images of one evaluation batch, of val or where there is none of train: never of test."""
        split = self.data.val if self.data.val is not None else self.data.train
        size = min(self.run.evaluation_batch, len(split))
        part = split.take(np.arange(size))

        def once() -> tuple[float, int]:
            set_process(self.trial.numerics)
            self.wait()
            began = self.clock()
            evaluate(self.run.network, part, self.data, self.trial.numerics, self.trial.precision, size)
            self.wait()
            return self.clock() - began, size

        return once

    def train_again(self) -> None:
        training_mode(self.run.network, self.trial.trainable)


def _laps(clock: Clock, wait: Callable[[], None]) -> Iterator[float]:
    """Seconds since the last time that it was asked."""
    wait()
    began = clock()
    while True:
        wait()
        now = clock()
        yield now - began
        began = now


def stages_of(training: Training, timing: Timing) -> dict[str, list[float]]:
    """Readings of every stage, and of whole steps (``step``) in turn with them."""
    found: dict[str, list[float]] = {}
    for _ in range(WARM_UP):
        training.stages()
    for _ in timing.turns():
        for stage, seconds in training.stages().items():
            found.setdefault(stage, []).append(seconds)
        found.setdefault("step", []).append(training.step())
    return found


def evaluation_of(training: Training, timing: Timing) -> tuple[list[float], int]:
    """Readings of an evaluation batch, and how many images it has."""
    once = training.evaluation()
    for _ in range(WARM_UP):
        once()
    found: list[float] = []
    for _ in timing.turns():
        seconds, images = once()
        found.append(seconds)
    training.train_again()
    return found, images


def in_turn(now: Reading, instead: Reading, timing: Timing) -> tuple[list[float], list[float]]:
    """Readings of both, by turns: now, instead, instead, now, … so that a drift of the machine cancels."""
    for _ in range(WARM_UP):
        now()
        instead()
    found: tuple[list[float], list[float]] = ([], [])
    for turn in timing.turns():
        order = ((0, now), (1, instead)) if turn % 2 == 0 else ((1, instead), (0, now))
        for which, reading in order:
            found[which].append(reading())
    return found


def peak(precision: str, device: str, clock: Clock = time.perf_counter, size: int | None = None) -> float:
    """FLOP/s (a multiply-accumulate is two) of the best of a few products of square matrices."""
    n, wait, drawn = size or SIZES[device], waiter(device), generator("bench", "peak")
    a, b = (torch.rand(n, n, generator=drawn).to(device, PRECISIONS[precision]) for _ in range(2))
    product = a @ b
    seconds = []
    for _ in range(LEAST):
        wait()
        began = clock()
        torch.mm(a, b, out=product)
        wait()
        seconds.append(clock() - began)
    return 2.0 * n**3 / min(seconds)
