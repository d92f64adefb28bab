"""The channel part of CBAM alone: Woo, Park, Lee and Kweon, 2018 (arXiv:1807.06521).

    y = σ(mlp(mean_HW(x)) + mlp(max_HW(x))) ⊙ x        mlp: C -> hidden -> C, relu between, no biases

The paper gives 22.80% top-1 error for ResNet-50 on ImageNet, against 23.14 for the mean alone and 22.66 with the
spatial part after it. At hidden width 0 the gate is the constant 1/2.
"""

from __future__ import annotations

from ablate.block import Shape
from ablate.blocks._shapes import image
from ablate.blocks.attention._cbam_parts import ChannelAttention
from ablate.blocks.attention._reduction import ReducedBlock, ReductionParams


class ChannelGate(ReducedBlock, ChannelAttention, name="channel_gate"):
    Params = ReductionParams

    def __init__(self, params: ReductionParams, shape: Shape) -> None:
        channels, _, _ = image(self.name, shape)
        super().__init__(channels, params.hidden(channels))
