"""The grammar of ``data:``: what every data set understands, and the parameters of the one that it names."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_core.core_schema import ErrorType

from ablate.data.fields import DataFields, HoldOut, Size
from ablate.data.kind import DataSet, DataSetParams, find, registry
from ablate.errors import did_you_mean

_PYDANTIC_TYPES = frozenset(get_args(ErrorType))


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

    def identity(self) -> dict[str, Any]:
        """The section as it enters a variant's identity: JSON data, without what changes no result."""
        return self.model_dump(mode="json", exclude={"root", "download", *self.data_set.without_effect})

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> Any:
        return {"anyOf": [handler(_grammar(name).__pydantic_core_schema__) for name in registry()]}


def _grammar(name: str) -> type[BaseModel]:
    """``_grammar_of`` the data set of that name."""
    try:
        return _grammar_of(find(name))
    except KeyError as error:
        wrong = PydanticCustomError("unknown_name", f"unknown data set '{name}'; {error.args[0]}")
        details = InitErrorDetails(type=wrong, loc=("name",), input=name)
        raise ValidationError.from_exception_data("data", [details]) from None


@functools.cache
def _grammar_of(kind: type[DataSet]) -> type[BaseModel]:
    """The fields that one data set takes: those of all, with what this one makes of them, and its own."""
    name = kind.name
    changed: dict[str, Any] = {"name": (Literal[name], _described("name"))}
    if kind.folder == "required":
        changed["root"] = (str, _described("root"))
    elif kind.folder == "none":
        unused = AfterValidator(_unused(f"'{name}' reads no folder"))
        changed["root"] = (Annotated[str | None, unused], _described("root", None))
    if not kind.downloads:
        unused = AfterValidator(_unused(f"'{name}' has nothing to download"))
        changed["download"] = (Annotated[bool, unused], _described("download", False))
    if kind.streamed:
        changed["size"] = (Size, _described("size", more=_STREAMED_SIZE))
    if not kind.brings_val:
        changed["val"] = (Annotated[HoldOut, AfterValidator(_not_own(name))], _described("val", None))
    return create_model(f"data_{name}", __base__=(kind.Params, DataFields), **changed)


_STREAMED_SIZE = (
    "pixels, required: size × size, or [height, width]. Evaluation, and training without random_resized_crop, see the "
    "centre of the image, resized so that its short side is round(size × 8/7) (bilinear, antialiased)"
)


def _described(field: str, default: Any = ..., *, more: str | None = None) -> Any:
    return Field(default, description=more or DataFields.model_fields[field].description)


def _unused(reason: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value:
            raise PydanticCustomError("unused_key", f"{reason}; remove this key")
        return value

    return check


def _not_own(name: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value == "own":
            raise PydanticCustomError(
                "val_form", f"'{name}' brings no val split; write a fraction (0.2) or {{size: …}}"
            )
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
