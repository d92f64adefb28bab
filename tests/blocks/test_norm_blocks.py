"""Normalisations, scalings, gates and stochastic depth against torch's own and the formulas of their files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ablate.block import Stream, find
from ablate.blocks.drop_path import DropPath

Make = Callable[..., Any]
Noise = Callable[..., Tensor]


def test_group_norm_is_torchs(make: Make, noise: Noise) -> None:
    module, x = make("group_norm", (6, 5, 3), groups=3, eps=0.01), noise(2, 6, 5, 3)
    torch.testing.assert_close(module(x), F.group_norm(x, 3, module.weight, module.bias, 0.01))


def test_instance_norm_is_torchs(make: Make, noise: Noise) -> None:
    module, x = make("instance_norm", (7, 5, 3), eps=0.01), noise(2, 7, 5, 3)
    expected = F.instance_norm(x, weight=module.weight, bias=module.bias, eps=0.01)
    torch.testing.assert_close(module(x), expected)


def test_layer_norm_of_an_image_is_over_the_channels_of_each_pixel(make: Make, noise: Noise) -> None:
    module, x = make("layer_norm", (7, 5, 3), eps=0.01), noise(2, 7, 5, 3)
    mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0)
    expected = (x - mean) / (var + 0.01).sqrt() * module.weight[:, None, None] + module.bias[:, None, None]
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize("shape", [(5, 7), (7,)])
def test_layer_norm_of_tokens_and_vectors_is_over_the_last_axis(
    make: Make, noise: Noise, shape: tuple[int, ...]
) -> None:
    module, x = make("layer_norm", shape), noise(2, *shape)
    torch.testing.assert_close(module(x), F.layer_norm(x, (7,), module.weight, module.bias, 1e-6))


@pytest.mark.parametrize("name", ["group_norm", "layer_norm", "instance_norm"])
def test_these_norms_do_not_see_the_batch(make: Make, noise: Noise, name: str) -> None:
    params = {"groups": 3} if name == "group_norm" else {}
    module, x = make(name, (6, 5, 3), **params).train(), noise(4, 6, 5, 3)
    torch.testing.assert_close(module(x)[1:2], module(x[1:2]))


@pytest.mark.parametrize(
    ("name", "params", "shape", "message"),
    [
        ("group_norm", {}, (20, 5, 3), "32 groups do not divide 20 channels"),
        ("group_norm", {"groups": 5}, (5, 7), r"reads \(C, H, W\) or \(C,\) and was given \(5, 7\)"),
        ("instance_norm", {}, (7, 1, 1), "one value has no variance"),
        ("layer_norm", {}, (2, 3, 5, 7), r"reads \(C, H, W\), \(N, D\) or \(D,\)"),
    ],
)
def test_an_impossible_norm_is_refused_in_words(
    name: str, params: dict[str, Any], shape: tuple[int, ...], message: str
) -> None:
    block: Any = find(name)
    with pytest.raises(ValueError, match=message):
        block(block.Params(**params), shape)


@pytest.mark.parametrize("shape", [(7, 5, 3), (5, 7), (7,)])
def test_layer_scale_has_a_factor_per_channel_small_at_the_start(
    make: Make, noise: Noise, streams: Callable[[int], Stream], shape: tuple[int, ...]
) -> None:
    module, x = make("layer_scale", shape), noise(2, *shape)
    channels = 1 if len(shape) == 3 else -1
    expected = x.movedim(channels, -1).mul(module.weight.flatten()).movedim(-1, channels)
    torch.testing.assert_close(module(x), expected)
    module.init(streams(0), "kaiming_fan_out")
    assert module.weight.numel() == 7
    torch.testing.assert_close(module(x), 1e-6 * x)


def test_scale_multiplies_and_is_no_node_at_factor_1(make: Make, noise: Noise) -> None:
    x, scale = noise(2, 7, 5, 3), find("scale")
    torch.testing.assert_close(make("scale", (7, 5, 3), factor=0.5)(x), x / 2)
    assert scale.is_identity(scale.Params(), (7, 5, 3))
    assert not scale.is_identity(scale.Params(factor=0.5), (7, 5, 3))


def test_a_gate_carries_what_it_does_not_take(make: Make, noise: Noise) -> None:
    x, branch = noise(2, 7, 5, 3), noise(2, 7, 5, 3, seed=13)
    carry, add = make("gate_1x1", (7, 5, 3)), make("gated_add", (7, 5, 3), (7, 5, 3))
    for module in (carry, add):
        gate = torch.sigmoid(torch.einsum("oi,bihw->bohw", module.conv.weight[:, :, 0, 0], x) + module.bias)
        expected = (1 - gate) * x if module is carry else gate * branch + (1 - gate) * x
        torch.testing.assert_close(module(x) if module is carry else module(branch, x), expected)


def test_a_gate_starts_open_for_the_shortcut(make: Make, noise: Noise, streams: Callable[[int], Stream]) -> None:
    module, x = make("gate_1x1", (7, 5, 3), bias=-30.0), noise(2, 7, 5, 3)
    module.init(streams(0), "kaiming_fan_out")
    torch.testing.assert_close(module(x), x)
    assert (module.bias == -30).all()


def drop_path(noise_seed: int = 3, **params: Any) -> DropPath:
    module = DropPath(DropPath.Params(**params), (2, 1, 1)).train()
    module.noise_seed = noise_seed
    return module


def test_stochastic_depth_drops_whole_examples_or_the_whole_batch() -> None:
    x = torch.ones(1000, 2, 1, 1)
    kept = drop_path(rate=0.3, per="example")(x)
    assert ((kept[:, 0] == 0) == (kept[:, 1] == 0)).all()
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert (kept[:, 0] > 0).double().mean().item() == pytest.approx(0.7, abs=0.05)
    batches = [drop_path(seed, rate=0.3, per="batch")(x) for seed in range(400)]
    assert all(len(batch.unique()) == 1 for batch in batches)
    assert sum(bool(batch[0, 0] > 0) for batch in batches) / 400 == pytest.approx(0.7, abs=0.08)


def test_stochastic_depth_scales_in_training_or_in_evaluation() -> None:
    x = torch.full((50, 2, 1, 1), 7.0)
    assert drop_path(rate=0.3, scaled="training")(x).max().item() == pytest.approx(7 / 0.7)
    assert drop_path(rate=0.3, scaled="evaluation")(x).max() == 7
    assert torch.equal(drop_path(rate=0.3, scaled="training").eval()(x), x)
    torch.testing.assert_close(drop_path(rate=0.3, scaled="evaluation").eval()(x), 0.7 * x)


def test_stochastic_depth_depends_on_its_seed_alone() -> None:
    x = torch.ones(50, 2, 1, 1)
    torch.manual_seed(1)
    first = drop_path(5, rate=0.5)(x)
    torch.manual_seed(2)
    assert torch.equal(drop_path(5, rate=0.5)(x), first)
    assert not torch.equal(drop_path(6, rate=0.5)(x), first)
    with pytest.raises(RuntimeError, match="noise_seed"):
        DropPath(DropPath.Params(), (2, 1, 1)).train()(x)


def test_a_pooling_window_may_hang_over_the_edge(make: Make, noise: Noise) -> None:
    x = noise(2, 3, 7, 5)
    for name, torchs in (("avg_pool", F.avg_pool2d), ("max_pool", F.max_pool2d)):
        answer = make(name, (3, 7, 5), kernel=2, ceil=True)(x)
        assert answer.shape == (2, 3, 4, 3)
        torch.testing.assert_close(answer, torchs(x, 2, ceil_mode=True))  # type: ignore[operator]
    corner = make("avg_pool", (3, 7, 5), kernel=2, ceil=True)(x)[:, :, -1, -1]
    torch.testing.assert_close(corner, x[:, :, -1, -1])


def test_hanging_over_an_edge_that_windows_meet_exactly_changes_nothing() -> None:
    pool: Any = find("avg_pool")
    exact, ceil = pool.Params(kernel=2), pool.Params(kernel=2, ceil=True)
    assert pool.effective(exact, (3, 8, 6)) == pool.effective(ceil, (3, 8, 6))
    assert pool.effective(exact, (3, 8, 5)) != pool.effective(ceil, (3, 8, 5))
