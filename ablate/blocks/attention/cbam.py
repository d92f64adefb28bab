"""Convolutional block attention module: Woo, Park, Lee and Kweon, 2018 (arXiv:1807.06521).

    F'  = Mc(F) ⊙ F,    Mc(F)  = σ(mlp(mean_HW(F)) + mlp(max_HW(F)))        (B, C, 1, 1), no biases
    F'' = Ms(F') ⊙ F',  Ms(F') = σ(f([max_C(F'); mean_C(F')]))              (B, 1, H, W), f: kernel × kernel, bias

The paper takes ResNet-50 on ImageNet from 24.56 to 22.66% top-1 error (squeeze-and-excitation: 23.14) with one in
every residual block. Results elsewhere are mixed: timm's authors warn that it can cost accuracy.
The authors' code has batch normalisation after f and no bias there; this is the formula of the paper.
At hidden width 0, Mc is the constant 1/2.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from ablate.block import Shape
from ablate.blocks._shapes import image
from ablate.blocks.attention._cbam_parts import ChannelAttention, SpatialAttention
from ablate.blocks.attention._kernel import OddKernel
from ablate.blocks.attention._reduction import ReducedBlock, ReductionParams


class Cbam(ReducedBlock, name="cbam"):
    class Params(ReductionParams):
        kernel: OddKernel = Field(7, description="side of the spatial gate's kernel, in pixels; odd")

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        channels, _, _ = image(self.name, shape)
        self.channel = ChannelAttention(channels, params.hidden(channels))
        self.spatial = SpatialAttention(params.kernel)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.spatial(self.channel(x))
        return y
