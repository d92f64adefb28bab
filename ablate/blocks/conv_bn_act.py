"""Convolution, normalisation, activation.

y = act(bn(conv(x)))        (C, H, W) -> (width, ⌈H / stride⌉, ⌈W / stride⌉), for odd kernels
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from ablate.block import BlockParams, Composite, Scope, Value, once
from ablate.blocks._activations import Activation
from ablate.blocks._norms import BLOCKS, NORM_HELP, Norm


class ConvBnAct(Composite, name="conv_bn_act"):
    """Convolution, normalisation, activation."""

    class Params(BlockParams):
        width: PositiveInt = Field(description="output channels")
        kernel: PositiveInt = Field(3, description="side of the square kernel, in pixels")
        stride: PositiveInt = once(1, description="step of the kernel, in pixels")
        padding: NonNegativeInt | Literal["same"] = Field(
            "same", description="zeros added on each side, in pixels; 'same' (odd kernels) keeps H and W at stride 1"
        )
        groups: PositiveInt = Field(1, description="groups of channels that do not see each other; C: depthwise")
        bias: bool = Field(False, description="add a learnable constant to each output channel of the convolution")
        act: Activation = Field("relu", description="activation after the normalisation; none: no activation")
        norm: Norm = Field("batch", description=NORM_HELP)

    @classmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
        (x,) = inputs
        convolution = params.model_dump(include={"width", "kernel", "stride", "padding", "groups", "bias"})
        x = scope.add("conv", "conv", x, **convolution)
        x = scope.add("bn", BLOCKS[params.norm], x)
        return scope.add("act", "act", x, kind=params.act)
