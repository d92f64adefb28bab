"""From uint8 images to augmented, normalised batches, as torchvision would make them one by one.

Images stay uint8 until a batch is asked for; augmentation acts on whole batches. What is random is
drawn for all examples of the split before the epoch's first batch and looked up by example, so the batch
size changes nothing about what happens to an example. Draws are made on the CPU: the same on every device.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ablate.data.augment import Augmentation
from ablate.data.mix import Mixing
from ablate.data.splits import Crop, Examples, Split
from ablate.streams import generator

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ablate.data.dataset import ImageData


class Batches:
    """The training data of a trial, an epoch at a time.

    ``seed`` is the trial's; the streams are (seed, "order", epoch), (seed, "augment", epoch, name), one for each
    augmentation, and (seed, "mix", epoch, batch), so that leaving one out leaves the draws of the others as they were.
    """

    def __init__(
        self,
        split: Examples,
        data: ImageData,
        augment: Sequence[Augmentation],
        batch_size: int,
        seed: int,
        device: str | torch.device = "cpu",
        mix: Mixing | None = None,
    ) -> None:
        _check_batch_size(batch_size)
        self.split, self.classes, self.mix = split, data.classes, mix
        self.images = _tensor(split.images).to(device) if isinstance(split, Split) else None
        self.labels = _tensor(split.labels).to(device)
        self.augment, self.batch_size, self.seed, self.device = tuple(augment), batch_size, seed, device
        self._mean, self._std = _statistics(data, device)

    def __len__(self) -> int:
        """Batches, and so steps, in an epoch."""
        return len(_training_slices(len(self.labels), self.batch_size))

    def epoch(self, n: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The shuffled batches of epoch ``n``: float32 (B, C, H, W) channels-last, and int64 (B,).

        With ``mix`` the labels are float32 (B, classes). The last batch may be short, but never a single example
        (batch norm could not use it): that one joins the batch before.
        """
        import torch

        count = len(self.labels)
        order = torch.randperm(count, generator=generator(self.seed, "order", n))
        parts = [order[part] for part in _training_slices(count, self.batch_size)]
        draws = [a.draw(count, generator(self.seed, "augment", n, a.name)) for a in self.augment]
        for number, (chosen, x) in enumerate(zip(parts, self._images(parts, draws), strict=True)):
            for augmentation, drawn in self._remaining(draws):
                x = augmentation.apply(x, drawn[chosen].to(self.device))
            x, y = _normalised(x, self._mean, self._std), self.labels[chosen.to(self.device)]
            yield self.mix(x, y, self.classes, self.seed, "mix", n, number) if self.mix is not None else (x, y)

    def _images(self, parts: list[torch.Tensor], draws: list[torch.Tensor]) -> Iterator[torch.Tensor]:
        """uint8 (B, C, H, W) of each part, on the device."""
        if self.images is not None:
            for part in parts:
                yield self.images[part.to(self.device)]
            return
        crop = self._crop()
        drawn = draws[0] if crop is not None else None
        for images in self.split.stream([part.numpy() for part in parts], crop, drawn):
            yield _tensor(images).to(self.device)

    def _crop(self) -> Crop | None:
        """The augmentation that a streamed split makes itself, on the images as they are stored."""
        if self.images is not None or not self.augment or not self.augment[0].comes_first:
            return None
        first: Any = self.augment[0]
        return first  # type: ignore[no-any-return]

    def _remaining(self, draws: list[torch.Tensor]) -> list[tuple[Augmentation, torch.Tensor]]:
        return list(zip(self.augment, draws, strict=True))[0 if self._crop() is None else 1 :]


def evaluation_batches(
    split: Examples, data: ImageData, batch_size: int, device: str | torch.device = "cpu"
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """All of a split in its own order, normalised, without augmentation; the last batch may be short."""
    import numpy as np

    _check_batch_size(batch_size)
    labels = _tensor(split.labels)
    mean, std = _statistics(data, device)
    rows = np.arange(len(split))
    parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    for part, images in zip(parts, split.stream(parts), strict=True):
        yield _normalised(_tensor(images).to(device), mean, std), labels[part[0] : part[-1] + 1].to(device)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch size {batch_size} is too small; at least 1")


def _training_slices(count: int, batch_size: int) -> list[slice]:
    starts = list(range(0, count, batch_size))
    if batch_size > 1 and len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], count], strict=True)]


def _tensor(array: np.ndarray[Any, Any]) -> torch.Tensor:
    import torch

    with warnings.catch_warnings():
        # Arrays shared between workers are read-only, which torch cannot express. Nothing here writes to them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _statistics(data: ImageData, device: str | torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (data.mean, data.std))
    return mean[:, None, None], std[:, None, None]


def _normalised(x: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """(x/255 - mean) / std in torchvision's order of operations, so that the results are equal to the last bit."""
    import torch

    x = x.contiguous(memory_format=torch.channels_last)
    return x.to(torch.float32).div_(255).sub_(mean).div_(std)
