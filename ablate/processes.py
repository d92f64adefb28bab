"""A trial whose batches several devices share: a process for each device, and this one, which watches them.

None of them is this process: whatever happens to one, a bug in a block, a hang of the others that wait for it, the
system's killing it, this process ends them all and says what it was.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import torch
import torch.distributed as dist

from ablate.checkpoints import Checkpoints
from ablate.data.dataset import ImageData
from ablate.data.loading import give_cores
from ablate.errors import Problem, UserError
from ablate.faults import RankLostError
from ablate.numerics import set_process
from ablate.parallel import Address, join, meeting_place
from ablate.placing import available_cpus
from ablate.train import Outcome, Row, Trial, crashed, epochs
from ablate.workers import keep_memory

Message = Row | Outcome | list[Problem]
"""What a rank says: a row after each epoch, its outcome at the end; or what the user has to put right."""

FAILURES = ("crashed", "out_of_memory")
"""Outcomes of a rank that end all of them."""
SILENCE = 1.0
"""Seconds in which a rank that was killed is heard of, after another that waited for it has failed."""
GRACE = 10.0
"""Seconds that a process has to end by itself when all is done."""


class Member:
    """One rank of a trial, in a process of its own, which is to be ended from outside."""

    def __init__(
        self,
        rank: int,
        trial: Trial,
        data: ImageData,
        address: Address,
        cores: int,
        device_index: int = 0,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self._running = _joined(rank, trial, data, address, cores, device_index, checkpoints)

    def next(self) -> Message:
        try:
            return next(self._running)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome
        except UserError as error:
            return error.problems


def _joined(
    rank: int,
    trial: Trial,
    data: ImageData,
    address: Address,
    cores: int,
    device_index: int,
    checkpoints: Checkpoints | None,
) -> Generator[Row, None, Outcome]:
    set_process(trial.numerics)
    keep_memory()
    give_cores(max(1, cores // trial.numerics.devices))
    try:
        if trial.numerics.device == "cuda":
            torch.cuda.set_device(device_index)
        ranks = join(rank, trial.numerics.devices, address, trial.numerics.device)
    except Exception as error:
        return crashed(error)
    return (yield from epochs(trial, data, ranks, checkpoints))


def together(messages: Iterable[tuple[int, Message] | None]) -> Generator[Row, None, Outcome]:
    """The rows and the outcome of rank 0; where any rank failed, the outcome of the first that did.

    ``messages`` of all ranks as they come, None where nothing came for a while. A rank that failed stays, and so
    no other fails because of it; one that was killed does take others with it, and is told by ``messages`` raising.
    """
    failure: Outcome | None = None
    for message in messages:
        if message is None:
            if failure is not None:
                return failure
            continue
        rank, said = message
        if isinstance(said, list):
            raise UserError(said)
        if not isinstance(said, Outcome):
            if rank == 0:
                yield said
        elif said.result["status"] in FAILURES:
            failure = failure or said
        elif rank == 0:
            return said
    raise AssertionError("the messages ended before the trial")


def epochs_together(
    trial: Trial, data: ImageData, checkpoints: Checkpoints | None = None
) -> Generator[Row, None, Outcome]:
    """As ``train.epochs``, by ``numerics.devices`` processes here. ``RankLostError``: one of them was killed."""
    context = multiprocessing.get_context("spawn")
    store, address = meeting_place("127.0.0.1")
    processes: list[SpawnProcess] = []
    connections: list[Connection] = []
    try:
        for rank in range(trial.numerics.devices):
            ours, theirs = context.Pipe()
            process = context.Process(target=_be_member, args=(rank, theirs, address))
            process.start()
            theirs.close()  # so that ours ends with the process
            processes.append(process)
            connections.append(ours)
        given = pickle.dumps((trial, data, checkpoints))
        for connection in connections:
            connection.send_bytes(given)
        outcome = yield from together(_messages(connections))
        if outcome.result["status"] not in FAILURES:
            _let_end(processes, connections)
        return outcome
    except (EOFError, ConnectionError):
        raise RankLostError(f"one of its {len(processes)} processes was ended from outside") from None
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        del store


def _let_end(processes: list[SpawnProcess], connections: list[Connection]) -> None:
    """Those that are done end by themselves, and tidy up after torch's compiler, once nobody listens any more."""
    for connection in connections:
        connection.close()
    for process in processes:
        process.join(GRACE)


def _messages(connections: list[Connection]) -> Iterator[tuple[int, Message] | None]:
    while True:
        ready = wait(connections, timeout=SILENCE)
        if not ready:
            yield None
        for rank, connection in enumerate(connections):
            if connection in ready:
                yield rank, pickle.loads(connection.recv_bytes())


def _be_member(rank: int, connection: Connection, address: Address) -> None:
    """What a process of ``epochs_together`` does. It ends only with the connection, or with who started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the one that watches ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    trial, data, checkpoints = pickle.loads(connection.recv_bytes())
    member = Member(rank, trial, data, address, available_cpus(), device_index=rank, checkpoints=checkpoints)
    said: Message = {}
    while isinstance(said, dict):
        said = member.next()
        connection.send_bytes(pickle.dumps(said))
    with suppress(EOFError, ConnectionError):
        connection.recv_bytes()  # nothing comes
    dist.destroy_process_group()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
