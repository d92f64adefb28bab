"""Coordinate attention: Hou, Zhou and Feng, 2021 (arXiv:2103.02907).

    z = [mean_W(x); mean_H(x)]        (B, C, H + W): a value for each row, then for each column           eq. 4, 5
    f = act(BN(W₁ z))                 (B, hidden, H + W), the same W₁ for rows and columns                eq. 6
    y = σ(W_h f_rows) ⊙ σ(W_w f_columns) ⊙ x        (B, C, H, 1) and (B, C, 1, W)                        eq. 7 to 9

Each pixel's gate is that of its row times that of its column. ``bias`` is that of all three W, as in the authors' code;
the batch normalisation cancels W₁'s. At hidden width 0 each gate is 1/2, and y = x/4.

Made for mobile networks: the paper takes MobileNetV2 on ImageNet from 72.3 to 74.3% top-1 (squeeze-and-excitation:
73.5), at 3.95 million parameters (3.5 without). By the authors one direction alone does no better than
squeeze-and-excitation.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from ablate.block import Shape
from ablate.blocks._activations import FUNCTIONS, Activation
from ablate.blocks._shapes import image
from ablate.blocks.attention._reduction import ReducedBlock, ReductionParams


class CoordinateAttention(ReducedBlock, name="coordinate_attention"):
    class Params(ReductionParams):
        reduction: PositiveInt = Field(
            32, description="channels per hidden unit; hidden = max(min_hidden, C // reduction)"
        )
        min_hidden: NonNegativeInt = Field(
            8, description="lower bound of the hidden width, in channels; at hidden width 0 both gates are 1/2"
        )
        bias: bool = Field(True, description="biases in the three convolutions")
        act: Activation = Field("hardswish", description="activation after the batch normalisation")

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        channels, _, _ = image(self.name, shape)
        self.hidden, self.act = params.hidden(channels), params.act
        if self.hidden > 0:
            self.conv1 = nn.Conv2d(channels, self.hidden, 1, bias=params.bias)
            self.bn1 = nn.BatchNorm2d(self.hidden)
            self.conv_h = nn.Conv2d(self.hidden, channels, 1, bias=params.bias)
            self.conv_w = nn.Conv2d(self.hidden, channels, 1, bias=params.bias)

    @classmethod
    def effective(cls, params: Any, *shapes: Shape) -> dict[str, Any]:
        answer = super().effective(params, *shapes)
        return answer if answer["hidden"] > 0 else {"hidden": 0}

    def gate(self, x_BCHW: Tensor) -> Tensor:
        if self.hidden == 0:
            return x_BCHW.new_full((x_BCHW.shape[0], x_BCHW.shape[1], 1, 1), 0.25)
        height, width = x_BCHW.shape[2:]
        rows_BCH1, columns_BCW1 = x_BCHW.mean(3, keepdim=True), x_BCHW.mean(2).unsqueeze(3)
        strip = self.bn1(self.conv1(torch.cat([rows_BCH1, columns_BCW1], dim=2)))
        rows, columns = torch.split(FUNCTIONS[self.act](strip), [height, width], dim=2)
        return torch.sigmoid(self.conv_h(rows)) * torch.sigmoid(self.conv_w(columns)).transpose(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x) * x
