"""The keys of ``data:`` that every data set understands, as pydantic models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PlainSerializer,
    PositiveInt,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from ablate.data.augment import Augment
from ablate.data.checks import MAX_SIDE
from ablate.data.mix import Mix
from ablate.errors import did_you_mean


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


_SEED = "which examples are held out; independent of the trials' seeds"


class HeldOutSize(Strict):
    size: PositiveInt = Field(description="examples held out of train, over all classes")
    seed: NonNegativeInt = Field(0, description=_SEED)


class HeldOutFraction(Strict):
    fraction: float = Field(gt=0, lt=1, description="share of train that is held out, between 0 and 1")
    seed: NonNegativeInt = Field(0, description=_SEED)


class Limit(Strict):
    train: PositiveInt | None = Field(None, description="train examples to keep, after val was held out")
    val: PositiveInt | None = Field(None, description="val examples to keep")
    test: PositiveInt | None = Field(None, description="test examples to keep")


class Normalization(Strict):
    mean: list[Annotated[float, Field(allow_inf_nan=False)]] = Field(
        min_length=1, description="per channel, subtracted, in units of 1 (pixel/255)"
    )
    std: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(
        min_length=1, description="per channel, divided by, in units of 1 (pixel/255)"
    )


Handler = Callable[[Any], Any]


def _val(value: Any, handler: Handler) -> Any:
    if isinstance(value, bool | list) or (isinstance(value, str) and value != "own"):
        raise PydanticCustomError("val_form", f"{value!r} is no hold-out; write a fraction (0.2), {{size: …}} or own")
    if isinstance(value, int):
        raise PydanticCustomError(
            "val_form",
            f"{value} is a whole number; write a fraction between 0 and 1, "
            f"or {{size: {value}}} for a number of examples",
        )
    if isinstance(value, float):
        if not 0 < value < 1:
            raise PydanticCustomError("val_form", f"{value} is no fraction; it lies between 0 and 1, both excluded")
        return HeldOutFraction(fraction=value)
    if isinstance(value, Mapping):
        return _hold_out_model(value).model_validate(dict(value))
    return handler(value)


def _hold_out_model(value: Mapping[str, Any]) -> type[HeldOutSize] | type[HeldOutFraction]:
    if ("size" in value) == ("fraction" in value):
        raise PydanticCustomError("val_form", "write either size (a number of examples) or fraction, one of the two")
    return HeldOutSize if "size" in value else HeldOutFraction


def _written_val(value: Any) -> Any:
    """One way of writing for one meaning: ``0.2``, ``{fraction: 0.2}`` and ``{fraction: 0.2, seed: 0}`` are 0.2."""
    if isinstance(value, HeldOutFraction) and value.seed == 0:
        return value.fraction
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


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


def _size(value: Any) -> Any:
    """``64`` is ``[64, 64]``."""
    if isinstance(value, int) and not isinstance(value, bool):
        if not 1 <= value <= MAX_SIDE:
            raise PydanticCustomError("size_form", f"{value} pixels; from 1 to {MAX_SIDE} was expected")
        return [value, value]
    return value


def _limit(value: Any, handler: Handler) -> Any:
    limit = handler(value)
    return None if limit == Limit() else limit


class _AlsoIn:
    """A schema beside that of the validated model: for what a spec may write shorter."""

    def __init__(self, **shorter: Any) -> None:
        self.shorter = shorter

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [self.shorter, handler(core)]}


_FRACTION = _AlsoIn(type="number", exclusiveMinimum=0, exclusiveMaximum=1)
_SQUARE = _AlsoIn(type="integer", minimum=1, maximum=MAX_SIDE)

HoldOut = Annotated[
    HeldOutSize | HeldOutFraction | Literal["own"] | None,
    WrapValidator(_val),
    PlainSerializer(_written_val),
    _FRACTION,
]
Normalize = Annotated[Literal["dataset", "none"] | Normalization, WrapValidator(_normalize)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Size = Annotated[list[Side], Field(min_length=2, max_length=2), BeforeValidator(_size), _SQUARE]


class DataFields(Strict):
    """What every data set understands."""

    name: str = Field(description="the data set")
    root: str | None = Field(None, description="the folder of its files; relative to the spec, and beneath it")
    download: bool = Field(False, description="whether to fetch from the network what is missing")
    size: Size | None = Field(
        None,
        description="pixels: images are resized to size × size, or [height, width], when they are loaded (bilinear, "
        "antialiased, as torchvision resizes PIL images)",
    )
    val: HoldOut = Field(
        None,
        description="validation: a fraction of train that is held out, {size: examples}, or own: the split that the "
        "data set brings",
    )
    limit: Annotated[Limit | None, WrapValidator(_limit)] = Field(
        None, description="examples to keep of each split, class-balanced"
    )
    augment: Augment = Field([], description="random changes of train images, in the order they are made")
    mix: Mix | None = Field(None, description="mixing of the examples of a train batch; labels become soft")
    normalize: Normalize = Field(
        "dataset",
        description="dataset: by mean and std of the train images (of a streamed data set: of 1,024 of them, drawn at "
        "random once for all); none; or {mean: [...], std: [...]}",
    )
