"""Bottleneck residual block: He, Zhang, Ren and Sun, 2016 (arXiv:1512.03385).

    y = act(bn3(conv3(act2(bn2(conv2(act1(bn1(conv1(x)))))))) + shortcut(x))
    (C, H, W) -> (expansion · width, ⌈H / stride⌉, ⌈W / stride⌉)

conv1 is 1 × 1, conv2 ``kernel`` × ``kernel``, conv3 1 × 1 and widens to expansion · width; none has a bias.
``version`` says where the stride is: in conv1 as the paper has it (v1), or in conv2 (v1.5), which is torchvision's
ResNet-50 and ResNet-B of He et al., 2019 (arXiv:1812.01187): 75.21 → 75.66% top-1 there.
``groups`` in conv2 is ResNeXt's cardinality (Xie et al., 2017, arXiv:1611.05431): ResNeXt-50 32×4d is width 128,
groups 32, expansion 2.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt

from ablate.block import BlockParams, Composite, Scope, Value, once
from ablate.blocks._activations import Activation
from ablate.blocks._norms import BLOCKS, NORM_HELP, Norm
from ablate.blocks._shortcuts import SHORTCUT_HELP, Shortcut, add_shortcut


class Bottleneck(Composite, name="bottleneck"):
    """Bottleneck residual block, 1 × 1, 3 × 3, 1 × 1: He, Zhang, Ren and Sun, 2016 (arXiv:1512.03385)."""

    class Params(BlockParams):
        width: PositiveInt = Field(description="channels within the block; the output has expansion times as many")
        expansion: PositiveInt = Field(4, description="output channels per channel within")
        stride: PositiveInt = once(1, description="step of one convolution, in pixels; version says of which")
        version: Literal["v1", "v1.5"] = Field("v1.5", description="the stride is in conv1 (v1) or in conv2 (v1.5)")
        kernel: PositiveInt = Field(3, description="side of the square kernel of conv2, in pixels; odd")
        groups: PositiveInt = Field(1, description="groups of channels of conv2 (ResNeXt's cardinality)")
        shortcut: Shortcut = Field("project", description=SHORTCUT_HELP)
        act: Activation = Field("relu", description="activation after bn1, after bn2 and after the sum")
        norm: Norm = Field("batch", description=NORM_HELP)

    @classmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
        (x,) = inputs
        width, output, norm = params.width, params.width * params.expansion, BLOCKS[params.norm]
        stride1, stride2 = (params.stride, 1) if params.version == "v1" else (1, params.stride)
        y = scope.add("conv1", "conv", x, width=width, kernel=1, stride=stride1)
        y = scope.add("bn1", norm, y)
        y = scope.add("act1", "act", y, kind=params.act)
        y = scope.add("conv2", "conv", y, width=width, kernel=params.kernel, stride=stride2, groups=params.groups)
        y = scope.add("bn2", norm, y)
        y = scope.add("act2", "act", y, kind=params.act)
        y = scope.add("conv3", "conv", y, width=output, kernel=1)
        y = scope.add("bn3", norm, y)
        if params.shortcut != "none":
            x = add_shortcut(scope, x, kind=params.shortcut, width=output, stride=params.stride, norm=params.norm)
            y = scope.add("add", "add", y, x)
        return scope.add("act", "act", y, kind=params.act)
