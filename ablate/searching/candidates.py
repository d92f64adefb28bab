"""A point of a space → the network that it is, and whether it is worth training: built, counted, scored, certified.

Nothing is trained here. What is cheap comes first: a network that breaks a constraint on its parameters is never built
as a module, and one that is never trained is never certified.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ablate.certify import Certifier
from ablate.data.dataset import DataSpec, ImageData
from ablate.design import Level, Variant, trial_hash, variant_at
from ablate.errors import Problem
from ablate.known import Known
from ablate.numerics import Numerics
from ablate.space import STATIC_METRICS, Bound, Grid, Point
from ablate.space.trying import level_of
from ablate.spec import Spec


@dataclass(frozen=True)
class Candidate:
    """A point that can be built. ``hash`` is its trial's; ``known`` what was found out about it so far."""

    variant: Variant
    hash: str
    known: dict[str, float] = field(default_factory=dict)


class Candidates:
    """The points of a grid on a spec. ``fixed`` levels hold at all of them."""

    def __init__(
        self,
        spec: Spec,
        grid: Grid,
        baseline: Variant,
        *,
        seed: int,
        numerics: Numerics,
        data_of: Callable[[DataSpec], ImageData],
        certifier: Certifier,
        known: Known,
        fixed: Sequence[Level] = (),
    ) -> None:
        self.spec, self.grid, self.baseline, self.fixed = spec, grid, baseline, tuple(fixed)
        self.seed, self.numerics, self.data_of = seed, numerics, data_of
        self._certifier, self._known = certifier, known

    def built(self, name: str, point: Point) -> Candidate:
        """The network and recipe at a point; ``UserError`` where there is none."""
        variant = variant_at(self.spec, name, [*self.fixed, *map(level_of, self.grid.assignments(point))])
        variant.baseline = self.baseline.name
        content = self.data_of(variant.data).content_hash
        return Candidate(variant, trial_hash(variant, self.seed, content, self.numerics.as_dict()))

    def learn(self, candidate: Candidate, metrics: Collection[str]) -> None:
        """Find out these metrics, as far as they are not known. ``UserError`` where one of them can't be had."""
        missing = [metric for metric in metrics if metric not in candidate.known]
        if missing:
            candidate.known.update(self._known.values(candidate.variant, missing))

    def certificate(self, candidate: Candidate) -> Any:
        """What is proven about it before it is trained. Its ``failures`` forbid that."""
        return self._certifier.certify(candidate.variant, self.baseline)


def point_of(grid: Grid, record: Mapping[str, Any]) -> Point:
    """The point that a proposal on record was: by its ``levels`` and, of ranges without steps, its ``values``."""
    levels, values = record["levels"], record["values"]
    return tuple(
        None
        if dimension.path not in levels
        else values[dimension.path]
        if dimension.span is not None
        else next(i for i, option in enumerate(dimension.options) if option.label == levels[dimension.path])
        for dimension in grid.dimensions
    )


def broken(known: Mapping[str, float], constraints: Mapping[str, Bound]) -> dict[str, str]:
    """Which constraints these values break: metric → in words."""
    return {
        metric: f"{metric} {_said(known[metric])} is {_missed(bound, known[metric])}"
        for metric, bound in constraints.items()
        if metric in known and not bound.allows(known[metric])
    }


def in_order_of_cost(metrics: Collection[str]) -> tuple[list[str], list[str]]:
    """Those that the graph tells, and those for which a network has to be made and run."""
    cheap = [metric for metric in metrics if metric in STATIC_METRICS]
    return cheap, [metric for metric in metrics if metric not in cheap]


def reason(problems: Sequence[Problem]) -> str:
    """The first of what is wrong, without its place: what points that can't be built are counted by."""
    first = problems[0]
    return f"{first.path}: {first.message}" if first.path else first.message


def _missed(bound: Bound, value: float) -> str:
    if bound.near is not None and bound.within is not None:
        return f"not within {_said(bound.within)} of {_said(bound.near)}"
    if bound.max is not None and value > bound.max:
        return f"more than {_said(bound.max)}"
    assert bound.min is not None
    return f"less than {_said(bound.min)}"


def _said(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"
