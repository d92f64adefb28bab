"""``seeds: auto``: how wide a study's intervals are, and whether its rule asks for more seeds.

Widths alone are looked at, never where zero lies: a study that goes on until zero is excluded finds differences that
are not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablate import stats
from ablate.analysis.arms import Arm
from ablate.store import Study

AUTO = "auto"


@dataclass(frozen=True)
class Until:
    """``ablation.until`` of a study: ``half_width`` in the metric's unit, the others are numbers of seeds."""

    metric: str
    half_width: float
    first: int
    add: int
    most: int

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> Until | None:
        """That of a resolved spec; None where the seeds are stated."""
        ablation = spec.get("ablation") or {}
        return cls(**ablation["until"]) if ablation.get("seeds") == AUTO else None


@dataclass(frozen=True)
class Width:
    """Half the 95% t-interval of a difference to the baseline, paired by seed, or of a mean; None below two values."""

    variant: str
    baseline: str | None
    n: int
    half_width: float | None

    @property
    def name(self) -> str:
        return self.variant if self.baseline is None else f"{self.variant} − {self.baseline}"


@dataclass(frozen=True)
class Look:
    """What the rule sees in so many seeds."""

    until: Until
    seeds: int
    widths: tuple[Width, ...]
    without: tuple[str, ...]
    """Variants no trial of which has a value: none of their intervals can narrow, so the rule leaves them out."""

    @property
    def wide(self) -> tuple[Width, ...]:
        """Those that are wider than they are to be, or that are none yet."""
        return tuple(each for each in self.widths if not _is_narrow(each, self.until.half_width))

    @property
    def widest(self) -> Width | None:
        return max(self.widths, key=lambda each: _or_infinite(each.half_width), default=None)

    @property
    def reached(self) -> bool:
        """Whether all that can be looked at, and something can, is as narrow as it is to be."""
        return bool(self.widths) and not self.wide

    @property
    def more(self) -> int:
        """How many seeds the rule asks for now."""
        return max(0, min(self.until.add, self.until.most - self.seeds)) if self.wide else 0


def is_complete(study: Study, arms: Sequence[Arm]) -> bool:
    """Whether every trial has a result, and no rule asks for more seeds: until then nothing is told of the test split.

    A budget that ended before the rule was content leaves it so; ``until.most`` may be lowered to the seeds there are.
    """
    if any(result is None for arm in arms for result in arm.results.values()):
        return False
    until = Until.of(study.spec)
    return until is None or not look(until, arms).more


def look(until: Until, arms: Sequence[Arm]) -> Look:
    """The intervals of every variant with a baseline; where none has one, of every variant's mean."""
    by_name = {arm.name: arm for arm in arms}
    pairs = [(arm, by_name[arm.baseline]) for arm in arms if arm.baseline is not None]
    values = {arm.name: arm.values(until.metric) for arm in arms}
    without = tuple(arm.name for arm in arms if not values[arm.name])
    if pairs:
        # a difference of the same trials is 0 whatever they are
        others = [(a, b) for a, b in pairs if a.record["trials"] != b.record["trials"]]
        seen = [(a.name, b.name) for a, b in others if a.name not in without and b.name not in without]
        widths = [_of_difference(a, b, values[a], values[b]) for a, b in seen]
    else:
        widths = [_of_mean(arm.name, values[arm.name]) for arm in arms if arm.name not in without]
    return Look(until, max((len(arm.results) for arm in arms), default=0), tuple(widths), without)


def _of_difference(variant: str, baseline: str, values: Mapping[str, float], others: Mapping[str, float]) -> Width:
    found = stats.paired_difference(values, others)
    return Width(variant, baseline, found.n, found.interval.half_width if found.interval else None)


def _of_mean(variant: str, values: Mapping[str, float]) -> Width:
    found = stats.summary(values.values())
    return Width(variant, None, found.n, found.interval.half_width if found.interval else None)


def _is_narrow(width: Width, half_width: float) -> bool:
    return width.half_width is not None and width.half_width <= half_width


def _or_infinite(half_width: float | None) -> float:
    return float("inf") if half_width is None else half_width
