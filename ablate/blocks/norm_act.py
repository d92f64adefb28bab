"""Normalisation and activation, without a convolution.

y = act(bn(x))        any shape that the normalisation reads
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ablate.block import BlockParams, Composite, Scope, Value
from ablate.blocks._activations import Activation
from ablate.blocks._norms import BLOCKS, NORM_HELP, Norm


class NormAct(Composite, name="norm_act"):
    """Normalisation and activation, as after the last block of a pre-activation network."""

    class Params(BlockParams):
        norm: Norm = Field("batch", description=NORM_HELP)
        act: Activation = Field("relu", description="activation after the normalisation; none: no activation")

    @classmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
        (x,) = inputs
        x = scope.add("bn", BLOCKS[params.norm], x)
        return scope.add("act", "act", x, kind=params.act)
