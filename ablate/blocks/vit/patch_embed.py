"""Patch embedding: Dosovitskiy et al., 2021 (arXiv:2010.11929), eq. 1.

    t_n = W p_n + b        (C, H, W) -> (N, width),  N = (H / patch) · (W / patch)

p_n: the n-th patch of patch × patch pixels, row by row, patches side by side; W: one matrix for all, run as a
convolution whose stride is its kernel. ImageNet at 224 and patch 16 is 196 tokens; halving the patch makes four
times as many, and sixteen times the work in attention.
"""

from __future__ import annotations

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ablate.block import Block, BlockParams, Shape
from ablate.blocks._shapes import image


class PatchEmbed(Block, nn.Conv2d, name="patch_embed"):
    """Patches of an image as tokens, (C, H, W) -> (N, width): Dosovitskiy et al., 2021 (arXiv:2010.11929)."""

    class Params(BlockParams):
        width: PositiveInt = Field(description="features of a token")
        patch: PositiveInt = Field(16, description="side of a patch, in pixels; divides the sides of the image")

    def __init__(self, params: Params, shape: Shape) -> None:
        channels, height, width = image(self.name, shape)
        if height % params.patch or width % params.patch:
            raise ValueError(f"patch {params.patch} does not divide an image of {height} × {width}")
        super().__init__(channels, params.width, params.patch, stride=params.patch)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return super().forward(x_BCHW).flatten(2).transpose(1, 2)
