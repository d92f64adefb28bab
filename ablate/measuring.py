"""Training steps of one trial in several processes at once, timed.

The processes start once, are told to try one way after another, and end with this one, however it ends. Each has an
interpreter of its own: nothing of this process, its threads or its main module, is in them.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, count
from threading import Timer
from typing import Any

import numpy as np
import torch

from ablate.data.dataset import ImageData
from ablate.data.loading import give_cores
from ablate.numerics import set_process
from ablate.train import Run, Trial
from ablate.trainable import training_mode
from ablate.workers import keep_memory, worker_environment

BATCHES = 4
"""Of the train split, that every process has for its steps."""
SECONDS = 120.0
"""After so many all processes are ended: a step that takes as long is better measured by training."""
START = "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); from ablate.measuring import serve; serve()"


class NotMeasuredError(Exception):
    """Why nothing was measured, in words."""


@dataclass(frozen=True)
class Told:
    """What a process is to try: so many threads of so many cores, on the device of that number, for ``seconds``."""

    threads: int
    cores: int
    device: int
    seconds: float


@dataclass(frozen=True)
class Reply:
    """Images a second, and the share of the memory (the device's, or this machine's) that was taken by then."""

    images_per_second: float
    memory: float


class Side:
    """One of the processes that train side by side, as seen from this one."""

    def __init__(self, trial: Trial) -> None:
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START],
                env=os.environ | worker_environment(trial.numerics),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            raise NotMeasuredError(str(error)) from None
        self.tell(sys.path)

    def tell(self, message: Any) -> None:
        assert self.process.stdin is not None
        try:
            pickle.dump(message, self.process.stdin)
            self.process.stdin.flush()
        except OSError:
            raise self._ended() from None

    def answer(self) -> Any:
        assert self.process.stdout is not None
        try:
            answer = pickle.load(self.process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            raise self._ended() from None
        if isinstance(answer, str):
            raise NotMeasuredError(answer)
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _ended(self) -> NotMeasuredError:
        self.process.kill()
        return NotMeasuredError(f"a process that trained to measure was ended ({self.process.wait()})")


@contextmanager
def sides(trial: Trial, data: ImageData, most: int) -> Iterator[list[Side]]:
    """``most`` processes that are ready to train the trial; ``NotMeasuredError`` where that can't be."""
    payload = _packed(_eager_part(endless(trial)), _part(data, BATCHES * trial.train.batch_size))
    started: list[Side] = []
    timer = Timer(SECONDS, _kill, (started,))
    timer.daemon = True
    timer.start()
    try:
        for _ in range(most):
            started.append(Side(trial))
        for side in started:
            side.tell(payload)
        yield started
    finally:
        timer.cancel()
        for side in started:
            side.end()


def _kill(sides: list[Side]) -> None:
    for side in sides:
        side.process.kill()


def _packed(trial: Trial, data: ImageData) -> bytes:
    try:
        return pickle.dumps((trial, data))
    except (pickle.PicklingError, AttributeError, TypeError) as error:  # a block that was defined in a function
        raise NotMeasuredError(f"{type(error).__name__}: {error}") from None


def at_once(sides: Sequence[Side], threads: int, cores: int, seconds: float, devices: int = 1) -> list[Reply]:
    """What each process gave while all of them trained, from one moment on. Each takes a step before, to warm up."""
    for number, side in enumerate(sides):
        side.tell(Told(threads, cores, number % devices, seconds))
    for side in sides:
        side.answer()
    for side in sides:
        side.tell(None)
    return [side.answer() for side in sides]


def endless(trial: Trial) -> Trial:
    """The trial with a schedule that does not end while it is timed: some raise an error once their epochs are over."""
    return replace(trial, train=trial.train.model_copy(update={"epochs": 1_000_000}))


def _eager_part(trial: Trial) -> Trial:
    """The trial on one device, eager.

    A trial on several devices is a process each, with a share of the batch; that they exchange gradients is left out.
    """
    numerics = replace(trial.numerics, devices=1, compile=False)
    share = max(2, trial.train.batch_size // trial.numerics.devices)
    return replace(trial, numerics=numerics, train=trial.train.model_copy(update={"batch_size": share}))


def _part(data: ImageData, size: int) -> ImageData:
    train = data.train.take(np.arange(min(size, len(data.train))))
    return replace(data, train=train, val=None, test=None)


def serve() -> None:
    """The life of such a process: a trial, then one way after another to train it, until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the other process's to answer, and it ends this one
    keep_memory()
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a block prints is no answer
    try:
        _try_all(asked, answers)
    except EOFError:
        return
    except Exception as error:  # whatever a block raises
        _send(answers, f"{type(error).__name__}: {error}")


def _send(answers: Any, answer: Any) -> None:
    pickle.dump(answer, answers)
    answers.flush()


def _try_all(asked: Any, answers: Any) -> None:
    torch.set_flush_denormal(True)  # before anything that could start threads
    trial, data = pickle.loads(pickle.load(asked))
    told: Told = pickle.load(asked)
    _settle(trial, told)
    run = Run(trial, data)
    training_mode(run.network, trial.trainable)
    batches = chain.from_iterable(run.batches.epoch(number) for number in count())
    while True:
        _timed(run, batches, 0.0)
        _send(answers, None)
        pickle.load(asked)
        rate = _timed(run, batches, told.seconds)
        _send(answers, Reply(rate, _memory(trial.numerics.device)))
        told = pickle.load(asked)
        _settle(trial, told)


def _settle(trial: Trial, told: Told) -> None:
    set_process(replace(trial.numerics, threads=told.threads))
    give_cores(told.cores)
    if trial.numerics.device == "cuda":
        torch.cuda.set_device(told.device)


def _timed(run: Run, batches: Iterator[Any], seconds: float) -> float:
    """Images a second over that time, one step at least."""
    images, began = 0, time.monotonic()
    while True:
        x, y = next(batches)
        loss, _ = run.one_step(x, y)
        images += len(y)
        if time.monotonic() - began >= seconds:
            float(loss)  # on CUDA steps are only queued until somebody asks
            return images / (time.monotonic() - began)


def _memory(device: str) -> float:
    """The share of a device's memory that is taken; on a CPU that of this machine's that this process has taken."""
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        return 1.0 - free / total
    if sys.platform == "win32":
        return 0.0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / total
