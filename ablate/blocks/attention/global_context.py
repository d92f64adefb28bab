"""Global context block: Cao, Xu, Lin, Wei and Hu, 2019 (arXiv:1904.11492).

    α = softmax_HW(w · x + b)              (B, H·W): how much each pixel counts; ``pool: avg``: 1 / (H·W)
    c = Σ_j α_j x_j                        (B, C)
    t = W₂ relu(LN(W₁ c + b₁)) + b₂        (B, C) -> (B, hidden) -> (B, C)

    add     y = t at every pixel           (B, C, H, W), the same for all pixels
    scale   y = σ(t) ⊙ x

The paper's block is x + t. That sum is the wiring's: insert ``fusion: add`` with ``residual: plain``; with ``none``
nothing of x passes but t. ``scale`` is a gate and takes ``residual: none``.

As in the authors' code every layer has a bias, W₂ and b₂ start at 0 and the layer normalisation has eps = 1e-5
(timm: 1e-6). So the sum starts as x and the gate as 1/2; behind a ``weighted`` residual that starts at 0, both
factors would be 0, and none would move. ``attend.bias`` shifts all logits alike, which softmax cancels: its gradient
is zero.

Layer normalisation over one hidden unit is a constant, which is refused, and over two a sign: hence min_hidden is 4.
At hidden width 0 the gate of ``scale`` is 1/2.

The paper reports 77.70 against 76.88% top-1 for ResNet-50 on ImageNet, by fine-tuning trained weights. On COCO, where
it was made for, it gains more, and attention pooling with the sum does best.

Shapes: B images, C channels, H × W pixels, N = H·W.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.block import Shape, Stream, init_weights
from ablate.blocks._shapes import image
from ablate.blocks.attention._pixels import pixels
from ablate.blocks.attention._reduction import ReducedBlock, ReductionParams


class GlobalContext(ReducedBlock, name="global_context"):
    invariant_parameters = frozenset({"attend.bias"})

    class Params(ReductionParams):
        min_hidden: NonNegativeInt = Field(4, description="lower bound of the hidden width, in channels; 1 is refused")
        pool: Literal["attention", "avg"] = Field(
            "attention", description="the context: a learnt weighting of the pixels, or their mean (avg)"
        )
        fusion: Literal["add", "scale"] = Field(
            "add", description="add: the transformed context at every pixel, for residual plain; scale: a gate of it"
        )

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        channels, _, _ = image(self.name, shape)
        self.hidden, self.pool, self.fusion = params.hidden(channels), params.pool, params.fusion
        refuse_constants(self.hidden, self.fusion)
        if self.hidden > 0:
            if self.pool == "attention":
                self.attend = nn.Conv2d(channels, 1, 1)
            self.fc1 = nn.Conv2d(channels, self.hidden, 1)
            self.norm = nn.LayerNorm(self.hidden)
            self.fc2 = nn.Conv2d(self.hidden, channels, 1)
            self._start_at_zero()

    @classmethod
    def effective(cls, params: Any, *shapes: Shape) -> dict[str, Any]:
        answer = super().effective(params, *shapes)
        return answer if answer["hidden"] > 0 else {"hidden": 0, "fusion": params.fusion}

    def init(self, stream: Stream, recipe: str) -> None:
        if self.hidden == 0:
            return
        if self.pool == "attention":
            init_weights(self.attend, "attend.", stream, recipe)
        init_weights(self.fc1, "fc1.", stream, recipe)
        self.norm.reset_parameters()
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        nn.init.zeros_(self.fc2.weight)
        if self.fc2.bias is not None:
            nn.init.zeros_(self.fc2.bias)

    def attention(self, x_BCHW: Tensor) -> Tensor:
        """(B, 1, 1, N): how much of each pixel (column) every pixel reads (one row for all)."""
        if self.pool == "avg":
            batch, _, height, width = x_BCHW.shape
            return x_BCHW.new_full((batch, 1, 1, height * width), 1 / (height * width))
        return self._weights(x_BCHW)

    def context(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, 1, 1)."""
        if self.pool == "avg":
            return x_BCHW.mean((2, 3), keepdim=True)
        return (self._weights(x_BCHW) @ pixels(x_BCHW, 1)).transpose(1, 3)

    def _weights(self, x_BCHW: Tensor) -> Tensor:
        """α, (B, 1, 1, N): one row for all pixels, so that nothing here is N × N."""
        return torch.softmax(self.attend(x_BCHW).flatten(2), dim=-1).unsqueeze(1)

    def transform(self, context_BC11: Tensor) -> Tensor:
        """(B, C, 1, 1) -> (B, C, 1, 1)."""
        hidden_Bh = self.norm(self.fc1(context_BC11).flatten(1))
        transformed: Tensor = self.fc2(F.relu(hidden_Bh)[:, :, None, None])
        return transformed

    def forward(self, x: Tensor) -> Tensor:
        if self.hidden == 0:
            return x / 2
        transformed = self.transform(self.context(x))
        return transformed.expand_as(x) if self.fusion == "add" else torch.sigmoid(transformed) * x


def refuse_constants(hidden: int, fusion: str) -> None:
    if hidden == 1:
        raise ValueError("layer normalisation over 1 hidden unit is a constant; raise 'min_hidden'")
    if hidden == 0 and fusion == "add":
        raise ValueError("at hidden width 0 there is nothing to add")
