"""What runs next, and what becomes of it: the part of a sweep that every executor shares.

An executor asks for attempts, runs them where it can, and tells what happened; the driver decides what is repeated,
writes results and readings of the test split to the store, and tells everything as events. It is the study's one
writer, and knows nothing of networks, so that ten thousand trials can be driven through it in a test.

A sweep's trials are listed before it begins; a search proposes each when there is room for it (``Source``).
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from ablate.errors import Problem, UserError
from ablate.events import Event, stamped
from ablate.store import Study


@dataclass(frozen=True)
class Listed:
    """What the driver knows of a trial."""

    hash: str
    variant: str
    seed: int
    epochs: int


@dataclass(frozen=True)
class Attempt:
    """A trial that is to run, for the ``number``-th time since its study began; ``alone``: with nothing beside it."""

    trial: Listed
    number: int = 1
    alone: bool = False


@dataclass(frozen=True)
class Policy:
    """``execution``, as far as it says what is repeated and how long things may take. Times are in seconds."""

    retries: int = 2
    """How often a trial whose worker or node died is repeated in one sweep."""
    trial_timeout: float | None = None
    """Of one attempt."""
    budget: float | None = None
    """Of the sweep. What runs when it is over is interrupted, and goes on from its checkpoint another time."""


class Source(Protocol):
    """Where trials come from that are not listed beforehand: a search. ``UserError`` from any of it ends the sweep."""

    @property
    def exhausted(self) -> bool:
        """No trial will come of it any more."""

    def propose(self) -> Listed | None:
        """A trial to run now; None where there is none, or none yet. Then it is asked again."""

    def goes_on(self, trial: Listed, row: Mapping[str, Any]) -> bool:
        """Whether the trial, which has just finished this epoch, is worth another one."""

    def ended(self, trial: Listed, result: Mapping[str, Any]) -> None:
        """A trial's result is on record."""


class Driver:
    """Decides and records; see the module. Nothing here raises what the store refuses: the sweep then ``stops``."""

    def __init__(
        self,
        trials: Sequence[Listed],
        study: Study,
        tell: Callable[[Event], None],
        policy: Policy,
        clock: Callable[[], float] = time.monotonic,
        source: Source | None = None,
    ) -> None:
        self.study, self.policy, self.clock = study, policy, clock
        self._source = source
        self.running: dict[str, Attempt] = {}
        """By hash: what was given out and has not ended."""
        self.stopping: str | None = None
        """Why nothing more is given out and what runs is to be ended: ``budget``, ``interrupted`` or ``refused``."""
        self.problems: list[Problem] = []
        self._tell = tell
        states = study.states()
        self._begun = {hash: state.attempts for hash, state in states.items()}
        self._waiting = deque(map(self._first_attempt, trials))
        self._alone: deque[Attempt] = deque()
        self._losses: Counter[str] = Counter()
        self._since: dict[str, float] = {}
        self._rows: dict[str, Mapping[str, Any]] = {}
        """The last epoch of what runs."""
        self._epochs = {hash: state.epochs for hash, state in states.items()}
        self._began = clock()
        self._read = _epochs_read(study)

    @property
    def over(self) -> bool:
        """Nothing more will be given out, and nothing runs; or the sweep was stopped."""
        return self._out_of_time() or not (self.running or self._is_something_left)

    @property
    def _is_something_left(self) -> bool:
        return bool(self._waiting or self._alone or (self._source is not None and not self._source.exhausted))

    def next(self) -> Attempt | None:
        """What to start now; None where nothing is to start, now or ever (``over``)."""
        if self._out_of_time() or any(attempt.alone for attempt in self.running.values()):
            return None
        if self._source is not None and not self._waiting:
            # what waits for an empty machine comes first: a search is to learn of it before it proposes more
            proposed = self._proposed() if not self._alone else None
            if proposed is not None:
                self._waiting.append(self._first_attempt(proposed))
        if self._waiting:
            attempt = self._waiting.popleft()
        elif self._alone and not self.running:
            attempt = self._alone.popleft()
        else:
            return None
        self.running[attempt.trial.hash] = attempt
        return attempt

    def started(self, attempt: Attempt, **where: Any) -> None:
        """It has begun, there: ``node``, ``pid``. From here on its time counts."""
        trial = attempt.trial
        self._since[trial.hash] = self.clock()
        with self._writing():
            self.study.note_begun(trial.hash, attempt.number)
        told = {"variant": trial.variant, "seed": trial.seed, "epochs": trial.epochs, "alone": attempt.alone}
        self.tell("started", trial=trial.hash, attempt=attempt.number, **told, **where)

    def _first_attempt(self, trial: Listed) -> Attempt:
        """The first in this sweep."""
        return Attempt(trial, self._begun.get(trial.hash, 0) + 1)

    def _proposed(self) -> Listed | None:
        """What the source proposes; while something runs that wants to be heard, it is asked but once."""
        proposed = None
        while self._source is not None and proposed is None and not (self._source.exhausted or self._out_of_time()):
            with self._writing():
                proposed = self._source.propose()
            if self.running:
                break
        return proposed if not self._out_of_time() else None

    def epoch(self, attempt: Attempt, row: Mapping[str, Any], use: Mapping[str, Any] | None = None) -> bool:
        """It has finished an epoch: whether it goes on. If not, the executor ends it and says that it is ``pruned``.

        What it read of the test split is on record from now on, whatever becomes of it.
        """
        if not self._runs(attempt):
            return True
        hash = attempt.trial.hash
        self._epochs[hash] = int(row["epoch"])
        if any(name.startswith("test.") for name in row):
            with self._writing():
                self._expose(attempt.trial, int(row["epoch"]))
        self.tell("epoch", trial=hash, row=dict(row), use=dict(use or {}))
        self._rows[hash] = row
        goes_on = True
        if self._source is not None:
            with self._writing():
                goes_on = self._source.goes_on(attempt.trial, row)
        return goes_on

    def pruned(self, attempt: Attempt) -> None:
        """It was ended after its last epoch, since others do better: that epoch's metrics are its result."""
        if not self._runs(attempt):
            return
        hash = attempt.trial.hash
        seconds = self.clock() - self._since.get(hash, self.clock())
        self._record(attempt, pruned_after(self._rows[hash], seconds, len(self._read.get(hash, ()))))

    def ended(self, attempt: Attempt, result: Mapping[str, Any]) -> None:
        """Training came to a result. One that did not fit into the memory is repeated once, with nothing beside it."""
        if not self._runs(attempt):
            return
        if result["status"] == "out_of_memory" and not attempt.alone:
            self._again(attempt, "out_of_memory", _why(result), alone=True)
        else:
            self._record(attempt, result)

    def lost(self, attempt: Attempt, why: str) -> None:
        """Its worker or its node died: it goes on from its checkpoint, ``policy.retries`` times at most."""
        if not self._runs(attempt):
            return
        hash = attempt.trial.hash
        self._losses[hash] += 1
        if self._losses[hash] <= self.policy.retries:
            self._again(attempt, "lost", why, alone=attempt.alone)
        else:
            self._record(attempt, self._without_result(attempt, "lost", why))

    def timed_out(self, attempt: Attempt) -> None:
        """It had its time, and the executor has ended it."""
        if not self._runs(attempt):
            return
        limit = self.policy.trial_timeout
        result = self._without_result(attempt, "timed_out", f"not done within {limit:g} s (execution.trial_timeout)")
        self._record(attempt, result | {"trial_timeout": limit})

    def put_back(self, attempt: Attempt) -> None:
        """It could not begin where it was to run, through no fault of its own."""
        if not self._runs(attempt):
            return
        self._forget(attempt.trial.hash)
        (self._alone if attempt.alone else self._waiting).appendleft(attempt)

    def overdue(self) -> list[Attempt]:
        """Those that have run for longer than ``policy.trial_timeout``: the executor is to end them."""
        limit = self.policy.trial_timeout
        if limit is None:
            return []
        now = self.clock()
        return [attempt for hash, attempt in self.running.items() if now - self._since.get(hash, now) > limit]

    def refused(self, problems: Sequence[Problem]) -> None:
        """Nothing can go on: a full disk, or no node that could run a trial."""
        self.problems += [problem for problem in problems if problem not in self.problems]
        self.stop("refused")

    def stop(self, why: str) -> None:
        """Give out nothing more, and have what runs ended. The first reason stays."""
        self.stopping = self.stopping or why

    def tell(self, event: str, **about: Any) -> None:
        """Log an event in the study, and pass it on."""
        told = stamped(event, **about)
        with self._writing():
            self.study.log(told)
        self._tell(told)

    def _runs(self, attempt: Attempt) -> bool:
        """Whether it has not ended: what is heard of one that has is late, and no news."""
        return self.running.get(attempt.trial.hash) == attempt

    def _out_of_time(self) -> bool:
        budget = self.policy.budget
        if budget is not None and self.clock() - self._began > budget and (self.running or self._is_something_left):
            self.stop("budget")
        return self.stopping is not None

    def _record(self, attempt: Attempt, result: Mapping[str, Any]) -> None:
        trial, hash = attempt.trial, attempt.trial.hash
        result = {**result, "attempts": attempt.number}
        recorded = False
        with self._writing():
            for _ in range(result["test_readings"] - len(self._read.get(hash, ()))):
                self._expose(trial, None)
            self.study.finish(hash, result)
            recorded = True
        if not recorded:
            return
        self._forget(hash)
        kept = ("status", "epochs", "metrics", "seconds", "images_per_second")
        error = _why(result) if result.get("error") else None
        told = {"variant": trial.variant, "seed": trial.seed, "attempt": attempt.number, "error": error}
        self.tell("ended", trial=hash, **told, **{key: result[key] for key in kept})
        if self._source is not None:
            with self._writing():
                self._source.ended(trial, result)

    def _expose(self, trial: Listed, epoch: int | None) -> None:
        """A reading of the test split, after an epoch or at the end, on record."""
        read = self._read.setdefault(trial.hash, set())
        number = epoch if epoch is not None else -len(read) - 1
        about = {"trial": trial.hash, "variant": trial.variant, "seed": trial.seed}
        self.study.expose(by="sweep", **about, epoch=epoch)
        # what an earlier attempt read after later epochs is no reading of this one, which may stop before them
        read.difference_update([later for later in read if later > number >= 0])
        read.add(number)

    def _again(self, attempt: Attempt, status: str, why: str, *, alone: bool) -> None:
        trial = attempt.trial
        self._forget(trial.hash)
        next_one = Attempt(trial, attempt.number + 1, alone)
        # first of those that wait: what has a checkpoint is nearer to its end
        (self._alone.append if alone else self._waiting.appendleft)(next_one)
        told = {"variant": trial.variant, "seed": trial.seed, "attempt": attempt.number}
        self.tell("again", trial=trial.hash, status=status, why=why, **told)

    def _forget(self, hash: str) -> None:
        self.running.pop(hash, None)
        self._since.pop(hash, None)
        self._rows.pop(hash, None)

    def _without_result(self, attempt: Attempt, status: str, why: str) -> dict[str, Any]:
        hash = attempt.trial.hash
        return {
            "status": status,
            "metrics": {},
            "epochs": self._epochs.get(hash, 0),
            "selected_epoch": 0,
            "seconds": round(self.clock() - self._since.get(hash, self.clock()), 3),
            "images_per_second": 0.0,
            "test_readings": len(self._read.get(hash, ())),
            "error": {"type": status, "message": why, "traceback": ""},
        }

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except UserError as error:
            self.refused(error.problems)


def pruned_after(row: Mapping[str, Any], seconds: float, test_readings: int) -> dict[str, Any]:
    """The result of a trial that was pruned after this epoch."""
    return {
        "status": "pruned",
        "metrics": {name: value for name, value in row.items() if "." in name},
        "epochs": int(row["epoch"]),
        "selected_epoch": int(row["epoch"]),
        "seconds": round(seconds, 3),
        "images_per_second": 0.0,
        "test_readings": test_readings,
        "error": None,
    }


def _epochs_read(study: Study) -> dict[str, set[int]]:
    """Which readings of the test split are on record of each trial that has no result: its epochs, by hash."""
    read: dict[str, set[int]] = {}
    for exposure in study.exposures():
        if exposure.get("epoch") is not None:
            read.setdefault(exposure.get("trial", ""), set()).add(exposure["epoch"])
    return read


def _why(result: Mapping[str, Any]) -> str:
    error = result.get("error") or {}
    return f"{error.get('type')}: {error.get('message')}"
