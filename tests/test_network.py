from __future__ import annotations

from typing import Any

import networks
import pytest

from ablate import yamlfile
from ablate.collect import Collector
from ablate.errors import Place, UserError
from ablate.network import MOST_ENTRIES, Network, read_network

CHAIN = "graph:\n  a: {block: conv, width: 5}\n  b: {block: conv, width: 7}\n"


def one(section: str, removed: frozenset[str] = frozenset()) -> str:
    """The only problem of a section."""
    (problem,) = networks.messages(section, removed)
    return problem


def layered(
    section: str, changes: dict[str, str], layer: str = "mix=none", removed: frozenset[str] = frozenset()
) -> Any:
    """A network section of which another layer wrote the nodes (or the parameters ``node.key``) in ``changes``."""
    tree = yamlfile.loads("network:\n" + "".join(f"  {line}\n" for line in section.splitlines()), "spec.yaml")
    for path, text in changes.items():
        *scopes, last = ["network", *path.split(".")]
        parent: Any = tree
        for scope in scopes:
            parent = parent[scope]
        parent[last] = yamlfile.loads(text, "level") if ":" in text else yamlfile.parse_value(text)
        place = Place("spec.yaml", 1, 1, layer)
        parent.keys_at.setdefault(last, place)
        parent.values_at[last] = place
    collector = Collector(tree)
    return read_network(tree["network"], (3, 13, 17), 7, collector, removed), collector


def nodes(found: Network | None) -> dict[str, tuple[str, ...]]:
    assert found is not None
    return {node.name: node.inputs for node in found.graph.nodes}


def test_a_chain_needs_no_wiring_and_its_last_node_is_the_output() -> None:
    found = networks.network(CHAIN + "  c: {block: act}\n")
    assert nodes(found) == {"a": ("input",), "b": ("a",), "c": ("b",)}
    assert found.graph.output == "c"


def test_from_names_one_input_or_several_by_node_scope_or_inner_node() -> None:
    found = networks.network(
        "graph:\n  s: {block: basic, width: 5, repeat: 2, shortcut: pad}\n"
        "  a: {block: act, from: s.0.bn1}\n  b: {block: act, from: s.0}\n  c: {block: act, from: $input}\n"
        "  d: {block: concat, from: [a, b, s, c]}\n"
    )
    wiring = nodes(found)
    assert wiring["a"] == ("s.0.bn1",)
    assert wiring["b"] == ("s.0.act",)
    assert wiring["c"] == ("input",)
    assert wiring["d"] == ("a", "b", "s.1.act", "c")
    assert found.graph.by_name["d"].ports == ("input0", "input1", "input2", "input3")


def test_nodes_stand_as_written_wherever_their_inputs_allow_it() -> None:
    found = networks.network(
        CHAIN.replace("width: 7", "width: 7, from: late") + "  late: {block: act, from: a}\n"
        "  side: {block: conv, width: 7, from: input}\n  end: {block: add, from: [b, side]}\n"
    )
    assert list(nodes(found)) == ["a", "late", "b", "side", "end"]


def test_a_reversed_chain_of_two_thousand_is_put_in_order() -> None:
    count = MOST_ENTRIES
    section = {f"n{i}": {"block": "identity", "from": f"n{i + 1}" if i < count - 1 else "input"} for i in range(count)}
    found, collector = networks.read({"graph": {**section, "n0": section["n0"]}})
    assert found is not None
    assert not collector.problems
    assert [node.name for node in found.graph.nodes] == [f"n{i}" for i in reversed(range(count))]


@pytest.mark.parametrize(
    ("graph", "cycle"),
    [
        ("  a: {block: act, from: a}\n", ["a → a"]),
        ("  a: {block: act, from: b}\n  b: {block: act, from: a}\n", ["a → b → a", "b → a → b"]),
        ("  x: {block: act}\n  a: {block: add, from: [x, b]}\n  b: {block: act, from: a.inner}\n", ["a → b → a"]),
        ("  b: {block: act, from: a}\n  a: {block: act, from: c}\n  c: {block: act, from: a}\n", ["a → c → a"]),
    ],
)
def test_a_cycle_is_named(graph: str, cycle: list[str]) -> None:
    problem = one("graph:\n" + graph)
    assert any(f"a cycle: {each}" in problem for each in [*cycle, *(" → ".join(c.split(" → ")[::-1]) for c in cycle)])


def test_repeat_makes_scopes_of_one_too() -> None:
    found = networks.network(
        "graph:\n  s: {block: conv, width: 5, stride: 2, repeat: 3}\n  t: {block: act, repeat: 1}\n"
    )
    assert list(nodes(found)) == ["s.0", "s.1", "s.2", "t.0"]
    assert [node.shape for node in found.graph.nodes] == [(5, 7, 9)] * 4
    assert found.graph.repeats == {"s": 3, "t": 1}


@pytest.mark.parametrize(
    "count", ["0", "-1", "1001", "1000000000", "2.0", "'3'", "true", ".nan", "[2]", "$k", "1" + "0" * 500]
)
def test_a_repeat_is_a_whole_number_from_1_to_1000(count: str) -> None:
    problem = one(f"params: {{k: 10000}}\ngraph:\n  a: {{block: act, repeat: {count}}}\n")
    assert "is not a whole number from 1 to 1000" in problem
    assert len(problem) < 200


def test_numbers_may_be_expressions_of_parameters() -> None:
    section = (
        "params: {k: 3, width: 5*$k}\ngraph:\n  a: {block: conv, width: $width + 2, repeat: $k - 1, kernel: 2*$k + 1}\n"
    )
    found = networks.network(section)
    assert list(nodes(found)) == ["a.0", "a.1"]
    assert found.graph.shape("a.1") == (17, 13, 17)
    assert networks.network(section.replace("k: 3,", "k: 3.0,")).graph.fingerprint == found.graph.fingerprint


def test_an_expression_that_is_not_whole_suggests_to_round_it() -> None:
    problem = one("params: {k: 1}\ngraph:\n  a: {block: conv, width: 5*$k/2}\n")
    assert "'5*$k/2' is 2.5, not a whole number; write round(5*$k/2)" in problem


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ("{k: relu}", "'relu' is not a number"),
        ("{k: true}", "true is not a number"),
        ("{k: 2*$k}", "no parameter '$k' here"),
        ("{k: 2*$later, later: 1}", "no parameter '$later' here"),
        ("{k: 9**9*$k}", "is not an expression"),
        ("[1]", "a list is not a mapping of names to numbers"),
    ],
)
def test_a_parameter_is_a_number(params: str, words: str) -> None:
    assert words in one(f"params: {params}\n{CHAIN}")


def test_a_width_of_six_hundred_digits_is_a_problem_and_no_traceback() -> None:
    for text in ("$k", "2*$k", "1" + "0" * 600):
        assert networks.messages(f"params: {{k: 1{'0' * 600}}}\ngraph:\n  a: {{block: conv, width: {text}}}\n") != []


HOSTILE_NAMES = [
    "forward",
    "train",
    "eval",
    "half",
    "type",
    "to",
    "__class__",
    "__init__",
    "_modules",
    "_parameters",
    "training",
    "graph",
    "code",
    "meta",
    "recompile",
    "print_readable",
    "add_submodule",
    "self",
    "_graph",
    "for",
    "class",
    "None",
    "lambda",
    "input",
    "output",
    "a.b",
    "a-b",
    "1a",
    "é",
    "a b",
    "$x",
    "../x",
    "a" * 65,
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_a_name_that_python_or_pytorch_needs_is_refused(name: str) -> None:
    (problem,) = networks.messages({"graph": {name: {"block": "conv", "width": 5}}})
    assert f"'{name}'" in problem


@pytest.mark.parametrize("name", ["for", "a.b", "", "a b", "input", "a" * 65])
def test_an_insertions_name_obeys_the_same_rule(name: str) -> None:
    section = {"graph": {"a": {"block": "conv", "width": 5}}, "insert": {name: {"block": "se", "at": "after a"}}}
    (problem,) = networks.messages(section)
    assert f"'{name}'" in problem


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ("5", "5 is not a node; write {block: NAME, …}"),
        ("null", "null is not a node"),
        ("{width: 5}", "graph.x.block: missing: which block?"),
        ("{block: 5}", "5 is not a block's name"),
        ("{block: cnov, width: 5}", "unknown block 'cnov'; did you mean 'conv'?"),
        ("{block: conv}", "graph.x.width: missing"),
        ("{block: conv, width: 5, kernal: 3}", "unknown parameter of block 'conv'; did you mean 'kernel'?"),
        ("{block: conv, width: 5, form: a}", "unknown parameter of block 'conv'; did you mean 'from'?"),
        ("{block: conv, width: null}", "a parameter never takes null"),
        ("{block: conv, width: 3.7}", "3.7 is not a whole number"),
        ("{block: conv, width: '8'}", "remove the quotes"),
        ("{block: conv, width: 0}", "0 is too small"),
        ("{block: conv, width: 5, kernel: 4}", "kernel 4 is even"),
        ("{block: conv, width: 5, from: []}", "an empty list"),
        ("{block: conv, width: 5, from: stem}", "no node 'stem'"),
        ("{block: conv, width: 5, from: 7}", "no node '7'"),
        ("{block: conv, width: 5, from: null}", "no node 'None'"),
        ("{block: conv, width: 5, from: [a, b]}", "'conv' takes 1 input(s) and was given 2"),
        ("{block: add, from: a}", "joins two or more inputs and was given 1"),
        ("{block: act, from: a.conv}", "no node 'a.conv'"),
        ("{block: act, from: input.x}", "no node 'input.x'"),
    ],
)
def test_a_faulty_node_is_one_problem(node: str, words: str) -> None:
    assert words in one(f"{CHAIN}  x: {node}\n")


@pytest.mark.parametrize(
    ("insertion", "words"),
    [
        ("5", "5 is not an insertion; write {block: NAME, at: after PATTERN}"),
        ("{block: se}", "insert.x.at: missing: where?"),
        ("{block: se, at: []}", "an empty list"),
        ("{block: se, at: [after a, 5]}", "5 is no place"),
        ("{block: se, at: a}", "'a' is no place; write 'after PATTERN'"),
        ("{block: es, at: after a}", "unknown block 'es'"),
        ("{block: add, at: after a}", "'add' joins several inputs and can't be inserted at one"),
        ("{block: se, at: after a, reducton: 8}", "unknown parameter of block 'se'; did you mean 'reduction'?"),
        ("{block: se, at: after a, rank: first}", "'first' is not a whole number"),
        ("{block: se, at: after a, rank: true}", "true is not a whole number"),
        ("{block: se, at: after a, residual: both}", "'both' is not one of: none, plain, weighted"),
        ("{block: se, at: after a, residual: {kind: plain, init: 1.0}}", "a plain residual has no weight"),
        ("{block: se, at: after a, residual: {kind: weighted, init: .inf}}", ".inf is not a finite number"),
        ("{block: se, at: after a, residual: null}", "insert.x.residual"),
        ("{block: se, at: after c}", "pattern 'c' matches nothing; nearest: a, b"),
        ("{block: se, at: [after a, after c]}", "insert.x.at.1: pattern 'c' matches nothing"),
    ],
)
def test_a_faulty_insertion_is_one_problem(insertion: str, words: str) -> None:
    assert words in one(f"{CHAIN}insert:\n  x: {insertion}\n")


def test_everything_that_is_wrong_is_said_at_once_with_its_place() -> None:
    problems = networks.messages(
        "grahp: {}\nparams: {k: x}\ngraph:\n  a: {block: conv, width: 5, kernal: 3}\n  for: {block: act}\n"
        "insert:\n  x: {block: se, at: behind a, rank: 1.5, reduction: 0}\n"
    )
    places = [problem.split(": ")[0] for problem in problems]
    assert set(places) == {
        "spec.yaml:2:3",
        "spec.yaml:3:15",
        "spec.yaml:5:32",
        "spec.yaml:6:5",
        "spec.yaml:8:24",
        "spec.yaml:8:40",
        "spec.yaml:8:56",
    }


def test_a_pattern_without_match_is_said_beside_the_insertions_other_mistakes() -> None:
    problems = networks.messages(
        CHAIN + "insert:\n  x: {block: se, at: after c, reducton: 8}\n  y: {block: act, at: after d}\n"
    )
    assert len(problems) == 3
    assert "spec.yaml:6:30" in problems[1] or "spec.yaml:6:30" in problems[0]  # of the pattern, within its text


@pytest.mark.parametrize("section", ["graph: null\n", "graph: {}\n", "graph: [a]\n", "params: {}\n"])
def test_a_network_has_a_graph(section: str) -> None:
    assert "network.graph" in one(section)


def test_a_mapping_has_a_largest_number_of_entries() -> None:
    graph = {f"n{index}": {"block": "act"} for index in range(MOST_ENTRIES + 1)}
    (problem,) = networks.messages({"graph": graph})
    assert "2,001 entries; at most 2,000" in problem


def test_a_graph_of_a_million_nodes_is_refused() -> None:
    graph = {f"n{index}": {"block": "identity", "repeat": 1000} for index in range(1000)}
    (problem,) = networks.messages({"graph": graph})
    assert "more than 20,000 nodes; the last was 'n20.0'" in problem


def test_the_init_recipe_is_read() -> None:
    assert networks.network(CHAIN).init.recipe == "kaiming_fan_out"
    assert networks.network(CHAIN + "init: {recipe: torch_default}\n").init.recipe == "torch_default"
    assert "network.init.recipe" in one(CHAIN + "init: {recipe: zeros}\n")


PATHS = CHAIN + (
    "  p: {block: se, from: b}\n  q: {block: act, from: b}\n  r: {block: act, kind: tanh, from: b}\n"
    "  mix: {block: JOIN, from: [p, q, r]}\n  end: {block: batch_norm}\n"
)


def without(join: str, *names: str) -> tuple[str, frozenset[str]]:
    lines = [line for line in PATHS.replace("JOIN", join).splitlines() if line.split(":")[0].strip() not in names]
    return "\n".join(lines) + "\n", frozenset(names)


@pytest.mark.parametrize("join", ["add", "concat"])
def test_a_removed_node_disappears_from_a_join(join: str) -> None:
    section, removed = without(join, "q")
    found, _ = networks.read(section, removed=removed)
    assert nodes(found)["mix"] == ("p", "r")


@pytest.mark.parametrize("join", ["add", "concat"])
def test_a_join_with_one_input_left_is_bypassed(join: str) -> None:
    section, removed = without(join, "q", "r")
    found, _ = networks.read(section, removed=removed)
    assert nodes(found)["end"] == ("p",)
    assert "mix" not in nodes(found)
    plain = networks.graph(CHAIN + "  p: {block: se}\n  end: {block: batch_norm}\n")
    assert found is not None
    assert found.graph.fingerprint == plain.fingerprint


def test_a_bypassed_join_can_be_the_output_and_can_be_read_by_name() -> None:
    section, removed = without("add", "q", "r", "end")
    found, _ = networks.read(section, removed=removed)
    assert found is not None
    assert found.graph.output == "p"
    section, removed = without("add", "q", "r")
    found, _ = networks.read(section.replace("batch_norm", "batch_norm, from: mix"), removed=removed)
    assert nodes(found)["end"] == ("p",)


def test_an_inner_node_of_what_was_removed_disappears_too() -> None:
    section = CHAIN + "  c: {block: act}\n  mix: {block: add, from: [c, gone.0.conv2]}\n"
    found, _ = networks.read(section, removed=frozenset({"gone"}))
    assert nodes(found) == {"a": ("input",), "b": ("a",), "c": ("b",)}


def test_a_join_that_lost_everything_is_an_error() -> None:
    section, removed = without("concat", "p", "q", "r")
    assert "everything that 'mix' reads was removed; remove it too" in one(section, removed)


def test_another_block_that_reads_a_removed_node_is_an_error() -> None:
    for source in ("gone", "gone.conv"):
        problem = one(f"{CHAIN}  c: {{block: act, from: {source}}}\n", frozenset({"gone"}))
        assert f"'{source}' was removed and 'c' reads it; say from: again" in problem


def test_the_node_after_a_removed_one_reads_the_node_before_it() -> None:
    found, _ = networks.read("graph:\n  a: {block: conv, width: 5}\n  c: {block: act}\n", removed=frozenset({"b"}))
    assert nodes(found)["c"] == ("a",)


def test_a_node_that_was_removed_and_written_again_is_there() -> None:
    section, _ = without("add", "q")
    found, _ = networks.read(section.replace("  mix", "  q: {block: act, from: b}\n  mix"), removed=frozenset({"q"}))
    assert nodes(found)["mix"] == ("p", "q", "r")


def test_a_node_that_a_patch_adds_must_say_what_it_reads() -> None:
    _, collector = layered(CHAIN, {"graph.c": "{block: act}"})
    assert [problem.path for problem in collector.problems] == ["network.graph.c"]
    assert collector.problems[0].hint == "add from: NAME"


def test_a_node_that_a_patch_adds_is_neither_the_output_nor_what_the_next_reads() -> None:
    section = CHAIN + "  end: {block: add, from: [a, extra]}\n".replace("[a, extra]", "[b, b]")
    found, collector = layered(section, {"graph.extra": "{block: conv, width: 7, from: a}"})
    assert not collector.problems
    assert found.graph.output == "end"
    found, _ = layered(section, {"graph.extra": "{block: conv, width: 7, from: a}", "graph.end.from": "[b, extra]"})
    assert nodes(found)["end"] == ("b", "extra")
    assert list(nodes(found)) == ["a", "b", "extra", "end"]


def test_a_patch_that_replaces_a_node_adds_none() -> None:
    found, collector = layered(CHAIN, {"graph.b": "{block: conv, width: 11}"})
    assert not collector.problems
    assert nodes(found)["b"] == ("a",)
    assert found.graph.output == "b"


def test_a_parameter_orphaned_by_a_patch_of_the_block_is_dropped_and_listed() -> None:
    section = CHAIN + "insert:\n  x: {block: se, reduction: 3, bias: false, at: after a}\n"
    found, collector = layered(section, {"insert.x.block": "cbam"})
    assert not collector.problems
    assert [(orphan.path, orphan.value, orphan.layer) for orphan in collector.orphans] == [
        ("network.insert.x.bias", False, "spec")
    ]
    assert found.graph.by_name["a_x"].effective["hidden"] == 1


def test_an_unknown_parameter_of_the_layer_that_chose_the_block_is_an_error() -> None:
    section = CHAIN + "insert:\n  x: {block: se, reduction: 3, at: after a}\n"
    _, collector = layered(section, {"insert.x": "{block: cbam, bias: false, at: after a}"})
    assert [problem.path for problem in collector.problems] == ["network.insert.x.bias"]
    _, collector = layered(section, {"insert.x.block": "cbam", "insert.x.bias": "false"})
    assert [problem.path for problem in collector.problems] == ["network.insert.x.bias"]
    assert collector.orphans == []


def test_problems_are_raised_in_the_order_of_their_places() -> None:
    _, collector = networks.read("graph:\n  for: {block: act}\n  a: {block: x}\nparams: {k: x}\n")
    with pytest.raises(UserError) as caught:
        collector.raise_if_any()
    lines = [problem.place.line for problem in caught.value.problems if problem.place]
    assert lines == sorted(lines) == [3, 4, 5]
