"""Crop at random from the padded image, as for CIFAR-10: He et al., 2016 (arXiv:1512.03385), section 4.2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ablate.data.augment import Augmentation

if TYPE_CHECKING:
    import torch


class RandomCrop(Augmentation, name="random_crop"):
    """Pads with black on all sides and cuts out the original size at a random place (torchvision's RandomCrop)."""

    padding: int = Field(ge=1, le=512, description="black pixels added on each side before the crop")

    def draw(self, count: int, stream: torch.Generator) -> torch.Tensor:
        import torch

        return torch.randint(0, 2 * self.padding + 1, (count, 2), generator=stream)

    def apply(self, x: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn.functional import pad

        _, _, height, width = x.shape
        # a view of every crop there is, (B, C, 2p+1, 2p+1, H, W), of which one is copied for each example
        crops = pad(x, [self.padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
        return crops[torch.arange(len(x), device=x.device), :, draws[:, 0], draws[:, 1]]
