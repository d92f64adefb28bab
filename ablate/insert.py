"""Insertions: blocks grafted into a graph, as a rewrite that gives a new graph.

``after PATTERN`` acts on the output of a node or scope, for all that read it (outside the scope);
``before PATTERN`` on what a node or scope reads, for that consumer alone. Patterns see the graph as it was
written, never what other insertions added. At one edge every insertion acts: all ``after`` first, then all
``before``, each in the order written unless ``rank`` says otherwise; the one that serves more consumers
comes first, since the value passes it first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ablate.block import BlockParams, BlockType, Value, find
from ablate.errors import listed
from ablate.graph import INPUT, OUTPUT, Graph, GraphBuilder
from ablate.pattern import Pattern, nearest

Edge = tuple[str, int]
"""A consumer's name and the index of its port."""

Side = Literal["after", "before"]


@dataclass(frozen=True)
class At:
    """``after stage*`` or ``before stage*.*.add:branch``, parsed. ``ValueError`` says what is wrong."""

    side: Side
    pattern: Pattern
    port: str = ""

    @classmethod
    def parse(cls, text: str) -> At:
        words = text.split()
        if len(words) != 2 or words[0] not in ("after", "before"):
            raise ValueError(f"'{text}' is no place; write 'after PATTERN' or 'before PATTERN'")
        pattern, _, port = words[1].partition(":")
        side: Side = "after" if words[0] == "after" else "before"
        if port and side == "after":
            raise ValueError(f"'{text}': a port belongs to 'before'; a node has one output")
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
class Insertion:
    name: str
    block: BlockType
    params: BlockParams
    at: tuple[At, ...]
    residual: Residual = Residual()
    rank: int = 0


@dataclass(frozen=True)
class _Graft:
    """One insertion at one value: the node to add and the edges that read it from then on."""

    insertion: Insertion
    name: str
    side: Side
    source: Value
    edges: frozenset[Edge]
    order: int

    @property
    def key(self) -> tuple[bool, int, int, int]:
        return (self.side == "before", -len(self.edges), self.insertion.rank, self.order)


class InsertionError(ValueError):
    """An insertion that can't be made; ``insertion`` and ``at`` (an index, or None) say which."""

    def __init__(self, message: str, insertion: str, at: int | None = None) -> None:
        super().__init__(message)
        self.insertion = insertion
        self.at = at


def insert(graph: Graph, insertions: Sequence[Insertion]) -> Graph:
    """A new graph with every insertion grafted in. ``InsertionError`` or ``GraphError`` where one can't be."""
    by_source: dict[Value, list[_Graft]] = {}
    for order, insertion in enumerate(insertions):
        for graft in _grafts(graph, insertion, order):
            by_source.setdefault(graft.source, []).append(graft)
    return _rewrite(graph, by_source)


def selected(graph: Graph, at: At) -> list[str]:
    """The places that ``at`` selects, in graph order. ``ValueError`` names the nearest where there is none."""
    # The images are a place only for who names them: `after *` is about the network's nodes.
    places = [name for name in graph.places if name != INPUT or at.pattern.text == INPUT]
    names = at.pattern.select(places, graph.repeats)
    if not names:
        raise ValueError(f"pattern '{at.pattern.text}' matches nothing; nearest: {nearest(at.pattern.text, places)}")
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
    return list(grafts.values())


def _refuse_unread(graph: Graph, graft: _Graft, place: str) -> None:
    """An insertion that nothing reads would change nothing, and say so to nobody."""
    if not any(consumer == OUTPUT or consumer in graph.reachable for consumer, _ in graft.edges):
        raise ValueError(f"an insertion {graft.side} '{place}' has no effect: the output does not depend on it")


def _grafts_at(graph: Graph, insertion: Insertion, order: int, at: At, place: str) -> list[_Graft]:
    if at.side == "after":
        source = graph.places[place]
        edges = frozenset(
            (consumer, port)
            for consumer, port in graph.readers.get(source, [])
            if place == source or not _inside(consumer, place)
        )
        return [_Graft(insertion, f"{place}_{insertion.name}", "after", source, edges, order)]
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


def _rewrite(graph: Graph, by_source: Mapping[Value, list[_Graft]]) -> Graph:
    builder = GraphBuilder(graph.input_shape, graph.classes)
    # A scope's output stays the node that computes it: an insertion after a scope stands outside of it.
    builder.scopes = dict(graph.scopes)
    builder.repeats = dict(graph.repeats)
    rewired: dict[Edge, Value] = {}

    def graft_onto(source: Value) -> None:
        for graft in sorted(by_source.get(source, ()), key=lambda graft: graft.key):
            values = {rewired.get(edge, source) for edge in graft.edges}
            assert len(values) <= 1, f"{graft.name}: edges of one graft carry one value, not {values}"
            value = _place(builder, graft, values.pop() if values else source)
            rewired.update(dict.fromkeys(graft.edges, value))

    graft_onto(INPUT)
    for node in graph.nodes:
        inputs = tuple(rewired.get((node.name, port), source) for port, source in enumerate(node.inputs))
        builder.place(node.name, node.block, node.params, inputs, node.insertion, node.module)
        graft_onto(node.name)
    return builder.finish(rewired.get((OUTPUT, 0), graph.output))


def _place(builder: GraphBuilder, graft: _Graft, source: Value) -> Value:
    insertion = graft.insertion
    branch = builder.place(graft.name, insertion.block, insertion.params, (source,), insertion.name)
    if insertion.residual.kind == "none":
        return branch
    name = f"{graft.name}_residual"
    if insertion.residual.kind == "plain":
        add = find("add")
        return builder.place(name, add, add.Params(), (branch, source), insertion.name)
    weighted = find("residual")
    params = weighted.Params(init=insertion.residual.init, per=insertion.residual.per)  # type: ignore[call-arg]
    return builder.place(name, weighted, params, (branch, source), insertion.name)
