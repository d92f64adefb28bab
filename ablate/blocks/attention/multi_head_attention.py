"""Multi-head attention over pixels: Vaswani et al., 2017 (arXiv:1706.03762), as in CNNtention (Kapila et al., 2024).

    q, k, v = W_q x + b_q, W_k x + b_k, W_v x + b_v             1 × 1 convolutions, C -> C
    head_i  = softmax(q_i k_iᵀ / sqrt(C / heads)) v_i           over the N = H·W pixels, on C / heads channels each
    y       = W_o [head_1; …; head_heads] + b_o                 1 × 1 convolution, C -> C

No position is encoded. CNNtention reports 91.06 against 90.96% on CIFAR-10 with 8 heads, one run each: no
difference that one run could show. At 16 channels 8 heads have 2 channels each.

``key.bias`` shifts all logits of a pixel alike, which softmax cancels: its gradient is zero.

Shapes: B images, C channels, H × W pixels, N = H·W; h heads of d = C / h channels.
"""

from __future__ import annotations

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ablate.block import Block, BlockParams, Shape
from ablate.blocks._attend import attend
from ablate.blocks._shapes import image
from ablate.blocks.attention._pixels import attention_weights, picture, pixels


class MultiHeadAttention(Block, name="multi_head_attention"):
    invariant_parameters = frozenset({"key.bias"})

    class Params(BlockParams):
        heads: PositiveInt = Field(8, description="number of heads; divides the channels")

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        channels, _, _ = image(self.name, shape)
        if channels % params.heads:
            raise ValueError(f"{params.heads} heads do not divide {channels} channels")
        self.heads, self.scale = params.heads, (channels / params.heads) ** -0.5
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def attention(self, x_BCHW: Tensor) -> Tensor:
        """(B, h, N, N): how much each pixel (row) reads from each pixel (column), by head."""
        query, key = pixels(self.query(x_BCHW), self.heads), pixels(self.key(x_BCHW), self.heads)
        return attention_weights(query, key, self.scale)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        q_BhNd, k_BhNd, v_BhNd = (pixels(layer(x_BCHW), self.heads) for layer in (self.query, self.key, self.value))
        y_BhNd = attend(q_BhNd, k_BhNd, v_BhNd, self.scale)
        y_BCHW: Tensor = self.out(picture(y_BhNd, *x_BCHW.shape[2:]))
        return y_BCHW
