"""A few points of a space tried before any is trained: each value once, and those that fail again in other company.

What can be built beside some values and not beside others is no mistake: the search counts those points. A value that
is refused in whatever company is one, and so is a path that never changes anything, a misspelt parameter say, which
would else be dropped as one is that belongs to another block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from random import Random

from ablate.block import registry
from ablate.collect import Collector
from ablate.design import Level, Variant, variant_at
from ablate.errors import Problem, UserError, did_you_mean
from ablate.space.conditions import at
from ablate.space.grid import Chosen, Dimension, Grid, Point
from ablate.spec import Spec, unknown_keys
from ablate.yamlfile import Mapping

MOST = 100
"""Points that are tried at first: a space with more values than that is tried in part."""
AGAIN = 20
"""Points at random in which a value that was refused, or a path that did nothing, is tried again."""


def check_points(grid: Grid, spec: Spec, fixed: Sequence[Level] = ()) -> None:
    """``UserError`` for values that no network and no recipe takes, and for paths that change nothing.

    ``fixed`` levels hold at all points. Equal grids are tried at equal points.
    """
    tried = _Tried(grid, spec, tuple(fixed))
    for point in islice(grid.covering(tried.random), MOST):
        tried.look(point)
    tried.check_values()
    tried.check_paths()


@dataclass
class _Tried:
    grid: Grid
    spec: Spec
    fixed: tuple[Level, ...]
    random: Random = field(default_factory=lambda: Random(0))
    built: set[tuple[int, Chosen]] = field(default_factory=set)
    """Values with which a point could be built."""
    refused: dict[tuple[int, Chosen], tuple[Problem, ...]] = field(default_factory=dict)
    """What was said at first of those with which one could not."""
    acting: set[int] = field(default_factory=set)
    example: dict[int, Variant] = field(default_factory=dict)
    """A variant in which a path was set."""

    def look(self, point: Point) -> None:
        chosen = [(index, value) for index, value in enumerate(point) if value is not None]
        levels = [level_of(self.grid.dimensions[index], value) for index, value in chosen]
        try:
            variant = variant_at(self.spec, "tried", [*self.fixed, *levels])
        except UserError as error:
            for value in chosen:
                self.refused.setdefault(value, tuple(error.problems))
            return
        self.built.update(chosen)
        idle = variant.inactive_factors()
        for index, _ in chosen:
            self.example.setdefault(index, variant)
            if self.grid.dimensions[index].path not in idle:
                self.acting.add(index)

    def check_values(self) -> None:
        mistakes = [problem for value in list(self.refused) for problem in self._mistakes(value)]
        if not self.built:
            mistakes = mistakes or [problem for problems in self.refused.values() for problem in problems]
        _raise(mistakes)

    def _mistakes(self, value: tuple[int, Chosen]) -> Iterable[Problem]:
        """What is wrong with a value of which the problems themselves say that it is at fault."""
        index, chosen = value
        dimension = self.grid.dimensions[index]
        layer = dimension.assignment(chosen).layer
        own = [problem for problem in self.refused[value] if problem.place and problem.place.layer == layer]
        for _ in range(AGAIN if own else 0):
            if value in self.built:
                return []
            point = self.grid.having(index, chosen, self.random)
            assert point is not None
            self.look(point)
        return own if value not in self.built else []

    def check_paths(self) -> None:
        for index in sorted(self.example.keys() - self.acting):
            for _ in range(AGAIN):
                dimension = self.grid.dimensions[index]
                point = self.grid.having(index, dimension.drawn(self.random), self.random)
                if point is not None and index not in self.acting:
                    self.look(point)
        idle = sorted(self.example.keys() - self.acting)
        message = "has no effect at any point: what it changes is not there, or does not take it"
        _raise(
            Problem(message, self.grid.dimensions[index].path, self.grid.dimensions[index].place, self._meant(index))
            for index in idle
        )

    def _meant(self, index: int) -> str:
        """The parameter that was perhaps meant, of what stands beside the path."""
        dimension = self.grid.dimensions[index]
        assignment = dimension.assignment(dimension.ends[0])
        *above, last = assignment.path
        beside = at(self.example[index].tree, above)
        if not isinstance(beside, dict):
            return ""
        block = registry().get(str(beside.get("block")))
        if block is not None:
            hint = did_you_mean(last, block.Params.model_fields)
        else:
            written = Mapping({**beside, last: assignment.value})
            hint = next((each.hint for each in unknown_keys(tuple(above), written, Collector(None))), "")
        return hint if hint.startswith("did") else ""


def level_of(dimension: Dimension, chosen: Chosen) -> Level:
    """A path as a factor, and its value as the level."""
    return Level(dimension.path, dimension.option(chosen).label, (dimension.assignment(chosen),))


def _raise(problems: Iterable[Problem]) -> None:
    collector = Collector(None)
    collector.extend(dict.fromkeys(problems))
    collector.raise_if_any()
