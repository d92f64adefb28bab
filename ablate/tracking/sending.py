"""A study and one of its trackers: what is new is sent, and what was sent is remembered in the study's folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ablate.store import Trackers
from ablate.tracking.targets import Target, made, without_secrets
from ablate.tracking.view import Tracker
from ablate.tracking.viewing import Viewer


@dataclass(frozen=True)
class Sent:
    """How far the other side is: ``trials`` that have begun, of ``count`` in the study."""

    where: str
    trials: int
    count: int
    state: str


class Sender:
    """Sends one study's folder to one target, again and again. ``tracker``: made of it already, if it is."""

    def __init__(self, folder: Path, target: Target, tracker: Tracker | None = None) -> None:
        self.tracker = tracker or made(target)
        self._name = target.tracker
        self._where = without_secrets(self.tracker.target)
        self._records = Trackers(folder)
        self._viewer = Viewer(folder)

    @contextmanager
    def alone(self, patience: float = 0.0) -> Iterator[None]:
        """The sole right to send there. ``InUseError``: another process has it."""
        with ExitStack() as stack:
            stack.enter_context(self._records.sending(self._name, self._where, patience))
            yield

    def sync(self) -> Sent:
        """Send what the other side lacks; raises what stands against it, with what was sent on record."""
        view = self._viewer.view()
        memory = self._records.memory(self._name, self._where)
        before = repr(memory)
        try:
            self.tracker.sync(view, memory)
        finally:
            if repr(memory) != before:
                self._records.remember(self._name, self._where, memory)
        return Sent(self._where or str(self._records.folder), len(view.trials), view.count, view.state)
