"""A study in memory, for drivers and replayed workers; and trials, rows and results as training gives them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from ablate.driving import Listed
from ablate.errors import UserError

FULL = "no space left for the study"


class Dead(BaseException):
    """The driver's process was killed."""


class Notes:
    """A study in memory, with what the driver and its workers use of one; it can be full, and kill who writes."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.finished: list[tuple[str, dict[str, Any]]] = []
        self.read: list[dict[str, Any]] = []
        self.logged: list[dict[str, Any]] = []
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.rows_written: list[tuple[str, int]] = []
        self.saved: dict[str, bytes] = {}
        self.at_work: set[str] = set()
        self.refuses: tuple[str, ...] = ()
        self.writes_left: int | None = None

    def _write(self, what: str, done: Callable[[], object]) -> None:
        """Written, refused, or the last thing that was done: the n-th write or all but it, by whether n is even."""
        if what in self.refuses:
            raise UserError(FULL)
        if self.writes_left is None:
            done()
            return
        self.writes_left -= 1
        if self.writes_left > 0 or self.writes_left % 2 == 0:
            done()
        if self.writes_left <= 0:
            raise Dead

    # For the driver.

    def states(self) -> dict[str, Any]:
        return {hash: SimpleNamespace(attempts=number, epochs=0) for hash, number in self.begun.items()}

    def note_begun(self, hash: str, attempt: int) -> None:
        self._write("note_begun", lambda: self.begun.update({hash: attempt - self.begun[hash]}))

    def expose(self, **record: Any) -> None:
        self._write("expose", lambda: self.read.append(record))

    def exposures(self) -> list[dict[str, Any]]:
        return self.read

    def finish(self, hash: str, result: Mapping[str, Any]) -> None:
        self._write("finish", lambda: self.finished.append((hash, dict(result))))

    def log(self, event: dict[str, Any]) -> None:
        self._write("log", lambda: self.logged.append(event))

    def results(self) -> dict[str, dict[str, Any]]:
        return dict(self.finished)

    # For workers.

    @contextmanager
    def working(self, hash: str) -> Iterator[None]:
        assert hash not in self.at_work, "two attempts of one trial at once"
        self.at_work.add(hash)
        yield
        self.at_work.discard(hash)

    def begin(self, trial: dict[str, Any], *, resume: bool = False) -> None:
        if not resume:
            self.rows[trial["hash"]] = []
            self.saved.pop(trial["hash"], None)

    def append_metrics(self, hash: str, row: Mapping[str, Any]) -> None:
        self.rows[hash].append(dict(row))
        self.rows_written.append((hash, row["epoch"]))

    def rewrite_metrics(self, hash: str, rows: Sequence[Mapping[str, Any]]) -> None:
        assert list(rows) == self.rows[hash][: len(rows)]
        self.rows[hash] = [dict(row) for row in rows]

    def save_state(self, hash: str, content: bytes) -> None:
        self.saved[hash] = content

    def state(self, hash: str) -> bytes | None:
        return self.saved.get(hash)


def listed(count: int, epochs: int = 3) -> list[Listed]:
    return [Listed(f"{index:032x}", f"v{index // 2}", index % 2, epochs) for index in range(count)]


def result(status: str = "finished", epochs: int = 3, readings: int = 1) -> dict[str, Any]:
    """As training gives it."""
    failed = status != "finished"
    return {
        "status": status,
        "metrics": {} if failed else {"test.accuracy": 71.0},
        "epochs": epochs,
        "selected_epoch": 0 if failed else epochs,
        "seconds": 5.0 * epochs,
        "images_per_second": 0.0 if failed else 13.0,
        "test_readings": readings,
        "error": {"type": "E", "message": "m", "traceback": "t"} if failed else None,
    }


def row(epoch: int, *, reads: bool = False) -> dict[str, float]:
    return {"epoch": epoch, "train.loss": 1 / epoch} | ({"test.error": 50.0 / epoch} if reads else {})
