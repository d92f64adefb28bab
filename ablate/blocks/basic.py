"""Basic residual block: He, Zhang, Ren and Sun, 2016 (arXiv:1512.03385).

    y = act(bn2(conv2(act1(bn1(conv1(x))))) + shortcut(x))        (C, H, W) -> (width, ⌈H / stride⌉, ⌈W / stride⌉)

Both convolutions are 3 × 3 without bias; the stride is the first one's. ``shortcut`` is the identity where the
block changes neither width nor size; elsewhere ``pad`` (option A, the paper's networks for CIFAR-10) or
``project`` (option B, 1 × 1 convolution and batch normalisation, its networks for ImageNet). ``none`` leaves the
sum out: the paper's plain network, 28.54 against 25.03% top-1 error on ImageNet at 34 layers.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveInt

from ablate.block import BlockParams, Composite, Scope, Value, once
from ablate.blocks._activations import Activation
from ablate.blocks._norms import BLOCKS, NORM_HELP, Norm
from ablate.blocks._shortcuts import SHORTCUT_HELP, Shortcut, add_shortcut


class Basic(Composite, name="basic"):
    """Basic residual block, two 3 × 3 convolutions: He, Zhang, Ren and Sun, 2016 (arXiv:1512.03385)."""

    class Params(BlockParams):
        width: PositiveInt = Field(description="output channels")
        stride: PositiveInt = once(1, description="step of the first convolution, in pixels")
        shortcut: Shortcut = Field("project", description=SHORTCUT_HELP)
        act: Activation = Field("relu", description="activation after bn1 and after the sum")
        norm: Norm = Field("batch", description=NORM_HELP)

    @classmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
        (x,) = inputs
        width, stride, norm = params.width, params.stride, BLOCKS[params.norm]
        y = scope.add("conv1", "conv", x, width=width, kernel=3, stride=stride)
        y = scope.add("bn1", norm, y)
        y = scope.add("act1", "act", y, kind=params.act)
        y = scope.add("conv2", "conv", y, width=width, kernel=3)
        y = scope.add("bn2", norm, y)
        if params.shortcut != "none":
            x = add_shortcut(scope, x, kind=params.shortcut, width=width, stride=stride, norm=params.norm)
            y = scope.add("add", "add", y, x)
        return scope.add("act", "act", y, kind=params.act)
