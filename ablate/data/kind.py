"""What a data set is, and the registry of data sets. A new data set is one new file under ``ablate/datasets``."""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from ablate.code import remember
from ablate.data.checks import Shape
from ablate.data.fields import DataFields
from ablate.data.splits import Examples
from ablate.own_code import home, note
from ablate.plugins import DATA_SETS, Plugin, class_of, found_in, listed_in, unusable_in


@dataclass(frozen=True, eq=False)
class RawData:
    """What a data set's file hands over: the published splits, before anything is held out.

    ``source`` says in a few words where the images come from, for captions. ``val`` is a split of the data set's own.
    """

    train: Examples
    test: Examples | None
    class_names: tuple[str, ...]
    source: str
    val: Examples | None = None


@dataclass(frozen=True)
class DataInfo:
    """What is known of a data set before its images are read.

    ``shape`` is (C, H, W); of a streamed data set (C, 0, 0): there ``data.size`` decides. ``val``: whether it brings a
    validation split.
    """

    shape: Shape
    classes: int
    val: bool = False


class DataSetParams(BaseModel):
    """A data set's own parameters. Strict: 3.7 is no int, "8" is no number; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DataSet(ABC):
    """A source of images: ``class Mnist5k(DataSet, name="mnist5k")``.

    ``folder`` says what ``root`` is to it: ``none`` (it reads no folder), ``shared`` (one folder for all
    studies, unless the spec names another) or ``required``. What a user can fix it refuses by ``UserError``.
    """

    name: ClassVar[str]
    Params: ClassVar[type[DataSetParams]] = DataSetParams
    folder: ClassVar[Literal["none", "shared", "required"]] = "none"
    downloads: ClassVar[bool] = False
    streamed: ClassVar[bool] = False
    """Whether images are read when a batch is asked for; ``data.size`` is then required."""
    brings_val: ClassVar[bool] = False
    """Whether it may bring a validation split of its own, for ``val: own``."""
    without_effect: ClassVar[frozenset[str]] = frozenset()
    """Parameters that change no image and no result: not part of a variant's identity."""

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is not None:
            cls.name = name
            _register(cls)

    @classmethod
    @abstractmethod
    def info(cls, params: Any, root: Path | None) -> DataInfo:
        """Shape and number of classes, without reading the images where that is possible."""

    @classmethod
    @abstractmethod
    def load(cls, params: Any, root: Path | None, download: bool) -> RawData: ...

    @classmethod
    def summary(cls) -> str:
        """The first line of the class's docstring, or of its file's."""
        text = cls.__dict__.get("__doc__") or importlib.import_module(cls.__module__).__doc__ or ""
        return text.strip().split("\n", 1)[0]


_registry: dict[str, type[DataSet]] = {}


def _register(kind: type[DataSet]) -> None:
    known = _registry.get(kind.name)
    if known is not None and known.__module__ != kind.__module__:
        raise ValueError(f"data set '{kind.name}' is defined in {home(known)} and in {home(kind)}")
    clash = kind.Params.model_fields.keys() & DataFields.model_fields.keys()
    if clash:
        raise ValueError(f"data set '{kind.name}' has parameters with names of data's own: {sorted(clash)}")
    note(_registry, kind)
    remember(kind)
    _registry[kind.name] = kind


def registry() -> dict[str, type[DataSet]]:
    """Every data set by name, sorted: ours, those of installed packages, and those that this program has defined.

    An installed one that can't be used is warned of, once.
    """
    _load_builtin()
    return listed_in(DATA_SETS, _registry, _brought)


def find(name: str) -> type[DataSet]:
    """The data set of that name; ``KeyError`` with a hint where there is none, or with why it can't be used."""
    _load_builtin()
    return found_in(DATA_SETS, _registry, name, _brought)


def unusable(name: str) -> str:
    """Why a data set that an installed package brings can't be used; empty where it can, or where none brings it."""
    _load_builtin()
    return unusable_in(DATA_SETS, _registry, name, _brought)


def _brought(plugin: Plugin) -> type[DataSet]:
    """What a package's entry point has registered. ``PluginError`` where that is no data set of this name."""
    kind: type[DataSet] = class_of(plugin, (DataSet,), "DataSet")
    return kind


@cache
def _load_builtin() -> None:
    package = importlib.import_module("ablate.datasets")
    for module in pkgutil.iter_modules(package.__path__, "ablate.datasets."):
        importlib.import_module(module.name)
