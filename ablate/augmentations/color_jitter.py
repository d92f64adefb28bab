"""Random brightness, contrast, saturation and hue: Howard, 2013 (arXiv:1312.5402), as torchvision has them.

With x in 0 … 255, a factor f and the luminance l = 0.2989 R + 0.587 G + 0.114 B, each step cuts off at 0 and 255:

    brightness  f·x        contrast  f·x + (1-f)·mean(l)        saturation  f·x + (1-f)·l        hue  shifted by f turns

The order differs from image to image, and yet all go through the same operations: the first three steps are one blend
that does nothing for f = 1, so that each image may wait there for the one shift of hue, which costs most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ablate.data.augment import Augmentation

if TYPE_CHECKING:
    import torch

CONTRAST, SATURATION, HUE = 1, 2, 3
"""Columns of the factors; brightness is 0."""


class ColorJitter(Augmentation, name="color_jitter"):
    """Changes brightness, contrast, saturation and hue, in an order drawn for each image (torchvision's ColorJitter).

    Grey images have no saturation and no hue to change.
    """

    brightness: float = Field(0.0, ge=0, description="the factor is uniform in 1 ± this, and at least 0")
    contrast: float = Field(0.0, ge=0, description="the factor is uniform in 1 ± this, and at least 0")
    saturation: float = Field(0.0, ge=0, description="the factor is uniform in 1 ± this, and at least 0")
    hue: float = Field(0.0, ge=0, le=0.5, description="the shift is uniform in ± this, in turns of the colour wheel")

    def problem(self, shape: tuple[int, int, int]) -> str | None:
        return None if shape[0] in (1, 3) else f"colours are known of 1 or 3 channels, and the images have {shape[0]}"

    def draw(self, count: int, stream: torch.Generator) -> torch.Tensor:
        """(count, 8): the factors of brightness, contrast, saturation and hue, and at which turn each acts."""
        import torch

        u = torch.rand(count, 8, generator=stream, dtype=torch.float64)
        widths = (self.brightness, self.contrast, self.saturation)
        low = torch.tensor([max(0.0, 1 - width) for width in widths] + [-self.hue], dtype=torch.float64)
        high = torch.tensor([1 + width for width in widths] + [self.hue], dtype=torch.float64)
        return torch.cat([low + (high - low) * u[:, :4], u[:, 4:].argsort(1).argsort(1).double()], 1)

    def apply(self, x: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        import torch

        coloured = x.shape[1] == 3
        widths = (self.brightness, self.contrast, self.saturation)[: 3 if coloured else 2]
        steps = [step for step, width in enumerate(widths) if width]
        turns = draws[:, 4 : 4 + len(widths)]
        early = turns < draws[:, 4 + HUE :] if coloured and self.hue else turns >= 0
        x = _blended(x.float(), draws, steps, early)
        if coloured and self.hue:
            x = _blended(_shifted(x, draws[:, HUE]), draws, steps, ~early)
        return x.to(torch.uint8)


def _blended(x: torch.Tensor, draws: torch.Tensor, steps: list[int], now: torch.Tensor) -> torch.Tensor:
    """``x``, whole numbers and written to, after those of the ``steps`` that each image takes ``now`` (B, 2 or 3)."""
    columns = now.shape[1]
    turns = draws[:, 4 : 4 + columns]
    before = sum(turns[:, step, None] < turns for step in steps)
    for turn in range(len(steps)):
        factors = draws[:, :columns].where(now & (before == turn), 1.0)
        rest = (1 - factors).float()[:, :, None, None, None]
        grey = _luminance(x)
        other = grey.mean((1, 2, 3), keepdim=True) * rest[:, CONTRAST]
        if columns > SATURATION:
            other = grey.mul_(rest[:, SATURATION]).add_(other)
        x.mul_(factors.prod(1).float()[:, None, None, None]).add_(other).clamp_(0, 255).floor_()
    return x


def _luminance(x: torch.Tensor) -> torch.Tensor:
    """Whole numbers (B, 1, H, W)"""
    if x.shape[1] == 1:
        return x
    r, g, b = x.unbind(1)
    return (0.2989 * r).add_(0.587 * g).add_(0.114 * b).floor_()[:, None]


def _shifted(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """Whole numbers (B, 3, H, W) whose hue is further by ``turns`` (B,) of the wheel."""
    h, s, v = _to_hsv(x / 255)
    return _to_rgb(_part(h + turns.float()[:, None, None]), s, v).mul_(255 + 1.0 - 1e-3).floor_()


def _part(turns: torch.Tensor) -> torch.Tensor:
    """What is left of turns when the whole ones are taken off."""
    return turns - turns.floor()


def _to_hsv(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hue in turns, saturation and value (B, H, W) of (B, 3, H, W) in steps of 1/255; grey has hue 0."""
    most, least = x.amax(1), x.amin(1)
    spread = most - least
    least_step = 1 / 256  # what is not 0 is more: dividing by it instead of by 0 gives 0
    below = most[:, None] - x
    from_red, from_green, from_blue = (below / spread.clamp(min=least_step)[:, None]).unbind(1)
    not_red, not_green, _ = below.mul_(256).clamp_(max=1).unbind(1)
    # to lerp with 0 or 1 is to choose, and much faster than torch.where on a CPU
    h = (2.0 + from_red - from_blue).lerp_(4.0 + from_green - from_red, not_green)
    h = (from_blue - from_green).lerp_(h, not_red)
    return _part(h / 6.0 + 1.0), spread / most.clamp(min=least_step), most


def _to_rgb(h: torch.Tensor, s: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) in [0, 1]. What each colour lacks rises and falls along the six sectors of the wheel."""
    import torch

    at = h * 6.0
    lacks = (
        torch.minimum(at - 1.0, 5.0 - at),
        torch.maximum(1.0 - at, at - 3.0),
        torch.maximum(3.0 - at, at - 5.0),
    )
    # v·(1 - s·part)
    return torch.stack([x.clamp_(0, 1).mul_(s).neg_().add_(1).mul_(v).clamp_(0, 1) for x in lacks], 1)
