"""Worker processes that decode: how many there are, that they stay for the next epoch, and that they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from ablate.data import loading
from ablate.data.loading import AHEAD, AHEAD_BYTES, Workers, give_cores, loader_workers, rows_a_task, workers_here
from ablate.errors import UserError

Task = tuple[str, int]


@pytest.fixture(autouse=True)
def untold() -> Iterator[None]:
    yield
    give_cores(None)


class Told:
    """Says what its process is like; refuses what it is told to refuse."""

    def __getitem__(self, task: Task) -> Any:
        what, number = task
        if what == "refuse":
            return UserError(f"no {number}")
        ignores = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        return np.array([number, os.getpid(), torch.get_num_threads(), ignores])

    def __len__(self) -> int:
        return 0


def tasks(count: int) -> list[Task]:
    return [("tell", number) for number in range(count)]


@pytest.mark.parametrize(("cores", "busy", "workers"), [(1, 1, 0), (1, 2, 0), (2, 1, 1), (12, 1, 11), (97, 1, 16)])
def test_a_worker_for_each_core_that_the_training_leaves_idle(cores: int, busy: int, workers: int) -> None:
    assert loader_workers(cores, busy) == workers


def test_a_trial_on_a_cpu_has_no_core_to_spare_unless_it_is_given_one() -> None:
    assert workers_here("cpu") == 0
    give_cores(torch.get_num_threads() + 3)
    assert workers_here("cpu") == 3


def test_on_cuda_one_thread_is_busy_and_the_cores_are_shared_among_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(14)), raising=False)
    assert workers_here("cuda:1") == 6
    give_cores(1)
    assert workers_here("cuda") == 0


@pytest.mark.parametrize("shared", [1 << 40, 64 << 20])
@pytest.mark.parametrize("workers", [1, 16])
@pytest.mark.parametrize("side", [32, 224, 1021])
def test_what_is_decoded_ahead_is_bounded(
    monkeypatch: pytest.MonkeyPatch, shared: int, workers: int, side: int
) -> None:
    monkeypatch.setattr(loading, "_shared_memory", lambda: shared)
    rows = rows_a_task(workers, 3 * side**2)
    assert 1 <= rows <= 64
    ahead = rows * 3 * side**2 * workers * AHEAD
    assert rows == 1 or ahead <= min(AHEAD_BYTES, shared // 4)


def test_results_come_in_order_from_processes_that_stay_for_the_next_epoch() -> None:
    before = torch.get_rng_state()
    workers = Workers(Told(), 2)
    epochs = [np.stack(list(workers(tasks(count)))) for count in (11, 7, 1)]
    assert [epoch[:, 0].tolist() for epoch in epochs] == [list(range(count)) for count in (11, 7, 1)]
    processes = [set(epoch[:, 1].tolist()) for epoch in epochs]
    assert processes[0] == processes[1]
    assert processes[2] < processes[0]
    assert len(processes[0]) == 2
    assert os.getpid() not in processes[0]
    assert all((epoch[:, 2:] == 1).all() for epoch in epochs)  # one thread each, and no answer to Ctrl-C
    assert torch.equal(torch.get_rng_state(), before)


def test_processes_end_with_the_last_who_knows_them() -> None:
    workers = Workers(Told(), 2)
    pids = {int(result[1]) for result in workers(tasks(5))}
    assert pids == {child.pid for child in multiprocessing.active_children()} & pids
    del workers
    assert not pids & {child.pid for child in multiprocessing.active_children()}


def test_with_no_workers_it_is_this_process() -> None:
    workers = Workers(Told(), 0)
    assert {int(result[1]) for _ in range(2) for result in workers(tasks(3))} == {os.getpid()}
    assert signal.getsignal(signal.SIGINT) != signal.SIG_IGN


@pytest.mark.parametrize("count", [0, 1])
def test_an_error_is_raised_as_it_was_made(count: int) -> None:
    results = Workers(Told(), count)([("tell", 0), ("refuse", 7)])
    next(results)
    with pytest.raises(UserError, match=r"^no 7$"):
        next(results)
