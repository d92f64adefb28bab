"""Arrays in one .npz file, under the names of MedMNIST: Yang et al., 2023 (arXiv:2110.14795).

``train_images``, ``test_images`` and, where there is one, ``val_images``: uint8 (N, H, W) or (N, H, W, C);
``train_labels`` and so on: whole numbers from 0, (N, 1) or (N,).
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ablate.data.checks import MAX_BYTES, MAX_CLASSES, Shape, check_every_class, check_labels, check_size, user_error
from ablate.data.images import first_line
from ablate.data.kind import DataInfo, DataSet, DataSetParams, RawData
from ablate.data.splits import Split
from ablate.disk import UNREADABLE
from ablate.errors import UserError, listed


class NpzParams(DataSetParams):
    file: str = Field(description="the .npz file, in root")
    title: str = Field("", max_length=80, description="what captions call the data; empty: the name of the file")


class Npz(DataSet, name="npz"):
    """Arrays in one .npz file, under the names of MedMNIST; a val split in it is used by val: own."""

    Params = NpzParams
    folder = "required"
    brings_val = True
    without_effect = frozenset({"title"})

    @classmethod
    def info(cls, params: NpzParams, root: Path | None) -> DataInfo:
        assert root is not None
        with _File(root, params.file) as file:
            return DataInfo(file.shape("train"), file.classes(), "val" in file.splits)

    @classmethod
    def load(cls, params: NpzParams, root: Path | None, download: bool) -> RawData:
        assert root is not None
        with _File(root, params.file) as file:
            names = tuple(str(label) for label in range(file.classes()))
            found = {name: file.split(name) for name in file.splits}
        check_every_class(found["train"].labels, names, f"{params.file}, train_labels")
        for name, split in found.items():
            check_labels(split.labels, len(names), f"{params.file}, {name}_labels")
        source = params.title or Path(params.file).stem
        return RawData(found["train"], found.get("test"), names, source, found.get("val"))


class _File:
    """An open .npz file. Whatever is wrong with it is a ``UserError`` that names it. No pickle is ever opened."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        path = _path_of(root, name)
        with self._readable():
            self.archive = zipfile.ZipFile(path)
        self.arrays = {entry.removesuffix(".npy") for entry in self.archive.namelist()}
        halves = {split: [f"{split}_{half}" in self.arrays for half in ("images", "labels")] for split in _SPLITS}
        self.splits = [split for split, found in halves.items() if any(found)]
        wanted = [f"{split}_{half}" for split in {"train": 0, **dict.fromkeys(self.splits)} for half in _HALVES]
        missing = [array for array in wanted if array not in self.arrays]
        if missing:
            raise user_error(f"{name}: no array '{missing[0]}'; it has: {listed(sorted(self.arrays))}", "file")

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self.archive.close()

    def shape(self, split: str) -> Shape:
        """(C, H, W), from the header of the images."""
        dims, kind = self._header(f"{split}_images")
        if kind != np.uint8 or len(dims) not in (3, 4):
            raise user_error(
                f"{self.name}: {split}_images is {kind} {dims}; uint8 (N, H, W) or (N, H, W, C) was expected", "file"
            )
        return (dims[3] if len(dims) == 4 else 1), dims[1], dims[2]

    def classes(self) -> int:
        """One more than the largest label of any split."""
        most = max(int(self.labels(split).max(initial=0)) for split in self.splits)
        if most >= MAX_CLASSES:
            raise user_error(f"{self.name}: label {most} is out of range; at most {MAX_CLASSES:,} classes", "file")
        return most + 1

    def labels(self, split: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        name = f"{split}_labels"
        dims, kind = self._header(name)
        if len(dims) == 2 and dims[1] > 1:
            raise user_error(
                f"{self.name}: {name} is {dims}: {dims[1]} labels for each image; a network here "
                "learns one class of each",
                "file",
            )
        if len(dims) not in (1, 2) or kind.kind not in "iu":
            raise user_error(
                f"{self.name}: {name} is {kind} {dims}; whole numbers (N, 1) or (N,) were expected", "file"
            )
        return self._read(name).astype(np.int64).ravel()

    def split(self, name: str) -> Split:
        shape, labels = self.shape(name), self.labels(name)
        count = self._header(f"{name}_images")[0][0]
        if count != len(labels):
            raise user_error(f"{self.name}: {count:,} {name}_images and {len(labels):,} {name}_labels", "file")
        check_size(count, shape, f"{self.name}, {name}_images")
        images = self._read(f"{name}_images")
        images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        return Split(np.ascontiguousarray(images), labels)

    def _header(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of an array, without its numbers."""
        with self._readable(), self.archive.open(f"{name}.npy") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            dims, _, kind = read(file)
        return dims, kind

    def _read(self, name: str) -> np.ndarray[Any, Any]:
        dims, kind = self._header(name)
        if math.prod(dims) * kind.itemsize > MAX_BYTES:
            raise user_error(f"{self.name}: {name} is larger than {MAX_BYTES / 2**30:g} GiB", "file")
        with self._readable(), self.archive.open(f"{name}.npy") as file:
            array: np.ndarray[Any, Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except UNREADABLE as error:
            raise user_error(f"{self.name}: no .npz file, or damaged: {first_line(error)}", "file") from error


_SPLITS, _HALVES = ("train", "val", "test"), ("images", "labels")


def _path_of(root: Path, name: str) -> Path:
    path = root / name
    if not name.isprintable() or not path.resolve().is_relative_to(root.resolve()):
        raise user_error(f"{name!r} is not in root", "file")
    if not path.is_file():
        there = sorted(entry.name for entry in root.glob("*.npz")) if root.is_dir() else []
        missing = f"no file '{name}' in {root}" if root.is_dir() else f"no folder {root}"
        raise user_error(missing, "file" if root.is_dir() else "root", f"there are: {listed(there)}" if there else "")
    return path
