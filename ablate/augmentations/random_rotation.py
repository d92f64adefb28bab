"""Turn by a random angle about the centre."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from ablate.data.augment import Augmentation

if TYPE_CHECKING:
    import torch


class RandomRotation(Augmentation, name="random_rotation"):
    """Turns about the centre by a uniform angle, bilinear, with black in the corners (torchvision's RandomRotation)."""

    degrees: float = Field(gt=0, le=180, description="the angle is uniform in ±this, in degrees")

    def draw(self, count: int, stream: torch.Generator) -> torch.Tensor:
        """Angles (count,) in degrees, counter-clockwise."""
        import torch

        return (2 * torch.rand(count, generator=stream, dtype=torch.float64) - 1) * self.degrees

    def apply(self, x: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn.functional import affine_grid, grid_sample

        height, width = x.shape[2:]
        angle = draws.double() * (math.pi / 180)
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        # where each new pixel comes from; coordinates run from -1 to 1 along both sides, whatever their lengths
        theta = torch.stack([cos, -sin * height / width, zero, sin * width / height, cos, zero], 1).view(-1, 2, 3)
        grid = affine_grid(theta.float(), list(x.shape), align_corners=False)
        turned = grid_sample(x.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return turned.round_().clamp_(0, 255).to(torch.uint8)
