"""Trackers beside a sweep: a process each, which is started, listened to, and not waited for longer than said."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

from ablate.errors import Problem, UserError
from ablate.tracking.targets import Target, parse

WAIT = 10.0
"""Seconds that the end of a sweep waits for its trackers, all together, unless ``ABLATE_TRACK_WAIT`` says otherwise."""
_START = "import json, os, sys; sys.path[:] = json.loads(os.environ.pop('ABLATE_TRACK_PATH'))\n"
_START += "from ablate.tracking.following import main; raise SystemExit(main())"


@contextmanager
def tracked(folder: Path, track: Sequence[str]) -> Iterator[None]:
    """Whatever is done to the study in ``folder`` meanwhile is shown by these trackers, ``NAME`` or ``NAME=TARGET``.

    What a tracker lacks at the end is said on stderr, and stays in the folder, from which it can be sent at any time.
    ``UserError``, before anything is done: there is no such tracker, or it is not installed.
    """
    followers = [_Follower(folder.absolute(), target) for target in parse(track)]
    try:
        for follower in followers:
            follower.start()
        yield
    finally:
        until = monotonic() + (_wait() if followers else 0.0)
        for follower in followers:
            follower.let_go()
        try:
            for follower in followers:
                follower.end(until)
        finally:
            for follower in followers:
                follower.kill()


def _wait() -> float:
    text = os.environ.get("ABLATE_TRACK_WAIT", "")
    with suppress(ValueError):
        return max(0.0, float(text)) if text else WAIT
    raise UserError(Problem(f"ABLATE_TRACK_WAIT is {text!r}", hint="seconds, such as 10"))


class _Follower:
    def __init__(self, folder: Path, target: Target) -> None:
        self.folder, self.target = folder, target
        self._wait = _wait()
        self._process: subprocess.Popen[str] | None = None
        self._unsent: str | None = None
        self._listening = threading.Thread(target=self._listen, daemon=True)

    def start(self) -> None:
        task = {
            "folder": str(self.folder),
            "tracker": self.target.tracker,
            "value": self.target.value,  # may hold a password: not for the list of processes
            "parent": os.getpid(),
            "wait": self._wait,
        }
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START],
                env=os.environ | {"ABLATE_TRACK": json.dumps(task), "ABLATE_TRACK_PATH": json.dumps(sys.path)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,  # Ctrl-C is the sweep's
            )
        except OSError as error:
            self._warn(str(error))
            return
        self._listening.start()

    def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with suppress(ValueError, KeyError, TypeError):
                told = json.loads(line)
                if told["kind"] == "unsent":
                    self._unsent = told["text"]
                else:
                    self._warn(told["text"])

    def _warn(self, why: str) -> None:
        print(f"warning: {self.target}: {why}; the sweep goes on, and loses nothing", file=sys.stderr)

    def let_go(self) -> None:
        """It may end."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.write("over\n")  # a process that was forked may hold the pipe open
                self._process.stdin.close()

    def end(self, until: float) -> None:
        """Wait for it, not beyond ``until`` (``time.monotonic``), and say what it could not do."""
        code: int | None = 2
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, until - monotonic()))
            code = self._process.poll()
            self.kill()
            self._listening.join(1.0)
            if not self._listening.is_alive() and self._process.stdout is not None:
                self._process.stdout.close()
        if code != 0:
            why = self._unsent or (
                f"no answer within {self._wait:g} seconds" if code in (None, 2) else f"it ended with {code}"
            )
            again = shlex.join(["ablate", "track", "sync", str(self.folder), "--to", str(self.target)])
            print(f"not all was sent to {self.target}: {why}; next: {again}", file=sys.stderr)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
