"""Activation: an element-wise function, never in place.

y = f(x)        any shape; leaky_relu has slope 0.01, elu α = 1, gelu is exact (by erf)
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor

from ablate.block import Block, BlockParams, Shape
from ablate.blocks._activations import FUNCTIONS, Activation


class Act(Block, name="act"):
    """Activation: an element-wise function, chosen by name."""

    class Params(BlockParams):
        kind: Activation = Field("relu", description="which function; none leaves its input as it is")

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        self.kind = params.kind

    @classmethod
    def is_identity(cls, params: Any, *shapes: Shape) -> bool:
        return bool(params.kind == "none")

    def forward(self, x: Tensor) -> Tensor:
        return FUNCTIONS[self.kind](x)

    def extra_repr(self) -> str:
        return self.kind
