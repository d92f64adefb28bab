"""Multi-head self-attention over tokens: Vaswani et al., 2017 (arXiv:1706.03762), as in ViT (arXiv:2010.11929, eq. 6).

    q, k, v = W_q x + b_q, W_k x + b_k, W_v x + b_v             D -> D
    head_i  = softmax((q_i k_iᵀ + R_i) / sqrt(d)) v_i            over the N tokens, d = D / heads features each
    y       = W_o [head_1; …; head_heads] + b_o                 D -> D

``position: relative`` (ViT, Appendix D.4, after Shaw et al., 2018, arXiv:1803.02155): R_i[n, m] = q_i,n · T_{m-n},
one learnable vector of d numbers for each of the 2N - 1 offsets in the sequence, shared by all heads; a class token
counts as a place. Otherwise R = 0. The number of heads changes neither parameters nor FLOPs. There is no dropout of
attention weights. Memory is linear in N without positions; R enters as a mask, of heads · N² numbers an example.

``key.bias`` shifts all logits of a token alike, which softmax cancels: its gradient is zero.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ablate.block import Block, BlockParams, Shape, Stream
from ablate.blocks._attend import attend
from ablate.blocks.vit._tokens import join_heads, split_heads, tokens

STD = 0.02
"""Of the offsets' vectors, before training."""


class TokenAttention(Block, name="token_attention"):
    """Multi-head self-attention over tokens, (N, D) -> (N, D): Vaswani et al., 2017 (arXiv:1706.03762)."""

    invariant_parameters = frozenset({"key.bias"})

    class Params(BlockParams):
        heads: PositiveInt = Field(8, description="number of heads; divides the features")
        position: Literal["none", "relative"] = Field(
            "none", description="relative: a learnt vector per offset between tokens enters the logits"
        )

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        count, features = tokens(self.name, shape)
        if features % params.heads:
            raise ValueError(f"{params.heads} heads do not divide {features} features")
        if params.position == "relative" and count < 2:
            raise ValueError(f"'{self.name}': one token has no relative position")
        self.heads, self.scale = params.heads, (features / params.heads) ** -0.5
        self.query = nn.Linear(features, features)
        self.key = nn.Linear(features, features)
        self.value = nn.Linear(features, features)
        self.out = nn.Linear(features, features)
        relative = params.position == "relative"
        self.offsets = nn.Parameter(torch.zeros(2 * count - 1, features // params.heads)) if relative else None

    def init(self, stream: Stream, recipe: str) -> None:
        super().init(stream, recipe)
        if self.offsets is not None:
            nn.init.normal_(self.offsets, std=STD, generator=stream("offsets"))

    def attention(self, x_BND: Tensor) -> Tensor:
        """(B, h, N, N): how much each token (row) reads from each token (column), by head."""
        query, key, _ = self._projected(x_BND)
        relative = self.relative_logits(query)
        logits = self.scale * query @ key.transpose(-2, -1)
        return torch.softmax(logits if relative is None else logits + relative, dim=-1)

    def forward(self, x_BND: Tensor) -> Tensor:
        query, key, value = self._projected(x_BND)
        y_BhNd = attend(query, key, value, self.scale, self.relative_logits(query))
        y_BND: Tensor = self.out(join_heads(y_BhNd))
        return y_BND

    def relative_logits(self, query_BhNd: Tensor) -> Tensor | None:
        """R / sqrt(d), (B, h, N, N): logits of all offsets, read along the diagonals."""
        if self.offsets is None:
            return None
        count = query_BhNd.shape[2]
        # Row n holds the offset m - n at place m - n + N - 1: in the flat rows that is n(2N - 2) + m + N - 1.
        flat: Tensor = (self.scale * query_BhNd @ self.offsets.transpose(-2, -1)).flatten(2)
        rows = flat[..., count - 1 : count - 1 + count * (2 * count - 2)].reshape(*flat.shape[:2], count, -1)
        return rows[..., :count]

    def _projected(self, x_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = (split_heads(layer(x_BND), self.heads) for layer in (self.query, self.key, self.value))
        return query, key, value

    def extra_repr(self) -> str:
        return f"heads={self.heads}"
