"""Gates that differ from place to place: each against another implementation and its paper's formula."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from formulas import convolved, copied, dense, normed, same_output_and_gradients, sigmoid, statistics_drawn, windows
from timm.layers import GatherExcite as TimmGatherExcite
from timm.layers.coord_attn import CoordAttn
from torch import Tensor, nn

from ablate.block import find

Make = Callable[..., Any]
Noise = Callable[..., Tensor]

SHAPE = (6, 5, 7)


# gather-excite -----------------------------------------------------------------------------------------------------


def timms_gather_excite(extent: int, gather: nn.Module | None, mlp: nn.Module) -> Callable[[Tensor], Tensor]:
    """timm's forward on given layers: in 1.0.31 its constructor fails wherever there are any."""
    window = {"gk": 2 * extent - 1, "gs": extent} if extent else {"gk": 0, "gs": 0}
    parts = {"gather": gather, "mlp": mlp, "gate": nn.Sigmoid(), "extent": extent, "add_maxpool": False, **window}
    return lambda x: TimmGatherExcite.forward(SimpleNamespace(**parts), x)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(6, 5, 7), (6, 8, 12)])
@pytest.mark.parametrize("extent", [0, 2, 4, 8])
def test_gather_excite_without_parameters_is_timms(make: Make, noise: Noise, shape: Any, extent: int) -> None:
    module = make("gather_excite", shape, form="theta_minus", extent=extent or "global")
    same_output_and_gradients(module, timms_gather_excite(extent, None, nn.Identity()), noise(2, *shape))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("form", ["theta", "theta_plus"])
@pytest.mark.parametrize("extent", [0, 2, 8])
def test_gather_excite_is_timms_forward(make: Make, noise: Noise, form: str, extent: int, training: bool) -> None:
    module = make("gather_excite", SHAPE, form=form, extent=extent or "global", reduction=2)
    statistics_drawn(module, noise).train(training)
    count = max(1, extent.bit_length() - 1)
    layers: list[nn.Module] = []
    for index in range(1, count + 1):
        size = {"kernel_size": 3, "stride": 2, "padding": 1} if extent else {"kernel_size": SHAPE[1:]}
        layers += [nn.Conv2d(6, 6, groups=6, bias=False, **size), nn.BatchNorm2d(6)]
        if index < count or form == "theta_plus":
            layers.append(nn.ReLU())
    state = list(module.gather.state_dict().values())
    gather = nn.Sequential(*layers).double().train(training)
    gather.load_state_dict(dict(zip(gather.state_dict(), state, strict=True)))
    mlp = nn.Sequential(module.fc1, nn.ReLU(), module.fc2) if form == "theta_plus" else nn.Identity()
    same_output_and_gradients(module, timms_gather_excite(extent, gather, mlp), noise(3, *SHAPE))


@torch.no_grad()
@pytest.mark.parametrize("extent", [2, 3, 4])
def test_the_mean_of_gather_excite_is_over_its_window_within_the_image(make: Make, noise: Noise, extent: int) -> None:
    module, x = make("gather_excite", SHAPE, form="theta_minus", extent=extent), noise(2, *SHAPE)
    high, wide = ceil(5 / extent), ceil(7 / extent)
    for i in range(5):
        for j in range(7):
            row, column = extent * (i * high // 5), extent * (j * wide // 7)  # where the nearest window has its centre
            rows, columns = (slice(max(0, at - extent + 1), at + extent) for at in (row, column))
            gate = sigmoid(x[:, :, rows, columns].mean((2, 3)))
            torch.testing.assert_close(module(x)[:, :, i, j], gate * x[:, :, i, j])


@torch.no_grad()
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("form", ["theta", "theta_plus"])
def test_gather_excite_by_its_formula(make: Make, noise: Noise, form: str, training: bool) -> None:
    x = noise(3, *SHAPE)
    for extent in (4, "global"):
        module = make("gather_excite", SHAPE, form=form, extent=extent, reduction=2)
        gather, y = statistics_drawn(module, noise).train(training).gather, x
        for index in (1, 2) if extent == 4 else (1,):
            weight = getattr(gather, f"conv{index}").weight[:, 0]
            if extent == 4:
                y = torch.einsum("ck,bckhw->bchw", weight.flatten(1), windows(y, 3))[:, :, ::2, ::2]
            else:
                y = torch.einsum("chw,bchw->bc", weight, y)[:, :, None, None]
            y = normed(getattr(gather, f"bn{index}"), y)
            if form == "theta_plus" or (extent, index) == (4, 1):
                y = y.clamp(min=0)
        if form == "theta_plus":
            y = dense(module.fc2, dense(module.fc1, y).clamp(min=0))
        rows, columns = (torch.arange(n) * m // n for n, m in zip(SHAPE[1:], y.shape[2:], strict=True))
        torch.testing.assert_close(module(x), sigmoid(y[:, :, rows][:, :, :, columns]) * x)


def test_an_extent_that_strides_of_two_do_not_reach_is_refused() -> None:
    params = find("gather_excite").Params
    with pytest.raises(ValueError, match="extent 6 is no power of two, and 'theta' gathers by strides of 2"):
        params(form="theta", extent=6)
    assert params(form="theta_minus", extent=6).extent == 6
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        params(form="theta_minus", extent=1)


# triplet attention -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("spatial", [True, False])
def test_triplet_attention_is_its_authors_mean_of_rotated_gates(
    make: Make, noise: Noise, spatial: bool, training: bool
) -> None:
    module = statistics_drawn(make("triplet_attention", SHAPE, kernel=3, spatial=spatial), noise).train(training)

    def gated(x: Tensor, gate: Any) -> Tensor:
        pooled = torch.stack([x.max(1).values, x.mean(1)], 1)
        return sigmoid(normed(gate.bn, convolved(gate.conv, pooled))) * x

    def expected(x: Tensor) -> Tensor:
        by_height = gated(x.permute(0, 2, 1, 3), module.cw).permute(0, 2, 1, 3)
        by_width = gated(x.permute(0, 3, 2, 1), module.hc).permute(0, 3, 2, 1)
        terms = [by_height, by_width] + ([gated(x, module.hw)] if spatial else [])
        return torch.stack(terms).mean(0)

    same_output_and_gradients(module, expected, noise(3, *SHAPE))


# coordinate attention ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_coordinate_attention_is_timms(make: Make, noise: Noise, bias: bool, training: bool) -> None:
    module = make("coordinate_attention", SHAPE, reduction=2, min_hidden=1, bias=bias)
    theirs = copied(CoordAttn(6, rd_channels=3, bias=bias), statistics_drawn(module, noise))
    same_output_and_gradients(module.train(training), theirs.train(training), noise(3, *SHAPE))


@torch.no_grad()
@pytest.mark.parametrize("training", [True, False])
def test_coordinate_attention_by_its_formula(make: Make, noise: Noise, training: bool) -> None:
    module = make("coordinate_attention", SHAPE, reduction=3, min_hidden=1)
    statistics_drawn(module, noise).train(training)
    x = noise(3, *SHAPE)
    strip = torch.cat([x.sum(3) / 7, x.sum(2) / 5], dim=2)  # (B, C, H + W)
    strip = normed(module.bn1, dense(module.conv1, strip))
    strip = strip * (strip + 3).clamp(0, 6) / 6
    rows, columns = dense(module.conv_h, strip[..., :5]), dense(module.conv_w, strip[..., 5:])
    torch.testing.assert_close(module(x), torch.einsum("bci,bcj,bcij->bcij", sigmoid(rows), sigmoid(columns), x))
