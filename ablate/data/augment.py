"""What a random change of training images is; the registry; and the grammar of ``data.augment``.

All of them act on uint8 images, before normalisation. What is random is drawn for all examples of the split at once
and looked up by example, from one stream for each augmentation. A new augmentation is one new file under
``ablate/augmentations``.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, create_model
from pydantic_core import PydanticCustomError

from ablate.code import remember
from ablate.errors import did_you_mean
from ablate.own_code import note

if TYPE_CHECKING:
    import torch


class Augmentation(BaseModel, ABC):
    """A random change of training images: ``class RandomCrop(Augmentation, name="random_crop")``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    name: ClassVar[str]
    comes_first: ClassVar[bool] = False
    """Whether it acts on the image as it is stored, and so must be the first of the list."""

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is not None:
            cls.name = name
            note(_augmentations, cls)
            remember(cls)
            _augmentations[name] = cls

    @abstractmethod
    def draw(self, count: int, stream: torch.Generator) -> torch.Tensor:
        """What is random, for each of ``count`` examples: a CPU tensor (count, …)."""

    @abstractmethod
    def apply(self, x: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """The changed images, uint8 (B, C, H, W), of the images and their draws; ``x`` is not written to."""

    def problem(self, shape: tuple[int, int, int]) -> str | None:
        """Why images of that shape (C, H, W) cannot be changed so; None where they can."""
        return None


_augmentations: dict[str, type[Augmentation]] = {}


def picked(mask: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """``one`` where ``mask``, else ``other``, of uint8 images: as torch.where, which on a CPU goes byte by byte.

    ``mask`` is bool; it and ``one`` broadcast to ``other``.
    """
    return (other * ~mask).add_(one * mask)


def augmentations() -> dict[str, type[Augmentation]]:
    """Every augmentation by name, sorted."""
    package = importlib.import_module("ablate.augmentations")
    for module in pkgutil.iter_modules(package.__path__, "ablate.augmentations."):
        importlib.import_module(module.name)
    return dict(sorted(_augmentations.items()))


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
    known = augmentations()
    if name not in known:
        hint = did_you_mean(name, known)
        raise PydanticCustomError("unknown_name", f"unknown augmentation '{name}'; {hint}")
    return known[name]


def _required(kind: type[Augmentation]) -> list[str]:
    return [name for name, field in kind.model_fields.items() if field.is_required()]


def _written(augmentation: Augmentation) -> str | dict[str, Any]:
    params = augmentation.model_dump(mode="json")
    return {augmentation.name: params} if params else augmentation.name


class _ItemSchema:
    """Names, and mappings of a name to its parameters (whose schemas are flat: numbers, words and lists of them)."""

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


def _in_order(items: list[Augmentation]) -> list[Augmentation]:
    """Two of one name would draw the same numbers from their one stream."""
    names = [item.name for item in items]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise PydanticCustomError("listed_twice", f"'{twice[0]}' is listed twice")
    late = [item.name for item in items[1:] if item.comes_first]
    if late:
        raise PydanticCustomError("listed_late", f"'{late[0]}' acts on the image as it is stored; list it first")
    return items


AugmentItem = Annotated[Augmentation, PlainValidator(_parsed), PlainSerializer(_written), _ItemSchema()]
"""An entry of ``data.augment`` as the spec has it; once validated, an :class:`Augmentation`."""

Augment = Annotated[list[AugmentItem], AfterValidator(_in_order)]

Share = Annotated[float, Field(ge=0, le=1)]


def check_range(values: list[float]) -> list[float]:
    """A list [least, most]."""
    if values[0] > values[1]:
        raise PydanticCustomError("range", f"{values} runs backwards; write [least, most]")
    return values


Positive = Annotated[float, Field(gt=0)]
AreaRange = Annotated[
    list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=2, max_length=2), AfterValidator(check_range)
]
"""[least, most] share of the image's area."""
RatioRange = Annotated[
    list[Annotated[float, Field(ge=0.01, le=100)]], Field(min_length=2, max_length=2), AfterValidator(check_range)
]
"""[least, most] of width : height."""
