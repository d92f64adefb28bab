"""Where branches meet: sum and concatenation, of two inputs or more.

add       y = x₀ + x₁ + …        equal shapes -> that shape
concat    y = [x₀; x₁; …]        (C₀, H, W), (C₁, H, W), … -> (C₀ + C₁ + …, H, W)
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from ablate.block import Block, BlockParams, Shape, port_names


class Add(Block, name="add"):
    """Sum of two or more inputs of equal shape."""

    ports = ("branch", "shortcut")
    variadic = True

    def __init__(self, params: BlockParams, *shapes: Shape) -> None:
        super().__init__()
        names = port_names(type(self), len(shapes))
        if len(set(shapes)) > 1:
            raise ValueError(f"'{self.name}' needs equal shapes and was given {_listed(names, shapes)}")

    def forward(self, *inputs: Tensor) -> Tensor:
        return reduce(torch.add, inputs)


class Concat(Block, name="concat"):
    """Two or more inputs side by side, along the channels."""

    ports = ("input0", "input1")
    variadic = True

    def __init__(self, params: BlockParams, *shapes: Shape) -> None:
        super().__init__()
        names = port_names(type(self), len(shapes))
        if len({shape[1:] for shape in shapes}) > 1:
            found = _listed(names, shapes)
            raise ValueError(f"'{self.name}' needs shapes that differ in channels only and was given {found}")

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, dim=1)


def _listed(names: tuple[str, ...], shapes: tuple[Shape, ...]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in zip(names, shapes, strict=True))
