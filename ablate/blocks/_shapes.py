"""What blocks ask of the shapes that arrive. Shared by block files, which never import each other."""

from __future__ import annotations

from ablate.block import Shape


def image(block: str, shape: Shape) -> tuple[int, int, int]:
    """``(C, H, W)``, or ``ValueError`` where the input is no image."""
    if len(shape) != 3:
        raise ValueError(f"'{block}' reads an input of shape (C, H, W) and was given {shape}")
    channels, height, width = shape
    return channels, height, width


def vector(block: str, shape: Shape) -> int:
    """``C`` of a ``(C,)``, or ``ValueError`` with the way to get there."""
    if len(shape) != 1:
        raise ValueError(f"'{block}' reads a vector of shape (C,) and was given {shape}; put a 'global_pool' before it")
    return shape[0]


def window_fits(block: str, shape: Shape, kernel: int, padding: int, dilation: int = 1) -> None:
    """``ValueError`` where a sliding window is larger than the padded input."""
    _, height, width = image(block, shape)
    span = dilation * (kernel - 1) + 1
    if span > min(height, width) + 2 * padding:
        reach = f"kernel {kernel}" + (f" with dilation {dilation} (span {span})" if dilation > 1 else "")
        raise ValueError(f"'{block}': {reach} and padding {padding} do not fit an input of {height} × {width}")
