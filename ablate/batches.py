"""From uint8 images to augmented, normalised batches, as torchvision would make them one by one.

Images stay uint8 until a batch is asked for; crop and flip act on whole batches, by index. What is random is
drawn for all examples of the split before the epoch's first batch and looked up by example, so the batch
size changes nothing about what happens to an example. Draws are made on the CPU: the same on every device.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, create_model
from pydantic_core import PydanticCustomError

from ablate.errors import did_you_mean
from ablate.streams import generator

if TYPE_CHECKING:
    import numpy as np
    import torch

    from ablate.dataset import ImageData, Split


class Augmentation(BaseModel, ABC):
    """A random change of training images: ``class RandomCrop(Augmentation, name="random_crop")``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    name: ClassVar[str]

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is not None:
            cls.name = name
            _augmentations[name] = cls

    @abstractmethod
    def draw(self, count: int, stream: torch.Generator) -> torch.Tensor:
        """What is random, for each of ``count`` examples: a CPU tensor (count, …)."""

    @abstractmethod
    def apply(self, x: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """The changed images, uint8 (B, C, H, W), of the images and their draws; ``x`` is not written to."""


_augmentations: dict[str, type[Augmentation]] = {}


class RandomCrop(Augmentation, name="random_crop"):
    """Pads with black on all sides and cuts out the original size at a random place (torchvision's RandomCrop)."""

    padding: int = Field(ge=1, le=512, description="black pixels added on each side before the crop")

    def draw(self, count: int, stream: torch.Generator) -> torch.Tensor:
        import torch

        return torch.randint(0, 2 * self.padding + 1, (count, 2), generator=stream)

    def apply(self, x: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn.functional import pad

        _, _, height, width = x.shape
        # a view of every crop there is, (B, C, 2p+1, 2p+1, H, W), of which one is copied for each example
        crops = pad(x, [self.padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
        return crops[torch.arange(len(x), device=x.device), :, draws[:, 0], draws[:, 1]]


class HorizontalFlip(Augmentation, name="horizontal_flip"):
    """Mirrors every other image, left to right, at random."""

    def draw(self, count: int, stream: torch.Generator) -> torch.Tensor:
        import torch

        return torch.rand(count, generator=stream) < 0.5

    def apply(self, x: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        return x.flip(-1).where(draws[:, None, None, None], x)


def augmentations() -> dict[str, type[Augmentation]]:
    """Every augmentation by name, sorted."""
    return dict(sorted(_augmentations.items()))


class Batches:
    """The training data of a trial, an epoch at a time.

    ``seed`` is the trial's; the streams are (seed, "order", epoch) and (seed, "augment", epoch, name), one for each
    augmentation, so that leaving one out leaves the draws of the others as they were.
    """

    def __init__(
        self,
        split: Split,
        data: ImageData,
        augment: Sequence[Augmentation],
        batch_size: int,
        seed: int,
        device: str | torch.device = "cpu",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch size {batch_size} is too small; at least 1")
        self.images = _tensor(split.images).to(device)
        self.labels = _tensor(split.labels).to(device)
        self.augment, self.batch_size, self.seed, self.device = tuple(augment), batch_size, seed, device
        self._mean, self._std = _statistics(data, device)

    def __len__(self) -> int:
        """Batches, and so steps, in an epoch."""
        return len(_training_slices(len(self.labels), self.batch_size))

    def epoch(self, n: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The shuffled batches of epoch ``n``: float32 (B, C, H, W) channels-last, and int64 (B,).

        The last batch may be short, but never a single example (batch norm could not use it): that one joins
        the batch before.
        """
        import torch

        count = len(self.labels)
        order = torch.randperm(count, generator=generator(self.seed, "order", n))
        draws = [a.draw(count, generator(self.seed, "augment", n, a.name)) for a in self.augment]
        for part in _training_slices(count, self.batch_size):
            chosen = order[part]
            x = self.images[chosen.to(self.device)]
            for augmentation, drawn in zip(self.augment, draws, strict=True):
                x = augmentation.apply(x, drawn[chosen].to(self.device))
            yield _normalised(x, self._mean, self._std), self.labels[chosen.to(self.device)]


def evaluation_batches(
    split: Split, data: ImageData, batch_size: int, device: str | torch.device = "cpu"
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """All of a split in its own order, normalised, without augmentation; the last batch may be short."""
    if batch_size < 1:
        raise ValueError(f"batch size {batch_size} is too small; at least 1")
    images, labels = _tensor(split.images), _tensor(split.labels)
    mean, std = _statistics(data, device)
    for start in range(0, len(labels), batch_size):
        part = slice(start, start + batch_size)
        yield _normalised(images[part].to(device), mean, std), labels[part].to(device)


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


def _parsed(item: Any) -> Augmentation:
    """``horizontal_flip`` or ``{random_crop: {padding: 4}}``."""
    if isinstance(item, Augmentation):
        return item
    if isinstance(item, str):
        return _bare(item)
    if not isinstance(item, Mapping) or len(item) != 1 or not isinstance(next(iter(item)), str):
        raise PydanticCustomError(
            "augmentation_form",
            f"{item!r} is no augmentation; write its name, or a mapping with one key, the name, and its parameters",
        )
    (name,) = item
    # a model with the name as its one field, so that an error's path runs through the name
    holder = create_model("Augment", **{name: (_find(name), ...)})  # type: ignore[call-overload]
    parsed: Augmentation = getattr(holder.model_validate(dict(item), strict=True), name)
    return parsed


def _bare(name: str) -> Augmentation:
    kind = _find(name)
    needed = _required(kind)
    if needed:
        params = ", ".join(f"{parameter}: …" for parameter in needed)
        raise PydanticCustomError("augmentation_form", f"'{name}' needs parameters; write {{{name}: {{{params}}}}}")
    return kind()


def _find(name: str) -> type[Augmentation]:
    if name not in _augmentations:
        hint = did_you_mean(name, _augmentations)
        raise PydanticCustomError("unknown_name", f"unknown augmentation '{name}'; {hint}")
    return _augmentations[name]


def _required(kind: type[Augmentation]) -> list[str]:
    return [name for name, field in kind.model_fields.items() if field.is_required()]


def _written(augmentation: Augmentation) -> str | dict[str, Any]:
    params = augmentation.model_dump(mode="json")
    return {augmentation.name: params} if params else augmentation.name


class _ItemSchema:
    """Names, and mappings of a name to its parameters (whose schemas are flat: numbers and words)."""

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        full = [
            {
                "type": "object",
                "properties": {name: kind.model_json_schema()},
                "required": [name],
                "additionalProperties": False,
            }
            for name, kind in augmentations().items()
        ]
        return {"anyOf": [{"enum": [name for name, kind in augmentations().items() if not _required(kind)]}, *full]}


AugmentItem = Annotated[Augmentation, PlainValidator(_parsed), PlainSerializer(_written), _ItemSchema()]
"""An entry of ``data.augment`` as the spec has it; once validated, an :class:`Augmentation`."""
