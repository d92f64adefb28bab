"""The points that a space spans on a spec: which paths vary there, under which conditions, and how many points it has.

A point is a value for each path that is active there, and is applied to the spec as the levels of a variant are: an
assignment each. A path is active where its ``when`` holds, and where no shorter path is set to null.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ablate.collect import Collector
from ablate.design.conflicts import leaves
from ablate.design.own_keys import own_key_problems
from ablate.diagnose import shown
from ablate.errors import Place, Problem, did_you_mean
from ablate.space.distributions import Choice, Distribution, Option, Text
from ablate.space.grammar import Space
from ablate.spec import Assignment, Spec, apply, split_path
from ablate.yamlfile import place_of

COSTLESS = ("train.", "network.init.")
"""No cost depends on what is below: how parameters start, and how they are trained."""
MOST_OPTIONS = 100_000
"""Of one path. Whoever enumerates more than that wants a sampler."""


@dataclass(frozen=True)
class Condition:
    """Holds where ``path`` has one of these options; where it is not active itself, as ``if_inactive`` says."""

    path: str
    options: frozenset[int]
    if_inactive: bool


@dataclass(frozen=True)
class Dimension:
    """A path that varies."""

    path: str
    options: tuple[Option, ...]
    place: Place
    conditions: tuple[Condition, ...] = ()

    def assignment(self, option: int) -> Assignment:
        chosen = self.options[option]
        layer = f"{self.path}={chosen.label}"
        return Assignment(split_path(self.path), chosen.value, self.place, layer, chosen.place)


Point = tuple[int | None, ...]
"""An option's index for each dimension of a grid; ``None`` where that is not active."""


@dataclass(frozen=True)
class Grid:
    """All points of a space on a spec."""

    dimensions: tuple[Dimension, ...]
    """Each after those that its conditions are about, otherwise as written."""
    left_out: tuple[str, ...] = ()
    """Paths that no cost depends on: as the spec has them."""
    position: Mapping[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        return sum(weight for weight, _ in self._groups(()))

    def __iter__(self) -> Iterator[Point]:
        return self._points(())

    def assignments(self, point: Point) -> list[Assignment]:
        return [
            dimension.assignment(option)
            for dimension, option in zip(self.dimensions, point, strict=True)
            if option is not None
        ]

    def never_active(self) -> list[Dimension]:
        """Those whose conditions exclude each other."""
        seen = {index for _, group in self._groups(()) for index, option in enumerate(group) if option is not None}
        return [dimension for index, dimension in enumerate(self.dimensions) if index not in seen]

    def _points(self, chosen: Point) -> Iterator[Point]:
        if len(chosen) == len(self.dimensions):
            yield chosen
            return
        for option in self._open(chosen):
            yield from self._points((*chosen, option))

    def _open(self, chosen: Point) -> Iterable[int | None]:
        """The options of the next dimension."""
        dimension = self.dimensions[len(chosen)]
        for condition in dimension.conditions:
            other = chosen[self.position[condition.path]]
            if not (condition.if_inactive if other is None else other in condition.options):
                return (None,)
        return range(len(dimension.options))

    def _groups(self, chosen: Point) -> Iterator[tuple[int, Point]]:
        """Points that no condition tells apart, as one of them and how many there are."""
        if len(chosen) == len(self.dimensions):
            yield 1, chosen
            return
        own = self.dimensions[len(chosen)].path
        about = [c for dimension in self.dimensions for c in dimension.conditions if c.path == own]
        alike: dict[tuple[bool, ...], list[int | None]] = {}
        for option in self._open(chosen):
            alike.setdefault(tuple(option in condition.options for condition in about), []).append(option)
        for options in alike.values():
            for weight, group in self._groups((*chosen, options[0])):
                yield weight * len(options), group


def grid_on(space: Space, spec: Spec) -> Grid:
    """The points of a space on a spec, all of which can be listed. ``UserError`` with everything that is wrong."""
    reader = _Reader(space, spec)
    grid = reader.grid()
    reader.collector.raise_if_any()
    return grid


class _Reader:
    """Holds a space against a spec."""

    def __init__(self, space: Space, spec: Spec) -> None:
        self.space = space
        self.spec = spec
        self.collector = Collector(space.tree)
        self.written = apply(spec).tree
        self.costly = self._costly()

    def grid(self) -> Grid:
        options = {path: self._options(path, self.space.distributions[path]) for path in self.costly}
        places = {path: place_of(self.space.tree, ("space", path)) or Place(self.space.file, 1, 1) for path in options}
        plain = [Dimension(path, found, places[path]) for path, found in options.items()]
        self._check_conflicts(plain)
        made = [dimension.assignment(i) for dimension in plain for i in range(len(dimension.options))]
        self.collector.extend(own_key_problems(self.spec, made))
        dimensions = self._in_order({d.path: self._conditional(d, options) for d in plain})
        left_out = tuple(path for path in self.space.distributions if path not in self.costly)
        grid = Grid(tuple(dimensions), left_out, {d.path: index for index, d in enumerate(dimensions)})
        for dimension in grid.never_active() if not self.collector.problems else ():
            self._add(dimension.path, "when", message="its conditions hold together nowhere: it never varies")
        return grid

    def _costly(self) -> list[str]:
        """The paths that a cost may depend on, and those that their conditions are about."""
        distributions = self.space.distributions
        found = [path for path in distributions if not path.startswith(COSTLESS)]
        for path in found:  # it grows
            named = [other for wanted in distributions[path].when or () for other in _above(wanted, distributions)]
            found += [other for other in dict.fromkeys(named) if other not in found]
        return [path for path in distributions if path in found]

    def _options(self, path: str, distribution: Distribution) -> tuple[Option, ...]:
        if distribution.count is None:
            self._add(path, message="a range without steps has no end of values", hint="add step, or write choice")
        elif distribution.count > MOST_OPTIONS:
            self._add(path, message=f"{distribution.count:,} values; at most {MOST_OPTIONS:,} can be enumerated")
        else:
            items = list(distribution.options())
            where = [("space", path, *_written(distribution, index)) for index in range(len(items))]
            return tuple(
                Option(item.label, item.value, place_of(self.space.tree, at, key=False))
                for item, at in zip(items, where, strict=True)
            )
        return ()

    def _check_conflicts(self, dimensions: list[Dimension]) -> None:
        """Of two that set one path one would act nowhere; so would one that ``--set`` sets over."""
        stated: dict[tuple[str, ...], str] = {}
        varied: set[tuple[str, ...]] = set()
        for dimension in dimensions:
            made = [dimension.assignment(index) for index in range(len(dimension.options))]
            for own, leaf in {(a.path, leaf) for a in made for leaf in leaves(a.path, a.value)}:
                varied |= {leaf[:depth] for depth in range(1, len(leaf) + 1)}
                for depth in range(len(own) + 1, len(leaf) + 1):
                    stated.setdefault(leaf[:depth], dimension.path)
        for dimension in dimensions:
            owner = stated.get(split_path(dimension.path), dimension.path)
            if owner != dimension.path:
                self._add(dimension.path, message=f"a value of '{owner}' sets this path too", hint="leave it out there")
        for assignment in self.spec.sets:
            if assignment.path in varied:
                message = f"--set {assignment.dotted}: the space varies it, or a path below it"
                self.collector.extend([Problem(message, hint="change the space")])

    def _conditional(self, dimension: Dimension, options: Mapping[str, tuple[Option, ...]]) -> Dimension:
        conditions = [
            _present(path, found)
            for path, found in options.items()
            if dimension.path.startswith(f"{path}.") and any(option.value is None for option in found)
        ]
        for path, wanted in (self.space.distributions[dimension.path].when or {}).items():
            values = wanted if isinstance(wanted, list) else [wanted]
            above = _above(path, options)
            if path in options:
                conditions += self._on_path(dimension.path, path, values, options[path])
            elif above:
                conditions += self._below(dimension.path, path, values, above[-1], options)
                conditions += [_present(other, options[other]) for other in above[:-1]]
            else:
                self._check_written(dimension.path, path, values)
        return Dimension(dimension.path, dimension.options, dimension.place, tuple(conditions))

    def _on_path(self, of: str, path: str, values: list[Any], options: tuple[Option, ...]) -> list[Condition]:
        """A condition on what another path of the space is set to: each of its values must be possible there."""
        by_value = {_meaning(option.value): index for index, option in enumerate(options)}
        missing = [value for value in values if _meaning(value) not in by_value]
        if options and missing:
            message = f"{shown(missing[0])} is no value of '{path}' in this space"
            self._add(of, "when", path, message=message, hint=_nearest(missing[0], options), key=False)
            return []
        return [Condition(path, frozenset(by_value[_meaning(value)] for value in values if options), False)]

    def _below(
        self, of: str, path: str, values: list[Any], above: str, options: Mapping[str, tuple[Option, ...]]
    ) -> list[Condition]:
        """A condition on a part of what another path is set to as a whole, which leaves nothing of the spec's there."""
        inner = split_path(path)[len(split_path(above)) :]
        there = [_at(option.value, inner) for option in options[above]]
        written = _at(self.written, split_path(path))
        known = {_meaning(value) for value in (*there, written) if value is not None}
        missing = [value for value in values if _meaning(value) not in known]
        if options[above] and missing:
            message = f"{shown(missing[0])} is what no value of '{above}' in this space has there"
            self._add(of, "when", path, message=message, key=False)
            return []
        wanted = {_meaning(value) for value in values}
        holds = frozenset(index for index, value in enumerate(there) if value is not None and _meaning(value) in wanted)
        return [Condition(above, holds, written is not None and _meaning(written) in wanted)]

    def _check_written(self, of: str, path: str, values: list[Any]) -> None:
        """A condition on what the spec says: it holds everywhere, or nowhere, which makes it a mistake."""
        found: Any = self.written
        parts = split_path(path)
        for depth, part in enumerate(parts):
            if not isinstance(found, dict) or part not in found:
                beside = [split_path(other) for other in self.costly if split_path(other)[:depth] == parts[:depth]]
                known = [*(found if isinstance(found, dict) else ()), *(other[depth] for other in beside)]
                hint = did_you_mean(part, known)
                hint = hint if hint.startswith("did") else "state it in the spec, or let it vary"
                self._add(of, "when", path, message="neither varies nor stands in the spec", hint=hint)
                return
            found = found[part]
        if _meaning(found) not in map(_meaning, values):
            self._add(of, "when", path, message=f"never holds: the spec says {shown(found)}", key=False)

    def _in_order(self, waiting: dict[str, Dimension]) -> list[Dimension]:
        ordered: dict[str, Dimension] = {}
        while waiting:
            ready = next(
                (d for d in waiting.values() if not any(c.path in waiting for c in d.conditions)),
                None,
            )
            if ready is None:
                first = next(iter(waiting.values()))
                self._add(first.path, "when", message=f"conditions in a circle: {', '.join(waiting)}")
                return []
            ordered[ready.path] = waiting.pop(ready.path)
        return list(ordered.values())

    def _add(self, path: str, *rest: str, message: str, hint: str = "", key: bool = True) -> None:
        self.collector.add(("space", path, *rest), message, hint, key=key)


def _above(path: str, paths: Iterable[str]) -> list[str]:
    """Those of ``paths`` that ``path`` is, or is below: the shortest first."""
    return sorted((other for other in paths if f"{path}.".startswith(f"{other}.")), key=len)


def _at(value: Any, parts: Iterable[str]) -> Any:
    """What stands at a path within a value; ``None`` where nothing does."""
    for part in parts:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _present(path: str, options: tuple[Option, ...]) -> Condition:
    """Holds unless null removes what is at the path."""
    return Condition(path, frozenset(i for i, option in enumerate(options) if option.value is not None), True)


def _written(distribution: Distribution, index: int) -> tuple[str | int, ...]:
    """Where in a distribution the value of that number stands."""
    if isinstance(distribution, Choice):
        return ("choice", index)
    return ("text",) if isinstance(distribution, Text) else ()


def _meaning(value: Any) -> str:
    """Equal for equal values: ``8`` is not ``'8'``."""
    return json.dumps(value, sort_keys=True)


def _nearest(value: Any, options: tuple[Option, ...]) -> str:
    return did_you_mean(value if isinstance(value, str) else json.dumps(value), Counter(o.label for o in options))
