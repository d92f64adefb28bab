"""The channel part of CBAM alone: Woo, Park, Lee and Kweon, 2018 (arXiv:1807.06521).

    y = σ(mlp(mean_HW(x)) + mlp(max_HW(x))) ⊙ x        mlp: C -> hidden -> C, relu between, no biases

The paper gives 22.80% top-1 error for ResNet-50 on ImageNet, against 23.14 for the mean alone, 23.20 for the
maximum alone, and 22.66 with the spatial part after it. At hidden width 0 the gate is the constant 1/2.
"""

from __future__ import annotations

from typing import Any

from ablate.block import Shape
from ablate.blocks._shapes import image
from ablate.blocks.attention._cbam_parts import ChannelAttention, Pool
from ablate.blocks.attention._options import without_defaults
from ablate.blocks.attention._reduction import ReducedBlock, ReductionParams


class ChannelGate(ReducedBlock, ChannelAttention, name="channel_gate"):
    class Params(ReductionParams):
        pool: Pool = "avg_max"

    def __init__(self, params: Params, shape: Shape) -> None:
        channels, _, _ = image(self.name, shape)
        super().__init__(channels, params.hidden(channels), params.pool)

    @classmethod
    def effective(cls, params: Any, *shapes: Shape) -> dict[str, Any]:
        answer = super().effective(params, *shapes)
        if answer["hidden"] == 0:
            answer = {**answer, "pool": "avg_max"}  # a constant pools nothing
        return without_defaults(answer, cls.Params, "pool")
