"""Nodes of imported networks: a module of the original stays that, a function is called where it was called.

A part of several operations that can't be written as one expression becomes a class.
"""

from __future__ import annotations

import ast
import operator
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ablate.ejecting.make import literal
from ablate.ejecting.modules import Plan
from ablate.ejecting.names import camel
from ablate.ejecting.source import CannotEject, Sheet
from ablate.ejecting.torchmodules import is_torch
from ablate.graph import Graph, Node
from ablate.importing.imported import ImportedNode, ImportedParams, Program, imported
from ablate.importing.parts import Ref, Step, references
from ablate.importing.tracing import MODE

_OPERATORS: dict[Any, str] = {
    operator.add: "+",
    operator.iadd: "+",
    operator.sub: "-",
    operator.isub: "-",
    operator.mul: "*",
    operator.imul: "*",
    operator.truediv: "/",
    operator.itruediv: "/",
    operator.floordiv: "//",
    operator.mod: "%",
    operator.matmul: "@",
    operator.pow: "**",
    torch.add: "+",
    torch.mul: "*",
    torch.sub: "-",
}
LONGEST_CALL = 100
"""Characters of several operations that are still written as one expression; one alone may be of any length."""
_Code = Callable[[Ref], str]


def is_imported(node: Node) -> bool:
    return node.block is ImportedNode


def titles(graph: Graph) -> dict[str, str]:
    """Scope of an imported network → what its class is called in the original."""
    found: dict[str, str] = {}
    params = next((node.params for node in graph.nodes if isinstance(node.params, ImportedParams)), None)
    if params is not None:
        model = imported(params.origin, params.shape).meta
        for path, module in model.named_modules():
            if path and not is_torch(type(module)):
                found[path] = camel(type(module).__name__)
    return found


def expression_of(program: Program, sheet: Sheet) -> str | None:
    """The part as one expression of its inputs, ``{0}`` and on; ``None`` where it needs more."""
    part = program.part
    used = Counter(
        leaf.index for step in part.steps for leaf in references((step.args, step.kwargs)) if isinstance(leaf, Ref)
    )
    if part.modules or part.tensors or any(used[index] != 1 for index in range(len(part.steps) - 1)):
        return None
    codes: list[str] = []
    for step in part.steps:
        codes.append(
            _step(step, sheet, lambda ref: f"({codes[ref.index]})" if ref.index >= 0 else f"{{{-1 - ref.index}}}", True)
        )
    return codes[-1] if len(codes[-1]) <= LONGEST_CALL or len(part.steps) == 1 else None


def plan_of(program: Program, sheet: Sheet, name: str) -> Plan:
    """The class of a part that is several operations."""
    part = program.part

    def name_of(ref: Ref) -> str:
        return f"v{ref.index}" if ref.index >= 0 else f"x{-1 - ref.index}"

    lines = [f"v{index} = {_step(step, sheet, name_of)}" for index, step in enumerate(part.steps)]
    lines[-1] = "return " + lines[-1].partition(" = ")[2]
    arguments = ", ".join(f"x{index}: Tensor" for index in range(len(part.inputs)))
    code = f"def forward(self, {arguments}) -> Tensor:\n" + "".join(f"    {line}\n" for line in lines)
    (method,) = ast.parse(code).body
    assert isinstance(method, ast.FunctionDef)
    return Plan(program, nn.Module, [method], {}, title=camel(name.split(".")[-1]))


def _step(step: Step, sheet: Sheet, code: _Code, braces: bool = False) -> str:
    def said(value: Any) -> str:
        text = _argument(value, code)
        is_reference = isinstance(value, Ref)
        return (
            text
            if is_reference or not braces or any(isinstance(each, Ref) for each in references(value))
            else text.replace("{", "{{").replace("}", "}}")
        )

    words = [said(value) for value in step.args] + [f"{key}={said(value)}" for key, value in step.kwargs.items()]
    if step.kind == "tensor":
        return f"self.{step.target}"
    if step.kind == "module":
        return f"self.{step.target}({', '.join(words)})"
    if step.kind == "method":
        return f"{words[0]}.{step.target}({', '.join(words[1:])})"
    if step.target in _OPERATORS and len(words) == 2 and not step.kwargs:
        return f"{_bracketed(words[0])} {_OPERATORS[step.target]} {_bracketed(words[1])}"
    if step.target is operator.getitem:
        return f"{words[0]}[{_index(step.args[1], code)}]"
    if step.target is getattr and isinstance(step.args[1], str) and step.args[1].isidentifier():
        return f"{words[0]}.{step.args[1]}"
    return f"{sheet.reference(step.target, getattr(step.target, '__name__', 'function'))}({', '.join(words)})"


def _bracketed(text: str) -> str:
    return f"({text})" if " " in text and not text.startswith("(") else text


def _index(value: Any, code: _Code) -> str:
    if isinstance(value, slice):
        bounds = ["" if bound is None else _argument(bound, code) for bound in (value.start, value.stop)]
        step = "" if value.step is None else f":{_argument(value.step, code)}"
        return f"{bounds[0]}:{bounds[1]}{step}"
    if isinstance(value, tuple) and value:
        return ", ".join(_index(item, code) for item in value) + ("," if len(value) == 1 else "")
    return _argument(value, code)


def _argument(value: Any, code: _Code) -> str:
    if isinstance(value, Ref):
        return code(value)
    if value is MODE:
        return "self.training"
    if value is ...:
        return "..."
    if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
        return str(value)
    if isinstance(value, torch.device):
        return f"torch.device({str(value)!r})"
    if isinstance(value, list):
        return f"[{', '.join(_argument(item, code) for item in value)}]"
    if isinstance(value, tuple):
        items = ", ".join(_argument(item, code) for item in value)
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, slice):
        bounds = (value.start, value.stop, value.step)
        return f"slice({', '.join(_argument(bound, code) for bound in bounds)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_argument(item, code)}" for key, item in value.items()) + "}"
    if literal(value):
        return repr(value) if value not in (float("inf"), float("-inf")) else f'float("{value}")'
    raise CannotEject(f"the value {value!r} of an imported model")
