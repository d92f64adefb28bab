"""pydantic's errors → problems with a place, what was written, the rule, and the nearest right thing.

pydantic reports every branch of a union on its own, and puts the branches' names between the keys of a location. Here
a location is walked along the data again, so that names of branches drop out; of the branches only the one that the
user most likely meant is reported.
"""

from __future__ import annotations

import math
import re
import types
from collections import abc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, RootModel, ValidationError

from ablate.errors import Problem, did_you_mean, listed, printable
from ablate.yamlfile import is_number, place_of

Path = tuple[str | int, ...]

_UNKNOWN = object()
_KEY = "[key]"
_UNKNOWN_KEY = "extra_forbidden"
_UNKNOWN_KEY_MESSAGE = "Extra inputs are not permitted"
_CHOICES = ("literal_error", "enum")

_EXPECTED: dict[str, str] = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("string_type",), "text"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type", "iterable_type"), "a list"),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type"), "a mapping"),
    **dict.fromkeys(("none_required",), "null"),
}
"""Errors that say: another kind of value was expected here."""


def problems(
    error: ValidationError, tree: Any, prefix: Path = (), *, model: type[BaseModel] | None = None
) -> list[Problem]:
    """What is wrong, in the order of the places: one problem per path.

    ``tree`` is the whole data (places are looked up in it), ``prefix`` the path in it of what was validated, and
    ``model`` the model that refused it: its fields are the known names of the hints. Without it the model is found by
    the error's title, where that names one.
    """
    model = model or _model_titled(error)
    found = [_locate(item, model, _at(tree, prefix)) for item in error.errors(include_url=False)]
    chosen: dict[Path, _Found] = {}
    for item in _without_echoes(_likeliest(found, 0)):
        chosen.setdefault(item.path, item)
    said = [_problem(item, tree, prefix) for item in chosen.values()]
    return sorted(said, key=lambda p: (p.place.line, p.place.column, p.path) if p.place else (0, 0, ""))


def shown(value: Any) -> str:
    """A value as the user would have written it, on one line; text in quotes, long text cut."""
    if isinstance(value, str):
        text = value if len(value) <= 60 else f"{value[:59]}…"
        return f"'{printable(text)}'"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value}".replace("inf", ".inf").replace("nan", ".nan")
    if isinstance(value, int | float):
        return f"{value}" if isinstance(value, float) or abs(value) < 10**60 else "a number of more than 60 digits"
    return _kind(value)


def _kind(value: Any) -> str:
    kinds = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        abc.Mapping: "a mapping",
        list | tuple: "a list",
    }
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), f"a {type(value).__name__}")


@dataclass(frozen=True)
class _Found:
    """One of pydantic's errors, at its path in the data."""

    kind: str
    path: Path
    branches: tuple[tuple[Path, str], ...]
    """The unions on the way: where each stands, and the branch that this error belongs to."""
    value: Any
    said: str
    context: dict[str, Any]
    known: tuple[str, ...]
    """The names that the place of an unknown key does know."""
    tags: tuple[str, ...]
    """The names that a mapping at this path could have."""
    on_key: bool = False
    expected: tuple[str, ...] = ()

    @property
    def nearest(self) -> str | None:
        """The known name that an unknown key was likely meant to be."""
        near = get_close_matches(str(self.path[-1]), self.known, n=1, cutoff=0.6) if self._is_unknown_key else []
        return near[0] if near else None

    @property
    def _is_unknown_key(self) -> bool:
        return self.kind == _UNKNOWN_KEY

    def is_other_kind_at(self, path: Path) -> bool:
        """Whether it says that the value at this very path is of another kind altogether."""
        other = self.kind in _EXPECTED or (self.kind in _CHOICES and not isinstance(self.value, str))
        return other and self.path == path


def _locate(item: Any, model: Any, data: Any) -> _Found:
    members = _members(model) if model else []
    above: list[Any] = []
    path: list[str | int] = []
    branches: list[tuple[Path, str]] = []
    last = len(item["loc"]) - 1
    for index, part in enumerate(item["loc"]):
        named = [member for member in members if part in _labels(member)] if len(members) > 1 else []
        if named:
            branches.append((tuple(path), str(part)))
            members = named
        elif part == _KEY:
            continue
        elif _is_step(part, members, data) or (index == last and item["type"] == "missing"):
            path.append(part)
            above, members, data = members, _below(members, part), _at(data, (part,))
        else:
            branches.append((tuple(path), str(part)))
    return _Found(
        kind=item["type"],
        path=tuple(path),
        branches=tuple(branches),
        value=item["input"],
        said=item["msg"],
        context=item.get("ctx", {}),
        known=tuple(name for member in above for name in _fields(member)),
        tags=tuple(tag for member in members for tag in _tags(member)),
        on_key=_KEY in item["loc"],
    )


def _is_step(part: str | int, members: list[Any], data: Any) -> bool:
    """Whether a part of a location is a key or an index, and not the name of a union's branch."""
    if isinstance(part, int) or data is _UNKNOWN:
        return True
    return (isinstance(data, dict) and part in data) or any(part in _fields(member) for member in members)


def _at(data: Any, path: Path) -> Any:
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return _UNKNOWN
    return data


def _members(annotation: Any) -> list[Any]:
    """The types that an annotation allows, without ``None`` and without what only decorates them."""
    annotation = getattr(annotation, "__value__", annotation)
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in _members(part)]
    if _is_model(annotation) and issubclass(annotation, RootModel):
        return _members(annotation.model_fields["root"].annotation)
    return [] if annotation in (None, type(None), Any) else [annotation]


def _below(members: list[Any], part: str | int) -> list[Any]:
    """The types of what stands at a key or an index."""
    found: list[Any] = []
    for member in members:
        if _is_model(member):
            found += _members(_fields(member)[part]) if part in _fields(member) else []
        elif arguments := [argument for argument in get_args(member) if argument is not Ellipsis]:
            origin = get_origin(member)
            if isinstance(origin, type) and issubclass(origin, abc.Mapping | abc.Sequence | abc.Set):
                found += _members(arguments[-1])
    return found


def _fields(member: Any) -> dict[Any, Any]:
    if not _is_model(member):
        return {}
    return {field.alias or name: field.annotation for name, field in member.model_fields.items()}


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _tags(member: Any) -> list[str]:
    """The names by which a discriminated union knows a model: what its field ``name`` may be."""
    name = _fields(member).get("name")
    return [str(word) for word in get_args(name)] if get_origin(name) is Literal else []


def _labels(member: Any) -> list[str]:
    """How pydantic names this branch of a union in a location."""
    if _is_model(member):
        tags = [get_args(kind) for kind in _fields(member).values() if get_origin(kind) is Literal]
        return [member.__name__, *(str(word) for words in tags for word in words)]
    name = getattr(member, "__name__", "")
    return [name, f"constrained-{name}"]


def _likeliest(found: list[_Found], depth: int) -> list[_Found]:
    """Of each union's branches, the errors of the one that the user most likely meant."""
    chosen = [item for item in found if len(item.branches) <= depth]
    unions: dict[Path, dict[str, list[_Found]]] = {}
    for item in found:
        if len(item.branches) > depth:
            path, branch = item.branches[depth]
            unions.setdefault(path, {}).setdefault(branch, []).append(item)
    for path, branches in unions.items():
        answers = [_likeliest(errors, depth + 1) for errors in branches.values()]
        best = min(answers, key=partial(_distance, path))
        if any(item.is_other_kind_at(path) or _is_far_from_a_word(item, path) for item in best):
            expected = dict.fromkeys(phrase for answer in answers for item in answer for phrase in _expected(item))
            best = [replace(best[0], expected=tuple(expected))]
        chosen += best
    return chosen


def _is_far_from_a_word(item: _Found, path: Path) -> bool:
    """Text that is not the one word of a union, nor like it: another branch may have been meant."""
    if item.kind not in _CHOICES or item.path != path or len(_choices(item)) > 1:
        return False
    return not did_you_mean(str(item.value), _choices(item)).startswith("did")


def _distance(path: Path, answer: list[_Found]) -> tuple[int, ...]:
    """How far what was written is from this branch: another kind of value is farthest, a wrong value nearest."""
    return (
        sum(item.is_other_kind_at(path) for item in answer),
        sum(item.kind == _UNKNOWN_KEY and item.nearest is None for item in answer),
        sum(item.kind == _UNKNOWN_KEY for item in answer),
        sum(item.kind == "missing" for item in answer),
        len(answer),
    )


def _expected(item: _Found) -> tuple[str, ...]:
    if item.expected:
        return item.expected
    if item.kind in _CHOICES:
        choices = _choices(item)
        return (f"one of {listed(choices)}" if len(choices) > 1 else f"'{choices[0]}'",)
    return (_EXPECTED[item.kind],) if item.kind in _EXPECTED else ()


def _without_echoes(found: list[_Found]) -> list[_Found]:
    """Without missing keys that a misspelt key beside them was meant to be."""
    meant = {(*item.path[:-1], item.nearest) for item in found if item.nearest is not None}
    return [item for item in found if item.kind != "missing" or item.path not in meant]


def _problem(item: _Found, tree: Any, prefix: Path) -> Problem:
    path = (*prefix, *item.path)
    if item.kind == "union_tag_invalid" or (item.kind == "union_tag_not_found" and _is_mapping(item.value)):
        return _tag_problem(item, tree, path)
    message, hint = _words(item)
    on_key = item.on_key or item.kind in (_UNKNOWN_KEY, "missing")
    return Problem(printable(message), _dotted(path), place_of(tree, path, key=on_key), printable(hint))


def _tag_problem(item: _Found, tree: Any, path: Path) -> Problem:
    """A discriminated union whose name is unknown or missing."""
    name = item.context["discriminator"].strip("'")
    known = _quoted(item.context.get("expected_tags", "")) or item.tags
    full = (*path, name)
    if item.kind == "union_tag_not_found":
        hint = f"one of: {listed(known)}" if known else ""
        return Problem("missing", _dotted(full), place_of(tree, full), hint)
    what = next((part for part in reversed(path) if isinstance(part, str)), name).replace("_", " ")
    written = item.value[name] if _is_mapping(item.value) and name in item.value else item.context["tag"]
    message = f"unknown {what} {shown(written)}"
    return Problem(message, _dotted(full), place_of(tree, full, key=False), did_you_mean(item.context["tag"], known))


def _dotted(path: Path) -> str:
    return printable(".".join(str(part) for part in path))


def _is_mapping(value: Any) -> bool:
    return isinstance(value, abc.Mapping)


def _words(item: _Found) -> tuple[str, str]:
    """The message and the hint."""
    if item.kind == _UNKNOWN_KEY:
        return _unknown_key(item)
    if item.kind == "missing":
        return "missing", ""
    if item.on_key:
        return f"the key {shown(item.value)}: {item.said.removeprefix('String ')}", ""
    if item.kind in _EXPECTED or item.expected:
        return _other_kind(item)
    if item.kind in _CHOICES:
        choices = _choices(item)
        hint = did_you_mean(str(item.value), choices)
        message = f"{shown(item.value)} is not one of: {listed(choices)}"
        return message, hint if hint.startswith("did") else ""
    if item.kind in _RULES:
        return _RULES[item.kind](shown(item.value), item.context), ""
    if item.kind in ("value_error", "assertion_error"):
        return str(item.context.get("error", item.said)), ""
    if item.said.startswith("Input should "):
        return f"{shown(item.value)} {item.said.removeprefix('Input ')}", ""
    return item.said, ""


def _unknown_key(item: _Found) -> tuple[str, str]:
    if item.said != _UNKNOWN_KEY_MESSAGE:  # a validator of ours that knows better
        return item.said, ""
    return "unknown key", did_you_mean(str(item.path[-1]), item.known)


def _other_kind(item: _Found) -> tuple[str, str]:
    expected = item.expected or (_EXPECTED[item.kind],)
    value, wish = item.value, " or ".join(expected)
    if isinstance(value, float) and expected == ("a whole number",):
        return f"{shown(value)} is not a whole number", ""
    given = f"is {_kind(value)}" if _is_spelt_out(value) else "was given"
    return f"{shown(value)} {given}, {wish} was expected", _kind_hint(item, expected)


def _is_spelt_out(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _kind_hint(item: _Found, expected: tuple[str, ...]) -> str:
    value = item.value
    if isinstance(value, str):
        is_whole = re.fullmatch("[-+]?[0-9]+", value)
        if (is_whole and "a whole number" in expected) or (is_number(value) and "a number" in expected):
            return "remove the quotes"
        if value in ("true", "false") and "true or false" in expected:
            return "remove the quotes"
        if value in item.tags:
            return f"write {{name: {value}}}"
    elif "text" in expected and isinstance(value, int | float):
        return f"quote it: '{shown(value)}'"
    return ""


def _choices(item: _Found) -> tuple[str, ...]:
    return _quoted(item.context.get("expected", ""))


def _quoted(text: str) -> tuple[str, ...]:
    """The words of pydantic's ``'a', 'b' or 3``."""
    return tuple(word or other for word, other in re.findall(r"'((?:[^'\\]|\\.)*)'|(\b(?!or\b)[\w.+-]+)", text))


def _length(unit: str, side: str, rule: str, key: str, value: str, context: dict[str, Any]) -> str:
    return f"{value} has too {side} {unit}; {rule} {context[key]}"


def _bound(side: str, rule: str, key: str, value: str, context: dict[str, Any]) -> str:
    bound = context[key]
    whole = isinstance(bound, float) and bound.is_integer()
    return f"{value} is too {side}; {rule} {shown(int(bound) if whole else bound)}"


_Rule = Callable[[str, dict[str, Any]], str]
_RULES: dict[str, _Rule] = {
    "greater_than": partial(_bound, "small", "more than", "gt"),
    "greater_than_equal": partial(_bound, "small", "at least", "ge"),
    "less_than": partial(_bound, "large", "less than", "lt"),
    "less_than_equal": partial(_bound, "large", "at most", "le"),
    "too_short": partial(_length, "items", "few", "at least", "min_length"),
    "too_long": partial(_length, "items", "many", "at most", "max_length"),
    "string_too_short": partial(_length, "characters", "few", "at least", "min_length"),
    "string_too_long": partial(_length, "characters", "many", "at most", "max_length"),
    "multiple_of": lambda value, context: f"{value} is not a multiple of {shown(context['multiple_of'])}",
    "finite_number": lambda value, context: f"{value} is not a finite number",
    "string_pattern_mismatch": lambda value, context: f"{value} does not have the form {context['pattern']}",
}


def _model_titled(error: ValidationError) -> type[BaseModel] | None:
    """The model that an error names. Errors carry a title only; two models of one title that differ give no hints."""
    unknown = {item["loc"][0] for item in error.errors() if item["type"] == _UNKNOWN_KEY and len(item["loc"]) == 1}
    titled = [
        model
        for model in _subclasses(BaseModel)
        if (model.model_config.get("title") or model.__name__) == error.title and not unknown & set(_fields(model))
    ]
    names = {tuple(_fields(model)) for model in titled}
    return titled[-1] if len(names) == 1 else None


def _subclasses(model: type[BaseModel]) -> Iterable[type[BaseModel]]:
    for below in model.__subclasses__():
        yield below
        yield from _subclasses(below)
