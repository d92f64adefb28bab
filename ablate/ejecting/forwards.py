"""The ``forward`` of a class, from its calls: chains on one line, a variable where a value is read twice."""

from __future__ import annotations

import ast
import builtins
import keyword
from collections.abc import Sequence
from dataclasses import dataclass

from ablate.ejecting.expressions import flat
from ablate.ejecting.make import is_attribute
from ablate.ejecting.pretty import commented
from ablate.ejecting.source import IMPORTS

LONGEST_CHAIN = 80
"""Characters of an expression that another is still written around."""
_RESERVED = {*IMPORTS, "self", "input", *dir(builtins), *keyword.kwlist, *keyword.softkwlist}


@dataclass
class Step:
    """One call: ``call`` is an expression of its inputs, ``{0}`` and on; inputs are numbers of steps, or -1, -2, …"""

    call: str
    inputs: tuple[int, ...]
    name: str
    light: bool
    comment: str = ""


def forward(steps: Sequence[Step], inputs: int, output: int) -> ast.FunctionDef:
    """``def forward(self, x)`` of these steps, in their order. Inputs are -1, -2, …; 0 of them: ``*x``, any number."""
    return _Writer(steps, inputs, output).function()


class _Writer:
    def __init__(self, steps: Sequence[Step], inputs: int, output: int) -> None:
        self.steps, self.output = steps, output
        self.is_open = inputs == 0
        self.arguments = ["x"] if inputs < 2 else [f"x{index}" for index in range(inputs)]
        self.readers: dict[int, list[int]] = {}
        for index, step in enumerate(steps):
            for source in step.inputs:
                self.readers.setdefault(source, []).append(index)
        self.readers.setdefault(output, []).append(len(steps))
        self.variables = {-1 - index: name for index, name in enumerate(self.arguments)}
        self.inlined: dict[int, ast.expr] = {}
        self.body: list[ast.stmt] = []

    def function(self) -> ast.FunctionDef:
        for index, step in enumerate(self.steps):
            self._write(index, step, self._expression(step))
        self._return()
        arguments = "*x: Tensor" if self.is_open else ", ".join(f"{name}: Tensor" for name in self.arguments)
        definition = ast.parse(f"def forward(self, {arguments}) -> Tensor: pass").body[0]
        assert isinstance(definition, ast.FunctionDef)
        definition.body = self.body
        return definition

    def _write(self, index: int, step: Step, code: ast.expr) -> None:
        readers = self.readers.get(index, [])
        if self._is_inlined(index, readers, code):
            self.inlined[index] = code
        elif not readers:
            self.body.append(commented(ast.Expr(code), beside=step.comment))
        else:
            name = self._variable(index, step, code)
            self.variables[index] = name
            target = ast.Name(name, ast.Store())
            self.body.append(commented(ast.Assign([target], code), beside=step.comment))

    def _is_inlined(self, index: int, readers: list[int], code: ast.expr) -> bool:
        """Whether the one reader is the next step, and is written around what it reads."""
        if readers != [index + 1]:
            return False
        if index + 1 == len(self.steps):
            return True
        return self.steps[index + 1].light and len(flat(code)) <= LONGEST_CHAIN

    def _expression(self, step: Step) -> ast.expr:
        parts = {f"input_{place}": self._read(source) for place, source in enumerate(step.inputs)}
        code = ast.parse(step.call.format(*parts), mode="eval").body
        return _Filled(parts).visit(code)  # type: ignore[no-any-return]

    def _read(self, source: int) -> ast.expr:
        return self.inlined.pop(source) if source in self.inlined else ast.Name(self.variables[source], ast.Load())

    def _variable(self, index: int, step: Step, code: ast.expr) -> str:
        """The name of what the expression reads, if nobody reads that later; else a new one."""
        live = {name for source, name in self.variables.items() if max(self.readers.get(source, [-1])) > index}
        read = [node.id for node in ast.walk(code) if isinstance(node, ast.Name) and node.id in self.variables.values()]
        own = step.name if is_attribute(step.name) and step.name not in _RESERVED else f"value{index}"
        return next(name for name in (*read, "y", "z", own, f"{own}_", f"value{index}_") if name not in live)

    def _return(self) -> None:
        comment = ""
        if self.output >= 0 and self.output in self.inlined:
            comment = self.steps[self.output].comment
        self.body.append(commented(ast.Return(self._read(self.output)), beside=comment))


class _Filled(ast.NodeTransformer):
    def __init__(self, parts: dict[str, ast.expr]) -> None:
        self.parts = parts

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.parts.get(node.id, node)
