"""Multi-head attention over channels: cross-covariance attention, El-Nouby et al., 2021 (XCiT, arXiv:2106.09681).

    q, k, v = W_q x + b_q, W_k x + b_k, W_v x + b_v         1 × 1 convolutions, C -> C
    head_i  = softmax(t_i q̂_i k̂_iᵀ) v_i                     over the d = C / heads channels of head i, each of them
                                                            a vector of N = H·W pixels; q̂ = q / |q|, k̂ = k / |k|
    y       = W_o [head_1; …; head_heads] + b_o             1 × 1 convolution, C -> C

``multi_head_attention`` with the axes exchanged: there pixels are the tokens and channels their features, here channels
are the tokens and pixels their features. CNNtention (Kapila et al., 2024, §5.4) asks for it and defines nothing; its
authors' layers are kept, so that the two differ in the axis, and the scale. Heads part the channels there and here: a
channel reads from those of its own head alone. One learnable temperature t per head, 1 before training. With
``normalize: false`` it is the scaled product of Vaswani et al., 2017 (arXiv:1706.03762): t q̂·k̂ is q·k / sqrt(N).

The work grows with N and not with N². XCiT is a transformer, with layers that let pixels see each other beside this
one; how it does in a convolutional network, it does not say.

Shapes: B images, C channels, H × W pixels, N = H·W; h heads of d = C / h channels.
"""

from __future__ import annotations

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.block import Block, BlockParams, Shape, Stream
from ablate.blocks._attend import attend
from ablate.blocks._shapes import image


class ChannelMultiHeadAttention(Block, name="channel_multi_head_attention"):
    class Params(BlockParams):
        heads: PositiveInt = Field(8, description="number of heads; divides the channels, two or more to a head")
        normalize: bool = Field(
            True, description="compare by the cosine, times a learnt temperature per head; false: by q·k / sqrt(H·W)"
        )

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        channels, height, width = image(self.name, shape)
        _check(params, channels, height * width)
        self.heads, self.normalize = params.heads, params.normalize
        self.scale = 1.0 if params.normalize else (height * width) ** -0.5
        self.query = nn.Conv2d(channels, channels, 1)
        self.key = nn.Conv2d(channels, channels, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        if self.normalize:
            self.temperature = nn.Parameter(torch.ones(self.heads, 1, 1))

    def init(self, stream: Stream, recipe: str) -> None:
        super().init(stream, recipe)
        if self.normalize:
            nn.init.ones_(self.temperature)

    def attention(self, x_BCHW: Tensor) -> Tensor:
        """(B, h, d, d): how much each channel (row) reads from each channel (column) of its head."""
        query, key = self._compared(x_BCHW)
        return torch.softmax(self.scale * query @ key.transpose(2, 3), dim=-1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        query, key = self._compared(x_BCHW)
        y_BhdN = attend(query, key, self._planes(self.value(x_BCHW)), self.scale)
        y_BCHW: Tensor = self.out(y_BhdN.reshape(x_BCHW.shape))
        return y_BCHW

    def _compared(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        query, key = self._planes(self.query(x_BCHW)), self._planes(self.key(x_BCHW))
        if self.normalize:
            return self.temperature * F.normalize(query, dim=-1), F.normalize(key, dim=-1)
        return query, key

    def _planes(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, h, d, N). Head i has the channels i·d … (i+1)·d - 1."""
        return x_BCHW.reshape(x_BCHW.shape[0], self.heads, x_BCHW.shape[1] // self.heads, -1)

    def extra_repr(self) -> str:
        return f"heads={self.heads}, normalize={self.normalize}"


def _check(params: ChannelMultiHeadAttention.Params, channels: int, pixels: int) -> None:
    if channels % params.heads:
        raise ValueError(f"{params.heads} heads do not divide {channels} channels")
    if channels == params.heads:
        raise ValueError(f"{params.heads} heads on {channels} channels: a channel alone in its head reads itself only")
    if params.normalize and pixels == 1:
        raise ValueError("a channel of one pixel has no direction to compare by; give normalize: false")
