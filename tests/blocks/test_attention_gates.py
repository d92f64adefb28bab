"""Gates of channels, and of all pixels at once: each against another implementation and its paper's formula."""

from __future__ import annotations

from collections.abc import Callable
from math import log2
from typing import Any

import pytest
import torch
from formulas import convolved, copied, dense, normed, same_output_and_gradients, sigmoid, statistics_drawn
from timm.layers import EcaModule, GlobalContext
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.block import find

Make = Callable[..., Any]
Noise = Callable[..., Tensor]

SHAPE = (6, 5, 7)


# efficient channel attention ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "kernel"), [(8, 3), (16, 3), (13, 3), (64, 3), (256, 5)])
def test_eca_is_timms(make: Make, noise: Noise, channels: int, kernel: int) -> None:
    module = make("eca", (channels, 3, 2))
    assert module.conv.weight.shape == (1, 1, kernel)
    same_output_and_gradients(module, copied(EcaModule(channels), module), noise(2, channels, 3, 2))
    fixed = make("eca", (channels, 3, 2), kernel=7)
    same_output_and_gradients(fixed, copied(EcaModule(kernel_size=7), fixed), noise(2, channels, 3, 2))


def test_below_8_channels_timms_eca_is_wider_than_the_papers_formula(make: Make) -> None:
    assert make("eca", (7, 3, 2)).conv.kernel_size == (1,)
    assert EcaModule(7).conv.kernel_size == (3,)


@torch.no_grad()
@pytest.mark.parametrize("kernel", [1, 3, 7])
def test_eca_by_hand(make: Make, noise: Noise, kernel: int) -> None:
    module, x = make("eca", SHAPE, kernel=kernel), noise(2, *SHAPE)
    weight, means = module.conv.weight.flatten().tolist(), x.flatten(2).mean(2)
    expected = torch.empty_like(x)
    for channel in range(6):
        neighbours = [(tap, channel + tap - kernel // 2) for tap in range(kernel)]
        logit = sum(weight[tap] * means[:, other] for tap, other in neighbours if 0 <= other < 6)
        expected[:, channel] = sigmoid(logit)[:, None, None] * x[:, channel]
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize(("gamma", "b"), [(2.0, 1.0), (1.0, 1.0), (3.0, -2.0), (2.0, 0.0)])
def test_the_adaptive_kernel_is_the_odd_number_nearest_to_its_formula(gamma: float, b: float) -> None:
    eca = find("eca")
    params = eca.Params(gamma=gamma, b=b)
    for channels in range(1, 300):
        exact = abs(log2(channels) / gamma + b / gamma)
        nearest = min(range(99, 0, -2), key=lambda odd: abs(odd - exact))  # of two as near, the greater
        assert eca.effective(params, (channels, 3, 3)) == {"kernel": nearest}
        said = eca.notes(params, (channels, 3, 3))
        assert said == (
            () if nearest == exact else (f"adaptive kernel {exact:.3g} on {channels} channels → {nearest}",)
        )


# bottleneck attention ----------------------------------------------------------------------------------------------


def bam_of_the_authors(channels: int, hidden: int) -> nn.ModuleDict:
    """The layers of the authors' code, each branch in their order, under our names."""

    def branch(*convolutions: nn.Conv2d) -> nn.Sequential:
        layers = nn.Sequential()
        for index, conv in enumerate(convolutions):
            layers.add_module(f"conv{index}", conv)
            if index < len(convolutions) - 1:
                layers.add_module(f"bn{index}", nn.BatchNorm2d(hidden))
                layers.add_module(f"act{index}", nn.ReLU())
        return layers

    dilated = [nn.Conv2d(hidden, hidden, 3, padding=4, dilation=4) for _ in range(2)]
    channel = branch(nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1))
    spatial = branch(nn.Conv2d(channels, hidden, 1), *dilated, nn.Conv2d(hidden, 1, 1))
    return nn.ModuleDict({"channel": channel, "spatial": spatial})


@pytest.mark.parametrize("training", [True, False])
def test_bam_with_a_plain_residual_is_its_authors_code(make: Make, noise: Noise, training: bool) -> None:
    shape = (6, 11, 7)
    module = statistics_drawn(make("bam", shape, reduction=2, norms="inner", join="product"), noise)
    theirs = copied(bam_of_the_authors(6, 3), module).train(training)

    def their_bam(x: Tensor) -> Tensor:
        return (1 + torch.sigmoid(theirs["channel"](F.avg_pool2d(x, (11, 7))) * theirs["spatial"](x))) * x

    module.train(training)
    same_output_and_gradients(lambda x: module(x) + x, their_bam, noise(3, *shape))


def bam_logits(module: Any, x: Tensor, norms: str, dilation: int) -> tuple[Tensor, Tensor]:
    """Mc and Ms from their formulas."""

    def finished(branch: nn.Sequential, index: int, y: Tensor, last: int) -> Tensor:
        if (index == last) == (norms == "last"):
            y = normed(getattr(branch, f"bn{index}"), y)
        return y if index == last else y.clamp(min=0)

    by_channel, by_place = x.flatten(2).mean(2)[:, :, None, None], x
    for index in range(2):
        by_channel = finished(module.channel, index, dense(getattr(module.channel, f"conv{index}"), by_channel), 1)
    for index in range(4):
        conv = getattr(module.spatial, f"conv{index}")
        y = dense(conv, by_place) if index in (0, 3) else convolved(conv, by_place, dilation)
        by_place = finished(module.spatial, index, y, 3)
    return by_channel, by_place


@torch.no_grad()
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norms", ["last", "inner"])
def test_bam_by_its_formula(make: Make, noise: Noise, norms: str, training: bool) -> None:
    x, options = noise(3, *SHAPE), {"reduction": 2, "dilation": 2, "norms": norms}
    for join, combine in {"sum": torch.add, "product": torch.mul, "max": torch.fmax}.items():
        module = statistics_drawn(make("bam", SHAPE, join=join, **options), noise).train(training)
        expected = sigmoid(combine(*bam_logits(module, x, norms, dilation=2))) * x
        torch.testing.assert_close(module(x), expected)
    for mode, index in {"channel": 0, "spatial": 1}.items():
        alone = make("bam", SHAPE, mode=mode, **options)
        alone.load_state_dict({k: v for k, v in module.state_dict().items() if k.startswith(mode)})
        logits = bam_logits(module, x, norms, dilation=2)[index]
        torch.testing.assert_close(alone.train(training)(x), sigmoid(logits) * x)


@torch.no_grad()
def test_dilations_beyond_the_image_are_one_network(make: Make, noise: Noise) -> None:
    bam, x = find("bam"), noise(2, *SHAPE)
    assert torch.equal(make("bam", SHAPE, dilation=7)(x), make("bam", SHAPE, dilation=31)(x))
    seen = [bam.effective(bam.Params(dilation=dilation), SHAPE)["dilation"] for dilation in (6, 7, 31)]
    assert seen == [6, 7, 7]
    (note,) = bam.notes(bam.Params(reduction=2, dilation=31), SHAPE)
    assert note == "dilation 31 on 5 × 7 pixels → a 3 × 3 kernel reads its centre alone"
    assert bam.notes(bam.Params(reduction=2, dilation=6), SHAPE) == ()


# global context ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["attention", "avg"])
@pytest.mark.parametrize("fusion", ["add", "scale"])
def test_global_context_is_timms_whose_sum_is_a_plain_residual(
    make: Make, noise: Noise, pool: str, fusion: str
) -> None:
    module = make("global_context", SHAPE, reduction=2, min_hidden=1, pool=pool, fusion=fusion)
    sums = {"fuse_add": fusion == "add", "fuse_scale": fusion == "scale"}
    theirs = GlobalContext(6, use_attn=pool == "attention", rd_channels=3, **sums)
    path = f"mlp_{fusion}"
    (theirs.mlp_add or theirs.mlp_scale).norm.eps = 1e-5
    names = {name: f"{path}.{name}" for name in ("fc1", "norm", "fc2")}
    copied(theirs, module, attend="conv_attn", **names)
    joined = (lambda x: module(x) + x) if fusion == "add" else module
    same_output_and_gradients(joined, theirs, noise(3, *SHAPE))


@torch.no_grad()
@pytest.mark.parametrize("pool", ["attention", "avg"])
@pytest.mark.parametrize("fusion", ["add", "scale"])
def test_global_context_by_its_formula(make: Make, noise: Noise, pool: str, fusion: str) -> None:
    module = make("global_context", SHAPE, reduction=2, min_hidden=1, pool=pool, fusion=fusion)
    x = noise(2, *SHAPE)
    counts = torch.ones(2, 5, 7).double() if pool == "avg" else dense(module.attend, x).exp()[:, 0]
    counts = counts / counts.sum((1, 2), keepdim=True)
    hidden = dense(module.fc1, torch.einsum("bhw,bchw->bc", counts, x))
    centred = hidden - hidden.mean(1, keepdim=True)
    hidden = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt() * module.norm.weight + module.norm.bias
    transformed = dense(module.fc2, hidden.clamp(min=0))[:, :, None, None]
    expected = transformed.expand(2, *SHAPE) if fusion == "add" else sigmoid(transformed) * x
    torch.testing.assert_close(module(x), expected)
    torch.testing.assert_close(module.attention(x).reshape(2, 5, 7), counts)


def test_the_bias_of_the_logits_and_no_other_parameter_is_invariant(make: Make, noise: Noise) -> None:
    module, x = make("global_context", SHAPE, reduction=2, min_hidden=1), noise(2, *SHAPE)
    (module(x) * noise(2, *SHAPE, seed=3)).sum().backward()
    zero = {key for key, parameter in module.named_parameters() if parameter.grad.abs().max() < 1e-12}
    assert zero == module.invariant_parameters == {"attend.bias"}


@torch.no_grad()
@pytest.mark.parametrize("recipe", ["kaiming_fan_out", "trunc_normal"])
def test_global_context_starts_as_nothing_to_add_or_as_one_half(
    make: Make, noise: Noise, streams: Any, recipe: str
) -> None:
    x = noise(2, *SHAPE)
    for fusion, expected in {"add": torch.zeros_like(x), "scale": x / 2}.items():
        module = make("global_context", SHAPE, fusion=fusion)
        module.init(streams(0), recipe)
        assert torch.equal(module(x), expected)


def test_a_context_that_would_be_a_constant_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="layer normalisation over 1 hidden unit is a constant; raise 'min_hidden'"):
        make("global_context", SHAPE, min_hidden=1)
    with pytest.raises(ValueError, match="at hidden width 0 there is nothing to add"):
        make("global_context", SHAPE, min_hidden=0)


# SimAM -------------------------------------------------------------------------------------------------------------


def energy(t: Tensor, mean: Tensor, variance: Tensor, e_lambda: float) -> Tensor:
    """Eq. 5 of SimAM's paper."""
    return 4 * (variance + e_lambda) / ((t - mean) ** 2 + 2 * variance + 2 * e_lambda)


def test_simams_energy_is_the_least_that_a_line_can_have(noise: Noise) -> None:
    """Eq. 4: a line w x + b through (t, 1), and -1 for the other pixels, with w² weighed by λ."""
    pixels, e_lambda = noise(11), 0.3
    for index in range(11):
        t, others = pixels[index], torch.cat([pixels[:index], pixels[index + 1 :]])
        rows = [torch.stack([t, torch.ones_like(t)]), torch.tensor([e_lambda**0.5, 0]).double()]
        system = torch.cat([torch.stack([others, torch.ones_like(others)], 1) / 10**0.5, torch.stack(rows)])
        wanted = torch.cat([-torch.ones(10).double() / 10**0.5, torch.tensor([1.0, 0.0]).double()])
        line = torch.linalg.lstsq(system, wanted).solution
        least = (system @ line - wanted).square().sum()
        torch.testing.assert_close(energy(t, others.mean(), others.var(correction=0), e_lambda), least)


@pytest.mark.parametrize(("variance", "correction"), [("sample", 1), ("population", 0)])
def test_simam_passes_a_pixel_by_the_inverse_of_its_energy(
    make: Make, noise: Noise, variance: str, correction: int
) -> None:
    module = make("simam", SHAPE, e_lambda=0.07, variance=variance)

    def expected(x: Tensor) -> Tensor:
        flat = x.flatten(2)
        mean, var = flat.mean(2, keepdim=True), flat.var(2, keepdim=True, correction=correction)
        return (sigmoid(1 / energy(flat, mean, var, 0.07)) * flat).reshape(x.shape)

    same_output_and_gradients(module, expected, noise(3, *SHAPE))
    assert not list(module.parameters())


def test_simam_of_one_pixel_is_refused(make: Make) -> None:
    with pytest.raises(ValueError, match="'simam' of an image of 1 × 1: one value has no variance"):
        make("simam", (6, 1, 1))
