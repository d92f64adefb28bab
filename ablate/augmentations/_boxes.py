"""Boxes of random area and aspect ratio in an image, as torchvision's get_params finds them, for many images at once.

Up to ten attempts: an area s·H·W with s uniform, a ratio w/h log-uniform, sides rounded; the first box that fits
counts, and lies at a uniform place.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

ATTEMPTS = 10


def draw_boxes(count: int, stream: torch.Generator) -> torch.Tensor:
    """(count, 22) uniform numbers in [0, 1): the areas and the ratios of the attempts, top, left."""
    import torch

    return torch.rand(count, 2 * ATTEMPTS + 2, generator=stream)


def attempts(
    draws: torch.Tensor, height: int, width: int, scale: list[float], ratio: list[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Heights and widths (B, 10) in pixels of the boxes tried, rounded."""
    areas = height * width * (scale[0] + (scale[1] - scale[0]) * draws[:, :ATTEMPTS].double())
    low, high = math.log(ratio[0]), math.log(ratio[1])
    ratios = (low + (high - low) * draws[:, ATTEMPTS : 2 * ATTEMPTS].double()).exp()
    return (areas / ratios).sqrt().round().long(), (areas * ratios).sqrt().round().long()


def first_that_fits(
    heights: torch.Tensor, widths: torch.Tensor, fits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Height, width (B,) of the first attempt that fits, and whether one does."""
    first = fits.int().argmax(1, keepdim=True)
    return heights.gather(1, first)[:, 0], widths.gather(1, first)[:, 0], fits.any(1)


def place(draws: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
    """0 … ``free``, uniformly, for the draws in [0, 1)."""
    return (draws.double() * (free + 1)).long().minimum(free)
