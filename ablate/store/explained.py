"""What was drawn of a study's networks, in its folder: pictures, arrays, and a record of all that is written last.

explained/
  explanation.json   what was looked at and how, and the sha256 of the other files
  NAME.svg, NAME.png, NAME.npz
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Required

from typing_extensions import TypedDict

from ablate.disk import is_leftover, write, write_json, writing
from ablate.errors import Problem, UserError
from ablate.store.layout import EXPLAINED, FORMAT, is_name
from ablate.store.records import check_record, content_of, sealed
from ablate.store.schemas import Finite, wrong_with

RECORD = "explanation.json"
_MOST_BYTES, _LARGEST_PICTURE = 1 << 30, 1 << 26
"""Of a file, and of one that a page shows."""


ImageRecord = TypedDict("ImageRecord", {"index": int, "label": int, "class": str})


class LookedRecord(TypedDict, total=False):
    name: Required[str]
    layer: str | None


class ReducedRecord(TypedDict, total=False):
    """How a gate comes out by one reduction ratio; ``explaining.reducing`` says what the numbers are."""

    node: Required[str]
    variant: Required[str]
    reduction: Required[int]
    part: Required[str]
    mean: Required[Finite]
    across: Required[Finite]
    across_images: Required[Finite]
    images: Required[int]
    hidden: int | None
    silent: int | None
    weight: Finite | None


class FigureRecord(TypedDict, total=False):
    name: Required[str]
    text: Required[str]


class ExplanationRecord(TypedDict, total=False):
    """``explanation.json``, as far as anything is shown of it."""

    split: Required[str]
    seed: Required[int]
    chosen: Required[str]
    images: Required[list[ImageRecord]]
    variants: Required[list[LookedRecord]]
    left_out: Required[dict[str, str]]
    reductions: Required[list[ReducedRecord]]
    figures: Required[list[FigureRecord]]
    files: Required[dict[str, str]]


@dataclass(frozen=True)
class Explained:
    """The record, the pictures (SVG) by name whose files are sound, and what is damaged: a file → why."""

    record: dict[str, Any]
    pictures: dict[str, bytes]
    damaged: dict[str, str]


def save_explained(study: Path, record: Mapping[str, Any], files: Mapping[str, bytes]) -> list[Path]:
    """Write ``explained/``, in the place of what was there; the record's path comes first.

    Errors (UserError): no name of a file; the folder is a link elsewhere; it can't be written.
    """
    folder = study / EXPLAINED
    for name in files:
        if not is_name(name) or name == RECORD:
            raise UserError(f"{name!r} cannot name a file of an explanation")
    if folder.is_symlink():
        raise UserError(Problem(f"{folder} is a link: an explanation is not written elsewhere", hint="remove it"))
    with writing(folder):
        folder.mkdir(exist_ok=True)
        (folder / RECORD).unlink(missing_ok=True)  # it is of other files from here on
        for name in os.listdir(folder):
            if name not in files and (is_leftover(name) or Path(name).suffix in (".svg", ".png", ".npz")):
                with suppress(IsADirectoryError, PermissionError):
                    (folder / name).unlink()
    for name, content in files.items():
        write(folder / name, content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    write_json(folder / RECORD, sealed({"format": FORMAT, **record, "files": digests}))
    return [folder / RECORD, *(folder / name for name in files)]


def read_explained(study: Path, *, whole: bool = False) -> Explained | None:
    """What ``save_explained`` wrote; None where nothing is. A damaged record has no pictures.

    ``whole``: every file is read, and not the pictures alone.

    Errors (UserError): it is of a later ``ablate``.
    """
    folder = study / EXPLAINED
    if folder.is_symlink() or not os.path.lexists(folder / RECORD):
        return None
    where = f"{EXPLAINED}/{RECORD}"
    try:
        record = check_record(folder / RECORD)
    except (OSError, ValueError) as error:
        return Explained({}, {}, {where: str(error)})
    if wrong := wrong_with(record, ExplanationRecord):
        return Explained({}, {}, {where: wrong})
    files: dict[str, str] = record["files"]
    if not all(is_name(name) for name in files):
        return Explained({}, {}, {where: "it lists what can be no file"})
    pictures: dict[str, bytes] = {}
    damaged: dict[str, str] = {}
    for name, digest in files.items():
        if not (whole or name.endswith(".svg")):
            continue
        try:
            content = content_of(folder / name, _LARGEST_PICTURE if name.endswith(".svg") else _MOST_BYTES)
            if hashlib.sha256(content).hexdigest() != digest:
                raise OSError("it is not as it was written")
        except OSError as error:
            damaged[f"{EXPLAINED}/{name}"] = error.strerror or str(error)
            continue
        if name.endswith(".svg"):
            pictures[name.removesuffix(".svg")] = content
    return Explained(record, pictures, damaged)
