"""The non-local block against the paper's sums, pixel by pixel, with the same weights, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ablate.block import Stream, find
from ablate.costing import count_flops

Make = Callable[..., Any]
Noise = Callable[..., Tensor]

SHAPE = (6, 5, 3)
FORMS = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
every_form = pytest.mark.parametrize("form", FORMS)


def linear(layer: nn.Conv2d, x: Tensor) -> Tensor:
    return torch.einsum("oc,chw->ohw", layer.weight[:, :, 0, 0], x)


def columns(x: Tensor) -> list[Tensor]:
    """The pixels of (C, H, W), row by row."""
    return [x[:, i, j] for i in range(x.shape[1]) for j in range(x.shape[2])]


def halved(x: Tensor) -> Tensor:
    rows, across = x.shape[1] // 2, x.shape[2] // 2
    cells = [[x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].amax((1, 2)) for j in range(across)] for i in range(rows)]
    return torch.stack([torch.stack(row, 1) for row in cells], 1)


def pairwise(module: nn.Module, form: str, one: Tensor, other: Tensor, scale: bool) -> Tensor:
    """f(x_i, x_j): eq. 2 to 5; for all but the first form of θ_i and φ_j."""
    if form == "concatenation":
        return (module.compare.weight[0] @ torch.cat([one, other])).clamp(min=0)
    product = (one * other).sum()
    if form == "dot_product":
        return product
    return torch.exp(product / math.sqrt(len(one)) if scale else product)


def by_hand(module: nn.Module, x: Tensor, form: str, subsample: bool, scale: bool) -> Tensor:
    """W_z y of one image, by eq. 1: without the batch normalisation."""
    few = halved if subsample else (lambda t: t)
    theta, phi = (x, few(x)) if form == "gaussian" else (linear(module.theta, x), few(linear(module.phi, x)))
    queries, keys, values = columns(theta), columns(phi), columns(few(linear(module.g, x)))
    found = []
    for query in queries:
        weights = torch.stack([pairwise(module, form, query, key, scale) for key in keys])
        normaliser = weights.sum() if "gaussian" in form else len(keys)
        found.append(sum(w * value for w, value in zip(weights, values, strict=True)) / normaliser)
    return linear(module.out, torch.stack(found, 1).reshape(-1, *x.shape[1:]))


@torch.no_grad()
@every_form
@pytest.mark.parametrize("subsample", [False, True])
@pytest.mark.parametrize("scale", [False, True])
def test_every_form_is_the_papers_sum(make: Make, noise: Noise, form: str, subsample: bool, scale: bool) -> None:
    module, x = make("non_local", SHAPE, form=form, subsample=subsample, scale=scale).eval(), noise(2, *SHAPE)
    module.bn.running_mean.normal_(generator=torch.Generator().manual_seed(3))
    z = torch.stack([by_hand(module, one, form, subsample, scale and "gaussian" in form) for one in x])
    bn = module.bn
    factor = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    expected = (z - bn.running_mean[:, None, None]) * factor[:, None, None] + bn.bias[:, None, None]
    torch.testing.assert_close(module(x), expected)


@torch.no_grad()
@every_form
def test_the_block_is_zero_before_training_so_that_a_plain_residual_is_the_identity(
    form: str, noise: Noise, streams: Callable[[int], Stream]
) -> None:
    block = find("non_local")
    module, x = block(block.Params(form=form), SHAPE).double(), noise(3, *SHAPE)
    assert torch.equal(module(x), torch.zeros_like(x))
    nn.init.ones_(module.bn.weight)
    assert not torch.equal(module(x), torch.zeros_like(x))
    module.init(streams(0), "kaiming_fan_out")
    assert torch.equal(module(x) + x, x)


@torch.no_grad()
@every_form
def test_attention_is_the_matrix_that_the_output_is_made_of(make: Make, noise: Noise, form: str) -> None:
    module, x = make("non_local", SHAPE, form=form, subsample=True).eval(), noise(2, *SHAPE)
    weights = module.attention(x)
    assert weights.shape == (2, 1, 15, 2)
    if "gaussian" in form:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 1, 15).double())
    few = torch.stack([halved(linear(module.g, one)) for one in x]).flatten(2)
    y = torch.einsum("bnm,bdm->bdn", weights[:, 0], few).reshape(2, 3, 5, 3)
    torch.testing.assert_close(module(x), module.bn(module.out(y)))


@every_form
def test_gradients_are_those_of_finite_differences(make: Make, noise: Noise, form: str) -> None:
    module = make("non_local", (4, 3, 2), form=form)
    names, values = zip(*module.named_parameters(), strict=True)

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        answer: Tensor = torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x,))
        return answer

    assert torch.autograd.gradcheck(call, (noise(2, 4, 3, 2).requires_grad_(), *values))


def test_what_each_form_costs_is_its_layers_and_its_two_products() -> None:
    block, (channels, height, width) = find("non_local"), (8, 6, 10)
    inner, n = 4, height * width
    for form, layers, extra in [("gaussian", 2, 0), ("embedded_gaussian", 4, 0), ("concatenation", 4, 2 * inner)]:
        for subsample, m in [(False, n), (True, n // 4)]:
            module = block(block.Params(form=form, subsample=subsample), (channels, height, width)).eval()
            parameters = sum(p.numel() for p in module.parameters())
            assert parameters == layers * channels * inner + extra + 2 * channels
            compared = channels if form == "gaussian" else inner
            # a concatenation compares by a sum of two numbers, one for each pixel
            products = (n + m) * inner + n * m * inner if extra else n * m * (compared + inner)
            flops, uncounted = count_flops(module, ((channels, height, width),))
            assert not uncounted
            assert flops == layers * channels * inner * n + products


def test_the_scale_belongs_to_the_gaussian_forms_alone() -> None:
    block = find("non_local")
    for form in FORMS:
        one, other = (block.effective(block.Params(form=form, scale=scale), SHAPE) for scale in (True, False))
        assert (one == other) == ("gaussian" not in form)
    assert block.notes(block.Params(), (7, 5, 5)) == ("half of 7 channels → inner width 3",)
    assert block.notes(block.Params(), SHAPE) == ()
    with pytest.raises(ValueError, match="'non_local' can't subsample an input of 5 × 1"):
        block(block.Params(subsample=True), (6, 5, 1))
