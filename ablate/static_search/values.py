"""What comes of a static search, as values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ablate.costing import Cost
from ablate.space import STATIC_METRICS, Target


@dataclass(frozen=True)
class Totals:
    """What a network costs, for one example."""

    params: int
    flops: int
    activations: int
    uncounted: tuple[str, ...] = ()
    """Operations in it that no counter knows."""

    @classmethod
    def of(cls, cost: Cost) -> Totals:
        unknown = {operation for operations in cost.uncounted.values() for operation in operations}
        return cls(cost.params, cost.flops, cost.activations, tuple(sorted(unknown)))

    def __getitem__(self, metric: str) -> int:
        assert metric in STATIC_METRICS, metric
        value: int = getattr(self, metric)
        return value


@dataclass
class Found:
    """One network, and the points of the space that it is."""

    point: Mapping[str, Any]
    """Path → value, of the first of its points; only what acts there."""
    labels: Mapping[str, str]
    """Path → the value's label."""
    totals: Totals
    fingerprint: str
    same: list[Mapping[str, str]] = field(default_factory=list)
    """The labels of its other points."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """What it was built for: the metrics that are asked for and that no graph tells."""
    on_front: bool = False
    """Nothing that keeps the constraints is better in one objective and as good in all others."""

    def __getitem__(self, metric: str) -> float:
        return self.scores[metric] if metric in self.scores else self.totals[metric]


@dataclass(frozen=True)
class TargetResult:
    """A published number, held against all networks of the space."""

    target: Target
    reached: int
    """How many networks come to it."""
    nearest: Found
    lowest: int
    highest: int
    plain: int
    """What the spec's own network comes to, without insertions."""

    @property
    def misses_by(self) -> float:
        """How far the nearest network is from the number."""
        return abs(self.nearest.totals[self.target.metric] - self.target.near)


@dataclass(frozen=True)
class Sample:
    """Which points were built, where not all were."""

    of: int | None
    """How many the space has; ``None`` where a range without steps varies."""
    sampler: str
    seed: int
    asked: int
    """How many were to be built: there are fewer where nothing new was found any more."""


@dataclass(frozen=True)
class StaticSearch:
    """The points of a space on a spec, or a sample of them, built and counted."""

    spec: str
    """The spec's name."""
    space: str
    """The space's file."""
    paths: tuple[str, ...]
    left_out: tuple[str, ...]
    """Paths that no cost depends on."""
    points: int
    """That were built."""
    impossible: Counter[str]
    """Why a point can't be built → how many."""
    networks: tuple[Found, ...]
    """The distinct networks, in the order of their points."""
    kept: tuple[Found, ...]
    """Those that keep the constraints, the best first."""
    rejected: Counter[str]
    """Constrained metric → how many networks break it; one may break several."""
    objectives: Mapping[str, str]
    """Those that are known without training: metric → minimize or maximize."""
    unknown_objectives: tuple[str, ...]
    """Those that only training tells."""
    targets: tuple[TargetResult, ...]
    on_target: tuple[Found, ...]
    """The networks that come to every published number."""
    alike: tuple[str, ...]
    """Paths of which no two values make two networks, whatever the others are. Of a sample that is not known."""
    sample: Sample | None = None
    """``None`` where every point was built."""
    unmeasured: Counter[str] = field(default_factory=Counter)
    """Why a network has no value of a metric that it was built for → how many; these are not kept."""

    @property
    def duplicates(self) -> int:
        """Points that are the same network as an earlier one."""
        return sum(len(found.same) for found in self.networks)
