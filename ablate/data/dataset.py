"""From ``data:`` in a spec to examples.

Order of work: the data set's own train and test images → ``size`` → ``val`` is held out of train, stratified by its own
seed → ``limit`` keeps a class-balanced part of each → the statistics of ``normalize: dataset`` are counted on
the train images that are left.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ablate.data.checks import Images, check_labels, check_size, printable, user_error
from ablate.data.checks import Shape as Shape
from ablate.data.fields import DataFields as DataFields
from ablate.data.fields import HeldOutFraction, HeldOutSize, Limit, Normalization
from ablate.data.grammar import DataSpec as DataSpec
from ablate.data.kind import DataInfo as DataInfo
from ablate.data.kind import DataSet as DataSet
from ablate.data.kind import DataSetParams as DataSetParams
from ablate.data.kind import RawData as RawData
from ablate.data.kind import find as find
from ablate.data.kind import registry as registry
from ablate.data.splits import Examples as Examples
from ablate.data.splits import Split as Split
from ablate.data.subsets import content_hash, hold_out, limited, mean_and_std, sample
from ablate.errors import Problem, UserError

SAMPLE = 1024
"""Images of a streamed split that its mean and standard deviation are counted on."""


@dataclass(frozen=True, eq=False)
class ImageData:
    """The examples that a study trains and evaluates on. Pickles; arrays may be read-only.

    ``mean`` and ``std`` are per channel, in units of 1 (pixel/255): what ``normalize`` came to, 0 and 1 for none.
    ``content_hash`` is of all splits after ``size``, ``val`` and ``limit``; ``description`` is for captions.
    """

    train: Examples
    val: Examples | None
    test: Examples | None
    classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    content_hash: str
    description: str

    @property
    def input_shape(self) -> Shape:
        """(C, H, W)"""
        return self.train.shape

    @property
    def nbytes(self) -> int:
        """Bytes that the splits take in memory."""
        return sum(split.nbytes for split in (self.train, self.val, self.test) if split is not None)


def shape_of(spec: DataSpec, *, base: Path = Path(), trusted_root: bool = False) -> tuple[Shape, int]:
    """(C, H, W) and the number of classes, without reading the images where the data set knows them.

    ``base`` and ``trusted_root`` as in :func:`load`; ``UserError`` for what the spec's author can fix.
    """
    info = spec.data_set.info(spec.params, root_of(spec, base, trusted_root))
    shape = info.shape if spec.size is None else (info.shape[0], spec.size[0], spec.size[1])
    _check_shape(spec, shape)
    _check_own_val(spec, info.val)
    return shape, info.classes


def load(spec: DataSpec, *, base: Path, seed: int = 0, trusted_root: bool = False) -> ImageData:
    """The examples of a spec's ``data:``.

    ``base`` is the spec's folder: a relative ``root`` starts there and must stay beneath it, unless the command
    line named the root (``trusted_root``). ``seed`` decides which examples ``limit`` keeps; it is
    the study's, not a trial's. ``UserError`` for what the spec's author can fix.
    """
    raw = spec.data_set.load(spec.params, root_of(spec, base, trusted_root), spec.download)
    names = raw.class_names
    splits = _published(spec, raw)
    _check_shape(spec, splits["train"].shape)
    _check_own_val(spec, raw.val is not None)
    if isinstance(spec.val, HeldOutSize | HeldOutFraction):
        train, size = splits["train"], _held_out_size(spec.val, len(splits["train"]))
        left, held = hold_out(train.labels, size, spec.val.seed, names)
        splits["train"], splits["val"] = train.take(left), train.take(held)
    whole = {name: len(split) for name, split in splits.items()}
    wanted = {name: count for name, count in (spec.limit or Limit()).model_dump().items() if count is not None}
    splits = limited(splits, wanted, names, seed)
    mean, std = _mean_and_std(spec, splits["train"])
    _make_read_only(splits)
    source = raw.source if spec.size is None else f"{raw.source}, {spec.size[1]}×{spec.size[0]} pixels"
    description = _description(spec.name, source, splits, whole)
    val, test = splits.get("val"), splits.get("test")
    return ImageData(splits["train"], val, test, len(names), names, mean, std, content_hash(splits), description)


def _published(spec: DataSpec, raw: RawData) -> dict[str, Examples]:
    """The data set's splits by name, checked, in the size asked for."""
    found = {"train": raw.train, "val": raw.val, "test": raw.test}
    splits: dict[str, Examples] = {}
    for name, split in found.items():
        if split is None:
            continue
        where = f"{spec.name}, {name}"
        height, width = spec.size or split.shape[1:]
        # before anything is resized, and so before the memory is taken
        check_size(len(split), (split.shape[0], height, width), where, in_memory=isinstance(split, Split))
        check_labels(split.labels, len(raw.class_names), where)
        splits[name] = split.resized((height, width)) if spec.size else split
    return splits


def root_of(spec: DataSpec, base: Path, trusted_root: bool = False) -> Path | None:
    """The folder that a data set's files are in; None where it reads no folder."""
    if spec.data_set.folder == "none":
        return None
    if spec.root is None:
        return Path(os.environ.get("ABLATE_DATA") or "~/.cache/ablate/data").expanduser()
    if not spec.root or not spec.root.isprintable():
        raise user_error(f"{spec.root!r} is no folder's name", "root")
    try:
        root = (base / Path(spec.root).expanduser()).resolve()
    except (RuntimeError, OSError) as error:  # ~ of an unknown user, a loop of links
        raise user_error(f"'{spec.root}' leads nowhere: {error}", "root") from None
    if not trusted_root and not root.is_relative_to(base.resolve()):
        raise user_error(
            f"'{spec.root}' is outside the spec's folder",
            "root",
            "a spec may read only beneath itself; name the folder on the command line",
        )
    return root


def _check_shape(spec: DataSpec, shape: Shape) -> None:
    """``UserError`` for a normalization and augmentations that do not fit images of that shape."""
    wrong = [
        Problem(problem, path=f"data.augment.{index}.{augmentation.name}")
        for index, augmentation in enumerate(spec.augment)
        if (problem := augmentation.problem(shape))
    ]
    if isinstance(spec.normalize, Normalization):
        lengths = {"mean": len(spec.normalize.mean), "std": len(spec.normalize.std)}
        wrong += [
            Problem(f"{length} number(s) for images of {shape[0]} channel(s)", path=f"data.normalize.{key}")
            for key, length in lengths.items()
            if length != shape[0]
        ]
    if wrong:
        raise UserError(wrong)


def _check_own_val(spec: DataSpec, brings_val: bool) -> None:
    """A validation split that a data set brings is used, and used knowingly: ``val: own`` says so."""
    if brings_val and spec.val != "own":
        raise user_error(f"'{spec.name}' brings a val split of its own here", "val", "write val: own")
    if spec.val == "own" and not brings_val:
        raise user_error(f"'{spec.name}' brings no val split here", "val", "write a fraction (0.2) or {size: …}")


def _held_out_size(how: HeldOutSize | HeldOutFraction, count: int) -> int:
    return how.size if isinstance(how, HeldOutSize) else round(how.fraction * count)


def _mean_and_std(spec: DataSpec, train: Examples) -> tuple[tuple[float, ...], tuple[float, ...]]:
    channels = train.shape[0]
    if isinstance(spec.normalize, Normalization):
        return tuple(spec.normalize.mean), tuple(spec.normalize.std)
    if spec.normalize == "none":
        return (0.0,) * channels, (1.0,) * channels
    mean, std = mean_and_std(_pixels(train))
    constant = [channel for channel, value in enumerate(std) if value == 0]
    if constant:
        raise user_error(
            f"channel {constant[0]} is the same in every pixel of train: it cannot be divided by its "
            "standard deviation",
            "normalize",
            "write none, or {mean: [...], std: [...]}",
        )
    return tuple(mean), tuple(std)


def _pixels(train: Examples, rows: int = 1024) -> Iterator[Images]:
    """All images of a split in memory, a part at a time; a sample of a streamed one."""
    if isinstance(train, Split):
        yield from (train.images[start : start + rows] for start in range(0, len(train), rows))
    else:
        chosen = sample(len(train), SAMPLE, "normalize")
        yield from train.stream(np.array_split(chosen, -(-len(chosen) // 64)))


def _make_read_only(splits: Mapping[str, Examples]) -> None:
    for split in splits.values():
        split.labels.setflags(write=False)
        if isinstance(split, Split):
            split.images.setflags(write=False)


def _description(name: str, source: str, splits: Mapping[str, Examples], whole: Mapping[str, int]) -> str:
    def size(split: str) -> str:
        kept, all_ = len(splits[split]), whole[split]
        return f"{kept:,} of {all_:,} {split}" if kept < all_ else f"{kept:,} {split}"

    sizes = ", ".join(size(split) for split in ("train", "val", "test") if split in splits)
    return printable(f"{name} ({source}): {sizes}")
