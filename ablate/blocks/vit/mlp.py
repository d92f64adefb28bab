"""The two-layer network of a transformer: Vaswani et al., 2017 (arXiv:1706.03762), eq. 2.

y = dropout2(fc2(dropout1(act(fc1(x)))))        (N, D) -> (N, ratio · D) -> (N, D), each token by itself; (C,) likewise
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from ablate.block import BlockParams, Composite, Scope, Value
from ablate.blocks._activations import Activation


class Mlp(Composite, name="mlp"):
    """Two linear layers with an activation between, on each token: Vaswani et al., 2017 (arXiv:1706.03762)."""

    class Params(BlockParams):
        ratio: float = Field(4.0, gt=0, le=1_000, description="hidden features per feature; the product is rounded")
        act: Activation = Field("gelu", description="activation after the first layer")
        dropout: float = Field(0.0, ge=0, lt=1, description="share zeroed in training, after act and after fc2")

    @classmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
        (x,) = inputs
        features = scope.shape(x)[-1]
        x = scope.add("fc1", "linear", x, width=max(1, round(params.ratio * features)))
        x = scope.add("act", "act", x, kind=params.act)
        if params.dropout > 0:
            x = scope.add("dropout1", "dropout", x, rate=params.dropout)
        x = scope.add("fc2", "linear", x, width=features)
        return scope.add("dropout2", "dropout", x, rate=params.dropout) if params.dropout > 0 else x
