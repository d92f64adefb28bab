"""What a sweep tells while it runs: plain mappings, one vocabulary for the live view, ``ablate watch`` and the log.

Each is a line of the study's ``events.jsonl``. ``trial`` is a trial's hash, ``attempt`` counts from 1 over all sweeps
of the study, epochs count from 1, durations are in seconds and memory is in bytes. Who reads a log ignores kinds and
keys that it does not know: a later version may have written it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, NotRequired, TypedDict

Event = dict[str, Any]
"""One of the kinds below, as JSON has it."""


class _Any(TypedDict):
    time: str
    """In UTC, as ISO 8601 has it, to the millisecond."""


class Search(TypedDict):
    """What a sweep is told of that proposes its trials as it goes."""

    budget: int
    """How many distinct trials it is to train."""
    proposed: NotRequired[dict[str, int]]
    """How many proposals of earlier calls had which of ``outcomes.PROPOSED``."""


class Sweep(_Any):
    """A sweep began. Every event up to the next of this kind is about it."""

    event: Literal["sweep"]
    pid: int
    host: str
    executor: str
    trials: int
    """All of the study; those that a search is to train."""
    kept: int
    """Those that have a result and keep it, finished or not."""
    kept_failed: NotRequired[int]
    """Those among ``kept`` that did not finish; none that was pruned."""
    kept_pruned: NotRequired[int]
    """Those among ``kept`` that were pruned."""
    cached: int
    """Those whose result the cache had: none of ``kept``."""
    slots: int
    """How many can run at once, as it begins."""
    to_do: int
    """The epochs of all trials that are neither kept nor cached; those that a checkpoint spares are among them."""
    search: NotRequired[Search]
    """There where it is a search."""


class Proposed(_Any):
    """A search proposed what is not to be trained here."""

    event: Literal["proposed"]
    number: int | str
    """The proposal's; its name, where several searches share a study."""
    outcome: str
    """One of ``outcomes.PROPOSED``, or ``cached``: the cache had its trial."""
    why: str
    epochs: NotRequired[int]
    """Those that the cache spares."""


class Best(_Any):
    """Of what a search has trained, this is the best so far."""

    event: Literal["best"]
    number: int | str
    """The proposal's, as in ``Proposed``."""
    values: dict[str, float]
    """Of the objectives, the one first by which it is the best."""


class Started(_Any):
    """An attempt at a trial began, perhaps from a checkpoint."""

    event: Literal["started"]
    trial: str
    variant: str
    seed: int
    attempt: int
    epochs: int
    """As many as it is to be trained for."""
    node: str
    pid: int
    alone: bool
    """Nothing else runs beside it."""


class Use(TypedDict, total=False):
    """What a trial used since its last epoch."""

    cpu: float
    """Cores kept busy: 1.9 of 2."""
    memory: int
    gpu_memory: int
    gpu: float
    """The part of the time that its GPU was busy, whatever else runs on it: 0 to 1."""
    node: str
    pid: int


class Epoch(_Any):
    """A trial has finished an epoch. ``row`` is its line of ``metrics.jsonl``."""

    event: Literal["epoch"]
    trial: str
    row: dict[str, Any]
    use: Use


class Ended(_Any):
    """A trial has its result."""

    event: Literal["ended"]
    trial: str
    variant: str
    seed: int
    attempt: int
    status: str
    """One of ``outcomes.RESULTS``."""
    epochs: int
    metrics: dict[str, float]
    seconds: float
    images_per_second: float
    error: str | None
    """``Type: message`` of what failed."""


class Again(_Any):
    """An attempt ended without a result, and its trial waits for another."""

    event: Literal["again"]
    trial: str
    variant: str
    seed: int
    attempt: int
    """The one that ended."""
    status: Literal["lost", "out_of_memory"]
    why: str


class Node(_Any):
    """A machine of the cluster came or went, or can't train here."""

    event: Literal["node"]
    name: str
    change: Literal["joined", "left", "unfit"]
    why: NotRequired[str]


class SpecChanged(_Any):
    """The study goes on by a spec that differs at these dotted paths."""

    event: Literal["spec"]
    changed: list[str]


class Seeds(_Any):
    """All seeds so far have been trained, and ``seeds: auto`` was asked whether there are enough."""

    event: Literal["seeds"]
    seeds: int
    """How many there are."""
    more: int
    """How many are added now."""
    message: str


class Over(_Any):
    """The sweep is over. What still ran is interrupted, and goes on from its checkpoint another time."""

    event: Literal["over"]
    why: Literal["done", "budget", "interrupted", "refused"]
    message: str


KINDS: dict[str, type[Any]] = {
    "sweep": Sweep,
    "proposed": Proposed,
    "best": Best,
    "started": Started,
    "epoch": Epoch,
    "ended": Ended,
    "again": Again,
    "node": Node,
    "spec": SpecChanged,
    "seeds": Seeds,
    "over": Over,
}


def stamped(event: str, **about: Any) -> Event:
    """An event of that kind, of now."""
    return {"event": event, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **about}


def when(event: Event) -> float | None:
    """Its time, in seconds since 1970; None where it has none that can be read."""
    try:
        return datetime.fromisoformat(event["time"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
