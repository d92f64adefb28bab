"""``network.set`` and ``network.defaults``."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import networks
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.graph import Graph
from ablate.network.edits import spread

STAGES = """
graph:
  stem: {block: conv_bn_act, width: 5}
  a: {block: basic, width: 7, repeat: 2}
  b: {block: basic, width: 11, repeat: 3, stride: 2}
  head: {block: classifier}
"""


def only(section: str) -> str:
    (message,) = networks.messages(section)
    return message


def params(graph: Graph, key: str) -> dict[str, Any]:
    """Node → the parameter's value, of the nodes that have it."""
    return {node.name: getattr(node.params, key) for node in graph.nodes if hasattr(node.params, key)}


def test_set_changes_the_leaves_it_matches_and_no_others() -> None:
    before = params(networks.graph(STAGES), "kernel")
    after = params(networks.graph(STAGES + 'set: {"(a|b).*.conv2": {kernel: 7}}\n'), "kernel")
    assert {name for name in before if before[name] != after[name]} == {
        f"{s}.conv2" for s in ("a.0", "a.1", "b.0", "b.1", "b.2")
    }
    assert after["a.1.conv2"] == 7


def test_set_reaches_a_composites_call_and_a_whole_repeat() -> None:
    one = networks.graph(STAGES + "set: {b.1: {act: gelu}}\n")
    assert [name for name, kind in params(one, "kind").items() if kind == "gelu"] == ["b.1.act1", "b.1.act"]
    whole = networks.graph(STAGES + "set: {b: {width: 13, stride: 3}}\n")
    assert {node.shape[0] for node in whole.in_scope("b")} == {13}
    assert [whole.by_name[f"b.{i}.conv1"].params.stride for i in range(3)] == [3, 1, 1]  # type: ignore[attr-defined]


def test_the_last_of_a_repeat_can_be_named_from_the_end() -> None:
    graph = networks.graph(STAGES + 'set: {"*.-1.conv1": {kernel: 5}}\n')
    assert [name for name, kernel in params(graph, "kernel").items() if kernel == 5] == ["a.1.conv1", "b.2.conv1"]


def test_linear_spreads_over_the_matching_places_in_graph_order() -> None:
    graph = networks.graph(STAGES + 'set: {"(a|b).*.bn2": {momentum: {linear: [0.1, 0.5]}}}\n')
    found = [value for name, value in params(graph, "momentum").items() if name.endswith("bn2")]
    assert found == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def test_a_set_is_the_same_network_as_one_written_so() -> None:
    written = networks.graph(STAGES.replace("b: {block: basic, width: 11,", "b: {block: basic, width: 17,"))
    assert networks.graph(STAGES + "set: {b: {width: 17}}\n").fingerprint == written.fingerprint


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ('set: {"c.*": {width: 3}}', "pattern 'c.*' matches nothing; nearest: "),
        (
            "set: {a.0.conv1: {kernle: 3}}",
            "'a.0.conv1' is a 'conv', which has no parameter 'kernle'; did you mean 'kernel'?",
        ),
        ('set: {"a.*.(conv1|bn1)": {kernel: 5}}', "'a.0.bn1' is a 'batch_norm', which has no parameter 'kernel'"),
        ("set: {a.0.conv1: {kernel: 4}}", "kernel 4 is even"),
        ("set: {a.0.conv1: {kernel: 2.5}}", "kernel of 'a.0.conv1' (conv): 2.5"),
        ("set: {a.0.conv1: {width: $q}}", "no parameter '$q' here"),
        ("set: {a.0.conv1: {width: null}}", "a parameter never takes null"),
        ("set: {a.0.conv1: 3}", "3 is not a mapping of parameters to values"),
        ("set: {a..conv1: {kernel: 3}}", "an empty segment"),
        ('set: {a.0.conv1: {kernel: 3}, "a.*.conv1": {kernel: 5}}', "'a.0.conv1' sets kernel of 'a.0.conv1' already"),
        ("set: {a.0.bn1: {eps: {linear: [1]}}}", "no spread; write {linear: [first, last]}"),
        ("defaults: {epps: 0.1}", "no block has a parameter of this name; did you mean 'eps'?"),
        ("defaults: {batch_nrom: {eps: 0.1}}", "unknown block 'batch_nrom'; did you mean 'batch_norm'?"),
        ("defaults: {batch_norm: {epps: 0.1}}", "unknown parameter of block 'batch_norm'; did you mean 'eps'?"),
        ("defaults: {eps: -1.0}", "eps of 'stem.bn' (batch_norm): -1.0"),
        ("defaults: {eps: $q}", "no parameter '$q' here"),
    ],
)
def test_an_edit_that_can_not_be_is_refused_at_its_place(edit: str, words: str) -> None:
    messages = networks.messages(f"{STAGES}{edit}\n")
    assert any(words in message for message in messages), messages
    assert all(message.startswith("spec.yaml:") for message in messages)


def test_defaults_fill_what_is_left_open_and_nothing_that_is_stated() -> None:
    section = STAGES.replace("repeat: 2}", "repeat: 2, act: silu}") + "defaults: {act: gelu, batch_norm: {eps: 0.25}}\n"
    graph = networks.graph(section)
    kinds = params(graph, "kind")
    assert kinds["stem.act"] == "gelu"
    assert kinds["a.1.act1"] == "silu"
    assert kinds["b.2.act"] == "gelu"
    assert set(params(graph, "eps").values()) == {0.25}


def test_defaults_fill_a_required_parameter_and_what_is_inserted() -> None:
    graph = networks.graph(
        "graph: {a: {block: conv}, b: {block: conv, width: 7}}\ndefaults: {width: 5, reduction: 2}\n"
        "insert: {s: {block: se, at: after a}}\n"
    )
    assert [graph.by_name[name].shape[0] for name in "ab"] == [5, 7]
    assert graph.by_name["a_s"].params.reduction == 2  # type: ignore[attr-defined]


def test_a_blocks_own_default_goes_before_that_of_all() -> None:
    graph = networks.graph("graph: {a: {block: conv, width: 5}}\ndefaults: {kernel: 3, conv: {kernel: 7}}\n")
    assert graph.by_name["a"].params.kernel == 7  # type: ignore[attr-defined]


def test_set_goes_before_a_default() -> None:
    graph = networks.graph("graph: {a: {block: conv, width: 5}}\ndefaults: {kernel: 5}\nset: {a: {kernel: 7}}\n")
    assert graph.by_name["a"].params.kernel == 7  # type: ignore[attr-defined]


def test_insertions_see_the_graph_as_set_and_set_does_not_see_them() -> None:
    insert = "insert: {s: {block: se, reduction: 2, at: after a}}\n"
    graph = networks.graph(f"{STAGES}set: {{a: {{width: 13}}}}\n{insert}")
    assert graph.by_name["a_s"].shapes == ((13, 13, 17),)
    assert "pattern 'a_s' matches nothing" in only(f"{STAGES}set: {{a_s: {{reduction: 4}}}}\n{insert}")


@given(st.integers(1, 40), st.integers(-50, 50), st.integers(-50, 50))
def test_a_spread_begins_and_ends_where_it_says_in_equal_steps(count: int, first: int, last: int) -> None:
    values = [spread({"linear": [first, last]}, index, count) for index in range(count)]
    assert values[0] == first
    if count > 1:
        assert values[-1] == pytest.approx(last)
        steps = [b - a for a, b in pairwise(values)]
        assert steps == pytest.approx([(last - first) / (count - 1)] * (count - 1))


@given(st.permutations(["a.0.conv1", "a.1.conv2", "b.*.conv1", "stem.conv"]))
def test_disjoint_sets_do_not_depend_on_their_order(order: list[str]) -> None:
    kernels = {"a.0.conv1": 5, "a.1.conv2": 7, "b.*.conv1": 1, "stem.conv": 9}
    edits = "".join(f'  "{pattern}": {{kernel: {kernels[pattern]}}}\n' for pattern in order)
    wanted = "".join(f'  "{pattern}": {{kernel: {kernel}}}\n' for pattern, kernel in kernels.items())
    assert networks.graph(f"{STAGES}set:\n{edits}").fingerprint == networks.graph(f"{STAGES}set:\n{wanted}").fingerprint


def test_places_are_counted_on_the_graph_as_it_is_and_not_with_the_first_value_everywhere() -> None:
    graph = networks.graph(
        "graph:\n  c1: {block: conv, width: 8}\n  c2: {block: conv, width: 16}\n"
        "  s: {block: conv, width: 16, from: c1}\n  out: {block: add, from: [c2, s]}\n"
        'set: {"(c1|c2)": {width: {linear: [4, 16]}}}\n'
    )
    assert [graph.by_name[name].shape[0] for name in ("c1", "c2", "out")] == [4, 16, 16]
