"""Convolution, batch normalisation, activation.

y = act(bn(conv(x)))        (C, H, W) -> (width, ⌈H / stride⌉, ⌈W / stride⌉), for odd kernels
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveInt

from ablate.block import BlockParams, Composite, Scope, Value, once
from ablate.blocks._activations import Activation


class ConvBnAct(Composite, name="conv_bn_act"):
    """Convolution, batch normalisation, activation."""

    class Params(BlockParams):
        width: PositiveInt = Field(description="output channels")
        kernel: PositiveInt = Field(3, description="side of the square kernel, in pixels; odd")
        stride: PositiveInt = once(1, description="step of the kernel, in pixels")
        act: Activation = Field("relu", description="activation after the normalisation; none: no activation")

    @classmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
        (x,) = inputs
        x = scope.add("conv", "conv", x, width=params.width, kernel=params.kernel, stride=params.stride)
        x = scope.add("bn", "batch_norm", x)
        return scope.add("act", "act", x, kind=params.act)
