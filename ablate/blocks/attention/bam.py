"""Bottleneck attention module: Park, Woo, Lee and Kweon, 2018 (arXiv:1807.06514).

    Mc(F) = BN(W₂ relu(W₁ mean_HW(F) + b₁) + b₂)                    (B, C, 1, 1)
    Ms(F) = BN(f₃(relu(f₂(relu(f₁(relu(f₀(F))))))))                 (B, 1, H, W)
    M(F)  = σ(Mc(F) + Ms(F))                                        (B, C, H, W)
    y     = M(F) ⊙ F

f₀: 1 × 1, C -> hidden; f₁ and f₂: 3 × 3, dilated, hidden -> hidden; f₃: 1 × 1, hidden -> 1; all with biases.
The paper's F' = F + F ⊙ M(F) has a sum with F, which is the wiring's: insert it with ``residual: plain``.

Where paper and authors' code part: the paper prints no ReLU, and says "multi-layer perceptron"; the code has one after
each inner layer, and so has this. The paper normalises at the end of each branch (``norms: last``), the code after each
inner layer and not at the end (``inner``). The paper adds the branches, and found that best (``join: sum``); the code
multiplies them. So the code is ``norms: inner, join: product``. ``max`` is the third that the paper tried.

Made to stand between stages, where resolution falls: the paper takes ResNet-50 on ImageNet to 25.92 million parameters
(25.56 without) with three of them, and gains about half a point of top-1, less than SE in every block. The channel
branch normalises one value per example: it can't be trained on a batch of one. At hidden width 0 the gate is 1/2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ablate.block import Shape
from ablate.blocks._shapes import image
from ablate.blocks.attention._reduction import ReducedBlock, ReductionParams

JOINS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": torch.add,
    "product": torch.mul,
    "max": torch.maximum,
}


class BamParams(ReductionParams):
    mode: Literal["channel", "spatial", "combined"] = Field("combined", description="which of the branches act")
    dilation: PositiveInt = Field(4, description="dilation of the two 3 × 3 convolutions, in pixels")
    join: Literal["sum", "product", "max"] = Field("sum", description="how the two branches are combined")
    norms: Literal["last", "inner"] = Field(
        "last", description="batch normalisation at the end of each branch, or after each layer but the last"
    )

    def reach(self, shape: Shape) -> int:
        """The dilation; beyond the image's sides all are one, since a kernel then reads its centre alone."""
        return min(self.dilation, max(shape[1:]))


class Bam(ReducedBlock, name="bam"):
    Params = BamParams

    def __init__(self, params: BamParams, shape: Shape) -> None:
        super().__init__()
        channels, _, _ = image(self.name, shape)
        self.hidden, self.mode, self.join = params.hidden(channels), params.mode, params.join
        if self.hidden > 0 and self.mode != "spatial":
            self.channel = channel_branch(channels, self.hidden, params.norms)
        if self.hidden > 0 and self.mode != "channel":
            self.spatial = spatial_branch(channels, self.hidden, params.reach(shape), params.norms)

    @classmethod
    def effective(cls, params: Any, *shapes: Shape) -> dict[str, Any]:
        answer = {**super().effective(params, *shapes), "dilation": params.reach(shapes[0])}
        if answer["hidden"] == 0:
            return {"hidden": 0}
        unused = {"channel": ("dilation", "join"), "spatial": ("join",), "combined": ()}[params.mode]
        return {key: value for key, value in answer.items() if key not in unused}

    @classmethod
    def notes(cls, params: Any, *shapes: Shape) -> tuple[str, ...]:
        channels, height, width = shapes[0]
        notes = super().notes(params, *shapes)
        if params.mode != "channel" and params.hidden(channels) > 0 and params.dilation >= max(height, width):
            notes += (
                f"dilation {params.dilation} on {height} × {width} pixels → a 3 × 3 kernel reads its centre alone",
            )
        return notes

    def gate(self, x: Tensor) -> Tensor:
        if self.hidden == 0:
            return x.new_full((x.shape[0], x.shape[1], 1, 1), 0.5)
        return torch.sigmoid(self.logits(x))

    def logits(self, x: Tensor) -> Tensor:
        """(B, C, H, W), or what broadcasts to it where one branch acts alone."""
        branches: list[Tensor] = []
        if self.mode != "spatial":
            branches.append(self.channel(x.mean((2, 3), keepdim=True)))
        if self.mode != "channel":
            branches.append(self.spatial(x))
        return branches[0] if len(branches) == 1 else JOINS[self.join](*branches)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x) * x


def channel_branch(channels: int, hidden: int, norms: str) -> nn.Sequential:
    return branch([nn.Conv2d(channels, hidden, 1), nn.Conv2d(hidden, channels, 1)], norms)


def spatial_branch(channels: int, hidden: int, dilation: int, norms: str) -> nn.Sequential:
    dilated = [nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation) for _ in range(2)]
    return branch([nn.Conv2d(channels, hidden, 1), *dilated, nn.Conv2d(hidden, 1, 1)], norms)


def branch(convolutions: list[nn.Conv2d], norms: str) -> nn.Sequential:
    """conv0, act0, conv1, …, with bn0, bn1, … where ``norms`` has them."""
    layers, last = nn.Sequential(), len(convolutions) - 1
    for index, conv in enumerate(convolutions):
        layers.add_module(f"conv{index}", conv)
        if (index == last) == (norms == "last"):
            layers.add_module(f"bn{index}", nn.BatchNorm2d(conv.out_channels))
        if index < last:
            layers.add_module(f"act{index}", nn.ReLU())
    return layers
