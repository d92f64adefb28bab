"""Worker processes that read and decode images: how many, how far ahead of the network, and how long they live.

They are those of torch's DataLoader, which ends them with this process in whatever way it ends.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np

from ablate.errors import UserError

if TYPE_CHECKING:
    import torch

Task = TypeVar("Task", contravariant=True)
Array = np.ndarray[Any, Any]

MOST_WORKERS = 16
"""With more of them the one process that they all feed is what is waited for."""
AHEAD = 2
"""Tasks of each worker that wait or are being done."""
AHEAD_BYTES = 256 << 20
"""What all results of a trial that nobody has fetched yet may take, in bytes of shared memory."""

_cores: int | None = None


def give_cores(cores: int | None) -> None:
    """Tell this process how many cores its trial has: those of the machine by the trials that run at once.

    Untold, a trial on a CPU has as many as it has threads, and one on CUDA its device's share of them all.
    """
    global _cores
    _cores = cores


@contextmanager
def cores_given(cores: int) -> Iterator[None]:
    """``give_cores`` for a while."""
    give_cores(cores)
    try:
        yield
    finally:
        give_cores(None)


def loader_workers(cores: int, busy: int) -> int:
    """Worker processes for a trial that has so many cores, of which its training keeps ``busy`` busy: 0 if it has none
    to spare, since a worker would slow down the training by more than it decodes.
    """
    return max(0, min(cores - busy, MOST_WORKERS))


def workers_here(device: str | torch.device) -> int:
    """``loader_workers`` for the trial of this process: on CUDA one thread is busy, on a CPU all that torch has."""
    import torch

    on_cuda = torch.device(device).type == "cuda"
    busy = 1 if on_cuda else torch.get_num_threads()
    shared = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    untold = shared // max(1, torch.cuda.device_count()) if on_cuda else busy
    return loader_workers(untold if _cores is None else _cores, busy)


def rows_a_task(workers: int, image_bytes: int) -> int:
    """Images that one task decodes, 64 at most: so few that what is ahead of the network stays in its bounds."""
    ahead = min(AHEAD_BYTES, _shared_memory() // 4)
    return max(1, min(64, ahead // (AHEAD * workers * max(1, image_bytes))))


def _shared_memory() -> int:
    """Bytes that are free; a container often has few, and a process that takes more of them is killed."""
    try:
        free = os.statvfs("/dev/shm")
    except OSError:  # not Linux: there it is bounded by the memory alone
        return 4 * AHEAD_BYTES
    return free.f_bavail * free.f_frsize


class Work(Protocol[Task]):
    """What is done for a task: an array, or the error that says why there is none."""

    def __getitem__(self, task: Task) -> Array | UserError: ...


class Workers(Generic[Task]):
    """``count`` processes that do the ``work``; with 0 it is this one. They start at the first call and stay for the
    next. One call at a time; where its results are not fetched to the end, end with it.
    """

    def __init__(self, work: Work[Task], count: int) -> None:
        import torch
        from torch.utils.data import DataLoader

        self.count = count
        self._tasks = _Tasks()
        self._loader: DataLoader[Any] = DataLoader(
            work,  # type: ignore[arg-type]
            batch_size=None,
            sampler=self._tasks,
            num_workers=count,
            prefetch_factor=AHEAD if count else None,
            persistent_workers=count > 0,
            worker_init_fn=_leave_interrupts,
            # A generator of its own: the loader would draw from torch's global stream otherwise.
            generator=torch.Generator(),
        )

    def __call__(self, tasks: Iterable[Task]) -> Iterator[Array]:
        """The results, in the tasks' order. An error is raised here: a worker's would come wrapped in a traceback."""
        self._tasks.now = tasks
        for result in self._loader:
            if isinstance(result, UserError):
                raise result
            yield result.numpy()


class _Tasks:
    """A sampler that is told its tasks anew for every epoch."""

    now: Iterable[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.now)


def _leave_interrupts(worker: int) -> None:
    """Ctrl-C goes to all processes of a terminal: the trial's own answers it, and ends these."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
