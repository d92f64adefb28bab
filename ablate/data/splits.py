"""The examples of a data set: in memory, or read when they are asked for; and the limits that both keep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from ablate.data.checks import Images, Labels, Rows, Shape
from ablate.data.images import resized

if TYPE_CHECKING:
    import hashlib

    import torch


class Crop(Protocol):
    """Where to cut an image that is only read later: ``boxes(draws, height, width)`` → (B, 4) top, left, height, width.

    It is an augmentation, with the rows of what it drew.
    """

    def boxes(self, draws: torch.Tensor, height: int, width: int) -> torch.Tensor: ...


class Examples(Protocol):
    """What a split is to all who use it: labels, and uint8 images by row.

    :class:`Split` holds the images in memory; another kind reads them when they are asked for. All pickle, and cross
    to other processes.
    """

    @property
    def labels(self) -> Labels:
        """int64 (N,)"""
        ...

    @property
    def shape(self) -> Shape:
        """(C, H, W) of every image."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory."""
        ...

    def __len__(self) -> int: ...

    def take(self, rows: Rows) -> Self:
        """Those examples, in that order."""
        ...

    def resized(self, size: tuple[int, int]) -> Self:
        """With images of that height and width, in pixels."""
        ...

    def batch(self, rows: Rows) -> Images:
        """The images (B, C, H, W) of those rows: a copy."""
        ...

    def stream(
        self,
        parts: Sequence[Rows],
        crop: Crop | None = None,
        draws: torch.Tensor | None = None,
        device: str | torch.device | None = None,
    ) -> Iterator[Images]:
        """The images (B, C, H, W) of each part. With ``crop``, cut from the images as they are stored.

        ``draws`` are the crop's, for every example of the split. ``device`` is where a trial's batches go; what is
        only read once states none.
        """
        ...

    def feed(self, digest: hashlib._Hash) -> None:
        """Hash what the images and labels are."""
        ...


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 (N, C, H, W), C-contiguous, and labels int64 (N,), in memory."""

    images: Images
    labels: Labels

    def __post_init__(self) -> None:
        assert self.images.dtype == np.uint8
        assert self.labels.dtype == np.int64
        assert self.images.flags.c_contiguous
        assert self.images.ndim == 4
        assert self.labels.shape == self.images.shape[:1]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> Shape:
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def nbytes(self) -> int:
        return self.images.nbytes + self.labels.nbytes

    def take(self, rows: Rows) -> Split:
        return Split(self.images[rows], self.labels[rows])

    def resized(self, size: tuple[int, int]) -> Split:
        if self.shape[1:] == size:
            return self
        images = np.empty((len(self), self.shape[0], *size), dtype=np.uint8)
        for row, image in enumerate(self.images):
            images[row] = resized(image, size)
        return Split(images, self.labels)

    def batch(self, rows: Rows) -> Images:
        return self.images[rows]

    def stream(
        self,
        parts: Sequence[Rows],
        crop: Crop | None = None,
        draws: torch.Tensor | None = None,
        device: str | torch.device | None = None,
    ) -> Iterator[Images]:
        assert crop is None, "images in memory are cropped a batch at a time"
        yield from map(self.batch, parts)

    def feed(self, digest: hashlib._Hash) -> None:
        digest.update(self.images.data)
        digest.update(self.labels.astype("<i8").data)
