"""Stochastic depth: Huang, Sun, Liu, Sedra and Weinberger, 2016 (arXiv:1603.09382).

    training:    y = b · x / (1 - rate),  b ~ Bernoulli(1 - rate)        evaluation: y = x        (scaled: training)
    training:    y = b · x                                                evaluation: y = (1 - rate) · x  (evaluation)

Stands at the end of a residual branch (``before stage*.*.add:branch``). One b per example as timm has it, or per batch
as the paper has it; the paper scales in evaluation. What it computes is the same in expectation. The paper takes
ResNet-110 on CIFAR-10 from 6.41 to 5.25% test error, with rates that grow linearly from 0 to 0.5.

b comes from ``noise_seed`` alone, as in ``dropout``. A dropped branch is computed all the same: no time is saved.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ablate.block import Block, BlockParams, Shape


class DropPath(Block, name="drop_path"):
    """Drops whole branches in training, stochastic depth: Huang et al., 2016 (arXiv:1603.09382)."""

    noisy: ClassVar[bool] = True

    class Params(BlockParams):
        rate: float = Field(0.1, ge=0, lt=1, description="probability that the branch is dropped in training")
        per: Literal["example", "batch"] = Field("example", description="one draw for each example, or one for all")
        scaled: Literal["training", "evaluation"] = Field(
            "training", description="divide by 1 - rate in training, or multiply by it in evaluation"
        )

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        self.rate, self.per, self.scaled = params.rate, params.per, params.scaled
        self.noise_seed: int | None = None

    @classmethod
    def is_identity(cls, params: Any, *shapes: Shape) -> bool:
        return bool(params.rate == 0)

    def forward(self, x: Tensor) -> Tensor:
        if self.rate == 0:
            return x
        if not self.training:
            return x * (1 - self.rate) if self.scaled == "evaluation" else x
        draws = torch.rand(len(x) if self.per == "example" else 1, device=x.device, generator=self._generator(x))
        kept = (draws >= self.rate).to(x.dtype).reshape(-1, *(1 for _ in x.shape[1:]))
        return x * (kept / (1 - self.rate) if self.scaled == "training" else kept)

    def _generator(self, x: Tensor) -> torch.Generator | None:
        if self.noise_seed is None:
            raise RuntimeError("drop_path in training mode needs its noise_seed: an int, set anew before each step")
        if x.is_meta:  # shapes only: no values, and no generator
            return None
        return torch.Generator(x.device).manual_seed(self.noise_seed)

    def extra_repr(self) -> str:
        return f"rate={self.rate}, per={self.per}, scaled={self.scaled}"
