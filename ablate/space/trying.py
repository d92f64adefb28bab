"""A few points of a space tried before any is trained: each value once, and those that fail again in other company.

What can be built beside some values and not beside others is no mistake: the search counts those points. A value that
is refused in whatever company is one, and so is a path that never changes anything, a misspelt parameter say, which
would else be dropped as one is that belongs to another block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from typing import Any

from ablate import yamlfile
from ablate.block import registry
from ablate.collect import Collector
from ablate.design import Level, Variant, variant_at
from ablate.errors import Problem, UserError, did_you_mean
from ablate.expression import names_in
from ablate.space.conditions import at
from ablate.space.grid import Chosen, Grid, Point
from ablate.spec import Assignment, Spec, selector, split_path, unknown_keys

MOST = 100
"""Points that are tried at first: a space with more values than that is tried in part."""
AGAIN = 20
"""Points at random in which a value that was refused, or a path that did nothing, is tried again."""
PARAMETERS = ("network", "params")


def check_points(grid: Grid, spec: Spec, fixed: Sequence[Level] = ()) -> None:
    """``UserError`` for values that no network and no recipe takes, and for paths that change nothing.

    ``fixed`` levels hold at all points. Equal grids are tried at equal points.
    """
    tried = _Tried(grid, spec, tuple(fixed))
    for point in islice(grid.covering(tried.random), MOST):
        tried.look(point)
    collector = Collector(None)
    collector.extend(dict.fromkeys([*tried.wrong_values(), *tried.idle_paths()]))
    collector.raise_if_any()


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
    blamed: set[int] = field(default_factory=set)
    """Paths with a value that is a mistake."""
    acting: set[int] = field(default_factory=set)
    example: dict[int, Variant] = field(default_factory=dict)
    """A variant in which a path was set."""

    def __post_init__(self) -> None:
        keys = {dimension.path: split_path(dimension.path) for dimension in self.grid.dimensions}
        self.parameters = {path: own for path, own in keys.items() if own[:2] == PARAMETERS and len(own) == 3}

    def look(self, point: Point) -> None:
        chosen = [(index, value) for index, value in enumerate(point) if value is not None]
        levels = [level_of(self.grid.dimensions[index].assignment(value)) for index, value in chosen]
        try:
            variant = variant_at(self.spec, "tried", [*self.fixed, *levels])
        except UserError as error:
            for value in chosen:
                self.refused.setdefault(value, tuple(error.problems))
            return
        self.built.update(chosen)
        idle = variant.inactive_factors() | self._unread(variant)
        for index, _ in chosen:
            self.example.setdefault(index, variant)
            if self.grid.dimensions[index].path not in idle:
                self.acting.add(index)

    def _unread(self, variant: Variant) -> set[str]:
        """The paths of ``network.params`` of which the network has no expression."""
        names = {path: own[2] for path, own in self.parameters.items()}
        read = _names_read(variant.tree) if names else set()
        return {path for path, name in names.items() if name not in read}

    def wrong_values(self) -> list[Problem]:
        """What is wrong with values that can stand in no company; where nothing can be built, why."""
        found = {value: self._mistakes(value) for value in list(self.refused)}
        self.blamed |= {index for (index, _), mistakes in found.items() if mistakes}
        if not self.built and not self.blamed:
            found = {value: list(problems) for value, problems in self.refused.items()}
        return [problem for problems in found.values() for problem in problems]

    def _mistakes(self, value: tuple[int, Chosen]) -> list[Problem]:
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

    def idle_paths(self) -> list[Problem]:
        """The paths that change nothing, but for those that may only lack what a wrong value would have put there."""
        for index in sorted(self.example.keys() - self.acting):
            for _ in range(AGAIN):
                dimension = self.grid.dimensions[index]
                point = self.grid.having(index, dimension.drawn(self.random), self.random)
                if point is not None and index not in self.acting:
                    self.look(point)
        idle = sorted(self.example.keys() - self.acting)
        return [self._idle(index) for index in idle if not any(self._decides(other, index) for other in self.blamed)]

    def _idle(self, index: int) -> Problem:
        dimension = self.grid.dimensions[index]
        message = "has no effect at any point: what it changes is not there, or does not take it"
        if dimension.path in self.parameters:
            message = f"has no effect at any point: no expression reads ${self.parameters[dimension.path][2]}"
        return Problem(message, dimension.path, dimension.place, self._meant(index))

    def _decides(self, index: int, other: int) -> bool:
        """Whether it depends on the value of one path what another can change: its block, its name, what is above."""
        path, below = (split_path(self.grid.dimensions[each].path) for each in (index, other))
        choosing = path[:-1] if selector(path[:-1]) == path[-1] else path
        return index != other and below[: len(choosing)] == choosing

    def _meant(self, index: int) -> str:
        """The parameter that was perhaps meant, of what stands beside the path."""
        dimension = self.grid.dimensions[index]
        assignment = dimension.assignment(dimension.ends[0])
        *above, last = assignment.path
        if dimension.path in self.parameters:
            hint = did_you_mean(last, _names_read(self.example[index].tree))
            return hint if hint.startswith("did") else ""
        beside = at(self.example[index].tree, above)
        if not isinstance(beside, dict):
            return ""
        block = registry().get(str(beside.get("block")))
        if block is not None:
            hint = did_you_mean(last, block.Params.model_fields)
        else:
            written = yamlfile.Mapping({**beside, last: assignment.value})
            hint = next((each.hint for each in unknown_keys(tuple(above), written, Collector(None))), "")
        return hint if hint.startswith("did") else ""


def level_of(assignment: Assignment) -> Level:
    """A path and its value as a factor and its level, so that tables and certificates name them."""
    return Level(assignment.dotted, assignment.layer.removeprefix(f"{assignment.dotted}="), (assignment,))


def _names_read(tree: Mapping[str, Any]) -> set[str]:
    """The parameters that the network's expressions read; those of composites read their own."""
    section = tree.get("network")
    return names_in({key: value for key, value in section.items() if key != "blocks"} if section else {})
