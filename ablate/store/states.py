"""In which state a trial is: of ``outcomes.STATES``, with what a list of many trials shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablate.store.trial import TrialFolder


@dataclass(frozen=True)
class TrialState:
    """What is known of a trial in short.

    ``epochs`` are those that are done, ``seconds`` those of training, ``attempts`` those that have begun. ``error``
    says what became of it, or why its files count as damaged.
    """

    hash: str
    status: str
    attempts: int = 0
    epochs: int = 0
    seconds: float | None = None
    images_per_second: float | None = None
    error: str | None = None


def of_result(hash: str, result: Mapping[str, Any]) -> TrialState:
    """The state of a trial with a sound result."""
    error = result.get("error")
    if isinstance(error, Mapping):
        error = f"{error.get('type')}: {error.get('message')}"
    return TrialState(
        hash,
        result["status"],
        attempts=result.get("attempts") or 1,
        epochs=result.get("epochs") or 0,
        seconds=result.get("seconds"),
        images_per_second=result.get("images_per_second"),
        error=error,
    )


def of_begun(folder: TrialFolder, status: str, noted: int) -> TrialState:
    """The state of a trial without a result, if it has begun; ``noted`` attempts were noted. Else it is waiting."""
    try:
        trial = folder.begun()
    except (OSError, ValueError):
        trial = {}
    if trial is None and not noted:
        return TrialState(folder.hash, "waiting")
    written = (trial or {}).get("attempt", 1)
    attempts = max(noted, written if isinstance(written, int) else 1)
    return TrialState(folder.hash, status, attempts=attempts, epochs=len(folder.rows()[0]))
