"""Grad-CAM, attention and gates are those that the network computes, by other computations than the tool's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, fx
from torch.nn import functional as F

from ablate.blocks.attention._cbam_parts import ChannelAttention
from ablate.design import Variant, as_written
from ablate.errors import UserError
from ablate.explaining.cams import grad_cam, last_map, layer_of
from ablate.explaining.capturing import CHECKED, Seen, _token_grid, seen
from ablate.explaining.per_variant import AttentionMaps
from ablate.spec import load
from tests.conftest import REPOSITORY

DATA = {"name": "fake", "shape": [3, 6, 10], "classes": 5, "count": {"train": 8, "test": 8}}
TRAIN = {"epochs": 1, "batch_size": 4, "optimizer": {"name": "sgd", "lr": 0.1}}


def network(graph: dict[str, Any], seed: int = 3, **data: Any) -> tuple[fx.GraphModule, Variant]:
    """In evaluation mode, with random parameters, those included that start at 0."""
    spec = load({"name": "small", "data": {**DATA, **data}, "train": TRAIN, "network": {"graph": graph}})
    variant = as_written(spec)
    built = variant.network.built(seed).eval()
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=stream))
    return built, variant


def images(count: int, *shape: int) -> Tensor:
    return torch.randn(count, *(shape or (3, 6, 10)), generator=torch.Generator().manual_seed(7))


def look(graph: dict[str, Any], x: Tensor | None = None, **data: Any) -> tuple[fx.GraphModule, Variant, Seen, Tensor]:
    built, variant = network(graph, **data)
    x = images(3) if x is None else x
    nodes = frozenset(node.name for node in variant.network.graph.nodes)
    return built, variant, seen(built, variant.network.graph, x, nodes), x


def test_grad_cam_of_pooled_maps_before_a_linear_layer_is_the_class_activation_map() -> None:
    built, variant = network({"conv": {"block": "conv", "width": 7, "kernel": 3}, "head": {"block": "classifier"}})
    graph = variant.network.graph
    assert last_map(graph) == "conv"
    x, classes = images(4), torch.tensor([0, 4, 2, 2])
    found = grad_cam(built, graph, "conv", x, classes)
    maps = built.get_submodule("conv")(x)
    (weights,) = (p for name, p in built.named_parameters() if name.startswith("head.fc") and p.dim() == 2)
    # y_c = Σ_k w_ck mean_HW(A_k) + b_c: each gradient is w_ck / HW, and so is its mean
    wanted = (F.relu(torch.einsum("bk,bkhw->bhw", weights[classes], maps)) / (6 * 10)).detach()
    assert found.shape == (4, 6, 10)
    assert float(wanted.max()) > 0
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-4, atol=1e-7)


def test_grad_cam_within_a_network_is_that_of_autograd() -> None:
    built, variant = network(
        {
            "stem": {"block": "conv_bn_act", "width": 4, "kernel": 3},
            "mid": {"block": "basic", "width": 6, "stride": 2},
            "mix": {"block": "self_attention"},
            "head": {"block": "classifier"},
        }
    )
    graph = variant.network.graph
    name = layer_of(graph, "stem", "small")
    assert name is not None
    x, classes = images(3), torch.tensor([1, 0, 3])
    kept: list[Tensor] = []
    handle = built.get_submodule(name).register_forward_hook(lambda m, i, y: kept.append(y))
    scores = built(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(scores.gather(1, classes[:, None]).sum(), kept[0])
    wanted = F.relu((gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1))
    torch.testing.assert_close(torch.from_numpy(grad_cam(built, graph, name, x, classes)), wanted.detach())


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("self_attention", {"block": "self_attention"}),
        ("heads", {"block": "multi_head_attention", "heads": 4}),
        ("non_local", {"block": "non_local"}),
        ("non_local subsampled", {"block": "non_local", "subsample": True, "scale": True}),
        ("position", {"block": "position_attention", "reduction": 2}),
        ("channels", {"block": "channel_multi_head_attention", "heads": 2}),
        ("relative", {"block": "attention_augmented_conv", "width": 8, "heads": 2, "dk": 4, "dv": 4}),
    ],
)
def test_attention_matrices_are_the_blocks_own_and_give_its_output(name: str, block: dict[str, Any]) -> None:
    graph = {"stem": {"block": "conv", "width": 8, "kernel": 3}, "mix": block, "head": {"block": "classifier"}}
    built, _, found, x = look(graph)
    (attention,) = found.attention
    matrix = attention.matrix
    torch.testing.assert_close(matrix.sum(-1), torch.ones(matrix.shape[:-1]))
    read = built.get_submodule("stem")(x)
    torch.testing.assert_close(matrix, built.get_submodule("mix").attention(read), rtol=1e-4, atol=1e-6)  # type: ignore[operator]
    assert attention.apart is not None
    assert attention.apart < CHECKED
    expected = None if name == "channels" else (6, 10)
    assert attention.queries == expected
    assert attention.keys == ((3, 5) if name == "non_local subsampled" else expected)


def test_a_times_v_by_hand_is_the_output_of_self_attention() -> None:
    graph = {
        "stem": {"block": "conv", "width": 8, "kernel": 3},
        "mix": {"block": "self_attention"},
        "head": {"block": "classifier"},
    }
    built, _, found, x = look(graph)
    read, block = built.get_submodule("stem")(x), built.get_submodule("mix")
    values = block.value(read).flatten(2)  # type: ignore[operator]
    product = torch.einsum("bnm,bcm->bcn", found.attention[0].matrix[:, 0], values)
    torch.testing.assert_close(product, block(read).flatten(2), rtol=1e-4, atol=1e-5)


def test_a_call_that_is_not_softmax_attention_is_found_out() -> None:
    """What is computed from q, k and v is held against what came out: here that is twice as much."""
    from ablate.explaining import capturing

    q, k, v = (images(2, 2, 5, 4) for _ in range(3))
    found = F.scaled_dot_product_attention(q, k, v)
    assert float(capturing._recomputed(q, k, v, None, 0.5, found)[1]) < CHECKED
    assert float(capturing._recomputed(q, k, v, None, 0.5, 2 * found)[1]) == pytest.approx(0.5, rel=1e-3)


@pytest.mark.parametrize("form", ["dot_product", "concatenation"])
def test_attention_without_softmax_is_shown_as_the_block_gives_it(form: str) -> None:
    graph = {
        "stem": {"block": "conv", "width": 8, "kernel": 3},
        "mix": {"block": "non_local", "form": form},
        "head": {"block": "classifier"},
    }
    built, _, found, x = look(graph)
    (attention,) = found.attention
    assert attention.apart is None
    wanted = built.get_submodule("mix").attention(built.get_submodule("stem")(x))  # type: ignore[operator]
    torch.testing.assert_close(attention.matrix, wanted.detach())


def test_tokens_are_the_pixels_of_their_patches_behind_the_class_token() -> None:
    spec = load(REPOSITORY / "specs" / "models" / "vit_b_16.yaml", sets={"data": DATA, "train": TRAIN, **VIT})
    variant = as_written(spec)
    built = variant.network.built(0).eval()
    nodes = frozenset(node.name for node in variant.network.graph.nodes)
    found = seen(built, variant.network.graph, images(2, 3, 32, 32), nodes)
    assert len(found.attention) == 2
    for attention in found.attention:
        assert (attention.queries, attention.keys, attention.extra) == ((2, 2), (2, 2), 1)
        assert attention.matrix.shape == (2, 12, 5, 5)
        shown = AttentionMaps.of(attention, [(0.75, 0.25)])
        assert shown.maps is not None
        assert shown.tokens is not None
        # the pixel below on the left is the third of four, behind the class token
        assert torch.equal(torch.from_numpy(shown.maps[:, :, 0]).flatten(2), attention.matrix[:, :, 3, 1:])
        assert torch.equal(torch.from_numpy(shown.tokens).flatten(2), attention.matrix[:, :, 0, 1:])
    assert last_map(variant.network.graph) is None


VIT = {"network.params.dim": 24, "network.params.depth": 2, "data.shape": [3, 32, 32]}

GATED = {
    "se": {"block": "se", "reduction": 2},
    "spatial": {"block": "spatial_gate", "kernel": 3},
    "channel": {"block": "channel_gate", "reduction": 2},
    "ai": {"block": "ai_gate", "reduction": 2, "kernel": 3},
    "cbam": {"block": "cbam", "reduction": 2, "kernel": 3},
}


@pytest.mark.parametrize("name", GATED)
def test_gates_are_what_the_block_multiplies_by(name: str) -> None:
    graph = {"stem": {"block": "conv", "width": 8, "kernel": 3}, "gate": GATED[name], "head": {"block": "classifier"}}
    built, _, found, x = look(graph)
    read = built.get_submodule("stem")(x)
    product = torch.ones(())
    for gate in found.gates:
        assert gate.node == "gate"
        product = product * gate.values
    torch.testing.assert_close(product * read, built.get_submodule("gate")(read), rtol=1e-4, atol=1e-6)
    kinds = {"se": ["channel"], "spatial": ["spatial"], "channel": ["channel"]}
    assert [gate.kind for gate in found.gates] == kinds.get(name, ["channel", "spatial"])


def test_hidden_units_are_those_of_the_gates_mlp() -> None:
    graph = {"stem": {"block": "conv", "width": 8, "kernel": 3}, "gate": GATED["cbam"], "head": {"block": "classifier"}}
    built, _, found, x = look(graph)
    channel = built.get_submodule("gate.channel")
    assert isinstance(channel, ChannelAttention)
    read = built.get_submodule("stem")(x)
    pooled = [read.mean((2, 3), keepdim=True), read.amax((2, 3), keepdim=True)]
    wanted = torch.cat([F.relu(channel.fc1(each)).flatten(1) for each in pooled])
    units = found.hidden["gate", "channel"]
    assert units.shape == (6, 4)
    torch.testing.assert_close(units.sort(0).values, wanted.detach().sort(0).values)


def test_looking_changes_nothing_and_leaves_nothing_behind() -> None:
    graph = {
        "stem": {"block": "conv", "width": 8, "kernel": 3},
        "mix": {"block": "multi_head_attention", "heads": 2},
        "gate": GATED["ai"],
        "head": {"block": "classifier"},
    }
    before = F.scaled_dot_product_attention
    built, variant, found, x = look(graph)
    assert torch.equal(found.scores, built(x).detach())
    assert F.scaled_dot_product_attention is before
    for module in built.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not {"gate", "channel_gate", "spatial_gate"} & vars(module).keys()
    nodes = frozenset({"gate"})
    alone = seen(built, variant.network.graph, x, nodes)
    assert not alone.attention
    assert {gate.node for gate in alone.gates} == nodes


def test_a_layer_that_is_none_or_has_no_map_is_refused() -> None:
    _, variant = network({"stem": {"block": "conv", "width": 4, "kernel": 3}, "head": {"block": "classifier"}})
    with pytest.raises(UserError, match="has no node or scope 'sten'"):
        layer_of(variant.network.graph, "sten", "small")
    with pytest.raises(UserError, match="no height and width"):
        layer_of(variant.network.graph, "head", "small")


@pytest.mark.parametrize(
    ("image", "tokens", "params", "expected"),
    [
        ((3, 8, 12), 6, {"patch": 4}, ((2, 3), 0)),
        ((3, 8, 12), 7, {"patch": 4}, ((2, 3), 1)),  # a block that adds its token itself
        ((3, 8, 32), 16, {"patch": 4}, ((2, 8), 0)),  # as many as a square has
        ((3, 10, 30), 30, {"width": 8}, (None, 0)),  # patches of 2 by 5, or of 3 by 3: who knows
        ((3, 32, 32), 16, {"width": 8}, (None, 0)),  # sixteen latents, which lie nowhere
        ((3, 4, 4), 16, {}, ((4, 4), 0)),
        ((3, 8, 12), 6, {"patch": (4, 4)}, (None, 0)),
    ],
)
def test_a_token_lies_where_its_block_says_or_nowhere(
    image: tuple[int, ...], tokens: int, params: dict[str, Any], expected: tuple[Any, int]
) -> None:
    embed = SimpleNamespace(inputs=("input",), shapes=(image,), shape=(tokens, 8), params=SimpleNamespace(**params))
    graph: Any = SimpleNamespace(by_name={"embed": embed})
    assert _token_grid(graph, cast(Any, SimpleNamespace(inputs=("embed",))), tokens) == expected
