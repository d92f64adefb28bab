"""``network.blocks``: composites that a spec declares."""

from __future__ import annotations

import pickle

import networks
import pytest
import torch

from ablate.builder import build

UNIT = """
blocks:
  unit:
    params: {width: 5, stride: {default: 1, repeat: first}, norm: batch_norm}
    graph:
      conv1: {block: conv, width: $width, stride: $stride}
      bn1: {block: $norm}
      act1: {block: act}
      conv2: {block: conv, width: $width}
      bn2: {block: $norm}
      shortcut: {block: conv, from: $input, width: $width, kernel: 1, stride: $stride}
      add: {block: add, from: [bn2, shortcut]}
      act: {block: act}
graph:
"""
BASIC = "graph:\n  a: {block: basic, width: 11, stride: 2, repeat: 3}\n  head: {block: classifier}\n"


def only(section: str) -> str:
    (message,) = networks.messages(section)
    return message


def test_a_declared_composite_is_the_network_that_the_built_in_one_is() -> None:
    section = UNIT.replace(
        "shortcut: {block: conv, from: $input, width: $width, kernel: 1, stride: $stride}",
        "project: {block: conv, from: $input, width: $width, kernel: 1, stride: $stride}\n"
        "      shortcut: {block: batch_norm}",
    )
    declared = networks.graph(section + "  a: {block: unit, width: 11, stride: 2}\n  head: {block: classifier}\n")
    built_in = networks.graph("graph:\n  a: {block: basic, width: 11, stride: 2}\n  head: {block: classifier}\n")
    assert declared.fingerprint == built_in.fingerprint
    names = {"a.project.weight": "a.shortcut.conv.weight"}
    ours, theirs = build(declared).eval(), build(built_in).eval()
    ours.load_state_dict(
        {
            name: theirs.state_dict()[names.get(name, name.replace("a.shortcut.", "a.shortcut.bn."))]
            for name in ours.state_dict()
        }
    )
    x = torch.randn(2, 3, 13, 17)
    assert torch.equal(ours(x), theirs(x))


def test_its_nodes_stand_in_its_scope_and_a_stride_acts_on_the_first_of_a_repeat() -> None:
    graph = networks.graph(UNIT + "  a: {block: unit, stride: 2, repeat: 2}\n")
    assert graph.by_name["a.0.conv1"].params.stride == 2  # type: ignore[attr-defined]
    assert graph.by_name["a.1.conv1"].params.stride == 1  # type: ignore[attr-defined]
    assert graph.by_name["a.1.add"].inputs == ("a.1.bn2", "a.1.shortcut")
    assert graph.scopes["a"] == "a.1.act"


def test_a_parameter_may_be_a_blocks_name() -> None:
    graph = networks.graph(UNIT + "  a: {block: unit, norm: identity}\n")
    assert [node.block.name for node in graph.nodes if "bn" in node.name] == ["identity", "identity"]


def test_in_is_what_arrives_and_classes_are_the_datas() -> None:
    section = "blocks: {squeeze: {graph: {a: {block: conv, width: 3*$in}, b: {block: conv, width: $classes}}}}\n"
    graph = networks.graph(section + "graph: {one: {block: squeeze}, two: {block: squeeze}}\n", classes=7)
    assert [node.shape[0] for node in graph.nodes] == [9, 7, 21, 7]


def test_a_composite_is_inserted_like_any_block() -> None:
    section = (
        "blocks: {gate: {params: {r: 4}, graph: {fc: {block: conv, width: $in//$r}, up: {block: conv, width: $r}}}}\n"
    )
    graph = networks.graph(
        section + "graph: {stem: {block: conv, width: 8}}\ninsert: {g: {block: gate, r: 2, at: after stem}}\n"
    )
    assert [(node.name, node.shape[0], node.insertion) for node in graph.nodes[1:]] == [
        ("stem_g.fc", 4, "g"),
        ("stem_g.up", 2, "g"),
    ]


def test_a_graph_of_declared_composites_travels_to_another_process() -> None:
    section = UNIT + "  a: {block: unit, width: 11, stride: 2}\n  head: {block: classifier}\n"
    section += "insert: {u: {block: unit, width: 11, at: after a}}\n"
    graph = networks.graph(section)
    assert pickle.loads(pickle.dumps(graph)).fingerprint == graph.fingerprint


def test_composites_hold_one_another_wherever_they_stand() -> None:
    section = (
        "blocks:\n  outer: {graph: {x: {block: inner, repeat: 2}}}\n  inner: {graph: {c: {block: conv, width: 5}}}\n"
    )
    graph = networks.graph(section + "graph: {a: {block: outer}}\n")
    assert [node.name for node in graph.nodes] == ["a.x.0.c", "a.x.1.c"]


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ("unit: {graph: {a: {block: unit}}}", "a block can't hold itself: unit → unit"),
        ("unit: {graph: {a: {block: b}}}\n  b: {graph: {a: {block: unit}}}", "can't hold itself: unit → b → unit"),
        ("unit: {graph: {a: {block: conv, widht: 5}}}", "unknown parameter of block 'conv'; did you mean 'width'?"),
        ("unit: {graph: {a: {block: konv}}}", "unknown block 'konv'; did you mean 'conv'?"),
        ("unit: {graph: {a: {block: conv, width: $w}}}", "no parameter '$w' here"),
        ("unit: {params: {w: {}}, graph: {a: {block: conv, width: $w}}}", "network.graph.a.w: missing"),
        ("unit: {grahp: {}}", "unknown key; did you mean 'graph'?"),
        ("unit: {params: {classes: 3}, graph: {a: {block: act}}}", "$classes has a meaning of its own"),
        ("unit: {params: {repeat: 3}, graph: {a: {block: act}}}", "'repeat' is a key of nodes and insertions"),
        ("unit: {params: {s: {repeat: first}}, graph: {a: {block: act}}}", "needs a default for the others"),
        ("unit: {graph: {a: {block: add, from: [$input, b]}}}", "no node 'b'"),
        ("unit: {graph: {a: {block: conv, width: $in/2}}}", "'$in/2' is 1.5, not a whole number; write round($in/2)"),
        ("conv: {graph: {a: {block: act}}}\n  unit: {graph: {a: {block: act}}}", "'conv' is a built-in block"),
        ("unit: 3", "3 is not a composite"),
        ("unit: {params: {w: [1]}, graph: {a: {block: act}}}", "a list is not a number, text, true or false"),
    ],
)
def test_what_is_wrong_with_a_composite_is_said_at_its_place(blocks: str, words: str) -> None:
    messages = networks.messages(f"blocks:\n  {blocks}\ngraph: {{a: {{block: unit}}}}\n")
    assert any(words in message for message in messages), messages
    assert all(message.startswith("spec.yaml:") for message in messages)


def test_a_mistake_in_a_composite_that_is_placed_twice_is_said_once() -> None:
    section = "blocks: {unit: {graph: {a: {block: conv, width: 2.5}}}}\ngraph: {a: {block: unit}, b: {block: unit}}\n"
    assert "network.blocks.unit.graph.a.width: 2.5 is not a whole number" in only(section)


def test_a_parameter_keeps_the_type_of_its_default() -> None:
    section = (
        "blocks: {unit: {params: {w: 5}, graph: {a: {block: conv, width: $w}}}}\ngraph: {a: {block: unit, w: X}}\n"
    )
    assert "'7' is text, a whole number was expected" in only(section.replace("X", "'7'"))
    assert "7.5 is not a whole number" in only(section.replace("X", "7.5"))


def test_a_networks_parameter_reaches_a_composite_only_by_its_parameters() -> None:
    section = "params: {k: 2}\nblocks: {unit: {params: {w: 5}, graph: {a: {block: conv, width: %s}}}}\n"
    graph = networks.graph(section % "$w" + "graph: {a: {block: unit, w: 3*$k}}\n")
    assert graph.by_name["a.a"].shape[0] == 6
    assert "no parameter '$k' here" in networks.messages(section % "$k" + "graph: {a: {block: unit, w: 3*$k}}\n")[0]


def test_a_node_that_a_patch_removes_disappears_from_the_composites_sum() -> None:
    section = UNIT.replace(
        "      shortcut: {block: conv, from: $input, width: $width, kernel: 1, stride: $stride}\n", ""
    )
    found, collector = networks.read(
        section + "  a: {block: unit, width: 5}\n", removed=frozenset({"unit/shortcut", "unit/other"})
    )
    assert not collector.problems
    assert found is not None
    assert [node.name for node in found.graph.nodes] == ["a.conv1", "a.bn1", "a.act1", "a.conv2", "a.bn2", "a.act"]
