"""A space held against a spec: which of its paths vary there, and under which conditions.

``UserError`` says everything that is wrong, with the place in the space's file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import cache

from ablate.collect import Collector
from ablate.design.conflicts import leaves
from ablate.design.own_keys import own_key_problems
from ablate.errors import Place, Problem, did_you_mean
from ablate.space.conditions import Conditions, above, at
from ablate.space.distributions import Choice, Distribution, Option, Text
from ablate.space.each import Varied, varied_paths, written_network
from ablate.space.grammar import Space
from ablate.space.grid import Chosen, Dimension, Grid
from ablate.space.ranges import distinct, numbers_of, parts_of, span_of
from ablate.spec import Spec, apply, is_open, split_path
from ablate.spec.assignments import EDITS
from ablate.yamlfile import place_of

COSTLESS = ("train.", "network.init.")
"""No cost depends on what is below: how parameters start, and how they are trained."""
MOST_OPTIONS = 100_000
"""Of one path. Whoever enumerates more than that wants a sampler."""


def grid_on(space: Space, spec: Spec, *, trained: bool = False, spans: bool | None = None) -> Grid:
    """The points of a space on a spec. ``UserError`` with everything that is wrong.

    Where they are ``trained``, paths that no cost depends on vary too. ``spans``: whether ranges without steps may
    vary, so that points can be drawn and not listed; where nothing is said, if they are trained.
    """
    reader = _Reader(space, spec, trained, trained if spans is None else spans)
    grid = reader.grid()
    reader.collector.raise_if_any()
    return grid


class _Reader:
    """Holds a space against a spec."""

    def __init__(self, space: Space, spec: Spec, trained: bool, spans: bool) -> None:
        self.space = space
        self.spec = spec
        self.spans = spans
        self.collector = Collector(space.tree)
        self.written = apply(spec).tree
        self.all = varied_paths(space, cache(lambda: written_network(spec)), self.collector)
        self.complete = not self.collector.problems
        self.varied = self.all if trained else {path: self.all[path] for path in self._costly()}

    def grid(self) -> Grid:
        plain = {path: self._dimension(each) for path, each in self.varied.items()}
        made = [dimension.assignment(chosen) for dimension in plain.values() for chosen in _telling(dimension)]
        self._check_conflicts(plain.values())
        if not self.complete:  # what leads through the paths that are missing, and conditions on them, is not to blame
            return Grid(())
        self._check_there(plain.values())
        self.collector.extend(own_key_problems(self.spec, made))
        conditions = Conditions(self.varied, plain, self.written, self.collector)
        dimensions = self._in_order({path: replace(d, conditions=conditions.of(path)) for path, d in plain.items()})
        left_out = tuple(path for path in self.all if path not in self.varied)
        grid = Grid(tuple(dimensions), left_out, {d.path: index for index, d in enumerate(dimensions)})
        if not self.collector.problems:
            for dimension in grid.never_active():
                self._add(dimension.path, "when", message="its conditions hold together nowhere: it never varies")
        return grid

    def _costly(self) -> list[str]:
        """The paths that a cost may depend on, and those that their conditions are about."""
        found = [path for path in self.all if not path.startswith(COSTLESS)]
        for path in found:  # it grows
            named = [other for wanted in self.all[path].keys for other in above(wanted, self.all)]
            found += [other for other in dict.fromkeys(named) if other not in found]
        return [path for path in self.all if path in found]

    def _dimension(self, varied: Varied) -> Dimension:
        place = place_of(self.space.tree, ("space", varied.written)) or Place(self.space.file, 1, 1)
        distribution = varied.distribution
        span = span_of(distribution) if self.spans else None
        options = () if span is not None else self._options(varied)
        numbers = numbers_of(distribution) if options else None
        parts = parts_of(distribution) if options else ()
        found = Dimension(varied.path, options, place, span=span, numbers=numbers, parts=parts)
        keys = [found.assignment(chosen).path for chosen in found.ends[:1]]
        return replace(found, new=any(at(self.written, path) is None for path in keys))

    def _options(self, varied: Varied) -> tuple[Option, ...]:
        distribution, path = varied.distribution, varied.path
        if distribution.count is None:
            self._add(path, message="a range without steps has no end of values", hint="add step, or write choice")
        elif distribution.count > MOST_OPTIONS:
            self._add(path, message=f"{distribution.count:,} values; at most {MOST_OPTIONS:,} can be enumerated")
        else:
            items = distinct(distribution.options())
            self._check_repeats(varied, items)
            where = [("space", varied.written, *_written(distribution, index)) for index in range(len(items))]
            return tuple(
                Option(item.label, item.value, place_of(self.space.tree, at, key=False))
                for item, at in zip(items, where, strict=True)
            )
        return ()

    def _check_repeats(self, varied: Varied, items: list[Option]) -> None:
        """Two values that were not the same as written may be so for a name. (Of a text they are one network twice.)"""
        label, count = max(Counter(item.label for item in items).items(), key=lambda each: each[1])
        if count > 1 and not isinstance(varied.distribution, Text):
            self._add(varied.path, message=f"{label} is given twice for '{varied.path}'")

    def _check_conflicts(self, dimensions: Iterable[Dimension]) -> None:
        """Of two that set one path one would act nowhere; so would one that ``--set`` sets over."""
        stated: dict[tuple[str, ...], str] = {}
        varied: set[tuple[str, ...]] = set()
        for dimension in dimensions:
            for own, leaf in _leaves(dimension):
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

    def _check_there(self, dimensions: Iterable[Dimension]) -> None:
        """What a path leads through stands in the spec, or another path of the space puts it there."""
        put = {
            leaf[:depth]
            for each in dimensions
            for own, leaf in _leaves(each)
            for depth in range(len(own), len(leaf) + 1)
        }
        for dimension in dimensions:
            for path in [dimension.assignment(chosen).path for chosen in dimension.ends[:1]]:
                gone = next((path[:n] for n in range(1, len(path)) if self._is_missing(path[:n], put)), None)
                if gone is not None:
                    beside = at(self.written, gone[:-1])
                    known = [*(beside or ()), *(other[-1] for other in put if other[:-1] == gone[:-1])]
                    message = f"there is no '{gone[-1]}' to change"
                    self._add(dimension.path, message=message, hint=did_you_mean(gone[-1], known))

    def _is_missing(self, path: tuple[str, ...], put: set[tuple[str, ...]]) -> bool:
        """Whether nothing is at the path of an entry, a node or an insertion, say, and nothing is put there."""
        return is_open(path) and path[:2] not in EDITS and path not in put and at(self.written, path) is None

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
        self.collector.add(("space", self.all[path].written, *rest), message, hint, key=key)


def _telling(dimension: Dimension) -> list[Chosen]:
    """The values that say which paths it sets: of numbers one says it for all."""
    return dimension.ends[:1] if dimension.span or dimension.numbers else dimension.ends


def _leaves(dimension: Dimension) -> set[tuple[tuple[str, ...], tuple[str, ...]]]:
    """What its values set: (the path that is assigned, a path that this states)."""
    made = [dimension.assignment(chosen) for chosen in _telling(dimension)]
    return {(each.path, leaf) for each in made if each.value is not None for leaf in leaves(each.path, each.value)} | {
        (each.path, each.path) for each in made
    }


def _written(distribution: Distribution, index: int) -> tuple[str | int, ...]:
    """Where in a distribution the value of that number stands."""
    if isinstance(distribution, Choice):
        return ("choice", index)
    return ("text",) if isinstance(distribution, Text) else ()
