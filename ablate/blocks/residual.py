"""Weighted residual: Shen and Zeng, 2016 (arXiv:1605.08831); around attention: Zhang et al., 2019 (arXiv:1805.08318).

    y = w ⊙ branch + shortcut        w: one learnable number, or one per channel

With w = 0 at the start the network begins as the one without the branch. The branch's own parameters then have
gradient zero at the first step: w moves first.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ablate.block import Block, BlockParams, Shape, Stream


class Residual(Block, name="residual"):
    """Weighted residual, w · branch + shortcut: Shen and Zeng, 2016 (arXiv:1605.08831)."""

    ports = ("branch", "shortcut")

    class Params(BlockParams):
        kind: Literal["weighted"] = Field("weighted", description="the branch is multiplied by a learnable weight")
        init: float = Field(0.0, allow_inf_nan=False, description="the weight before training")
        per: Literal["scalar", "channel"] = Field("scalar", description="one weight in all, or one per channel")

    def __init__(self, params: Params, branch: Shape, shortcut: Shape) -> None:
        super().__init__()
        if branch != shortcut:
            raise ValueError(f"'{self.name}' needs equal shapes and was given branch {branch}, shortcut {shortcut}")
        self.start = params.init
        shape = (branch[0], *(1 for _ in branch[1:])) if params.per == "channel" else (1,)
        self.weight = nn.Parameter(torch.full(shape, params.init))

    def init(self, stream: Stream, recipe: str) -> None:
        nn.init.constant_(self.weight, self.start)

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        # In this order the sum keeps the layout of the shortcut, so that w = 0 changes nothing that comes after.
        return shortcut + self.weight * branch

    def extra_repr(self) -> str:
        return f"init={self.start}, weights={self.weight.numel()}"
