"""Every block × every kind of place × every residual kind: a network of its own, or an error in words.

A new block is tried everywhere, with its defaults, as one that reads an image and keeps its shape. One that is
otherwise, or that needs a parameter, has a line in the tables below.
"""

from __future__ import annotations

import pickle
import re
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ablate.block import Block, BlockType, registry
from ablate.builder import build
from ablate.costing import cost_of
from ablate.graph import Graph, GraphError
from ablate.insert import At, Insertion, InsertionError, Residual, insert
from ablate.passes import Probe, called_problems, first_pass, gradient_check
from ablate.trainable import Trainable
from tests.networks import graph, messages

CHANNELS = 7
PARAMS: dict[str, dict[str, Any]] = {
    "act": {"kind": "tanh"},
    "attention_augmented_conv": {"width": CHANNELS, "dk": 6, "dv": 4, "heads": 2},
    "basic": {"act": "silu"},
    "bottleneck": {"expansion": 1},
    "channel_multi_head_attention": {"heads": 1},
    "group_norm": {"groups": CHANNELS},
    "multi_head_attention": {"heads": CHANNELS},
    "norm_act": {"act": "silu"},
    "parallel_attention": {"blocks": ["simam", "spatial_gate"]},
    "pre_activation_bottleneck": {"expansion": 1},
    "token_attention": {"heads": CHANNELS},
    "transformer": {"heads": CHANNELS},
}
"""Beside a width of 7, which keeps the shape, for what must be given: what the defaults can't be on 7 channels, and
what makes a block another than those of the trunk."""

TOKENS_ONLY = {"class_token", "linear", "mlp", "position_embedding", "token_attention", "token_pool", "transformer"}
"""Blocks that read tokens (N, D) and refuse an image (C, H, W)."""
ANY = {
    "act",
    "drop_path",
    "dropout",
    "identity",
    "layer_norm",
    "layer_scale",
    "scale",
}
"""Blocks that read either. All others read images alone."""
CHANGING = {
    "avg_pool",
    "class_token",
    "classifier",
    "convnext_downsample",
    "dense_layer",
    "global_pool",
    "max_pool",
    "patch_embed",
    "token_classifier",
    "token_pool",
    "transition",
    "upsample",
}
"""Blocks that give another shape than they read: no residual can join them, and not every place can hold them."""

RESIDUALS = (
    Residual("none"),
    Residual("plain"),
    Residual("weighted", 0.3),
    Residual("weighted", 0.3, "channel"),
)
PLACES = {
    "after a node": "after body.{}.conv1",
    "after a scope": "after body.{}",
    "before a node": "before body.{}.conv2",
    "before a scope": "before body.{}",
    "before a port": "before body.{}.add:shortcut",
    "replace": "replace body.{}.act1",
}
MAPS = """
graph:
  stem: {block: conv, width: 7, kernel: 3}
  body: {block: basic, width: 7, repeat: 3}
  head: {block: classifier}
"""
TOKEN_PLACES = {
    "after a node": "after body.{}.norm1",
    "after a scope": "after body.{}",
    "before a node": "before body.{}.norm2",
    "before a scope": "before body.{}",
    "before a port": "before body.{}.add1:shortcut",
    "replace": "replace body.{}.mlp",
}
TOKENS = """
graph:
  stem: {block: patch_embed, width: 7, patch: 3}
  body: {block: transformer, heads: 7, mlp_ratio: 1.0, repeat: 3}
  head: {block: token_classifier}
"""

ALL = {name: block for name, block in registry().items() if block.__module__.startswith("ablate.blocks.")}
SINGLE = {name: block for name, block in ALL.items() if len(block.ports) == 1 and not block.variadic}
JOINING = {name: block for name, block in ALL.items() if name not in SINGLE}


@dataclass(frozen=True)
class Trunk:
    """A tiny network of three equal blocks."""

    graph: Graph
    places: dict[str, str]


@cache
def trunk(kind: str) -> Trunk:
    text, places = (MAPS, PLACES) if kind == "maps" else (TOKENS, TOKEN_PLACES)
    return Trunk(graph(text, shape=(3, 9, 6), classes=5), places)


def reads(name: str, kind: str) -> bool:
    return name in ANY or (name in TOKENS_ONLY) == (kind == "tokens")


def params_of(block: BlockType) -> Any:
    needed = {name: CHANNELS for name, info in block.Params.model_fields.items() if info.is_required()}
    return block.Params(**{**needed, **PARAMS.get(block.name, {})})


def insertion(name: str, block: BlockType, place: str, index: int, residual: Residual) -> Insertion:
    return Insertion(name, block, params_of(block), (At.parse(place.format(index)),), residual)


def alone(kind: str, block: BlockType, place: str, residual: Residual) -> Graph:
    """The trunk with the block at one place."""
    own = trunk(kind)
    return insert(own.graph, [insertion("it", block, own.places[place], 1, residual)])


def everywhere(kind: str, block: BlockType) -> Graph:
    """The trunk with the block at every kind of place, two in each of its blocks, and with every kind of residual."""
    own = trunk(kind)
    return insert(
        own.graph,
        [
            insertion(f"it{number}", block, place, number // 2, RESIDUALS[number % len(RESIDUALS)])
            for number, place in enumerate(own.places.values())
        ],
    )


def trunks(keeping: bool) -> list[Any]:
    """Each block with one input, on each trunk that it reads; those that keep the shape, or the others."""
    return [
        pytest.param(block, kind, id=f"{name}-{kind}")
        for name, block in SINGLE.items()
        for kind in ("maps", "tokens")
        if (name not in CHANGING) == keeping and reads(name, kind)
    ]


def is_identity(block: BlockType, shape: tuple[int, ...]) -> bool:
    return issubclass(block, Block) and block.is_identity(params_of(block), shape)


@pytest.mark.parametrize(("block", "kind"), trunks(keeping=True))
def test_each_place_and_residual_is_a_network_of_its_own(block: BlockType, kind: str) -> None:
    base = trunk(kind).graph
    found: dict[str, list[tuple[str, str]]] = {}
    for place, residual in product(PLACES, RESIDUALS):
        made = alone(kind, block, place, residual)
        assert made.shape(made.output) == base.shape(base.output)
        if residual.kind == "none" and place != "replace" and is_identity(block, base.shape("stem")):
            assert made.fingerprint == base.fingerprint
        else:
            found.setdefault(made.fingerprint, []).append((place, f"{residual.kind} {residual.per}"))
    assert base.fingerprint not in found
    assert [places for places in found.values() if len(places) > 1] == []


@pytest.mark.parametrize(("block", "kind"), trunks(keeping=True))
def test_at_all_places_at_once_it_builds_counts_trains_and_pickles(block: BlockType, kind: str) -> None:
    made = everywhere(kind, block)
    network = build(made, seed=3)
    counted = cost_of(made)
    assert counted.params == sum(parameter.numel() for parameter in network.parameters())
    assert len(counted.by_insertion()) == len(PLACES)
    assert counted.uncounted == {}
    again = pickle.loads(pickle.dumps(made))
    assert again.fingerprint == made.fingerprint == everywhere(kind, block).fingerprint
    x, y = batch()
    assert torch.equal(pickle.loads(pickle.dumps(network)).eval()(x), network.eval()(x))
    assert trains(made, x, y) == []


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(17)
    return torch.randn(8, 3, 9, 6, generator=generator), torch.arange(8) % 5


def trains(made: Graph, x: Tensor, y: Tensor) -> list[str]:
    """What keeps a network from training: nodes that are not called, losses that are none, what has no gradient."""
    probe, network = Probe(3, Trainable()), build(made, seed=3)
    problems = called_problems(probe, network, made, x)
    problems += first_pass(probe, network, x, y, F.cross_entropy)[1]
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    torch.optim.SGD(network.parameters(), lr=0.1).step()
    moved = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
    if not moved:
        problems.append("nothing moves in the first step")
    return [*problems, *gradient_check(probe, network, made, x, y)["without"]]


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("kind", ["maps", "tokens"])
def test_what_can_not_stand_somewhere_is_refused_in_words(name: str, kind: str) -> None:
    if reads(name, kind) and name not in CHANGING:
        return
    block = SINGLE[name]
    said: list[str] = []
    for place, residual in product(PLACES, RESIDUALS):
        try:
            alone(kind, block, place, residual)
        except (InsertionError, GraphError) as error:
            said.append(str(error))
        else:
            assert reads(name, kind), f"'{name}' reads {kind}: say so in the tables of this file"
            assert residual.kind == "none", f"'{name}' keeps the shape at {place}: take it out of CHANGING"
    assert all(re.fullmatch(r"node '\S+' \(\w+\)(, reading .+?)?: .+", text) for text in said), said


@pytest.mark.parametrize("name", sorted(CHANGING))
def test_what_changes_the_shape_stands_somewhere_without_a_residual(name: str) -> None:
    block = SINGLE[name]
    stands = []
    for kind, place in product(("maps", "tokens"), PLACES):
        try:
            stands.append(alone(kind, block, place, RESIDUALS[0]))
        except (InsertionError, GraphError):
            continue
    ends = {"transition", "classifier", "global_pool", "token_classifier", "token_pool", "patch_embed", "class_token"}
    assert stands or name in ends


@pytest.mark.parametrize("name", JOINING)
def test_what_joins_is_refused_at_one_value_and_stands_for_another_join(name: str) -> None:
    said = messages(MAPS + f"insert: {{it: {{block: {name}, at: after body.0}}}}\n")
    assert any("joins several inputs and can't be inserted at one" in message for message in said)
    own = trunk("maps")
    block = JOINING[name]
    places = (At.parse("replace body.*.add"),)
    made = insert(own.graph, [Insertion("it", block, params_of(block), places)])
    x, y = batch()
    assert cost_of(made).params == sum(parameter.numel() for parameter in build(made).parameters())
    assert trains(made, x, y) == []
    with pytest.raises(InsertionError, match="which is the residual"):
        insert(own.graph, [Insertion("it", block, params_of(block), places, Residual("plain"))])


def test_the_tables_name_blocks_that_there_are() -> None:
    assert {*PARAMS, *TOKENS_ONLY, *ANY, *CHANGING} <= ALL.keys()


COMPOSITES = [name for name, block in SINGLE.items() if not issubclass(block, Block) and name not in CHANGING]


@pytest.mark.parametrize("name", COMPOSITES)
def test_a_network_with_a_composite_exports(name: str) -> None:
    """Leaves are exported one by one in their own contract."""
    text = TOKENS if name in TOKENS_ONLY else MAPS
    small = graph("\n".join(line for line in text.splitlines() if "body" not in line), shape=(3, 9, 6), classes=5)
    block = SINGLE[name]
    assert_exports(insert(small, [insertion("it", block, "after stem", 0, RESIDUALS[3])]))


@pytest.mark.slow
@pytest.mark.parametrize(("block", "kind"), trunks(keeping=True))
def test_every_network_exports_and_trains_alone(block: BlockType, kind: str) -> None:
    x, y = batch()
    for place, residual in product(PLACES, RESIDUALS):
        made = alone(kind, block, place, residual)
        assert trains(made, x, y) == []
    assert_exports(everywhere(kind, block))


def assert_exports(made: Graph) -> None:
    network, (x, _) = build(made, seed=3).eval(), batch()
    exported = torch.export.export(network, (x,)).module()
    torch.testing.assert_close(exported(x), network(x))
