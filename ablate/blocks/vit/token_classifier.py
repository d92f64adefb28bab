"""The classifier of a vision transformer: Dosovitskiy et al., 2021 (arXiv:2010.11929), eq. 4.

    token_pool         (N, D) -> (D,): the first token, which ``class_token`` put there, or the mean of all
    token_classifier   y = W dropout(token_pool(x)) + b        (N, D) -> (classes,), the logits

The paper's head for pre-training has a hidden layer with tanh; torchvision's and timm's have not, nor has its head
for fine-tuning.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import Tensor

from ablate.block import Block, BlockParams, Composite, Scope, Shape, Value
from ablate.blocks.vit._tokens import tokens


class TokenPool(Block, name="token_pool"):
    """One vector of all tokens, (N, D) -> (D,): the first, or the mean."""

    class Params(BlockParams):
        kind: Literal["class", "mean"] = Field("class", description="the first token, or the mean of all")

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        tokens(self.name, shape)
        self.kind = params.kind

    def forward(self, x_BND: Tensor) -> Tensor:
        return x_BND[:, 0] if self.kind == "class" else x_BND.mean(1)

    def extra_repr(self) -> str:
        return self.kind


class TokenClassifier(Composite, name="token_classifier"):
    """The class token or the mean of all, dropout, and a linear layer to the data's classes."""

    class Params(BlockParams):
        pool: Literal["class", "mean"] = Field("class", description="the first token, or the mean of all")
        dropout: float = Field(0.0, ge=0, lt=1, description="share of the pooled features zeroed in training")

    @classmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
        (x,) = inputs
        x = scope.add("pool", "token_pool", x, kind=params.pool)
        if params.dropout > 0:
            x = scope.add("dropout", "dropout", x, rate=params.dropout)
        return scope.add("fc", "linear", x, width=scope.classes)
