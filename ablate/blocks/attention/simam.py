"""SimAM, attention without parameters: Yang, Zhang, Li and Xie, 2021 (ICML, PMLR 139).

    1/e = (x - μ)² / (4 (v + λ)) + 1/2        μ, v: mean and variance of a channel over its M = H·W pixels     eq. 5
    y   = σ(1/e) ⊙ x                          (B, C, H, W) -> (B, C, H, W)

The further a pixel is from its channel's mean, the more of it passes: at the mean 62%, nowhere less, and one standard
deviation away 68%. Eq. 5 divides the variance by M; the authors' code, which made their numbers, by M - 1 (``sample``).

The paper reports gains of about a point over plain ResNets on CIFAR and ImageNet, near those of squeeze-and-excitation.
Their code uses λ = 1e-4 for CIFAR and a larger one for ImageNet.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ablate.block import Block, BlockParams, Shape
from ablate.blocks._shapes import image


class SimAm(Block, name="simam"):
    class Params(BlockParams):
        e_lambda: float = Field(
            1e-4, gt=0, allow_inf_nan=False, description="λ, added to the variance; in squared units of the input"
        )
        variance: Literal["sample", "population"] = Field(
            "sample", description="divided by H·W - 1 (sample, the authors' code), or by H·W (population, eq. 5)"
        )

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        _, height, width = image(self.name, shape)
        if height * width == 1:
            raise ValueError(f"'{self.name}' of an image of 1 × 1: one value has no variance")
        self.e_lambda = params.e_lambda
        self.divisor = height * width - (params.variance == "sample")

    def gate(self, x: Tensor) -> Tensor:
        squares = (x - x.mean((2, 3), keepdim=True)).pow(2)
        variance = squares.sum((2, 3), keepdim=True) / self.divisor
        return torch.sigmoid(squares / (4 * (variance + self.e_lambda)) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x) * x

    def extra_repr(self) -> str:
        return f"e_lambda={self.e_lambda}, divisor={self.divisor}"
