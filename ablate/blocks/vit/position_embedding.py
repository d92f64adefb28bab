"""Position embeddings, added to tokens: Dosovitskiy et al., 2021 (arXiv:2010.11929), eq. 1 and Appendix D.4.

    y_n = x_n + P_n        (N, D) -> (N, D)

    learned_1d   N × D learnable numbers
    learned_2d   P of the token in row i and column j: [X_j; Y_i], D/2 learnable numbers each
    sincos_2d    nothing learnt: [sin(i ω); sin(j ω); cos(i ω); cos(j ω)], ω_k = 10000^(-4k/D), k < D/4
                 (Vaswani et al., 2017, arXiv:1706.03762; in two dimensions Chen et al., 2021, arXiv:2104.02057)
    none         P = 0: attention then sees a bag of patches

Tokens are the patches of an image, row by row, after at most one class token; in two dimensions that one has D
numbers of its own (0 for sincos_2d). Learnt numbers start normal, with standard deviation 0.02.
For relative positions see ``token_attention``. The paper: any of them brings 3 points (ViT-B/16, ImageNet by five
examples a class), and which hardly matters.
"""

from __future__ import annotations

from math import isqrt
from typing import Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from ablate.block import Block, BlockParams, Shape, Stream
from ablate.blocks.vit._tokens import tokens

STD = 0.02


class PositionEmbedding(Block, name="position_embedding"):
    """Adds to each token what says where it is: Dosovitskiy et al., 2021 (arXiv:2010.11929)."""

    class Params(BlockParams):
        kind: Literal["learned_1d", "learned_2d", "sincos_2d", "none"] = Field(
            "learned_1d", description="one vector a token; one a row and one a column; sines and cosines; nothing"
        )
        rows: PositiveInt | Literal["square"] = Field(
            "square", description="rows of patches (for the kinds in 2-D); square: as many as columns"
        )

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        count, features = tokens(self.name, shape)
        self.kind = params.kind
        if self.kind == "learned_1d":
            self.embedding = nn.Parameter(torch.zeros(1, count, features))
        if self.kind.endswith("2d"):
            self.rows, self.columns, self.extra = grid(self.name, count, params.rows)
        if self.kind == "learned_2d":
            _divides(self.name, 2, features, self.kind)
            self.row = nn.Parameter(torch.zeros(1, self.rows, 1, features // 2))
            self.column = nn.Parameter(torch.zeros(1, 1, self.columns, features // 2))
            self.token = nn.Parameter(torch.zeros(1, self.extra, features)) if self.extra else None
        if self.kind == "sincos_2d":
            _divides(self.name, 4, features, self.kind)
            self.register_buffer("table", torch.zeros(1, count, features))
            self._fill_table()

    @classmethod
    def effective(cls, params: Any, *shapes: Shape) -> dict[str, Any]:
        if not params.kind.endswith("2d"):
            return {"kind": params.kind}
        rows, _, _ = grid(cls.name, shapes[0][0], params.rows)
        return {"kind": params.kind, "rows": rows}

    @classmethod
    def is_identity(cls, params: Any, *shapes: Shape) -> bool:
        return bool(params.kind == "none")

    def init(self, stream: Stream, recipe: str) -> None:
        for name, parameter in self.named_parameters():
            nn.init.normal_(parameter, std=STD, generator=stream(name))
        if self.kind == "sincos_2d":
            self._fill_table()

    def positions(self) -> Tensor:
        """P: (1, N, D)."""
        if self.kind == "learned_1d":
            return self.embedding
        if self.kind == "sincos_2d":
            return self.get_buffer("table")
        across = (1, self.rows, self.columns, -1)
        patches = torch.cat([self.column.expand(across), self.row.expand(across)], dim=3).flatten(1, 2)
        return patches if self.token is None else torch.cat([self.token, patches], dim=1)

    def forward(self, x_BND: Tensor) -> Tensor:
        return x_BND if self.kind == "none" else x_BND + self.positions()

    def extra_repr(self) -> str:
        return self.kind

    @torch.no_grad()
    def _fill_table(self) -> None:
        table = self.get_buffer("table")
        table.copy_(sines_and_cosines(self.rows, self.columns, self.extra, table.shape[2]))


def grid(block: str, count: int, rows: int | str) -> tuple[int, int, int]:
    """(rows, columns, class tokens: 0 or 1), or ``ValueError``. No two squares from 1 on are neighbours."""
    side = isqrt(count) if rows == "square" else int(rows)
    columns = side if rows == "square" else count // side
    if not 0 <= count - side * columns <= 1 or columns == 0:
        asked = "a square" if rows == "square" else f"{rows} rows"
        raise ValueError(
            f"'{block}': {count} tokens are no grid of {asked}, with or without a class token; state 'rows'"
        )
    return side, columns, count - side * columns


def sines_and_cosines(rows: int, columns: int, extra: int, features: int) -> Tensor:
    """(1, extra + rows · columns, features), in float64 until it is stored: the angles grow with the image."""
    k = torch.arange(features // 4, dtype=torch.float64)
    frequency = 10_000.0 ** (-4 * k / features)
    row = torch.arange(rows, dtype=torch.float64)[:, None, None] * frequency
    column = torch.arange(columns, dtype=torch.float64)[None, :, None] * frequency
    parts = [row.sin(), column.sin(), row.cos(), column.cos()]
    patches = torch.cat([part.expand(rows, columns, -1) for part in parts], dim=2).flatten(0, 1)
    return torch.cat([torch.zeros(extra, features, dtype=torch.float64), patches])[None]


def _divides(block: str, parts: int, features: int, kind: str) -> None:
    if features % parts:
        raise ValueError(f"'{block}': kind {kind} needs a width that {parts} divides and was given {features}")
