"""A sweep seen from another terminal, or from another machine that shares the folder: from its study's folder alone.

The log says what happens; the lock, whether anybody still writes it. On some shared file systems a lock is not seen
from another machine: there a sweep counts as at work as long as its log grows.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import IO

from rich.console import Console

from ablate.events import Event
from ablate.outcomes import DONE
from ablate.progress import Display, Plain, best_text, duration, failure_line, picture
from ablate.report.render import clean
from ablate.status import counted, searched, sentence
from ablate.store import Study
from ablate.tally import Tally

PATIENCE = 600.0
"""Seconds that a sweep of another machine may say nothing; longer where its epochs are long."""
EPOCHS_OF_PATIENCE = 3
EVERY = 1.0
"""Seconds between two looks at the log."""


class Watched:
    """A study's log, read on as it grows."""

    def __init__(self, study: Study, here: str | None = None) -> None:
        self.study = study
        self.tally = Tally()
        self._here = here or platform.node()
        self._offset = 0

    def look(self, tell: Callable[[Event], None]) -> str | None:
        """Tell what was logged since the last time. Why there is nothing to wait for; None while a sweep is at work."""
        self._read(tell)
        if self.study.in_use() is not None:
            return None
        self._read(tell)  # its last words, told before it let go
        return self._ended(time.time())

    def _read(self, tell: Callable[[Event], None]) -> None:
        while True:
            events, offset = self.study.events(self._offset)
            for event in events:
                tell(event)
            if offset == self._offset:
                return
            self._offset = offset

    def _ended(self, now: float) -> str | None:
        tally = self.tally
        if not tally.swept:
            return "no sweep holds the study, and none has told of itself"
        if tally.over is not None:
            why, message = tally.over
            return f"no sweep holds the study; the last one is over: {clean(why)}{': ' * bool(message)}{clean(message)}"
        if tally.host == self._here:
            command = "search" if tally.searching else "sweep"
            return f"no sweep holds the study; the last one ended without a word, and `ablate {command}` goes on"
        silent = now - tally.now
        if silent > max(PATIENCE, EPOCHS_OF_PATIENCE * (tally.seconds_per_epoch or 0.0)):
            said = f"that of {clean(tally.host)} has said nothing for {duration(silent)}"
            return f"no sweep is seen to hold the study; {said}"
        return None

    def head(self) -> str:
        """Which study it is, and who holds it."""
        holder = self.study.in_use()
        return f"{clean(str(self.study.folder))} · {clean(holder) if holder else f'of {clean(self.tally.host)}'}"


def once(study: Study, out: IO[str]) -> None:
    """One picture of how the study stands, as plain text."""
    watched = Watched(study)
    why = watched.look(watched.tally.apply)
    if why is None:
        _draw(watched, out)
    else:
        _tell_end(watched, why, out)


def follow(study: Study, out: IO[str], pause: Callable[[], object] = lambda: time.sleep(EVERY)) -> None:
    """Show the sweep as it goes, until it is over or the user has seen enough (Ctrl-C)."""
    watched = Watched(study)
    why = watched.look(watched.tally.apply)
    if why is None:
        try:
            why = _followed(watched, out, pause)
        except KeyboardInterrupt:
            _draw(watched, out)
            print("the sweep goes on", file=out)
            return
    _tell_end(watched, why, out)


def _followed(watched: Watched, out: IO[str], pause: Callable[[], object]) -> str:
    shown: Display | Plain
    if out.isatty():
        shown = Display(Console(file=out), watched.tally, watched.head())
        shown.open()
    else:
        shown = Plain(out, watched.tally)
        _draw(watched, out)
    try:
        while True:
            pause()
            why = watched.look(shown.tell)
            if why is not None:
                return why
    finally:
        shown.close()


def _draw(watched: Watched, out: IO[str]) -> None:
    console = Console(file=out, width=None if out.isatty() else 160, color_system=None)
    now = max(time.time(), watched.tally.now)
    with console.capture() as drawn:
        console.print(picture(watched.tally, now, None, watched.head()))
    print("\n".join(line.rstrip() for line in drawn.get().splitlines()), file=out, flush=True)


def _tell_end(watched: Watched, why: str, out: IO[str]) -> None:
    """How the study stands without a sweep: by its folder, which knows more than the log."""
    folder = watched.study.folder
    study = Study.open(folder)  # a search has proposed more since
    counts = counted(study.states().values())
    print(f"{clean(str(folder))}: {sentence(counts)}", file=out)
    search, best = searched(study), watched.tally.best
    if search:
        print(" · ".join([f"search: {search}", *([f"best {best_text(best)}"] if best else [])]), file=out)
    for failure in watched.tally.failures:
        print(failure_line(failure), file=out)
    print(why, file=out)
    done = set(counts) <= set(DONE)
    print(f"next: ablate {'report' if done else 'status'} {clean(str(folder))}", file=out, flush=True)
