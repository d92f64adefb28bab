"""Each leaf block against torch's own, or against the formula at the head of its file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.block import find, port_names
from ablate.blocks._activations import FUNCTIONS
from ablate.blocks.dropout import Dropout

Make = Callable[..., Any]
Noise = Callable[..., Tensor]


def test_a_convolution_is_the_sum_over_its_taps(make: Make, noise: Noise) -> None:
    module, x = make("conv", (4, 7, 5), width=6, kernel=3, stride=2, groups=2, bias=True), noise(2, 4, 7, 5)
    patches = F.unfold(x, 3, padding=1, stride=2).reshape(2, 2, 2 * 9, 4 * 3)  # batch, group, tap, place
    weight = module.weight.reshape(2, 3, 2 * 9)
    expected = torch.einsum("got,bgtp->bgop", weight, patches).reshape(2, 6, 4, 3) + module.bias[None, :, None, None]
    torch.testing.assert_close(module(x), expected)


@given(
    kernel=st.integers(1, 7), stride=st.integers(1, 3), dilation=st.integers(1, 3), side=st.integers(7, 13),
)  # fmt: skip
@settings(max_examples=40)
def test_same_padding_keeps_the_size_at_stride_1_and_divides_it_elsewhere(
    kernel: int, stride: int, dilation: int, side: int
) -> None:
    conv = find("conv")
    if kernel % 2 == 0:
        with pytest.raises(ValueError, match=f"kernel {kernel} is even"):
            conv.Params(width=2, kernel=kernel)
        return
    params = conv.Params(width=2, kernel=kernel, stride=stride, dilation=dilation)
    answer = conv(params, (3, side, side))(torch.zeros(1, 3, side, side))
    assert answer.shape == (1, 2, -(-side // stride), -(-side // stride))


def test_the_weights_of_a_leaf_have_no_prefix() -> None:
    """A node ``stem.conv`` has the parameter ``stem.conv.weight``, as in other people's networks."""
    assert set(find("conv")(find("conv").Params(width=3, bias=True), (2, 5, 5)).state_dict()) == {"weight", "bias"}
    assert set(find("linear")(find("linear").Params(width=3), (2,)).state_dict()) == {"weight", "bias"}
    names = set(find("batch_norm")(find("batch_norm").Params(), (2, 5, 5)).state_dict())
    assert names == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


def test_a_convolution_says_what_its_parameters_come_to() -> None:
    conv, shape = find("conv"), (4, 9, 9)
    written = conv.Params(width=3, kernel=5, padding="same", dilation=1)
    assert conv.effective(written, shape)["padding"] == 2
    assert conv.effective(written, shape) == conv.effective(conv.Params(width=3, kernel=5, padding=2), shape)
    assert conv.effective(conv.Params(width=3, kernel=1, dilation=3), shape) == conv.effective(
        conv.Params(width=3, kernel=1), shape
    )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"width": 3, "groups": 2}, "2 groups do not divide both 4 channels and width 3"),
        ({"width": 3, "kernel": 7, "padding": 0}, "kernel 7 and padding 0 do not fit an input of 5 × 6"),
        ({"width": 3, "kernel": 3, "dilation": 4, "padding": 1}, r"\(span 9\) and padding 1 do not fit"),
    ],
)
def test_an_impossible_convolution_is_refused_in_words(params: dict[str, Any], message: str) -> None:
    conv = find("conv")
    with pytest.raises(ValueError, match=message):
        conv(conv.Params(**params), (4, 5, 6))


@pytest.mark.parametrize("sizes", [(5, 3, 7, 2), (11, 3)])
def test_batch_norm_normalises_each_channel_over_all_else(make: Make, noise: Noise, sizes: tuple[int, ...]) -> None:
    module, x = make("batch_norm", sizes[1:], eps=0.01, momentum=0.25), noise(*sizes) * 3 + 2
    others = [axis for axis in range(x.dim()) if axis != 1]
    mean, var = x.mean(others, keepdim=True), x.var(others, keepdim=True, unbiased=False)
    shape = mean.shape
    expected = (x - mean) / (var + 0.01).sqrt() * module.weight.view(shape) + module.bias.view(shape)
    torch.testing.assert_close(module.train()(x), expected)
    torch.testing.assert_close(module.running_mean, 0.25 * mean.flatten())
    unbiased = x.var(others, unbiased=True)
    torch.testing.assert_close(module.running_var, 0.75 + 0.25 * unbiased)
    y = module.eval()(x)
    stored = (x - module.running_mean.view(shape)) / (module.running_var.view(shape) + 0.01).sqrt()
    torch.testing.assert_close(y, stored * module.weight.view(shape) + module.bias.view(shape))


REFERENCE: dict[str, nn.Module] = {
    "relu": nn.ReLU(), "relu6": nn.ReLU6(), "leaky_relu": nn.LeakyReLU(), "elu": nn.ELU(), "gelu": nn.GELU(),
    "silu": nn.SiLU(), "mish": nn.Mish(), "hardswish": nn.Hardswish(), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(),
    "none": nn.Identity(),
}  # fmt: skip


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_an_activation_is_the_function_of_its_name(make: Make, noise: Noise, kind: str) -> None:
    x = 4 * noise(2, 3, 5, 7)
    assert torch.equal(make("act", (3, 5, 7), kind=kind)(x), REFERENCE[kind](x))
    act = find("act")
    assert act.is_identity(act.Params(kind=kind), (3, 5, 7)) == (kind == "none")


def test_linear_is_a_matrix_product_and_refuses_images(make: Make, noise: Noise) -> None:
    module, x = make("linear", (5,), width=3), noise(7, 5)
    torch.testing.assert_close(module(x), torch.einsum("bc,oc->bo", x, module.weight) + module.bias)
    with pytest.raises(ValueError, match=r"given \(5, 2, 2\); put a 'global_pool' before it"):
        make("linear", (5, 2, 2), width=3)


def test_global_pooling_keeps_batch_and_channels(make: Make, noise: Noise) -> None:
    x = noise(2, 3, 5, 7)
    torch.testing.assert_close(make("global_pool", (3, 5, 7))(x), F.adaptive_avg_pool2d(x, 1).flatten(1))
    torch.testing.assert_close(make("global_pool", (3, 5, 7), kind="max")(x), F.adaptive_max_pool2d(x, 1).flatten(1))


@pytest.mark.parametrize(
    ("name", "reference"), [("max_pool", nn.MaxPool2d(3, 2, 1)), ("avg_pool", nn.AvgPool2d(3, 2, 1))]
)
def test_window_pooling_is_torchs(make: Make, noise: Noise, name: str, reference: nn.Module) -> None:
    x = noise(2, 3, 11, 7)
    assert torch.equal(make(name, (3, 11, 7), kernel=3, stride=2, padding=1)(x), reference(x))


@pytest.mark.parametrize("name", ["max_pool", "avg_pool"])
def test_windows_lie_side_by_side_unless_a_stride_is_given(make: Make, noise: Noise, name: str) -> None:
    block = find(name)
    assert block.effective(block.Params(kernel=3), (2, 9, 9)) == block.effective(
        block.Params(kernel=3, stride=3), (2, 9, 9)
    )
    assert make(name, (2, 9, 7), kernel=3)(noise(1, 2, 9, 7)).shape == (1, 2, 3, 2)
    assert block.is_identity(block.Params(kernel=1), (2, 9, 9))
    assert not block.is_identity(block.Params(kernel=1, stride=2), (2, 9, 9))
    with pytest.raises(ValueError, match="padding 2 is more than half of kernel 3"):
        block.Params(kernel=3, padding=2)


def test_add_sums_any_number_of_equal_shapes(make: Make, noise: Noise) -> None:
    shape = (3, 5, 7)
    values = [noise(2, *shape, seed=seed) for seed in (1, 2, 3)]
    torch.testing.assert_close(make("add", *[shape] * 3)(*values), torch.stack(values).sum(0))
    assert port_names(find("add"), 3) == ("branch", "shortcut", "input2")


def test_add_names_the_ports_and_shapes_that_differ(make: Make) -> None:
    with pytest.raises(ValueError, match=r"branch \(3, 5, 7\), shortcut \(1, 5, 7\)"):
        make("add", (3, 5, 7), (1, 5, 7))


def test_concat_puts_channels_side_by_side_in_the_order_of_its_inputs(make: Make, noise: Noise) -> None:
    one, two = noise(2, 3, 5, 7), noise(2, 4, 5, 7, seed=2)
    answer = make("concat", (3, 5, 7), (4, 5, 7))(one, two)
    assert torch.equal(answer[:, :3], one)
    assert torch.equal(answer[:, 3:], two)
    with pytest.raises(ValueError, match=r"input0 \(3, 5, 7\), input1 \(3, 5, 6\)"):
        make("concat", (3, 5, 7), (3, 5, 6))


def dropout(rate: float, seed: int | None) -> Dropout:
    module = Dropout(Dropout.Params(rate=rate), (3, 31, 37)).train()
    module.noise_seed = seed
    return module


def test_dropout_draws_from_its_own_seed_alone() -> None:
    x = torch.ones(5, 3, 31, 37)
    torch.manual_seed(1)
    one = dropout(0.3, seed=2**62 + 5)(x)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert torch.equal(dropout(0.3, seed=2**62 + 5)(x), one)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(dropout(0.3, seed=2**62 + 6)(x), one)


def test_dropout_keeps_the_mean_and_zeroes_the_stated_share() -> None:
    x = torch.ones(7, 3, 31, 37, dtype=torch.float64)
    y = dropout(0.3, seed=5)(x)
    kept = (y != 0).double().mean().item()
    # 24,087 Bernoulli draws: five standard deviations
    assert abs(kept - 0.7) < 5 * (0.3 * 0.7 / x.numel()) ** 0.5
    torch.testing.assert_close(y[y != 0], torch.full_like(y[y != 0], 1 / 0.7))


def test_dropout_drops_the_same_elements_in_every_memory_format() -> None:
    x = torch.rand(2, 3, 31, 37) + 1
    assert torch.equal(dropout(0.5, 3)(x.contiguous(memory_format=torch.channels_last)), dropout(0.5, 3)(x))


def test_dropout_without_a_seed_is_our_bug_and_acts_in_training_only() -> None:
    assert Dropout.noisy
    x = torch.ones(2, 3, 31, 37)
    with pytest.raises(RuntimeError, match="noise_seed"):
        dropout(0.3, seed=None)(x)
    assert torch.equal(dropout(0.3, seed=None).eval()(x), x)
    assert torch.equal(dropout(0.0, seed=None)(x), x)
    assert Dropout.is_identity(Dropout.Params(rate=0.0), (3,))
    assert not Dropout.is_identity(Dropout.Params(rate=0.1), (3,))


@pytest.mark.parametrize(("width", "before", "after"), [(3, 0, 0), (4, 0, 1), (8, 2, 3), (9, 3, 3)])
def test_the_padded_shortcut_has_zeros_around_every_second_pixel(
    make: Make, noise: Noise, width: int, before: int, after: int
) -> None:
    x = noise(2, 3, 5, 7)
    y = make("pad_shortcut", (3, 5, 7), width=width, stride=2)(x)
    assert y.shape == (2, width, 3, 4)
    assert torch.equal(y[:, before : before + 3], x[:, :, [0, 2, 4]][:, :, :, [0, 2, 4, 6]])
    assert not y[:, :before].any()
    assert not y[:, width - after :].any() or after == 0


def test_the_padded_shortcut_refuses_to_narrow_and_knows_when_it_does_nothing(make: Make) -> None:
    block = find("pad_shortcut")
    assert block.is_identity(block.Params(width=3), (3, 5, 7))
    assert not block.is_identity(block.Params(width=3, stride=2), (3, 5, 7))
    assert not block.is_identity(block.Params(width=4), (3, 5, 7))
    with pytest.raises(ValueError, match="can't narrow 3 channels to width 2"):
        make("pad_shortcut", (3, 5, 7), width=2)


@pytest.mark.parametrize(("per", "weights"), [("scalar", 1), ("channel", 3)])
def test_a_weighted_residual_scales_the_branch_alone(make: Make, noise: Noise, per: str, weights: int) -> None:
    module = make("residual", (3, 5, 7), (3, 5, 7), per=per)
    branch, shortcut = noise(2, 3, 5, 7), noise(2, 3, 5, 7, seed=2)
    assert module.weight.numel() == weights
    w = module.weight.detach().flatten().expand(3).tolist()
    expected = torch.stack([w[c] * branch[:, c] + shortcut[:, c] for c in range(3)], dim=1)
    torch.testing.assert_close(module(branch, shortcut), expected)


def test_a_weighted_residual_starts_as_its_shortcut_and_its_weight_has_a_gradient(noise: Noise) -> None:
    block = find("residual")
    module = block(block.Params(), (3, 5, 7), (3, 5, 7)).double()
    branch, shortcut = noise(2, 3, 5, 7), noise(2, 3, 5, 7, seed=2)
    answer = module(branch, shortcut)
    assert torch.equal(answer, shortcut)
    answer.sum().backward()
    torch.testing.assert_close(module.weight.grad, branch.sum().reshape(1))
    with pytest.raises(ValueError, match=r"branch \(3, 5, 7\), shortcut \(3, 5, 6\)"):
        block(block.Params(), (3, 5, 7), (3, 5, 6))
    with pytest.raises(ValueError, match="init"):
        block.Params(init=float("nan"))
