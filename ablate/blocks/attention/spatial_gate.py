"""The spatial part of CBAM alone: Woo, Park, Lee and Kweon, 2018 (arXiv:1807.06521).

    y = σ(f([max_C(x); mean_C(x)])) ⊙ x        f: kernel × kernel convolution, 2 -> 1 channels, with bias

The paper does not report it alone; after the channel part it brings ResNet-50 on ImageNet from 22.80 to 22.66%
top-1 error (kernel 7). A learnt 1 × 1 convolution in the place of the two poolings does worse there: 22.90%.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ablate.block import Block, BlockParams, Shape
from ablate.blocks._shapes import image
from ablate.blocks.attention._cbam_parts import SpatialAttention, SpatialPool
from ablate.blocks.attention._kernel import OddKernel
from ablate.blocks.attention._options import without_defaults


class SpatialGate(Block, SpatialAttention, name="spatial_gate"):
    class Params(BlockParams):
        kernel: OddKernel = Field(7, description="side of the gate's kernel, in pixels; odd")
        spatial_pool: SpatialPool = "avg_max"

    def __init__(self, params: Params, shape: Shape) -> None:
        channels, _, _ = image(self.name, shape)
        super().__init__(params.kernel, channels, params.spatial_pool)

    @classmethod
    def effective(cls, params: Any, *shapes: Shape) -> dict[str, Any]:
        return without_defaults(super().effective(params, *shapes), cls.Params, "spatial_pool")
