"""The limits that every data set keeps, and how it says what is wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ablate.errors import Problem, UserError

Shape = tuple[int, int, int]
Images = np.ndarray[Any, np.dtype[np.uint8]]
Labels = np.ndarray[Any, np.dtype[np.int64]]
Rows = np.ndarray[Any, np.dtype[np.int64]]

MAX_SIDE = 4096
"""Pixels: the most that an image may be high or wide."""
MAX_BYTES = 8 * 2**30
"""The most that the images of one split may take in memory as uint8."""
MAX_EXAMPLES = 50_000_000
MAX_CLASSES = 100_000


def user_error(message: str, key: str = "", hint: str = "") -> UserError:
    """A problem with ``data.KEY``, or with the section. A strange file's names cannot steer the terminal."""
    return UserError(Problem(printable(message), path=f"data.{key}" if key else "data", hint=printable(hint)))


def printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def check_size(count: int, shape: tuple[int, ...], where: str, *, in_memory: bool = True) -> None:
    """``UserError`` for an empty split, and for images beyond the limits on side, number and bytes."""
    _, height, width = shape
    if count < 1:  # a damaged file may even say -1
        raise user_error(f"{where}: no examples")
    if max(height, width) > MAX_SIDE:
        raise user_error(f"{where}: images of {width}×{height} pixels; at most {MAX_SIDE}×{MAX_SIDE}")
    if count > MAX_EXAMPLES:
        raise user_error(f"{where}: {count:,} examples; at most {MAX_EXAMPLES:,}")
    if in_memory and count * math.prod(shape) > MAX_BYTES:
        raise user_error(
            f"{where}: {count:,} images of {width}×{height} pixels take "
            f"{count * math.prod(shape) / 2**30:,.1f} GiB; at most {MAX_BYTES / 2**30:g}"
        )


def check_labels(labels: np.ndarray[Any, Any], classes: int, where: str) -> None:
    """``UserError`` that names the first row (from 0) whose label is not in 0 … classes-1."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        more = f"; {len(wrong):,} such rows" if len(wrong) > 1 else ""
        raise user_error(
            f"{where}: row {wrong[0]} (from 0): label {labels[wrong[0]]} is out of range; 0 to {classes - 1}{more}"
        )


def check_every_class(labels: np.ndarray[Any, Any], names: tuple[str, ...], where: str) -> None:
    """``UserError`` that names the first class without an example."""
    absent = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
    if len(absent):
        more = f" (nor have {len(absent) - 1} more)" if len(absent) > 1 else ""
        raise user_error(
            f"{where}: class '{names[absent[0]]}' (label {absent[0]}) has no example{more}", hint="labels count from 0"
        )
