"""A row of the ablation table: a variant with what became of its trials."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ablate.outcomes import RESULTS
from ablate.report.values import Cell, Column
from ablate.store import Study

MEASURES = ("epochs", "seconds", "images_per_second")


@dataclass(frozen=True)
class Arm:
    """A row: a variant with its trials' results by seed (None: there is none), or a name that only a paper has.

    ``fates`` are their states by seed, as ``outcomes.STATES`` has them.
    """

    name: str
    record: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, dict[str, Any] | None] = field(default_factory=dict)
    fates: Mapping[str, str] = field(default_factory=dict)

    @property
    def run(self) -> bool:
        return bool(self.record)

    def finished(self) -> dict[str, dict[str, Any]]:
        return {seed: r for seed, r in self.results.items() if r is not None and r["status"] == "finished"}

    def values(self, metric: str) -> dict[str, float]:
        """Of the trials that finished, by seed; a value that is not finite is none."""
        found = {seed: measured(result, metric) for seed, result in self.finished().items()}
        return {seed: value for seed, value in found.items() if value is not None and math.isfinite(value)}

    def cost(self, name: str) -> float | None:
        value = (self.record.get("cost") or {}).get(name)
        return None if value is None else value


Part = tuple[Column, Callable[[Arm], Cell]]


def arms_of(study: Study) -> list[Arm]:
    """A row per variant, in the order of the design."""
    # each trial once, though duplicates share theirs
    hashes = dict.fromkeys(hash for variant in study.variants for hash in variant["trials"].values())
    results = study.results(hashes)
    fates = {hash: str(result["status"]) for hash, result in results.items()}
    if len(results) < len(hashes):
        # one that ends between these two readings is without a result in this table
        others = {hash: state.status for hash, state in study.states().items() if state.status not in RESULTS}
        fates = dict.fromkeys(hashes, "running") | others | fates
    return [
        Arm(
            variant["name"],
            variant,
            {seed: results.get(hash) for seed, hash in variant["trials"].items()},
            {seed: fates[hash] for seed, hash in variant["trials"].items()},
        )
        for variant in study.variants
    ]


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


def measured(result: Mapping[str, Any], name: str) -> float | None:
    value = result.get(name) if name in MEASURES else (result.get("metrics") or {}).get(name)
    return None if value is None else float(value)
