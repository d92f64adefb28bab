"""The graph: the single truth about a network. Named nodes, named input ports, shapes; nothing of it is ever changed.

Everything that says something about a network (insertions, identity, cost, differences, the diagram, the
PyTorch module) is computed from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import torch
from pydantic import ValidationError
from torch import fx, nn

from ablate.block import (
    INIT_RECIPES,
    Block,
    BlockParams,
    BlockType,
    Composite,
    Shape,
    Start,
    Value,
    find,
    port_names,
)
from ablate.pattern import Pattern, nearest
from ablate.shapes import infer_shape

INPUT: Value = "input"
OUTPUT = "output"
MOST_NODES = 20_000


class GraphError(ValueError):
    """An impossible node; the sentence names it and the shapes that meet there."""


class Reported(GraphError):
    """An impossible node of which a collector knows already, with its place in the spec."""


Edit = Callable[[str, BlockType, BlockParams, Mapping[str, int]], BlockParams]
"""What a spec changes about a node before it is placed: (name, block, parameters, repeats so far) → parameters."""


def unedited(name: str, block: BlockType, params: BlockParams, repeats: Mapping[str, int]) -> BlockParams:
    return params


@dataclass(frozen=True)
class Call:
    """A composite that was placed, or a node that was repeated: what a scope was made by."""

    block: BlockType
    params: BlockParams


class Settled:
    """What a block comes to with these parameters at these shapes, each found once: nodes that are kept share it."""

    def __init__(self, block: type[Block], params: BlockParams, shapes: tuple[Shape, ...], shape: Shape) -> None:
        self.block, self.params, self.shapes, self.shape = block, params, shapes, shape

    @cached_property
    def params_json(self) -> str:
        return self.params.model_dump_json()

    @cached_property
    def effective(self) -> dict[str, Any]:
        return self.block.effective(self.params, *self.shapes)

    @cached_property
    def is_identity(self) -> bool:
        return self.block.is_identity(self.params, *self.shapes)

    @cached_property
    def canonical_json(self) -> tuple[str, str]:
        """What of a node's canonical row does not depend on the graph: its first keys, and its last."""
        first = _compact({"block": self.block.name, "effective": self.effective})
        return first[1:-1], _compact({"shape": self.shape})[1:-1]


@dataclass(frozen=True)
class Node:
    """One call of one leaf block."""

    name: str
    block: type[Block]
    params: BlockParams
    inputs: tuple[Value, ...]
    ports: tuple[str, ...]
    shapes: tuple[Shape, ...]
    """What arrives at each port, without the batch axis."""
    shape: Shape
    insertion: str | None = None
    """The insertion that added the node, if one did."""
    module: str = ""
    """The module that the node calls, and so the name that seeds its parameters. Two nodes may call one module."""
    start: Start | None = None
    """How its parameters start, if otherwise than the network's recipe says."""
    settled: Settled = field(kw_only=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.module:
            object.__setattr__(self, "module", self.name)

    @property
    def params_json(self) -> str:
        return self.settled.params_json

    @property
    def effective(self) -> dict[str, Any]:
        return self.settled.effective

    @property
    def is_identity(self) -> bool:
        return self.settled.is_identity

    @property
    def notes(self) -> tuple[str, ...]:
        return self.block.notes(self.params, *self.shapes)


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order. ``scopes`` maps each scope to the value that is its output.

    ``calls`` says what the scopes of composites and of repeats were made by.
    """

    input_shape: Shape
    classes: int
    nodes: tuple[Node, ...]
    output: Value
    scopes: Mapping[str, Value] = field(default_factory=dict)
    repeats: Mapping[str, int] = field(default_factory=dict)
    calls: Mapping[str, Call] = field(default_factory=dict)
    unselectable: Mapping[str, str] = field(default_factory=dict)
    """Names of an imported model that are no places, and why: for whoever writes one into a pattern."""

    @cached_property
    def by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def places(self) -> dict[str, Value]:
        """Every name that a pattern can select, in graph order → its output value."""
        order = {value: index for index, value in enumerate([INPUT, *(node.name for node in self.nodes)])}
        named = {INPUT: INPUT, **{node.name: node.name for node in self.nodes}, **self.scopes}
        return dict(sorted(named.items(), key=lambda item: (order[item[1]], item[0])))

    @cached_property
    def position(self) -> dict[str, int]:
        """Of each place among the places."""
        return {name: index for index, name in enumerate(self.places)}

    def select(self, pattern: Pattern) -> tuple[str, ...]:
        """The places that a pattern matches, in graph order."""
        known = self._selections
        if pattern.text not in known:
            # The images are a place only for who names them: `after *` is about the network's nodes.
            places = [name for name in self.places if name != INPUT or pattern.text == INPUT]
            known[pattern.text] = tuple(pattern.select(places, self.repeats))
        return known[pattern.text]

    @cached_property
    def _selections(self) -> dict[str, tuple[str, ...]]:
        """By a pattern's text: the points of a search name the same places again and again."""
        return {}

    def shape(self, value: Value) -> Shape:
        return self.input_shape if value == INPUT else self.by_name[value].shape

    def edges(self) -> Iterator[tuple[Value, str, int]]:
        """(source, consumer, port index) of every edge; the network's output is a consumer too."""
        for node in self.nodes:
            for port, source in enumerate(node.inputs):
                yield source, node.name, port
        yield self.output, OUTPUT, 0

    @cached_property
    def readers(self) -> dict[Value, list[tuple[str, int]]]:
        """Each value's edges, as (consumer, port index)."""
        found: dict[Value, list[tuple[str, int]]] = {}
        for source, consumer, port in self.edges():
            found.setdefault(source, []).append((consumer, port))
        return found

    @cached_property
    def reachable(self) -> frozenset[str]:
        """The nodes that the output depends on."""
        seen: set[str] = set()
        open_values = [self.output]
        while open_values:
            value = open_values.pop()
            if value != INPUT and value not in seen:
                seen.add(value)
                open_values.extend(self.by_name[value].inputs)
        return frozenset(seen)

    def why_nothing(self, pattern: Pattern) -> str:
        """Why a pattern selects no place: what it names, or the names that are nearest."""
        named = pattern.select(self.unselectable, self.repeats)
        if named:
            return self.unselectable[named[0]]
        return f"nearest: {nearest(pattern.text, [name for name in self.places if name != INPUT])}"

    def in_scope(self, name: str) -> list[Node]:
        return self._by_scope.get(name, [])

    @cached_property
    def _by_scope(self) -> dict[str, list[Node]]:
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            parts = node.name.split(".")
            for depth in range(1, len(parts) + 1):
                found.setdefault(".".join(parts[:depth]), []).append(node)
        return found

    def with_starts(self, starts: Mapping[str, Start]) -> Graph:
        """The graph whose named nodes' parameters start as stated."""
        if not starts:
            return self
        nodes = tuple(replace(node, start=starts.get(node.name, node.start)) for node in self.nodes)
        return replace(self, nodes=nodes)

    def insertion_nodes(self, insertion: str) -> list[Node]:
        return [node for node in self.nodes if node.insertion == insertion]

    @property
    def canonical(self) -> list[dict[str, Any]]:
        """The graph without names and without nodes that have no effect.

        Nodes are numbered as a walk from the output back, port by port, first completes them: equal lists
        mean equal networks, whatever the nodes are called and in whichever order they were written.
        """
        rows: list[dict[str, Any]] = []
        acting, output = self._walked
        for node, read, module in acting:
            row = {
                "block": node.block.name,
                "effective": node.effective,
                "inputs": [[port, number] for port, number in zip(node.ports, read, strict=True)],
                "module": module,
                "shape": node.shape,
            }
            # only where one is stated, so that the networks that state none keep their fingerprints
            rows.append(row | ({"start": [node.start.kind, node.start.value]} if node.start else {}))
        return [*rows, {"output": output, "input": self.input_shape}]

    @property
    def seeding_names(self) -> list[str]:
        """The names that seed the parameters, in canonical order: two equal networks with equal names start equal."""
        return [node.module for node, _, _ in self._walked[0]]

    @cached_property
    def _walked(self) -> tuple[list[tuple[Node, list[int], int]], int]:
        """The nodes that act, in canonical order, each with the numbers of what it reads and of its module; and the
        number of the output.
        """
        numbers: dict[Value, int] = {INPUT: -1}
        modules: dict[str, int] = {}
        acting: list[tuple[Node, list[int], int]] = []
        nodes = self.by_name
        stack: list[tuple[Value, bool]] = [(self.output, False)]
        while stack:
            value, sources_done = stack.pop()
            if value in numbers:
                continue
            node = nodes[value]
            sources = node.inputs[:1] if node.is_identity else node.inputs
            if not sources_done:
                stack.append((value, True))
                stack.extend((source, False) for source in reversed(sources))
            elif node.is_identity:
                numbers[value] = numbers[sources[0]]
            else:
                numbers[value] = len(acting)
                module = modules.setdefault(node.module, len(modules))
                acting.append((node, [numbers[source] for source in sources], module))
        return acting, numbers[self.output]

    @cached_property
    def in_execution_order(self) -> tuple[Node, ...]:
        """Every node, each after what it reads, in an order that does not depend on the order of writing.

        The order of calls decides in which order gradients are added up, and so their last bits: what has one
        identity must have one order.
        """
        done: dict[Value, None] = {INPUT: None}
        stack = [(value, False) for value in [*(node.name for node in reversed(self.nodes)), self.output]]
        while stack:
            value, sources_done = stack.pop()
            if value in done:
                continue
            if sources_done:
                done[value] = None
            else:
                stack.append((value, True))
                stack.extend((source, False) for source in reversed(self.by_name[value].inputs))
        return tuple(self.by_name[value] for value in done if value != INPUT)

    @cached_property
    def fingerprint(self) -> str:
        """128 bits of SHA-256 over the canonical graph, as JSON with sorted keys and without spaces.

        Put together from what each node has to say, which a search's networks share.
        """
        acting, output = self._walked
        rows = [_row_json(node, read, module) for node, read, module in acting]
        rows.append(_compact({"output": output, "input": self.input_shape}))
        return hashlib.sha256(f"[{','.join(rows)}]".encode()).hexdigest()[:32]


def _row_json(node: Node, read: list[int], module: int) -> str:
    """A node's row in ``Graph.canonical``."""
    first, last = node.settled.canonical_json
    inputs = ",".join([f"[{_quoted(port)},{number}]" for port, number in zip(node.ports, read, strict=True)])
    start = f',"start":{_compact([node.start.kind, node.start.value])}' if node.start else ""
    return f'{{{first},"inputs":[{inputs}],"module":{module},{last}{start}}}'


def _compact(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@cache
def _quoted(port: str) -> str:
    return json.dumps(port)


class GraphBuilder:
    """Adds nodes in topological order and computes their shapes. ``edit`` has a say in every node's parameters."""

    def __init__(self, input_shape: Shape, classes: int, edit: Edit = unedited) -> None:
        self.input_shape = input_shape
        self.classes = classes
        self.edit = edit
        self.expanding: list[str] = []
        """The composites that are being expanded, outermost first."""
        self.calls: dict[str, Call] = {}
        self.nodes: dict[str, Node] = {}
        self.scopes: dict[str, Value] = {}
        self.repeats: dict[str, int] = {}

    def shape(self, value: Value) -> Shape:
        return self.input_shape if value == INPUT else self.nodes[value].shape

    def place(
        self,
        name: str,
        block: BlockType,
        params: BlockParams,
        inputs: tuple[Value, ...],
        insertion: str | None = None,
        module: str = "",
    ) -> Value:
        """Add a block under ``name`` and return its output. ``GraphError`` where that is impossible."""
        self._check_new(name)
        if module_attribute_clash(name):
            raise GraphError(f"a node can't be called '{name}': torch.nn.Module has an attribute of that name")
        params = self.edit(name, block, params, self.repeats)
        if issubclass(block, Composite):
            self._ports(name, block, inputs)
            self.scopes[name] = self._expanded(name, block, params, inputs, insertion)
            self.calls[name] = Call(block, params)
            return self.scopes[name]
        return self._placed(name, block, params, inputs, insertion, module)

    def keep(self, node: Node, inputs: tuple[Value, ...]) -> Value:
        """Place a node of another graph as it is there, reading ``inputs`` here."""
        self._check_new(node.name)
        if tuple([self.shape(value) for value in inputs]) != node.shapes:
            return self._placed(node.name, node.block, node.params, inputs, node.insertion, node.module)
        self._check_room(node.name)
        same = inputs == node.inputs and node.start is None
        self.nodes[node.name] = node if same else replace(node, inputs=inputs, start=None)
        return node.name

    def _check_new(self, name: str) -> None:
        if name in self.nodes or name in self.scopes:
            raise GraphError(f"two nodes are called '{name}'")

    def _ports(self, name: str, block: BlockType, inputs: tuple[Value, ...]) -> tuple[str, ...]:
        try:
            return port_names(block, len(inputs))
        except ValueError as error:
            raise GraphError(f"node '{name}': {error}") from None

    def _placed(
        self,
        name: str,
        block: type[Block],
        params: BlockParams,
        inputs: tuple[Value, ...],
        insertion: str | None,
        module: str,
    ) -> Value:
        ports = self._ports(name, block, inputs)
        self._check_room(name)
        shapes = tuple(self.shape(value) for value in inputs)
        try:
            shape = infer_shape(block, params, shapes)
        except ValueError as error:
            raise GraphError(f"node '{name}' ({block.name}), reading {_readings(inputs, shapes)}: {error}") from None
        settled = Settled(block, params, shapes, shape)
        self.nodes[name] = Node(name, block, params, inputs, ports, shapes, shape, insertion, module, settled=settled)
        return name

    def _check_room(self, name: str) -> None:
        if len(self.nodes) >= MOST_NODES:
            raise GraphError(f"more than {MOST_NODES:,} nodes; the last was '{name}'")

    def _expanded(
        self, name: str, block: type[Composite], params: BlockParams, inputs: tuple[Value, ...], insertion: str | None
    ) -> Value:
        if block.name in self.expanding:
            cycle = " → ".join([*self.expanding[self.expanding.index(block.name) :], block.name])
            raise GraphError(f"node '{name}': a block can't hold itself: {cycle}")
        self.expanding.append(block.name)
        try:
            return block.expand(ScopeAt(self, name, insertion, self.classes), params, *inputs)
        except GraphError:
            raise
        except ValueError as error:
            raise GraphError(f"node '{name}' ({block.name}): {error}") from None
        finally:
            self.expanding.pop()

    def repeat(
        self,
        name: str,
        block: BlockType,
        params: BlockParams,
        source: tuple[Value, ...],
        count: int,
        insertion: str | None = None,
    ) -> Value:
        """``name.0`` … ``name.{count-1}``, one after another; parameters that act once act on the first."""
        self.repeats[name] = count
        params = self.edit(name, block, params, self.repeats)
        self.calls[name] = Call(block, params)
        later = acting_once_reset(params)
        value = self.place(f"{name}.0", block, params, source, insertion)
        for index in range(1, count):
            value = self.place(f"{name}.{index}", block, later, (value,), insertion)
        self.scopes[name] = value
        return value

    def finish(self, output: Value) -> Graph:
        nodes = tuple(self.nodes.values())
        return Graph(self.input_shape, self.classes, nodes, output, self.scopes, self.repeats, self.calls)


@dataclass
class ScopeAt:
    """The ``Scope`` that a composite block sees."""

    builder: GraphBuilder
    prefix: str
    insertion: str | None
    classes: int

    def shape(self, value: Value) -> Shape:
        return self.builder.shape(value)

    def add(self, name: str, block: str, *inputs: Value, **params: Any) -> Value:
        kind = find(block)
        place = f"{self.prefix}.{name}"
        try:
            validated = kind.Params(**params)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise GraphError(f"node '{place}' ({block}): {where}: {first['msg']}") from None
        scopes = place.split(".")
        value = self.builder.place(place, kind, validated, inputs, self.insertion)
        # A dotted name inside a composite (``shortcut.conv``) opens the scopes between.
        for depth in range(self.prefix.count(".") + 2, len(scopes)):
            self.builder.scopes[".".join(scopes[:depth])] = value
        return value


def acting_once_reset(params: BlockParams) -> BlockParams:
    """The parameters of the second and later of a repeat."""
    fields = type(params).model_fields
    resets = {
        name: info.get_default(call_default_factory=True)
        for name, info in fields.items()
        if isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("repeat") == "first"
    }
    return params.model_copy(update=resets) if resets else params


def takes_start(node: Node, start: Start) -> bool:
    """Whether a node has what a start sets: parameters; of a recipe, weights of convolutions or linear layers."""
    with torch.device("meta"):
        module = node.block.make(node.params, *node.shapes)
    if start.kind in INIT_RECIPES:
        return any(isinstance(part, nn.Conv1d | nn.Conv2d | nn.Linear) for part in module.modules())
    return any(True for _ in module.parameters())


def _readings(inputs: tuple[Value, ...], shapes: tuple[Shape, ...]) -> str:
    return " and ".join(f"{shape} from {value}" for value, shape in zip(inputs, shapes, strict=True))


def module_attribute_clash(name: str) -> bool:
    """Whether a module of that name would hide an attribute of its parent: ``train``, ``stage1.half``.

    The parent of a name without a dot is the built network itself, a ``GraphModule`` (``graph``, ``code``).
    """
    scope, _, last = name.rpartition(".")
    return last in _module_attributes(of_network=not scope)


@cache
def _module_attributes(of_network: bool) -> frozenset[str]:
    if not of_network:
        return frozenset(dir(nn.Module()))
    # ``self`` is no attribute, but a variable of that name would hide the module in the code that fx writes.
    return frozenset({*dir(fx.GraphModule(nn.Module(), fx.Graph())), "self"})
