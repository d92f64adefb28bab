"""Squeeze-and-excitation: Hu, Shen and Sun, 2018 (arXiv:1709.01507).

    s = σ(W₂ relu(W₁ mean_HW(x) + b₁) + b₂)        (B, C, H, W) -> (B, C, 1, 1)
    y = s ⊙ x

The paper takes ResNet-50 on ImageNet from 24.80 to 23.29% top-1 error with one in every residual block, before
the sum, for 10% more parameters. The paper's formula has no biases; torchvision's and timm's modules have them.
At hidden width 0 the gate is the constant 1/2.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.block import Shape
from ablate.blocks._shapes import image
from ablate.blocks.attention._reduction import ReducedBlock, ReductionParams


class SqueezeExcite(ReducedBlock, name="se"):
    class Params(ReductionParams):
        bias: bool = Field(True, description="biases in both layers of the MLP")

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        channels, _, _ = image(self.name, shape)
        self.hidden = params.hidden(channels)
        if self.hidden > 0:
            self.fc1 = nn.Conv2d(channels, self.hidden, 1, bias=params.bias)
            self.fc2 = nn.Conv2d(self.hidden, channels, 1, bias=params.bias)

    @classmethod
    def effective(cls, params: Any, *shapes: Shape) -> dict[str, Any]:
        answer = super().effective(params, *shapes)
        # without hidden units there is no layer that could have a bias
        return {**answer, "bias": answer["bias"] and answer["hidden"] > 0}

    def gate(self, x: Tensor) -> Tensor:
        if self.hidden == 0:
            return x.new_full((x.shape[0], x.shape[1], 1, 1), 0.5)
        return torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x) * x
