"""Mixing the examples of a batch: mixup and CutMix, and the grammar of ``data.mix``.

Each example is mixed with the one before it in the (shuffled) batch, with one share for the whole batch, as torchvision
has it. Images (B, C, H, W) stay float32, labels become float32 (B, classes). Draws: (seed, "mix", epoch, batch).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ablate.streams import stream_seed

if TYPE_CHECKING:
    import torch

Alpha = Annotated[float, Field(gt=0, le=1000)]
Share = Annotated[float, Field(ge=0, le=1)]


class Mixing(BaseModel, ABC):
    """A way to mix the examples of a training batch."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    p: Share = Field(1.0, description="share of the batches that are mixed, 0 to 1")

    def __call__(
        self, x: torch.Tensor, y: torch.Tensor, classes: int, *name: str | int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mixed images and soft labels of images (B, C, H, W) and labels int64 (B,); ``name`` is the stream's."""
        from torch.nn.functional import one_hot

        # RandomState, since numpy keeps its numbers the same for ever, and torch's Beta takes no generator
        draws = np.random.RandomState(stream_seed(*name) % 2**32)
        soft = one_hot(y, classes).float()
        if draws.uniform() >= self.p:
            return x, soft
        return self.mixed(x, soft, draws)

    @abstractmethod
    def mixed(
        self, x: torch.Tensor, y: torch.Tensor, draws: np.random.RandomState
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mixed images and labels, of soft labels (B, classes)."""


class Mixup(Mixing):
    """Weighted means of two images and of their labels: Zhang et al., 2018 (arXiv:1710.09412)."""

    name: Literal["mixup"]
    alpha: Alpha = Field(0.2, description="the share of the first image is drawn from Beta(alpha, alpha)")

    def mixed(
        self, x: torch.Tensor, y: torch.Tensor, draws: np.random.RandomState
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return mixup(x, y, draws.beta(self.alpha, self.alpha))


class Cutmix(Mixing):
    """A box of one image in another, labels by area: Yun et al., 2019 (arXiv:1905.04899)."""

    name: Literal["cutmix"]
    alpha: Alpha = Field(1.0, description="the share that the first image keeps is drawn from Beta(alpha, alpha)")

    def mixed(
        self, x: torch.Tensor, y: torch.Tensor, draws: np.random.RandomState
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return cutmix(x, y, draws.beta(self.alpha, self.alpha), draws.uniform(), draws.uniform())


class MixupOrCutmix(Mixing):
    """One or the other, chosen for each batch, as DeiT has it: Touvron et al., 2021 (arXiv:2012.12877)."""

    name: Literal["mixup_or_cutmix"]
    mixup_alpha: Alpha = Field(0.8, description="alpha of mixup")
    cutmix_alpha: Alpha = Field(1.0, description="alpha of cutmix")
    cutmix_p: Share = Field(0.5, description="share of the mixed batches that cutmix takes, 0 to 1")

    def mixed(
        self, x: torch.Tensor, y: torch.Tensor, draws: np.random.RandomState
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if draws.uniform() < self.cutmix_p:
            return Cutmix(name="cutmix", alpha=self.cutmix_alpha).mixed(x, y, draws)
        return Mixup(name="mixup", alpha=self.mixup_alpha).mixed(x, y, draws)


Mix = Annotated[Mixup | Cutmix | MixupOrCutmix, Field(discriminator="name")]
MIXINGS: dict[str, type[Mixing]] = {"mixup": Mixup, "cutmix": Cutmix, "mixup_or_cutmix": MixupOrCutmix}


def mixup(x: torch.Tensor, y: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """share·x + (1 - share)·(the x before), and so the labels."""
    return _weighted(x, share), _weighted(y, share)


def _weighted(x: torch.Tensor, share: float) -> torch.Tensor:
    return (x * share).add_(x.roll(1, 0).mul_(1.0 - share))


def cutmix(
    x: torch.Tensor, y: torch.Tensor, share: float, across: float, down: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """A box of about (1 - share) of the area comes from the image before; its centre is at ``down``, ``across``.

    The centre is given in parts of the height and the width, in [0, 1). The box is cut off at the border, and the
    labels are mixed by the area that is left of it.
    """
    height, width = x.shape[2:]
    reach = 0.5 * math.sqrt(1.0 - share)
    left, right = _span(int(across * width), int(reach * width), width)
    top, bottom = _span(int(down * height), int(reach * height), height)
    mixed = x.clone()
    mixed[:, :, top:bottom, left:right] = x[:, :, top:bottom, left:right].roll(1, 0)
    kept = 1.0 - (right - left) * (bottom - top) / (width * height)
    return mixed, y * kept + y.roll(1, 0) * (1.0 - kept)


def _span(middle: int, reach: int, side: int) -> tuple[int, int]:
    return max(middle - reach, 0), min(middle + reach, side)
