"""ConvNeXt: Liu, Mao, Wu, Feichtenhofer, Darrell and Xie, 2022 (arXiv:2201.03545), and the blocks on the way to it.

    y = x + γ ⊙ conv3(gelu(conv2(bn1(conv1(x)))))        (C, H, W) -> (width, ⌈H / stride⌉, ⌈W / stride⌉)

conv1 is depthwise, 7 × 7; conv2 1 × 1 to 4 · width channels; conv3 1 × 1 back; bn1 layer normalisation; γ a LayerScale.
The parameters undo one of the paper's steps from ResNet-50 each: ``depthwise: none, expansion: 0.25, kernel: 3, acts:
all, norms: all, act: relu, norm: batch, layer_scale: 0`` is ResNet's bottleneck. The paper goes from 78.8 to 82.0%
top-1 on ImageNet in these steps, with one recipe, at the FLOPs of Swin-T (81.3%).

    depthwise: first           conv1 k × k depthwise, conv2 1 × 1, conv3 1 × 1
    depthwise: middle, none    conv1 1 × 1, conv2 k × k, depthwise or over all channels, conv3 1 × 1

A convolution has a bias unless batch or instance normalisation, which would cancel it, follows at once. The paper does
not say how its intermediate blocks reduce the size; here the k × k convolution and a projected shortcut do.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt

from ablate.block import BlockParams, Composite, Scope, Value, once
from ablate.blocks._activations import Activation
from ablate.blocks._norms import BLOCKS, NORM_HELP, Norm
from ablate.blocks._shortcuts import add_shortcut


class ConvNextParams(BlockParams):
    width: PositiveInt = Field(description="output channels")
    stride: PositiveInt = once(1, description="step of the k × k convolution, in pixels")
    kernel: PositiveInt = Field(7, description="side of the square kernel, in pixels; odd")
    expansion: float = Field(
        4.0, gt=0, le=64, description="channels between conv2 and conv3 per output channel; 0.25: ResNet's bottleneck"
    )
    depthwise: Literal["first", "middle", "none"] = Field(
        "first", description="where the k × k convolution stands; none: in the middle, over all channels"
    )
    acts: Literal["one", "all"] = Field("one", description="act2 alone, or after every convolution, and after the sum")
    norms: Literal["one", "all"] = Field("one", description="bn1 alone, or after every convolution")
    act: Activation = Field("gelu", description="activation, in the nodes act*")
    norm: Norm = Field("layer", description=NORM_HELP)
    layer_scale: float = Field(
        1e-6, ge=0, allow_inf_nan=False, description="the branch's factors before training; 0: no LayerScale"
    )

    @property
    def hidden(self) -> int:
        return max(1, round(self.width * self.expansion))


class ConvNext(Composite, name="convnext"):
    """ConvNeXt's block, and those on the way to it from ResNet's: Liu et al., 2022 (arXiv:2201.03545)."""

    Params = ConvNextParams

    @classmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
        (x,) = inputs
        y = x
        for index, conv in enumerate(_convolutions(params, scope.shape(x)[0]), start=1):
            normed = params.norms == "all" or index == 1
            bias = not normed or params.norm not in ("batch", "instance")
            y = scope.add(f"conv{index}", "conv", y, **conv, bias=bias)
            if normed:
                y = scope.add(f"bn{index}", BLOCKS[params.norm], y)
            if index == 2 or (index == 1 and params.acts == "all"):
                y = scope.add(f"act{index}", "act", y, kind=params.act)
        if params.layer_scale > 0:
            y = scope.add("scale", "layer_scale", y, init=params.layer_scale)
        shortcut = add_shortcut(scope, x, kind="project", width=params.width, stride=params.stride, norm=params.norm)
        y = scope.add("add", "add", y, shortcut)
        return scope.add("act", "act", y, kind=params.act) if params.acts == "all" else y


def _convolutions(params: ConvNextParams, channels: int) -> list[dict[str, Any]]:
    """The parameters of conv1, conv2 and conv3."""
    spatial = {"kernel": params.kernel, "stride": params.stride}
    last = {"width": params.width, "kernel": 1}
    if params.depthwise == "first":
        return [{"width": channels, "groups": channels, **spatial}, {"width": params.hidden, "kernel": 1}, last]
    groups = params.hidden if params.depthwise == "middle" else 1
    return [{"width": params.hidden, "kernel": 1}, {"width": params.hidden, "groups": groups, **spatial}, last]


class ConvNextDownsample(Composite, name="convnext_downsample"):
    """Between ConvNeXt's stages: normalisation, 2 × 2 convolution of stride 2: Liu et al., 2022 (arXiv:2201.03545)."""

    class Params(BlockParams):
        width: PositiveInt = Field(description="output channels")
        stride: PositiveInt = once(2, description="step and side of the square kernel, in pixels")
        norm: Norm = Field("layer", description=NORM_HELP)

    @classmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
        (x,) = inputs
        x = scope.add("bn", BLOCKS[params.norm], x)
        kernel = {"kernel": params.stride, "stride": params.stride, "padding": 0}
        return scope.add("conv", "conv", x, width=params.width, bias=True, **kernel)
