"""How the trials of a study are placed on the machine: threads for each, and how many at once.

Never more threads than cores in all: twice as many cost ten times the time. Where a study takes long enough, the ways
that are left are measured, with real training steps of one of its trials.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import torch

from ablate.data.dataset import ImageData
from ablate.measuring import NotMeasuredError, Reply, at_once, sides
from ablate.train import Trial

MARGIN = 1.05
"""How much better than the simplest way another must be: threads are in every trial's hash, noise should not be."""
FULL = 0.8
"""The share of the memory that trials may take together."""
WINDOW, WINDOWS = 1.5, 9.0
"""Seconds that a way is timed for at a time, at most; and seconds of timing in all."""


@dataclass(frozen=True)
class Measured:
    """What one way to place trials gave: images a second over all trials that ran at once."""

    threads: int
    concurrent: int
    images_per_second: float

    def over(self, trials: int) -> float:
        """Images a second until so many trials are done: in the last round some of the places may be idle."""
        rounds = -(-trials // self.concurrent)
        return self.images_per_second * trials / (rounds * self.concurrent)


@dataclass(frozen=True)
class Placement:
    """``threads`` for each process of a trial, ``concurrent`` trials at once, and why, in words."""

    threads: int
    concurrent: int
    why: str
    measured: tuple[Measured, ...] = ()
    failed: bool = False
    """Whether it was to be measured and could not be."""

    @property
    def text(self) -> str:
        """``2 trials at once, 1 thread each: 990 images/s; 1 trial, 2 threads: 840``"""
        return f"{_way(self.threads, self.concurrent)}: {self.why}"


def available_cpus() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores_for_trials() -> int:
    """The CPUs that trials may use: those of the Ray cluster that this process has joined, else this machine's."""
    ray = sys.modules.get("ray")
    joined = ray is not None and ray.is_initialized()
    return int(ray.cluster_resources().get("CPU", 1)) if ray is not None and joined else available_cpus()


def place(
    trial: Trial, data: ImageData, *, trials: int, threads: int | None, concurrent: int | None, measure: bool
) -> Placement:
    """How to place ``trials`` trials like this one; ``threads`` and ``concurrent`` where they are stated.

    ``measure``: whether the ways that are left may be timed; else it is a thread for each trial, and on CUDA a trial
    for each device. That is also what remains where a process that is timed fails.
    """
    devices, gpus = trial.numerics.devices, torch.cuda.device_count() if trial.numerics.device == "cuda" else 0
    cores, here = cores_for_trials(), available_cpus()
    ways = candidates(cores, trials, devices, here=here, threads=threads, concurrent=concurrent, gpus=gpus)
    simplest = Placement(*ways[0], _unmeasured(threads, concurrent, len(ways)))
    if len(ways) == 1 or not measure:
        return simplest
    try:
        return best(measured(trial, data, ways, gpus), trials)
    except NotMeasuredError as error:
        return Placement(*ways[0], f"by rule, since nothing could be measured: {error}", failed=True)


def candidates(
    cores: int,
    trials: int,
    devices: int = 1,
    *,
    here: int | None = None,
    threads: int | None = None,
    concurrent: int | None = None,
    gpus: int = 0,
) -> list[tuple[int, int]]:
    """The ways (threads, trials at once) that fill the cores, or share the GPUs; the simplest is the first.

    Never more threads than cores in all, unless both numbers are stated; never more at once than there are trials.
    ``here``: the cores of one machine, which a process can't have more threads than, where there are several.
    """
    if gpus:
        each, places = threads or 1, max(1, gpus // devices)
        shared = [places * share for share in (1, 2, 4) if share == 1 or devices == 1]
        room = max(1, cores // (each * devices))
        return list(dict.fromkeys((each, min(trials, concurrent or min(wanted, room))) for wanted in shared))
    at_once = min(trials, concurrent) if concurrent else 1
    fitting = [t for t in range(1, min(cores, here or cores) + 1) if cores % t == 0 and t * devices * at_once <= cores]
    counts = [threads] if threads else fitting or [1]
    return [(t, at_once if concurrent else min(trials, max(1, cores // (t * devices)))) for t in counts]


def measured(trial: Trial, data: ImageData, ways: Sequence[tuple[int, int]], gpus: int = 0) -> list[Measured]:
    """What each way gives, those left out that would not fit into the memory. ``NotMeasuredError`` where a process
    fails.

    All are timed, from the fewest processes to the most, and then all again where that does not take long; of a way
    that takes more cores than this machine has (in a cluster) the part is timed that fits here.
    """
    cores, devices = available_cpus(), trial.numerics.devices
    processes = {way: _processes(way, devices, cores) for way in ways}
    in_order = sorted(ways, key=processes.__getitem__)
    window = min(WINDOW, WINDOWS / (2 * len(ways)))
    rates: dict[tuple[int, int], list[float]] = {way: [] for way in ways}
    began = time.monotonic()
    with sides(trial, data, max(processes.values())) as started:
        share = 0.0
        for _ in range(2):
            for way in in_order:
                if share * processes[way] / max(1, gpus) > FULL:
                    continue
                replies = at_once(started[: processes[way]], way[0], cores // processes[way], window, max(1, gpus))
                share = share or max(reply.memory for reply in replies)
                rates[way].append(_rate(replies, way, devices))
            if time.monotonic() - began > 2 * WINDOWS:
                break
    return [Measured(*way, median(rates[way])) for way in ways if rates[way]]


def _processes(way: tuple[int, int], devices: int, cores: int) -> int:
    threads, concurrent = way
    return max(1, min(concurrent * devices, cores // threads))


def _rate(replies: Sequence[Reply], way: tuple[int, int], devices: int) -> float:
    """Images a second of all trials of a way, by those that were timed."""
    return sum(reply.images_per_second for reply in replies) / len(replies) * way[1] * devices


def best(measured: Sequence[Measured], trials: int) -> Placement:
    """The fastest way for so many trials, if it is clearly faster than the simplest, which is the first."""
    simplest, fastest = measured[0], max(measured, key=lambda way: way.over(trials))
    chosen = fastest if fastest.over(trials) > MARGIN * simplest.over(trials) else simplest
    others = [f"; {_way(way.threads, way.concurrent)}: {way.over(trials):,.0f}" for way in measured if way != chosen]
    why = f"{chosen.over(trials):,.0f} images/s{''.join(others)} (measured)"
    return Placement(chosen.threads, chosen.concurrent, why, tuple(measured))


def _unmeasured(threads: int | None, concurrent: int | None, ways: int) -> str:
    if threads and concurrent:
        return "as stated"
    if ways == 1:
        return "threads as stated" if threads else "the only way"
    return "by rule, not measured"


def _way(threads: int, concurrent: int) -> str:
    """``2 trials at once, 1 thread each``"""
    at_once = f"{concurrent} trials at once" if concurrent > 1 else "1 trial at a time"
    return f"{at_once}, {threads} thread{'s' if threads > 1 else ''}{' each' if concurrent > 1 else ''}"
