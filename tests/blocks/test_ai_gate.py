"""AICNN's layer, Y = W * (A ⊙ X) + b: what its equations 7 and 8 print is not how its loss moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

Make = Callable[..., Any]
Noise = Callable[..., Tensor]

SHAPE = (6, 5, 7)
MODES = ["channel", "spatial", "combined"]


def along(loss: Callable[[Tensor], Tensor], at: Tensor, direction: Tensor, step: float = 1e-5) -> Tensor:
    """The derivative in one direction by central differences: no autograd."""
    with torch.no_grad():
        return (loss(at + step * direction) - loss(at - step * direction)) / (2 * step)


@pytest.mark.parametrize("mode", MODES)
def test_the_loss_moves_as_the_gate_and_the_convolution_say_and_not_as_equations_7_and_8_print(
    make: Make, noise: Noise, mode: str
) -> None:
    gate = make("ai_gate", SHAPE, mode=mode, reduction=2, kernel=3)
    weight, bias, upstream = noise(6, 6, 3, 3, seed=1), noise(6, seed=2), noise(2, *SHAPE, seed=3)
    x, direction = noise(2, *SHAPE, seed=4), noise(2, *SHAPE, seed=5)

    def loss_of(gated: Tensor) -> Tensor:
        return (upstream * F.conv2d(gated, weight, bias, padding=1)).sum()

    with torch.no_grad():
        attention = gate.gate(x).expand_as(x)
        back = F.conv_transpose2d(upstream, weight, padding=1)
        equation_8 = F.conv2d(x, weight, padding=1) * upstream

    by_attention = along(lambda a: loss_of(a * x), attention, direction)
    torch.testing.assert_close((x * back * direction).sum(), by_attention, rtol=1e-6, atol=1e-8)
    assert not torch.isclose((equation_8 * direction).sum(), by_attention, rtol=0.1)

    by_x = along(lambda each: loss_of(gate(each)), x, direction)
    through_gate = along(lambda each: (gate.gate(each) * x * back).sum(), x, direction)  # (∂A/∂X)ᵀ ∂L/∂A
    torch.testing.assert_close((attention * back * direction).sum() + through_gate, by_x, rtol=1e-6, atol=1e-8)
    for printed in (equation_8, x * back):
        equation_7 = attention * back + printed * x
        assert not torch.isclose((equation_7 * direction).sum(), by_x, rtol=0.1)


def test_equation_8_has_the_shape_of_the_output_and_not_of_the_attention(make: Make, noise: Noise) -> None:
    x, weight = noise(2, *SHAPE), noise(11, 6, 3, 3, seed=1)
    attention = make("ai_gate", SHAPE, reduction=2).gate(x)
    equation_8 = F.conv2d(x, weight, stride=2, padding=1)
    assert attention.shape == x.shape
    with pytest.raises(RuntimeError, match="broadcast"):
        torch.broadcast_shapes(equation_8.shape, attention.shape)


@pytest.mark.parametrize("mode", MODES)
def test_every_parameter_of_the_gate_has_a_gradient_where_gradients_are_checked(
    make: Make, noise: Noise, mode: str
) -> None:
    """A ReLU that is silent there would check nothing of what stands before it."""
    shape = (4, 3, 2)
    gate = make("ai_gate", shape, mode=mode, reduction=2, kernel=3)
    (gate(noise(2, *shape)) * noise(2, *shape, seed=3)).sum().backward()
    assert all(parameter.grad.abs().max() > 1e-6 for parameter in gate.parameters())
