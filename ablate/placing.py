"""How the trials of a study are placed on the machine, or the cluster: threads for each, and how many at once.

Never more threads than cores in all: twice as many cost ten times the time. Where a study takes long enough, the ways
that are left are measured, with real training steps of one of its trials.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch

from ablate.data.dataset import ImageData
from ablate.measuring import NotMeasuredError, Reply, at_once, sides
from ablate.nodes import SHARES, NodeList, alive, memory_here, room, total
from ablate.train import Trial
from ablate.units import size_text

own_session = False
"""Whether the Ray session of this process is one that it started for itself: this machine, and no cluster."""
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
class Stated:
    """What is stated of a placement: by the spec, the command line, or a study that goes on. None is left open."""

    threads: int | None = None
    concurrent: int | None = None
    cpus: int | None = None
    gpus: float | None = None
    memory: int = 0


@dataclass(frozen=True)
class Placement:
    """``threads`` for each process of a trial, ``concurrent`` trials at once, and why, in words.

    ``cpus``, ``gpus`` (below 1 a share of one) and ``memory`` (bytes; 0: not counted) are what a trial holds, over all
    of its ``devices``. No more than ``most`` run at once, however many there is room for.
    """

    threads: int
    concurrent: int
    why: str
    measured: tuple[Measured, ...] = ()
    failed: bool = False
    """Whether it was to be measured and could not be."""
    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 0
    devices: int = 1
    most: int | None = None

    @property
    def text(self) -> str:
        """``2 trials at once, 1 thread each: 990 images/s; 1 trial, 2 threads: 840``"""
        return f"{_way(self.threads, self.concurrent)}{self._held()}: {self.why}"

    def _held(self) -> str:
        """What a trial holds beyond its threads, or short of a device."""
        held = [f"{self.cpus:g} CPUs"] if self.cpus > self.threads * self.devices else []
        held += [f"{self.gpus:g} GPUs"] if 0 < self.gpus < 1 else []
        held += [size_text(self.memory)] if self.memory else []
        return f" (a trial holds {', '.join(held)})" if held else ""


def available_cpus() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def joined() -> bool:
    """Whether this process has joined a Ray cluster. Ray is not imported to find out."""
    is_there = getattr(sys.modules.get("ray"), "is_initialized", None)  # a thread may be importing it
    return is_there is not None and not own_session and bool(is_there())


def nodes_for_trials() -> NodeList:
    """The nodes that trials may use: those of the Ray cluster that this process has joined, else this machine."""
    if joined():
        nodes: NodeList = sys.modules["ray"].nodes()
        return nodes
    here = {"CPU": available_cpus(), "GPU": torch.cuda.device_count(), "memory": int(FULL * memory_here())}
    return [{"Alive": True, "Resources": here}]


def slots(placement: Placement, nodes: NodeList) -> int:
    """How many trials placed so run at once on these nodes. It may be asked again when one joins or leaves."""
    held = room(nodes, placement.cpus, placement.gpus, placement.memory, placement.devices)
    return min(held, placement.most) if placement.most else held


def place(trial: Trial, data: ImageData, *, trials: int, stated: Stated, measure: bool) -> Placement:
    """How to place ``trials`` trials like this one, beside what is ``stated``.

    ``measure``: whether the ways that are left may be timed; else it is a thread for each trial, and on CUDA a trial
    for each device. That is also what remains where a process that is timed fails.
    """
    devices, cuda, nodes = trial.numerics.devices, trial.numerics.device == "cuda", nodes_for_trials()
    ways = candidates(nodes, trials, devices, stated=stated, cuda=cuda)
    found = Placement(*ways[0], _unmeasured(stated, len(ways)))
    if len(ways) > 1 and measure:
        try:
            found = best(measured(trial, data, ways, torch.cuda.device_count() if cuda else 0), trials)
        except NotMeasuredError as error:
            found = Placement(*ways[0], f"by rule, since nothing could be measured: {error}", failed=True)
    cpus = float(stated.cpus or found.threads * devices)
    gpus = (stated.gpus or _share(nodes, cpus, stated.memory, devices, found.concurrent)) if cuda else 0.0
    found = replace(found, cpus=cpus, gpus=gpus, memory=stated.memory, devices=devices, most=stated.concurrent)
    # as many as are stated may be more than a cluster holds by now: it may grow
    return replace(found, concurrent=max(1, min(found.concurrent, slots(found, nodes)))) if joined() else found


def candidates(
    nodes: NodeList, trials: int, devices: int = 1, *, stated: Stated | None = None, cuda: bool = False
) -> list[tuple[int, int]]:
    """The ways (threads, trials at once) that fill the cores, or share the GPUs; the simplest is the first.

    Never more threads than cores on a node, unless both numbers are stated; never more at once than there are trials.
    """
    stated = stated or Stated()

    def held(threads: int, gpus: float = 0.0) -> int:
        return room(nodes, stated.cpus or threads * devices, gpus, stated.memory, devices)

    def at_once(threads: int, gpus: float = 0.0) -> int:
        return min(trials, stated.concurrent or max(1, held(threads, gpus)))

    if cuda:
        each = stated.threads or 1
        shared = [1 / 2, 1 / 4] if devices == 1 else []
        shares = [stated.gpus] if stated.gpus else [float(devices), *shared]
        return list(dict.fromkeys((each, at_once(each, share)) for share in shares))
    cores = [int(there.get("CPU", 0)) for there in alive(nodes)]
    filling = [t for t in range(1, max(cores, default=0) + 1) if all(there % t == 0 for there in cores)]
    wanted = min(trials, stated.concurrent or 1)
    counts = [stated.threads] if stated.threads else [t for t in filling if held(t) >= wanted] or [1]
    return [(threads, at_once(threads)) for threads in counts]


def _share(nodes: NodeList, cpus: float, memory: int, devices: int, concurrent: int) -> float:
    """The largest share of a GPU with which so many trials run at once; whole devices where a trial has several."""
    if devices > 1:
        return float(devices)
    least = max(1, -(-concurrent // max(1, total(nodes, "GPU"))))
    fitting = (each for each in range(least, SHARES + 1) if room(nodes, cpus, 1 / each, memory) >= concurrent)
    return 1 / next(fitting, least)


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


def _unmeasured(stated: Stated, ways: int) -> str:
    if stated.threads and stated.concurrent:
        return "as stated"
    if ways == 1:
        return "threads as stated" if stated.threads else "the only way"
    return "by rule, not measured"


def _way(threads: int, concurrent: int) -> str:
    """``2 trials at once, 1 thread each``"""
    at_once = f"{concurrent} trials at once" if concurrent > 1 else "1 trial at a time"
    return f"{at_once}, {threads} thread{'s' if threads > 1 else ''}{' each' if concurrent > 1 else ''}"
