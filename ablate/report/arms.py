"""The cells of a row that say what became of its trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from ablate.analysis.arms import Arm
from ablate.report.values import Cell, Column

Part = tuple[Column, Callable[[Arm], Cell]]


def trials_cell(arm: Arm) -> Cell:
    """``2 of 3; 1 diverged``: how many trials finished, and what became of the others."""
    if not arm.run:
        return Cell("not run")
    others = Counter(arm.fates.values())
    done = others.pop("finished", 0)
    text = "; ".join([f"{done} of {len(arm.results)}", *(f"{count} {fate}" for fate, count in others.items())])
    return Cell(text, note="; ".join(_errors(arm)))


def _errors(arm: Arm) -> Iterable[str]:
    for seed, result in arm.results.items():
        error = (result or {}).get("error")
        if error:
            message = str(error.get("message", ""))
            yield f"seed {seed}: {error.get('type')}: {message[:100]}{'…' if len(message) > 100 else ''}"
