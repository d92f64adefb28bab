"""The graph as regions: scopes that are called as one module, each with what it reads and the one value that it gives.

A scope is one where its nodes stand side by side in the order of the calls, give one value, and keep their modules to
themselves. Any other only holds modules, which the scope around it calls one by one. The order of the calls is the
network's own, so that gradients are added up in one order, and come out equal to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from ablate.block import Value
from ablate.ejecting.importeds import titles
from ablate.ejecting.leaves import Leaf, has_state, leaf
from ablate.ejecting.make import Make
from ablate.ejecting.modules import Modules
from ablate.ejecting.names import camel
from ablate.graph import INPUT, OUTPUT, Call, Graph, Node


@dataclass
class Item:
    """One call: of a leaf, or of a whole region. ``path`` is its module's, from the region on."""

    path: tuple[str, ...]
    value: Value
    inputs: tuple[Value, ...]
    leaf: Leaf | None = None
    region: Region | None = None
    block: str = ""

    @property
    def elided(self) -> bool:
        """Whether it returns what it reads, and has no module in the network."""
        return self.leaf is None and (self.region is None or self.region.is_elided)


@dataclass
class Region:
    """A scope that is called as one module."""

    scope: str
    items: list[Item]
    inputs: tuple[Value, ...]
    output: Value
    title: str = ""
    """What its class is called."""
    is_composite: bool = False
    """Whether a composite block or an insertion made it, so that there may well be more of its kind."""
    doc: str = ""
    make: Make | None = None

    @cached_property
    def is_elided(self) -> bool:
        return all(item.elided for item in self.items) and len(self.inputs) == 1

    @cached_property
    def places(self) -> dict[Value, tuple[str, int]]:
        """Where each value comes from: an input, or an item."""
        found = {value: ("input", index) for index, value in enumerate(self.inputs)}
        return {**found, **{item.value: ("item", index) for index, item in enumerate(self.items)}}

    @cached_property
    def wiring(self) -> tuple[object, ...]:
        rows = tuple((item.path, tuple(self.places[value] for value in item.inputs)) for item in self.items)
        return len(self.inputs), rows, self.places[self.output]

    @cached_property
    def wiring_behind_first(self) -> tuple[object, ...]:
        """The same where the first item reads all inputs, however many those are."""
        _, rows, output = self.wiring
        assert isinstance(rows, tuple)
        return self.items[0].path, rows[1:], output

    def inner(self) -> Iterator[Region]:
        """The regions within, those that others hold first, and this one last."""
        for item in self.items:
            if item.region is not None:
                yield from item.region.inner()
        yield self


class Regions:
    """Finds the regions of a graph."""

    def __init__(self, graph: Graph, modules: Modules, calls: Mapping[str, Call]) -> None:
        self.graph, self.modules, self.calls = graph, modules, calls
        self.order = graph.in_execution_order
        self.position = {node.name: index for index, node in enumerate(self.order)}
        self.titles = titles(graph)
        self._callable: dict[str, bool] = {}
        self.rank = {name: index for index, name in enumerate(dict.fromkeys(node.module for node in self.order))}
        """The order in which the network holds its modules, that of their first calls, and so that of its state."""

    def whole(self) -> Region:
        """The network as a region."""
        return self._region("", self.order, (INPUT,), self.graph.output)

    def _region(self, scope: str, nodes: Sequence[Node], inputs: tuple[Value, ...], output: Value) -> Region:
        prefix = f"{scope}." if scope else ""
        items: list[Item] = []
        index = 0
        while index < len(nodes):
            inner = self._outermost(nodes[index], prefix)
            if inner is None:
                items.append(self._item(nodes[index], prefix))
                index += 1
                continue
            members = self._members(inner)
            region = self._region(inner, members, self._inputs(members), self._outputs(members)[0])
            path = tuple(inner.removeprefix(prefix).split("."))
            items.append(Item(path, region.output, region.inputs, region=region))
            index += len(members)
        return self._titled(Region(scope, items, inputs, output), nodes)

    def _titled(self, region: Region, nodes: Sequence[Node]) -> Region:
        """What made the scope says what its class is called: a composite, an insertion, else its name."""
        call = None if region.scope in self.graph.repeats else self.calls.get(region.scope)
        insertion = nodes[0].insertion
        if call is not None:
            region.title = camel(call.block.name, call.block.__name__)
            region.doc = call.block.summary()
        elif region.scope in self.titles:
            region.title = self.titles[region.scope]
        elif insertion and all(node.insertion == insertion for node in nodes):
            region.title = camel(insertion)
        else:
            region.title = camel(region.scope.split(".")[-1])
            return region
        region.is_composite = True
        return region

    def _item(self, node: Node, prefix: str) -> Item:
        path = tuple(node.module.removeprefix(prefix).split("."))
        if not has_state(node):
            if node.is_identity:
                return Item(path, node.name, node.inputs[:1])
            # ``relu#2``: what holds no weights may be called as a person would
            plain = node.module.replace("#", "_")
            path = tuple(plain.removeprefix(prefix).split(".")) if plain not in self.rank else path
        return Item(path, node.name, node.inputs, leaf(node, self.modules), block=node.block.name)

    def _outermost(self, node: Node, prefix: str) -> str | None:
        """The largest scope within ``prefix`` that holds the node and is called as one."""
        parts = node.name.removeprefix(prefix).split(".")
        for depth in range(1, len(parts)):
            scope = prefix + ".".join(parts[:depth])
            if self._is_callable(scope):
                return scope
        return None

    def _is_callable(self, scope: str) -> bool:
        if scope not in self._callable:
            members = self._members(scope)
            places = [self.position[node.name] for node in members]
            together = places == list(range(places[0], places[0] + len(places)))
            users = [node for node in self.order if f"{node.module}.".startswith(f"{scope}.")]
            self._callable[scope] = together and users == members and len(self._outputs(members)) == 1
        return self._callable[scope]

    def _members(self, scope: str) -> list[Node]:
        return sorted(self.graph.in_scope(scope), key=lambda node: self.position[node.name])

    def _inputs(self, members: Sequence[Node]) -> tuple[Value, ...]:
        own = {node.name for node in members}
        return tuple(dict.fromkeys(value for node in members for value in node.inputs if value not in own))

    def _outputs(self, members: Sequence[Node]) -> list[Value]:
        own = {node.name for node in members}
        return [
            node.name
            for node in members
            if any(consumer == OUTPUT or consumer not in own for consumer, _ in self.graph.readers.get(node.name, []))
        ]
