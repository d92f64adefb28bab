"""The options of the gates, each against the formula in another style; and that unused options change no identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.block import find

Make = Callable[..., Any]
Noise = Callable[..., Tensor]

SHAPE = (6, 5, 7)


def dense(layer: nn.Conv2d, values: Tensor) -> Tensor:
    """A 1 × 1 convolution on (B, C), as a matrix product."""
    y = values @ layer.weight.flatten(1).T
    return y if layer.bias is None else y + layer.bias


def mlp(module: nn.Module, values: Tensor) -> Tensor:
    return dense(module.fc2, dense(module.fc1, values).clamp(min=0))


@torch.no_grad()
@pytest.mark.parametrize("squeeze", ["avg", "max"])
@pytest.mark.parametrize("excitation", ["sigmoid", "relu", "tanh"])
def test_se_squeezes_and_excites_as_asked(make: Make, noise: Noise, squeeze: str, excitation: str) -> None:
    module, x = make("se", SHAPE, reduction=2, squeeze=squeeze, excitation=excitation), noise(3, *SHAPE)
    pooled = x.flatten(2).mean(2) if squeeze == "avg" else x.flatten(2).sort().values[..., -1]
    y = mlp(module, pooled)
    gate = {"sigmoid": 1 / (1 + (-y).exp()), "relu": y * (y > 0), "tanh": 1 - 2 / ((2 * y).exp() + 1)}[excitation]
    torch.testing.assert_close(module(x), torch.einsum("bc,bchw->bchw", gate, x))


def test_a_gate_without_hidden_units_that_would_pass_nothing_is_refused(make: Make) -> None:
    for excitation in ("relu", "tanh"):
        with pytest.raises(
            ValueError, match=rf"at hidden width 0 the gate is {excitation}\(0\) = 0 and nothing passes"
        ):
            make("se", SHAPE, reduction=32, min_hidden=0, excitation=excitation)


def channel_gate(module: nn.Module, x: Tensor, pool: str) -> Tensor:
    flat = x.flatten(2)
    terms = {"avg": [flat.mean(2)], "max": [flat.max(2).values], "avg_max": [flat.mean(2), flat.max(2).values]}[pool]
    return torch.sigmoid(sum(mlp(module, term) for term in terms))[:, :, None, None]


def spatial_gate(module: nn.Module, x: Tensor, pool: str) -> Tensor:
    if pool == "conv":
        maps = torch.einsum("c,bchw->bhw", module.pooling.weight.flatten(), x)[:, None]
    else:
        maps = torch.stack([x.max(1).values, x.mean(1)], 1)
    weight, side = module.conv.weight, module.conv.weight.shape[-1]
    windows = F.unfold(maps, side, padding=side // 2)  # (B, taps, H·W)
    return torch.sigmoid(weight.flatten() @ windows + module.conv.bias).reshape(len(x), 1, *x.shape[2:])


@torch.no_grad()
@pytest.mark.parametrize("pool", ["avg", "max", "avg_max"])
def test_the_channel_gate_reads_the_pooling_that_was_asked_for(make: Make, noise: Noise, pool: str) -> None:
    module, x = make("channel_gate", SHAPE, reduction=2, pool=pool), noise(3, *SHAPE)
    torch.testing.assert_close(module(x), channel_gate(module, x, pool) * x)


@torch.no_grad()
@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("pool", ["avg_max", "conv"])
def test_the_spatial_gate_reads_the_pooling_that_was_asked_for(
    make: Make, noise: Noise, pool: str, kernel: int
) -> None:
    module, x = make("spatial_gate", SHAPE, kernel=kernel, spatial_pool=pool), noise(3, *SHAPE)
    torch.testing.assert_close(module(x), spatial_gate(module, x, pool) * x)


@torch.no_grad()
@pytest.mark.parametrize("pool", ["avg", "avg_max"])
@pytest.mark.parametrize("spatial_pool", ["avg_max", "conv"])
@pytest.mark.parametrize("order", ["channel_first", "spatial_first", "parallel"])
def test_cbams_gates_stand_in_the_order_that_was_asked_for(
    make: Make, noise: Noise, order: str, pool: str, spatial_pool: str
) -> None:
    options = {"reduction": 2, "kernel": 3, "order": order, "pool": pool, "spatial_pool": spatial_pool}
    module, x = make("cbam", SHAPE, **options), noise(3, *SHAPE)
    by_channel = channel_gate(module.channel, x, pool) * x
    by_place = spatial_gate(module.spatial, x, spatial_pool) * x
    expected = {
        "channel_first": spatial_gate(module.spatial, by_channel, spatial_pool) * by_channel,
        "spatial_first": channel_gate(module.channel, by_place, pool) * by_place,
        "parallel": channel_gate(module.channel, x, pool) * by_place,
    }[order]
    torch.testing.assert_close(module(x), expected)


def test_a_learnt_pooling_has_one_weight_a_channel_and_no_bias(make: Make) -> None:
    shapes = {name: tuple(p.shape) for name, p in make("spatial_gate", SHAPE, spatial_pool="conv").named_parameters()}
    assert shapes == {"pooling.weight": (1, 6, 1, 1), "conv.weight": (1, 1, 7, 7), "conv.bias": (1,)}


def test_an_option_at_its_default_leaves_the_identity_as_it_was_before_there_were_options() -> None:
    """What a study from before has trained must be found again."""
    shape = (16, 5, 5)
    before = {
        "se": {"bias": True, "hidden": 2},
        "cbam": {"kernel": 7, "hidden": 2},
        "channel_gate": {"hidden": 2},
        "spatial_gate": {"kernel": 7},
    }
    for name, effective in before.items():
        block = find(name)
        given = {"reduction": 8} if "reduction" in block.Params.model_fields else {}
        assert block.effective(block.Params(**given), shape) == effective


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("se", [{}, {"squeeze": "max"}, {"excitation": "relu"}, {"excitation": "tanh"}, {"bias": False}]),
        ("channel_gate", [{}, {"pool": "avg"}, {"pool": "max"}]),
        ("spatial_gate", [{}, {"spatial_pool": "conv"}, {"kernel": 3}]),
        ("cbam", [{}, {"order": "parallel"}, {"order": "spatial_first"}, {"pool": "avg"}, {"spatial_pool": "conv"}]),
    ],
)
def test_each_option_makes_another_identity(name: str, options: list[dict[str, Any]]) -> None:
    block = find(name)
    found = [sorted(block.effective(block.Params(**option), (16, 5, 5)).items()) for option in options]
    assert all(one not in found[:index] for index, one in enumerate(found))


@torch.no_grad()
def test_at_hidden_width_0_options_that_nothing_reads_change_neither_output_nor_identity(
    make: Make, noise: Noise
) -> None:
    x, none = noise(2, *SHAPE), {"reduction": 32, "min_hidden": 0}
    for name, one, other in [
        ("se", {}, {"squeeze": "max"}),
        ("channel_gate", {}, {"pool": "avg"}),
        ("cbam", {"order": "spatial_first"}, {"order": "parallel", "pool": "max"}),
    ]:
        block = find(name)
        pair = [block.effective(block.Params(**none, **options), SHAPE) for options in (one, other)]
        assert pair[0] == pair[1]
        torch.testing.assert_close(make(name, SHAPE, **none, **one)(x), make(name, SHAPE, **none, **other)(x))
    cbam = find("cbam")
    first, later = (cbam.Params(**none, order=order) for order in ("channel_first", "spatial_first"))
    assert cbam.effective(first, SHAPE) != cbam.effective(later, SHAPE)
