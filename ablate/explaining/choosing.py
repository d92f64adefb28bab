"""Which images are looked at: by number, by class, where two variants disagree; else the first of each class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveInt

from ablate.errors import Problem, UserError, did_you_mean

Of = Literal["true", "predicted"]
SplitName = Literal["test", "val"]
MOST_IMAGES = 64
LONGEST_LIST = 5


class Wanted(BaseModel):
    """What somebody wants to see; what is left open is chosen by rule, so that the same is chosen again."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    images: tuple[int, ...] = ()
    """Their places in the split, from 0; all others of these choices then have no say."""
    of_class: str | None = None
    """A class by its name, or by its number."""
    disagree: tuple[str, str] | None = None
    """Two variants: images that they take for different classes."""
    count: PositiveInt = 5
    split: SplitName = "test"
    variants: tuple[str, ...] = ()
    seed: int | None = None
    nodes: tuple[str, ...] = ()
    """Patterns: which nodes' attention and gates; without any, those of all."""
    layer: str | None = None
    """The place whose output Grad-CAM reads, in every variant; else the last map before the pooling."""
    of: Of = "true"
    """The class that Grad-CAM explains: the image's own, or the one that the variant predicts."""
    pixels: tuple[tuple[int, int], ...] = ()
    """Row and column in the image, of whose attention maps are made; else the middle, and the upper left quarter's."""


def chosen_images(
    wanted: Wanted, labels: np.ndarray[Any, Any], names: Sequence[str], predicted: Mapping[str, np.ndarray[Any, Any]]
) -> list[int]:
    """Their numbers, in order. ``predicted``: by variant, the classes that it took all of the split's images for."""
    if wanted.images:
        return _named(wanted.images, len(labels))
    kept = np.ones(len(labels), dtype=bool)
    if wanted.of_class is not None:
        kept &= labels == class_number(wanted.of_class, names)
    if wanted.disagree is not None:
        first, second = (predicted[name] for name in wanted.disagree)
        kept &= first != second
    found = [int(index) for index in np.flatnonzero(kept)]
    if not found:
        raise UserError(f"no image of the {wanted.split} split is {_said(wanted)}")
    if wanted.of_class is None:
        found = list(_class_by_class(found, labels))
    return found[: min(wanted.count, MOST_IMAGES)]


def _named(images: tuple[int, ...], count: int) -> list[int]:
    for index in images:
        if not 0 <= index < count:
            raise UserError(f"image {index}: the split has {count:,}, numbered from 0 to {count - 1:,}")
    if len(images) > MOST_IMAGES:
        raise UserError(f"{len(images)} images: at most {MOST_IMAGES} are drawn")
    return list(dict.fromkeys(images))


def class_number(text: str, names: Sequence[str]) -> int:
    """The class of that name, or else of that number."""
    if text in names:
        return list(names).index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    raise UserError(
        Problem(f"no class '{text}'; there are {len(names)}", hint=did_you_mean(text, names[:1000]) or "0, 1, …")
    )


def _said(wanted: Wanted) -> str:
    said = [f"of class '{wanted.of_class}'"] if wanted.of_class is not None else []
    if wanted.disagree is not None:
        said.append(f"taken for different classes by '{wanted.disagree[0]}' and '{wanted.disagree[1]}'")
    return " and ".join(said)


def _class_by_class(found: list[int], labels: np.ndarray[Any, Any]) -> Iterator[int]:
    """The first of each class in the order of the split, then the second of each, and so on."""
    rounds: dict[int, int] = {}
    keyed = []
    for index in found:
        label = int(labels[index])
        rounds[label] = rounds.get(label, -1) + 1
        keyed.append((rounds[label], index))
    return (index for _, index in sorted(keyed))
