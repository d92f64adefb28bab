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

        examples, channels, height, width = x.shape
        padded = pad(x, [self.padding] * 4).contiguous()
        line = padded.shape[3]
        # a view of every run of ``width`` pixels there is; each row of each crop is one of them, and copied whole
        runs = padded.as_strided((padded.numel() - width + 1, width), (1, 1))
        planes = torch.arange(examples * channels, device=x.device).view(examples, channels, 1) * padded[0, 0].numel()
        corners = (draws[:, 0] * line + draws[:, 1])[:, None, None]
        rows = torch.arange(height, device=x.device) * line
        return runs.index_select(0, (planes + corners + rows).flatten()).view(x.shape)
