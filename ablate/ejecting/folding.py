"""What is constant of a module, taken out of its methods: of ``if self.mode == "channel":`` the branch taken is left.

Constant are the attributes that hold plain values and that no method sets; never ``training``, never ``noise_seed``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from ablate.ejecting.make import literal
from ablate.ejecting.pretty import commented

NOISE = "noise_seed"
CHANGING = frozenset({"training", NOISE})
_TEXT_METHODS = frozenset({"startswith", "endswith", "lower", "upper"})


class NotConstant(Exception):
    """The expression reads something that is known only when the network runs."""


class Folder(ast.NodeTransformer):
    """Folds the methods of one module. ``name_of`` gives the code of an object that a mapping was asked for."""

    def __init__(
        self, module: nn.Module, names: Mapping[str, Any], set_later: frozenset[str], name_of: Callable[[Any], str]
    ) -> None:
        self.module, self.names, self.set_later, self.name_of = module, names, set_later | CHANGING, name_of
        self.left_out = False
        """Whether there was a branch that is never taken, other than one that complains."""

    def block(self, statements: Sequence[ast.stmt]) -> list[ast.stmt]:
        """Statements with branches that are never taken left out, and what stands behind a ``return``."""
        found: list[ast.stmt] = []
        for statement in statements:
            folded = self.visit(statement)
            found += folded if isinstance(folded, list) else [folded]
            if found and isinstance(found[-1], ast.Return | ast.Raise):
                break
        return found

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.body = _without_detour(self.block(node.body)) or [ast.Pass()]
        return node

    def visit_If(self, node: ast.If) -> ast.stmt | list[ast.stmt]:
        test = self.visit(node.test)
        try:
            taken, left = (node.body, node.orelse) if self.value(test) else (node.orelse, node.body)
            self.left_out = self.left_out or any(not isinstance(each, ast.Raise) for each in left)
            return self.block(taken)
        except NotConstant:
            node.test, node.body, node.orelse = test, self.block(node.body) or [ast.Pass()], self.block(node.orelse)
            return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        test = self.visit(node.test)
        try:
            chosen: ast.expr = self.visit(node.body if self.value(test) else node.orelse)
            self.left_out = True
            return chosen
        except NotConstant:
            node.test, node.body, node.orelse = test, self.visit(node.body), self.visit(node.orelse)
            return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        """``not self.training or self.rate == 0`` with a rate of 0.3 is ``not self.training``."""
        ends = isinstance(node.op, ast.Or)
        kept: list[ast.expr] = []
        for value in (self.visit(each) for each in node.values):
            try:
                truth = bool(self.value(value))
            except NotConstant:
                kept.append(value)
                continue
            if truth == ends:
                kept.append(ast.Constant(truth))
                break
        if len(kept) > 1:
            return ast.BoolOp(node.op, kept)
        return kept[0] if kept else ast.Constant(not ends)

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        if isinstance(node.value, ast.Name) and isinstance(self.names.get(node.value.id), Mapping):
            try:
                return settled(self.name_of(self.names[node.value.id][self.value(node.slice)]))
            except NotConstant:
                pass
        return self.generic_visit(node)  # type: ignore[return-value]

    def value(self, node: ast.expr) -> Any:
        """What the expression comes to for this module. ``NotConstant`` where only a forward pass knows."""
        match node:
            case ast.Constant():
                return node.value
            case ast.Attribute(value=ast.Name(id="self")):
                return self._attribute(node.attr)
            case ast.Name() if node.id in self.names and literal(self.names[node.id]):
                return self.names[node.id]
            case ast.Compare(ops=[ast.Is() | ast.IsNot()]):
                return self._is(node)
            case ast.Compare():
                return self._evaluated(node, [node.left, *node.comparators])
            case ast.UnaryOp():
                return self._evaluated(node, [node.operand])
            case ast.BoolOp():
                return self._evaluated(node, node.values)
            case ast.BinOp():
                return self._evaluated(node, [node.left, node.right])
            case ast.Tuple() | ast.List() | ast.Set():
                return self._evaluated(node, node.elts)
            case ast.Call(func=ast.Attribute(attr=method), keywords=[]) if method in _TEXT_METHODS:
                assert isinstance(node.func, ast.Attribute)
                if not isinstance(text := self.value(node.func.value), str):
                    raise NotConstant
                return getattr(text, method)(*(self.value(each) for each in node.args))
        raise NotConstant

    def _attribute(self, name: str) -> Any:
        if name in self.set_later or name in (*self.module._parameters, *self.module._buffers, *self.module._modules):
            raise NotConstant
        value = getattr(self.module, name, NotConstant)
        if not literal(value):
            raise NotConstant
        return value

    def _is(self, node: ast.Compare) -> bool:
        """``self.token is None``, of parameters and modules too."""
        (right,) = node.comparators
        if not isinstance(right, ast.Constant) or right.value is not None:
            raise NotConstant
        if isinstance(node.left, ast.Attribute) and isinstance(node.left.value, ast.Name):
            name = node.left.attr
            if node.left.value.id != "self" or not hasattr(self.module, name) or name in self.set_later - {NOISE}:
                raise NotConstant
            absent = name != NOISE and getattr(self.module, name) is None
        else:
            absent = self.value(node.left) is None
        return absent == isinstance(node.ops[0], ast.Is)

    def _evaluated(self, node: ast.expr, parts: Sequence[ast.expr]) -> Any:
        """The expression with its parts' values in their places."""
        values = {f"value{index}": self.value(part) for index, part in enumerate(parts)}
        places = [ast.Name(name, ast.Load()) for name in values]
        match node:
            case ast.Compare():
                whole: ast.expr = ast.Compare(places[0], node.ops, list(places[1:]))
            case ast.UnaryOp():
                whole = ast.UnaryOp(node.op, places[0])
            case ast.BoolOp():
                whole = ast.BoolOp(node.op, list(places))
            case ast.BinOp():
                whole = ast.BinOp(places[0], node.op, places[1])
            case _:
                whole = ast.Tuple(list(places), ast.Load())
        code = compile(ast.fix_missing_locations(ast.Expression(whole)), "<constant>", "eval")
        return eval(code, {"__builtins__": {}}, values)


def settled(text: str) -> ast.expr:
    """Code whose names are those of the ejected file already."""
    code = ast.parse(text, mode="eval").body
    for node in ast.walk(code):
        node.__dict__["settled"] = True
    return code


def _without_detour(body: list[ast.stmt]) -> list[ast.stmt]:
    """``y: Tensor = …; return y``, as type checkers ask for, is ``return …``."""
    body = [each for each in body if not (isinstance(each, ast.AnnAssign) and each.value is None)]
    match body[-2:]:
        case [ast.Assign(targets=[ast.Name(id=name)]), ast.Return(value=ast.Name(id=returned))] if name == returned:
            pass
        case [ast.AnnAssign(target=ast.Name(id=name)), ast.Return(value=ast.Name(id=returned))] if name == returned:
            pass
        case _:
            return body
    assert isinstance(body[-2], ast.Assign | ast.AnnAssign)
    answer = commented(ast.Return(body[-2].value), getattr(body[-2], "comments_above", ()))
    return [*body[:-2], answer]


def constant_of(tree: ast.FunctionDef) -> ast.Constant | None:
    """What a method returns, where folding left nothing else of it; ``None`` of a property."""
    body = [each for each in tree.body if not (isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant))]
    match body:
        case [ast.Return(value=ast.Constant() as value)] if not tree.decorator_list:
            return value
    return None


def _is_no_mask(word: ast.keyword) -> bool:
    """``attn_mask=None``, as torch has it anyway."""
    return word.arg == "attn_mask" and isinstance(word.value, ast.Constant) and word.value.value is None


class WithoutCalls(ast.NodeTransformer):
    """``attn_mask=self.mask(x)`` is left out where the method returns ``None`` and nothing else."""

    def __init__(self, constants: Mapping[str, ast.Constant]) -> None:
        self.constants = constants

    def visit_Call(self, node: ast.Call) -> ast.expr:
        self.generic_visit(node)
        node.keywords = [each for each in node.keywords if not _is_no_mask(each)]
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)) if name in self.constants:
                plain = all(isinstance(each, ast.Name | ast.Constant) for each in node.args) and not node.keywords
                return self.constants[name] if plain else node
        return node


def stores(functions: Sequence[ast.FunctionDef]) -> frozenset[str]:
    """The attributes of ``self`` that these set."""
    return frozenset(
        node.attr
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store | ast.Del)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    )
