"""Basic residual block: He, Zhang, Ren and Sun, 2016 (arXiv:1512.03385).

    y = act(bn2(conv2(act1(bn1(conv1(x))))) + shortcut(x))        (C, H, W) -> (width, ⌈H / stride⌉, ⌈W / stride⌉)

Both convolutions are 3 × 3 without bias; the stride is the first one's. ``shortcut`` is the identity where the
block changes neither width nor size; elsewhere ``pad`` (option A, the paper's networks for CIFAR-10) or
``project`` (option B, 1 × 1 convolution and batch normalisation, its networks for ImageNet). ``none`` leaves the
sum out: the paper's plain network, 28.54 against 25.03% top-1 error on ImageNet at 34 layers.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt

from ablate.block import BlockParams, Composite, Scope, Value, once
from ablate.blocks._activations import Activation


class Basic(Composite, name="basic"):
    """Basic residual block, two 3 × 3 convolutions: He, Zhang, Ren and Sun, 2016 (arXiv:1512.03385)."""

    class Params(BlockParams):
        width: PositiveInt = Field(description="output channels")
        stride: PositiveInt = once(1, description="step of the first convolution, in pixels")
        shortcut: Literal["pad", "project", "none"] = Field(
            "project",
            description="where width or size change: zero channels (pad) or a 1 × 1 convolution (project); "
            "none: no residual connection at all",
        )
        act: Activation = Field("relu", description="activation after bn1 and after the sum")

    @classmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
        (x,) = inputs
        y = scope.add("conv1", "conv", x, width=params.width, kernel=3, stride=params.stride)
        y = scope.add("bn1", "batch_norm", y)
        y = scope.add("act1", "act", y, kind=params.act)
        y = scope.add("conv2", "conv", y, width=params.width, kernel=3)
        y = scope.add("bn2", "batch_norm", y)
        if params.shortcut != "none":
            y = scope.add("add", "add", y, add_shortcut(scope, params, x))
        return scope.add("act", "act", y, kind=params.act)


def add_shortcut(scope: Scope, params: Any, x: Value) -> Value:
    if params.stride == 1 and scope.shape(x)[0] == params.width:
        return scope.add("shortcut", "identity", x)
    if params.shortcut == "pad":
        return scope.add("shortcut", "pad_shortcut", x, width=params.width, stride=params.stride)
    x = scope.add("shortcut.conv", "conv", x, width=params.width, kernel=1, stride=params.stride)
    return scope.add("shortcut.bn", "batch_norm", x)
