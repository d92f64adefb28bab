"""The gate of attention-integrated convolution (AICNN): Balashov, 2024.

    A_spatial = σ(f(X))                     eq. 2      (B, 1, H, W), f: kernel × kernel convolution, C -> 1, with bias
    A_channel = σ(W₂ relu(W₁ mean_HW(X)))   eq. 3, 4   (B, C, 1, 1), no biases
    A         = A_channel ⊗ A_spatial       eq. 5      (B, C, H, W)
    y         = A ⊙ X

The paper's layer is Y = W * (A ⊙ X) + b (eq. 6): this block inserted *before* a convolution, residual ``none``.

Where the paper errs or is silent:

- eq. 4 prints W₂ as C/r × C, the shape of W₁; the product needs C × C/r, which is used here.
- eq. 7 and 8 are not the gradients of eq. 6. With G = Wᵀ * ∂L/∂Y (the transposed convolution), ∂L/∂A = X ⊙ G and
  ∂L/∂X = A ⊙ G + (∂A/∂X)ᵀ ∂L/∂A. Eq. 8 has (W * X) ⊙ ∂L/∂Y, of the output's shape and not of A's; the last term of
  eq. 7 is ∂L/∂A ⊙ X. Autograd is used, and none of the two.
- not stated: the kernel of f (7 here, as in CBAM), biases, and which convolutions carry the gate.

Claimed for CIFAR-100: 73.1 without, 75.0 channel, 75.5 spatial, 77.5 combined (top-1, one number each, no spread).
At hidden width 0, A_channel is the constant 1/2.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.block import Shape
from ablate.blocks._shapes import image
from ablate.blocks.attention._kernel import OddKernel
from ablate.blocks.attention._reduction import ReducedBlock, ReductionParams


class AiGate(ReducedBlock, name="ai_gate"):
    class Params(ReductionParams):
        mode: Literal["channel", "spatial", "combined"] = Field("combined", description="which of the two gates act")
        kernel: OddKernel = Field(7, description="side of the spatial gate's kernel, in pixels; odd")

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        channels, _, _ = image(self.name, shape)
        self.mode, self.hidden = params.mode, params.hidden(channels)
        if self.mode != "channel":
            self.spatial = nn.Conv2d(channels, 1, params.kernel, padding=params.kernel // 2)
        if self.mode != "spatial" and self.hidden > 0:
            self.fc1 = nn.Conv2d(channels, self.hidden, 1, bias=False)
            self.fc2 = nn.Conv2d(self.hidden, channels, 1, bias=False)

    @classmethod
    def effective(cls, params: Any, *shapes: Shape) -> dict[str, Any]:
        unused = {"channel": "kernel", "spatial": "hidden", "combined": ""}[params.mode]
        return {key: value for key, value in super().effective(params, *shapes).items() if key != unused}

    @classmethod
    def notes(cls, params: Any, *shapes: Shape) -> tuple[str, ...]:
        return () if params.mode == "spatial" else super().notes(params, *shapes)

    def channel_gate(self, x: Tensor) -> Tensor:
        if self.hidden == 0:
            return x.new_full((x.shape[0], x.shape[1], 1, 1), 0.5)
        return torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))

    def spatial_gate(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.spatial(x))

    def gate(self, x: Tensor) -> Tensor:
        if self.mode == "channel":
            return self.channel_gate(x)
        if self.mode == "spatial":
            return self.spatial_gate(x)
        return self.channel_gate(x) * self.spatial_gate(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x) * x
