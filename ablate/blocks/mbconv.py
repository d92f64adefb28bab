"""Mobile inverted bottleneck: Sandler et al., 2018 (arXiv:1801.04381), as EfficientNet has it.

    y = bn3(conv3(se(act2(bn2(conv2(act1(bn1(conv1(x)))))))))  (+ x where neither width nor size change)
    (C, H, W) -> (width, ⌈H / stride⌉, ⌈W / stride⌉)

conv1 is 1 × 1 to expansion · C channels (not there at expansion 1), conv2 depthwise, conv3 1 × 1, without activation
after it. With squeeze-and-excitation and Swish it is the block of EfficientNet (Tan and Le, 2019, arXiv:1905.11946),
whose gate has hidden width C // reduction: it counts the block's input channels, not the expanded ones.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, NonNegativeInt, PositiveInt

from ablate.block import BlockParams, Composite, Scope, Value, once
from ablate.blocks._activations import Activation
from ablate.blocks._norms import BLOCKS, NORM_HELP, Norm


class MBConv(Composite, name="mbconv"):
    """Mobile inverted bottleneck with squeeze-and-excitation: Tan and Le, 2019 (arXiv:1905.11946)."""

    class Params(BlockParams):
        width: PositiveInt = Field(description="output channels")
        stride: PositiveInt = once(1, description="step of the depthwise convolution, in pixels")
        kernel: PositiveInt = Field(3, description="side of the square kernel of conv2, in pixels; odd")
        expansion: PositiveInt = Field(6, description="channels of the depthwise convolution per input channel")
        reduction: NonNegativeInt = Field(
            4, description="the block's input channels per hidden unit of the gate; 0: none"
        )
        act: Activation = Field("silu", description="activation after bn1 and bn2, and within the gate")
        norm: Norm = Field("batch", description=NORM_HELP)

    @classmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
        (x,) = inputs
        channels, norm, y = scope.shape(x)[0], BLOCKS[params.norm], x
        hidden = channels * params.expansion
        if params.expansion > 1:
            y = scope.add("conv1", "conv", y, width=hidden, kernel=1)
            y = scope.add("bn1", norm, y)
            y = scope.add("act1", "act", y, kind=params.act)
        y = scope.add("conv2", "conv", y, width=hidden, kernel=params.kernel, stride=params.stride, groups=hidden)
        y = scope.add("bn2", norm, y)
        y = scope.add("act2", "act", y, kind=params.act)
        if params.reduction > 0:
            y = scope.add("se", "se", y, reduction=params.reduction * params.expansion, act=params.act)
        y = scope.add("conv3", "conv", y, width=params.width, kernel=1)
        y = scope.add("bn3", norm, y)
        if params.stride > 1 or channels != params.width:
            return y
        return scope.add("add", "add", y, scope.add("shortcut", "identity", x))
