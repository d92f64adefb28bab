"""Parts of imported models that differ in constants alone: what differs becomes an attribute of one class.

``attend(x0, [7, 7], 3, shift_size=[0, 0])`` and ``attend(x0, [7, 7], 6, shift_size=[3, 3])`` are both
``attend(x0, [7, 7], self.num_heads, shift_size=self.shift_size)``.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from ablate.ejecting.make import is_attribute, same

_CHECKED = frozenset(dir(nn.Module()))


def shared(
    methods: Sequence[ast.FunctionDef], held: Collection[str], functions: Mapping[str, ast.FunctionDef]
) -> list[dict[str, Any]] | None:
    """What differs among methods of one shape, by attribute, for each; they then read it. ``None``: other shapes.

    ``held`` are names that the modules have already, ``functions`` those of the file, whose arguments lend names.
    """
    if len({_shape(method) for method in methods}) != 1:
        return None
    places = [list(_literals(method)) for method in methods]
    found: list[dict[str, Any]] = [{} for _ in methods]
    for spots in zip(*places, strict=True):
        values = [ast.literal_eval(node) for node, _, _ in spots]
        if all(same(values[0], value) for value in values):
            continue
        wanted = _role(spots[0][2], functions)
        name = _free(wanted, {*held, *found[0]}, lambda known: [each[known] for each in found], values)
        for (_, put, _), value, each in zip(spots, values, found, strict=True):
            put(ast.Attribute(ast.Name("self", ast.Load()), name, ast.Load()))
            each[name] = value
    return found


def _shape(method: ast.FunctionDef) -> str:
    """The code without its constants."""
    blank = copy.deepcopy(method)
    for _, put, _ in list(_literals(blank)):
        put(ast.Constant(None))
    return ast.dump(blank)


_Spot = tuple[ast.expr, Callable[[ast.expr], None], tuple[ast.Call | None, int | str]]
"""A literal, what puts code in its place, and the call whose argument it is, with the place or the key."""


def _literals(node: ast.AST) -> Iterator[_Spot]:
    """The largest literals that are arguments of calls, in their order."""
    for child in ast.walk(node):
        if isinstance(child, ast.Call):
            for index, each in enumerate(child.args):
                if _is_literal(each):
                    yield each, _setter(child.args, index), (child, index)
            for word in child.keywords:
                if _is_literal(word.value):
                    yield word.value, _keyword_setter(word), (child, word.arg or "")


def _setter(items: list[ast.expr], index: int) -> Callable[[ast.expr], None]:
    def put(code: ast.expr) -> None:
        items[index] = code

    return put


def _keyword_setter(word: ast.keyword) -> Callable[[ast.expr], None]:
    def put(code: ast.expr) -> None:
        word.value = code

    return put


def _is_literal(node: ast.expr) -> bool:
    if isinstance(node, ast.List | ast.Tuple):
        return all(_is_literal(each) for each in node.elts)
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant)
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float | str | None)


def _role(place: tuple[ast.Call | None, int | str], functions: Mapping[str, ast.FunctionDef]) -> str:
    """What the function calls the argument."""
    call, key = place
    if isinstance(key, str):
        return key
    callee = call.func if call is not None else None
    if isinstance(callee, ast.Name) and callee.id in functions:
        arguments = functions[callee.id].args.args
        if key < len(arguments):
            return arguments[key].arg
    return "value"


def _free(wanted: str, taken: Collection[str], of: Callable[[str], list[Any]], values: list[Any]) -> str:
    """A name that is free, or has these very values."""
    names = [wanted, *(f"{wanted}{number}" for number in range(2, 1000))]
    for name in names:
        if not is_attribute(name) or name in _CHECKED:
            continue
        if name not in taken:
            return name
        try:
            known = of(name)
        except KeyError:
            continue
        if all(same(one, other) for one, other in zip(known, values, strict=True)):
            return name
    raise AssertionError(f"no name for '{wanted}'")
