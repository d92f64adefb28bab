"""``replace``, ``$in`` and ``{linear: …}`` in insertions; ``network.init.set``."""

from __future__ import annotations

import networks
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ablate.builder import build

STAGES = """
graph:
  stem: {block: conv_bn_act, width: 6}
  a: {block: basic, width: 6, repeat: 2}
  b: {block: basic, width: 10, repeat: 2, stride: 2}
  head: {block: classifier}
"""


def only(section: str) -> str:
    (message,) = networks.messages(section)
    return message


def test_what_replaces_takes_over_width_and_stride_and_reads_what_was_read() -> None:
    graph = networks.graph(STAGES + "insert: {swap: {block: conv, kernel: 7, groups: 2, at: replace b.*.conv1}}\n")
    assert "b.0.conv1" not in graph.by_name
    node = graph.by_name["b.0.conv1_swap"]
    assert node.inputs == ("a.1.act",)
    assert (node.params.width, node.params.stride, node.params.kernel) == (10, 2, 7)  # type: ignore[attr-defined]
    assert graph.by_name["b.1.conv1_swap"].params.stride == 1  # type: ignore[attr-defined]
    assert graph.by_name["b.0.bn1"].inputs == ("b.0.conv1_swap",)


def test_what_the_spec_states_is_not_taken_over() -> None:
    graph = networks.graph("graph: {a: {block: conv, width: 5}}\ninsert: {s: {block: conv, width: 7, at: replace a}}\n")
    assert graph.shape(graph.output)[0] == 7
    assert graph.output == "a_s"


def test_a_scope_is_replaced_whole_with_its_width_and_stride() -> None:
    graph = networks.graph(STAGES + "insert: {plain: {block: conv_bn_act, at: replace b.0}}\n")
    assert not graph.in_scope("b.0")
    assert graph.by_name["b.0_plain.conv"].shape == networks.graph(STAGES).by_name["b.0.act"].shape
    assert graph.by_name["b.1.conv1"].inputs == ("b.0_plain.act",)
    assert graph.scopes["b"] == "b.1.act"


def test_a_whole_stage_is_replaced() -> None:
    graph = networks.graph(STAGES + "insert: {one: {block: conv, at: replace b}}\n")
    assert graph.by_name["head.pool"].inputs == ("b_one",)
    assert graph.by_name["b_one"].shape == (10, 7, 9)


def test_an_equal_block_in_the_place_of_another_is_the_same_network() -> None:
    graph = networks.graph(STAGES + "insert: {same: {block: conv, at: replace a.*.conv2}}\n")
    assert graph.fingerprint == networks.graph(STAGES).fingerprint


def test_a_sum_is_replaced_by_a_concatenation() -> None:
    section = "graph: {a: {block: act}, b: {block: act, from: input}, c: {block: add, from: [a, b]}}\n"
    graph = networks.graph(section + "insert: {cat: {block: concat, at: replace c}}\n")
    assert graph.shape(graph.output)[0] == 6


def test_after_and_before_act_on_what_replaces() -> None:
    graph = networks.graph(
        STAGES
        + "insert:\n  swap: {block: conv, kernel: 1, at: replace a.0.conv2}\n"
        + "  after: {block: se, reduction: 2, at: after a.0.conv2}\n"
        + "  before: {block: act, at: before a.0.conv2}\n"
    )
    assert graph.by_name["a.0.conv2_swap"].inputs == ("a.0.conv2_in_before",)
    assert graph.by_name["a.0.conv2_after"].inputs == ("a.0.conv2_swap",)
    assert graph.by_name["a.0.bn2"].inputs == ("a.0.conv2_after",)


def test_a_residual_around_what_replaces_adds_what_was_read() -> None:
    graph = networks.graph(STAGES + "insert: {s: {block: conv, at: replace a.0.conv2, residual: plain}}\n")
    assert graph.by_name["a.0.conv2_s_residual"].inputs == ("a.0.conv2_s", "a.0.act1")


@pytest.mark.parametrize(
    ("insert", "words"),
    [
        ("s: {block: conv, at: replace c}", "pattern 'c' matches nothing"),
        ("s: {block: conv, at: replace a.0.add:branch}", "a port belongs to 'before'"),
        ("s: {block: conv, width: 3, at: replace input}", "the input can't be replaced"),
        ("s: {block: act, at: replace a.0.add}", "takes 1 input(s) and was given 2"),
        ("s: {block: concat, at: replace a.0.add, residual: plain}", "which is the residual?"),
        ("s: {block: conv, at: replace a.0.bn1}", "network.insert.s.width: missing"),
        ("s: {block: conv, at: replace a.0}, t: {block: conv, at: replace a.0}", "'a.0' is replaced by 's'"),
        (
            "s: {block: conv, at: replace a.0}, t: {block: conv, at: replace a.0.conv1}",
            "'a.0.conv1' is inside 'a.0', which 's' replaces",
        ),
        (
            "s: {block: conv, at: replace a}, t: {block: act, at: after a.1.bn2}",
            "'a.1.bn2' is inside 'a', which 's' replaces",
        ),
    ],
)
def test_a_replacement_that_can_not_be_is_refused(insert: str, words: str) -> None:
    messages = networks.messages(f"{STAGES}insert: {{{insert}}}\n")
    assert any(words in message for message in messages), messages
    assert all(message.startswith("spec.yaml:") for message in messages)


def test_in_is_the_number_of_channels_at_each_place() -> None:
    graph = networks.graph(STAGES + "insert: {dw: {block: conv, width: $in, groups: $in, at: after (a|b)}}\n")
    assert [graph.by_name[f"{s}_dw"].params.groups for s in "ab"] == [6, 10]  # type: ignore[attr-defined]
    squeezed = networks.graph(STAGES + "insert: {one: {block: conv, width: 4, at: after a, rank: 0}}\n")
    assert squeezed.by_name["a_one"].shape[0] == 4


def test_in_counts_what_an_earlier_insertion_left() -> None:
    graph = networks.graph(
        STAGES + "insert:\n  x: {block: conv, width: 4, at: after b}\n  y: {block: conv, width: 2*$in, at: after b}\n"
    )
    assert graph.by_name["b_y"].shape[0] == 8


def test_linear_spreads_over_the_places_in_graph_order_and_not_in_the_order_of_the_list() -> None:
    graph = networks.graph(
        STAGES + 'insert: {d: {block: dropout, rate: {linear: [0, 0.3]}, at: ["after b.*.conv1", "after a.*.conv1"]}}\n'
    )
    rates = {node.name: node.params.rate for node in graph.insertion_nodes("d")}  # type: ignore[attr-defined]
    assert rates == pytest.approx({"a.0.conv1_d": 0.0, "a.1.conv1_d": 0.1, "b.0.conv1_d": 0.2, "b.1.conv1_d": 0.3})


@pytest.mark.parametrize(
    ("insert", "words"),
    [
        ("{block: se, reduction: $inn, at: after a}", "no parameter '$inn' here"),
        ("{block: conv, width: $in/4, at: after a}", "'$in/4' is 1.5, not a whole number; write round($in/4)"),
        ("{block: conv, width: $in-6, at: after a}", "0 is too small"),
        ("{block: dropout, rate: {linear: [0, 1, 2]}, at: after a}", "write {linear: [first, last]}"),
        ("{block: dropout, rate: {linear: [0, true]}, at: after a}", "write {linear: [first, last]}"),
        ("{block: dropout, rate: {linear: [0, 0.3], log: true}, at: after a}", "write {linear: [first, last]}"),
        ("{block: dropout, rate: {linear: [0, 2.0]}, at: after a.*}", "2 is too large"),
        ("{block: se, reduction: {linear: [4, 7]}, at: after (stem|a|b)}", "5.5 is not a whole number"),
    ],
)
def test_a_value_that_depends_on_the_place_is_checked_at_each_place(insert: str, words: str) -> None:
    message = only(f"{STAGES}insert: {{x: {insert}}}\n")
    assert words in message
    assert message.startswith("spec.yaml:")


def test_linear_is_refused_where_there_are_no_places() -> None:
    assert "linear spreads a value over places" in only("graph: {a: {block: dropout, rate: {linear: [0, 0.1]}}}\n")


@given(st.permutations(["x", "y", "z"]), st.permutations([0, 1, 2]))
def test_rank_decides_the_order_at_one_edge_whatever_was_written_first(names: list[str], ranks: list[int]) -> None:
    blocks = {"x": "se, reduction: 2", "y": "spatial_gate", "z": "act"}
    rank = dict(zip("xyz", ranks, strict=True))
    lines = "".join(f"  {name}: {{block: {blocks[name]}, at: after a, rank: {rank[name]}}}\n" for name in names)
    graph = networks.graph(f"{STAGES}insert:\n{lines}")
    wanted = [f"a_{name}" for name in sorted("xyz", key=rank.__getitem__)]
    assert [node.name for node in graph.nodes if node.insertion] == wanted
    assert [graph.by_name[b].inputs for b in wanted[1:]] == [(a,) for a in wanted[:-1]]


# ---- network.init ----


def start(section: str, node: str) -> dict[str, torch.Tensor]:
    found = networks.network(STAGES + section)
    network = build(found.graph, seed=3, recipe=found.init.recipe)
    return {name: parameter.detach() for name, parameter in network.get_submodule(node).named_parameters()}


def test_the_last_norms_start_at_zero_and_everything_else_as_before() -> None:
    plain = build(networks.graph(STAGES), seed=3).state_dict()
    zeroed = build(networks.graph(STAGES + 'init: {set: {"*.*.bn2": zero}}\n'), seed=3).state_dict()
    changed = {name for name in plain if not torch.equal(plain[name], zeroed[name])}
    assert changed == {f"{s}.bn2.weight" for s in ("a.0", "a.1", "b.0", "b.1")}
    assert all(not zeroed[name].any() for name in changed)


def test_weights_start_from_the_stated_distribution_and_biases_at_zero() -> None:
    normal = start("init: {set: {head.fc: {normal: 0.5}}}\n", "head.fc")
    assert normal["weight"].std() == pytest.approx(0.5, rel=0.2)
    assert not normal["bias"].any()
    cut = start("init: {set: {b.1.conv1: {trunc_normal: 0.25}}}\n", "b.1.conv1")["weight"]
    assert 0.4 < cut.abs().max() <= 0.5
    assert (start("init: {set: {a.0.bn1: {constant: 0.5}}}\n", "a.0.bn1")["weight"] == 0.5).all()


def test_a_node_may_start_by_another_recipe_than_the_network() -> None:
    own = start("init: {set: {b.0.conv1: kaiming_fan_in}}\n", "b.0.conv1")["weight"]
    whole = start("init: {recipe: kaiming_fan_in}\n", "b.0.conv1")["weight"]
    assert torch.equal(own, whole)
    assert not torch.equal(own, start("", "b.0.conv1")["weight"])


def test_the_recipe_of_vision_transformers_is_a_normal_of_002_cut_at_two_deviations() -> None:
    found = start("init: {recipe: trunc_normal}\n", "head.fc")
    assert found["weight"].abs().max() <= 0.04
    assert not found["bias"].any()
    assert found["weight"].std() == pytest.approx(
        nn.init.trunc_normal_(torch.empty(100_000), std=0.02, a=-0.04, b=0.04).std(), rel=0.3
    )


def test_a_start_names_a_scope_and_what_is_inserted() -> None:
    graph = networks.graph(
        STAGES + "insert: {s: {block: se, reduction: 2, at: after a}}\ninit: {set: {a_s: zero, head: {normal: 0.1}}}\n"
    )
    assert [node.name for node in graph.nodes if node.start] == ["a_s", "head.fc"]


def test_how_parameters_start_belongs_to_the_fingerprint_and_texts_that_mean_the_same_do_not_differ() -> None:
    plain = networks.graph(STAGES).fingerprint
    one = networks.graph(STAGES + 'init: {set: {"*.*.bn2": zero}}\n').fingerprint
    other = networks.graph(STAGES + 'init: {set: {"(a|b).(0-1).bn2": {constant: 0.0}}}\n').fingerprint
    assert plain != one == other


@pytest.mark.parametrize(
    ("init", "words"),
    [
        ('{set: {"*.*.bn9": zero}}', "pattern '*.*.bn9' matches nothing; nearest: "),
        ("{set: {a.0.bn2: zerro}}", "zerro"),
        ("{set: {a.0.bn2: {normal: -1.0}}}", "-1.0 is too small"),
        ('{set: {a.0.bn2: zero, "a.*.bn2": zero}}', "'a.0.bn2' sets the start of 'a.0.bn2' already"),
        ("{recipe: kaiming}", "did you mean 'kaiming_fan_"),
    ],
)
def test_a_start_that_can_not_be_is_refused_at_its_place(init: str, words: str) -> None:
    messages = networks.messages(f"{STAGES}init: {init}\n")
    assert any(words in message for message in messages), messages
    assert all(message.startswith("spec.yaml:") for message in messages)


def test_another_block_in_the_place_of_a_bottleneck_puts_out_what_that_put_out() -> None:
    section = "graph:\n  stem: {block: conv_bn_act, width: 16}\n  a: {block: bottleneck, width: 4, repeat: 2}\n"
    graph = networks.graph(section + "insert: {s: {block: conv, at: replace a.1}}\n")
    assert graph.shape(graph.output)[0] == 16
    same = networks.graph(section + "insert: {s: {block: bottleneck, at: replace a.1}}\n")
    assert same.fingerprint == networks.graph(section).fingerprint


def test_a_start_that_nothing_takes_is_refused_and_the_networks_own_recipe_is_none() -> None:
    for init in ("{set: {a.0.act1: zero}}", "{set: {a.0.add: {normal: 1.0}}}", "{set: {a.0.bn1: kaiming_fan_in}}"):
        assert "has no effect: a.0." in only(f"{STAGES}init: {init}\n")
    plain = networks.graph(STAGES).fingerprint
    assert networks.graph(STAGES + "init: {set: {head.fc: kaiming_fan_out}}\n").fingerprint == plain
    assert networks.graph(STAGES + "init: {set: {head.fc: kaiming_fan_in}}\n").fingerprint != plain


def test_a_start_reaches_parameters_that_are_called_neither_weight_nor_bias() -> None:
    section = "graph:\n  patch: {block: patch_embed, width: 8, patch: 4}\n  position: {block: position_embedding}\n"
    graph = networks.graph(section + "init: {set: {position: {constant: 0.5}}}\n", (3, 12, 16))
    values = dict(build(graph).get_submodule("position").named_parameters())
    assert values
    assert all(bool((value == 0.5).all()) for value in values.values())


@pytest.mark.parametrize(
    ("insert", "words"),
    [
        ("x: {block: conv, width: 7, at: after a.0.bn2}", "network.insert.x: node 'a.0.add'"),
        ("x: {block: se, at: after head.pool}", "network.insert.x: node 'head.pool_x'"),
    ],
)
def test_a_shape_that_an_insertion_makes_impossible_is_said_of_that_insertion(insert: str, words: str) -> None:
    messages = networks.messages(f"{STAGES}insert: {{{insert}}}\n")
    assert [words in message for message in messages] == [True]
