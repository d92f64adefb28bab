"""Mirror at random."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ablate.data.augment import Augmentation, picked

if TYPE_CHECKING:
    import torch


class HorizontalFlip(Augmentation, name="horizontal_flip"):
    """Mirrors every other image, left to right, at random."""

    def draw(self, count: int, stream: torch.Generator) -> torch.Tensor:
        import torch

        return torch.rand(count, generator=stream) < 0.5

    def apply(self, x: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        return picked(draws[:, None, None, None], x.flip(-1), x)
