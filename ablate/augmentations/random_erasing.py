"""Fill a random box with one colour: Zhong et al., 2017 (arXiv:1708.04896)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ablate.augmentations._boxes import attempts, draw_boxes, first_that_fits, place
from ablate.data.augment import AreaRange, Augmentation, RatioRange, Share, picked

if TYPE_CHECKING:
    import torch

Pixel = Annotated[int, Field(ge=0, le=255)]


class RandomErasing(Augmentation, name="random_erasing"):
    """Fills a box of random area, aspect ratio and place with one colour (torchvision's RandomErasing, on uint8).

    It acts before normalisation: the 0 that others fill in after it is the mean colour here.
    """

    p: Share = Field(0.5, description="share of the images that lose a box, 0 to 1")
    scale: AreaRange = Field([0.02, 0.33], description="[least, most] share of the image's area that is filled")
    ratio: RatioRange = Field([0.3, 3.3], description="[least, most] height : width of the box; log-uniform")
    value: Pixel | list[Pixel] = Field(0, description="the colour, 0 to 255: one number (0: black), or one per channel")

    def problem(self, shape: tuple[int, int, int]) -> str | None:
        if isinstance(self.value, list) and len(self.value) != shape[0]:
            return f"{len(self.value)} number(s) as value for images of {shape[0]} channel(s)"
        return None

    def draw(self, count: int, stream: torch.Generator) -> torch.Tensor:
        """(count, 23): whether, then the box."""
        import torch

        return torch.cat([torch.rand(count, 1, generator=stream), draw_boxes(count, stream)], 1)

    def apply(self, x: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        import torch

        _, channels, height, width = x.shape
        top, left, h, w = (side[:, None] for side in self.boxes(draws, height, width).unbind(1))
        rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
        erased = ((rows >= top) & (rows < top + h))[:, :, None] & ((columns >= left) & (columns < left + w))[:, None]
        values = self.value if isinstance(self.value, list) else [self.value] * channels
        colour = torch.tensor(values, dtype=torch.uint8).to(x.device, non_blocking=True)
        return picked(erased[:, None], colour[:, None, None], x)

    def boxes(self, draws: torch.Tensor, height: int, width: int) -> torch.Tensor:
        """(B, 4): top, left, height, width in pixels; all 0 where nothing is filled."""
        import torch

        # torchvision's ratio is height : width here, and width : height in its crop
        w, h = attempts(draws[:, 1:], height, width, self.scale, self.ratio)
        h, w, found = first_that_fits(h, w, (h < height) & (w < width))
        top, left = place(draws[:, -2], (height - h).clamp(min=0)), place(draws[:, -1], (width - w).clamp(min=0))
        return torch.stack([top, left, h, w], 1) * (found & (draws[:, 0] < self.p))[:, None]
