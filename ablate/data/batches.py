"""From uint8 images to augmented, normalised batches, as torchvision would make them one by one.

Images stay uint8 until a batch is asked for; augmentation acts on whole batches. What is random is
drawn for all examples of the split before the epoch's first batch and looked up by example, so the batch
size changes nothing about what happens to an example. Draws are made on the CPU: the same on every device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ablate.data.augment import Augmentation
from ablate.data.mix import Mixing
from ablate.data.on_device import OnDevice, as_tensor
from ablate.data.splits import Crop, Examples
from ablate.streams import generator

if TYPE_CHECKING:
    import torch

    from ablate.data.dataset import ImageData


class Batches:
    """The training data of a trial, an epoch at a time.

    ``seed`` is the trial's; the streams are (seed, "order", epoch), (seed, "augment", epoch, name), one for each
    augmentation, and (seed, "mix", epoch, batch), so that leaving one out leaves the draws of the others as they were.
    ``rank`` of ``ranks`` processes share each batch: this one is given its share of the images.
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
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        _check_batch_size(batch_size)
        if len(split) < 2 * ranks > 2:
            raise ValueError(f"{len(split)} examples are too few for {ranks} devices; at least 2 each")
        self.rank, self.ranks = rank, ranks
        self.split, self.labels = OnDevice(split, device), as_tensor(split.labels)
        self.augment, self.batch_size, self.seed, self.device = tuple(augment), batch_size, seed, device
        self.classes, self.mix = data.classes, mix
        self._mean, self._std = _statistics(data, device)

    def __len__(self) -> int:
        """Batches, and so steps, in an epoch."""
        return len(self._slices())

    def epoch(self, n: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The shuffled batches of epoch ``n``: float32 (B, C, H, W) channels-last, and int64 (B,).

        With ``mix`` the labels are float32 (B, classes). The last batch may be short, but never a single example
        (batch norm could not use it): that one joins the batch before. Where processes share the batches, the images
        are this one's share, the labels are the whole batch's, and no share is a single example.
        """
        import torch

        order = torch.randperm(len(self.labels), generator=generator(self.seed, "order", n))
        batches = [order[part] for part in self._slices()]
        # Each example is mixed with the one before it: a share is cut from the mixed batch.
        parts = batches if self.mix is not None else [batch[self._share(len(batch))] for batch in batches]
        labels = self._sent(self.labels, batches)
        for number, (x, y) in enumerate(zip(self._augmented(parts, n), labels, strict=True)):
            x = _normalised(x, self._mean, self._std)
            if self.mix is not None:
                x, y = self.mix(x, y, self.classes, self.seed, "mix", n, number)
                x = x[self._share(len(x))]
            yield x, y

    def _augmented(self, parts: list[torch.Tensor], n: int) -> Iterator[torch.Tensor]:
        """uint8 (B, C, H, W) of the examples in each part, on the device, as epoch ``n`` has them."""
        import torch

        draws = [a.draw(len(self.labels), generator(self.seed, "augment", n, a.name)) for a in self.augment]
        crop = self._crop()
        first = 0 if crop is None else 1
        images = self.split.batches(torch.cat(parts), list(map(len, parts)), crop, draws[0] if first else None)
        for x, *drawn in zip(images, *(self._sent(each, parts) for each in draws[first:]), strict=True):
            for augmentation, of_part in zip(self.augment[first:], drawn, strict=True):
                x = augmentation.apply(x, of_part)
            yield x

    def _sent(self, of_examples: torch.Tensor, parts: list[torch.Tensor]) -> Sequence[torch.Tensor]:
        """What belongs to the examples of each part, on the device: all of an epoch goes there at once."""
        import torch

        return torch.split(of_examples[torch.cat(parts)].to(self.device, non_blocking=True), list(map(len, parts)))

    def _slices(self) -> list[slice]:
        return _training_slices(len(self.labels), self.batch_size, 2 * self.ranks)

    def _share(self, examples: int) -> slice:
        return share_of(examples, self.rank, self.ranks)

    def _crop(self) -> Crop | None:
        """The augmentation that a streamed split makes itself, on the images as they are stored."""
        if self.split.in_memory or not self.augment or not self.augment[0].comes_first:
            return None
        first: Any = self.augment[0]
        return first  # type: ignore[no-any-return]


def evaluation_batches(
    split: Examples | OnDevice, data: ImageData, batch_size: int, device: str | torch.device = "cpu"
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """All of a split in its own order, normalised, without augmentation; the last batch may be short.

    What is evaluated more than once is given as :class:`OnDevice`, and so goes to its device once.
    """
    import torch

    _check_batch_size(batch_size)
    images = split if isinstance(split, OnDevice) else OnDevice(split, device)
    mean, std = _statistics(data, images.device)
    count = len(images)
    sizes = [min(batch_size, count - start) for start in range(0, count, batch_size)]
    labels = torch.split(as_tensor(images.labels).to(images.device, non_blocking=True), sizes)
    for x, y in zip(images.batches(torch.arange(count), sizes), labels, strict=True):
        yield _normalised(x, mean, std), y


def share_of(examples: int, rank: int, ranks: int) -> slice:
    """Which of a batch's examples are the share of that rank: as many for each, the first ones one more."""
    least, more = divmod(examples, ranks)
    return slice(rank * least + min(rank, more), (rank + 1) * least + min(rank + 1, more))


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch size {batch_size} is too small; at least 1")


def _training_slices(count: int, batch_size: int, least: int = 2) -> list[slice]:
    starts = list(range(0, count, batch_size))
    if batch_size >= least and len(starts) > 1 and count - starts[-1] < least:
        starts.pop()
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], count], strict=True)]


def _statistics(data: ImageData, device: str | torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    mean, std = (torch.tensor(values, dtype=torch.float32, device=device) for values in (data.mean, data.std))
    return mean[:, None, None], std[:, None, None]


def _normalised(x: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """(x/255 - mean) / std in torchvision's order of operations, so that the results are equal to the last bit."""
    import torch

    # channels-last at the end: a CPU subtracts a number from a whole plane faster than three from each pixel
    return x.to(torch.float32).div_(255).sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)
