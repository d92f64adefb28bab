"""How a sweep stands, from its events: what the live view, plain lines and ``ablate watch`` draw.

An event costs the same however many trials there are. Nothing in one is trusted: a log may have been written by another
version, and an event that does not say what its kind says changes nothing.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ablate.events import Event, when
from ablate.outcomes import FAILED, PROPOSED, RESULTS

MOST_FAILURES = 5
"""How many of the last failures are kept to be shown."""


@dataclass
class Running:
    """An attempt that runs: since when, its last epoch's row and what it used then. Times are seconds since 1970."""

    variant: str
    seed: int
    attempt: int
    epochs: int
    since: float
    node: str = ""
    alone: bool = False
    row: Mapping[str, Any] = field(default_factory=dict)
    use: Mapping[str, Any] = field(default_factory=dict)
    epoch: int = 0
    last: float = 0.0
    """When its last epoch ended, or else it began."""

    def number(self, name: str) -> float | None:
        """What its last row measured."""
        return _number(self.row.get(name))


@dataclass(frozen=True)
class Failure:
    """An attempt that did not finish; ``again``: its trial waits for another."""

    variant: str
    seed: int
    attempt: int
    status: str
    why: str
    again: bool


@dataclass(frozen=True)
class Best:
    """The best that a search has trained so far: its proposal, and its objectives' values by name."""

    number: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Used:
    """What all that runs uses together: cores, bytes, and the part of the time that their GPUs were busy."""

    cores: float | None = None
    memory: float | None = None
    gpu_memory: float | None = None
    gpu: float | None = None


class Tally:
    """The last sweep of a study, as far as its events were applied."""

    def __init__(self) -> None:
        self._begin()
        self.failures: deque[Failure] = deque(maxlen=MOST_FAILURES)
        self.unfit: dict[str, str] = {}
        """Machines that can't train here → why."""
        self.untrained: Counter[str] = Counter()
        """How many proposals of the study's search were not trained, by outcome."""
        self.best: Best | None = None

    def _begin(self) -> None:
        self.total = self.kept = self.kept_failed = self.kept_pruned = self.cached = self.slots = 0
        self.searching = False
        """Whether its trials are proposed as it goes, of which there are to be ``total``."""
        self.host = ""
        self.pid = 0
        self.swept = False
        """Whether a sweep was seen to begin."""
        self.over: tuple[str, str] | None = None
        """Why it is over, and the message."""
        self.now = self.began = 0.0
        """The latest and the first event's time."""
        self.ended: Counter[str] = Counter()
        """How many trials of this sweep ended so, by status."""
        self.running: dict[str, Running] = {}
        self.epochs_left = 0
        """Of all that is to run; an attempt that begins anew has its epochs to do again."""
        self._epoch_of: dict[str, int] = {}
        """Up to which epoch each trial was counted that has begun and not ended."""
        self._epochs_timed = 0
        self._seconds_timed = 0.0

    def apply(self, event: Event) -> None:
        """Take in an event. What it can't be understood to say is left out."""
        time = when(event)
        if time is None:
            return
        match event:
            case {"event": "sweep", "trials": int(trials), "kept": int(kept), "to_do": int(to_do)}:
                self._begin()
                self.swept, self.began = True, time
                self.total, self.kept, self.epochs_left = trials, kept, to_do
                self.kept_failed, self.cached = _whole(event, "kept_failed"), _whole(event, "cached")
                self.kept_pruned = _whole(event, "kept_pruned")
                self._search(event.get("search"))
                self.slots, self.pid, self.host = _whole(event, "slots"), _whole(event, "pid"), str(event.get("host"))
            case {"event": "proposed", "outcome": "cached"}:
                self.cached += 1
                self.epochs_left -= _whole(event, "epochs")
            case {"event": "proposed", "outcome": str(outcome)} if outcome in PROPOSED[1:]:
                self.untrained[outcome] += 1
            case {"event": "best"}:
                self.best = best_of(event) or self.best
            case {"event": "started", "trial": str(trial), "variant": str(variant), "seed": int(seed)}:
                attempt, epochs = _whole(event, "attempt"), _whole(event, "epochs")
                node, alone = str(event.get("node") or ""), event.get("alone") is True
                self.running[trial] = Running(variant, seed, attempt, epochs, time, node, alone, last=time)
            case {"event": "epoch", "trial": str(trial), "row": {"epoch": int(epoch)} as row}:
                use = event.get("use")
                self._epoch(trial, epoch, row, use if isinstance(use, dict) else {}, time)
            case {"event": "ended", "trial": str(trial), "status": str(status)} if status in RESULTS:
                self._ended(trial, status, time)
                if status in FAILED:
                    self._fail(event, status, event.get("error"), again=False)
            case {"event": "again", "trial": str(trial), "status": str(status)}:
                self._time(self.running.pop(trial, None), time)
                self._fail(event, status, event.get("why"), again=True)
            case {"event": "node", "name": str(name), "change": str(change)}:
                self.unfit.pop(name, None)
                if change == "unfit":
                    self.unfit[name] = str(event.get("why") or "")
            case {"event": "over", "why": str(why)}:
                self.over = why, str(event.get("message") or "")
        self.now = max(self.now, time)

    def _search(self, search: Any) -> None:
        self.searching = isinstance(search, dict)
        proposed = search.get("proposed") if isinstance(search, dict) else None
        if isinstance(proposed, dict):
            self.untrained = +Counter({outcome: _whole(proposed, outcome) for outcome in PROPOSED[1:]})

    def _epoch(self, trial: str, epoch: int, row: Mapping[str, Any], use: Mapping[str, Any], time: float) -> None:
        self.epochs_left -= epoch - self._epoch_of.get(trial, 0)
        self._epoch_of[trial] = epoch
        running = self.running.get(trial)
        if running is None:  # the log begins, or lost a line, in the midst of it
            return
        self._time(running, time)
        self._epochs_timed += 1
        running.epoch, running.row, running.last = epoch, row, time
        running.use = use
        running.node = str(use.get("node") or running.node)

    def _ended(self, trial: str, status: str, time: float) -> None:
        running = self.running.pop(trial, None)
        self._time(running, time)
        counted = self._epoch_of.pop(trial, 0)
        if running is not None:  # one that stops early has no epochs left to do
            self.epochs_left -= running.epochs - counted
        self.ended[status] += 1

    def _time(self, running: Running | None, time: float) -> None:
        """What it took since its last epoch was work of this sweep, whether it ends in another epoch or not."""
        if running is not None:
            self._seconds_timed += max(0.0, time - running.last)

    def _fail(self, event: Event, status: str, why: Any, *, again: bool) -> None:
        attempt, seed = _whole(event, "attempt"), _whole(event, "seed")
        text = "" if why is None else str(why)
        self.failures.append(Failure(str(event.get("variant")), seed, attempt, status, text, again))

    @property
    def finished(self) -> int:
        """With those that had finished earlier and those from the cache."""
        return self.kept - self.kept_failed - self.kept_pruned + self.cached + self.ended["finished"]

    @property
    def pruned(self) -> int:
        """With those that were pruned earlier."""
        return self.kept_pruned + self.ended["pruned"]

    @property
    def begun(self) -> int:
        """All but those that wait."""
        return self.kept + self.cached + self.ended.total() + len(self.running)

    @property
    def waiting(self) -> int:
        return max(0, self.total - self.begun)

    def counts(self) -> dict[str, int]:
        """Trials by state, those that there are. What a sweep left running as it ended is ``interrupted``."""
        failed = {status: self.ended[status] for status in FAILED}
        begun = {"running" if self.over is None else "interrupted": len(self.running)}
        states = {"finished": self.finished, "pruned": self.pruned, **begun, "waiting": self.waiting, **failed}
        return {state: count for state, count in states.items() if count}

    @property
    def seconds_per_epoch(self) -> float | None:
        """Of one trial, failed attempts and starts included; None before an epoch was timed."""
        return self._seconds_timed / self._epochs_timed if self._epochs_timed else None

    def seconds_left(self, now: float | None = None) -> float | None:
        """Until the sweep is done, at ``now``; None before an epoch was timed, and when it is over.

        What an epoch took so far, times what is left, by as many as run at once; no less than the trial takes that has
        the most before it.
        """
        each = self.seconds_per_epoch
        if self.over is not None or each is None:
            return None
        now = self.now if now is None else now
        spent = {trial: min(max(0.0, now - running.last), each) for trial, running in self.running.items()}
        work = max(0.0, self.epochs_left * each - sum(spent.values()))
        longest = max((self._left_of(trial) * each - spent[trial] for trial in self.running), default=0.0)
        return max(work / (len(self.running) or self.slots or 1), longest, 0.0)

    def _left_of(self, trial: str) -> int:
        # An attempt that goes on from a checkpoint says so by its first epoch: until then, what it had reached.
        return max(0, self.running[trial].epochs - self._epoch_of.get(trial, 0))

    def used(self) -> Used:
        """By all that runs, as their last epochs told."""
        shares = self._told("gpu")
        busy = sum(shares) / len(shares) if shares else None
        return Used(self._total("cpu"), self._total("memory"), self._total("gpu_memory"), busy)

    def _total(self, key: str) -> float | None:
        found = self._told(key)
        return sum(found) if found else None

    def _told(self, key: str) -> list[float]:
        found = (_number(running.use.get(key)) for running in self.running.values())
        return [number for number in found if number is not None]


def best_of(event: Event) -> Best | None:
    """What an event says that the best is; None where it does not say so."""
    match event:
        case {"event": "best", "number": int() | str() as number, "values": dict(values)}:
            numbers = ((str(name), _number(value)) for name, value in values.items())
            return Best(str(number), {name: number for name, number in numbers if number is not None})
    return None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _whole(event: Mapping[str, Any], key: str) -> int:
    value = event.get(key)
    return value if isinstance(value, int) else 0
