"""What the figures share: the images with their classes, and what is said of those that find no room."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.explaining.per_variant import Looks
from ablate.explaining.sources import shown_class
from ablate.figures.maps import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_DOWN = 10
"""Rows of a figure; the arrays have them all."""
MOST_PANELS = 12

Made = tuple[str, str, dict[str, tuple[np.ndarray[Any, Any], str]], "Callable[[Figure], None]"]
"""Name, text, arrays with what each is, and what draws it."""


def images_of(looks: Looks) -> dict[str, tuple[np.ndarray[Any, Any], str]]:
    return {
        "images": (looks.pictures, "uint8 (images, height, width, channels)"),
        "index": (np.asarray(looks.index), f"their places in the {looks.split} split"),
        "label": (looks.labels, "their classes"),
    }


def pictures_of(looks: Looks, mark: tuple[float, float] | None = None) -> list[Picture]:
    return [
        Picture(_colors(pixels), (shown_class(looks.class_names, int(label)), f"no. {index}"), mark)
        for pixels, label, index in zip(looks.pictures, looks.labels, looks.index, strict=True)
    ]


def _colors(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Three channels, or one: of any other number the first."""
    return pixels if pixels.shape[2] in (1, 3) else pixels[..., :1]


def some(count: int, shown: int, what: str) -> str:
    return f" The first {shown} of {count} {what} are drawn; the arrays have all." if count > shown else ""


def spread(every: list[Any], most: int) -> list[Any]:
    """So many of them, from the first to the last."""
    if len(every) <= most:
        return every
    return [every[round(place)] for place in np.linspace(0, len(every) - 1, most)]
