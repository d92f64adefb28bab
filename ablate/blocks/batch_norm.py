"""Batch normalisation: Ioffe and Szegedy, 2015 (arXiv:1502.03167).

y = γ (x - mean) / sqrt(var + eps) + β        mean, var per channel, over the batch (and H, W)
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from ablate.block import Block, BlockParams, Shape


class BatchNorm(Block, nn.BatchNorm2d, name="batch_norm"):
    """Batch normalisation of (C, H, W) or (C,): Ioffe and Szegedy, 2015 (arXiv:1502.03167)."""

    class Params(BlockParams):
        eps: float = Field(1e-5, gt=0, allow_inf_nan=False, description="added to the variance")
        momentum: float = Field(
            0.1, gt=0, le=1, description="weight of the newest batch in the running statistics (some write 1 - this)"
        )

    def __init__(self, params: Params, shape: Shape) -> None:
        if len(shape) not in (1, 3):
            raise ValueError(f"'{self.name}' reads (C, H, W) or (C,) and was given {shape}")
        super().__init__(shape[0], eps=params.eps, momentum=params.momentum)

    def _check_input_dim(self, input: Tensor) -> None:
        # BatchNorm2d takes images only, and channels are axis 1 of a vector's batch as well
        if input.dim() not in (2, 4):
            raise ValueError(f"'{self.name}' reads (B, C, H, W) or (B, C) and was given {tuple(input.shape)}")
