"""The code of methods and functions, as it is in their files, with everything that it refers to brought along.

``Sheet`` is the file that is being written: its imports, constants, functions and classes, and the names that they
have.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import io
import math
import sys
import textwrap
import tokenize
from collections.abc import Iterator
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ablate.ejecting.make import literal, same
from ablate.ejecting.pretty import commented

MODULES = {torch: "torch", nn: "nn", F: "F", math: "math"}
IMPORTS = {
    "torch": "import torch",
    "nn": "from torch import nn",
    "F": "from torch.nn import functional as F",
    "math": "import math",
    "Tensor": "from torch import Tensor",
    "OrderedDict": "from collections import OrderedDict",
}
_OLD_ANNOTATIONS = ("Optional", "Union", "List", "Dict", "Tuple", "Set", "Type")
_ANNOTATION_HOMES = ("builtins", "typing", "collections.abc", "torch", "types")


class CannotEject(ValueError):
    """Something can't stand in a file of its own; the sentence says what, and of which block."""


class Sheet:
    """What the ejected file holds."""

    def __init__(self) -> None:
        self.imports: set[str] = set()
        self.constants: dict[str, Any] = {}
        self.functions: list[ast.FunctionDef] = []
        self.classes: list[ast.ClassDef] = []
        self.tables: set[str] = set()
        """Buffers that are zeros until the weights are loaded."""
        self._names: dict[Any, str] = {}
        self._taken = {*IMPORTS, "Network", "self", *dir(builtins)}

    def uses(self, name: str) -> str:
        self.imports.add(IMPORTS[name])
        return name

    def claim(self, wanted: str) -> str:
        """A name that nothing else at the top of the file has: the one that is wanted, or that with a number."""
        name, number = wanted, 2
        while name in self._taken:
            name, number = f"{wanted}{number}", number + 1
        self._taken.add(name)
        return name

    def release(self, name: str) -> None:
        """A name that was kept free for what is written last."""
        self._taken.discard(name)

    def reference(self, value: Any, wanted: str) -> str:
        """The code by which the file speaks of an object: imported, or brought along. ``CannotEject`` if neither."""
        if isinstance(value, ModuleType):
            return self._module(value)
        if literal(value):
            return self._constant(value, wanted)
        home, name = getattr(value, "__module__", "") or "", getattr(value, "__name__", wanted)
        if getattr(builtins, name, None) is value:
            return name
        if home.split(".")[0] in sys.stdlib_module_names:
            self.imports.add(f"from {home.lstrip('_')} import {name}")
            self._taken.add(name)
            return name
        for module, code in ((F, "F"), (torch, "torch"), (nn, "nn")):
            if getattr(module, name, None) is value and name != "Tensor":
                return f"{self.uses(code)}.{name}"
        if value is torch.Tensor:
            return self.uses("Tensor")
        if home.startswith("torchvision.ops"):
            self.imports.add(f"from {home} import {name}")
            self._taken.add(name)
            return name
        if isinstance(value, FunctionType):
            return self._function(value)
        raise CannotEject(f"'{wanted}', which is neither torch's nor a function, a number or text")

    def _module(self, module: ModuleType) -> str:
        if module in MODULES:
            return self.uses(MODULES[module])
        root = module.__name__.split(".")[0]
        if root == "torch":
            self.uses("torch")
        elif root in sys.stdlib_module_names or module.__name__ == "torchvision.ops":
            self.imports.add(f"import {module.__name__}")
        else:
            raise CannotEject(f"the module '{module.__name__}', and an ejected file imports torch alone")
        return module.__name__

    def _constant(self, value: Any, wanted: str) -> str:
        for name, known in self.constants.items():
            if same(known, value) and name.rstrip("0123456789") == wanted:
                return name
        name = self.claim(wanted)
        self.constants[name] = value
        return name

    def _function(self, function: FunctionType) -> str:
        if function not in self._names:
            # Named before it is read: it may call itself.
            self._names[function] = self.claim(function.__name__.lstrip("_") or "function")
            tree = tree_of(function)
            tree.decorator_list = []
            self.functions.append(self.adopted(tree, function, rename=self._names[function]))
        return self._names[function]

    def adopted(self, tree: ast.FunctionDef, function: FunctionType, rename: str = "") -> ast.FunctionDef:
        """A function's tree, in place, with every name that it reads from its module as the file has it."""
        own = locals_of(tree)
        known = names_of(function)
        _Annotations(self, known).visit(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id not in own:
                if getattr(node, "settled", False):
                    continue
                if node.id in known:
                    node.id = self._named_in(node.id, known[node.id], own)
                elif not hasattr(builtins, node.id):
                    raise CannotEject(f"'{node.id}', which is not to be found in '{function.__module__}'")
        tree.name = rename or tree.name
        return tree

    def _named_in(self, name: str, value: Any, own: frozenset[str]) -> str:
        code = self.reference(value, name)
        if code.split(".")[0] in own:
            raise CannotEject(f"'{name}': the code has a variable called '{code.split('.')[0]}'")
        return code


class _Annotations(ast.NodeTransformer):
    """Leaves out the annotations that speak of what the file does not have."""

    def __init__(self, sheet: Sheet, known: dict[str, Any]) -> None:
        self.sheet, self.known = sheet, known

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.returns = self._kept(node.returns)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = self._kept(node.annotation)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt | None:
        kept = self._kept(node.annotation)
        if kept is not None:
            return node
        if node.value is None:
            return None
        plain = ast.Assign([node.target], node.value)
        return commented(ast.copy_location(plain, node), getattr(node, "comments_above", ()))

    def _kept(self, node: ast.expr | None) -> ast.expr | None:
        if node is None or any(isinstance(part, ast.Constant) and part.value is not None for part in ast.walk(node)):
            return None
        names = [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]
        return node if all(self._is_common(name) for name in names) else None

    def _is_common(self, name: str) -> bool:
        if name not in self.known:
            return hasattr(builtins, name)
        value = self.known[name]
        if name in _OLD_ANNOTATIONS:
            return False
        home = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "")
        return any(home == each or home.startswith(f"{each}.") for each in _ANNOTATION_HOMES)


def names_of(function: FunctionType) -> dict[str, Any]:
    """What a function sees of the world: its module's names, and those of the functions around it."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    around = {name: cell.cell_contents for name, cell in cells if name != "__class__"}
    return {**function.__globals__, **around}


def locals_of(tree: ast.FunctionDef) -> frozenset[str]:
    """The names that a function makes itself: parameters, variables, those of comprehensions."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    inner = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node is not tree}
    return frozenset(names | inner | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)})


def tree_of(function: FunctionType) -> ast.FunctionDef:
    """A function's syntax tree, a fresh one, with its comments at its statements."""
    return _parsed(_source(function), function.__qualname__)


@cache
def _source(function: FunctionType) -> str:
    try:
        return textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        raise CannotEject(f"'{function.__qualname__}', whose source is not in a file") from None


def _parsed(source: str, name: str) -> ast.FunctionDef:
    try:
        (tree,) = ast.parse(source).body
    except (SyntaxError, ValueError):
        tree = ast.Pass()
    if not isinstance(tree, ast.FunctionDef):
        raise CannotEject(f"'{name}', which is not a function written with 'def'")
    comments = dict(_comments(source))
    lines = source.split("\n")
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and node is not tree:
            above = list(_block_above(node.lineno, comments, lines))
            commented(node, above, comments.get(node.end_lineno or 0, "") if _is_line(node) else "")
    return tree


def _is_line(node: ast.stmt) -> bool:
    return not isinstance(node, ast.If | ast.For | ast.While | ast.With | ast.FunctionDef | ast.Try)


def _comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith(("# type:", "# noqa", "#!")):
            yield token.start[0], token.string.lstrip("#").strip()


def _block_above(line: int, comments: dict[int, str], lines: list[str]) -> list[str]:
    """The comment that ends on the line above."""
    first = line
    while first - 1 in comments and lines[first - 2].lstrip().startswith("#"):
        first -= 1
    return [comments[number] for number in range(first, line)]
