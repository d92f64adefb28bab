"""Fully connected layer.

y = W x + b        (C,) -> (width,)
"""

from __future__ import annotations

from pydantic import Field, PositiveInt
from torch import nn

from ablate.block import Block, BlockParams, Shape
from ablate.blocks._shapes import vector


class Linear(Block, nn.Linear, name="linear"):
    """Fully connected layer on a vector."""

    class Params(BlockParams):
        width: PositiveInt = Field(description="output features")
        bias: bool = Field(True, description="add a learnable constant to each output")

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__(vector(self.name, shape), params.width, bias=params.bias)
