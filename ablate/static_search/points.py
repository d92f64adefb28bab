"""Points of a grid → networks, counted. No module of full size is made: graphs, and the memoised costs of leaves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ablate.block import Shape, registry
from ablate.collect import Collector
from ablate.costing import cost_of
from ablate.data.dataset import shape_of
from ablate.design import root_is_trusted
from ablate.design.plan import check_output
from ablate.errors import Problem, UserError, did_you_mean
from ablate.network import Network, Permission, read_network
from ablate.space import Dimension, Grid, Point
from ablate.spec import Assignment, Spec, apply, read_data
from ablate.static_search.values import Totals


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


class Outcomes:
    """The points of a grid, each built once."""

    def __init__(self, grid: Grid, networks: Networks) -> None:
        self.grid = grid
        self.networks = networks
        self.known: dict[Point, Outcome] = {}

    def __getitem__(self, point: Point) -> Outcome:
        if point not in self.known:
            self.known[point] = self._built(point)
        return self.known[point]

    def _built(self, point: Point) -> Outcome:
        made = {index: self.grid.dimensions[index].assignment(o) for index, o in enumerate(point) if o is not None}
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

    def check_values(self) -> None:
        """A value with which nothing can be built is a mistake; one with which some can makes the others impossible.

        Each value is tried before all else, at the first points that have it, so that a mistake is said soon.
        """
        untried = {(i, o) for i, dimension in enumerate(self.grid.dimensions) for o in range(len(dimension.options))}
        refused: dict[tuple[int, int], tuple[Problem, ...]] = {}
        for point in self.grid:
            own = {(index, option) for index, option in enumerate(point) if option is not None} & untried
            outcome = self[point] if own else None
            if outcome is not None and outcome.totals is not None:
                untried -= own
            elif outcome is not None:
                refused |= {value: outcome.problems for value in own if value not in refused}
        mistakes = [problem for value in sorted(untried) for problem in refused.get(value, ())]
        if mistakes:
            collector = Collector(None)
            collector.extend(dict.fromkeys(mistakes))
            collector.raise_if_any()

    def check_paths(self) -> None:
        """A path acts at one point at least: a misspelt parameter would else be dropped, as an orphan is."""
        acting = {
            index
            for point, outcome in self.known.items()
            for index, option in enumerate(point)
            if outcome.totals is not None and option is not None and index not in outcome.idle
        }
        message = "has no effect at any point: what it changes is not there, or does not take it"
        idle = [dimension for index, dimension in enumerate(self.grid.dimensions) if index not in acting]
        if idle:
            raise UserError([Problem(message, each.path, each.place, self._meant(each)) for each in idle])

    def _meant(self, dimension: Dimension) -> str:
        """The parameter that was perhaps meant, of the block that stands beside the path at its first point."""
        index = self.grid.position[dimension.path]
        point = next(point for point in self.known if point[index] is not None)
        found: Any = apply(self.networks.spec, self.grid.assignments(point)).tree
        *above, last = dimension.assignment(0).path
        for part in above:
            found = found.get(part, {}) if isinstance(found, dict) else {}
        block = registry().get(str(found.get("block"))) if isinstance(found, dict) else None
        hint = did_you_mean(last, block.Params.model_fields) if block else ""
        return hint if hint.startswith("did") else ""

    def alike(self) -> list[str]:
        """The paths of which no two values make two networks where nothing else differs, and some do make one."""
        return [dimension.path for index, dimension in enumerate(self.grid.dimensions) if self._is_alike(index)]

    def _is_alike(self, index: int) -> bool:
        prints: dict[Point, set[str]] = {}
        compared = False
        for point, outcome in self.known.items():
            if outcome.totals is not None and point[index] is not None:
                rest = (*point[:index], *point[index + 1 :])
                compared |= rest in prints
                prints.setdefault(rest, set()).add(outcome.fingerprint)
        return compared and all(len(each) == 1 for each in prints.values())
