"""The layers of blocks from their formulas, in float64, and how to hold a block against another implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Noise = Callable[..., Tensor]


def same_output_and_gradients(ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], x: Tensor) -> None:
    one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = ours(one), theirs(two)
    torch.testing.assert_close(y, expected)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)
    (y * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(one.grad, two.grad)


def copied(theirs: nn.Module, ours: nn.Module, **renamed: str) -> nn.Module:
    """``theirs`` in float64 with our weights and statistics. ``renamed``: how a name begins with us, and there."""
    state = {}
    for name, value in ours.state_dict().items():
        old = next((key for key in renamed if name.startswith(f"{key}.")), None)
        state[name if old is None else renamed[old] + name[len(old) :]] = value
    theirs.double().load_state_dict(state)
    return theirs


def statistics_drawn(module: nn.Module, noise: Noise) -> Any:
    """Running means and variances that are not 0 and 1, so that evaluation mode has something to get wrong."""
    for index, part in enumerate(part for part in module.modules() if isinstance(part, nn.BatchNorm2d)):
        part.running_mean.copy_(noise(part.num_features, seed=100 + index))
        part.running_var.copy_(noise(part.num_features, seed=200 + index).exp())
    return module


def normed(bn: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """Batch normalisation from its formula: by the batch in training, else by the running statistics."""
    axes = (0, *range(2, x.dim()))
    mean = x.mean(axes) if bn.training else bn.running_mean
    var = x.var(axes, correction=0) if bn.training else bn.running_var
    shape = (1, -1, *(1 for _ in range(2, x.dim())))
    scale, shift = bn.weight / (var + 1e-5).sqrt(), bn.bias
    return (x - mean.reshape(shape)) * scale.reshape(shape) + shift.reshape(shape)


def dense(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1 × 1 convolution on (B, C, …), as a sum over channels."""
    y = torch.einsum("oc,bc...->bo...", layer.weight.flatten(1), x)
    return y if layer.bias is None else y + layer.bias.reshape(1, -1, *(1 for _ in range(2, x.dim())))


def windows(x: Tensor, kernel: int, dilation: int = 1) -> Tensor:
    """(B, C, H, W) -> (B, C, kernel², H, W): what lies under each tap, zeros beyond the edge."""
    reach = dilation * (kernel // 2)
    padded = F.pad(x, (reach, reach, reach, reach))
    height, width = x.shape[2:]
    steps = range(0, dilation * kernel, dilation)
    return torch.stack([padded[:, :, i : i + height, j : j + width] for i in steps for j in steps], 2)


def convolved(layer: nn.Conv2d, x: Tensor, dilation: int = 1) -> Tensor:
    weight = layer.weight.flatten(2)
    y = torch.einsum("ock,bckhw->bohw", weight, windows(x, layer.weight.shape[-1], dilation))
    return y if layer.bias is None else y + layer.bias[:, None, None]


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))
