"""Random brightness, contrast, saturation and hue: Howard, 2013 (arXiv:1312.5402), as torchvision has them.

With x in 0 … 255, a factor f and the luminance l = 0.2989 R + 0.587 G + 0.114 B, each step cuts off at 0 and 255:

    brightness  f·x        contrast  f·x + (1-f)·mean(l)        saturation  f·x + (1-f)·l        hue  shifted by f turns
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import Field

from ablate.data.augment import Augmentation

if TYPE_CHECKING:
    import torch


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
        widths = (self.brightness, self.contrast, self.saturation, self.hue)
        steps = (brightness, contrast, saturation, hue)[: 4 if x.shape[1] == 3 else 2]
        x = x.clone()
        for turn in range(4):
            for column, step in enumerate(steps):
                chosen = draws[:, 4 + column] == turn
                if widths[column]:
                    x[chosen] = step(x[chosen], draws[chosen, column])
        return x


Step = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


def brightness(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """uint8 (B, C, H, W) and a factor (B,) for each image, as all of these."""
    return _blended(x, factor, x.new_zeros(()))


def contrast(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return _blended(x, factor, _luminance(x).float().mean((1, 2, 3), keepdim=True))


def saturation(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return _blended(x, factor, _luminance(x))


def hue(x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Through hue, saturation and value; ``factor`` in turns."""
    import torch

    h, s, v = _to_hsv(x.float() / 255)
    h = (h + factor.float()[:, None, None]) % 1.0
    return (_to_rgb(h, s, v) * (255 + 1.0 - 1e-3)).to(torch.uint8)


def _blended(x: torch.Tensor, factor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    import torch

    share, rest = (part.float()[:, None, None, None] for part in (factor.double(), 1 - factor.double()))
    return (share * x + rest * other).clamp(0, 255).to(torch.uint8)


def _luminance(x: torch.Tensor) -> torch.Tensor:
    """uint8 (B, 1, H, W)"""
    if x.shape[1] == 1:
        return x
    r, g, b = x.unbind(1)
    return (0.2989 * r + 0.587 * g + 0.114 * b).to(x.dtype)[:, None]


def _to_hsv(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hue in turns, saturation and value (B, H, W) of (B, 3, H, W) in [0, 1]; grey has hue 0."""
    import torch

    r, g, b = x.unbind(1)
    most, least = x.amax(1), x.amin(1)
    spread = most - least
    divisor = spread.where(spread > 0, torch.ones_like(spread))
    from_red, from_green, from_blue = ((most - channel) / divisor for channel in (r, g, b))
    h = (from_blue - from_green) * (most == r)
    h = h + (2.0 + from_red - from_blue) * ((most == g) & (most != r))
    h = h + (4.0 + from_green - from_red) * ((most != g) & (most != r))
    s = spread / most.where(spread > 0, torch.ones_like(most))
    return torch.fmod(h / 6.0 + 1.0, 1.0), s, most


def _to_rgb(h: torch.Tensor, s: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) in [0, 1]"""
    import torch

    sector = (h * 6.0).floor()
    f = h * 6.0 - sector
    p, q, t = ((v * (1.0 - part)).clamp(0.0, 1.0) for part in (s, s * f, s * (1.0 - f)))
    # which of v, q, p, t is red, green and blue in each sixth of the wheel
    table = torch.tensor([[0, 1, 2, 2, 3, 0], [3, 0, 0, 1, 2, 2], [2, 2, 3, 0, 0, 1]], device=h.device)
    return torch.stack([v, q, p, t], 1).gather(1, table[:, sector.long() % 6].movedim(0, 1))
