"""The channel attention module of DANet: Fu et al., 2019 (arXiv:1809.02983), eq. 3 and 4. It has no parameters.

    E_ij = x_i · x_j                  i, j: the C channels, each a vector of N = H·W pixels; no scale
    y_i  = Σ_j softmax_j(E_ij) x_j

The paper's β y + x with β learnt from 0 is the wiring's: insert it with ``residual: weighted``. E is a sum over pixels
and large, and E_ii is mostly the largest of its row, so that y is nearly x where the input is not small. The authors'
code has softmax_j(max_k E_ik - E_ij), which is softmax_j(-E_ij): a channel then reads from those that are least like
it (``compare: difference``), and no longer from itself. That is another function, of which the paper says nothing.
Made for segmentation, beside ``position_attention``.

Shapes: B images, C channels, H × W pixels, N = H·W.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from ablate.block import Block, BlockParams, Shape
from ablate.blocks._attend import attend
from ablate.blocks._shapes import image


class ChannelAttention(Block, name="channel_attention"):
    class Params(BlockParams):
        compare: Literal["likeness", "difference"] = Field(
            "likeness",
            description="what a channel reads most: those like it (the paper) or unlike it (the authors' code)",
        )

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        image(self.name, shape)
        self.sign = 1.0 if params.compare == "likeness" else -1.0

    def attention(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, C): how much each channel (row) reads from each channel (column)."""
        x_BCN = x_BCHW.flatten(2)
        return torch.softmax(self.sign * x_BCN @ x_BCN.transpose(1, 2), dim=-1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_B1CN = x_BCHW.flatten(2).unsqueeze(1)
        return attend(self.sign * x_B1CN, x_B1CN, x_B1CN, scale=1.0).reshape(x_BCHW.shape)

    def extra_repr(self) -> str:
        return f"compare={'likeness' if self.sign > 0 else 'difference'}"
