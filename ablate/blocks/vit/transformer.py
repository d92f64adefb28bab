"""Transformer encoder block, norm first: Dosovitskiy et al., 2021 (arXiv:2010.11929), eq. 2 and 3.

    z = dropout1(attn(norm1(x))) + x
    y = mlp(norm2(z)) + z                       (N, D) -> (N, D)

The sums are ``add1`` and ``add2``, each with the ports ``branch`` and ``shortcut``: stochastic depth is an insertion
``{block: drop_path, at: before encoder.*.(add1|add2):branch}``. The block is that of Vaswani et al., 2017
(arXiv:1706.03762), which normalises after the sums; norm first trains without a warm-up more often (Xiong et al.,
2020, arXiv:2002.04745).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveInt

from ablate.block import BlockParams, Composite, Scope, Value
from ablate.blocks._activations import Activation
from ablate.blocks._norms import BLOCKS, NORM_HELP, Norm


class Transformer(Composite, name="transformer"):
    """Transformer encoder block, norm first, on tokens: Dosovitskiy et al., 2021 (arXiv:2010.11929)."""

    class Params(BlockParams):
        heads: PositiveInt = Field(8, description="number of heads; divides the features")
        mlp_ratio: float = Field(4.0, gt=0, le=1_000, description="hidden features of the MLP per feature")
        act: Activation = Field("gelu", description="activation within the MLP")
        norm: Norm = Field("layer", description=NORM_HELP.replace("bn*", "norm*"))
        dropout: float = Field(0.0, ge=0, lt=1, description="share zeroed in training, after attention and in the MLP")
        position: Literal["none", "relative"] = Field(
            "none", description="relative: a learnt vector per offset between tokens enters the attention's logits"
        )

    @classmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
        (x,) = inputs
        y = scope.add("norm1", BLOCKS[params.norm], x)
        y = scope.add("attn", "token_attention", y, heads=params.heads, position=params.position)
        if params.dropout > 0:
            y = scope.add("dropout1", "dropout", y, rate=params.dropout)
        z = scope.add("add1", "add", y, x)
        y = scope.add("norm2", BLOCKS[params.norm], z)
        y = scope.add("mlp", "mlp", y, ratio=params.mlp_ratio, act=params.act, dropout=params.dropout)
        return scope.add("add2", "add", y, z)
