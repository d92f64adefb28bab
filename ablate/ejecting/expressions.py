"""Expressions as text, as ``ruff format`` and ``black`` have them: on one line, or broken at the outermost brackets."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator, Sequence

WIDTH = 120
_LOWEST, _TERNARY, _OR, _AND, _NOT, _COMPARE, _UNARY, _POWER, _ATOM = 0, 1, 2, 3, 4, 5, 12, 13, 15
BINARY: dict[type[ast.operator], tuple[str, int]] = {
    ast.BitOr: ("|", 6),
    ast.BitXor: ("^", 7),
    ast.BitAnd: ("&", 8),
    ast.LShift: ("<<", 9),
    ast.RShift: (">>", 9),
    ast.Add: ("+", 10),
    ast.Sub: ("-", 10),
    ast.Mult: ("*", 11),
    ast.Div: ("/", 11),
    ast.FloorDiv: ("//", 11),
    ast.Mod: ("%", 11),
    ast.MatMult: ("@", 11),
    ast.Pow: ("**", _POWER),
}
_UNARIES: dict[type[ast.unaryop], str] = {ast.USub: "-", ast.UAdd: "+", ast.Invert: "~", ast.Not: "not "}
_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.In: "in",
    ast.NotIn: "not in",
}


def flat(node: ast.expr) -> str:
    """An expression on one line."""
    return _flat(node)[0]


# Expressions on one line, each with its precedence.


def _flat(node: ast.expr) -> tuple[str, int]:
    match node:
        case ast.Name():
            return node.id, _ATOM
        case ast.Constant():
            return _constant(node.value)
        case ast.Attribute():
            dotted = at_least(node.value, _ATOM)
            whole = isinstance(node.value, ast.Constant) and isinstance(node.value.value, int)
            return f"({dotted}).{node.attr}" if whole else f"{dotted}.{node.attr}", _ATOM
        case ast.Call():
            return f"{at_least(node.func, _ATOM)}({', '.join(_arguments(node))})", _ATOM
        case ast.Subscript():
            return f"{at_least(node.value, _ATOM)}[{_subscript(node.slice)}]", _ATOM
        case ast.Tuple():
            inner = ", ".join(flat(item) for item in node.elts)
            return f"({inner},)" if len(node.elts) == 1 else f"({inner})", _ATOM
        case ast.List() | ast.Set():
            opening, closing = ("[", "]") if isinstance(node, ast.List) else ("{", "}")
            return f"{opening}{', '.join(flat(item) for item in node.elts)}{closing}", _ATOM
        case ast.Dict():
            return "{" + ", ".join(_pair(*pair) for pair in zip(node.keys, node.values, strict=True)) + "}", _ATOM
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
            opening, closing = _brackets(node)
            return f"{opening}{' '.join(_comprehension(node))}{closing}", _ATOM
        case ast.Starred():
            return f"*{at_least(node.value, 6)}", _LOWEST
    return _flat_operation(node)


def _flat_operation(node: ast.expr) -> tuple[str, int]:
    match node:
        case ast.BinOp():
            return _binary(node)
        case ast.UnaryOp():
            level = _NOT if isinstance(node.op, ast.Not) else _UNARY
            return f"{_UNARIES[type(node.op)]}{at_least(node.operand, level)}", level
        case ast.BoolOp():
            word, level = (" and ", _AND) if isinstance(node.op, ast.And) else (" or ", _OR)
            return word.join(at_least(value, level + 1) for value in node.values), level
        case ast.Compare():
            parts = [at_least(node.left, _COMPARE + 1)]
            for operator, right in zip(node.ops, node.comparators, strict=True):
                parts += [_COMPARISONS[type(operator)], at_least(right, _COMPARE + 1)]
            return " ".join(parts), _COMPARE
        case ast.IfExp():
            test, body = at_least(node.test, _OR), at_least(node.body, _OR)
            return f"{body} if {test} else {at_least(node.orelse, _TERNARY)}", _TERNARY
    if isinstance(node, ast.JoinedStr):
        text = ast.unparse(node)
        return (f'f"{text[2:-1]}"' if text.startswith("f'") and '"' not in text else text), _ATOM
    return unparsed(node), _LOWEST


def at_least(node: ast.expr, level: int) -> str:
    text, own = _flat(node)
    return text if own >= level else f"({text})"


def unparsed(node: ast.AST) -> str:
    """What there is no rule for, with double quotes."""
    text = ast.unparse(node)
    strings = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type == tokenize.STRING]
    lines = text.split("\n")
    for token in reversed(strings):
        row, start = token.start[0] - 1, token.start[1]
        if token.start[0] == token.end[0] and token.string[0] == "'" and '"' not in token.string:
            lines[row] = f'{lines[row][:start]}"{token.string[1:-1]}"{lines[row][token.end[1] :]}'
    return "\n".join(lines)


def _constant(value: object) -> tuple[str, int]:
    if isinstance(value, str):
        text = repr(value)
        if text.startswith("'") and '"' not in value:
            text = '"' + text[1:-1].replace("\\'", "'") + '"'
        return text, _ATOM
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return f'float("{value}")', _ATOM
    return ("..." if value is ... else repr(value)), _ATOM


def _arguments(node: ast.Call) -> list[str]:
    if len(node.args) == 1 and not node.keywords and isinstance(node.args[0], ast.GeneratorExp):
        return [flat(node.args[0])[1:-1]]
    return [*(flat(each) for each in node.args), *(_keyword(each) for each in node.keywords)]


def _keyword(node: ast.keyword) -> str:
    return f"{node.arg}={flat(node.value)}" if node.arg else f"**{at_least(node.value, 6)}"


def _pair(key: ast.expr | None, value: ast.expr) -> str:
    return f"{flat(key)}: {flat(value)}" if key else f"**{at_least(value, 6)}"


def _brackets(node: ast.expr) -> tuple[str, str]:
    if isinstance(node, ast.List | ast.ListComp):
        return "[", "]"
    return ("{", "}") if isinstance(node, ast.Set | ast.SetComp | ast.Dict | ast.DictComp) else ("(", ")")


def _comprehension(node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> Iterator[str]:
    yield _pair(node.key, node.value) if isinstance(node, ast.DictComp) else flat(node.elt)
    for part in node.generators:
        yield f"for {target_of(part.target)} in {at_least(part.iter, _OR)}"
        yield from (f"if {at_least(test, _OR)}" for test in part.ifs)


def target_of(node: ast.expr) -> str:
    return ", ".join(flat(item) for item in node.elts) if isinstance(node, ast.Tuple) and node.elts[1:] else flat(node)


def _binary(node: ast.BinOp) -> tuple[str, int]:
    sign, level = BINARY[type(node.op)]
    if isinstance(node.op, ast.Pow):
        left, right = at_least(node.left, level + 1), at_least(node.right, _UNARY)
        between = "**" if _is_simple(node.left) and _is_simple(node.right) else " ** "
        return f"{left}{between}{right}", level
    return f"{at_least(node.left, level)} {sign} {at_least(node.right, level + 1)}", level


def _is_simple(node: ast.expr) -> bool:
    """A name, a number, a dotted name, each perhaps with a sign: powers of those have no spaces."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    if isinstance(node, ast.Attribute):
        return _is_simple(node.value) and not isinstance(node.value, ast.Constant)
    return isinstance(node, ast.Name) or (isinstance(node, ast.Constant) and isinstance(node.value, int | float))


def _subscript(node: ast.expr) -> str:
    if isinstance(node, ast.Tuple) and node.elts:
        items = ", ".join(_slice(item) for item in node.elts)
        return f"{items}," if len(node.elts) == 1 else items
    return _slice(node)


def _slice(node: ast.expr) -> str:
    if not isinstance(node, ast.Slice):
        return flat(node)
    bounds = [node.lower, node.upper, *([node.step] if node.step else [])]
    plain = all(bound is None or _is_plain_bound(bound) for bound in bounds)
    texts = ["" if bound is None else flat(bound) for bound in bounds]
    if plain:
        return ":".join(texts)
    text = texts[0]
    for bound in texts[1:]:
        text += (" :" if text and not text.endswith(":") else ":") + (f" {bound}" if bound else "")
    return text


def _is_plain_bound(node: ast.expr) -> bool:
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node = node.operand
    return isinstance(node, ast.Name | ast.Constant)


# Expressions that are too long for a line.


def spread(prefix: str, node: ast.expr, suffix: str, indent: str) -> list[str]:
    """``prefix node suffix`` on one line, or broken at the outermost brackets."""
    whole = f"{indent}{prefix}{flat(node)}{suffix}"
    if len(whole) <= WIDTH:
        return [whole]
    inner = f"{indent}    "
    match node:
        case ast.Call() if node.args or node.keywords:
            opening, closing = f"{at_least(node.func, _ATOM)}(", ")"
            body = _broken_call(node, inner)
        case ast.Subscript():
            opening, closing = f"{at_least(node.value, _ATOM)}[", "]"
            body = _broken_items(node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice], inner)
        case ast.List() | ast.Set() | ast.Tuple() if node.elts:
            opening, closing = _brackets(node)
            body = [line for item in node.elts for line in spread("", item, ",", inner)]
        case ast.Dict() if node.keys:
            opening, closing = "{", "}"
            body = [line for pair in zip(node.keys, node.values, strict=True) for line in _spread_pair(*pair, inner)]
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
            opening, closing = _brackets(node)
            body = [f"{inner}{part}" for part in _comprehension(node)]
        case ast.Starred():
            return spread(f"{prefix}*", node.value, suffix, indent)
        case ast.BinOp() | ast.BoolOp() | ast.Compare() | ast.IfExp():
            opening, closing = "(", ")"
            body = _broken_operation(node, inner)
        case _:
            return [whole]
    return [f"{indent}{prefix}{opening}", *body, f"{indent}{closing}{suffix}"]


def _broken_call(node: ast.Call, indent: str) -> list[str]:
    together = f"{indent}{', '.join(_arguments(node))}"
    if len(together) <= WIDTH:
        return [together]
    if len(node.args) == 1 and not node.keywords and isinstance(node.args[0], ast.GeneratorExp):
        return [f"{indent}{part}" for part in _comprehension(node.args[0])]
    lines = [line for each in node.args for line in spread("", each, ",", indent)]
    for each in node.keywords:
        lines += spread(f"{each.arg}=" if each.arg else "**", each.value, ",", indent)
    return lines


def _broken_items(items: Sequence[ast.expr], indent: str) -> list[str]:
    together = f"{indent}{', '.join(_slice(item) for item in items)}"
    if len(together) <= WIDTH:
        return [together]
    return [line for item in items for line in spread("", item, "," if items[1:] else "", indent)]


def _spread_pair(key: ast.expr | None, value: ast.expr, indent: str) -> list[str]:
    return spread(f"{flat(key)}: " if key else "**", value, ",", indent)


def _broken_operation(node: ast.BinOp | ast.BoolOp | ast.Compare | ast.IfExp, indent: str) -> list[str]:
    together = f"{indent}{flat(node)}"
    if len(together) <= WIDTH:
        return [together]
    match node:
        case ast.IfExp():
            first = spread("", node.body, "", indent)
            test = spread("if ", node.test, "", indent)
            return [*first, *test, *spread("else ", node.orelse, "", indent)]
        case ast.BoolOp():
            word = "and" if isinstance(node.op, ast.And) else "or"
            return [
                line
                for index, value in enumerate(node.values)
                for line in spread(f"{word} " if index else "", value, "", indent)
            ]
        case ast.BinOp():
            sign, level = BINARY[type(node.op)]
            same = isinstance(node.left, ast.BinOp) and BINARY[type(node.left.op)][1] == level
            left = _broken_operation(node.left, indent) if same else spread("", node.left, "", indent)  # type: ignore[arg-type]
            return [*left, *spread(f"{sign} ", node.right, "", indent)]
    return [together]
