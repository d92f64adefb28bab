"""Points of a grid → networks, counted. No module of full size is made: graphs, and the memoised costs of leaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from ablate.block import Shape
from ablate.collect import Collector
from ablate.costing import cost_of
from ablate.data.dataset import shape_of
from ablate.design import root_is_trusted
from ablate.design.plan import check_output
from ablate.errors import Problem, UserError
from ablate.network import Network, Permission, read_network
from ablate.space import Chosen, Grid, Point
from ablate.spec import Assignment, Spec, apply, read_data
from ablate.static_search.processes import Pool
from ablate.static_search.values import Totals

CHUNK = 64
"""Points that a process is given at a time: a fifth of a second's work, beside which their transport takes none."""


@dataclass(frozen=True)
class Outcome:
    """What a point came to: a network's cost, or why there is none."""

    totals: Totals | None
    fingerprint: str = ""
    problems: tuple[Problem, ...] = ()
    idle: frozenset[int] = frozenset()
    """Dimensions whose value acts nowhere here: what it is to change is not there, or does not take it."""


class Networks:
    """The networks of one spec's trees. What the data are is looked up once for each data section."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._shapes: dict[str, tuple[Shape, int]] = {}

    def read(self, tree: Any, removed: frozenset[str], collector: Collector) -> Network | None:
        """The network, or ``None`` with what is wrong in ``collector``."""
        shape, classes = self._shape(tree, collector)
        section = tree.get("network")
        if section is None:
            collector.add(("network",), "missing: which network?", "extends: a model, or give network.graph")
        if section is None or not shape:
            return None
        permission = Permission(self.spec.folder, self.spec.trusted)
        network = read_network(section, shape, classes, collector, removed, permission)
        if network is not None:
            check_output(network, classes, collector)
        return None if collector.problems else network

    def _shape(self, tree: Any, collector: Collector) -> tuple[Shape, int]:
        """Of an image, and how many classes there are; an empty shape where the data section is wrong."""
        key = json.dumps(tree.get("data"), sort_keys=True)
        if key not in self._shapes:
            data = read_data(tree, collector)
            if data is None:
                return (), 0
            try:
                trusted = root_is_trusted(self.spec)
                self._shapes[key] = shape_of(data, base=self.spec.folder, trusted_root=trusted)
            except UserError as error:
                collector.extend(error.problems)
                return (), 0
        return self._shapes[key]


class Builder:
    """Builds points of a grid, and remembers none. It is made of data alone, so that each process has its own."""

    def __init__(self, grid: Grid, spec: Spec) -> None:
        self.grid = grid
        self.networks = Networks(spec)
        self._assignments: dict[tuple[int, Chosen], Assignment] = {}

    def __call__(self, points: Iterable[Point]) -> list[Outcome]:
        return [self.built(point) for point in points]

    def built(self, point: Point) -> Outcome:
        made = {index: self._assignment(index, chosen) for index, chosen in enumerate(point) if chosen is not None}
        try:
            applied = apply(self.networks.spec, made.values())
        except UserError as error:
            return Outcome(None, problems=tuple(error.problems))
        collector = Collector(applied.tree)
        network = self.networks.read(applied.tree, applied.removed_nodes, collector)
        if network is None:
            return Outcome(None, problems=tuple(collector.problems))
        orphans = {(orphan.path, orphan.layer) for orphan in collector.orphans}

        def acts(assignment: Assignment) -> bool:
            return assignment not in applied.inactive and (assignment.dotted, assignment.layer) not in orphans

        idle = frozenset(index for index, assignment in made.items() if not acts(assignment))
        return Outcome(Totals.of(cost_of(network.graph)), network.graph.fingerprint, idle=idle)

    def _assignment(self, index: int, chosen: Chosen) -> Assignment:
        dimension = self.grid.dimensions[index]
        if dimension.span is not None:  # of a range without steps no number comes twice
            return dimension.assignment(chosen)
        if (index, chosen) not in self._assignments:
            self._assignments[index, chosen] = dimension.assignment(chosen)
        return self._assignments[index, chosen]


class Outcomes:
    """The points of a grid, each built once."""

    def __init__(self, grid: Grid, spec: Spec) -> None:
        self.grid = grid
        self.spec = spec
        self.known: dict[Point, Outcome] = {}
        self._builder = Builder(grid, spec)

    def __getitem__(self, point: Point) -> Outcome:
        if point not in self.known:
            self.known[point] = self._builder.built(point)
        return self.known[point]

    def build(self, points: Iterable[Point], jobs: int, told: Callable[[], None]) -> None:
        """Build all of ``points``, by so many processes; ``told`` is called after each."""
        if jobs < 2:
            for point in points:
                _ = self[point]
                told()
            return
        with Pool(jobs, Builder, (self.grid, self.spec)) as pool:
            for chunk, outcomes in pool.each(self._chunks(points, told)):
                for point, outcome in zip(chunk, outcomes, strict=True):
                    self.known[point] = outcome
                    told()

    def _chunks(self, points: Iterable[Point], told: Callable[[], None]) -> Iterator[list[Point]]:
        waiting = iter(points)
        while chunk := list(islice(waiting, CHUNK)):
            new = [point for point in chunk if point not in self.known]
            for _ in range(len(chunk) - len(new)):
                told()
            if new:
                yield new
