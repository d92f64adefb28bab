"""Insertions: blocks grafted into a graph, as a rewrite that gives a new graph.

``after PATTERN`` acts on the output of a node or scope, for all that read it (outside the scope);
``before PATTERN`` on what a node or scope reads, for that consumer alone; ``replace PATTERN`` stands in the place of a
node or scope, reads what that read, and takes over its width and stride. Patterns see the graph as it was
written, never what other insertions added. At one edge every insertion acts: all ``after`` first, then all
``before``, each in the order written unless ``rank`` says otherwise; the one that serves more consumers
comes first, since the value passes it first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from ablate.block import TAKEN_OVER, BlockParams, BlockType, Value, find
from ablate.errors import listed
from ablate.graph import (
    INPUT,
    OUTPUT,
    Edit,
    Graph,
    GraphBuilder,
    GraphError,
    Node,
    Reported,
    unedited,
)
from ablate.pattern import Pattern
from ablate.shapes import over_a_map, stride_of, width_of

Edge = tuple[str, int]
"""A consumer's name and the index of its port."""

Side = Literal["after", "before", "replace"]
SIDES = ("after", "before", "replace")


@dataclass(frozen=True)
class At:
    """``after stage*`` or ``before stage*.*.add:branch``, parsed. ``ValueError`` says what is wrong."""

    side: Side
    pattern: Pattern
    port: str = ""

    @classmethod
    @lru_cache(maxsize=4096)
    def parse(cls, text: str) -> At:
        words = text.split()
        if len(words) != 2 or words[0] not in SIDES:
            raise ValueError(f"'{text}' is no place; write 'after PATTERN', 'before PATTERN' or 'replace PATTERN'")
        pattern, _, port = words[1].partition(":")
        side: Side = words[0]  # type: ignore[assignment]
        if port and side == "after":
            raise ValueError(f"'{text}': a port belongs to 'before'; a node has one output")
        if port and side == "replace":
            raise ValueError(f"'{text}': a port belongs to 'before'; what is replaced is a whole node or scope")
        if ":" in words[1] and not port:
            raise ValueError(f"'{text}': a port's name is missing after the colon")
        return cls(side, Pattern(pattern), port)

    def __str__(self) -> str:
        return f"{self.side} {self.pattern.text}" + (f":{self.port}" if self.port else "")


@dataclass(frozen=True)
class Residual:
    """How an insertion F joins: ``none`` F(x); ``plain`` F(x) + x; ``weighted`` w·F(x) + x."""

    kind: Literal["none", "plain", "weighted"] = "none"
    init: float = 0.0
    per: Literal["scalar", "channel"] = "scalar"


@dataclass(frozen=True)
class Site:
    """One place of an insertion: what its parameters may depend on."""

    channels: int
    """That arrive there."""
    index: int
    """Among the places of the insertion, in graph order."""
    count: int
    taken_over: Mapping[str, Any]
    """Width and stride of what is replaced."""


@dataclass(frozen=True)
class Insertion:
    """``params`` are parameters, or a function of the site that may raise ``InsertionError``."""

    name: str
    block: BlockType
    params: BlockParams | Callable[[Site], BlockParams]
    at: tuple[At, ...]
    residual: Residual = Residual()
    rank: int = 0

    def params_at(self, site: Site) -> BlockParams:
        return self.params if isinstance(self.params, BlockParams) else self.params(site)


@dataclass(frozen=True)
class _Graft:
    """One insertion at one value: the node to add and the edges that read it from then on."""

    insertion: Insertion
    name: str
    side: Side
    source: Value
    edges: frozenset[Edge]
    order: int
    place: str
    index: int = 0
    count: int = 1

    @property
    def key(self) -> tuple[bool, int, int, int]:
        return (self.side == "before", -len(self.edges), self.insertion.rank, self.order)


class InsertionError(ValueError):
    """An insertion that can't be made; ``insertion`` and ``at`` (an index, or None) say which.

    ``by_place``: it is the place that is wrong, and not what would stand there.
    """

    def __init__(self, message: str, insertion: str, at: int | None = None, *, by_place: bool = True) -> None:
        super().__init__(message)
        self.insertion = insertion
        self.at = at
        self.by_place = by_place


def insert(graph: Graph, insertions: Sequence[Insertion], edit: Edit = unedited) -> Graph:
    """A new graph with every insertion grafted in. ``InsertionError`` or ``GraphError`` where one can't be.

    ``edit`` has a say in the parameters of what is inserted (``network.defaults``).
    """
    by_source: dict[Value, list[_Graft]] = {}
    replaced: list[_Graft] = []
    for order, insertion in enumerate(insertions):
        for graft in _grafts(graph, insertion, order):
            if graft.side == "replace":
                replaced.append(graft)
            else:
                by_source.setdefault(graft.source, []).append(graft)
    _refuse_overlaps(graph, replaced, [graft for grafts in by_source.values() for graft in grafts])
    return _Rewrite(graph, by_source, replaced, edit).result()


def selected(graph: Graph, at: At) -> tuple[str, ...]:
    """The places that ``at`` selects, in graph order. ``ValueError`` names the nearest where there is none."""
    names = graph.select(at.pattern)
    if not names:
        raise ValueError(f"pattern '{at.pattern.text}' matches nothing; {graph.why_nothing(at.pattern)}")
    if at.side == "before" and INPUT in names:
        raise ValueError("nothing comes before the input; write 'after input'")
    return names


def _grafts(graph: Graph, insertion: Insertion, order: int) -> list[_Graft]:
    # A list of places is their union: one that two entries select (``after stage1``, ``before stage2``) counts once.
    grafts: dict[tuple[Value, frozenset[Edge]], _Graft] = {}
    for index, at in enumerate(insertion.at):
        try:
            for place in selected(graph, at):
                for graft in _grafts_at(graph, insertion, order, at, place):
                    _refuse_unread(graph, graft, place)
                    grafts.setdefault((graft.source, graft.edges), graft)
        except ValueError as error:
            raise InsertionError(str(error), insertion.name, index) from None
    # Two edges at one place (a scope that reads two values) are one place: they share its index.
    places = sorted({graft.place for graft in grafts.values()}, key=graph.position.__getitem__)
    return [replace(graft, index=places.index(graft.place), count=len(places)) for graft in grafts.values()]


def _refuse_unread(graph: Graph, graft: _Graft, place: str) -> None:
    """An insertion that nothing reads would change nothing, and say so to nobody."""
    if not any(consumer == OUTPUT or consumer in graph.reachable for consumer, _ in graft.edges):
        raise ValueError(f"an insertion {graft.side} '{place}' has no effect: the output does not depend on it")


def _grafts_at(graph: Graph, insertion: Insertion, order: int, at: At, place: str) -> list[_Graft]:
    if at.side != "before":
        source = graph.places[place]
        edges = frozenset(
            (consumer, port)
            for consumer, port in graph.readers.get(source, [])
            if place == source or not _inside(consumer, place)
        )
        if at.side == "replace":
            _refuse_replacement(graph, place, source)
        return [_Graft(insertion, f"{place}_{insertion.name}", at.side, source, edges, order, place)]
    entering = _entering(graph, place, at.port)
    sources = list(dict.fromkeys(source for source, _, _ in entering))
    return [
        _Graft(
            insertion,
            _before_name(graph, place, at.port, source, sources, insertion.name),
            "before",
            source,
            frozenset((consumer, port) for value, consumer, port in entering if value == source),
            order,
            place,
        )
        for source in sources
    ]


def _entering(graph: Graph, place: str, port: str) -> list[tuple[Value, str, int]]:
    """The edges into a node or scope, or into one port of a node."""
    found = [
        (source, node.name, index)
        for node in graph.in_scope(place)
        for index, source in enumerate(node.inputs)
        if not _inside(source, place)
    ]
    if not port:
        return found
    node = graph.by_name.get(place)
    if node is None:
        raise ValueError(f"'{place}' is a scope and has no ports; name a node")
    if port not in node.ports:
        raise ValueError(f"'{place}' ({node.block.name}) has no port '{port}'; it has {listed(node.ports)}")
    return [edge for edge in found if edge[2] == node.ports.index(port)]


def _before_name(graph: Graph, place: str, port: str, source: Value, sources: list[Value], insertion: str) -> str:
    if not port and len(sources) > 1:
        node = graph.by_name.get(place)
        port = node.ports[node.inputs.index(source)] if node else source.replace(".", "_")
    return f"{place}_in_{port}_{insertion}" if port else f"{place}_in_{insertion}"


def _inside(name: str, scope: str) -> bool:
    return name == scope or name.startswith(f"{scope}.")


def _refuse_replacement(graph: Graph, place: str, output: Value) -> None:
    if place == INPUT:
        raise ValueError("the input can't be replaced; write 'after input'")
    own = {node.name for node in graph.in_scope(place)}
    if output not in own:
        raise ValueError(f"'{place}' computes nothing: its output is '{output}', which is outside of it")
    for source, consumer, _ in graph.edges():
        if source in own and source != output and consumer not in own:
            raise ValueError(f"'{place}' can't be replaced: '{consumer}' reads '{source}', which is inside of it")


def _refuse_overlaps(graph: Graph, replaced: Sequence[_Graft], others: Sequence[_Graft]) -> None:
    """What is replaced is gone: nothing else can be replaced or grafted inside of it."""
    for index, graft in enumerate(replaced):
        for other in [*replaced[:index], *replaced[index + 1 :]]:
            if _inside(other.place, graft.place):
                message = (
                    f"'{other.place}' is replaced by '{graft.insertion.name}' already; let only one of them match it"
                )
                if other.place != graft.place:
                    message = f"'{other.place}' is inside '{graft.place}', which '{graft.insertion.name}' replaces"
                raise InsertionError(message, other.insertion.name)
        for other in others:
            if other.place != graft.place and _inside(other.place, graft.place):
                message = f"'{other.place}' is inside '{graft.place}', which '{graft.insertion.name}' replaces"
                raise InsertionError(message, other.insertion.name)


class _Rewrite:
    """The graph anew, node by node, with its grafts."""

    def __init__(
        self, graph: Graph, by_source: Mapping[Value, list[_Graft]], replaced: Iterable[_Graft], edit: Edit
    ) -> None:
        self.graph = graph
        self.by_source = by_source
        self.replaced = {graft.place: graft for graft in replaced}
        self.builder = GraphBuilder(graph.input_shape, graph.classes, edit)
        # A scope's output stays the node that computes it: an insertion after a scope stands outside of it.
        self.builder.scopes = {name: value for name, value in graph.scopes.items() if not self._replacing(name)}
        self.builder.repeats = dict(graph.repeats)
        self.rewired: dict[Edge, Value] = {}
        self.rewired_nodes = {name for grafts in by_source.values() for graft in grafts for name, _ in graft.edges}
        self.standing: dict[Value, Value] = {}
        """What was replaced → the value that stands in its place."""

    def result(self) -> Graph:
        self._graft_onto(INPUT)
        for node in self.graph.nodes:
            graft = self._replacing(node.name)
            if graft is None:
                inputs = node.inputs
                if self.replaced or node.name in self.rewired_nodes:
                    inputs = tuple(self._read((node.name, port), source) for port, source in enumerate(inputs))
                self._keep(node, inputs)
            elif node.name == graft.source:
                self._replace(graft)
            else:
                continue
            self._graft_onto(node.name)
        self.builder.scopes = {name: self.standing.get(value, value) for name, value in self.builder.scopes.items()}
        # Only insertions ask what a scope was made by; a composite that a spec declares could not be pickled.
        self.builder.calls.clear()
        finished = self.builder.finish(self._read((OUTPUT, 0), self.graph.output))
        return replace(finished, unselectable=self.graph.unselectable)

    def _keep(self, node: Node, inputs: tuple[Value, ...]) -> None:
        """A node as it was written and edited; where it can't be any more, that is an insertion's doing."""
        try:
            self.builder.keep(node, inputs)
        except GraphError as error:
            culprit = next((name for value in inputs if (name := self._insertion_behind(value))), None)
            if culprit is None:
                raise
            raise InsertionError(str(error), culprit, by_place=False) from None

    def _insertion_behind(self, value: Value) -> str | None:
        """The nearest insertion that a value comes from."""
        waiting, seen = [value], set()
        while waiting:
            value = waiting.pop(0)
            if value != INPUT and value not in seen:
                seen.add(value)
                node = self.builder.nodes[value]
                if node.insertion:
                    return node.insertion
                waiting += node.inputs
        return None

    def _replacing(self, name: str) -> _Graft | None:
        """The graft in whose place ``name`` lies."""
        if not self.replaced:
            return None
        parts = name.split(".")
        names = (".".join(parts[:depth]) for depth in range(1, len(parts) + 1))
        return next((self.replaced[place] for place in names if place in self.replaced), None)

    def _read(self, edge: Edge, source: Value) -> Value:
        return self.rewired.get(edge, self.standing.get(source, source))

    def _graft_onto(self, source: Value) -> None:
        if source not in self.by_source:
            return
        for graft in sorted(self.by_source[source], key=lambda graft: graft.key):
            values = {self._read(edge, source) for edge in graft.edges}
            assert len(values) <= 1, f"{graft.name}: edges of one graft carry one value, not {values}"
            value = self._place(graft, (values.pop() if values else source,))
            self.rewired.update(dict.fromkeys(graft.edges, value))

    def _replace(self, graft: _Graft) -> None:
        entering = _entering(self.graph, graft.place, "")
        node = self.graph.by_name.get(graft.place)
        if node is None:  # a scope: each value that it reads once
            entering = list(
                {source: (source, consumer, port) for source, consumer, port in reversed(entering)}.values()
            )
            entering.reverse()
        inputs = tuple(self._read((consumer, port), source) for source, consumer, port in entering)
        taken = _taken_over(self.graph, graft.place, node, graft.insertion.block)
        self.standing[graft.source] = self._place(graft, inputs, taken)
        read = self.graph.shape(entering[0][0])
        before, after = self.graph.shape(graft.source), self.builder.shape(self.standing[graft.source])
        strides = "stride" in graft.insertion.block.Params.model_fields
        if strides and stride_of(read, before) is None and before[1:] != after[1:]:
            message = f"'{graft.place}' gives {before} by no one stride, and '{graft.name}' {after}: state stride"
            raise InsertionError(message, graft.insertion.name, by_place=False)

    def _place(self, graft: _Graft, inputs: tuple[Value, ...], taken_over: Mapping[str, Any] | None = None) -> Value:
        insertion, builder = graft.insertion, self.builder
        site = Site(builder.shape(inputs[0])[0], graft.index, graft.count, taken_over or {})
        try:
            branch = builder.place(graft.name, insertion.block, insertion.params_at(site), inputs, insertion.name)
            return branch if insertion.residual.kind == "none" else self._joined(graft, branch, inputs)
        except Reported:
            raise
        except GraphError as error:
            raise InsertionError(str(error), insertion.name, by_place=False) from None

    def _joined(self, graft: _Graft, branch: Value, inputs: tuple[Value, ...]) -> Value:
        insertion, builder = graft.insertion, self.builder
        if len(inputs) > 1:
            message = f"'{graft.place}' reads {len(inputs)} values: which is the residual?"
            raise InsertionError(f"{message}; residual: none", insertion.name)
        name = f"{graft.name}_residual"
        if insertion.residual.kind == "plain":
            add = find("add")
            return builder.place(name, add, add.Params(), (branch, *inputs), insertion.name)
        weighted = find("residual")
        params = weighted.Params(init=insertion.residual.init, per=insertion.residual.per)  # type: ignore[call-arg]
        return builder.place(name, weighted, params, (branch, *inputs), insertion.name)


def _taken_over(graph: Graph, place: str, node: Node | None, block: BlockType) -> dict[str, Any]:
    call = graph.calls.get(place)
    if node:
        taken = dict(node.block.taken_over(node.params, *node.shapes))
    elif call:
        taken = {name: getattr(call.params, name) for name in TAKEN_OVER if hasattr(call.params, name)}
    else:  # a scope of an imported network: what it does to a map says what it was
        entering = _entering(graph, place, "")
        taken = over_a_map(graph.shape(entering[0][0]), graph.shape(graph.places[place]))
    if "width" in taken and (node.block if node else call.block if call else None) is not block:
        # A bottleneck's width is that of its inside: what another block must come to is what goes out.
        taken["width"] = width_of(graph.shape(graph.places[place]))
    return taken
