"""Self-attention over pixels: Kapila et al., 2024 (CNNtention), after Zhang et al., 2019 (arXiv:1805.08318).

    q, k, v = W_q x + b_q, W_k x + b_k, W_v x + b_v        1 × 1 convolutions, C -> C
    y_n     = Σ_m softmax_m(q_n · k_m) v_m                 n, m: the N = H·W pixels; no scale

CNNtention leaves the scale out since its networks are narrow; at C = 64 that is a factor of 8 in the logits.
SAGAN projects to C/8 and back; here nothing is narrowed. No position is encoded.
The paper reports 91.44 against 90.96% on CIFAR-10, one run each and with the test set stopping the training.
N² products of C: at 32 × 32 pixels far more work than the convolutions around it.

``key.bias`` shifts all logits of a pixel alike, which softmax cancels: its gradient is zero.

Shapes: B images, C channels, H × W pixels, N = H·W; h = 1 head of d = C channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from ablate.block import Block, BlockParams, Shape
from ablate.blocks._attend import attend
from ablate.blocks._shapes import image
from ablate.blocks.attention._pixels import attention_weights, picture, pixels


class SelfAttention(Block, name="self_attention"):
    invariant_parameters = frozenset({"key.bias"})

    def __init__(self, params: BlockParams, shape: Shape) -> None:
        super().__init__()
        channels, _, _ = image(self.name, shape)
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)

    def attention(self, x_BCHW: Tensor) -> Tensor:
        """(B, 1, N, N): how much each pixel (row) reads from each pixel (column)."""
        return attention_weights(pixels(self.query(x_BCHW), 1), pixels(self.key(x_BCHW), 1), scale=1.0)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        q_BhNd, k_BhNd, v_BhNd = (pixels(layer(x_BCHW), 1) for layer in (self.query, self.key, self.value))
        return picture(attend(q_BhNd, k_BhNd, v_BhNd, scale=1.0), *x_BCHW.shape[2:])
