"""Constructor calls as values, and what several of them have in common.

``nn.Conv2d(16, 32, 3, stride=2)`` is a ``Make``. Where calls of one kind differ in a literal, or in which module stands
somewhere, ``generalise`` puts a ``Hole``: an argument of the class that holds them.
"""

from __future__ import annotations

import ast
import keyword
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ablate.ejecting.expressions import flat


@dataclass(frozen=True)
class Code:
    """Code that stands for itself: a function's name."""

    text: str


ABSENT = Code("")
"""In the place of a default: there is none."""


@dataclass(frozen=True)
class Arg:
    """One argument: by ``key`` unless that is empty. ``role`` says what it is: channels, width, kernel, stride."""

    key: str
    value: Any
    role: str = ""
    default: Any = ABSENT
    """Left out where it is this."""


@dataclass(frozen=True)
class Make:
    """The call of a constructor; for ``{}`` a mapping, for ``[]`` a list."""

    callee: str
    args: tuple[Arg, ...] = ()


@dataclass(frozen=True)
class Hole:
    """What differs: a value for each of the calls that were compared."""

    values: tuple[Any, ...]
    role: str
    place: str = ""
    """Where it is: modules in two places are two, equal though they are."""

    @property
    def key(self) -> str:
        """Equal for holes that one argument fills."""
        return repr(self.values) + (self.place if any(isinstance(value, Make) for value in self.values) else "")


IDENTITY = Make("nn.Identity")
Value = Any
"""A literal, a ``Code``, a ``Make`` or a ``Hole``."""


def literal(value: Any) -> bool:
    """Whether it can be written down as it is."""
    if isinstance(value, tuple | list):
        return all(literal(item) for item in value)
    if isinstance(value, dict):
        return all(isinstance(key, str | int) and literal(item) for key, item in value.items())
    return value is None or type(value) in (int, float, bool, str)


def same(one: Any, other: Any) -> bool:
    """Equal, and of one type: 1, 1.0 and True are three."""
    return type(one) is type(other) and bool(one == other) and repr(one) == repr(other)


def generalise(values: Sequence[Value], role: str, place: str = "") -> Value:
    """One value with holes for these: literals that differ, and modules of different kinds."""
    first = values[0]
    if all(same(first, value) for value in values):
        return first
    if isinstance(first, Make) and all(_alike(first, value) for value in values):
        args = tuple(
            replace(
                arg,
                value=generalise(
                    [value.args[index].value for value in values], arg.role or role, f"{place}.{arg.role or index}"
                ),
            )
            for index, arg in enumerate(first.args)
        )
        return Make(first.callee, args)
    return Hole(tuple(values), role, place)


def _alike(one: Make, other: Value) -> bool:
    return (
        isinstance(other, Make)
        and one.callee == other.callee
        and [arg.key for arg in one.args] == [arg.key for arg in other.args]
    )


def holes(value: Value) -> list[Hole]:
    if isinstance(value, Hole):
        return [value]
    return [hole for arg in value.args for hole in holes(arg.value)] if isinstance(value, Make) else []


def filled(value: Value, names: dict[str, Code]) -> Value:
    """The value with each hole's name in its place; ``names`` by the holes' keys."""
    if isinstance(value, Hole):
        return names[value.key]
    if isinstance(value, Make):
        return Make(value.callee, tuple(replace(arg, value=filled(arg.value, names)) for arg in value.args))
    return value


def expression(value: Value) -> ast.expr:
    """The value as code."""
    if isinstance(value, Code):
        return ast.parse(value.text, mode="eval").body
    if isinstance(value, Make):
        if value.callee == "{}":
            keys: list[ast.expr | None] = [ast.Constant(arg.key) for arg in value.args]
            return ast.Dict(keys, [expression(arg.value) for arg in value.args])
        if value.callee == "[]":
            runs = _runs([arg.value for arg in value.args])
            if len(runs) == 1 and runs[0][1] > 2:
                return _loop("[", *runs[0], "]")
            return ast.List([code for each, count in runs for code in _repeated(each, count)], ast.Load())
        return _call(value)
    if isinstance(value, tuple):
        return ast.Tuple([expression(item) for item in value], ast.Load())
    if isinstance(value, list):
        return ast.List([expression(item) for item in value], ast.Load())
    if isinstance(value, dict):
        return ast.Dict([ast.Constant(key) for key in value], [expression(item) for item in value.values()])
    if isinstance(value, int | float) and not isinstance(value, bool) and (value < 0 or repr(value) == "-0.0"):
        return ast.UnaryOp(ast.USub(), ast.Constant(-value))
    if isinstance(value, float) and value != value:
        return ast.parse('float("nan")', mode="eval").body
    return ast.Constant(value)


def _call(make: Make) -> ast.Call:
    places: list[ast.expr] = []
    keywords: list[ast.keyword] = []
    for value, count in _runs([arg.value for arg in make.args if not arg.key]):
        places += _repeated(value, count)
    for arg in make.args:
        if arg.key and not same(arg.value, arg.default):
            keywords.append(ast.keyword(arg.key, expression(arg.value)))
    callee = ast.parse(make.callee, mode="eval").body
    return ast.Call(callee, places, keywords)


def _runs(values: Sequence[Value]) -> list[tuple[Value, int]]:
    found: list[tuple[Value, int]] = []
    for value in values:
        if found and same(found[-1][0], value):
            found[-1] = (value, found[-1][1] + 1)
        else:
            found.append((value, 1))
    return found


def _repeated(value: Value, count: int) -> list[ast.expr]:
    """Equal modules side by side: from three on as a loop."""
    if count < 3 or not isinstance(value, Make):
        return [expression(value)] * count
    return [ast.Starred(_loop("(", value, count, ")"), ast.Load())]


def _loop(opening: str, value: Value, count: int, closing: str) -> ast.expr:
    text = f"{opening}{flat(expression(value))} for _ in range({count}){closing}"
    return ast.parse(text, mode="eval").body


def is_attribute(name: str) -> bool:
    """Whether ``self.NAME`` means the attribute of that name: no keyword, no number, nothing that Python mangles."""
    return name.isidentifier() and name.isascii() and not keyword.iskeyword(name) and not name.startswith("__")


def member(path: Sequence[str], owners: Sequence[str]) -> str:
    """The code of a module within ``self``: ``self.stage1[0]``; ``owners`` says what holds each part of the path.

    Of a class: an attribute; of a ``ModuleList`` or ``Sequential`` whose parts are numbered: an index; of a
    ``ModuleDict``: a key.
    """
    code = "self"
    for name, owner in zip(path, owners, strict=True):
        if owner == "index":
            code += f"[{int(name)}]"
        elif owner == "key":
            code += f"[{name!r}]"
        else:
            code += f".{name}" if is_attribute(name) else f".get_submodule({name!r})"
    return code
