"""Gates on shortcuts, as in highway networks: He, Zhang, Ren and Sun, 2016 (arXiv:1603.05027), table 1.

    g = σ(W x + b)        W: 1 × 1, C -> C; one gate per channel and pixel
    gate_1x1:   y = (1 - g(x)) ⊙ x                                          shortcut-only gating
    gated_add:  y = g(shortcut) ⊙ branch + (1 - g(shortcut)) ⊙ shortcut     exclusive gating

Both cost accuracy in that paper's ResNet-110 on CIFAR-10 (6.61% test error without a gate); how much depends on b at
the start. The further below zero it is, the more is let through: at -6 a shortcut carries 99.8%.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from ablate.block import Block, BlockParams, Shape, Stream
from ablate.blocks._shapes import image


class GateParams(BlockParams):
    bias: float = Field(-6.0, allow_inf_nan=False, description="b before training, of every channel")


class _Gated(Block):
    """A block with a gate: a 1 × 1 convolution with bias, and a sigmoid."""

    Params = GateParams

    def __init__(self, params: GateParams, *shapes: Shape) -> None:
        super().__init__()
        channels, _, _ = image(self.name, shapes[-1])
        self.start = params.bias
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.bias = nn.Parameter(torch.full((channels, 1, 1), params.bias))

    def init(self, stream: Stream, recipe: str) -> None:
        super().init(stream, recipe)
        nn.init.constant_(self.bias, self.start)

    def gate(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(x) + self.bias)

    def extra_repr(self) -> str:
        return f"bias={self.start}"


class Gate1x1(_Gated, name="gate_1x1"):
    """Lets through what its gate leaves, (1 - g(x)) ⊙ x: He et al., 2016 (arXiv:1603.05027)."""

    def forward(self, x: Tensor) -> Tensor:
        return (1 - self.gate(x)) * x


class GatedAdd(_Gated, name="gated_add"):
    """Branch and shortcut share one gate, g ⊙ branch + (1 - g) ⊙ shortcut: He et al., 2016 (arXiv:1603.05027)."""

    ports = ("branch", "shortcut")

    def __init__(self, params: GateParams, branch: Shape, shortcut: Shape) -> None:
        if branch != shortcut:
            raise ValueError(f"'{self.name}' needs equal shapes and was given branch {branch}, shortcut {shortcut}")
        super().__init__(params, branch, shortcut)

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        gate = self.gate(shortcut)
        return gate * branch + (1 - gate) * shortcut
