"""Attention-augmented convolution, against the listing in the appendix of Bello et al., 2019 (arXiv:1904.09925).

Everything is in float64, with the same weights. The listing finds relative positions by padding and reshaping.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networks
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.block import Stream, find
from ablate.costing import count_flops

Make = Callable[..., Any]
Noise = Callable[..., Tensor]

SHAPE = (6, 5, 7)


def rel_to_abs(x: Tensor) -> Tensor:
    """(B, h, L, 2L - 1) -> (B, h, L, L) by padding and reshaping."""
    batch, heads, length, _ = x.shape
    flat = F.pad(x, (0, 1)).flatten(2)
    padded = F.pad(flat, (0, length - 1)).reshape(batch, heads, length + 1, 2 * length - 1)
    return padded[:, :, :length, length - 1 :]


def relative_logits_1d(q: Tensor, rel: Tensor, order: tuple[int, ...]) -> Tensor:
    batch, heads, height, width, _ = q.shape
    logits = torch.einsum("bhxyd,md->bhxym", q, rel).reshape(batch, heads * height, width, -1)
    logits = rel_to_abs(logits).reshape(batch, heads, height, width, width)
    tiled = logits.unsqueeze(3).repeat(1, 1, 1, height, 1, 1).permute(order)
    return tiled.reshape(batch, heads, height * width, -1)


class AugmentedConv(nn.Module):
    """With the tensors of our module ``m``."""

    def __init__(self, m: Any) -> None:
        super().__init__()
        self.m = m

    def forward(self, x: Tensor) -> Tensor:
        m, strided = self.m, x[:, :, :: self.m.stride, :: self.m.stride]
        height, width = strided.shape[2:]

        def heads(layer: nn.Conv2d) -> Tensor:
            y = torch.einsum("dc,bchw->bdhw", layer.weight.flatten(1), strided)
            return y.unflatten(1, (m.heads, -1)).permute(0, 1, 3, 4, 2)  # (B, h, H, W, d)

        q, k, v = heads(m.query), heads(m.key), heads(m.value)
        q = q * q.shape[-1] ** -0.5
        logits = q.flatten(2, 3) @ k.flatten(2, 3).transpose(2, 3)
        if m.column_offsets is not None:
            logits = logits + relative_logits_1d(q, m.column_offsets, (0, 1, 2, 4, 3, 5))
        if m.row_offsets is not None:
            logits = logits + relative_logits_1d(q.transpose(2, 3), m.row_offsets, (0, 1, 4, 2, 5, 3))
        attended = (logits.softmax(-1) @ v.flatten(2, 3)).permute(0, 1, 3, 2).flatten(1, 2)
        mixed = torch.einsum("dc,bcn->bdn", m.out.weight.flatten(1), attended).unflatten(2, (height, width))
        if m.conv is None:
            return mixed
        return torch.cat([F.conv2d(x, m.conv.weight, None, m.stride, m.conv.kernel_size[0] // 2), mixed], 1)


@pytest.mark.parametrize("position", ["relative", "none"])
@pytest.mark.parametrize(
    "params",
    [
        {"width": 11, "heads": 2, "dk": 6, "dv": 4},
        {"width": 11, "heads": 3, "dk": 3, "dv": 9, "stride": 2, "kernel": 5},
        {"width": 6, "heads": 2, "dk": 2, "dv": 6, "stride": 3, "kernel": 1},
    ],
)
def test_augmented_convolution_is_the_papers_listing(
    make: Make, noise: Noise, params: dict[str, Any], position: str
) -> None:
    module = make("attention_augmented_conv", SHAPE, **params, position=position)
    one, two = (noise(2, *SHAPE).requires_grad_() for _ in range(2))
    y, expected = module(one), AugmentedConv(module)(two)
    torch.testing.assert_close(y, expected)
    weights = noise(*y.shape, seed=3)
    (y * weights).sum().backward()
    ours = {key: parameter.grad for key, parameter in module.named_parameters()}
    module.zero_grad()
    (expected * weights).sum().backward()
    torch.testing.assert_close(one.grad, two.grad)
    for key, parameter in module.named_parameters():
        torch.testing.assert_close(ours[key], parameter.grad, msg=key)
    assert (module.row_offsets is None) == (position == "none")


@torch.no_grad()
@pytest.mark.parametrize("shape", [(6, 1, 7), (6, 5, 1)])
def test_a_side_of_one_pixel_has_no_offsets(make: Make, noise: Noise, shape: tuple[int, ...]) -> None:
    """The only offset there is, is that of every pixel to every pixel: softmax would cancel it."""
    module = make("attention_augmented_conv", shape, width=11, heads=2, dk=6, dv=4)
    assert [module.row_offsets is None, module.column_offsets is None] == [shape[1] == 1, shape[2] == 1]
    torch.testing.assert_close(module(noise(2, *shape)), AugmentedConv(module)(noise(2, *shape)))


@torch.no_grad()
def test_relative_logits_are_the_papers_sums(make: Make, noise: Noise) -> None:
    """S_nm = q_n · rH[row m - row n] + q_n · rW[column m - column n], pixel by pixel."""
    module, x = make("attention_augmented_conv", SHAPE, width=11, heads=2, dk=6, dv=4), noise(1, *SHAPE)
    query = module.query(x).reshape(2, 3, 5, 7)
    key = module.key(x).reshape(2, 3, 5, 7)
    for head in range(2):
        for n in [(0, 0), (2, 3), (4, 6)]:
            q = query[head, :, n[0], n[1]]
            sums = [
                q @ key[head, :, i, j] + q @ module.row_offsets[i - n[0] + 4] + q @ module.column_offsets[j - n[1] + 6]
                for i in range(5)
                for j in range(7)
            ]
            expected = torch.softmax(torch.stack(sums) / 3**0.5, 0)
            torch.testing.assert_close(module.attention(x)[0, head, 7 * n[0] + n[1]], expected)


def test_dk_and_dv_are_channels_or_fractions_of_the_width_and_what_they_come_to_is_shown() -> None:
    block = find("attention_augmented_conv")

    def came_to(**params: Any) -> tuple[int, int, tuple[str, ...]]:
        given = block.Params(**params)
        effective = block.effective(given, (16, 9, 9))
        return effective["dk"], effective["dv"], block.notes(given, (16, 9, 9))

    assert came_to(width=160, heads=4) == (32, 16, ())
    assert came_to(width=64) == (
        16,
        8,
        (
            "dk 0.2 of width 64, 8 heads → 16 channels",
            "dv 0.1 of width 64, 8 heads → 8 channels",
        ),
    )
    assert came_to(width=64, dk=40, dv=8) == (40, 8, ())
    assert came_to(width=64, dk=16, dv=8)[:2] == came_to(width=64)[:2]
    one, other = block.Params(width=64, dk=16, dv=8), block.Params(width=64)
    assert block.effective(one, (16, 9, 9)) == block.effective(other, (16, 9, 9))


def test_what_changes_nothing_in_an_augmented_convolution_is_not_in_its_identity() -> None:
    block = find("attention_augmented_conv")
    everything = {"width": 16, "dk": 16, "dv": 16}
    three, five = (block.effective(block.Params(**everything, kernel=side), (16, 9, 9)) for side in (3, 5))
    assert three == five
    relative, none = (block.Params(width=16, stride=9, position=position) for position in ("relative", "none"))
    assert block.effective(relative, (16, 9, 9)) == block.effective(none, (16, 9, 9))
    assert block.effective(relative, (16, 10, 9)) != block.effective(none, (16, 10, 9))


def test_sizes_that_no_augmented_convolution_has_are_refused(make: Make) -> None:
    for params, sentence in [
        ({"heads": 4, "dk": 6, "dv": 4}, "4 heads do not divide dk = 6 channels"),
        ({"heads": 4, "dk": 8, "dv": 6}, "4 heads do not divide dv = 6 channels"),
        ({"heads": 4, "dk": 8, "dv": 16}, "dv = 16 channels of attention are more than the width of 11"),
        ({"kernel": 4}, "kernel 4 is even and has no pixel in its middle; it must be odd"),
        ({"dk": 1.5}, "less than 1"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            make("attention_augmented_conv", SHAPE, width=11, **params)


@pytest.mark.parametrize("stride", [1, 2])
def test_what_an_augmented_convolution_costs(stride: int) -> None:
    block, shape = find("attention_augmented_conv"), (12, 6, 10)
    high, wide = 6 // stride, 10 // stride
    n, dk, dv, width = high * wide, 8, 4, 20
    params = block.Params(width=width, kernel=3, stride=stride, heads=2, dk=dk, dv=dv)
    module = block.make(params, shape).eval()
    weights = 9 * 12 * (width - dv) + 12 * (2 * dk + dv) + dv * dv
    offsets = 2 * (high + wide) - 2
    assert sum(p.numel() for p in module.parameters()) == weights + offsets * dk // 2
    assert count_flops(module, (shape,)) == (weights * n + n * n * (dk + dv) + n * dk * offsets, ())


def test_in_the_place_of_a_convolution_it_takes_over_width_and_stride() -> None:
    """In a ResNet-20, of which the rest stays as it is; the kernel is the block's own."""
    graph = networks.resnet20("aa: {block: attention_augmented_conv, heads: 4, at: replace stage3.*.conv1}")
    before = networks.resnet20()
    nodes = graph.insertion_nodes("aa")
    assert [node.name for node in nodes] == [f"stage3.{index}.conv1_aa" for index in range(3)]
    assert [(node.effective["width"], node.effective["stride"]) for node in nodes] == [(64, 2), (64, 1), (64, 1)]
    assert [node.shape for node in nodes] == [before.by_name[f"stage3.{index}.conv1"].shape for index in range(3)]
    assert graph.shape(graph.output) == before.shape(before.output)


@torch.no_grad()
def test_offsets_start_normal_with_the_standard_deviation_of_the_paper(streams: Callable[[int], Stream]) -> None:
    block = find("attention_augmented_conv")
    module = block(block.Params(width=110, heads=2, dk=100, dv=10), (3, 47, 43))
    module.init(streams(0), "kaiming_fan_out")
    assert (module.row_offsets.shape, module.column_offsets.shape) == ((93, 50), (85, 50))
    for offsets in (module.row_offsets, module.column_offsets):
        assert abs(float(offsets.std()) - 50**-0.5) < 0.01
        assert abs(float(offsets.mean())) < 0.01
    assert not torch.equal(module.row_offsets[:85], module.column_offsets)
