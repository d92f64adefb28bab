"""Instance normalisation: Ulyanov, Vedaldi and Lempitsky, 2016 (arXiv:1607.08022).

    y = γ (x - mean) / sqrt(var + eps) + β        mean, var per example and channel, over (H, W)

Made for the transfer of style; takes the contrast out of each image, and usually costs accuracy in recognition.
"""

from __future__ import annotations

from pydantic import Field
from torch import nn

from ablate.block import Block, BlockParams, Shape
from ablate.blocks._shapes import image


class InstanceNorm(Block, nn.GroupNorm, name="instance_norm"):
    """Instance normalisation: Ulyanov, Vedaldi and Lempitsky, 2016 (arXiv:1607.08022)."""

    class Params(BlockParams):
        eps: float = Field(1e-5, gt=0, allow_inf_nan=False, description="added to the variance")

    def __init__(self, params: Params, shape: Shape) -> None:
        channels, height, width = image(self.name, shape)
        if height * width == 1:
            raise ValueError(f"'{self.name}' of an image of 1 × 1 is a constant: one value has no variance")
        # Each channel a group of its own; torch's InstanceNorm2d is the same and refuses some shapes in training only.
        super().__init__(channels, channels, eps=params.eps)
