"""Each attention block against an implementation in another style, with the same weights, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from formulas import same_output_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers.cbam import ChannelAttn
from timm.layers.squeeze_excite import SEModule
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.block import Block, find
from ablate.blocks.attention._cbam_parts import SpatialAttention

Make = Callable[..., Any]
Noise = Callable[..., Tensor]

SHAPE = (6, 5, 7)
GATES = ("se", "cbam", "channel_gate", "ai_gate")


def params_of(name: str, channels: int, **params: Any) -> int:
    block = find(name)
    assert issubclass(block, Block)
    module = block(block.Params(**params), (channels, 8, 8))
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "params", "residuals", "added"),
    [
        ("self_attention", {}, 3, 16_467),
        ("multi_head_attention", {"heads": 8}, 3, 21_955),
        ("cbam", {"reduction": 16}, 0, 969),
        ("cbam", {"reduction": 32, "min_hidden": 0}, 0, 2 * (32 + 128) + 3 * 99),
    ],
)
def test_attention_after_each_stage_adds_the_papers_parameters(
    name: str, params: dict[str, Any], residuals: int, added: int
) -> None:
    assert sum(params_of(name, channels, **params) for channels in (16, 32, 64)) + residuals == added


# gates -------------------------------------------------------------------------------------------------------------


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mlp(values: list[float], module: nn.Module) -> list[float]:
    """Two layers in plain Python, from the module's weights."""
    first, second = module.fc1.weight.flatten(1).tolist(), module.fc2.weight.flatten(1).tolist()
    zeros1, zeros2 = [0.0] * len(first), [0.0] * len(second)
    bias1 = zeros1 if module.fc1.bias is None else module.fc1.bias.tolist()
    bias2 = zeros2 if module.fc2.bias is None else module.fc2.bias.tolist()
    hidden = [
        max(0.0, sum(w * v for w, v in zip(row, values, strict=True)) + b) for row, b in zip(first, bias1, strict=True)
    ]
    return [sum(w * h for w, h in zip(row, hidden, strict=True)) + b for row, b in zip(second, bias2, strict=True)]


def channel_gates(x_CHW: Tensor, module: nn.Module, use_max: bool) -> list[float]:
    maps = [plane.flatten().tolist() for plane in x_CHW]
    logits = mlp([sum(m) / len(m) for m in maps], module)
    if use_max:
        logits = [a + b for a, b in zip(logits, mlp([max(m) for m in maps], module), strict=True)]
    return [sigmoid(logit) for logit in logits]


def convolve_to_one(maps: Tensor, conv: nn.Conv2d) -> Tensor:
    """(K, H, W) -> (H, W), tap by tap."""
    _, height, width = maps.shape
    side = conv.weight.shape[-1]
    out = torch.full((height, width), conv.bias.item(), dtype=maps.dtype)
    for i, j, a, b in product(range(height), range(width), range(side), range(side)):
        row, column = i + a - side // 2, j + b - side // 2
        if 0 <= row < height and 0 <= column < width:
            out[i, j] += (conv.weight[0, :, a, b] * maps[:, row, column]).sum()
    return out


def spatial_gates(x_CHW: Tensor, conv: nn.Conv2d) -> Tensor:
    maps = torch.stack([x_CHW.max(0).values, x_CHW.sum(0) / len(x_CHW)])
    return 1 / (1 + torch.exp(-convolve_to_one(maps, conv)))


def scaled(x_CHW: Tensor, gates: list[float]) -> Tensor:
    return torch.stack([gate * plane for gate, plane in zip(gates, x_CHW, strict=True)])


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
def test_se_by_hand(make: Make, noise: Noise, bias: bool) -> None:
    module, x = make("se", SHAPE, reduction=2, bias=bias), noise(2, *SHAPE)
    expected = torch.stack([scaled(one, channel_gates(one, module, use_max=False)) for one in x])
    torch.testing.assert_close(module(x), expected)


@torch.no_grad()
def test_channel_gate_by_hand(make: Make, noise: Noise) -> None:
    module, x = make("channel_gate", SHAPE, reduction=2), noise(2, *SHAPE)
    expected = torch.stack([scaled(one, channel_gates(one, module, use_max=True)) for one in x])
    torch.testing.assert_close(module(x), expected)


@torch.no_grad()
def test_spatial_gate_by_hand(make: Make, noise: Noise) -> None:
    module, x = make("spatial_gate", SHAPE, kernel=3), noise(2, *SHAPE)
    torch.testing.assert_close(module(x), torch.stack([spatial_gates(one, module.conv) * one for one in x]))


@torch.no_grad()
def test_cbam_gates_channels_first_and_space_on_the_result(make: Make, noise: Noise) -> None:
    module, x = make("cbam", SHAPE, reduction=3, kernel=7), noise(2, *SHAPE)
    expected = []
    for one in x:
        first = scaled(one, channel_gates(one, module.channel, use_max=True))
        expected.append(spatial_gates(first, module.spatial.conv) * first)
    torch.testing.assert_close(module(x), torch.stack(expected))


@torch.no_grad()
@pytest.mark.parametrize("mode", ["channel", "spatial", "combined"])
def test_ai_gate_by_hand(make: Make, noise: Noise, mode: str) -> None:
    module, x = make("ai_gate", SHAPE, mode=mode, reduction=2, kernel=5), noise(2, *SHAPE)
    expected = []
    for one in x:
        y = one if mode == "spatial" else scaled(one, channel_gates(one, module, use_max=False))
        if mode != "channel":
            # both gates read X, neither reads what the other made of it
            y = y / (1 + torch.exp(-convolve_to_one(one, module.spatial)))
        expected.append(y)
    torch.testing.assert_close(module(x), torch.stack(expected))


def test_se_is_timms(make: Make, noise: Noise) -> None:
    module = make("se", SHAPE, reduction=2)
    theirs = SEModule(6, rd_channels=3).double()
    theirs.load_state_dict(module.state_dict())
    same_output_and_gradients(module, theirs, noise(3, *SHAPE))


def test_channel_gate_is_timms(make: Make, noise: Noise) -> None:
    module = make("channel_gate", SHAPE, reduction=2)
    theirs = ChannelAttn(6, rd_channels=3).double()
    theirs.load_state_dict(module.state_dict())
    same_output_and_gradients(module, theirs, noise(3, *SHAPE))


def test_cbam_is_its_two_parts_one_after_the_other(make: Make, noise: Noise) -> None:
    module, x = make("cbam", SHAPE, reduction=2), noise(2, *SHAPE)
    channel, spatial = ChannelAttn(6, rd_channels=3).double(), SpatialAttention(7).double()
    channel.load_state_dict(module.channel.state_dict())
    spatial.load_state_dict(module.spatial.state_dict())
    same_output_and_gradients(module, nn.Sequential(channel, spatial), x)


def test_se_at_timms_rounding_shows_why_the_hidden_width_is_stated() -> None:
    """timm rounds the hidden width up to 8: reductions 8 and 16 are one network at 16 to 64 channels."""
    assert SEModule(64, rd_ratio=1 / 8).fc1.out_channels == SEModule(64, rd_ratio=1 / 16).fc1.out_channels
    se = find("se")
    assert se.effective(se.Params(reduction=8), (64, 8, 8)) != se.effective(se.Params(reduction=16), (64, 8, 8))


# reduction ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GATES)
@given(
    channels=st.integers(1, 70), reduction=st.integers(1, 80), min_hidden=st.integers(0, 9)
)  # fmt: skip
@settings(max_examples=40)
def test_the_effective_hidden_width_is_the_one_that_is_built(
    name: str, channels: int, reduction: int, min_hidden: int
) -> None:
    block, shape = find(name), (channels, 3, 3)
    params = block.Params(reduction=reduction, min_hidden=min_hidden)
    effective = block.effective(params, shape)
    assert "reduction" not in effective
    assert "min_hidden" not in effective
    layers = {key: value for key, value in block(params, shape).state_dict().items() if key.endswith("fc1.weight")}
    assert effective["hidden"] == sum(value.shape[0] for value in layers.values())
    exact = effective["hidden"] * reduction == channels
    expected = f"reduction {reduction} on {channels} channels → hidden width {effective['hidden']}"
    assert block.notes(params, shape) == (() if exact else (expected,))


@pytest.mark.parametrize("name", GATES)
def test_rounding_is_noted(name: str) -> None:
    block = find(name)
    assert block.notes(block.Params(reduction=32), (16, 8, 8)) == ("reduction 32 on 16 channels → hidden width 1",)
    assert block.notes(block.Params(reduction=5), (16, 8, 8)) == ("reduction 5 on 16 channels → hidden width 3",)
    assert block.notes(block.Params(min_hidden=8), (64, 8, 8)) == ("reduction 16 on 64 channels → hidden width 8",)
    assert block.notes(block.Params(), (64, 8, 8)) == ()
    one, other = block.Params(reduction=16), block.Params(reduction=32)
    assert block.effective(one, (16, 8, 8)) == block.effective(other, (16, 8, 8))
    assert block.effective(one, (32, 8, 8)) != block.effective(other, (32, 8, 8))


@pytest.mark.parametrize(
    ("name", "params"),
    [("se", {}), ("se", {"bias": False}), ("channel_gate", {}), ("ai_gate", {"mode": "channel"})],
)
def test_at_hidden_width_0_the_gate_is_one_half_and_has_no_parameters(
    make: Make, noise: Noise, name: str, params: dict[str, Any]
) -> None:
    module, x = make(name, SHAPE, reduction=32, min_hidden=0, **params), noise(2, *SHAPE)
    assert not list(module.parameters())
    assert torch.equal(module(x), x / 2)


@torch.no_grad()
def test_cbam_at_hidden_width_0_is_its_spatial_gate_on_half_the_input(make: Make, noise: Noise) -> None:
    module, x = make("cbam", SHAPE, reduction=32, min_hidden=0), noise(2, *SHAPE)
    expected = [spatial_gates(one / 2, module.spatial.conv) * one / 2 for one in x]
    torch.testing.assert_close(module(x), torch.stack(expected))
    combined = make("ai_gate", SHAPE, reduction=32, min_hidden=0)
    torch.testing.assert_close(combined(x), combined.spatial_gate(x) * x / 2)


def test_a_bias_that_no_layer_has_makes_no_difference() -> None:
    se = find("se")
    with_bias, without = se.Params(min_hidden=0), se.Params(min_hidden=0, bias=False)
    assert se.effective(with_bias, (7, 5, 5)) == se.effective(without, (7, 5, 5))
    assert se.effective(with_bias, (16, 5, 5)) != se.effective(without, (16, 5, 5))


def test_parameters_of_a_gate_that_is_off_make_no_difference() -> None:
    gate, shape = find("ai_gate"), (16, 5, 5)
    spatial = [gate.Params(mode="spatial", reduction=r) for r in (3, 8)]
    assert gate.effective(spatial[0], shape) == gate.effective(spatial[1], shape) == {"mode": "spatial", "kernel": 7}
    assert gate.notes(spatial[0], shape) == ()
    channel = [gate.Params(mode="channel", reduction=8, kernel=k) for k in (3, 7)]
    assert gate.effective(channel[0], shape) == gate.effective(channel[1], shape) == {"mode": "channel", "hidden": 2}


@pytest.mark.parametrize("name", ["cbam", "spatial_gate", "ai_gate"])
def test_the_kernel_of_a_spatial_gate_is_odd(name: str) -> None:
    with pytest.raises(ValueError, match="kernel 4 is even; the kernel of a spatial gate must be odd"):
        find(name).Params(kernel=4)


# attention over pixels ---------------------------------------------------------------------------------------------


def naive(x: Tensor, module: nn.Module, heads: int, scale: float) -> Tensor:
    """Concatenated heads, before any output projection, by einsum."""
    batch, channels = x.shape[:2]
    tokens = x.flatten(2)

    def project(layer: nn.Conv2d) -> Tensor:
        y = torch.einsum("oc,bcn->bon", layer.weight[:, :, 0, 0], tokens) + layer.bias[:, None]
        return y.reshape(batch, heads, channels // heads, -1)

    logits = torch.einsum("bhdn,bhdm->bhnm", project(module.query), project(module.key)) * scale
    weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return torch.einsum("bhnm,bhdm->bhdn", weights, project(module.value)).reshape(x.shape)


class Naive(nn.Module):
    def __init__(self, module: nn.Module, heads: int, scale: float) -> None:
        super().__init__()
        self.module, self.heads, self.scale = module, heads, scale

    def forward(self, x: Tensor) -> Tensor:
        y = naive(x, self.module, self.heads, self.scale)
        if not hasattr(self.module, "out"):
            return y
        return (
            torch.einsum("oc,bchw->bohw", self.module.out.weight[:, :, 0, 0], y) + self.module.out.bias[:, None, None]
        )


def test_self_attention_by_einsum_has_no_scale(make: Make, noise: Noise) -> None:
    module = make("self_attention", SHAPE)
    same_output_and_gradients(module, Naive(module, heads=1, scale=1.0), noise(2, *SHAPE))


@pytest.mark.parametrize("heads", [1, 2, 3, 6])
def test_multi_head_attention_by_einsum_scales_by_the_width_of_a_head(make: Make, noise: Noise, heads: int) -> None:
    module = make("multi_head_attention", SHAPE, heads=heads)
    same_output_and_gradients(module, Naive(module, heads, (6 / heads) ** -0.5), noise(2, *SHAPE))


@pytest.mark.parametrize("name", ["self_attention", "multi_head_attention"])
def test_parameters_get_the_gradients_of_the_naive_form(make: Make, noise: Noise, name: str) -> None:
    params, heads, scale = ({}, 1, 1.0) if name == "self_attention" else ({"heads": 2}, 2, 3**-0.5)
    module, x = make(name, SHAPE, **params), noise(2, *SHAPE)
    weights = noise(2, *SHAPE, seed=3)
    (module(x) * weights).sum().backward()
    fused = {key: parameter.grad.clone() for key, parameter in module.named_parameters()}
    module.zero_grad()
    (Naive(module, heads, scale)(x) * weights).sum().backward()
    for key, parameter in module.named_parameters():
        torch.testing.assert_close(fused[key], parameter.grad, msg=key)


def test_multi_head_attention_is_torchs_own(make: Make, noise: Noise) -> None:
    module, x = make("multi_head_attention", SHAPE, heads=3), noise(2, *SHAPE)
    theirs = nn.MultiheadAttention(6, 3, batch_first=True).double()
    layers = (module.query, module.key, module.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([layer.weight.flatten(1) for layer in layers]))
        theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in layers]))
        theirs.out_proj.weight.copy_(module.out.weight.flatten(1))
        theirs.out_proj.bias.copy_(module.out.bias)
    tokens = x.flatten(2).transpose(1, 2)
    expected, weights = theirs(tokens, tokens, tokens, average_attn_weights=False)
    torch.testing.assert_close(module(x).flatten(2).transpose(1, 2), expected)
    torch.testing.assert_close(module.attention(x), weights)


@pytest.mark.parametrize("scale", [1.0, 7**-0.5])
def test_the_fused_attention_is_the_naive_one_forward_and_backward(noise: Noise, scale: float) -> None:
    fused = [noise(2, 3, 11, 7, seed=seed).requires_grad_() for seed in (1, 2, 3)]
    plain = [tensor.detach().clone().requires_grad_() for tensor in fused]
    y = F.scaled_dot_product_attention(*fused, scale=scale)
    q, k, v = plain
    logits = scale * q @ k.mT
    expected = logits.softmax(-1) @ v
    torch.testing.assert_close(y, expected)
    weights = noise(2, 3, 11, 7, seed=4)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, two in zip(fused, plain, strict=True):
        torch.testing.assert_close(one.grad, two.grad)


@pytest.mark.parametrize(("name", "params"), [("self_attention", {}), ("multi_head_attention", {"heads": 2})])
def test_the_bias_of_the_keys_and_no_other_parameter_is_invariant(
    make: Make, noise: Noise, name: str, params: dict[str, Any]
) -> None:
    module, x = make(name, SHAPE, **params), noise(2, *SHAPE)
    (module(x) * noise(2, *SHAPE, seed=3)).sum().backward()
    zero = {key for key, parameter in module.named_parameters() if parameter.grad.abs().max() < 1e-12}
    assert zero == module.invariant_parameters == {"key.bias"}
    before = module(x)
    with torch.no_grad():
        module.key.bias += 3
    torch.testing.assert_close(module(x), before)


@pytest.mark.parametrize(("name", "params"), [("self_attention", {}), ("multi_head_attention", {"heads": 2})])
def test_attention_without_positions_does_not_see_the_order_of_pixels(
    make: Make, noise: Noise, name: str, params: dict[str, Any]
) -> None:
    module, x = make(name, SHAPE, **params), noise(2, *SHAPE)
    order = torch.randperm(35, generator=torch.Generator().manual_seed(1))
    shuffled = x.flatten(2)[:, :, order].reshape(x.shape)
    torch.testing.assert_close(module(shuffled).flatten(2), module(x).flatten(2)[:, :, order])
    torch.testing.assert_close(module.attention(x).sum(-1), torch.ones(2, params.get("heads", 1), 35).double())


def test_heads_that_do_not_divide_the_channels_are_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="8 heads do not divide 20 channels"):
        make("multi_head_attention", (20, 5, 5))


# gradients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("ai_gate", {"mode": "channel", "reduction": 2}),
        ("ai_gate", {"mode": "spatial", "kernel": 3}),
        ("ai_gate", {"mode": "combined", "reduction": 2, "kernel": 3}),
        ("se", {"reduction": 2}),
        ("cbam", {"reduction": 2, "kernel": 3}),
        ("self_attention", {}),
        ("multi_head_attention", {"heads": 2}),
    ],
)
def test_gradients_are_those_of_finite_differences(make: Make, noise: Noise, name: str, params: dict[str, Any]) -> None:
    shape = (4, 3, 2)
    module = make(name, shape, **params)
    names, values = zip(*module.named_parameters(), strict=True)

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        answer: Tensor = torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x,))
        return answer

    assert torch.autograd.gradcheck(call, (noise(2, *shape).requires_grad_(), *values))


@pytest.mark.parametrize("mode", ["channel", "spatial", "combined"])
def test_equations_7_and_8_of_aicnn_are_not_the_gradients_of_equation_6(make: Make, noise: Noise, mode: str) -> None:
    """With as many output as input channels and stride 1, where eq. 8 has a shape that fits at all."""
    gate = make("ai_gate", SHAPE, mode=mode, reduction=2, kernel=3)
    weight, bias, upstream = noise(6, 6, 3, 3, seed=1), noise(6, seed=2), noise(2, *SHAPE, seed=3)
    x = noise(2, *SHAPE, seed=4).requires_grad_()
    attention = gate.gate(x).expand_as(x)
    y = F.conv2d(attention * x, weight, bias, padding=1)
    torch.testing.assert_close(F.conv2d(gate(x), weight, bias, padding=1), y)
    by_x, by_attention = torch.autograd.grad(y, (x, attention), upstream, retain_graph=True)

    back = F.conv_transpose2d(upstream, weight, padding=1)
    through_gate = torch.autograd.grad(attention, x, by_attention)[0]
    torch.testing.assert_close(by_attention, x * back)
    torch.testing.assert_close(by_x, attention * back + through_gate)

    equation_8 = F.conv2d(x, weight, padding=1) * upstream
    assert not torch.allclose(equation_8, by_attention, rtol=0.1)
    for printed in (equation_8, by_attention):
        equation_7 = attention * back + printed * x
        assert not torch.allclose(equation_7, by_x, rtol=0.1)


def test_w2_of_aicnn_has_the_transposed_shape_of_w1(make: Make) -> None:
    gate = make("ai_gate", (16, 5, 5), reduction=8)
    assert gate.fc1.weight.shape[:2] == (2, 16)
    assert gate.fc2.weight.shape[:2] == (16, 2)
    assert gate.spatial.weight.shape == (1, 16, 7, 7)
    assert params_of("ai_gate", 16, reduction=8) == 2 * 2 * 16 + 49 * 16 + 1
