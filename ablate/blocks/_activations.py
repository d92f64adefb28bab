"""The element-wise functions that ``act`` and the composites know by name. None works in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor
from torch.nn import functional as F

Activation = Literal[
    "relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "mish", "hardswish", "sigmoid", "tanh", "none"
]


def unchanged(x: Tensor) -> Tensor:
    return x


FUNCTIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "sigmoid": F.sigmoid,
    "tanh": F.tanh,
    "none": unchanged,
}
assert set(FUNCTIONS) == set(get_args(Activation))
