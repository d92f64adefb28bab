"""The two gates of CBAM: Woo, Park, Lee and Kweon, 2018 (arXiv:1807.06521).

    Mc(F) = σ(W₂ relu(W₁ mean_HW(F)) + W₂ relu(W₁ max_HW(F)))        (B, C, H, W) -> (B, C, 1, 1)
    Ms(F) = σ(f([max_C(F); mean_C(F)]))                              (B, C, H, W) -> (B, 1, H, W)

``pool: avg`` or ``max`` leaves one of Mc's two terms. With ``spatial_pool: conv``, f reads W₃F, a learnt 1 × 1
convolution C -> 1 without bias, in the place of the two maps (the paper's text says 1 × 1 and one channel only).

Maxima are taken by ``max`` along an axis of (B, H·W, C): on a CPU its backward takes two thirds of the time of
``amax``'s, and unlike that of the pooling functions it is deterministic on CUDA. Where several elements are the
maximum, one has its gradient, as in the authors' code.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

Pool = Annotated[
    Literal["avg", "max", "avg_max"],
    Field(description="what the MLP reads of a channel: mean, maximum, or each of them"),
]
SpatialPool = Annotated[
    Literal["avg_max", "conv"],
    Field(description="what the spatial gate reads: maximum and mean over channels, or a learnt 1 × 1 convolution"),
]


def pixels(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H·W, C), in channels-last memory a view."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


class ChannelAttention(nn.Module):
    """Mc(F) ⊙ F. The MLP is shared by both poolings and has no biases; at hidden width 0, Mc is 1/2."""

    def __init__(self, channels: int, hidden: int, pool: Pool = "avg_max") -> None:
        super().__init__()
        self.hidden, self.pool = hidden, pool
        if hidden > 0:
            self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
            self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)

    def gate(self, x: Tensor) -> Tensor:
        if self.hidden == 0:
            return x.new_full((x.shape[0], x.shape[1], 1, 1), 0.5)
        if self.pool == "avg":
            return torch.sigmoid(self.mlp(x.mean((2, 3), keepdim=True)))
        x_BNC = pixels(x)
        highest = self.mlp(x_BNC.max(1).values[:, :, None, None])
        if self.pool == "max":
            return torch.sigmoid(highest)
        return torch.sigmoid(self.mlp(x_BNC.mean(1)[:, :, None, None]) + highest)

    def mlp(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.relu(self.fc1(x)))
        return y

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x) * x


class SpatialAttention(nn.Module):
    """Ms(F) ⊙ F. The convolution has a bias and reads the maximum first, then the mean."""

    def __init__(self, kernel: int, channels: int = 0, pool: SpatialPool = "avg_max") -> None:
        super().__init__()
        self.spatial_pool = pool
        if pool == "conv":
            self.pooling = nn.Conv2d(channels, 1, 1, bias=False)
        self.conv = nn.Conv2d(1 if pool == "conv" else 2, 1, kernel, padding=kernel // 2)

    def gate(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(self.maps(x)))

    def maps(self, x: Tensor) -> Tensor:
        if self.spatial_pool == "conv":
            pooled: Tensor = self.pooling(x)
            return pooled
        x_BNC = pixels(x)
        maps_B2N = torch.stack([x_BNC.max(2).values, x_BNC.mean(2)], dim=1)
        return maps_B2N.reshape(x.shape[0], 2, *x.shape[2:])

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x) * x
