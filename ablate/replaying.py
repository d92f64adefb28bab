"""An executor that trains nothing: it replays recorded curves by a virtual clock, and plants faults at random.

What a real executor waits for is a step in a heap here, taken at its moment: so a sweep of ten thousand trials on a
hundred slots passes in minutes, with the decisions, the folder and the log of a real one. Workers write their trial's
files and save what they have reached as real ones do; the saved state is the number of epochs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Any

from ablate.driving import Attempt, Driver
from ablate.errors import UserError
from ablate.planting import Fault, Faults


@dataclass(frozen=True)
class Recorded:
    """What a trial comes to: a row and the seconds of each epoch, and its result, as training gives them."""

    rows: Sequence[Mapping[str, Any]]
    seconds: Sequence[float]
    result: Mapping[str, Any]


@dataclass
class Clock:
    """Virtual time, in seconds: what a replayed driver reads. It stands still until ``run`` moves it."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Course:
    """How a replay went. ``epochs`` counts what workers did, repeated ones too; ``faults`` by kind: what struck."""

    steps: int = 0
    epochs: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    killed: bool = False


def run(
    driver: Driver,
    recorded: Mapping[str, Recorded],
    slots: int,
    clock: Clock,
    faults: Faults | None = None,
    save_every: int = 1,
) -> Course:
    """Replay the driver's sweep until it is over, or the driver is killed.

    ``recorded`` is asked for a trial's hash when an attempt begins, and may make curves up then. ``clock`` is the one
    that the driver was given. A trial's state is saved after each ``save_every`` epochs but the last. ``RuntimeError``
    where the driver gives nothing out, nothing runs, and it is not over.
    """
    return _Replay(driver, recorded, slots, clock, faults or Faults(), save_every).run()


@dataclass(eq=False)
class _Work:
    """An attempt in its slot."""

    attempt: Attempt
    recorded: Recorded
    slot: int
    place: ExitStack
    """The worker's right to the trial's folder."""
    epoch: int = 0
    trained: int = 0
    """Epochs in this attempt."""
    fault: Fault | None = None


class _Killed(Exception):
    """The driver is no more."""


_Act = Callable[[], None]


class _Replay:
    def __init__(
        self,
        driver: Driver,
        recorded: Mapping[str, Recorded],
        slots: int,
        clock: Clock,
        faults: Faults,
        save_every: int,
    ) -> None:
        if faults.hang and driver.policy.trial_timeout is None:
            raise ValueError("a trial that hangs ends by its trial_timeout, and the policy has none")
        self.course = Course()
        self._driver, self._recorded, self._clock, self._faults = driver, recorded, clock, faults
        self._study = driver.study
        self._save_every = save_every
        self._slots, self._free = slots, list(range(slots))
        self._gone: set[int] = set()
        self._at_work: dict[str, _Work] = {}
        self._steps: list[tuple[float, int, _Work | None, _Act]] = []
        self._serial = count()
        self._node_draws = faults.node_draws()

    def run(self) -> Course:
        try:
            self._drive()
        except _Killed:
            self.course.killed = True
        finally:
            for work in self._at_work.values():
                work.place.close()
        return self.course

    def _drive(self) -> None:
        self._plan_node_death()
        while True:
            self._give_out()
            if self._driver.over:
                return
            if not self._at_work and not self._gone:
                raise RuntimeError("nothing runs, and the driver gives nothing out")
            moment, _, work, act = heappop(self._steps)
            if work is not None and not self._is_at_work(work):
                continue
            self._clock.now = moment
            self.course.steps += 1
            if not self._driver.over:  # its budget may have ended before this moment
                act()

    @property
    def _told(self) -> Driver:
        """The driver, which is about to be told something, unless it is dead by then."""
        if self._faults.kill_after is not None and self.course.steps >= self._faults.kill_after:
            raise _Killed
        return self._driver

    def _in(self, seconds: float, work: _Work | None, act: _Act) -> None:
        heappush(self._steps, (self._clock.now + seconds, next(self._serial), work, act))

    def _is_at_work(self, work: _Work) -> bool:
        return self._at_work.get(work.attempt.trial.hash) is work

    # One attempt, from its slot to its end.

    def _give_out(self) -> None:
        while self._free and (attempt := self._driver.next()) is not None:
            self._begin(attempt)

    def _begin(self, attempt: Attempt) -> None:
        hash = attempt.trial.hash
        work = _Work(attempt, self._recorded[hash], self._free.pop(), ExitStack())
        self._at_work[hash] = work
        try:
            work.place.enter_context(self._study.working(hash))
            work.epoch = self._opened(work)
        except UserError as error:
            self._told.refused(error.problems)
            return
        self._told.started(attempt, node=self._name(self._node(work.slot)), pid=work.slot)
        left = len(work.recorded.rows) - work.epoch
        work.fault = self._faults.of(attempt, left)
        if (limit := self._driver.policy.trial_timeout) is not None:
            self._in(limit * 1.001, work, partial(self._end_if_late, work))  # executors look now and then
        self._go_on(work)

    def _opened(self, work: _Work) -> int:
        """The worker begins in the trial's folder, where an earlier one left off: after so many epochs."""
        trial, rows = work.attempt.trial, work.recorded.rows
        state = self._study.state(trial.hash)
        epoch = int(state) if state else 0
        about = {"variant": trial.variant, "seed": trial.seed, "numerics": {}, "code": ""}
        self._study.begin({"hash": trial.hash, "attempt": work.attempt.number, **about}, resume=epoch > 0)
        if epoch:
            self._study.rewrite_metrics(trial.hash, [dict(row) for row in rows[:epoch]])
        return epoch

    def _go_on(self, work: _Work) -> None:
        """Up to the next thing that happens to it."""
        if work.epoch == len(work.recorded.rows):
            self._in(0.0, work, partial(self._fail if work.fault else self._finish, work))
            return
        seconds = work.recorded.seconds[work.epoch]
        until = work.fault.moment - work.trained if work.fault else 1.0
        if until < 1:
            self._in(until * seconds, work, partial(self._fail, work))
        else:
            self._in(seconds, work, partial(self._epoch, work))

    def _epoch(self, work: _Work) -> None:
        hash, rows = work.attempt.trial.hash, work.recorded.rows
        row = rows[work.epoch]
        work.epoch, work.trained = work.epoch + 1, work.trained + 1
        self.course.epochs += 1
        try:
            self._study.append_metrics(hash, row)
            if work.epoch < len(rows) and work.epoch % self._save_every == 0:
                self._study.save_state(hash, str(work.epoch).encode())
        except UserError as error:
            self._told.refused(error.problems)
            return
        if work.fault is not None and work.fault.moment == work.trained:
            self._fail(work)
            return
        if self._told.epoch(work.attempt, row):
            self._go_on(work)
        else:
            self._release(work)
            self._told.pruned(work.attempt)

    def _finish(self, work: _Work) -> None:
        self._release(work)
        self._told.ended(work.attempt, work.recorded.result)

    def _release(self, work: _Work) -> None:
        del self._at_work[work.attempt.trial.hash]
        work.place.close()
        if self._node(work.slot) not in self._gone:
            self._free.append(work.slot)

    # What goes wrong.

    def _fail(self, work: _Work) -> None:
        assert work.fault is not None
        self.course.faults[work.fault.kind] += 1
        if work.fault.kind == "hang":
            return
        self._release(work)
        if work.fault.kind == "death":
            self._told.lost(work.attempt, "its worker died")
        else:
            self._told.ended(work.attempt, _out_of_memory(work))

    def _end_if_late(self, work: _Work) -> None:
        if work.attempt in self._driver.overdue():
            self._release(work)
            self._told.timed_out(work.attempt)

    def _node(self, slot: int) -> int:
        return slot % self._faults.nodes

    @staticmethod
    def _name(node: int) -> str:
        return f"node{node + 1}"

    def _plan_node_death(self) -> None:
        if self._faults.node_every is not None:
            self._in(self._node_draws.expovariate(1 / self._faults.node_every), None, self._node_dies)

    def _node_dies(self) -> None:
        self._plan_node_death()
        up = [node for node in range(self._faults.nodes) if node not in self._gone]
        if not up:
            return
        node = self._node_draws.choice(up)
        self.course.faults["node"] += 1
        self._gone.add(node)
        self._free = [slot for slot in self._free if self._node(slot) != node]
        self._in(self._faults.node_back, None, partial(self._node_joins, node))
        struck = [work for work in self._at_work.values() if self._node(work.slot) == node]
        for work in struck:
            self._release(work)
        self._told.tell("node", name=self._name(node), change="left", why="it died")
        for work in struck:
            self._told.lost(work.attempt, f"{self._name(node)} died")

    def _node_joins(self, node: int) -> None:
        self._gone.discard(node)
        self._free += [slot for slot in range(self._slots) if self._node(slot) == node]
        self._told.tell("node", name=self._name(node), change="joined", why="")


def _out_of_memory(work: _Work) -> dict[str, Any]:
    read = sum(any(name.startswith("test.") for name in row) for row in work.recorded.rows[: work.epoch])
    return {
        "status": "out_of_memory",
        "metrics": {},
        "epochs": work.epoch,
        "selected_epoch": 0,
        "seconds": sum(work.recorded.seconds[: work.epoch]),
        "images_per_second": 0.0,
        "test_readings": read,
        "error": {"type": "OutOfMemoryError", "message": "it did not fit beside others", "traceback": ""},
    }
