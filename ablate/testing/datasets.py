"""What a data set promises, as rules that can each be broken."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from ablate.data.kind import DataInfo, DataSet, RawData
from ablate.data.splits import Examples
from ablate.errors import UserError
from ablate.testing.rules import ContractError, broken_of

FEW = 7
"""Examples that are looked at, from each end."""


@dataclass(frozen=True)
class DataCase:
    """One data set with its parameters."""

    kind: type[DataSet]
    given: dict[str, Any]
    root: Path | None
    download: bool

    def __str__(self) -> str:
        return f"({', '.join(f'{key}={value!r}' for key, value in self.given.items())})"

    @property
    def params(self) -> Any:
        return self.kind.Params(**self.given)

    @cached_property
    def info(self) -> DataInfo:
        return self.kind.info(self.params, self.root)

    @cached_property
    def raw(self) -> RawData:
        return self.kind.load(self.params, self.root, self.download)

    @property
    def splits(self) -> dict[str, Examples]:
        every = {"train": self.raw.train, "val": self.raw.val, "test": self.raw.test}
        return {name: split for name, split in every.items() if split is not None}


def check_dataset(
    kind: type[DataSet],
    *,
    params: Sequence[Mapping[str, Any]] = ({},),
    root: str | Path | None = None,
    download: bool = False,
) -> None:
    """Hold a data set to its contract; ``ContractError`` names every rule that is broken.

    It is loaded, twice, with each of ``params`` from ``root``. The rules: unknown parameters are refused; ``info``
    says what is loaded; images are uint8 (N, C, H, W), labels whole numbers of the classes, and train has examples of
    each; loading is the same each time and draws nothing from the global streams; splits pickle, and give a copy of
    what they hold; a folder that is not there is refused by ``UserError``.
    """
    broken = list(_strict(kind))
    for given in params:
        case = DataCase(kind, dict(given), Path(root) if root is not None else None, download)
        broken += [f"{case}: {said}" for said in list(broken_of([_loads], case)) or broken_of(RULES, case)]
    if broken:
        raise ContractError(f"data set '{getattr(kind, 'name', kind.__name__)}'", broken)


def _strict(kind: type[DataSet]) -> Iterator[str]:
    if not getattr(kind, "name", None):
        yield f'it has no name: class {kind.__name__}(DataSet, name="…")'
    try:
        kind.Params.model_validate({"no_such_parameter": 1})
    except ValidationError:
        pass
    else:
        yield "Params does not refuse an unknown parameter"
    fields = kind.Params.model_fields
    yield from (f"parameter '{name}' has no description" for name, field in fields.items() if not field.description)
    unknown = sorted(kind.without_effect - fields.keys())
    yield from (f"without_effect names '{name}', which is no parameter" for name in unknown)


def _loads(case: DataCase) -> Iterator[str]:
    if len(case.raw.train) == 0:
        yield "train has no examples"


def info_says_what_is_loaded(case: DataCase) -> Iterator[str]:
    info, raw = case.info, case.raw
    if len(raw.class_names) != info.classes:
        yield f"info says {info.classes} classes, and {len(raw.class_names)} names are loaded"
    if len(set(raw.class_names)) != len(raw.class_names) or not all(isinstance(n, str) and n for n in raw.class_names):
        yield "the classes' names are not distinct texts"
    for name, split in case.splits.items():
        if not case.kind.streamed and tuple(split.shape) != tuple(info.shape):
            yield f"info says images of {info.shape}, and {name} has {tuple(split.shape)}"
    if info.val != (raw.val is not None):
        yield "info says otherwise than what is loaded whether there is a validation split"
    if raw.val is not None and not case.kind.brings_val:
        yield "it brings a validation split, and brings_val is not set"
    if not isinstance(raw.source, str) or not raw.source.strip():
        yield "source says nothing of where the images come from"


def images_and_labels_are_whole(case: DataCase) -> Iterator[str]:
    for name, split in case.splits.items():
        labels = split.labels
        if labels.dtype != np.int64 or labels.shape != (len(split),):
            yield f"{name}: labels are {labels.dtype} {labels.shape}, and not int64 ({len(split)},)"
            continue
        if ((labels < 0) | (labels >= case.info.classes)).any():
            yield f"{name}: labels are not all in 0 … {case.info.classes - 1}"
        elif name == "train" and (absent := np.flatnonzero(np.bincount(labels, minlength=case.info.classes) == 0)).size:
            yield f"train has no example of class {absent[0]}"
        if case.kind.streamed:
            continue
        rows = _few(split)
        images = split.batch(rows)
        if images.dtype != np.uint8 or images.shape != (len(rows), *split.shape):
            yield f"{name}: images are {images.dtype} {images.shape}, and not uint8 {(len(rows), *split.shape)}"


def _few(split: Examples) -> np.ndarray[Any, np.dtype[np.int64]]:
    count = len(split)
    return np.unique(np.concatenate([np.arange(min(FEW, count)), np.arange(max(0, count - FEW), count)])).astype(
        np.int64
    )


def loads_the_same_each_time(case: DataCase) -> Iterator[str]:
    numpy_before, torch_before = np.random.get_state(), torch.get_rng_state()
    again = case.kind.load(case.params, case.root, case.download)
    if not torch.equal(torch.get_rng_state(), torch_before) or str(np.random.get_state()) != str(numpy_before):
        yield "loading draws from torch's or numpy's global stream"
    others = {"train": again.train, "val": again.val, "test": again.test}
    for name, split in case.splits.items():
        other = others[name]
        if other is None or _digest(split) != _digest(other):
            yield f"{name} is another when it is loaded again"
    if case.raw.class_names != again.class_names:
        yield "the classes have other names when it is loaded again"


def _digest(split: Examples) -> str:
    digest = hashlib.sha256()
    split.feed(digest)
    return digest.hexdigest()


def splits_pickle_and_copy(case: DataCase) -> Iterator[str]:
    for name, split in case.splits.items():
        before = _digest(split)
        if _digest(pickle.loads(pickle.dumps(split))) != before:
            yield f"{name}: a pickle of it holds something else"
        if case.kind.streamed:
            continue
        images = split.batch(_few(split))
        images[...] = 255 - images
        if _digest(split) != before:
            yield f"{name}: batch() gives no copy: what is done to a batch is done to the data set"


def a_missing_folder_is_said(case: DataCase) -> Iterator[str]:
    if case.kind.folder != "required":
        return
    nowhere = Path("no-such-folder-of-any-data-set")
    for what in (case.kind.info, lambda params, root: case.kind.load(params, root, False)):
        try:
            what(case.params, nowhere)
        except UserError:
            continue
        except Exception as error:
            yield f"a folder that is not there raises {type(error).__name__}, and not UserError"


RULES = (
    info_says_what_is_loaded,
    images_and_labels_are_whole,
    loads_the_same_each_time,
    splits_pickle_and_copy,
    a_missing_folder_is_said,
)
