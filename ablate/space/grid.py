"""The points of a space on a spec: which paths vary, under which conditions, how many points there are, and which.

A point is a value for each path that is active there, and is applied to the spec as the levels of a variant are: an
assignment each. A path is active where its ``when`` holds, and where no shorter path is set to null.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import exp, log, prod
from random import Random
from typing import Any

from ablate.design.levels import label_of
from ablate.errors import Place
from ablate.space.distributions import Option
from ablate.space.ranges import Numbers, Part, Span
from ablate.spec import Assignment, split_path

Chosen = int | float
"""An option's index; of a span the number itself."""
Point = tuple[Chosen | None, ...]
"""What is chosen for each dimension of a grid; ``None`` where that is not active."""


@dataclass(frozen=True)
class Condition:
    """Holds where ``path`` has one of these options; where it is not active itself, as ``if_inactive`` says."""

    path: str
    options: frozenset[int]
    if_inactive: bool

    def holds(self, other: Chosen | None) -> bool:
        return self.if_inactive if other is None else other in self.options


@dataclass(frozen=True)
class Dimension:
    """A path that varies."""

    path: str
    options: tuple[Option, ...]
    """None of a span."""
    place: Place
    conditions: tuple[Condition, ...] = ()
    span: Span | None = None
    numbers: Numbers | None = None
    parts: tuple[Part, ...] = ()
    new: bool = False
    """Whether the spec has nothing at the path, which null leaves so."""

    def option(self, chosen: Chosen) -> Option:
        if self.span is None:
            assert isinstance(chosen, int), chosen
            return self.options[chosen]
        value = float(chosen)
        return Option(label_of(value), value, self.place)

    def assignment(self, chosen: Chosen) -> Assignment:
        option = self.option(chosen)
        layer = f"{self.path}={option.label}"
        return Assignment(split_path(self.path), option.value, self.place, layer, option.place, if_there=self.new)

    @property
    def ends(self) -> list[Chosen]:
        """Every option; of a span both ends."""
        return list(range(len(self.options))) if self.span is None else sorted({self.span.low, self.span.high})

    def drawn(self, random: Random) -> Chosen:
        """One of the values at random; of a span evenly, or evenly in the logarithm."""
        if self.span is None:
            return random.randrange(len(self.options))
        low, high = self.span.low, self.span.high
        if self.span.log:
            return min(max(exp(random.uniform(log(low), log(high))), low), high)
        return random.uniform(low, high)


@dataclass(frozen=True)
class Grid:
    """All points of a space on a spec."""

    dimensions: tuple[Dimension, ...]
    """Each after those that its conditions are about, otherwise as written."""
    left_out: tuple[str, ...] = ()
    """Paths that no cost depends on: as the spec has them."""
    position: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def count(self) -> int | None:
        """How many points there are; ``None`` where a range without steps varies."""
        if any(dimension.span is not None for dimension in self.dimensions):
            return None
        return prod(weight for weight, _ in self._tallies)

    def __iter__(self) -> Iterator[Point]:
        """The points in order, the last dimension fastest. Only of those that can be counted."""
        assert all(dimension.span is None for dimension in self.dimensions)
        return self._points(())

    def settled(self, choose: Callable[[Dimension], Chosen]) -> Point:
        """The point of what is chosen for each dimension that is active, in their order."""
        point: list[Chosen | None] = []
        for dimension in self.dimensions:
            point.append(choose(dimension) if self._is_active(dimension, point) else None)
        return tuple(point)

    def assignments(self, point: Point) -> list[Assignment]:
        return [dimension.assignment(chosen) for dimension, chosen in self._chosen(point)]

    def labels(self, point: Point) -> dict[str, str]:
        """Path → the label of what is chosen, of what is active."""
        return {dimension.path: dimension.option(chosen).label for dimension, chosen in self._chosen(point)}

    def values(self, point: Point) -> dict[str, Any]:
        """Path → what is chosen, of what is active."""
        return {dimension.path: dimension.option(chosen).value for dimension, chosen in self._chosen(point)}

    def never_active(self) -> list[Dimension]:
        """Those whose conditions exclude each other."""
        seen = {index for _, active in self._tallies for index in active}
        return [dimension for index, dimension in enumerate(self.dimensions) if index not in seen]

    def covering(self, random: Random) -> Iterator[Point]:
        """A few points that between them have every option of every dimension, of a span both ends.

        What is left open is drawn. An option that no point has is left out.
        """
        untried = [dimension.ends for dimension in self.dimensions]
        for index, dimension in enumerate(self.dimensions):
            while untried[index]:
                fixed = self._leading_to(index, untried, random)
                if fixed is None:
                    break
                fixed[dimension.path] = untried[index][0]
                point = self.settled(lambda each, fixed=fixed: self._wanted(each, fixed, untried, random))  # type: ignore[misc]
                for choices, chosen in zip(untried, point, strict=True):
                    if chosen in choices:
                        choices.remove(chosen)
                yield point

    def having(self, index: int, chosen: Chosen, random: Random) -> Point | None:
        """A point at random in which that dimension has this value; ``None`` where it is never active."""
        nothing: list[list[Chosen]] = [[] for _ in self.dimensions]
        fixed = self._leading_to(index, nothing, random)
        if fixed is None:
            return None
        fixed[self.dimensions[index].path] = chosen
        return self.settled(lambda each: self._wanted(each, fixed, nothing, random))

    def _wanted(
        self, dimension: Dimension, fixed: Mapping[str, Chosen | None], untried: list[list[Chosen]], random: Random
    ) -> Chosen:
        chosen = fixed.get(dimension.path)
        if chosen is not None:
            return chosen
        first = untried[self.position[dimension.path]][:1]
        return first[0] if first else dimension.drawn(random)

    def _leading_to(self, index: int, untried: list[list[Chosen]], random: Random) -> dict[str, Chosen | None] | None:
        """What to choose for the dimensions on which it depends whether this one is active, so that it is."""
        above = sorted(self._above(index))
        point: list[Chosen | None] = [None] * len(self.dimensions)

        def settle(depth: int) -> bool:
            if depth == len(above):
                return self._is_active(self.dimensions[index], point)
            own = above[depth]
            dimension = self.dimensions[own]
            choices: list[Chosen | None] = [None]
            if self._is_active(dimension, point):
                choices = self._one_of_each_kind(dimension, [*above[depth:], index], untried[own], random)
            for chosen in choices:
                point[own] = chosen
                if settle(depth + 1):
                    return True
            point[own] = None
            return False

        return {self.dimensions[own].path: point[own] for own in above} if settle(0) else None

    def _one_of_each_kind(
        self, dimension: Dimension, later: Iterable[int], untried: list[Chosen], random: Random
    ) -> list[Chosen | None]:
        """Of the values that the conditions of later dimensions do not tell apart one each, an untried one if any."""
        about = [c for other in later for c in self.dimensions[other].conditions if c.path == dimension.path]
        kinds: dict[tuple[bool, ...], Chosen | None] = {}
        rest = dimension.ends
        random.shuffle(rest)
        for chosen in [*untried, *rest]:
            kinds.setdefault(tuple(condition.holds(chosen) for condition in about), chosen)
        return list(kinds.values())

    def _above(self, index: int) -> set[int]:
        """The dimensions on which it depends whether this one is active."""
        direct = {self.position[condition.path] for condition in self.dimensions[index].conditions}
        return direct.union(*(self._above(other) for other in direct))

    def _chosen(self, point: Point) -> Iterator[tuple[Dimension, Chosen]]:
        for dimension, chosen in zip(self.dimensions, point, strict=True):
            if chosen is not None:
                yield dimension, chosen

    def _is_active(self, dimension: Dimension, point: list[Chosen | None] | Point) -> bool:
        """Given what is chosen for the dimensions before it."""
        return all(condition.holds(point[self.position[condition.path]]) for condition in dimension.conditions)

    def _points(self, chosen: Point) -> Iterator[Point]:
        if len(chosen) == len(self.dimensions):
            yield chosen
            return
        dimension = self.dimensions[len(chosen)]
        active = self._is_active(dimension, chosen)
        for option in range(len(dimension.options)) if active else (None,):
            yield from self._points((*chosen, option))

    @cached_property
    def _tallies(self) -> list[tuple[int, set[int]]]:
        return [self._tally(group) for group in self._groups()]

    def _groups(self) -> list[list[int]]:
        """The dimensions that conditions tie together, each group in an order in which few of them wait at a time."""
        tied: dict[int, set[int]] = {}
        for index, dimension in enumerate(self.dimensions):
            group = {index}.union(*(tied[self.position[condition.path]] for condition in dimension.conditions))
            tied |= dict.fromkeys(group, group)
        groups = {min(group): group for group in tied.values()}
        return [self._in_turn(group) for group in groups.values()]

    def _in_turn(self, group: set[int]) -> list[int]:
        """Each after those that its conditions are about, as soon as the last of these is settled."""
        needs = {index: {self.position[c.path] for c in self.dimensions[index].conditions} for index in sorted(group)}
        turn: dict[int, int] = {}
        while len(turn) < len(group):
            ready = [index for index, others in needs.items() if index not in turn and others <= turn.keys()]
            turn[max(ready, key=lambda index: max((turn[other] for other in needs[index]), default=-1))] = len(turn)
        return list(turn)

    def _tally(self, group: list[int]) -> tuple[int, set[int]]:
        """How many points a group has, and which of its dimensions are active in any. (A span counts as its ends.)

        Walks the dimensions with the ways so far, which differ by the later dimensions that are out: ``out`` → ways.
        """
        ways: Counter[frozenset[int]] = Counter({frozenset(): 1})
        seen: set[int] = set()
        for turn, index in enumerate(group):
            dimension = self.dimensions[index]
            later = [
                other
                for other in group[turn + 1 :]
                if any(c.path == dimension.path for c in self.dimensions[other].conditions)
            ]
            kinds = Counter(self._put_out(dimension, chosen, later) for chosen in dimension.ends)
            idle = self._put_out(dimension, None, later)
            reached: Counter[frozenset[int]] = Counter()
            for out, count in ways.items():
                if index in out:
                    reached[(out - {index}) | idle] += count
                    continue
                seen.add(index)
                for also, weight in kinds.items():
                    reached[out | also] += count * weight
            ways = reached
        return ways.total(), seen

    def _put_out(self, dimension: Dimension, chosen: Chosen | None, later: Iterable[int]) -> frozenset[int]:
        """Those of the later dimensions of which this choice breaks a condition."""
        return frozenset(
            other
            for other in later
            if any(c.path == dimension.path and not c.holds(chosen) for c in self.dimensions[other].conditions)
        )
