"""Layer normalisation: Ba, Kiros and Hinton, 2016 (arXiv:1607.06450).

    y = γ (x - mean) / sqrt(var + eps) + β        mean, var over the channels, at each pixel or token of each example

(C, H, W): over C at each pixel, as in ConvNeXt (not over C, H and W together). (N, D) and (D,): over D. γ and β have
one value per channel. Does not see the batch.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.block import Block, BlockParams, Shape


class LayerNorm(Block, nn.LayerNorm, name="layer_norm"):
    """Layer normalisation over the channels of each pixel or token: Ba, Kiros and Hinton, 2016 (arXiv:1607.06450)."""

    class Params(BlockParams):
        eps: float = Field(
            1e-6, gt=0, allow_inf_nan=False, description="added to the variance (as ViT and ConvNeXt; torch's is 1e-5)"
        )

    def __init__(self, params: Params, shape: Shape) -> None:
        if len(shape) not in (1, 2, 3):
            raise ValueError(f"'{self.name}' reads (C, H, W), (N, D) or (D,) and was given {shape}")
        super().__init__(shape[0] if len(shape) == 3 else shape[-1], eps=params.eps)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 4:
            return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        x_BHWC = x.permute(0, 2, 3, 1)
        return F.layer_norm(x_BHWC, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)
