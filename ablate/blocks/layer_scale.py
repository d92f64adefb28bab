"""LayerScale: Touvron, Cord, Sablayrolles, Synnaeve and Jégou, 2021 (arXiv:2103.17239).

    y = γ ⊙ x        (C, H, W), (N, D) or (D,): one learnable γ per channel

Stands at the end of a branch: nearly silenced at the start, it lets very deep transformers train. ConvNeXt has it too.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from ablate.block import Block, BlockParams, Shape, Stream


class LayerScale(Block, name="layer_scale"):
    """A learnable factor per channel, small at the start: Touvron et al., 2021 (arXiv:2103.17239)."""

    class Params(BlockParams):
        init: float = Field(1e-6, allow_inf_nan=False, description="every factor before training")

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        self.start = params.init
        self.weight = nn.Parameter(torch.full((shape[0], 1, 1) if len(shape) == 3 else shape[-1:], params.init))

    def init(self, stream: Stream, recipe: str) -> None:
        nn.init.constant_(self.weight, self.start)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight

    def extra_repr(self) -> str:
        return f"init={self.start}, channels={self.weight.numel()}"
