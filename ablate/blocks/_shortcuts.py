"""The shortcuts of residual blocks. Shared by block files, which never import each other."""

from __future__ import annotations

from typing import Literal

from ablate.block import Scope, Value
from ablate.blocks._norms import BLOCKS, Norm

Shortcut = Literal["pad", "project", "project_all", "avg_project", "none"]

SHORTCUT_HELP = (
    "where width or size change: zero channels (pad, option A), a 1 × 1 convolution (project, option B), or mean "
    "pooling and a 1 × 1 convolution (avg_project, ResNet-D); project_all: a 1 × 1 convolution everywhere (option C); "
    "none: no residual connection at all"
)


def add_shortcut(scope: Scope, x: Value, *, kind: Shortcut, width: int, stride: int, norm: Norm) -> Value:
    """The value that the sum adds to the branch, under the name ``shortcut``: a node, or a scope where it projects."""
    if kind != "project_all" and stride == 1 and scope.shape(x)[0] == width:
        return scope.add("shortcut", "identity", x)
    if kind == "pad":
        return scope.add("shortcut", "pad_shortcut", x, width=width, stride=stride)
    if kind == "avg_project" and stride > 1:
        x = scope.add("shortcut.pool", "avg_pool", x, kernel=stride, ceil=True)
        stride = 1
    x = scope.add("shortcut.conv", "conv", x, width=width, kernel=1, stride=stride)
    return scope.add("shortcut.bn", BLOCKS[norm], x)
