"""Where to normalise and activate in a residual block: He, Zhang, Ren and Sun, 2016 (arXiv:1603.05027), figure 4.

    original          conv1 bn1 act1 conv2 bn2 add act
    bn_after_add      conv1 bn1 act1 conv2 add bn2 act
    relu_before_add   conv1 bn1 act1 conv2 bn2 act2 add
    relu_only         act1 conv1 bn1 act2 conv2 bn2 add
    full              bn1 act1 conv1 bn2 act2 conv2 add

and likewise with three convolutions. ``full`` leaves the path of the shortcuts free from the first block to the last:
6.37% test error on CIFAR-10 at 110 layers against 6.61 (original), 5.46 against 5.93 at 164 with bottlenecks.

The paper's first block stands behind a convolution without activation: it activates before it splits into two paths,
and so does its shortcut (``split: activated``). After its last block there is one more normalisation and activation
(``norm_act``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, PositiveInt

from ablate.block import BlockParams, Composite, Scope, Value, once
from ablate.blocks._activations import Activation
from ablate.blocks._norms import BLOCKS, NORM_HELP, Norm
from ablate.blocks._shortcuts import SHORTCUT_HELP, Shortcut, add_shortcut

Order = Literal["original", "bn_after_add", "relu_before_add", "relu_only", "full"]
Split = Literal["input", "activated"]
Conv = dict[str, Any]

ORDER_HELP = "where bn* and act* stand relative to the convolutions and the sum (figure 4)"
SPLIT_HELP = (
    "what the shortcut reads: the block's input, or what bn1 and act1 make of it (orders relu_only and full; the "
    "paper's first block); acts on the first of a repeat"
)


def steps(order: Order, convs: int) -> Iterator[str]:
    """The names of the nodes of the branch, in order: ``conv1``, ``bn1``, ``act1``, …, without what follows the sum."""
    for i in range(1, convs + 1):
        last = i == convs
        if order == "full":
            yield from (f"bn{i}", f"act{i}", f"conv{i}")
        elif order == "relu_only":
            yield from (f"act{i}", f"conv{i}", f"bn{i}")
        else:
            yield f"conv{i}"
            if not (last and order == "bn_after_add"):
                yield f"bn{i}"
            if not last or order == "relu_before_add":
                yield f"act{i}"


def expand(scope: Scope, params: Any, x: Value, convs: list[Conv], width: int) -> Value:
    """The block with these convolutions in its branch, ``width`` the channels of its output."""
    if params.split == "activated" and params.order not in ("relu_only", "full"):
        raise ValueError(f"split: activated: order '{params.order}' has no activation before conv1")
    y, source = x, x
    for step in steps(params.order, len(convs)):
        if step == "conv1" and params.split == "activated":
            source = y
        y = _add(scope, params, step, y, convs)
    if params.shortcut != "none":
        shortcut = add_shortcut(
            scope, source, kind=params.shortcut, width=width, stride=params.stride, norm=params.norm
        )
        y = scope.add("add", "add", y, shortcut)
    if params.order == "bn_after_add":
        y = scope.add(f"bn{len(convs)}", BLOCKS[params.norm], y)
    if params.order in ("original", "bn_after_add"):
        y = scope.add("act", "act", y, kind=params.act)
    return y


def _add(scope: Scope, params: Any, step: str, x: Value, convs: list[Conv]) -> Value:
    kind, index = step[:-1], int(step[-1])
    if kind == "conv":
        return scope.add(step, "conv", x, **convs[index - 1])
    return scope.add(step, BLOCKS[params.norm], x) if kind == "bn" else scope.add(step, "act", x, kind=params.act)


class PreActivation(Composite, name="pre_activation"):
    """Residual block of two 3 × 3 convolutions, normalised first or last: He et al., 2016 (arXiv:1603.05027)."""

    class Params(BlockParams):
        width: PositiveInt = Field(description="output channels")
        order: Order = Field("full", description=ORDER_HELP)
        split: Split = once("input", description=SPLIT_HELP)
        stride: PositiveInt = once(1, description="step of the first convolution, in pixels")
        shortcut: Shortcut = Field("project", description=SHORTCUT_HELP)
        act: Activation = Field("relu", description="activation, in the nodes act*")
        norm: Norm = Field("batch", description=NORM_HELP)

    @classmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
        (x,) = inputs
        first = {"width": params.width, "kernel": 3, "stride": params.stride}
        return expand(scope, params, x, [first, {"width": params.width, "kernel": 3}], params.width)


class PreActivationBottleneck(Composite, name="pre_activation_bottleneck"):
    """Residual block of 1 × 1, 3 × 3, 1 × 1, normalised first or last: He et al., 2016 (arXiv:1603.05027)."""

    class Params(BlockParams):
        width: PositiveInt = Field(description="channels within the block; the output has expansion times as many")
        expansion: PositiveInt = Field(4, description="output channels per channel within")
        order: Order = Field("full", description=ORDER_HELP)
        split: Split = once("input", description=SPLIT_HELP)
        stride: PositiveInt = once(1, description="step of the 3 × 3 convolution, in pixels")
        shortcut: Shortcut = Field("project", description=SHORTCUT_HELP)
        act: Activation = Field("relu", description="activation, in the nodes act*")
        norm: Norm = Field("batch", description=NORM_HELP)

    @classmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
        (x,) = inputs
        width, output = params.width, params.width * params.expansion
        convs = [
            {"width": width, "kernel": 1},
            {"width": width, "kernel": 3, "stride": params.stride},
            {"width": output, "kernel": 1},
        ]
        return expand(scope, params, x, convs, output)
