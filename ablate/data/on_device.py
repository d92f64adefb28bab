"""The images of a split where a trial makes batches of them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ablate.data.splits import Crop, Examples, Split

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ablate.data.checks import Labels

ROOM = 1 / 4
"""The most of a CUDA device's free memory that the images of one split may take there."""


class OnDevice:
    """A split whose batches go to a device, as often as they are asked for.

    On a CPU the images are used where they are, since processes may share them. A device of its own memory is given all
    of them once, or, where that were more than a quarter of what is free, one batch after another. Nothing here waits
    for the device. A split that reads its images when they are asked for does so.
    """

    def __init__(self, split: Examples, device: str | torch.device = "cpu") -> None:
        import torch

        self.split, self.device = split, torch.device(device)
        self.images: torch.Tensor | None = None
        if isinstance(split, Split):
            images = as_tensor(split.images)
            self.images = images.to(self.device) if _fits(images.nbytes, self.device) else images

    @property
    def labels(self) -> Labels:
        """int64 (N,), in the memory of the host."""
        return self.split.labels

    @property
    def in_memory(self) -> bool:
        """Whether the images are there, or are read when they are asked for."""
        return self.images is not None

    def __len__(self) -> int:
        return len(self.split)

    def batches(
        self, rows: torch.Tensor, sizes: list[int], crop: Crop | None = None, draws: torch.Tensor | None = None
    ) -> Iterator[torch.Tensor]:
        """uint8 (B, C, H, W) on the device, for each of ``sizes`` so many of the ``rows``, which are int64 on the CPU.

        ``crop`` and its ``draws``, for every example, are for a split that is read when it is asked for.
        """
        import torch

        if self.images is None:
            parts = [part.numpy() for part in torch.split(rows, sizes)]
            for images in self.split.stream(parts, crop, draws, self.device):
                yield as_tensor(images).to(self.device, non_blocking=True)
        elif self.images.device.type == self.device.type:
            for part in torch.split(rows.to(self.device, non_blocking=True), sizes):
                yield self.images.index_select(0, part)
        else:
            yield from map(self._sent, torch.split(rows, sizes))

    def _sent(self, rows: torch.Tensor) -> torch.Tensor:
        """The images of those rows by way of pinned memory, which the device reads while the network computes."""
        import torch

        assert self.images is not None
        pinned = self.device.type == "cuda"
        images = torch.empty((len(rows), *self.split.shape), dtype=torch.uint8, pin_memory=pinned)
        return torch.index_select(self.images, 0, rows, out=images).to(self.device, non_blocking=True)


def _fits(size: int, device: torch.device) -> bool:
    """Whether so many bytes may stay on the device."""
    import torch

    return device.type != "cuda" or size <= ROOM * torch.cuda.mem_get_info(device)[0]


def as_tensor(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """The same memory."""
    import torch

    with warnings.catch_warnings():
        # Arrays shared between workers are read-only, which torch cannot express. Nothing here writes to them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)
