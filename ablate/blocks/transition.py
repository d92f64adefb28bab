"""Between the dense blocks of a DenseNet: Huang, Liu, van der Maaten and Weinberger, 2017 (arXiv:1608.06993).

    y = pool(conv(act(bn(x))))        (C, H, W) -> (⌊compression · C⌋, H // 2, W // 2)

conv is 1 × 1 without bias, pool the mean of 2 × 2 pixels. With compression 0.5 (and a bottleneck) the paper writes
DenseNet-BC; all of its networks for ImageNet have it.
"""

from __future__ import annotations

from math import floor
from typing import Any

from pydantic import Field, PositiveInt

from ablate.block import BlockParams, Composite, Scope, Value
from ablate.blocks._activations import Activation
from ablate.blocks._norms import BLOCKS, NORM_HELP, Norm


class Transition(Composite, name="transition"):
    """Fewer channels and half the size between dense blocks: Huang et al., 2017 (arXiv:1608.06993)."""

    class Params(BlockParams):
        compression: float = Field(0.5, gt=0, le=1, description="output channels per input channel, rounded down")
        stride: PositiveInt = Field(2, description="side and step of the pooling window, in pixels")
        dropout: float = Field(0.0, ge=0, lt=1, description="share zeroed in training, after the convolution")
        act: Activation = Field("relu", description="activation after the normalisation; none: no activation")
        norm: Norm = Field("batch", description=NORM_HELP)

    @classmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
        (x,) = inputs
        # 0.29 · 100 is 28.999…96 in binary, and 29 is meant
        width = max(1, floor(params.compression * scope.shape(x)[0] + 1e-6))
        x = scope.add("bn", BLOCKS[params.norm], x)
        x = scope.add("act", "act", x, kind=params.act)
        x = scope.add("conv", "conv", x, width=width, kernel=1)
        if params.dropout > 0:
            x = scope.add("dropout", "dropout", x, rate=params.dropout)
        return scope.add("pool", "avg_pool", x, kernel=params.stride)
