"""Identity: its input, unchanged. A place that patterns can name where nothing happens.

y = x        any shape
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ablate.block import Block, BlockParams, Shape


class Identity(Block, name="identity"):
    """Its input, unchanged: a place that patterns can name."""

    def __init__(self, params: BlockParams, shape: Shape) -> None:
        super().__init__()

    @classmethod
    def is_identity(cls, params: Any, *shapes: Shape) -> bool:
        return True

    def forward(self, x: Tensor) -> Tensor:
        return x
