"""Fully connected layer.

y = W x + b        (C,) -> (width,); tokens (N, D) -> (N, width), each by itself
"""

from __future__ import annotations

from pydantic import Field, PositiveInt
from torch import nn

from ablate.block import Block, BlockParams, Shape
from ablate.blocks._shapes import vector


class Linear(Block, nn.Linear, name="linear"):
    """Fully connected layer on a vector, or on each of several tokens."""

    class Params(BlockParams):
        width: PositiveInt = Field(description="output features")
        bias: bool = Field(True, description="add a learnable constant to each output")

    def __init__(self, params: Params, shape: Shape) -> None:
        features = shape[1] if len(shape) == 2 else vector(self.name, shape)
        super().__init__(features, params.width, bias=params.bias)
