"""Triplet attention: Misra, Nalamada, Arasanipalai and Hou, 2021 (arXiv:2010.03045).

    gate_d(x) = σ(BN(f_d([max_d(x); mean_d(x)])))        f_d: kernel × kernel convolution, 2 -> 1 channels, no bias
    y         = (gate_H(x) ⊙ x + gate_W(x) ⊙ x + gate_C(x) ⊙ x) / 3

CBAM's spatial gate three times: maximum and mean over H, W or C leave a map over the two other axes, (C, W), (H, C)
or (H, W), and f slides over that map. Along C its kernel sees neighbours by index, an order that means nothing else
to a network. Without ``spatial``, gate_C is left out and the divisor is 2. Each gate has 2 kernel² + 2 parameters.

The paper takes ResNet-50 on ImageNet from 24.56 to 22.52% top-1 error with one in every residual block, for 4,800
parameters and 1% more FLOPs. The running statistics move slowly, by 0.01 a step, as in the authors' code.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from ablate.block import Block, BlockParams, Shape
from ablate.blocks._shapes import image
from ablate.blocks.attention._kernel import OddKernel


class AxisGate(nn.Module):
    """The gate of a map, from the maximum and the mean over axis 1 of (B, *, *, *), in this order."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(1, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        gate: Tensor = torch.sigmoid(self.bn(self.conv(pooled)))
        return gate


class TripletAttention(Block, name="triplet_attention"):
    class Params(BlockParams):
        kernel: OddKernel = Field(7, description="side of each gate's kernel, in pixels and channels; odd")
        spatial: bool = Field(True, description="the gate over (H, W), beside those over (C, W) and (H, C)")

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        image(self.name, shape)
        self.spatial = params.spatial
        self.cw = AxisGate(params.kernel)
        self.hc = AxisGate(params.kernel)
        if self.spatial:
            self.hw = AxisGate(params.kernel)

    def gate(self, x_BCHW: Tensor) -> Tensor:
        """The mean of the gates, (B, C, H, W)."""
        cw_BC1W: Tensor = self.cw(x_BCHW.transpose(1, 2)).transpose(1, 2)
        hc_BCH1: Tensor = self.hc(x_BCHW.transpose(1, 3)).transpose(1, 3)
        if not self.spatial:
            return (cw_BC1W + hc_BCH1) / 2
        hw_B1HW: Tensor = self.hw(x_BCHW)
        return (cw_BC1W + hc_BCH1 + hw_B1HW) / 3

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x) * x
