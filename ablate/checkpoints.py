"""Checkpoints within a trial: what its training has come to, kept in its folder, so that an interrupted trial goes on.

A checkpoint is a dict of tensors and plain values that ``torch.load(weights_only=True)`` reads. It counts only for the
code that wrote it: another version of it may train otherwise, and a trial is of one piece.
"""

from __future__ import annotations

import io
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ablate.errors import UserError
from ablate.store import Study

State = dict[str, Any]
"""What a training has come to; ``training_state`` says what that is. Its ``rows`` are those of the metrics so far."""

FORMAT = 1
"""Of the file. What has another is no checkpoint, and the trial starts from scratch."""
SHARE = 0.05
"""Of the time that training takes: what keeping its state may take."""


class NotKept(UserError):
    """A checkpoint could not be written, or the metrics not be cut back to it."""


class Checkpoints:
    """Those of one trial; each takes the last one's place. ``code``: the digest of the code that trains it.

    It may be sent to another process, which opens the study there.
    """

    def __init__(
        self, folder: Path, hash: str, code: str, share: float = SHARE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder, self.hash, self.code = folder, hash, code
        self._share, self._clock = share, clock
        self._cost = 0.0
        self._last = -float("inf")
        """When the last one was kept, as the clock of the process that trains has it."""

    @cached_property
    def _study(self) -> Study:
        return Study(self.folder, {}, [], {})

    def load(self) -> State | None:
        """The trial's state after the last epoch that was kept, its metrics cut back to that; None where there is none.

        A damaged one, and one of other code or of another format, is none. Tensors are on the CPU.
        """
        content = self._study.state(self.hash)
        record = None if content is None else _read(content)
        wanted = {"format": FORMAT, "code": self.code, "trial": self.hash}
        if record is None or {key: record.get(key) for key in wanted} != wanted:
            return None
        state: State = record["state"]
        with _writing():
            self._study.rewrite_metrics(self.hash, state["rows"])
        return state

    def keep(self, make: Callable[[], State | None]) -> bool:
        """Keep what ``make`` gives, None being nothing to keep; not where that would slow down training by its share.

        How long it takes is known after the first time. ``NotKept``: the disk refuses.
        """
        began = self._clock()
        if (began - self._last) * self._share < self._cost:
            return False
        state = make()
        if state is not None:
            buffer = io.BytesIO()
            torch.save({"format": FORMAT, "code": self.code, "trial": self.hash, "state": state}, buffer)
            with _writing():
                self._study.save_state(self.hash, buffer.getvalue())
        self._last = self._clock()
        self._cost = self._last - began
        return state is not None


def _read(content: bytes) -> dict[str, Any] | None:
    try:
        record = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, LookupError, TypeError, AttributeError):
        return None  # what torch raises for what it did not write
    return record if isinstance(record, dict) else None


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise NotKept(error.problems) from None
