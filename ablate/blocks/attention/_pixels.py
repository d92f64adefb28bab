"""Images as sequences of pixels, for attention: B images, h heads, d channels a head, N = H·W pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def pixels(x_BCHW: Tensor, heads: int) -> Tensor:
    """(B, C, H, W) -> (B, h, N, d). Head i has the channels i·d … (i+1)·d - 1."""
    batch, channels, height, width = x_BCHW.shape
    return x_BCHW.reshape(batch, heads, channels // heads, height * width).transpose(2, 3)


def picture(x_BhNd: Tensor, height: int, width: int) -> Tensor:
    """(B, h, N, d) -> (B, C, H, W), the inverse of ``pixels``."""
    batch, heads, _, channels = x_BhNd.shape
    return x_BhNd.transpose(2, 3).reshape(batch, heads * channels, height, width)


def attention_weights(query_BhNd: Tensor, key_BhNd: Tensor, scale: float) -> Tensor:
    """(B, h, N, N); a row sums to one. For looking at: the fused form never stores it."""
    return torch.softmax(scale * query_BhNd @ key_BhNd.transpose(2, 3), dim=-1)
