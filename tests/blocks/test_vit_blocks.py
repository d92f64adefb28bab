"""The parts of a vision transformer against torchvision's, timm's, and formulas written out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from torch import Tensor, nn
from torchvision.models.vision_transformer import EncoderBlock, VisionTransformer

from ablate.block import Stream, find
from ablate.builder import build
from ablate.costing import count_flops
from tests.networks import graph

Make = Callable[..., Any]
Noise = Callable[..., Tensor]


# whole networks ----------------------------------------------------------------------------------------------------

VIT = """
graph:
  patch:    {block: patch_embed, width: 12, patch: 5}
  token:    {block: class_token}
  position: {block: position_embedding}
  encoder:  {block: transformer, heads: 3, mlp_ratio: 2, repeat: 2}
  norm:     {block: layer_norm, eps: 1.0e-6}
  head:     {block: token_classifier}
"""


def from_torchvision(state: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """torchvision's ViT under our names; its packed query, key and value apart."""
    ours = {
        "patch.weight": state["conv_proj.weight"],
        "patch.bias": state["conv_proj.bias"],
        "token.token": state["class_token"],
        "position.embedding": state["encoder.pos_embedding"],
    }
    for kind in ("weight", "bias"):
        ours[f"norm.{kind}"] = state[f"encoder.ln.{kind}"]
        ours[f"head.fc.{kind}"] = state[f"heads.head.{kind}"]
    for layer in range(depth):
        block = f"encoder.layers.encoder_layer_{layer}"
        ours |= block_from_torchvision({k.removeprefix(f"{block}."): v for k, v in state.items()}, f"encoder.{layer}.")
    return ours


def block_from_torchvision(state: dict[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    ours: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        parts = state[f"self_attention.in_proj_{kind}"].chunk(3)
        ours |= {f"attn.{name}.{kind}": part for name, part in zip(("query", "key", "value"), parts, strict=True)}
        ours[f"attn.out.{kind}"] = state[f"self_attention.out_proj.{kind}"]
        for our, their in {"norm1": "ln_1", "norm2": "ln_2", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.3"}.items():
            ours[f"{our}.{kind}"] = state[f"{their}.{kind}"]
    return {f"{prefix}{name}": value for name, value in ours.items()}


@torch.no_grad()
def randomise(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
    return module.double().eval()


def test_a_small_vit_is_torchvisions(noise: Noise) -> None:
    network = build(graph(VIT, shape=(3, 15, 15), classes=7)).double().eval()
    theirs = randomise(VisionTransformer(15, 5, 2, 3, 12, 24, num_classes=7))
    network.load_state_dict(from_torchvision(theirs.state_dict(), depth=2))
    x = noise(2, 3, 15, 15)
    torch.testing.assert_close(network(x), theirs(x))


def test_a_transformer_block_is_torchvisions_forward_and_backward(tiny_scope: Any, noise: Noise) -> None:
    scope = tiny_scope((5, 12))
    scope.add("block", "transformer", "input", heads=4)
    theirs = randomise(EncoderBlock(4, 12, 48, dropout=0.0, attention_dropout=0.0))
    given = block_from_torchvision(dict(theirs.state_dict()), "block.")
    for name, module in scope.modules.items():
        own = {key.removeprefix(f"{name}."): value for key, value in given.items() if key.startswith(f"{name}.")}
        module.double().load_state_dict(own)
    one, two = (noise(2, 5, 12).requires_grad_() for _ in range(2))
    y, expected = scope.run(one)["block.add2"], theirs(two)
    torch.testing.assert_close(y, expected)
    for value in (y, expected):
        (value * noise(2, 5, 12, seed=3)).sum().backward()
    torch.testing.assert_close(one.grad, two.grad)


def test_a_transformer_names_its_places_by_the_convention(tiny_scope: Any) -> None:
    scope = tiny_scope((5, 12))
    scope.add("t", "transformer", "input", heads=3, dropout=0.1, norm="none")
    assert scope.inputs == {
        "t.norm1": ("input",),
        "t.attn": ("t.norm1",),
        "t.dropout1": ("t.attn",),
        "t.add1": ("t.dropout1", "input"),
        "t.norm2": ("t.add1",),
        "t.mlp.fc1": ("t.norm2",),
        "t.mlp.act": ("t.mlp.fc1",),
        "t.mlp.dropout1": ("t.mlp.act",),
        "t.mlp.fc2": ("t.mlp.dropout1",),
        "t.mlp.dropout2": ("t.mlp.fc2",),
        "t.add2": ("t.mlp.dropout2", "t.add1"),
    }
    assert scope.modules["t.norm1"].name == "identity"


def test_a_patterns_insertion_finds_the_places_within_a_transformer() -> None:
    inserted = graph(
        VIT + "insert:\n  drop: {block: dropout, at: 'before encoder.*.(add1|add2):branch'}\n"
        "  bare: {block: identity, at: after encoder.*.attn}\n",
        shape=(3, 15, 15),
    )
    assert [node.name for node in inserted.insertion_nodes("drop")] == [
        f"encoder.{layer}.add{index}_in_branch_drop" for layer in (0, 1) for index in (1, 2)
    ]
    assert len(inserted.insertion_nodes("bare")) == 2


# attention ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 2, 6])
def test_token_attention_is_torchs_own(make: Make, noise: Noise, heads: int) -> None:
    module, x = make("token_attention", (7, 6), heads=heads), noise(2, 7, 6)
    theirs = nn.MultiheadAttention(6, heads, batch_first=True).double()
    layers = (module.query, module.key, module.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in layers]))
        theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
    theirs.out_proj.load_state_dict(module.out.state_dict())
    expected, weights = theirs(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(module.attention(x), weights)


@torch.no_grad()
@pytest.mark.parametrize("count", [2, 5])
def test_relative_positions_enter_the_logits_by_the_offset_alone(make: Make, noise: Noise, count: int) -> None:
    heads, d = 2, 3
    module, x = make("token_attention", (count, 6), heads=heads, position="relative"), noise(2, count, 6)
    q, k, v = (layer(x).unflatten(2, (heads, d)) for layer in (module.query, module.key, module.value))
    expected = torch.empty(2, count, heads, d, dtype=torch.float64)
    for n in range(count):
        logits = torch.stack(
            [(q[:, n] * (k[:, m] + module.offsets[m - n + count - 1])).sum(2) / math.sqrt(d) for m in range(count)], 2
        )
        weights = logits.exp() / logits.exp().sum(2, keepdim=True)  # (batch, heads, count)
        torch.testing.assert_close(module.attention(x)[:, :, n], weights)
        expected[:, n] = torch.einsum("bhm,bmhd->bhd", weights, v)
    torch.testing.assert_close(module(x), module.out(expected.flatten(2)))


def test_every_offset_has_a_gradient_and_the_bias_of_the_keys_alone_has_none(make: Make, noise: Noise) -> None:
    module = make("token_attention", (5, 6), heads=2, position="relative")
    (module(noise(2, 5, 6)) * noise(2, 5, 6, seed=3)).sum().backward()
    assert module.offsets.grad.abs().amax(1).min() > 1e-9
    zero = {name for name, parameter in module.named_parameters() if parameter.grad.abs().max() < 1e-12}
    assert zero == module.invariant_parameters == {"key.bias"}


@torch.no_grad()
def test_attention_sees_the_order_of_tokens_by_its_positions_only(make: Make, noise: Noise) -> None:
    x, order = noise(2, 5, 6), [3, 0, 4, 1, 2]
    for position in ("none", "relative"):
        module = make("token_attention", (5, 6), heads=2, position=position)
        same = torch.allclose(module(x[:, order]), module(x)[:, order])
        assert same == (position == "none")


def test_heads_and_tokens_that_do_not_fit_are_refused_in_words(make: Make) -> None:
    with pytest.raises(ValueError, match="5 heads do not divide 12 features"):
        make("token_attention", (7, 12), heads=5)
    with pytest.raises(ValueError, match="one token has no relative position"):
        make("token_attention", (1, 12), heads=3, position="relative")
    for name in ("token_attention", "class_token", "position_embedding", "token_pool"):
        with pytest.raises(ValueError, match=rf"'{name}' reads tokens of shape \(N, D\) .* put a 'patch_embed' before"):
            make(name, (16, 5, 5))


# tokens and positions ----------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_patch_is_a_token_by_one_matrix_row_by_row(make: Make, noise: Noise) -> None:
    module, x = make("patch_embed", (2, 6, 9), width=5, patch=3), noise(2, 2, 6, 9)
    patches = [x[:, :, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3].flatten(1) for i in range(2) for j in range(3)]
    expected = torch.stack([patch @ module.weight.flatten(1).T + module.bias for patch in patches], 1)
    torch.testing.assert_close(module(x), expected)
    with pytest.raises(ValueError, match="patch 4 does not divide an image of 6 × 9"):
        make("patch_embed", (2, 6, 9), width=5, patch=4)


@torch.no_grad()
def test_the_class_token_comes_first_and_is_what_the_classifier_reads(make: Make, noise: Noise) -> None:
    module, x = make("class_token", (3, 5)), noise(2, 3, 5)
    y = module(x)
    assert torch.equal(y[:, 1:], x)
    assert torch.equal(make("token_pool", (4, 5))(y), module.token[0].expand(2, -1))
    torch.testing.assert_close(make("token_pool", (4, 5), kind="mean")(y), sum(y[:, n] for n in range(4)) / 4)


@torch.no_grad()
def test_a_position_in_two_dimensions_is_its_columns_vector_and_its_rows(make: Make, noise: Noise) -> None:
    x = noise(2, 7, 6)
    module = make("position_embedding", (7, 6), kind="learned_2d", rows=2)
    expected = x.clone()
    expected[:, 0] += module.token[0, 0]
    for i in range(2):
        for j in range(3):
            expected[:, 1 + 3 * i + j] += torch.cat([module.column[0, 0, j], module.row[0, i, 0]])
    torch.testing.assert_close(module(x), expected)
    assert {name: p.numel() for name, p in module.named_parameters()} == {"row": 6, "column": 9, "token": 6}


def test_sines_and_cosines_are_timms(make: Make) -> None:
    module = make("position_embedding", (15, 8), kind="sincos_2d", rows=3)
    expected = build_sincos2d_pos_embed([3, 5], dim=8, dtype=torch.float64)
    torch.testing.assert_close(module.positions()[0], expected, rtol=0, atol=1e-6)  # timm counts in fp32
    with_token = make("position_embedding", (10, 8), kind="sincos_2d").positions()[0]
    assert torch.equal(with_token[0], torch.zeros(8))
    torch.testing.assert_close(with_token[1:], build_sincos2d_pos_embed([3, 3], dim=8).double(), rtol=0, atol=1e-6)
    assert not list(module.parameters())


def test_learnt_positions_start_normal_by_their_own_streams(streams: Callable[[int], Stream]) -> None:
    block = find("position_embedding")
    module = block(block.Params(), (197, 64))
    module.init(streams(0), "kaiming_fan_out")
    assert module.embedding.std().item() == pytest.approx(0.02, rel=0.05)
    assert module.embedding.shape == (1, 197, 64)


def test_the_grid_is_found_or_asked_for() -> None:
    block = find("position_embedding")
    for count, given, rows in [(49, "square", 7), (50, "square", 7), (1, "square", 1), (2, "square", 1), (13, 3, 3)]:
        assert block.effective(block.Params(kind="sincos_2d", rows=given), (count, 4)) == {
            "kind": "sincos_2d",
            "rows": rows,
        }
    stated, found = (block.Params(kind="learned_2d", rows=rows) for rows in (3, "square"))
    assert block.effective(stated, (9, 4)) == block.effective(found, (9, 4))
    one, other = (block.Params(rows=rows) for rows in (2, 3))
    assert block.effective(one, (7, 4)) == block.effective(other, (7, 4))
    with pytest.raises(ValueError, match="12 tokens are no grid of a square, with or without a class token"):
        block(block.Params(kind="sincos_2d"), (12, 4))
    with pytest.raises(ValueError, match="14 tokens are no grid of 4 rows"):
        block(block.Params(kind="learned_2d", rows=4), (14, 4))
    with pytest.raises(ValueError, match="kind sincos_2d needs a width that 4 divides and was given 6"):
        block(block.Params(kind="sincos_2d"), (9, 6))


# cost --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", ["none", "relative"])
def test_attention_over_tokens_costs_what_its_formula_says(position: str) -> None:
    n, d, heads = 7, 12, 3
    block = find("token_attention")
    module = block(block.Params(heads=heads, position=position), (n, d)).eval()
    flops, uncounted = count_flops(module, ((n, d),))
    assert not uncounted
    offsets = n * (2 * n - 1) * d if position == "relative" else 0
    assert flops == 4 * n * d * d + 2 * n * n * d + offsets


def test_every_part_of_a_vit_is_counted() -> None:
    for name, shape, params in [
        ("patch_embed", (3, 10, 15), {"width": 7, "patch": 5}),
        ("class_token", (5, 8), {}),
        ("linear", (5, 8), {"width": 3}),
        *(("position_embedding", (10, 8), {"kind": kind}) for kind in ("learned_1d", "learned_2d", "sincos_2d")),
        *(("token_pool", (5, 8), {"kind": kind}) for kind in ("class", "mean")),
    ]:
        block = find(name)
        flops, uncounted = count_flops(block(block.Params(**params), shape).eval(), (shape,))
        assert not uncounted, name
        assert flops == {"patch_embed": 6 * 7 * 3 * 25, "linear": 5 * 8 * 3}.get(name, 0)
