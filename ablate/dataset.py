"""What a data set is, the registry of data sets, and the way from ``data:`` in a spec to arrays.

Order of work: the data set's own train and test images → ``val`` is held out of train, stratified by its own seed →
``limit`` keeps a class-balanced part of each → the statistics of ``normalize: dataset`` are counted on
the train images that are left. A new data set is one new file under ``ablate/datasets``.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import math
import os
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    WrapValidator,
    create_model,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ErrorType

from ablate.batches import AugmentItem
from ablate.errors import Problem, UserError, did_you_mean
from ablate.streams import stream_seed

Shape = tuple[int, int, int]

MAX_SIDE = 4096
"""Pixels: the most that an image may be high or wide."""
MAX_BYTES = 8 * 2**30
"""The most that the images of one split may take as uint8."""
MAX_EXAMPLES = 50_000_000
MAX_CLASSES = 100_000


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 (N, C, H, W), C-contiguous, and labels int64 (N,)."""

    images: np.ndarray[Any, np.dtype[np.uint8]]
    labels: np.ndarray[Any, np.dtype[np.int64]]

    def __post_init__(self) -> None:
        assert self.images.dtype == np.uint8
        assert self.labels.dtype == np.int64
        assert self.images.flags.c_contiguous
        assert self.images.ndim == 4
        assert self.labels.shape == self.images.shape[:1]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray[Any, Any]) -> Split:
        return Split(self.images[rows], self.labels[rows])


@dataclass(frozen=True, eq=False)
class RawData:
    """What a data set's file hands over: the published splits, before anything is held out.

    ``source`` says in a few words where the images come from, for captions.
    """

    train: Split
    test: Split | None
    class_names: tuple[str, ...]
    source: str


@dataclass(frozen=True, eq=False)
class ImageData:
    """The arrays that a study trains and evaluates on. Pickles; arrays may be read-only.

    ``mean`` and ``std`` are per channel, in units of 1 (pixel/255): what ``normalize`` came to, 0 and 1 for none.
    ``content_hash`` is of all splits after ``val`` and ``limit``; ``description`` is for captions.
    """

    train: Split
    val: Split | None
    test: Split | None
    classes: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    content_hash: str
    description: str

    @property
    def input_shape(self) -> Shape:
        """(C, H, W)"""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width


@dataclass(frozen=True)
class DataInfo:
    shape: Shape
    classes: int


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
        raise ValueError(f"data set '{kind.name}' is defined in {known.__module__} and in {kind.__module__}")
    clash = kind.Params.model_fields.keys() & DataFields.model_fields.keys()
    if clash:
        raise ValueError(f"data set '{kind.name}' has parameters with names of data's own: {sorted(clash)}")
    _registry[kind.name] = kind


def registry() -> dict[str, type[DataSet]]:
    """Every data set by name, sorted."""
    package = importlib.import_module("ablate.datasets")
    for module in pkgutil.iter_modules(package.__path__, "ablate.datasets."):
        importlib.import_module(module.name)
    return dict(sorted(_registry.items()))


def find(name: str) -> type[DataSet]:
    """The data set of that name; ``KeyError`` with a hint where there is none."""
    known = registry()
    if name not in known:
        raise KeyError(did_you_mean(name, known))
    return known[name]


# ---- the grammar of ``data:`` ----


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class HeldOutSize(_Strict):
    size: PositiveInt = Field(description="examples held out of train, over all classes")
    seed: NonNegativeInt = Field(0, description="which examples are held out; independent of the trials' seeds")


class HeldOutFraction(_Strict):
    fraction: float = Field(gt=0, lt=1, description="share of train that is held out, between 0 and 1")
    seed: NonNegativeInt = Field(0, description="which examples are held out; independent of the trials' seeds")


class Limit(_Strict):
    train: PositiveInt | None = Field(None, description="train examples to keep, after val was held out")
    val: PositiveInt | None = Field(None, description="val examples to keep")
    test: PositiveInt | None = Field(None, description="test examples to keep")


class Normalization(_Strict):
    mean: list[Annotated[float, Field(allow_inf_nan=False)]] = Field(
        min_length=1, description="per channel, subtracted, in units of 1 (pixel/255)"
    )
    std: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        min_length=1, description="per channel, divided by, in units of 1 (pixel/255)"
    )


Handler = Callable[[Any], Any]
_PYDANTIC_TYPES = frozenset(get_args(ErrorType))


def _val(value: Any, handler: Handler) -> Any:
    if isinstance(value, bool | str | list):
        raise PydanticCustomError("val_form", f"{value!r} is no hold-out; write a fraction (0.2) or {{size: …}}")
    if isinstance(value, int):
        raise PydanticCustomError(
            "val_form",
            f"{value} is a whole number; write a fraction between 0 and 1, "
            f"or {{size: {value}}} for a number of examples",
        )
    if isinstance(value, float) and not 0 < value < 1:
        raise PydanticCustomError("val_form", f"{value} is no fraction; it lies between 0 and 1, both excluded")
    if isinstance(value, Mapping):
        return _hold_out_model(value).model_validate(dict(value))
    return handler(value)


def _hold_out_model(value: Mapping[str, Any]) -> type[HeldOutSize] | type[HeldOutFraction]:
    if ("size" in value) == ("fraction" in value):
        raise PydanticCustomError("val_form", "write either size (a number of examples) or fraction, one of the two")
    return HeldOutSize if "size" in value else HeldOutFraction


def _normalize(value: Any, handler: Handler) -> Any:
    if isinstance(value, str) and value not in ("dataset", "none"):
        raise PydanticCustomError(
            "normalize_form",
            f"unknown normalization '{value}'; "
            f"{did_you_mean(value, ['dataset', 'none'])} or a mapping with mean and std",
        )
    if isinstance(value, Mapping):
        return Normalization.model_validate(dict(value))
    if not isinstance(value, str | Normalization):
        raise PydanticCustomError(
            "normalize_form", f"{value!r} is no normalization; write dataset, none, or a mapping with mean and std"
        )
    return handler(value)


def _each_once(items: list[Any]) -> list[Any]:
    """Two of one name would draw the same numbers from their one stream."""
    names = [item.name for item in items]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise PydanticCustomError("listed_twice", f"'{twice[0]}' is listed twice")
    return items


HoldOut = Annotated[float | HeldOutSize | HeldOutFraction | None, WrapValidator(_val)]
Normalize = Annotated[Literal["dataset", "none"] | Normalization, WrapValidator(_normalize)]


class DataFields(_Strict):
    """What every data set understands."""

    name: str = Field(description="the data set")
    root: str | None = Field(None, description="the folder of its files; relative to the spec, and beneath it")
    download: bool = Field(False, description="whether to fetch from the network what is missing")
    val: HoldOut = Field(None, description="what is held out of train for validation: a fraction, or {size: examples}")
    limit: Limit | None = Field(None, description="examples to keep of each split, class-balanced")
    augment: Annotated[list[AugmentItem], AfterValidator(_each_once)] = Field(
        [], description="random changes of train images, in the order they are made"
    )
    normalize: Normalize = Field(
        "dataset", description="dataset: by mean and std of the train images; none; or {mean: [...], std: [...]}"
    )


class DataSpec(DataFields):
    """The ``data:`` section of a spec: :class:`DataFields` and the parameters of the data set that it names.

    The data set's own parameters are attributes like the others, with their defaults filled in.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    @model_validator(mode="wrap")
    @classmethod
    def _by_its_data_set(cls, value: Any, handler: Callable[[Any], Self]) -> Self:
        if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
            return handler(value)
        grammar = _grammar(value["name"])
        try:
            checked = grammar.model_validate(dict(value))
        except ValidationError as error:
            raise _with_hints(error, grammar) from None
        own = checked.model_dump(mode="json", include=set(find(value["name"]).Params.model_fields))
        return handler({**value, **own})

    @model_serializer(mode="wrap")
    def _without_nulls(self, handler: Callable[[Self], dict[str, Any]]) -> dict[str, Any]:
        """What was left out stays out: a spec may not say null for it."""
        kept = {key: value for key, value in handler(self).items() if value is not None}
        if isinstance(kept.get("limit"), dict):
            kept["limit"] = {key: value for key, value in kept["limit"].items() if value is not None}
        return kept

    @property
    def data_set(self) -> type[DataSet]:
        return find(self.name)

    @property
    def params(self) -> DataSetParams:
        """The data set's own parameters."""
        return self.data_set.Params.model_validate(self.model_extra)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> Any:
        return {"anyOf": [handler(_grammar(name).__pydantic_core_schema__) for name in registry()]}


@functools.cache
def _grammar(name: str) -> type[BaseModel]:
    """The fields that one data set takes: those of all, with what this one makes of them, and its own."""
    try:
        kind = find(name)
    except KeyError as error:
        wrong = PydanticCustomError("unknown_name", f"unknown data set '{name}'; {error.args[0]}")
        details = InitErrorDetails(type=wrong, loc=("name",), input=name)
        raise ValidationError.from_exception_data("data", [details]) from None
    changed: dict[str, Any] = {"name": (Literal[name], _described("name"))}
    if kind.folder == "required":
        changed["root"] = (str, _described("root"))
    elif kind.folder == "none":
        changed["root"] = (
            Annotated[str | None, AfterValidator(_unused(f"'{name}' reads no folder"))],
            _described("root", None),
        )
    if not kind.downloads:
        changed["download"] = (
            Annotated[bool, AfterValidator(_unused(f"'{name}' has nothing to download"))],
            _described("download", False),
        )
    return create_model(f"data_{name}", __base__=(kind.Params, DataFields), **changed)


def _described(field: str, default: Any = ...) -> Any:
    return Field(default, description=DataFields.model_fields[field].description)


def _unused(reason: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value:
            raise PydanticCustomError("unused_key", f"{reason}; remove this key")
        return value

    return check


def _with_hints(error: ValidationError, grammar: type[BaseModel]) -> ValidationError:
    """The same errors, with the nearest known key beside an unknown one of the section itself."""
    details = []
    for item in error.errors(include_url=False):
        kind: str | PydanticCustomError = item["type"]
        if item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
            hint = did_you_mean(str(item["loc"][0]), grammar.model_fields)
            kind = PydanticCustomError("extra_forbidden", f"unknown key; {hint}")
        elif item["type"] not in _PYDANTIC_TYPES:
            kind = PydanticCustomError(item["type"], item["msg"])
        details.append(InitErrorDetails(type=kind, loc=item["loc"], input=item["input"], ctx=item.get("ctx", {})))
    return ValidationError.from_exception_data(error.title, details)


# ---- from the spec to arrays ----


def shape_of(spec: DataSpec, *, base: Path = Path(), trusted_root: bool = False) -> tuple[Shape, int]:
    """(C, H, W) and the number of classes, without reading the images where the data set knows them.

    ``base`` and ``trusted_root`` as in :func:`load`; ``UserError`` for what the spec's author can fix.
    """
    info = spec.data_set.info(spec.params, root_of(spec, base, trusted_root))
    _check_channels(spec, info.shape[0])
    return info.shape, info.classes


def load(spec: DataSpec, *, base: Path, seed: int = 0, trusted_root: bool = False) -> ImageData:
    """The arrays of a spec's ``data:``.

    ``base`` is the spec's folder: a relative ``root`` starts there and must stay beneath it, unless the command
    line named the root (``trusted_root``). ``seed`` decides which examples ``limit`` keeps; it is
    the study's, not a trial's. ``UserError`` for what the spec's author can fix.
    """
    raw = spec.data_set.load(spec.params, root_of(spec, base, trusted_root), spec.download)
    splits: dict[str, Split] = {"train": raw.train} | ({"test": raw.test} if raw.test is not None else {})
    for name, split in splits.items():
        check_size(len(split), split.images.shape[1:], f"{spec.name}, {name}")
        check_labels(split.labels, len(raw.class_names), f"{spec.name}, {name}")
    _check_channels(spec, raw.train.images.shape[1])
    if spec.val is not None:
        splits["train"], splits["val"] = _hold_out(raw.train, spec.val, raw.class_names)
    whole = {name: len(split) for name, split in splits.items()}
    splits = _limited(splits, spec.limit or Limit(), raw.class_names, seed)
    mean, std = _mean_and_std(spec.normalize, splits["train"].images)
    for split in splits.values():
        split.images.setflags(write=False)
        split.labels.setflags(write=False)
    return ImageData(
        splits["train"],
        splits.get("val"),
        splits.get("test"),
        len(raw.class_names),
        raw.class_names,
        mean,
        std,
        _content_hash(splits),
        _description(spec.name, raw.source, splits, whole),
    )


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


def user_error(message: str, key: str = "", hint: str = "") -> UserError:
    """A problem with ``data.KEY``, or with the section. A strange file's names cannot steer the terminal."""
    return UserError(Problem(_printable(message), path=f"data.{key}" if key else "data", hint=_printable(hint)))


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def check_size(count: int, shape: tuple[int, ...], where: str) -> None:
    """``UserError`` for an empty split, and for images beyond the limits on side, number and bytes."""
    _, height, width = shape
    if count < 1:  # a damaged file may even say -1
        raise user_error(f"{where}: no examples")
    if max(height, width) > MAX_SIDE:
        raise user_error(f"{where}: images of {width}×{height} pixels; at most {MAX_SIDE}×{MAX_SIDE}")
    if count > MAX_EXAMPLES:
        raise user_error(f"{where}: {count:,} examples; at most {MAX_EXAMPLES:,}")
    if count * math.prod(shape) > MAX_BYTES:
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


def _check_channels(spec: DataSpec, channels: int) -> None:
    if isinstance(spec.normalize, Normalization):
        lengths = {"mean": len(spec.normalize.mean), "std": len(spec.normalize.std)}
        wrong = [
            Problem(f"{length} number(s) for images of {channels} channel(s)", path=f"data.normalize.{key}")
            for key, length in lengths.items()
            if length != channels
        ]
        if wrong:
            raise UserError(wrong)


def _hold_out(train: Split, how: float | HeldOutSize | HeldOutFraction, names: tuple[str, ...]) -> tuple[Split, Split]:
    """What is left of train, and val: each class in proportion, both in the order that train has."""
    if isinstance(how, float):
        how = HeldOutFraction(fraction=how)
    size = how.size if isinstance(how, HeldOutSize) else round(how.fraction * len(train))
    if size >= len(train):
        raise user_error(f"{size:,} examples cannot be held out of {len(train):,}", "val.size")
    counts = np.bincount(train.labels, minlength=len(names))
    quotas = _proportional(counts, size)
    for left, split in ((quotas, "val"), (counts - quotas, "train")):
        _check_every_class(counts, left, names, f"{split}, with {size:,} of {len(train):,} examples held out", "val")
    chosen = np.zeros(len(train), dtype=bool)
    chosen[_rows(train.labels, quotas, "val", how.seed)] = True
    return train.take(np.flatnonzero(~chosen)), train.take(np.flatnonzero(chosen))


def _limited(splits: dict[str, Split], limit: Limit, names: tuple[str, ...], seed: int) -> dict[str, Split]:
    wanted = {name: count for name, count in limit.model_dump().items() if count is not None}
    wrong = [problem for name, count in wanted.items() if (problem := _limit_problem(name, count, splits, names))]
    if wrong:
        raise UserError(wrong)
    kept = dict(splits)
    for name, count in wanted.items():
        labels = splits[name].labels
        quotas = _balanced(np.bincount(labels, minlength=len(names)), count)
        kept[name] = splits[name].take(np.sort(_rows(labels, quotas, f"limit {name}", seed)))
    return kept


def _limit_problem(name: str, count: int, splits: Mapping[str, Split], names: tuple[str, ...]) -> Problem | None:
    path = f"data.limit.{name}"
    if name not in splits:
        return Problem(f"there is no {name} split to limit", path, hint="add data.val" if name == "val" else "")
    if count > len(splits[name]):
        return Problem(f"{count:,} is more than the {len(splits[name]):,} examples of {name}", path)
    present = len(np.unique(splits[name].labels))
    if count < present:
        return Problem(f"{count:,} is too few for {present:,} classes; at least one class would have no example", path)
    return None


def _check_every_class(
    before: np.ndarray[Any, Any], after: np.ndarray[Any, Any], names: tuple[str, ...], where: str, key: str
) -> None:
    lost = np.flatnonzero((before > 0) & (after == 0))
    if len(lost):
        more = f" (nor would {len(lost) - 1} more)" if len(lost) > 1 else ""
        raise user_error(f"class '{names[lost[0]]}' would have no example in {where}{more}", key)


def _proportional(counts: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """``size`` shared out in proportion to the counts, by largest remainders, in whole numbers."""
    quotas, remainders = np.divmod(counts.astype(np.int64) * size, counts.sum())
    short = size - int(quotas.sum())
    quotas[np.argsort(-remainders, kind="stable")[:short]] += 1
    return quotas


def _balanced(counts: np.ndarray[Any, Any], total: int) -> np.ndarray[Any, Any]:
    """``total`` shared out equally, as far as each class has examples; what is left over goes to the first classes."""
    quotas = np.zeros_like(counts)
    while total:
        open_classes = np.flatnonzero(quotas < counts)
        share = total // len(open_classes)
        if share == 0:
            quotas[open_classes[:total]] += 1
            break
        granted = np.minimum(counts[open_classes] - quotas[open_classes], share)
        quotas[open_classes] += granted
        total -= int(granted.sum())
    return quotas


def _rows(labels: np.ndarray[Any, Any], quotas: np.ndarray[Any, Any], stream: str, seed: int) -> np.ndarray[Any, Any]:
    """Rows chosen at random, class by class: of one seed, a smaller quota's rows are among a larger one's."""
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=len(quotas)))[:-1])
    # RandomState, since numpy keeps its numbers the same for ever: a split must not depend on numpy's version
    return np.concatenate(
        [
            np.random.RandomState(stream_seed(stream, seed, label) % 2**32).permutation(rows)[:quota]
            for label, (rows, quota) in enumerate(zip(by_class, quotas, strict=True))
            if quota
        ]
    )


def _mean_and_std(
    normalize: Literal["dataset", "none"] | Normalization, images: np.ndarray[Any, Any]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    channels = images.shape[1]
    if isinstance(normalize, Normalization):
        return tuple(normalize.mean), tuple(normalize.std)
    if normalize == "none":
        return (0.0,) * channels, (1.0,) * channels
    found = [_channel_statistics(images, channel) for channel in range(channels)]
    constant = [channel for channel, (_, std) in enumerate(found) if std == 0]
    if constant:
        raise user_error(
            f"channel {constant[0]} is the same in every pixel of train: it cannot be divided by its "
            "standard deviation",
            "normalize",
            "write none, or {mean: [...], std: [...]}",
        )
    return tuple(mean for mean, _ in found), tuple(std for _, std in found)


def _channel_statistics(images: np.ndarray[Any, Any], channel: int, rows: int = 1024) -> tuple[float, float]:
    """Mean and standard deviation of pixel/255, exact for any number of pixels: from a count of the 256 values."""
    counts = np.zeros(256, dtype=np.int64)
    for start in range(0, len(images), rows):
        counts += np.bincount(images[start : start + rows, channel].ravel(), minlength=256)
    pixels = int(counts.sum())
    total = sum(value * int(count) for value, count in enumerate(counts))
    squares = sum(value**2 * int(count) for value, count in enumerate(counts))
    return total / pixels / 255, math.sqrt(squares * pixels - total**2) / pixels / 255


def _content_hash(splits: Mapping[str, Split]) -> str:
    digest = hashlib.sha256()
    for name in ("train", "val", "test"):
        split = splits.get(name)
        digest.update(f"{name} {split.images.shape if split is not None else None};".encode())
        if split is not None:
            digest.update(split.images.data)
            digest.update(split.labels.astype("<i8").data)
    return digest.hexdigest()


def _description(name: str, source: str, splits: Mapping[str, Split], whole: Mapping[str, int]) -> str:
    def size(split: str) -> str:
        kept, all_ = len(splits[split]), whole[split]
        return f"{kept:,} of {all_:,} {split}" if kept < all_ else f"{kept:,} {split}"

    sizes = ", ".join(size(split) for split in ("train", "val", "test") if split in splits)
    return _printable(f"{name} ({source}): {sizes}")
