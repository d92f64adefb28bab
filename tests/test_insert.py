from __future__ import annotations

import copy
from typing import Any

import networks
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_graph import CHANNELS, chains, graph_of

from ablate.graph import INPUT, Graph
from ablate.insert import At, insert, selected

SIZE = (CHANNELS, 11, 13)


def names(graph: Graph, insertion: str) -> list[str]:
    return [node.name for node in graph.insertion_nodes(insertion)]


def written(graph: str, insert: str = "") -> Graph:
    return networks.graph(f"graph:\n{graph}" + (f"insert:\n{insert}" if insert else ""), SIZE)


def test_two_insertions_at_one_place_both_act_in_the_order_written() -> None:
    graph = networks.resnet20("a: {block: se, at: after stage1}\nb: {block: cbam, at: after stage1}")
    assert graph.by_name["stage1_a"].inputs == ("stage1.2.act",)
    assert graph.by_name["stage1_b"].inputs == ("stage1_a",)
    assert graph.by_name["stage2.0.conv1"].inputs == ("stage1_b",)
    assert graph.by_name["stage2.0.shortcut"].inputs == ("stage1_b",)


def test_rank_overrides_the_order_written() -> None:
    graph = networks.resnet20("a: {block: se, at: after stage1, rank: 1}\nb: {block: cbam, at: after stage1}")
    assert graph.by_name["stage1_b"].inputs == ("stage1.2.act",)
    assert graph.by_name["stage1_a"].inputs == ("stage1_b",)
    swapped = networks.resnet20("b: {block: cbam, at: after stage1}\na: {block: se, at: after stage1}")
    assert graph.fingerprint == swapped.fingerprint


def test_at_one_edge_after_comes_before_before_whatever_was_written_first() -> None:
    graph = networks.resnet20("b: {block: cbam, at: before stage2}\na: {block: se, at: after stage1}")
    assert graph.by_name["stage1_a"].inputs == ("stage1.2.act",)
    assert graph.by_name["stage2_in_b"].inputs == ("stage1_a",)


def test_after_a_stage_and_before_the_next_are_one_network() -> None:
    after = networks.resnet20("a: {block: se, at: after stage1}")
    before = networks.resnet20("a: {block: se, at: before stage2}")
    assert names(after, "a") == ["stage1_a"]
    assert names(before, "a") == ["stage2_in_a"]
    assert after.fingerprint == before.fingerprint
    both = {("stage2.0.conv1", 0), ("stage2.0.shortcut", 0)}
    assert {(consumer, port) for source, consumer, port in before.edges() if source == "stage2_in_a"} == both


def test_after_a_scope_its_last_block_and_its_last_node_are_one_place() -> None:
    prints = {
        networks.resnet20(f"a: {{block: se, at: after {place}}}").fingerprint
        for place in ("stage1", "stage1.2", "stage1.-1", "stage1.2.act", "stage1.-1.act")
    }
    assert len(prints) == 1
    union = networks.resnet20("a: {block: se, at: [after stage1, after stage1.2.act, before stage2]}")
    assert names(union, "a") == ["stage1_a"]


def test_before_convolutions_leaves_the_shortcut_alone() -> None:
    graph = networks.resnet20("gate: {block: ai_gate, at: before stage*.*.conv*}")
    assert len(names(graph, "gate")) == 18
    for stage, block in ((1, 0), (2, 0), (3, 2)):
        scope = f"stage{stage}.{block}"
        source = graph.by_name[f"{scope}.conv1_in_gate"].inputs
        assert graph.by_name[f"{scope}.conv1"].inputs == (f"{scope}.conv1_in_gate",)
        assert graph.by_name[f"{scope}.shortcut"].inputs == source


def test_one_port_of_a_join_can_be_named() -> None:
    graph = networks.resnet20("a: {block: se, at: before stage*.*.add:branch}")
    add = graph.by_name["stage2.0.add"]
    assert add.inputs == ("stage2.0.add_in_branch_a", "stage2.0.shortcut")
    assert graph.by_name["stage2.0.add_in_branch_a"].inputs == ("stage2.0.bn2",)
    other = networks.resnet20("a: {block: se, at: before stage*.*.add:shortcut}")
    assert other.by_name["stage2.0.add"].inputs == ("stage2.0.bn2", "stage2.0.add_in_shortcut_a")
    assert graph.fingerprint == networks.resnet20("a: {block: se, at: after stage*.*.bn2}").fingerprint
    assert graph.fingerprint != other.fingerprint


def test_before_a_join_every_port_has_an_insertion_of_its_own() -> None:
    graph = networks.resnet20("a: {block: se, at: before stage1.0.add}")
    assert names(graph, "a") == ["stage1.0.add_in_branch_a", "stage1.0.add_in_shortcut_a"]


def test_one_port_of_two_that_read_one_value_leaves_the_other_alone() -> None:
    graph = written(
        "  c: {block: conv, width: 7}\n  d: {block: add, from: [c, c]}\n", "  a: {block: se, at: 'before d:branch'}"
    )
    assert graph.by_name["d"].inputs == ("d_in_branch_a", "c")
    both = written("  c: {block: conv, width: 7}\n  d: {block: add, from: [c, c]}\n", "  a: {block: se, at: before d}")
    assert both.by_name["d"].inputs == ("d_in_a", "d_in_a")


def test_a_list_of_places_is_a_union() -> None:
    graph = networks.resnet20("a: {block: se, at: [after stage1, after stage*, before stage3.-1.conv2]}")
    assert names(graph, "a") == ["stage1_a", "stage2_a", "stage3.2.conv2_in_a", "stage3_a"]


def test_minus_one_is_the_last_block_of_each_stage() -> None:
    graph = networks.resnet20("a: {block: se, at: after stage*.-1.bn2}")
    assert names(graph, "a") == [f"stage{stage}.2.bn2_a" for stage in (1, 2, 3)]


def test_patterns_do_not_see_what_other_insertions_added() -> None:
    graph = networks.resnet20("a: {block: se, at: after stage1}\nb: {block: cbam, at: after stage1*}")
    assert names(graph, "b") == ["stage1_b"]


def test_after_the_input_and_before_the_head_are_places() -> None:
    graph = networks.resnet20("a: {block: spatial_gate, at: [after input, before head]}")
    assert graph.by_name["stem.conv"].inputs == ("input_a",)
    assert graph.by_name["head.pool"].inputs == ("head_in_a",)


def test_after_the_last_node_is_a_place() -> None:
    graph = networks.resnet20("a: {block: linear, width: 5, at: after head}")
    assert graph.output == "head_a"
    assert graph.shape(graph.output) == (5,)


def test_the_insertion_that_serves_more_consumers_comes_first() -> None:
    graph = networks.resnet20("one: {block: se, at: before stage2.0.conv1}\nall: {block: cbam, at: before stage2}")
    assert graph.by_name["stage2.0.conv1_in_one"].inputs == ("stage2_in_all",)
    assert graph.by_name["stage2.0.shortcut"].inputs == ("stage2_in_all",)


@pytest.mark.parametrize(("kind", "nodes"), [("none", 1), ("plain", 2), ("weighted", 2)])
def test_a_residual_adds_its_join(kind: str, nodes: int) -> None:
    graph = networks.resnet20(f"a: {{block: self_attention, at: after stage1, residual: {kind}}}")
    assert len(names(graph, "a")) == nodes
    if nodes == 2:
        join = graph.by_name["stage1_a_residual"]
        assert join.ports == ("branch", "shortcut")
        assert join.inputs == ("stage1_a", "stage1.2.act")
        assert graph.by_name["stage2.0.conv1"].inputs == ("stage1_a_residual",)


def test_a_weighted_residual_takes_its_first_value_and_its_kind() -> None:
    residual = "{kind: weighted, init: 0.5, per: channel}"
    graph = networks.resnet20(f"a: {{block: se, at: after stage2, residual: {residual}}}")
    assert graph.by_name["stage2_a_residual"].effective == {"kind": "weighted", "init": 0.5, "per": "channel"}


def test_reduction_8_and_16_differ_at_16_channels_where_16_and_32_do_not() -> None:
    def at_stage1(reduction: int, block: str = "se", extra: str = "") -> Graph:
        return networks.resnet20(f"a: {{block: {block}, reduction: {reduction}, at: after stage1{extra}}}")

    for block in ("se", "cbam", "channel_gate", "ai_gate"):
        eight, sixteen, thirty_two = (at_stage1(reduction, block) for reduction in (8, 16, 32))
        assert [g.by_name["stage1_a"].effective["hidden"] for g in (eight, sixteen, thirty_two)] == [2, 1, 1]
        assert eight.fingerprint != sixteen.fingerprint
        assert sixteen.fingerprint == thirty_two.fingerprint
        none = at_stage1(32, block, ", min_hidden: 0")
        assert none.by_name["stage1_a"].effective["hidden"] == 0
        assert none.fingerprint not in (sixteen.fingerprint, eight.fingerprint)
    everywhere = [networks.resnet20(f"a: {{block: se, reduction: {r}, at: after stage*}}") for r in (16, 32)]
    assert everywhere[0].fingerprint != everywhere[1].fingerprint
    assert everywhere[1].by_name["stage1_a"].notes == ("reduction 32 on 16 channels → hidden width 1",)


@pytest.mark.parametrize("place", ["after stages*", "before stage4", "after stage1.0.conv3", "after stage*.9"])
def test_a_pattern_that_matches_nothing_names_the_nearest(place: str) -> None:
    with pytest.raises(ValueError, match="matches nothing; nearest: stage"):
        selected(networks.resnet20(), At.parse(place))


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("before stage*.*.add:brunch", r"'stage1.0.add' \(add\) has no port 'brunch'; it has branch, shortcut"),
        ("before stage1:branch", "'stage1' is a scope and has no ports"),
        ("before input", "nothing comes before the input"),
    ],
)
def test_a_place_that_is_none_says_why(place: str, words: str) -> None:
    problems = networks.messages(networks.RESNET20 + f"insert:\n  a: {{block: se, at: '{place}'}}\n")
    assert len(problems) == 1
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(problems[0])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "after",
        "stage1",
        "behind stage1",
        "after stage1 stage2",
        "after stage1:branch",
        "before stage1:",
        "before :x",
        "After stage1",
        "after stage1..2",
        "after " + "a" * 10000,
        "after " + "(" * 10000,
    ],
)
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        At.parse(text)


@pytest.mark.parametrize("text", ["after stage*", "before stage*.*.add:branch", "after stage1.-1"])
def test_a_place_is_written_as_it_was_read(text: str) -> None:
    assert str(At.parse(text)) == text


def test_a_new_shape_that_nothing_adapts_to_names_the_node_and_both_shapes() -> None:
    problems = networks.messages(networks.RESNET20 + "insert: {a: {block: conv, width: 23, at: after stage1.0}}\n")
    assert len(problems) == 1
    assert "node 'stage1.1.add' (add)" in problems[0]
    assert "(16, 13, 17) from stage1.1.bn2" in problems[0]
    assert "(23, 13, 17) from stage1.1.shortcut" in problems[0]


def test_a_new_shape_to_which_everything_adapts_is_a_network() -> None:
    graph = networks.resnet20("a: {block: conv, width: 23, stride: 2, at: after stage3}")
    assert graph.by_name["head.fc"].shapes == ((23,),)


def test_a_residual_around_a_new_shape_is_an_error() -> None:
    problems = networks.messages(
        networks.RESNET20 + "insert: {a: {block: conv, width: 23, at: after stage3, residual: plain}}\n"
    )
    assert "stage3_a_residual" in problems[0]
    assert "(23, 4, 5)" in problems[0]
    assert "(64, 4, 5)" in problems[0]


def test_an_insertion_that_the_output_does_not_depend_on_is_an_error() -> None:
    dead = "graph:\n  a: {block: conv, width: 5}\n  b: {block: act}\n  c: {block: conv, width: 7, from: a}\ninsert:\n"
    for place in ("after b", "before b"):
        problems = networks.messages(dead + f"  x: {{block: se, at: {place}}}\n")
        assert len(problems) == 1
        assert "'b' has no effect: the output does not depend on it" in problems[0]
    assert networks.messages(dead + "  x: {block: se, at: after a}\n") == []


def test_two_things_of_one_name_are_an_error() -> None:
    for block, other in (("conv_bn_act, width: 5", "se"), ("conv, width: 5", "conv_bn_act, width: 5")):
        problems = networks.messages(
            f"graph:\n  a: {{block: act}}\n  a_b: {{block: {block}}}\ninsert:\n  b: {{block: {other}, at: after a}}\n"
        )
        assert len(problems) == 1
        assert "two nodes are called 'a_b'" in problems[0]


def test_an_insertion_may_not_take_the_name_of_a_method() -> None:
    problems = networks.messages(
        "graph:\n  register: {block: act}\ninsert:\n  buffer: {block: act, kind: tanh, at: after register}\n"
    )
    assert len(problems) == 1
    assert "register_buffer" in problems[0]


def test_a_composite_can_be_inserted() -> None:
    graph = networks.resnet20("a: {block: basic, width: 16, at: after stage1}")
    assert all(name.startswith("stage1_a.") for name in names(graph, "a"))
    assert graph.by_name["stage2.0.conv1"].inputs == ("stage1_a.act",)
    assert graph.places["stage1_a"] == "stage1_a.act"
    assert graph.places["stage1"] == "stage1.2.act"


_insertions = st.lists(
    st.tuples(
        st.sampled_from(["after", "before"]),
        st.integers(0, 99),
        st.sampled_from(["batch_norm", "act", "se"]),
        st.sampled_from(["none", "plain", "weighted"]),
        st.integers(-1, 1),
    ),
    min_size=1,
    max_size=4,
)


def _section(nodes: dict[str, Any], drawn: list[tuple[str, int, str, str, int]]) -> dict[str, Any]:
    return {
        f"i{index}": {
            "block": block,
            "at": f"{side} {list(nodes)[place % len(nodes)]}",
            "residual": residual,
            "rank": rank,
        }
        for index, (side, place, block, residual, rank) in enumerate(drawn)
    }


def _by_hand(nodes: dict[str, Any], insertions: dict[str, Any]) -> dict[str, Any]:
    """The same network with every insertion written out as nodes of the graph: one edge list, rewired step by step."""
    written = copy.deepcopy(nodes)
    for node in written.values():
        node["from"] = list(node["from"]) if isinstance(node["from"], list) else [node["from"]]
    output = list(nodes)[-1]
    ranked = sorted(insertions.items(), key=lambda item: item[1]["rank"])

    def graft(name: str, what: dict[str, Any], source: str) -> str:
        written[name] = {"block": what["block"], "from": [source]}
        if what["residual"] == "none":
            return name
        join = "add" if what["residual"] == "plain" else "residual"
        written[f"{name}_join"] = {"block": join, "from": [name, source]}
        return f"{name}_join"

    for source in nodes:
        value = source
        for name, what in ranked:
            if what["at"] == f"after {source}":
                value = graft(f"{source}_{name}", what, value)
        for consumer in nodes:
            written[consumer]["from"] = [value if each == source else each for each in written[consumer]["from"]]
        output = value if output == source else output
    for consumer in nodes:
        for source in dict.fromkeys(written[consumer]["from"]):
            value = source
            for name, what in ranked:
                if what["at"] == f"before {consumer}":
                    value = graft(f"{consumer}_{source}_{name}", what, value)
            written[consumer]["from"] = [value if each == source else each for each in written[consumer]["from"]]
    return {**written, "end_of_all": {"block": "identity", "from": output}}


@given(chains(), _insertions)
def test_insertions_equal_the_network_written_out_by_hand(nodes: dict[str, Any], drawn: Any) -> None:
    insertions = _section(nodes, drawn)
    graph = networks.graph({"graph": nodes, "insert": insertions}, SIZE)
    assert graph.fingerprint == graph_of(_by_hand(nodes, insertions)).fingerprint


@given(chains(), _insertions)
def test_every_insertion_is_reachable_and_the_graph_as_written_is_left_alone(nodes: dict[str, Any], drawn: Any) -> None:
    plain = graph_of(nodes)
    found = networks.network({"graph": nodes, "insert": _section(nodes, drawn)}, SIZE)
    assert {node.name for node in found.graph.nodes} == found.graph.reachable
    assert all(found.graph.insertion_nodes(f"i{index}") for index in range(len(drawn)))
    assert found.written.fingerprint == plain.fingerprint
    assert insert(found.written, []).canonical == plain.canonical


@given(chains(), _insertions, st.integers(0, 99))
def test_removing_an_insertion_restores_the_graph_without_it(nodes: dict[str, Any], drawn: Any, which: int) -> None:
    everything = networks.network({"graph": nodes, "insert": _section(nodes, drawn)}, SIZE)
    name = f"i{which % len(drawn)}"
    rest = _section(nodes, drawn)
    del rest[name]
    without = networks.graph({"graph": nodes, "insert": rest}, SIZE)
    kept = [insertion for insertion in everything.insertions if insertion.name != name]
    assert insert(everything.written, kept).nodes == without.nodes
    assert everything.graph.output == INPUT or len(everything.graph.nodes) > len(without.nodes)
