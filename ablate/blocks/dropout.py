"""Dropout: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov, 2014 (JMLR 15, 1929–1958).

    y = x ⊙ m / (1 - rate),  m ~ Bernoulli(1 - rate) per element, in training;  y = x otherwise

The mask comes from ``noise_seed`` alone, never from torch's global stream: two networks that share a dropout
node drop the same elements at the same step, whatever else was added to one of them. Masks are the same for
every memory format, and differ between kinds of device, whose generators differ.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ablate.block import Block, BlockParams, Shape


class Dropout(Block, name="dropout"):
    """Zeroes a share of the elements in training: Srivastava et al., 2014."""

    noisy: ClassVar[bool] = True
    """Draws random numbers in training; the trainer sets ``noise_seed`` before each step."""

    class Params(BlockParams):
        rate: float = Field(0.5, ge=0, lt=1, description="share of the elements that are zeroed in training")

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        self.rate = params.rate
        self.noise_seed: int | None = None

    @classmethod
    def is_identity(cls, params: Any, *shapes: Shape) -> bool:
        return bool(params.rate == 0)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = torch.rand(x.shape, device=x.device, generator=self._generator(x)) >= self.rate
        return x * (kept.to(x.dtype) / (1 - self.rate))

    def _generator(self, x: Tensor) -> torch.Generator | None:
        if self.noise_seed is None:
            raise RuntimeError("dropout in training mode needs its noise_seed: an int, set anew before each step")
        if x.is_meta:  # shapes only: no values, and no generator
            return None
        return torch.Generator(x.device).manual_seed(self.noise_seed)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
