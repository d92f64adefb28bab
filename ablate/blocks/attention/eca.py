"""Efficient channel attention: Wang, Wu, Zhu, Li, Zuo and Hu, 2020 (arXiv:1910.03151).

    s = σ(conv_k(mean_HW(x)))        (B, C, H, W) -> (B, C, 1, 1), conv_k along the channels: k weights, no bias
    y = s ⊙ x
    k = |(log₂ C + b) / γ|_odd       the nearest odd number, of two as near the greater

A channel's gate reads the means of its k neighbours by index, zeros beyond both ends; the order of channels, which
means nothing else to a network, means something here. With k = 1 each channel reads itself alone.

The paper takes ResNet-50 on ImageNet to 77.48% top-1, with 80 parameters in all 16 blocks (SE: 2.5 million). That is
k = 3, 5, 5, 7 by stage, as in the authors' weights; the formula, with the paper's γ = 2 and b = 1, gives 5, 5, 5, 7
and 86. timm's module is never narrower than 3, where the formula gives 1 below 8 channels.
"""

from __future__ import annotations

from math import log2
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ablate.block import Block, BlockParams, Shape
from ablate.blocks._shapes import image
from ablate.blocks.attention._kernel import OddKernel


class EcaParams(BlockParams):
    kernel: OddKernel | Literal["adaptive"] = Field(
        "adaptive", description="channels that a gate reads, odd; adaptive: |(log2 C + b) / gamma|, made odd"
    )
    gamma: float = Field(2.0, ge=0.01, le=100, description="γ of the adaptive kernel: divides log2 C + b")
    b: float = Field(1.0, ge=-100, le=100, description="b of the adaptive kernel: added to log2 C")

    def exact(self, channels: int) -> float:
        """The adaptive kernel before it is made odd."""
        return abs((log2(channels) + self.b) / self.gamma)

    def width(self, channels: int) -> int:
        """The kernel, in channels."""
        return nearest_odd(self.exact(channels)) if self.kernel == "adaptive" else self.kernel


def nearest_odd(number: float) -> int:
    """Of two as near, the greater; ``number`` is at least 0."""
    below = int(number)
    return below if below % 2 else below + 1


class Eca(Block, name="eca"):
    Params = EcaParams

    def __init__(self, params: EcaParams, shape: Shape) -> None:
        super().__init__()
        channels, _, _ = image(self.name, shape)
        kernel = params.width(channels)
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    @classmethod
    def effective(cls, params: Any, *shapes: Shape) -> dict[str, Any]:
        return {"kernel": params.width(shapes[0][0])}

    @classmethod
    def notes(cls, params: Any, *shapes: Shape) -> tuple[str, ...]:
        """A note where the adaptive kernel is not what the formula comes to."""
        channels = shapes[0][0]
        kernel, exact = params.width(channels), params.exact(channels)
        if params.kernel != "adaptive" or kernel == exact:
            return ()
        return (f"adaptive kernel {exact:.3g} on {channels} channels → {kernel}",)

    def gate(self, x: Tensor) -> Tensor:
        means_B1C = x.mean((2, 3)).unsqueeze(1)
        return torch.sigmoid(self.conv(means_B1C)).transpose(1, 2).unsqueeze(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x) * x
