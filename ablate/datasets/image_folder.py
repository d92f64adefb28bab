"""Image files in folders named after their classes, in ImageNet's layout: ``root/train/CLASS/*``, ``root/val/CLASS/*``.

Images are read and decoded (RGB; transparency and EXIF's orientation are left aside, as torchvision does) when a batch
asks for them, never all at once. Every file is read once to hash it; hashes are kept in the user's cache folder, and so
are decoded pixels, which change nothing but the time.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ablate.data.checks import MAX_CLASSES, MAX_EXAMPLES, user_error
from ablate.data.folder import FolderSplit, Stamp, read, stamp_of
from ablate.data.images import opened
from ablate.data.kind import DataInfo, DataSet, DataSetParams, RawData
from ablate.disk import cache_folder
from ablate.errors import listed

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
LEFT_BY_SYSTEMS = ("Thumbs.db", "desktop.ini")
FORMAT = 2
"""Of the kept hashes; raised when their meaning changes."""

UNITS = {"MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

File = tuple[str, *Stamp]
"""Name beneath the split's folder, and its stamp: size in bytes, times of writing and of change, inode."""


class ImageFolderParams(DataSetParams):
    classes: int | None = Field(
        None,
        ge=1,
        le=MAX_CLASSES,
        description="number of classes: lets check and show work where the folder is not there",
    )
    train_folder: str = Field("train", description="folder of the train split, in root; in it a folder for each class")
    test_folder: str = Field(
        "val", description="folder of the test split, in root (ImageNet calls it val); none: there is no test split"
    )
    val_folder: str = Field("none", description="folder of a val split, in root, for val: own; none: there is none")
    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=1024)] = Field(
        "auto", description="processes that decode images, for each trial; 0: its own; auto: one for each spare core"
    )
    cache: str = Field(
        "8GiB",
        pattern=r"^(none|[1-9][0-9]{0,3}(MiB|GiB|TiB))$",
        description="the most that decoded images may take on the disk, in MiB, GiB or TiB; none: none are kept",
    )
    title: str = Field("", max_length=80, description="what captions call the data; empty: the name of the folder")


class ImageFolder(DataSet, name="image_folder"):
    """Image files in folders named after their classes, in ImageNet's layout; read a batch at a time."""

    Params = ImageFolderParams
    folder = "required"
    streamed = True
    brings_val = True
    without_effect = frozenset({"classes", "workers", "cache", "title"})

    @classmethod
    def info(cls, params: ImageFolderParams, root: Path | None) -> DataInfo:
        assert root is not None
        classes = params.classes or len(_class_names(root, params.train_folder))
        return DataInfo((3, 0, 0), classes, params.val_folder != "none")

    @classmethod
    def load(cls, params: ImageFolderParams, root: Path | None, download: bool) -> RawData:
        assert root is not None
        folders = {"train": params.train_folder, "test": params.test_folder, "val": params.val_folder}
        folders = {split: folder for split, folder in folders.items() if folder != "none" or split == "train"}
        _check_apart(root, folders)
        names = _class_names(root, params.train_folder)
        if params.classes not in (None, len(names)):
            raise user_error(
                f"{params.classes} classes are stated, and {params.train_folder} has {len(names)}", "classes"
            )
        for folder in folders.values():
            _check_agrees(params.train_folder, names, folder, _class_names(root, folder))
        splits = {split: _split(root, folder, names, params) for split, folder in folders.items()}
        return RawData(splits["train"], splits.get("test"), names, params.title or root.name, splits.get("val"))


def _class_names(root: Path, folder: str) -> tuple[str, ...]:
    """The folders in a split's folder, sorted by name."""
    path = _beneath(root, root / folder, folder)
    if not path.is_dir():
        there = sorted(entry.name for entry in root.iterdir() if entry.is_dir()) if root.is_dir() else []
        missing = f"no folder '{folder}' in {root}" if root.is_dir() else f"no folder {root}"
        raise user_error(missing, "root", f"there are: {listed(there)}" if there else "")
    entries = [entry for entry in os.scandir(path) if not _is_left_by_system(entry.name)]
    stray = sorted(entry.name for entry in entries if not entry.is_dir())
    if stray:
        raise user_error(f"{folder}/{stray[0]} is no folder; {folder} has a folder for each class", "root")
    if not entries:
        raise user_error(f"{folder} is empty; a folder for each class was expected", "root")
    return tuple(sorted(entry.name for entry in entries))


def _check_apart(root: Path, folders: dict[str, str]) -> None:
    places: dict[Path, str] = {}
    for split, folder in folders.items():
        place = (root / folder).resolve()
        if place in places:
            raise user_error(f"'{folder}' is the {places[place]} split as well", f"{split}_folder")
        places[place] = split


def _check_agrees(train: str, names: tuple[str, ...], folder: str, own: tuple[str, ...]) -> None:
    for here, wanted, there in ((folder, names, own), (train, own, names)):
        missing = sorted(set(wanted) - set(there))
        if missing:
            other = train if here == folder else folder
            raise user_error(f"{here} has no folder '{missing[0]}', and {other} has ({len(missing)} such)", "root")


def _split(root: Path, folder: str, names: tuple[str, ...], params: ImageFolderParams) -> FolderSplit:
    path = str(root / folder)
    classes = {name: _files(root, path, folder, name) for name in names}
    files = [file for found in classes.values() for file in found]
    if len(files) > MAX_EXAMPLES:
        raise user_error(f"{folder}: {len(files):,} examples; at most {MAX_EXAMPLES:,}", "root")
    return FolderSplit(
        folder=path,
        names=np.array([os.fsencode(name) for name, *_ in files]),
        labels=np.repeat(np.arange(len(names)), [len(found) for found in classes.values()]).astype(np.int64),
        places=np.arange(len(files)),
        stamps=np.array([stamp for _, *stamp in files], dtype=np.int64),
        digest=_digest(path, classes),
        workers=None if params.workers == "auto" else params.workers,
        cache=_bytes(params.cache),
    )


def _bytes(size: str) -> int:
    """``none`` → 0, ``8GiB`` → 8 · 2³⁰."""
    return 0 if size == "none" else int(size[:-3]) * UNITS[size[-3:]]


def _files(root: Path, path: str, folder: str, name: str) -> list[File]:
    """The images of one class, sorted by name."""
    _beneath(root, Path(path, name), f"{folder}/{name}")
    found: list[File] = []
    for entry in sorted(os.scandir(os.path.join(path, name)), key=lambda entry: entry.name):
        where = f"{folder}/{name}/{entry.name}"
        if _is_left_by_system(entry.name):
            continue
        if not entry.name.lower().endswith(SUFFIXES) or not entry.is_file():
            raise user_error(f"{where} is no image file ({', '.join(SUFFIXES)})", "root")
        if entry.is_symlink():
            _beneath(root, Path(entry.path), where)
        found.append((f"{name}/{entry.name}", *stamp_of(entry.stat())))
    if not found:
        raise user_error(f"class '{name}' has no example in {folder}", "root")
    return found


def _beneath(root: Path, path: Path, where: str) -> Path:
    """The path, if it is in root, links followed."""
    if not where.isprintable() or not path.resolve().is_relative_to(root.resolve()):
        raise user_error(f"{where!r} leads out of root", "root")
    return path


def _is_left_by_system(name: str) -> bool:
    return name.startswith(".") or name in LEFT_BY_SYSTEMS


def _digest(path: str, classes: dict[str, list[File]]) -> str:
    """SHA-256 of all names and bytes. A class is read again when a name, a size or a time in it has changed."""
    place = _cache_file(path)
    kept, now = _kept(place), {}
    for name, files in classes.items():
        listing = hashlib.sha256(json.dumps([FORMAT, files]).encode()).hexdigest()
        digest = kept[name][1] if name in kept and kept[name][0] == listing else _class_digest(path, files)
        now[name] = [listing, digest]
    if now != kept:
        _keep(place, now)
    whole = hashlib.sha256()
    for name, (_, digest) in now.items():
        whole.update(f"{name}\0{digest}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()


def _class_digest(path: str, files: list[File]) -> str:
    """Of one class's files; each must have an image's header."""
    digest = hashlib.sha256()
    for name, content in _contents(path, files):
        opened(content, name)
        digest.update(os.fsencode(name) + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest()


def _contents(path: str, files: list[File]) -> Iterator[tuple[str, bytes]]:
    for name, *_ in files:
        yield name, read(path, name)


def _cache_file(path: str) -> Path:
    return cache_folder("digests") / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}.json"


def _kept(place: Path) -> dict[str, list[str]]:
    """Class → listing, digest; nothing where nothing was kept or what was kept is damaged."""
    try:
        kept = json.loads(place.read_text())
    except (OSError, ValueError):
        return {}
    whole = isinstance(kept, dict) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(part, str) for part in pair)
        for pair in kept.values()
    )
    return kept if whole else {}


def _keep(place: Path, digests: dict[str, list[str]]) -> None:
    # A cache that cannot be written costs time and nothing else.
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=place.parent)
        with os.fdopen(handle, "w") as file:
            json.dump(digests, file)
        os.replace(temporary, place)
