"""Work that is shared out to processes, each with a function of its own, made there of what it is given once.

Each process holds one piece at a time, so that memory stays bounded, whatever there is to do. They ignore Ctrl-C, which
the terminal sends to all: this process ends them, whatever ends it. One that dies takes the work with it.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from ablate.block import registry as blocks
from ablate.data.dataset import registry as data_sets
from ablate.errors import Problem, UserError
from ablate.own_code import sent

Piece = TypeVar("Piece")


class Pool:
    """Processes, each of which calls what ``make(*given)`` gives there. A context manager: its end is theirs."""

    def __init__(self, size: int, make: Callable[..., Callable[[Any], Any]], given: tuple[Any, ...]) -> None:
        self._given = pickle.dumps((sent(), outside_modules(), make, given))
        self._size = size
        self._processes: list[SpawnProcess] = []
        self._connections: list[Connection] = []

    def __enter__(self) -> Pool:
        context = multiprocessing.get_context("spawn")
        try:
            with _deaf():
                for _ in range(self._size):
                    ours, theirs = context.Pipe()
                    process = context.Process(target=_work, args=(theirs,), daemon=True)
                    process.start()
                    theirs.close()  # so that ours ends with the process
                    self._processes.append(process)
                    self._connections.append(ours)
            for connection in self._connections:
                connection.send_bytes(self._given)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def each(self, pieces: Iterable[Piece]) -> Iterator[tuple[Piece, Any]]:
        """Each piece with what it came to, as they are done; those that are first are given first."""
        waiting = iter(pieces)
        busy: dict[Connection, Piece] = {}
        try:
            for connection in self._connections:
                self._give(connection, waiting, busy)
            while busy:
                for ready in wait(list(busy)):
                    connection = next(each for each in busy if each is ready)
                    done, failure = connection.recv()
                    if failure is not None:
                        raise failure
                    piece = busy.pop(connection)
                    self._give(connection, waiting, busy)
                    yield piece, done
        except (EOFError, ConnectionError):
            message = f"one of the {self._size} processes that share the work was ended from outside"
            raise UserError(Problem(message, hint="too little memory? fewer take less: --jobs 1")) from None

    def _give(self, connection: Connection, waiting: Iterator[Piece], busy: dict[Connection, Piece]) -> None:
        piece = next(waiting, None)
        if piece is not None:
            connection.send(piece)
            busy[connection] = piece

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for connection in self._connections:
            connection.close()


def outside_modules() -> list[str] | None:
    """The modules of the blocks and data sets that are not ours; ``None`` where another process can't import one.

    Those of a script that is run, or that were typed at a prompt, are known to this process alone.
    """
    kinds: list[type] = [*blocks().values(), *data_sets().values()]
    names = sorted({kind.__module__ for kind in kinds if kind.__module__.partition(".")[0] != "ablate"})
    return names if all(map(_is_importable, names)) else None


def _is_importable(name: str) -> bool:
    try:
        return name != "__main__" and find_spec(name) is not None
    except (ImportError, ValueError):
        return False


@contextmanager
def _deaf() -> Iterator[None]:
    """Processes that start here never hear of Ctrl-C, from their first moment on: they inherit what is blocked."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(connection: Connection) -> None:
    """One of the processes. It ends when nobody listens any more."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    try:
        _, modules, make, given = pickle.loads(connection.recv_bytes())
        for name in modules or ():
            import_module(name)
        function = make(*given)
        while True:
            piece = connection.recv()
            try:
                done, failure = function(piece), None
            except Exception as error:  # a bug, ours or a block's: it is raised where the piece was given
                done, failure = None, error
            connection.send((done, failure))
    except (EOFError, ConnectionError):
        return
