"""The options of a study that decide how fast it trains, each as one change of what the study says."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from ctypes.util import find_library
from dataclasses import dataclass, field, replace
from typing import Any

from ablate.compiling import why_not
from ablate.data.dataset import ImageData
from ablate.data.folder import FolderSplit
from ablate.data.loading import workers_here
from ablate.numerics import fastest_precision
from ablate.optimizing import FUSED
from ablate.placing import available_cpus
from ablate.train import Trial
from ablate.workers import THREADS, worker_environment

PRELOAD = "LD_PRELOAD"
AS_IT_COMES = {"MALLOC_ARENA_TEST": "8"}
"""glibc's default written out: an allocator that the user has set in any way is left alone."""
LOADER_BURST = 8
"""Steps in a reading where processes read ahead: what they did while the other side was timed is soon used up."""


@dataclass(frozen=True)
class Subject:
    """What is timed: a trial with its data, and the cores that such a trial has in the study."""

    trial: Trial
    data: ImageData
    cores: int = 1


@dataclass(frozen=True)
class Change:
    """One option set otherwise. ``path`` and ``value`` say so in a spec; without a path no spec can."""

    option: str
    now: str
    instead: str
    of: Callable[[Subject], Subject] = lambda subject: subject
    path: tuple[str, ...] = ()
    value: Any = None
    environment: Mapping[str, str] = field(default_factory=dict)
    """Where it is read as a process starts: both sides are then timed in processes of their own."""
    is_advice: bool = False
    """Whether that environment is one to start a sweep in."""
    burst: int = 1


def changes(subject: Subject, *, compile: bool, stated_alike: bool = True) -> Iterator[Change]:
    """The options that this machine has, one after another. ``stated_alike``: no two variants differ in precision."""
    trial = subject.trial
    if stated_alike and not trial.numerics.deterministic:
        yield from _precisions(trial)
    yield _layout(trial)
    if trial.train.optimizer.name in FUSED.get(trial.numerics.device, ()):
        fused = trial.numerics.fused
        yield Change("fused optimiser", _on(fused), _on(not fused), _with_numerics(fused=not fused))
    if trial.numerics.device == "cpu":
        yield from _threads(trial)
    yield from _workers(subject)
    if compile and not trial.numerics.deterministic and why_not(trial.numerics.device) is None:
        now = trial.numerics.compile
        path = ("execution", "compile")
        yield Change("compile", _on(now), _on(not now), _with_numerics(compile=not now), path, not now)


def _precisions(trial: Trial) -> Iterator[Change]:
    """Emulated precisions are many times slower than fp32 and are left out."""
    device = trial.numerics.device
    here = ["fp32"] + (["bf16"] if fastest_precision(device) == "bf16" else []) + (["fp16"] if device == "cuda" else [])
    for precision in here:
        if precision != trial.precision:
            yield Change(
                "precision", trial.precision, precision, _with_precision(precision), ("train", "precision"), precision
            )


def _with_precision(precision: str) -> Callable[[Subject], Subject]:
    def of(subject: Subject) -> Subject:
        train = subject.trial.train.model_copy(update={"precision": precision})
        return replace(subject, trial=replace(subject.trial, train=train))

    return of


def _layout(trial: Trial) -> Change:
    now = trial.numerics.channels_last
    path = ("execution", "channels_last")
    return Change("channels_last", _on(now), _on(not now), _with_numerics(channels_last=not now), path, not now)


def _threads(trial: Trial) -> Iterator[Change]:
    """For one trial alone; what is best for a study is a matter of how many trials run at once."""
    for threads in powers_of_two(available_cpus()):
        if threads != trial.numerics.threads:
            yield Change(
                "threads, one trial", str(trial.numerics.threads), str(threads), _with_numerics(threads=threads)
            )


def _workers(subject: Subject) -> Iterator[Change]:
    """Processes that decode images, for data that are read from files as they are asked for.

    This machine is idle but for the trial; in the study others fill the cores. More than a trial has there are timed,
    and no setting to recommend.
    """
    split = subject.data.train
    if not isinstance(split, FolderSplit):
        return
    now = split.workers if split.workers is not None else workers_here(subject.trial.numerics.device)
    spare = max(0, subject.cores - subject.trial.numerics.threads)
    for workers in (0, *powers_of_two(available_cpus())):
        if workers != now:
            of, path = _with_workers(workers), ("data", "workers") if workers <= spare else ()
            yield Change("data.workers", str(now), str(workers), of, path, workers, burst=LOADER_BURST)


def _with_workers(workers: int) -> Callable[[Subject], Subject]:
    def of(subject: Subject) -> Subject:
        split = subject.data.train
        assert isinstance(split, FolderSplit)
        return replace(subject, data=replace(subject.data, train=replace(split, workers=workers)))

    return of


def _with_numerics(**settings: Any) -> Callable[[Subject], Subject]:
    def of(subject: Subject) -> Subject:
        return replace(subject, trial=replace(subject.trial, numerics=replace(subject.trial.numerics, **settings)))

    return of


def allocators(trial: Trial) -> Iterator[Change]:
    """Ways to get memory for a step's tensors, other than that of a sweep's trials; on Linux with glibc."""
    tuned = set(worker_environment(trial.numerics)) > set(THREADS)
    if trial.numerics.device != "cpu" or platform.libc_ver()[0] != "glibc" or not tuned:
        return
    yield Change("allocator", "glibc (kept)", "glibc", environment=AS_IT_COMES)
    library = find_library("tcmalloc_minimal") or find_library("tcmalloc")
    if library is not None:
        yield Change("allocator", "glibc (kept)", "tcmalloc", environment={PRELOAD: library}, is_advice=True)


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4, … and ``most``."""
    below = [1 << exponent for exponent in range(most.bit_length()) if 1 << exponent < most]
    return [*below, most]


def _on(value: bool) -> str:
    return "on" if value else "off"
