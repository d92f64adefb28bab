"""Class token: Devlin et al., 2019 (arXiv:1810.04805), for images Dosovitskiy et al., 2021 (arXiv:2010.11929), eq. 1.

    y = [token; x_1; …; x_N]        (N, D) -> (N + 1, D); token: D learnable numbers, 0 before training

The classifier reads this token. The paper finds that the mean over tokens does as well with another learning rate.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ablate.block import Block, BlockParams, Shape, Stream
from ablate.blocks.vit._tokens import tokens


class ClassToken(Block, name="class_token"):
    """A learnable token before all others, (N, D) -> (N + 1, D): Devlin et al., 2019 (arXiv:1810.04805)."""

    def __init__(self, params: BlockParams, shape: Shape) -> None:
        super().__init__()
        _, features = tokens(self.name, shape)
        self.token = nn.Parameter(torch.zeros(1, 1, features))

    def init(self, stream: Stream, recipe: str) -> None:
        nn.init.zeros_(self.token)

    def forward(self, x_BND: Tensor) -> Tensor:
        return torch.cat([self.token.expand(x_BND.shape[0], -1, -1), x_BND], dim=1)
