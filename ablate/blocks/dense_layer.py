"""The layer of a DenseNet: Huang, Liu, van der Maaten and Weinberger, 2017 (arXiv:1608.06993).

    y = [x; conv2(act2(bn2(conv1(act1(bn1(x))))))]        (C, H, W) -> (C + growth, H, W)

conv1 is 1 × 1 to bottleneck · growth channels (not there at bottleneck 0: DenseNet without B), conv2 3 × 3; none has a
bias. A layer reads what all layers before it in its stage have made: ``repeat`` of this block is a dense block.

Dropout acts after each convolution, as in the paper (rate 0.2 for CIFAR without augmentation) and the authors' code;
torchvision's and timm's act after conv2 alone, which is the insertion ``{block: dropout, at: after stage*.*.conv2}``.
The paper's DenseNet-BC of 0.8 million parameters has 4.51% test error on CIFAR-10, a pre-activation ResNet of 10.2
million 4.62. It computes little and keeps much: each layer copies all that came before it.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, NonNegativeInt, PositiveInt

from ablate.block import BlockParams, Composite, Scope, Value
from ablate.blocks._activations import Activation
from ablate.blocks._norms import BLOCKS, NORM_HELP, Norm


class DenseLayer(Composite, name="dense_layer"):
    """Adds channels to those that arrive, which later layers read too: Huang et al., 2017 (arXiv:1608.06993)."""

    class Params(BlockParams):
        growth: PositiveInt = Field(description="channels that the layer adds to those of its input")
        bottleneck: NonNegativeInt = Field(
            4, description="channels between conv1 and conv2 per channel of growth; 0: no bn1, act1 and conv1"
        )
        dropout: float = Field(0.0, ge=0, lt=1, description="share zeroed in training, after each convolution")
        act: Activation = Field("relu", description="activation, in the nodes act*")
        norm: Norm = Field("batch", description=NORM_HELP)

    @classmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
        (x,) = inputs
        y = x
        if params.bottleneck > 0:
            y = _unit(scope, params, 1, y, width=params.bottleneck * params.growth, kernel=1)
        y = _unit(scope, params, 2, y, width=params.growth, kernel=3)
        return scope.add("concat", "concat", x, y)


def _unit(scope: Scope, params: Any, index: int, x: Value, **conv: int) -> Value:
    """Normalisation, activation, convolution, in this order, and dropout."""
    x = scope.add(f"bn{index}", BLOCKS[params.norm], x)
    x = scope.add(f"act{index}", "act", x, kind=params.act)
    x = scope.add(f"conv{index}", "conv", x, **conv)
    return scope.add(f"dropout{index}", "dropout", x, rate=params.dropout) if params.dropout > 0 else x
