"""Cut out a box of random area and aspect ratio and resize it: Szegedy et al., 2014 (arXiv:1409.4842), section 6."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ablate.augmentations._boxes import attempts, draw_boxes, first_that_fits, place
from ablate.data.augment import AreaRange, Augmentation, RatioRange

if TYPE_CHECKING:
    import torch


class RandomResizedCrop(Augmentation, name="random_resized_crop"):
    """A box of random area and aspect ratio, resized to the images' size (torchvision's RandomResizedCrop).

    Bilinear, antialiased. Acts on the image as it is stored: for a streamed data set on the file's full image, for one
    in memory on the image after ``data.size``.
    """

    scale: AreaRange = Field([0.08, 1.0], description="[least, most] share of the image's area that the box has")
    ratio: RatioRange = Field([3 / 4, 4 / 3], description="[least, most] width : height of the box; log-uniform")
    comes_first = True

    def draw(self, count: int, stream: torch.Generator) -> torch.Tensor:
        return draw_boxes(count, stream)

    def boxes(self, draws: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """(B, 4): top, left, height, width in pixels of an image of ``height`` × ``width``."""
        import torch

        h, w = attempts(draws, height, width, self.scale, self.ratio)
        h, w, found = first_that_fits(h, w, (h > 0) & (h <= height) & (w > 0) & (w <= width))
        top, left = place(draws[:, -2], (height - h).clamp(min=0)), place(draws[:, -1], (width - w).clamp(min=0))
        centre = self._centre(height, width)
        return torch.stack([box.where(found, whole) for box, whole in zip((top, left, h, w), centre, strict=True)], 1)

    def _centre(self, height: int, width: int) -> list[int]:
        """The largest box of an allowed ratio in the middle."""
        h, w = height, width
        if width / height < self.ratio[0]:
            h = min(height, round(width / self.ratio[0]))
        elif width / height > self.ratio[1]:
            w = min(width, round(height * self.ratio[1]))
        return [(height - h) // 2, (width - w) // 2, h, w]

    def apply(self, x: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        import torch

        _, _, height, width = x.shape
        top, left, h, w = self.boxes(draws, height, width).unbind(1)
        rows, columns = _weights(top, h, height), _weights(left, w, width)
        # as PIL does: columns first, and whole numbers in between
        narrow = (x.float().flatten(1, 2) @ columns.transpose(1, 2)).round_().clamp_(0, 255).view(x.shape)
        return (rows[:, None] @ narrow).round_().clamp_(0, 255).to(torch.uint8)


def _weights(start: torch.Tensor, length: torch.Tensor, side: int) -> torch.Tensor:
    """(B, side, side): what each of ``side`` new pixels takes of each old one; length pixels from start are the source.

    A triangle as wide as two new pixels, or two old ones where the box is enlarged.
    """
    import torch

    pixels = torch.arange(side, device=start.device, dtype=torch.float64)
    scale = (length.double() / side)[:, None, None]
    centres = (pixels[None, :, None] + 0.5) * scale
    offset = pixels[None, None, :] - start[:, None, None]
    inside = (offset >= 0) & (offset < length[:, None, None])
    weights = (
        (offset + 0.5 - centres).abs_().div_(scale.clamp(min=1)).neg_().add_(1).clamp_(min=0).mul_(inside.double())
    )
    return weights.div_(weights.sum(2, keepdim=True)).float()
