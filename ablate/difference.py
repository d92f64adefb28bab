"""What differs between two networks, and between two variants: nodes, parameters, wiring, start, training, cost.

``difference`` is the certificate's, by names alone. ``compare`` goes further: what has another name in the other
network is found by its structure, and two networks with equal canonical graphs are *equal up to names*.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher
from typing import Any, Literal

from pydantic import BaseModel

from ablate.block import Value
from ablate.costing import Cost, cost_of
from ablate.design.variant import Variant
from ablate.graph import INPUT, Graph, Node

Verdict = Literal["equal", "equal up to names", "different"]
Kind = Literal["added", "removed", "changed", "renamed"]
Pair = tuple[int, int]
"""Params and FLOPs."""


def difference(graph: Graph, baseline: Graph, cost: Cost) -> dict[str, Any]:
    """Nodes added, removed and changed, by name, and what they cost."""
    own, others = graph.by_name, baseline.by_name
    base = cost_of(baseline)
    here, there = _common_names({name: name for name in others if name in own}, baseline, graph)
    changed = {}
    for name in own:
        if name in others:
            before, after = _described(baseline, name, there), _described(graph, name, here)
            if before != after:
                changed[name] = _pairs(before, after)
    stages, base_stages = cost.by_stage(), base.by_stage()
    return {
        "added": [name for name in own if name not in others],
        "removed": [name for name in others if name not in own],
        "changed": changed,
        "params": cost.params - base.params,
        "flops": cost.flops - base.flops,
        "by_insertion": {name: list(pair) for name, pair in cost.by_insertion().items()},
        "by_stage": {
            name: [a - b for a, b in zip(stages.get(name, (0, 0)), base_stages.get(name, (0, 0)), strict=True)]
            for name in {**base_stages, **stages}
            if stages.get(name) != base_stages.get(name)
        },
    }


def _common_names(match: Mapping[str, str], a: Graph, b: Graph) -> tuple[dict[Value, Value], dict[Value, Value]]:
    """(for ``b``, for ``a``) a matched node's name → its name in ``b``; of those that act in both."""
    acting = {x: y for x, y in match.items() if not (a.by_name[x].is_identity or b.by_name[y].is_identity)}
    return {y: y for y in acting.values()}, acting


def _described(graph: Graph, name: str, common: Mapping[Value, Value]) -> dict[str, Any]:
    """What a node is, what it reads, and how it starts, in words that another graph's node can be compared with."""
    node = graph.by_name[name]
    sources = [sorted(common_sources(graph, value, common)) for value in node.inputs]
    start = [node.start.kind, node.start.value] if node.start else "recipe"
    return {"block": node.block.name, **node.effective, "reads": node.shapes, "from": sources, "start": start}


def common_sources(graph: Graph, value: Value, common: Mapping[Value, Value]) -> set[Value]:
    """The nodes of both graphs (or the input) that a value comes from, by way of nodes of this graph alone."""
    found: set[Value] = set()
    seen: set[Value] = set()
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if value in seen:
            continue
        seen.add(value)
        if value == INPUT or value in common:
            found.add(common.get(value, value))
        else:
            waiting += graph.by_name[value].inputs
    return found


def _pairs(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """What differs: key → [before, after]."""
    return {key: [before.get(key), after.get(key)] for key in {**before, **after} if before.get(key) != after.get(key)}


@dataclass(frozen=True)
class NodeChange:
    """One node that is not the same on both sides."""

    kind: Kind
    name: str
    """In B; of a node that was removed, in A."""
    was: str
    """In A; of a node that was added, its own."""
    block: str
    parameters: dict[str, list[Any]]
    """As written: name → [A, B]."""
    effective: dict[str, list[Any]]
    """What they come to, and the block: name → [A, B]."""
    wiring: dict[str, list[Any]]
    """``reads`` (shapes) and ``from`` (nodes): [A, B]."""
    start: list[Any]
    """[A, B], or empty."""
    training: dict[str, list[Any]]
    """``frozen`` and ``PARAMETER lr, weight_decay``: [A, B]."""
    params: int
    flops: int
    """B less A."""


@dataclass(frozen=True)
class Comparison:
    """Two variants, side by side: A is what B is compared with."""

    a: str
    b: str
    verdict: Verdict
    """Of the networks alone."""
    same_identity: bool
    """Network, start, recipe and data: such two are trained once."""
    nodes: tuple[NodeChange, ...]
    without_effect: dict[str, dict[str, list[Any]]]
    """Node → parameters that are written otherwise and come to the same."""
    recipe: tuple[dict[str, Any], ...]
    """Of network, data, train and init: path, A, B."""
    stages: dict[str, tuple[Pair, Pair]]
    total: tuple[Pair, Pair]
    match: dict[str, str]
    """Node of A → the same node in B."""

    def of(self, kind: Kind) -> list[NodeChange]:
        return [change for change in self.nodes if change.kind == kind]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "nodes": [asdict(change) for change in self.nodes], "recipe": list(self.recipe)}


def compare(a: Variant, b: Variant, names: tuple[str, str] | None = None) -> Comparison:
    """What ``b`` is beside ``a``; ``names`` to call them by."""
    one, other = a.network.graph, b.network.graph
    match = matched(one, other)
    costs = cost_of(one), cost_of(other)
    stages = [cost.by_stage() for cost in costs]
    order = {**stages[1], **stages[0]} if len(stages[0]) > len(stages[1]) else {**stages[0], **stages[1]}
    changes, without_effect = _node_changes(a, b, match, costs)
    return Comparison(
        *(names or (a.name, b.name)),
        _verdict(one, other),
        a.sameness == b.sameness,
        tuple(changes),
        without_effect,
        tuple(_of_recipe(a, b)),
        {name: (stages[0].get(name, (0, 0)), stages[1].get(name, (0, 0))) for name in order},
        ((costs[0].params, costs[0].flops), (costs[1].params, costs[1].flops)),
        match,
    )


def _verdict(a: Graph, b: Graph) -> Verdict:
    if a.fingerprint != b.fingerprint or a.input_shape != b.input_shape:
        return "different"
    return "equal" if a.seeding_names == b.seeding_names else "equal up to names"


def matched(a: Graph, b: Graph) -> dict[str, str]:
    """Each node of ``a`` that ``b`` has too → its name there: by name, and what is left over by structure."""
    match = _walked_together(a, b) if a.fingerprint == b.fingerprint else {}
    taken = set(match.values())
    match |= {name: name for name in a.by_name if name in b.by_name and name not in match and name not in taken}
    taken = set(match.values())
    left = [
        [node for node in a.in_execution_order if node.name not in match],
        [node for node in b.in_execution_order if node.name not in taken],
    ]
    texts = [[_signature(node) for node in nodes] for nodes in left]
    found: dict[str, str] = {}
    for start, other, size in SequenceMatcher(None, texts[0], texts[1], autojunk=False).get_matching_blocks():
        found |= {left[0][start + i].name: left[1][other + i].name for i in range(size)}
    return match | _equally_wired(a, b, match, found)


def _walked_together(a: Graph, b: Graph) -> dict[str, str]:
    """Two graphs with equal canonical forms: the walk from the outputs back, port by port, meets equal nodes."""
    match: dict[str, str] = {}
    waiting = [(a.output, b.output)]
    while waiting:
        x, y = (_acting(graph, value) for graph, value in zip((a, b), waiting.pop(), strict=True))
        if x != INPUT and x not in match:
            match[x] = y
            waiting += zip(a.by_name[x].inputs, b.by_name[y].inputs, strict=True)
    return match


def _acting(graph: Graph, value: Value) -> Value:
    while value != INPUT and graph.by_name[value].is_identity:
        value = graph.by_name[value].inputs[0]
    return value


def _signature(node: Node) -> str:
    return json.dumps([node.block.name, node.effective, node.shapes], sort_keys=True)


def _equally_wired(a: Graph, b: Graph, match: Mapping[str, str], found: Mapping[str, str]) -> dict[str, str]:
    """Of the nodes that look the same under other names, those that read the same too."""
    kept = dict(found)
    while True:
        here, there = _common_names({**match, **kept}, a, b)
        wrong = [x for x, y in kept.items() if _described(a, x, there)["from"] != _described(b, y, here)["from"]]
        if not wrong:
            return kept
        for name in wrong:
            del kept[name]


def _node_changes(
    a: Variant, b: Variant, match: Mapping[str, str], costs: tuple[Cost, Cost]
) -> tuple[list[NodeChange], dict[str, dict[str, list[Any]]]]:
    one, other = a.network.graph, b.network.graph
    own, base = ({row.name: (row.params, row.flops) for row in cost.rows} for cost in reversed(costs))
    here, there = _common_names(match, one, other)
    back = {y: x for x, y in match.items()}
    changes: list[NodeChange] = []
    without_effect: dict[str, dict[str, list[Any]]] = {}
    for node in other.nodes:
        if node.name not in back:
            changes.append(_alone("added", node, own[node.name]))
            continue
        before = one.by_name[back[node.name]]
        words = _described(one, before.name, there), _described(other, node.name, here)
        training = _pairs(_training(a, before), _training(b, node))
        written = _written(before, node)
        if words[0] != words[1] or training or before.name != node.name:
            cost = own[node.name][0] - base[before.name][0], own[node.name][1] - base[before.name][1]
            changes.append(_changed(before, node, words, written, training, cost))
        elif written:
            without_effect[node.name] = written
    changes += [_alone("removed", node, base[node.name], -1) for node in one.nodes if node.name not in match]
    return changes, without_effect


def _alone(kind: Kind, node: Node, cost: Pair, sign: int = 1) -> NodeChange:
    return NodeChange(kind, node.name, node.name, node.block.name, {}, {}, {}, [], {}, sign * cost[0], sign * cost[1])


def _changed(
    before: Node,
    node: Node,
    words: tuple[dict[str, Any], dict[str, Any]],
    written: dict[str, list[Any]],
    training: dict[str, list[Any]],
    cost: Pair,
) -> NodeChange:
    found = _pairs(*words)
    wiring: dict[str, list[Any]] = {key: found.pop(key) for key in ("reads", "from") if key in found}
    start = found.pop("start", [])
    effective = {key: pair for key, pair in found.items() if written.get(key) != pair}
    only_renamed = not (found or wiring or start or training)
    kind: Kind = "renamed" if only_renamed else "changed"
    return NodeChange(kind, node.name, before.name, node.block.name, written, effective, wiring, start, training, *cost)


def _written(before: Node, after: Node) -> dict[str, list[Any]]:
    if before.block is not after.block:
        return {}
    return _pairs(before.params.model_dump(mode="json"), after.params.model_dump(mode="json"))


def _training(variant: Variant, node: Node) -> dict[str, Any]:
    """What of a node's training is not as the optimiser has it."""
    trainable = variant.trainable
    groups = {
        f"{each.parameter} lr, weight_decay": [each.lr, each.weight_decay]
        for each in trainable.settings
        if each.module == node.module
    }
    return ({"frozen": True} if node.module in trainable.frozen else {}) | groups


def _of_recipe(a: Variant, b: Variant) -> Iterator[dict[str, Any]]:
    for path, one, other in (
        ("network.input", list(a.shape), list(b.shape)),
        ("network.classes", a.classes, b.classes),
    ):
        if one != other:
            yield {"path": path, "a": one, "b": other}
    yield from ({"path": each["path"], "a": each["baseline"], "b": each["here"]} for each in recipe_difference(b, a))


def recipe_difference(variant: Variant, baseline: Variant) -> list[dict[str, Any]]:
    """What of train, data and init differs: path, here, there (``baseline``)."""
    own, other = ({"train": _dumped(v.train), "data": _dumped(v.data), "init": _init(v)} for v in (variant, baseline))
    if all(v.network.weights and v.network.weights.leaves_nothing for v in (variant, baseline)):
        for init in (own["init"], other["init"]):
            del init["recipe"]  # it starts nothing
    return [entry for name in own for entry in _compared_keys(name, own[name], other[name])]


def _init(variant: Variant) -> dict[str, Any]:
    """How parameters start: the recipe, and what is loaded, as written and by content."""
    spec, weights = variant.network.init, variant.network.weights
    init: dict[str, Any] = _dumped(spec)
    if weights is None:
        return init
    init |= {"from": weights.text, "weights": weights.identity()}
    # In their order, of which the first that matches acts.
    init |= {"rename": [[pattern, new] for pattern, new in spec.rename.items()]} if spec.rename else {}
    return init | ({} if spec.strict else {"strict": False})


def _dumped(section: BaseModel) -> Any:
    return section.model_dump(mode="json")


def _compared_keys(path: str, here: Any, there: Any) -> Iterable[dict[str, Any]]:
    """What differs, key by key; of another kind (another ``name``) as a whole."""
    if here == there:
        return
    both = isinstance(here, dict) and isinstance(there, dict)
    if both and (here.get("name") == there.get("name") or path == "data"):
        for key in dict.fromkeys([*here, *there]):
            yield from _compared_keys(f"{path}.{key}", here.get(key), there.get(key))
    else:
        yield {"path": path, "here": here, "baseline": there}
