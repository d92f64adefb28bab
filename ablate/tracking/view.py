"""What a tracker is shown of a study, as plain data, and what a tracker is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Epoch:
    """What was measured in one epoch. ``number`` counts from 1; ``time`` is in seconds since 1970."""

    number: int
    time: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class TrialView:
    """A trial that has begun, as far as it is on the disk.

    ``status`` is one of ``outcomes.STATES``; ``recipe`` has the training recipe, the data section, the numerics and the
    levels under dotted names; ``final`` is what the study's table reports, of the weights that were selected. Times are
    in seconds since 1970. ``version`` is another text whenever anything of the trial is.
    """

    hash: str
    variant: str
    seed: int
    status: str
    version: str
    started: float
    ended: float | None
    attempts: int
    epochs: Sequence[Epoch]
    final: Mapping[str, float]
    cost: Mapping[str, float]
    recipe: Mapping[str, Any]
    baseline: str | None
    identity: str
    fingerprint: str
    certificate: Mapping[str, Any]
    result: Mapping[str, Any] | None
    error: str | None

    @property
    def name(self) -> str:
        """``VARIANT/seed-N``."""
        return f"{self.variant}/seed-{self.seed}"

    @property
    def over(self) -> bool:
        """Whether it is neither running nor about to."""
        return self.status not in ("running", "waiting")


@dataclass(frozen=True)
class StudyView:
    """A study as it is now: its trials that have begun, and the files that describe it.

    ``id`` is its own among all studies, and moves with its folder; ``state`` is ``running``, ``finished``, ``failed``
    (trials are), or ``interrupted`` (trials are missing); ``files`` are by the name under which they are shown.
    """

    id: str
    name: str
    folder: Path
    state: str
    started: float
    ended: float | None
    trials: Sequence[TrialView]
    count: int
    """All trials of the study, those that have not begun included."""
    recipe: Mapping[str, Any]
    """The spec's, under dotted names: what the variants have in common, before their levels."""
    spec: str
    summary: str
    """The table of the report, as Markdown; empty before there is one."""
    commit: str | None
    files: Mapping[str, Path] = field(default_factory=dict)


class Tracker(Protocol):
    """Shows studies somewhere else. A package offers one in the entry-point group ``ablate.loggers``: name → class.

    It is made with the text after ``=`` in ``--track NAME=TARGET``, which is empty without one, in a process of its own
    that no sweep waits for; ``ablate.errors.UserError`` says why it can't be used at all.
    """

    target: str
    """Where it sends to, in full and without secrets: what is printed, and kept in the study's folder."""

    def __init__(self, target: str) -> None: ...

    def sync(self, study: StudyView, memory: dict[str, Any]) -> None:
        """Send what the other side lacks, and nothing twice; raise what stands against it.

        ``memory`` is this tracker's own, of this study and target: JSON, empty at first, kept on the disk after each
        call, one that raised included. The process may be killed at any moment, so that it may be older than what was
        sent; and the other side may have lost everything.
        """
