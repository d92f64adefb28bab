"""Squeeze-and-excitation: Hu, Shen and Sun, 2018 (arXiv:1709.01507).

    s = σ(W₂ relu(W₁ mean_HW(x) + b₁) + b₂)        (B, C, H, W) -> (B, C, 1, 1)
    y = s ⊙ x

The paper's ablations put the maximum in the place of the mean (``squeeze: max``), and relu or tanh in the place of
the last sigmoid (``excitation``).

The paper takes ResNet-50 on ImageNet from 24.80 to 23.29% top-1 error with one in every residual block, before
the sum, for 10% more parameters. The paper's formula has no biases; torchvision's and timm's modules have them.
At hidden width 0 the gate is the constant 1/2. The maximum is taken by ``amax``: adaptive max pooling has no
deterministic backward on CUDA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.block import Shape
from ablate.blocks._activations import FUNCTIONS, Activation
from ablate.blocks._shapes import image
from ablate.blocks.attention._options import without_defaults
from ablate.blocks.attention._reduction import ReducedBlock, ReductionParams

_EXCITATIONS: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": torch.sigmoid, "relu": F.relu, "tanh": torch.tanh}


class SqueezeExcite(ReducedBlock, name="se"):
    class Params(ReductionParams):
        bias: bool = Field(True, description="biases in both layers of the MLP")
        squeeze: Literal["avg", "max"] = Field("avg", description="mean (avg) or maximum of a channel over H and W")
        excitation: Literal["sigmoid", "relu", "tanh"] = Field(
            "sigmoid", description="what makes the gate of the MLP's output"
        )
        act: Activation = Field("relu", description="activation within the MLP; EfficientNet's is silu")

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        channels, _, _ = image(self.name, shape)
        self.hidden, self.squeeze, self.excitation = params.hidden(channels), params.squeeze, params.excitation
        self.act = params.act
        if self.hidden == 0 and self.excitation != "sigmoid":
            raise ValueError(f"at hidden width 0 the gate is {self.excitation}(0) = 0 and nothing passes")
        if self.hidden > 0:
            self.fc1 = nn.Conv2d(channels, self.hidden, 1, bias=params.bias)
            self.fc2 = nn.Conv2d(self.hidden, channels, 1, bias=params.bias)

    @classmethod
    def effective(cls, params: Any, *shapes: Shape) -> dict[str, Any]:
        answer = super().effective(params, *shapes)
        if answer["hidden"] == 0:
            # without hidden units there is no layer that could have a bias, and nothing that reads the squeeze
            answer = {**answer, "bias": False, "squeeze": "avg", "act": "relu"}
        return without_defaults(answer, cls.Params, "squeeze", "excitation", "act")

    def gate(self, x: Tensor) -> Tensor:
        if self.hidden == 0:
            return x.new_full((x.shape[0], x.shape[1], 1, 1), 0.5)
        squeezed = x.mean((2, 3), keepdim=True) if self.squeeze == "avg" else x.amax((2, 3), keepdim=True)
        return _EXCITATIONS[self.excitation](self.fc2(FUNCTIONS[self.act](self.fc1(squeezed))))

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x) * x
