"""Convolutional block attention module: Woo, Park, Lee and Kweon, 2018 (arXiv:1807.06521).

    F'  = Mc(F) ⊙ F,    Mc(F)  = σ(mlp(mean_HW(F)) + mlp(max_HW(F)))        (B, C, 1, 1), no biases
    F'' = Ms(F') ⊙ F',  Ms(F') = σ(f([max_C(F'); mean_C(F')]))              (B, 1, H, W), f: kernel × kernel, bias

The paper's other arrangements are ``order: spatial_first``, and ``parallel``, where both gates read F:
F'' = Mc(F) ⊙ Ms(F) ⊙ F (how the two are joined there, the paper does not say).

The paper takes ResNet-50 on ImageNet from 24.56 to 22.66% top-1 error (squeeze-and-excitation: 23.14) with one in
every residual block. Results elsewhere are mixed: timm's authors warn that it can cost accuracy.
The authors' code has batch normalisation after f and no bias there; this is the formula of the paper.
At hidden width 0, Mc is the constant 1/2.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from ablate.block import Shape
from ablate.blocks._shapes import image
from ablate.blocks.attention._cbam_parts import ChannelAttention, Pool, SpatialAttention, SpatialPool
from ablate.blocks.attention._kernel import OddKernel
from ablate.blocks.attention._options import without_defaults
from ablate.blocks.attention._reduction import ReducedBlock, ReductionParams


class Cbam(ReducedBlock, name="cbam"):
    class Params(ReductionParams):
        kernel: OddKernel = Field(7, description="side of the spatial gate's kernel, in pixels; odd")
        order: Literal["channel_first", "spatial_first", "parallel"] = Field(
            "channel_first", description="which gate comes first; parallel: both read the input"
        )
        pool: Pool = "avg_max"
        spatial_pool: SpatialPool = "avg_max"

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        channels, _, _ = image(self.name, shape)
        self.order = params.order
        self.channel = ChannelAttention(channels, params.hidden(channels), params.pool)
        self.spatial = SpatialAttention(params.kernel, channels, params.spatial_pool)

    @classmethod
    def effective(cls, params: Any, *shapes: Shape) -> dict[str, Any]:
        answer = super().effective(params, *shapes)
        if answer["hidden"] == 0:
            # the channel gate is the constant 1/2: it pools nothing, and the spatial gate reads F/2 or F
            order = "channel_first" if params.order == "channel_first" else "spatial_first"
            answer = {**answer, "pool": "avg_max", "order": order}
        return without_defaults(answer, cls.Params, "order", "pool", "spatial_pool")

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor
        if self.order == "parallel":
            y = self.channel.gate(x) * self.spatial.gate(x) * x
        elif self.order == "spatial_first":
            y = self.channel(self.spatial(x))
        else:
            y = self.spatial(self.channel(x))
        return y
