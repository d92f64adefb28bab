"""The two gates of CBAM: Woo, Park, Lee and Kweon, 2018 (arXiv:1807.06521).

    Mc(F) = σ(W₂ relu(W₁ mean_HW(F)) + W₂ relu(W₁ max_HW(F)))        (B, C, H, W) -> (B, C, 1, 1)
    Ms(F) = σ(f([max_C(F); mean_C(F)]))                              (B, C, H, W) -> (B, 1, H, W)

Maxima are taken by ``amax``: the pooling functions have no deterministic backward on CUDA. Where several
elements are the maximum they share its gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ChannelAttention(nn.Module):
    """Mc(F) ⊙ F. The MLP is shared by both poolings and has no biases; at hidden width 0, Mc is 1/2."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        if hidden > 0:
            self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
            self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)

    def gate(self, x: Tensor) -> Tensor:
        if self.hidden == 0:
            return x.new_full((x.shape[0], x.shape[1], 1, 1), 0.5)
        mean, highest = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return torch.sigmoid(self.mlp(mean) + self.mlp(highest))

    def mlp(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.relu(self.fc1(x)))
        return y

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x) * x


class SpatialAttention(nn.Module):
    """Ms(F) ⊙ F. The convolution has a bias and reads the maximum first, then the mean."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2)

    def gate(self, x: Tensor) -> Tensor:
        maps = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], dim=1)
        return torch.sigmoid(self.conv(maps))

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x) * x
