"""Arrays that a Python program holds: ``ablate.load({..., "data": {"name": "arrays"}}, data={...})``.

They are known by their content: the hash is written into the spec, so that a variant is what its images are, and a
study that is resumed is resumed with the same images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ablate.data.checks import check_every_class, check_labels, check_size, user_error
from ablate.data.kind import DataInfo, DataSet, DataSetParams, RawData
from ablate.data.splits import Split

SPLITS = ("train", "val", "test")
_held: dict[str, RawData] = {}
"""The arrays of this process, by content."""


class ArraysParams(DataSetParams):
    content: str = Field("", description="hash of the arrays; ablate.load writes it")


class Arrays(DataSet, name="arrays"):
    """Arrays that a Python program holds and hands to ablate.load(…, data=…)."""

    Params = ArraysParams
    brings_val = True

    @classmethod
    def info(cls, params: ArraysParams, root: Path | None) -> DataInfo:
        raw = _of(params)
        return DataInfo(raw.train.shape, len(raw.class_names), raw.val is not None)

    @classmethod
    def load(cls, params: ArraysParams, root: Path | None, download: bool) -> RawData:
        return _of(params)


def _of(params: ArraysParams) -> RawData:
    if params.content in _held:
        return _held[params.content]
    hint = 'ablate.load(spec, data={"train": (images, labels), "test": (images, labels)})'
    if params.content:
        raise user_error("the arrays of this spec are not in this process", "content", f"hand them over again: {hint}")
    raise user_error("'arrays' are handed over by a Python program, and there are none here", "name", hint)


def hold(data: Mapping[str, Any]) -> str:
    """Keep arrays for the life of this process; their ``content``, by which a spec knows them.

    ``data``: ``train`` and, as there are, ``val`` and ``test`` → (images, labels); ``classes`` → names, by default the
    numbers of the labels. Images are uint8 (N, C, H, W), (N, H, W, C) or (N, H, W), labels whole numbers (N,), of numpy
    or torch. ``UserError`` for anything else.
    """
    unknown = [str(key) for key in data if key not in (*SPLITS, "classes")]
    if unknown or "train" not in data:
        problem = f"unknown key '{unknown[0]}' in data=" if unknown else "no 'train' in data="
        raise user_error(problem, hint="its keys: train, val, test → (images, labels); classes → names")
    splits = {name: _split(data[name], name) for name in SPLITS if name in data}
    names = _class_names(data.get("classes"), splits)
    if len({split.shape for split in splits.values()}) > 1:
        shapes = ", ".join(f"{name} {split.shape}" for name, split in splits.items())
        raise user_error(f"the images of the splits differ in shape (C, H, W): {shapes}")
    content = _content(splits, names)
    _held[content] = RawData(splits["train"], splits.get("test"), names, "arrays", splits.get("val"))
    return content


def _content(splits: Mapping[str, Split], names: tuple[str, ...]) -> str:
    digest = hashlib.sha256(repr(names).encode())
    for name, split in splits.items():
        digest.update(f"{name} {(len(split), *split.shape)};".encode())
        split.feed(digest)
    return digest.hexdigest()[:32]


def _split(pair: Any, name: str) -> Split:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise user_error(f"{name}: a pair (images, labels) was expected, not {type(pair).__name__}")
    images, labels = (np.asarray(part.detach().cpu() if hasattr(part, "detach") else part) for part in pair)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise user_error(
            f"{name}: images are {images.dtype} {images.shape}; "
            "uint8 (N, C, H, W), (N, H, W, C) or (N, H, W) was expected",
            hint="pixels from 0 to 255, not normalised: data.normalize does that",
        )
    if labels.dtype.kind not in "iu" or labels.shape != images.shape[:1]:
        raise user_error(
            f"{name}: labels are {labels.dtype} {labels.shape} for {len(images):,} images; "
            "whole numbers, one for each image, were expected"
        )
    images = _channels_first(images)
    check_size(len(images), images.shape[1:], name)
    # copies: what the program does to its arrays afterwards changes no study
    return Split(np.array(images, order="C"), labels.astype(np.int64))


def _channels_first(images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(N, C, H, W). Channels are last where the last axis is 1, 3 or 4 long and the second is not."""
    if images.ndim == 3:
        return images[:, None]
    likely = (1, 3, 4)
    if images.shape[3] in likely and images.shape[1] <= max(likely):
        raise user_error(
            f"images of shape {images.shape}: is the second axis the channels, or the last?",
            "",
            "hand over (N, C, H, W) of at least 5 pixels across, or (N, H, W)",
        )
    return images.transpose(0, 3, 1, 2) if images.shape[3] in likely and images.shape[1] not in likely else images


def _class_names(given: Any, splits: Mapping[str, Split]) -> tuple[str, ...]:
    most = max(int(split.labels.max(initial=0)) for split in splits.values())
    names = tuple(str(name) for name in (range(most + 1) if given is None else given))
    if len(set(names)) < len(names):
        raise user_error("two classes have one name")
    for name, split in splits.items():
        check_labels(split.labels, len(names), name)
    check_every_class(splits["train"].labels, names, "train")
    return names
