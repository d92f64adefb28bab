from __future__ import annotations

import copy
import pickle
from typing import Any

import networks
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.block import BlockParams, Composite, Scope, Value, find
from ablate.diagram import mermaid
from ablate.graph import INPUT, MOST_NODES, Graph, GraphBuilder, GraphError

CHANNELS = 5


def chains() -> st.SearchStrategy[dict[str, dict[str, Any]]]:
    """Sections of a graph that end in one node which reads, however indirectly, all the others."""
    return st.integers(1, 7).flatmap(lambda count: st.tuples(*(_choices(index) for index in range(count)))).map(_wired)


def _choices(index: int) -> st.SearchStrategy[tuple[str, int, int]]:
    kinds = ["conv", "conv1", "act", "none", "bn", "add", "concat", "identity"]
    return st.tuples(st.sampled_from(kinds), st.integers(0, index), st.integers(0, index))


def _wired(choices: tuple[tuple[str, int, int], ...]) -> dict[str, dict[str, Any]]:
    names, nodes, width = [INPUT], {}, {INPUT: CHANNELS}
    for index, (kind, first, second) in enumerate(choices):
        name, a, b = f"n{index}", names[first], names[second]
        width[name] = width[a]
        if kind in ("conv", "conv1"):
            nodes[name] = {"block": "conv", "width": CHANNELS, "kernel": 3 if kind == "conv" else 1, "from": a}
            width[name] = CHANNELS
        elif kind in ("add", "concat"):
            join = kind if width[a] == width[b] else "concat"
            nodes[name] = {"block": join, "from": [a, b]}
            width[name] = width[a] if join == "add" else width[a] + width[b]
        elif kind == "none":
            nodes[name] = {"block": "act", "kind": "none", "from": a}
        else:
            nodes[name] = {"block": {"bn": "batch_norm"}.get(kind, kind), "from": a}
        names.append(name)
    read = {source for node in nodes.values() for source in _sources(node)}
    ends = [name for name in nodes if name not in read]
    if len(ends) > 1:
        return {**nodes, "end": {"block": "concat", "from": ends}}
    last = nodes.pop(ends[0])
    return {**nodes, ends[0]: last}


def _sources(node: dict[str, Any]) -> list[str]:
    return node["from"] if isinstance(node["from"], list) else [node["from"]]


def graph_of(nodes: dict[str, Any]) -> Graph:
    return networks.graph({"graph": nodes}, (CHANNELS, 11, 13))


@given(chains(), st.randoms(use_true_random=False))
def test_the_fingerprint_is_unchanged_by_names_and_by_the_order_of_writing(nodes: dict[str, Any], random: Any) -> None:
    output = list(nodes)[-1]
    others = [name for name in nodes if name != output]
    random.shuffle(others)
    labels = random.sample(range(100), len(nodes))
    renamed = {INPUT: INPUT} | {name: f"x{label}" for name, label in zip(nodes, labels, strict=True)}
    written = {
        renamed[name]: {**nodes[name], "from": [renamed[source] for source in _sources(nodes[name])]}
        for name in [*others, output]
    }
    assert graph_of(written).fingerprint == graph_of(nodes).fingerprint


@given(chains(), st.data())
def test_the_fingerprint_changes_with_every_parameter_that_matters(nodes: dict[str, Any], data: st.DataObject) -> None:
    changes: dict[str, dict[str, Any]] = {
        "conv": {"kernel": 7, "bias": True, "groups": CHANNELS},
        "act": {"kind": "gelu"},
        "batch_norm": {"eps": 0.125, "momentum": 0.25},
    }
    written = graph_of(nodes)
    able = [
        name
        for name, node in nodes.items()
        if node["block"] in changes and (node["block"] != "conv" or written.by_name[name].shapes[0][0] == CHANNELS)
    ]
    if not able:
        return
    name = data.draw(st.sampled_from(able))
    key = data.draw(st.sampled_from(sorted(changes[nodes[name]["block"]])))
    changed = copy.deepcopy(nodes)
    changed[name][key] = changes[nodes[name]["block"]][key]
    assert graph_of(changed).fingerprint != written.fingerprint


@given(chains(), st.data())
def test_a_node_without_effect_leaves_the_fingerprint_alone(nodes: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(nodes)))
    source = data.draw(st.sampled_from(_sources(nodes[name])))
    block = data.draw(
        st.sampled_from([{"block": "identity"}, {"block": "dropout", "rate": 0}, {"block": "act", "kind": "none"}])
    )
    changed = {"nothing": {**block, "from": source}} | copy.deepcopy(nodes)
    changed[name]["from"] = ["nothing" if each == source else each for each in _sources(nodes[name])]
    assert graph_of(changed).fingerprint == graph_of(nodes).fingerprint


@given(chains())
def test_all_nodes_of_a_connected_graph_are_reachable_and_follow_what_they_read(nodes: dict[str, Any]) -> None:
    graph = graph_of(nodes)
    assert graph.reachable == set(nodes)
    seen = {INPUT}
    for node in graph.nodes:
        assert set(node.inputs) <= seen
        seen.add(node.name)
    assert sorted(graph.edges()) == sorted(
        [(s, n, i) for n, node in nodes.items() for i, s in enumerate(_sources(node))] + [(graph.output, "output", 0)]
    )


def two(first: dict[str, Any], second: dict[str, Any]) -> tuple[str, str]:
    return graph_of({"a": first}).fingerprint, graph_of({"a": second}).fingerprint


def test_parameters_that_come_to_the_same_have_one_fingerprint() -> None:
    same = two({"block": "conv", "width": 7, "kernel": 3}, {"block": "conv", "width": 7, "kernel": 3, "padding": 1})
    assert same[0] == same[1]
    same = two({"block": "conv", "width": 7, "kernel": 1}, {"block": "conv", "width": 7, "kernel": 1, "dilation": 3})
    assert same[0] == same[1]


def test_which_port_a_value_enters_matters() -> None:
    parts = {"a": {"block": "conv", "width": 5}, "b": {"block": "act", "from": INPUT}}
    there = graph_of({**parts, "c": {"block": "concat", "from": ["a", "b"]}})
    back = graph_of({**parts, "c": {"block": "concat", "from": ["b", "a"]}})
    assert there.fingerprint != back.fingerprint


def test_two_calls_of_equal_blocks_are_not_one_call_read_twice() -> None:
    conv = {"block": "conv", "width": 5, "from": INPUT}
    twice = graph_of({"a": conv, "b": conv, "c": {"block": "add", "from": ["a", "b"]}})
    once = graph_of({"a": conv, "c": {"block": "add", "from": ["a", "a"]}})
    assert twice.fingerprint != once.fingerprint


def test_the_input_shape_and_the_classes_are_part_of_the_fingerprint() -> None:
    base = networks.resnet20()
    assert base.fingerprint != networks.resnet20(shape=(3, 17, 13)).fingerprint
    assert base.fingerprint != networks.resnet20(classes=11).fingerprint
    assert len(base.fingerprint) == 32


def test_a_dead_node_is_not_reachable_and_not_in_the_fingerprint() -> None:
    alone = graph_of({"a": {"block": "conv", "width": 7}})
    dead = graph_of({"x": {"block": "conv", "width": 11}, "a": {"block": "conv", "width": 7, "from": INPUT}})
    assert "x" not in dead.reachable
    assert alone.fingerprint == dead.fingerprint


def test_a_diamond_of_fifty_is_walked_in_no_time() -> None:
    # Two paths a step: 2^50 of them, were a value visited once for each.
    nodes: dict[str, Any] = {"n0": {"block": "act"}}
    for index in range(1, 50):
        nodes[f"n{index}"] = {"block": "add", "from": [f"n{index - 1}"] * 2}
    assert len(graph_of(nodes).canonical) == 51


def test_places_are_nodes_scopes_and_the_input_in_graph_order() -> None:
    places = list(networks.resnet20().places)
    assert places[:4] == ["input", "stem.conv", "stem.bn", "stem"]
    assert places.index("stage1") == places.index("stage1.2.act") - 2
    assert {"stage1", "stage1.0", "stage2.0.shortcut", "head"} <= set(places)


def test_a_scope_holds_its_nodes_and_not_those_of_a_longer_name() -> None:
    nodes = {f"stage{n}": {"block": "basic", "width": 5, "repeat": 2} for n in (1, 11)}
    graph = graph_of(nodes)
    assert len(graph.in_scope("stage1")) == 2 * 8
    assert [node.name for node in graph.in_scope("stage1.0.conv1")] == ["stage1.0.conv1"]
    assert graph.in_scope("stage") == []


def test_a_dotted_name_within_a_composite_opens_a_scope() -> None:
    graph = graph_of({"b": {"block": "basic", "width": 7}})
    assert graph.scopes["b.shortcut"] == "b.shortcut.bn"
    assert [node.name for node in graph.in_scope("b.shortcut")] == ["b.shortcut.conv", "b.shortcut.bn"]


def test_a_parameter_that_acts_once_acts_on_the_first_of_a_repeat() -> None:
    graph = graph_of({"b": {"block": "basic", "width": 7, "repeat": 3, "stride": 2, "shortcut": "pad"}})
    strides = [graph.by_name[f"b.{index}.conv1"].params.stride for index in range(3)]  # type: ignore[attr-defined]
    assert strides == [2, 1, 1]
    assert graph.shape(graph.output) == (7, 6, 7)


@pytest.mark.parametrize("name", ["a", "stage1.half", "train", "graph", "code", "self", "stage1.forward"])
def test_a_name_is_given_once_and_hides_nothing_of_pytorch(name: str) -> None:
    builder = GraphBuilder((CHANNELS, 11, 13), 7)
    act: Any = find("act")
    builder.place("a", act, act.Params(), (INPUT,))
    with pytest.raises(GraphError, match=f"'{name}'"):
        builder.place(name, act, act.Params(), (INPUT,))


@pytest.mark.parametrize("name", ["stage1.graph", "stage1.code", "stage1.self", "train1", "graphs"])
def test_a_name_that_hides_nothing_where_it_stands_is_allowed(name: str) -> None:
    builder = GraphBuilder((CHANNELS, 11, 13), 7)
    act: Any = find("act")
    assert builder.place(name, act, act.Params(), (INPUT,)) == name


def place(block: str, shape: tuple[int, ...], **params: Any) -> None:
    kind: Any = find(block)
    GraphBuilder(shape, 7).place("x", kind, kind.Params(**params), (INPUT,))


@pytest.mark.parametrize(
    ("block", "shape", "params", "words"),
    [
        ("conv", (3, 11, 13), {"width": 10**12}, "values in its parameters or output; at most 2,147,483,648"),
        ("conv", (3, 11, 13), {"width": 2**62}, "overflow"),
        ("conv", (3, 11, 13), {"width": 10**30}, "width has more than 63 bits"),
        ("linear", (3, 11, 13), {"width": 5}, "global_pool"),
        ("conv", (3, 2, 2), {"width": 5, "kernel": 7, "padding": 0}, "do not fit"),
        ("multi_head_attention", (17, 2, 3), {"heads": 8}, "8 heads do not divide 17 channels"),
        ("add", (3, 2, 3), {}, "joins two or more inputs and was given 1"),
    ],
)
def test_an_impossible_node_is_named_with_its_shape(
    block: str, shape: tuple[int, ...], params: dict[str, Any], words: str
) -> None:
    with pytest.raises(GraphError, match=f"node 'x'.*{words}"):
        place(block, shape, **params)


def test_shapes_that_cannot_meet_are_both_named() -> None:
    problems = networks.messages(
        "graph:\n  a: {block: conv, width: 5}\n  b: {block: conv, width: 7}\n  c: {block: add, from: [a, b]}\n"
    )
    assert len(problems) == 1
    assert "node 'c' (add), reading (5, 13, 17) from a and (7, 13, 17) from b" in problems[0]


def test_a_graph_has_a_largest_number_of_nodes() -> None:
    act: Any = find("act")
    builder = GraphBuilder((3,), 7)
    builder.nodes = dict.fromkeys(range(MOST_NODES))  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="more than 20,000 nodes; the last was 'x'"):
        builder.place("x", act, act.Params(), (INPUT,))


class Refuses(Composite):
    name = "refuses"

    @classmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
        raise ValueError("an odd number of channels")


class Misuses(Composite):
    name = "misuses"

    @classmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
        return scope.add("conv", "conv", *inputs, width=0)


def test_what_a_composite_refuses_names_its_node() -> None:
    builder = GraphBuilder((3, 11, 13), 7)
    with pytest.raises(GraphError, match=r"node 'x' \(refuses\): an odd number of channels"):
        builder.place("x", Refuses, BlockParams(), (INPUT,))
    with pytest.raises(GraphError, match=r"node 'x.conv' \(conv\): width"):
        builder.place("x", Misuses, BlockParams(), (INPUT,))


def test_a_graph_can_be_pickled_and_copied() -> None:
    graph = networks.resnet20("a: {block: cbam, reduction: 8, at: after stage*, residual: weighted}")
    for other in (pickle.loads(pickle.dumps(graph)), copy.deepcopy(graph)):
        assert other.fingerprint == graph.fingerprint
        assert [node.name for node in other.nodes] == [node.name for node in graph.nodes]


def test_shapes_are_inferred_without_touching_the_random_state() -> None:
    before = torch.get_rng_state()
    place("conv", (3, 23, 29), width=31)
    assert torch.equal(torch.get_rng_state(), before)


@settings(max_examples=20)
@given(chains())
def test_the_diagram_has_a_box_for_each_node_and_an_arrow_for_each_edge(nodes: dict[str, Any]) -> None:
    graph = graph_of(nodes)
    lines = mermaid(graph).splitlines()
    assert sum("<br/>" in line for line in lines) == len(nodes)
    assert sum("-->" in line for line in lines) == len(list(graph.edges()))


def test_the_diagram_closes_every_scope_and_marks_insertions() -> None:
    text = mermaid(networks.resnet20("a: {block: se, at: after stage1}"))
    lines = [line.strip() for line in text.splitlines()]
    assert lines.count("end") == sum(line.startswith("subgraph") for line in lines) > 0
    assert sum("stage1_a<br/>se 16×13×17" in line for line in lines) == 1
    assert sum(line.startswith("class n") and line.count(",") == 0 for line in lines) == 1
