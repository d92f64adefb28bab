"""Attention by maps over channels and pixels, against implementations in another style, with the same weights.

Everything is in float64. ``DanetPosition`` and ``DanetChannel`` follow DANet's published layers. Of the older blocks,
what is said here is said of timm's modules; their formulas are in the files of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from formulas import same_output_and_gradients
from timm.layers.cbam import CbamModule
from timm.layers.non_local_attn import NonLocalAttn
from timm.models.xcit import XCA
from torch import Tensor, nn

from ablate.block import find
from ablate.costing import count_flops

Make = Callable[..., Any]
Noise = Callable[..., Tensor]

SHAPE = (6, 5, 7)


def tokens(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def matrix(layer: nn.Conv2d) -> Tensor:
    return layer.weight.flatten(1)


def project(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1 × 1 convolution as a product, (B, C, H, W) -> (B, D, N)."""
    y = torch.einsum("dc,bcn->bdn", matrix(layer), x.flatten(2))
    return y if layer.bias is None else y + layer.bias[:, None]


def copied(theirs: nn.Linear | nn.Conv2d, *layers: nn.Conv2d) -> None:
    with torch.no_grad():
        theirs.weight.copy_(torch.cat([layer.weight for layer in layers]).reshape(theirs.weight.shape))
        biases = [layer.bias for layer in layers if layer.bias is not None]
        theirs.bias.copy_(torch.cat(biases)) if biases else nn.init.zeros_(theirs.bias)


# channels as tokens ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_multi_head_attention_over_channels_is_timms_cross_covariance_attention(
    make: Make, noise: Noise, heads: int
) -> None:
    module = make("channel_multi_head_attention", SHAPE, heads=heads)
    theirs = XCA(6, num_heads=heads, qkv_bias=True).double()
    copied(theirs.qkv, module.query, module.key, module.value)
    copied(theirs.proj, module.out)
    theirs.temperature.data.copy_(module.temperature)
    same_output_and_gradients(module, lambda x: theirs(tokens(x)).transpose(1, 2).reshape(x.shape), noise(2, *SHAPE))


@torch.no_grad()
@pytest.mark.parametrize("normalize", [True, False])
def test_multi_head_attention_over_channels_is_its_formula(make: Make, noise: Noise, normalize: bool) -> None:
    """One channel after another; it would catch heads that share channels, and a softmax over the other axis."""
    module, x = make("channel_multi_head_attention", SHAPE, heads=2, normalize=normalize), noise(2, *SHAPE)
    query, key, value = (project(layer, x) for layer in (module.query, module.key, module.value))
    y = torch.empty_like(value)
    for image in range(2):
        for channel in range(6):
            head = channel // 3
            logits = []
            for other in range(3 * head, 3 * head + 3):
                product = query[image, channel] @ key[image, other]
                if normalize:
                    lengths = query[image, channel].norm() * key[image, other].norm()
                    logits.append(module.temperature[head, 0, 0] * product / lengths)
                else:
                    logits.append(product / 35**0.5)
            weights = torch.stack(logits).exp()
            y[image, channel] = (weights / weights.sum()) @ value[image, 3 * head : 3 * head + 3]
            torch.testing.assert_close(module.attention(x)[image, head, channel - 3 * head], weights / weights.sum())
    torch.testing.assert_close(module(x).flatten(2), project(module.out, y.reshape(x.shape)))


def test_it_differs_from_multi_head_attention_in_the_axis_alone(make: Make) -> None:
    """The same layers: with ``normalize: false`` no parameter more."""
    over_pixels = make("multi_head_attention", SHAPE, heads=2).state_dict()
    over_channels = make("channel_multi_head_attention", SHAPE, heads=2, normalize=False).state_dict()
    assert {key: value.shape for key, value in over_channels.items()} == {k: v.shape for k, v in over_pixels.items()}
    assert make("channel_multi_head_attention", SHAPE, heads=2).temperature.shape == (2, 1, 1)


def test_heads_over_channels_that_could_not_attend_are_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="4 heads do not divide 6 channels"):
        make("channel_multi_head_attention", SHAPE, heads=4)
    with pytest.raises(ValueError, match="6 heads on 6 channels: a channel alone in its head reads itself only"):
        make("channel_multi_head_attention", SHAPE, heads=6)
    with pytest.raises(ValueError, match="a channel of one pixel has no direction to compare by"):
        make("channel_multi_head_attention", (6, 1, 1), heads=2)
    make("channel_multi_head_attention", (6, 1, 1), heads=2, normalize=False)


# DANet -------------------------------------------------------------------------------------------------------------


class DanetPosition(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.query, self.key = nn.Conv2d(width, inner, 1), nn.Conv2d(width, inner, 1)
        self.value = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        energy = torch.bmm(tokens(self.query(x)), self.key(x).flatten(2))
        return torch.bmm(self.value(x).flatten(2), energy.softmax(-1).transpose(1, 2)).view_as(x)


class DanetChannel(nn.Module):
    def __init__(self, difference: bool) -> None:
        super().__init__()
        self.difference = difference

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        energy = torch.bmm(flat, flat.transpose(1, 2))
        if self.difference:
            energy = energy.max(-1, keepdim=True).values - energy
        return torch.bmm(energy.softmax(-1), flat).view_as(x)


@pytest.mark.parametrize(("reduction", "inner"), [(1, 6), (2, 3), (4, 1), (8, 1)])
def test_position_attention_is_danets(make: Make, noise: Noise, reduction: int, inner: int) -> None:
    module = make("position_attention", SHAPE, reduction=reduction)
    theirs = DanetPosition(6, inner).double()
    theirs.load_state_dict(module.state_dict())
    same_output_and_gradients(module, theirs, noise(2, *SHAPE))


@torch.no_grad()
def test_position_attention_is_its_formula(make: Make, noise: Noise) -> None:
    """Eq. 1 and 2 without the input: s_ji = exp(B_i · C_j) / Σ_i exp(B_i · C_j), E_j = Σ_i s_ji D_i."""
    module, x = make("position_attention", SHAPE, reduction=2), noise(2, *SHAPE)
    read, reading, values = (project(layer, x) for layer in (module.key, module.query, module.value))
    y = torch.zeros_like(values)
    for image in range(2):
        for j in range(35):
            weights = torch.stack([(read[image, :, i] @ reading[image, :, j]).exp() for i in range(35)])
            y[image, :, j] = sum(w * values[image, :, i] for i, w in enumerate(weights / weights.sum()))
    torch.testing.assert_close(module(x).flatten(2), y)


def test_position_attention_without_reduction_is_self_attention(make: Make, noise: Noise) -> None:
    module, other = make("position_attention", SHAPE, reduction=1), make("self_attention", SHAPE)
    other.load_state_dict(module.state_dict())
    torch.testing.assert_close(module(noise(2, *SHAPE)), other(noise(2, *SHAPE)))


def test_the_inner_width_of_position_attention_is_shown() -> None:
    block = find("position_attention")
    shapes = [(channels, 5, 7) for channels in (64, 20, 4)]
    assert [block.effective(block.Params(), shape) for shape in shapes] == [{"inner": 8}, {"inner": 2}, {"inner": 1}]
    assert [block.notes(block.Params(), shape) for shape in shapes] == [
        (),
        ("reduction 8 on 20 channels → inner width 2",),
        ("reduction 8 on 4 channels → inner width 1",),
    ]


@pytest.mark.parametrize("compare", ["likeness", "difference"])
def test_channel_attention_is_danets(make: Make, noise: Noise, compare: str) -> None:
    module = make("channel_attention", SHAPE, compare=compare)
    same_output_and_gradients(module, DanetChannel(compare == "difference"), noise(2, *SHAPE) / 3)
    assert not list(module.parameters())


@torch.no_grad()
def test_channel_attention_is_its_formula(make: Make, noise: Noise) -> None:
    """Eq. 3 and 4 without the input: x_ji = exp(A_i · A_j) / Σ_i exp(A_i · A_j), E_j = Σ_i x_ji A_i."""
    module, x = make("channel_attention", SHAPE), noise(2, *SHAPE) / 3
    for image, answer in zip(x, module(x), strict=True):
        for j in range(6):
            weights = torch.stack([(image[i] * image[j]).sum().exp() for i in range(6)])
            torch.testing.assert_close(answer[j], sum(w * image[i] for i, w in enumerate(weights / weights.sum())))


@torch.no_grad()
def test_what_a_channel_reads_most_is_what_it_was_told_to(make: Make, noise: Noise) -> None:
    x = noise(2, *SHAPE) / 3
    energy = torch.einsum("bcn,bdn->bcd", x.flatten(2), x.flatten(2))
    like, unlike = (make("channel_attention", SHAPE, compare=name).attention(x) for name in ("likeness", "difference"))
    assert torch.equal(like.argmax(-1), energy.argmax(-1))
    assert torch.equal(unlike.argmax(-1), energy.argmin(-1))


# what they cost ----------------------------------------------------------------------------------------------------


def test_what_attention_maps_cost_is_their_layers_and_their_products() -> None:
    shape = (12, 6, 10)
    n = 6 * 10
    cases: list[tuple[str, dict[str, Any], int, int]] = [
        # over channels: each of the h heads compares d with d channels, of n numbers each
        ("channel_multi_head_attention", {"heads": 3}, 4 * (144 + 12) + 3, 4 * 144 * n + 2 * 3 * 4 * 4 * n),
        ("position_attention", {"reduction": 4}, 2 * (36 + 3) + 156, (2 * 36 + 144) * n + n * n * (3 + 12)),
        ("channel_attention", {}, 0, 2 * 144 * n),
    ]
    for name, params, parameters, flops in cases:
        block = find(name)
        module = block.make(block.Params(**params), shape).eval()
        assert sum(p.numel() for p in module.parameters()) == parameters
        assert count_flops(module, (shape,)) == (flops, ())


# what all of them have ---------------------------------------------------------------------------------------------

CASES: list[tuple[str, dict[str, Any]]] = [
    ("channel_multi_head_attention", {"heads": 2}),
    ("channel_multi_head_attention", {"heads": 1, "normalize": False}),
    ("position_attention", {"reduction": 2}),
    ("channel_attention", {}),
    ("channel_attention", {"compare": "difference"}),
    ("attention_augmented_conv", {"width": 4, "heads": 2, "dk": 2, "dv": 2, "kernel": 1}),
    ("attention_augmented_conv", {"width": 2, "heads": 1, "dk": 3, "dv": 2, "position": "none"}),
]
every_case = pytest.mark.parametrize(("name", "params"), CASES)


@every_case
def test_gradients_are_those_of_finite_differences(make: Make, noise: Noise, name: str, params: dict[str, Any]) -> None:
    module = make(name, (4, 3, 2), **params)
    pairs = list(module.named_parameters())

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        given = {key: value for (key, _), value in zip(pairs, parameters, strict=True)}
        answer: Tensor = torch.func.functional_call(module, given, (x,))
        return answer

    assert torch.autograd.gradcheck(call, (noise(2, 4, 3, 2).requires_grad_(), *(value for _, value in pairs)))


@every_case
def test_invariant_parameters_are_those_without_a_gradient(
    make: Make, noise: Noise, name: str, params: dict[str, Any]
) -> None:
    module = make(name, (4, 3, 5), **params)
    y = module(noise(2, 4, 3, 5).requires_grad_())
    (y * noise(*y.shape, seed=3)).sum().backward()
    zero = {key for key, parameter in module.named_parameters() if parameter.grad.abs().max() < 1e-12}
    assert zero == module.invariant_parameters


@torch.no_grad()
@every_case
def test_a_row_of_the_attention_map_sums_to_one(make: Make, noise: Noise, name: str, params: dict[str, Any]) -> None:
    sums = make(name, (4, 3, 5), **params).attention(noise(2, 4, 3, 5)).sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


@torch.no_grad()
@pytest.mark.parametrize(("name", "params"), CASES[:5])
def test_without_positions_the_order_of_pixels_is_not_seen(
    make: Make, noise: Noise, name: str, params: dict[str, Any]
) -> None:
    module, x = make(name, SHAPE, **params), noise(2, *SHAPE)
    order = torch.randperm(35, generator=torch.Generator().manual_seed(1))
    shuffled = x.flatten(2)[:, :, order].reshape(x.shape)
    torch.testing.assert_close(module(shuffled).flatten(2), module(x).flatten(2)[:, :, order])


# older blocks, against timm ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_the_non_local_block_is_timms_without_its_shortcut(make: Make, noise: Noise, training: bool) -> None:
    """Embedded Gaussian, the form that timm has; its biases are zero here. The statistics are compared as well."""
    module = make("non_local", SHAPE)
    theirs = NonLocalAttn(6, use_scale=False, rd_channels=3).double().train(training)
    for layer, ours in [(theirs.t, module.theta), (theirs.p, module.phi), (theirs.g, module.g), (theirs.z, module.out)]:
        copied(layer, ours)
    theirs.norm.load_state_dict(module.bn.state_dict())
    module.train(training)
    same_output_and_gradients(lambda x: module(x) + x, theirs, noise(2, *SHAPE))
    torch.testing.assert_close(module.bn.running_var, theirs.norm.running_var)


def test_cbam_is_timms_whose_spatial_part_reads_the_mean_first(make: Make, noise: Noise) -> None:
    """timm normalises what our convolution adds a bias to: with statistics of 0 and 1 that is the same."""
    module = make("cbam", SHAPE, reduction=2, kernel=3)
    theirs = CbamModule(6, rd_channels=3, spatial_kernel_size=3).double().eval()
    theirs.channel.load_state_dict(module.channel.state_dict())
    norm = theirs.spatial.conv.bn
    with torch.no_grad():
        theirs.spatial.conv.conv.weight.copy_(module.spatial.conv.weight.flip(1))
        norm.bias.copy_(module.spatial.conv.bias)
        norm.weight.fill_((1 + norm.eps) ** 0.5)
    same_output_and_gradients(module, theirs, noise(2, *SHAPE))
