"""Python's syntax tree → text as ``ruff format`` and ``black`` would have it, 120 columns wide.

``ast.unparse`` knows no line breaks and no comments. This knows what ejected files hold: a statement may carry
comments, ``commented(statement, above=[…], beside="…")``. What it has no rule for, it leaves to ``ast.unparse``.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Sequence
from typing import TypeVar

from ablate.ejecting.expressions import BINARY, WIDTH, flat, spread, target_of, unparsed

_Statement = TypeVar("_Statement", bound=ast.stmt)


def commented(statement: _Statement, above: Sequence[str] = (), beside: str = "") -> _Statement:
    """The statement with comments: lines above it, and one at the end of its line where it fits, else above too."""
    statement.__dict__.update(comments_above=tuple(above), comment_beside=beside)
    return statement


def text_of(statements: Sequence[ast.stmt]) -> str:
    """A file's text."""
    return "\n".join(_body(statements, "", spacing=2)) + "\n"


def one_line(text: str) -> str:
    """Text for a comment: what can't be printed is escaped, and nothing ends the line."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def docstring(text: str) -> ast.Expr:
    return ast.Expr(ast.Constant(text))


def _body(statements: Sequence[ast.stmt], indent: str, spacing: int = 1, of_class: bool = False) -> list[str]:
    """The lines of a block; definitions in it stand ``spacing`` empty lines apart."""
    lines: list[str] = []
    previous: ast.stmt | None = None
    for index, statement in enumerate(statements):
        apart = 0
        if previous is not None:
            apart = 1 if index == 1 and of_class and _is_docstring(previous) else 0
            apart = apart or _empty_lines(previous, statement, index == 1, spacing)
        lines += [""] * apart
        lines += _commented_lines(statement, indent, is_docstring=index == 0 and _is_docstring(statement))
        previous = statement
    return lines


_Definition = ast.FunctionDef | ast.ClassDef
_Import = ast.Import | ast.ImportFrom


def _empty_lines(previous: ast.stmt, statement: ast.stmt, second: bool, spacing: int) -> int:
    definitions = isinstance(previous, _Definition) or isinstance(statement, _Definition)
    top = spacing == 2
    if second and _is_docstring(previous):
        return 2 if top and isinstance(statement, _Definition) else int(top or isinstance(statement, _Definition))
    if definitions:
        return spacing
    if top and (isinstance(previous, _Import) != isinstance(statement, _Import)):
        return 2 if isinstance(statement, ast.If) else 1
    if top and isinstance(previous, _Import):
        return int(_section(previous) != _section(statement))
    return 1 if top and isinstance(statement, ast.If) else 0


def _section(statement: ast.stmt) -> bool:
    """Whether an import is one of the standard library's."""
    text = ast.unparse(statement).split()[1]
    return text.split(".")[0] not in ("torch", "torchvision")


def _is_docstring(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )


def _commented_lines(statement: ast.stmt, indent: str, is_docstring: bool) -> list[str]:
    lines = _docstring(statement, indent) if is_docstring else list(_statement(statement, indent))
    above = [f"{indent}# {one_line(line)}".rstrip() for line in getattr(statement, "comments_above", ())]
    beside = getattr(statement, "comment_beside", "")
    if beside:
        whole = f"{lines[0]}  # {one_line(beside)}"
        if len(lines) == 1 and len(whole) <= WIDTH:
            lines = [whole]
        else:
            above.append(f"{indent}# {one_line(beside)}")
    return [*above, *lines]


def _docstring(statement: ast.stmt, indent: str) -> list[str]:
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Constant)
    text = inspect.cleandoc(str(statement.value.value)).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    lines = [one_line(line).rstrip() for line in text.split("\n")]
    if len(lines) == 1:
        closing = ' """' if lines[0].endswith('"') else '"""'
        return [f'{indent}"""{lines[0]}{closing}']
    lines[0] = f'"""{lines[0]}'
    return [*(f"{indent}{line}" if line else "" for line in lines), f'{indent}"""']


def _statement(node: ast.stmt, indent: str) -> Iterator[str]:
    match node:
        case ast.FunctionDef():
            yield from _function(node, indent)
        case ast.ClassDef():
            yield from (f"{indent}@{flat(each)}" for each in node.decorator_list)
            bases = f"({', '.join(flat(base) for base in node.bases)})" if node.bases else ""
            yield f"{indent}class {node.name}{bases}:"
            yield from _body(node.body, f"{indent}    ", of_class=True)
        case ast.Return():
            if node.value is None:
                yield f"{indent}return"
            else:
                yield from spread("return ", _bare(node.value, f"{indent}return "), "", indent)
        case ast.Expr(value=ast.Yield(value=value)):
            yield from spread("yield ", value, "", indent) if value else [f"{indent}yield"]
        case ast.Expr(value=ast.YieldFrom(value=value)):
            yield from spread("yield from ", value, "", indent)
        case ast.Expr():
            yield from spread("", node.value, "", indent)
        case ast.Assign():
            targets = "".join(f"{target_of(target)} = " for target in node.targets)
            yield from spread(targets, _bare(node.value, indent + targets), "", indent)
        case ast.AnnAssign():
            head = f"{flat(node.target)}: {flat(node.annotation)}"
            yield from spread(f"{head} = ", node.value, "", indent) if node.value else [f"{indent}{head}"]
        case ast.AugAssign():
            sign = BINARY[type(node.op)][0]
            yield from spread(f"{flat(node.target)} {sign}= ", node.value, "", indent)
        case _:
            yield from _compound(node, indent)


def _bare(node: ast.expr, before: str) -> ast.expr:
    """``a, b = c, d``: no brackets around what fits on the line."""
    if (
        isinstance(node, ast.Tuple)
        and len(node.elts) > 1
        and not any(isinstance(each, ast.Starred) for each in node.elts)
    ):
        text = ", ".join(flat(each) for each in node.elts)
        return ast.Name(text) if len(before) + len(text) <= WIDTH else node
    return node


def _compound(node: ast.stmt, indent: str) -> Iterator[str]:
    inner = f"{indent}    "
    match node:
        case ast.If():
            yield from _if(node, indent, "if")
        case ast.For():
            yield from spread(f"for {target_of(node.target)} in ", node.iter, ":", indent)
            yield from _body(node.body, inner)
            yield from _else(node.orelse, indent)
        case ast.While():
            yield from spread("while ", node.test, ":", indent)
            yield from _body(node.body, inner)
            yield from _else(node.orelse, indent)
        case ast.With():
            items = ", ".join(
                flat(item.context_expr) + (f" as {flat(item.optional_vars)}" if item.optional_vars else "")
                for item in node.items
            )
            yield f"{indent}with {items}:"
            yield from _body(node.body, inner)
        case ast.Raise() if node.exc and not node.cause:
            yield from spread("raise ", node.exc, "", indent)
        case _:
            yield from (f"{indent}{line}" for line in unparsed(node).split("\n"))


def _if(node: ast.If, indent: str, word: str) -> Iterator[str]:
    yield from spread(f"{word} ", node.test, ":", indent)
    yield from _body(node.body, f"{indent}    ")
    if len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
        yield from _if(node.orelse[0], indent, "elif")
    else:
        yield from _else(node.orelse, indent)


def _else(statements: Sequence[ast.stmt], indent: str) -> Iterator[str]:
    if statements:
        yield f"{indent}else:"
        yield from _body(statements, f"{indent}    ")


def _function(node: ast.FunctionDef, indent: str) -> Iterator[str]:
    yield from (f"{indent}@{flat(each)}" for each in node.decorator_list)
    answer = f" -> {flat(node.returns)}" if node.returns else ""
    parameters = list(_parameters(node.args))
    whole = f"{indent}def {node.name}({', '.join(parameters)}){answer}:"
    if len(whole) <= WIDTH:
        yield whole
    else:
        inner = f"{indent}    "
        together = f"{inner}{', '.join(parameters)}"
        yield f"{indent}def {node.name}("
        yield from [together] if len(together) <= WIDTH else (f"{inner}{each}," for each in parameters)
        yield f"{indent}){answer}:"
    yield from _body(node.body, f"{indent}    ")


def _parameters(node: ast.arguments) -> Iterator[str]:
    places = [*node.posonlyargs, *node.args]
    defaults = [None] * (len(places) - len(node.defaults)) + list(node.defaults)
    for index, (each, default) in enumerate(zip(places, defaults, strict=True)):
        yield _parameter(each, default)
        if node.posonlyargs and index == len(node.posonlyargs) - 1:
            yield "/"
    if node.vararg:
        yield f"*{_parameter(node.vararg)}"
    elif node.kwonlyargs:
        yield "*"
    yield from (_parameter(*pair) for pair in zip(node.kwonlyargs, node.kw_defaults, strict=True))
    if node.kwarg:
        yield f"**{_parameter(node.kwarg)}"


def _parameter(node: ast.arg, default: ast.expr | None = None) -> str:
    if node.annotation is None:
        return node.arg if default is None else f"{node.arg}={flat(default)}"
    head = f"{node.arg}: {flat(node.annotation)}"
    return head if default is None else f"{head} = {flat(default)}"
