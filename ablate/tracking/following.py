"""The process beside a sweep that sends its study to one tracker: what happens to it, the sweep does not feel.

It reads the study's folder as anybody may, ends with the sweep, and says on stdout, as JSON, what the user should know.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, process_time
from typing import Any

from ablate.store import EVENTS, is_study
from ablate.tracking.sending import Sender
from ablate.tracking.targets import Target, made, reason
from ablate.tracking.view import Tracker

EVERY = 2.0
"""Seconds between looks at the folder, at least, and ten times the processor's time that one takes."""
LONGEST = 60.0
"""Seconds between looks at most, also after those that failed."""


@dataclass(frozen=True)
class Task:
    """What is followed: ``wait`` is for how many seconds after the sweep it may go on."""

    folder: Path
    target: Target
    parent: int
    wait: float


def main() -> int:
    """Follow as ``ABLATE_TRACK`` says, until stdin ends or the parent does."""
    told = json.loads(os.environ.pop("ABLATE_TRACK"))
    task = Task(Path(told["folder"]), Target(told["tracker"], told["value"]), told["parent"], told["wait"])
    os.nice(10)
    said = os.fdopen(os.dup(1), "w", buffering=1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)  # whatever a client prints is for nobody

    def say(kind: str, text: str) -> None:
        with suppress(OSError):  # the sweep may be gone
            said.write(json.dumps({"kind": kind, "text": text}) + "\n")

    try:
        return follow(task, made(task.target), Ended(task), say)
    except Exception as error:
        say("warning", reason(error))
        say("unsent", reason(error))
        return 1


class Ended:
    """Whether the sweep has ended: it has closed our stdin, or its process is gone."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._ended = False

    def within(self, seconds: float) -> bool:
        """Wait so long at most; from the end of the sweep on, this process ends itself in time, come what may."""
        until = monotonic() + seconds
        while not self._ended:
            left = max(0.0, min(until - monotonic(), 1.0))
            if select.select([sys.stdin], [], [], left)[0] or os.getppid() != self._task.parent:
                self._ended = True
                timer = threading.Timer(self._task.wait, os._exit, [2])
                timer.daemon = True
                timer.start()
            elif monotonic() >= until:
                break
        return self._ended


def follow(task: Task, tracker: Tracker, ended: Any, say: Callable[[str, str], None]) -> int:
    """Send what there is until the sweep has ended, and then once more. 0: all was sent."""
    over = False
    while not over and not is_study(task.folder):
        over = ended.within(0.5)
    if not is_study(task.folder):
        return 0
    sender = Sender(task.folder, task.target, tracker)
    with sender.alone(patience=15.0):
        pause, warned, seen = 0.0, False, -1
        while True:
            over = over or ended.within(pause)
            size = _size(task.folder)
            if size == seen and not over:
                continue
            began = process_time()
            try:
                sender.sync()
            except Exception as error:
                if over:
                    say("unsent", reason(error))
                    return 1
                if not warned:
                    say("warning", reason(error))
                warned, seen = True, -1
                pause = min(LONGEST, max(EVERY, 2 * pause))
            else:
                if over:
                    return 0
                seen, pause = size, min(LONGEST, max(EVERY, 10 * (process_time() - began)))


def _size(folder: Path) -> int:
    """Of the log: it grows with whatever happens."""
    try:
        return (folder / EVENTS).stat().st_size
    except OSError:
        return 0
