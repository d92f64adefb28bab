"""Numbers as expressions of parameters: ``16*$k``, ``round($width / 2)``, ``$width``.

Only numbers, ``$names``, ``+ - * / //`` and ``min max round`` exist; nothing is ever executed.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from ablate.errors import did_you_mean

LONGEST = 200
LARGEST = 1e15
_NAME = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")
_PREFIX = "_parameter_"
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {"min": min, "max": max, "round": round}


def is_expression(value: object) -> bool:
    return isinstance(value, str) and "$" in value


def names_in(value: Any) -> set[str]:
    """The parameters that the expressions in ``value`` read, at any depth."""
    if is_expression(value):
        return set(_NAME.findall(value))
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {name for item in items for name in names_in(item)}


def evaluate(text: str, parameters: Mapping[str, Any]) -> Any:
    """The value of an expression. An integral result is an int. ``ValueError`` says what is wrong."""
    if len(text) > LONGEST:
        raise ValueError(f"an expression has at most {LONGEST} characters, this one {len(text)}")
    whole = _NAME.fullmatch(text.strip())
    if whole:
        return _whole(_lookup(whole[1], parameters))
    try:
        return _whole(_evaluate(_parsed(text), parameters, text))
    except ZeroDivisionError:
        raise ValueError(f"'{text}' divides by zero") from None


def substitute(value: Any, parameters: Mapping[str, Any]) -> Any:
    """``value`` with every expression in it, at any depth, evaluated."""
    if is_expression(value):
        return evaluate(value, parameters)
    if isinstance(value, dict):
        return {key: substitute(item, parameters) for key, item in value.items()}
    if isinstance(value, list):
        return [substitute(item, parameters) for item in value]
    return value


def _parsed(text: str) -> ast.AST:
    # Spaces around a name keep ``max$k`` and ``$a$b`` from becoming names of their own.
    source = _NAME.sub(rf" {_PREFIX}\1 ", text).strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python's own on odd spellings (``1if``)
            return ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"'{text}' is not an expression; numbers, $names, + - * / // and min max round") from None


def _whole(value: Any) -> Any:
    """A float that is integral as an int."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _lookup(name: str, parameters: Mapping[str, Any]) -> Any:
    if name not in parameters:
        hint = did_you_mean(name, parameters)
        raise ValueError(f"no parameter '${name}' here" + (f"; {hint}" if hint else ""))
    return parameters[name]


def _evaluate(node: ast.AST, parameters: Mapping[str, Any], text: str) -> int | float:
    value: Any
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            value = node.value
        case ast.Name(id=name) if name.startswith(_PREFIX):
            value = _lookup(name.removeprefix(_PREFIX), parameters)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            value = _OPERATORS[type(op)](_evaluate(left, parameters, text), _evaluate(right, parameters, text))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            value = _OPERATORS[type(op)](_evaluate(operand, parameters, text))
        case ast.Call(func=ast.Name(id=name), args=[_, *_] as args, keywords=[]) if name in _FUNCTIONS:
            if (len(args) > 1) == (name == "round"):
                raise ValueError(f"in '{text}': round takes one number, min and max two or more")
            value = _FUNCTIONS[name](*(_evaluate(arg, parameters, text) for arg in args))
        case _:
            raise ValueError(f"'{text}' is not an expression; numbers, $names, + - * / // and min max round")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"in '{text}': {value!r} is not a number")
    if not abs(value) <= LARGEST:
        raise ValueError(f"in '{text}': a value is not a number of at most {LARGEST:.0e}")
    return value
