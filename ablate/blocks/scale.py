"""Constant scaling, as of the shortcuts in table 1 of He, Zhang, Ren and Sun, 2016 (arXiv:1603.05027).

y = factor · x        any shape
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor

from ablate.block import Block, BlockParams, Shape


class Scale(Block, name="scale"):
    """Its input times a constant, which is not learnt."""

    class Params(BlockParams):
        factor: float = Field(1.0, allow_inf_nan=False, description="what every value is multiplied by")

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        self.factor = params.factor

    @classmethod
    def is_identity(cls, params: Any, *shapes: Shape) -> bool:
        return bool(params.factor == 1)

    def forward(self, x: Tensor) -> Tensor:
        return x if self.factor == 1 else x * self.factor

    def extra_repr(self) -> str:
        return f"factor={self.factor}"
