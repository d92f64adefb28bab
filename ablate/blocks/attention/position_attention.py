"""The position attention module of DANet: Fu et al., 2019 (arXiv:1809.02983), eq. 1 and 2.

    q, k = W_q x + b_q, W_k x + b_k        1 × 1 convolutions, C -> C / reduction
    v    = W_v x + b_v                     1 × 1 convolution, C -> C
    y_n  = Σ_m softmax_m(q_n · k_m) v_m    n, m: the N = H·W pixels; no scale

The paper's α y + x with α learnt from 0 is the wiring's: insert it with ``residual: weighted``. The authors' code
narrows q and k to C / 8, after SAGAN (Zhang et al., 2019, arXiv:1805.08318); the paper's text leaves them at C, which
is ``reduction: 1``, and then the block is ``self_attention``. Made for segmentation, where it stands behind a
convolution that narrows 2,048 channels to 512, beside ``channel_attention``, and the two are summed.

``key.bias`` shifts all logits of a pixel alike, which softmax cancels: its gradient is zero.

Shapes: B images, C channels, H × W pixels, N = H·W; h = 1 head of d channels.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ablate.block import Block, BlockParams, Shape
from ablate.blocks._attend import attend
from ablate.blocks._shapes import image
from ablate.blocks.attention._pixels import attention_weights, picture, pixels


class PositionAttention(Block, name="position_attention"):
    invariant_parameters = frozenset({"key.bias"})

    class Params(BlockParams):
        reduction: PositiveInt = Field(8, description="channels per channel of query and key; max(1, C // reduction)")

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        channels, _, _ = image(self.name, shape)
        inner = inner_width(params, channels)
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)

    @classmethod
    def effective(cls, params: Any, *shapes: Shape) -> dict[str, Any]:
        return {"inner": inner_width(params, shapes[0][0])}

    @classmethod
    def notes(cls, params: Any, *shapes: Shape) -> tuple[str, ...]:
        channels, inner = shapes[0][0], inner_width(params, shapes[0][0])
        if inner * params.reduction == channels:
            return ()
        return (f"reduction {params.reduction} on {channels} channels → inner width {inner}",)

    def attention(self, x_BCHW: Tensor) -> Tensor:
        """(B, 1, N, N): how much each pixel (row) reads from each pixel (column)."""
        return attention_weights(pixels(self.query(x_BCHW), 1), pixels(self.key(x_BCHW), 1), scale=1.0)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        query, key, value = (pixels(layer(x_BCHW), 1) for layer in (self.query, self.key, self.value))
        return picture(attend(query, key, value, scale=1.0), *x_BCHW.shape[2:])


def inner_width(params: PositionAttention.Params, channels: int) -> int:
    return max(1, channels // params.reduction)
