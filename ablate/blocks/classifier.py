"""Classifier: global pooling, dropout, one linear layer.

y = W dropout(pool(x)) + b        (C, H, W) or (C,) -> (classes,), the logits
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ablate.block import BlockParams, Composite, Scope, Value


class Classifier(Composite, name="classifier"):
    """Global pooling (of an image), dropout, and a linear layer to the data's classes."""

    class Params(BlockParams):
        pool: Literal["avg", "max"] = Field("avg", description="mean (avg) or maximum over H and W")
        dropout: float = Field(0.0, ge=0, lt=1, description="share of the pooled features zeroed in training")

    @classmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
        (x,) = inputs
        if len(scope.shape(x)) > 1:
            x = scope.add("pool", "global_pool", x, kind=params.pool)
        if params.dropout > 0:
            x = scope.add("dropout", "dropout", x, rate=params.dropout)
        return scope.add("fc", "linear", x, width=scope.classes)
