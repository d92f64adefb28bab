"""What blocks on tokens ask of the shapes that arrive, and the heads of attention.

B examples, N tokens, D features; h heads of d = D / h features.
"""

from __future__ import annotations

from torch import Tensor

from ablate.block import Shape


def tokens(block: str, shape: Shape) -> tuple[int, int]:
    """``(N, D)``, or ``ValueError`` with the way to get there."""
    if len(shape) != 2:
        raise ValueError(f"'{block}' reads tokens of shape (N, D) and was given {shape}; put a 'patch_embed' before it")
    count, features = shape
    return count, features


def split_heads(x_BND: Tensor, heads: int) -> Tensor:
    """(B, N, D) -> (B, h, N, d). Head i has the features i·d … (i+1)·d - 1."""
    batch, count, features = x_BND.shape
    return x_BND.reshape(batch, count, heads, features // heads).transpose(1, 2)


def join_heads(x_BhNd: Tensor) -> Tensor:
    """(B, h, N, d) -> (B, N, D), the inverse of ``split_heads``."""
    return x_BhNd.transpose(1, 2).flatten(2)
