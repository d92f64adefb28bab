"""A study's variants with what became of their trials: what tables, figures and comparisons are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ablate import stats
from ablate.outcomes import RESULTS
from ablate.store import Study

MEASURES = ("epochs", "seconds", "images_per_second")
"""What is measured of a trial beside its metrics."""


@dataclass(frozen=True)
class Arm:
    """A row: a variant with its trials' results by seed (None: there is none), or a name that only a paper has.

    ``fates`` are their states by seed, as ``outcomes.STATES`` has them.
    """

    name: str
    record: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, dict[str, Any] | None] = field(default_factory=dict)
    fates: Mapping[str, str] = field(default_factory=dict)
    method: stats.Method = "t"
    """By which method the study's spec asks for intervals over seeds."""

    @property
    def run(self) -> bool:
        return bool(self.record)

    @property
    def baseline(self) -> str | None:
        """The name of the variant that it is compared with."""
        name: str | None = self.record.get("baseline")
        return name

    @property
    def control_of(self) -> str | None:
        """The variant whose cost this one was widened to match."""
        control = self.record.get("control")
        return str(control["of"]) if control else None

    def finished(self) -> dict[str, dict[str, Any]]:
        return {seed: r for seed, r in self.results.items() if r is not None and r["status"] == "finished"}

    def values(self, metric: str) -> dict[str, float]:
        """Of the trials that finished, by seed; a value that is not finite is none."""
        found = {seed: measured(result, metric) for seed, result in self.finished().items()}
        return {seed: value for seed, value in found.items() if value is not None and math.isfinite(value)}

    def summary(self, metric: str) -> stats.Summary | None:
        """Over its seeds; None without a value."""
        values = self.values(metric)
        return stats.summary(values.values(), method=self.method) if values else None

    def minus(self, other: Arm, metric: str, level: float = stats.LEVEL) -> stats.Difference:
        """Paired by seed."""
        return stats.paired_difference(self.values(metric), other.values(metric), level, self.method)

    def cost(self, name: str) -> float | None:
        value = (self.record.get("cost") or {}).get(name)
        return None if value is None else value


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
    method = (study.spec.get("report") or {}).get("interval", "t")
    return [
        Arm(
            variant["name"],
            variant,
            {seed: results.get(hash) for seed, hash in variant["trials"].items()},
            {seed: fates[hash] for seed, hash in variant["trials"].items()},
            method,
        )
        for variant in study.variants
    ]


def measured(result: Mapping[str, Any], name: str) -> float | None:
    value = result.get(name) if name in MEASURES else (result.get("metrics") or {}).get(name)
    return None if value is None else float(value)
