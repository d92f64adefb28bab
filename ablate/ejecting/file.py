"""The whole file: what it is, its imports, its classes, and a run that shows that it works."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ablate.builder import build
from ablate.costing import cost_of
from ablate.ejecting.make import expression
from ablate.ejecting.modules import Modules
from ablate.ejecting.pretty import docstring, text_of
from ablate.ejecting.regions import Regions
from ablate.ejecting.source import IMPORTS, CannotEject, Sheet
from ablate.ejecting.writer import Writer
from ablate.graph import Call, Graph

LICENSE = "MIT License, Copyright (c) 2026 The ablate authors"

_DRAWING = ("nn.Dropout", "F.dropout", "noise_seed", "torch.rand", "stochastic_depth(", "bernoulli")
"""Signs of code that draws random numbers in training."""


@dataclass(frozen=True)
class About:
    """What the head of the file says of where it comes from."""

    title: str
    """The study and the variant."""
    commands: tuple[str, ...] = ()
    """What wrote the file, and what writes its weights."""


def written(graph: Graph, about: About, calls: Mapping[str, Call] | None = None) -> str:
    """A graph's network as one file of plain PyTorch. ``CannotEject`` where that can't be done, or came out different.

    ``calls`` are those of the graph as written, which a graph with insertions does not have: classes are called
    after them.
    """
    sheet = Sheet()
    modules = Modules(sheet)
    Writer(sheet, modules, Regions(graph, modules, graph.calls if calls is None else calls)).write()
    definitions: list[ast.stmt] = [*_constants(sheet.constants), *sheet.functions, *sheet.classes]
    for statement in definitions:
        ast.fix_missing_locations(statement)
    run = ast.parse(_run(graph)).body
    code = text_of(definitions)
    head = docstring(_head(graph, about, draws=any(word in code for word in _DRAWING), tables=sheet.tables))
    body: list[ast.stmt] = [head, *_imports(sheet, [*definitions, *run]), *definitions, *run]
    for statement in body:
        ast.fix_missing_locations(statement)
    text = text_of(body)
    check(text, graph)
    return text


def _constants(constants: Mapping[str, Any]) -> list[ast.stmt]:
    return [ast.Assign([ast.Name(name, ast.Store())], expression(value)) for name, value in constants.items()]


def _imports(sheet: Sheet, statements: list[ast.stmt]) -> list[ast.Import | ast.ImportFrom]:
    """The imports that the file reads, in order: the standard library's, then torch's."""
    names = {node.id for statement in statements for node in ast.walk(statement) if isinstance(node, ast.Name)}
    wanted = {IMPORTS[name] for name in IMPORTS if name in names}
    for line in sheet.imports - set(IMPORTS.values()):
        (statement,) = ast.parse(line).body
        assert isinstance(statement, ast.Import | ast.ImportFrom)
        if any((alias.asname or alias.name).split(".")[0] in names for alias in statement.names):
            wanted.add(line)
    found: dict[str, ast.Import | ast.ImportFrom] = {}
    for line in sorted(wanted):
        (statement,) = ast.parse(line).body
        if isinstance(statement, ast.ImportFrom):
            merged = found.setdefault(f"from {statement.module} {statement.names[0].asname}", statement)
            assert isinstance(merged, ast.ImportFrom)
            if merged is not statement:
                merged.names = sorted([*merged.names, *statement.names], key=lambda alias: alias.name)
        elif isinstance(statement, ast.Import):
            found[line] = statement
    return sorted(found.values(), key=_import_order)


def _import_order(statement: ast.Import | ast.ImportFrom) -> tuple[bool, bool, str]:
    module = statement.module if isinstance(statement, ast.ImportFrom) else statement.names[0].name
    return (module or "").split(".")[0] in ("torch", "torchvision"), isinstance(statement, ast.ImportFrom), module or ""


def _run(graph: Graph) -> str:
    shape = ", ".join(str(side) for side in (2, *graph.input_shape))
    return f"""
if __name__ == "__main__":
    network = Network().eval()
    scores = network(torch.randn({shape}))
    count = sum(parameter.numel() for parameter in network.parameters())
    print(f"output {{tuple(scores.shape)}}, {{count:,}} parameters")
"""


def _head(graph: Graph, about: About, draws: bool, tables: Collection[str]) -> str:
    cost = cost_of(graph)
    lines = [
        f"{about.title}: a network in plain PyTorch.",
        "",
        f"{cost.params:,} parameters; {cost.flops:,} FLOPs (multiply-accumulates) for one input of shape "
        f"{graph.input_shape}.",
        f"Graph {graph.fingerprint}. Written by ablate, which it does not need:",
        "",
        *(f"    {command}" for command in about.commands),
        "",
        "``Network()`` starts as torch has it. The names and shapes of the weights are those of the network in ablate:",
        '``Network().load_state_dict(weights, strict=True)`` takes what "ablate export" writes, and then gives what it',
        "gives, bit for bit. Shapes in comments are those of one example, without the batch.",
    ]
    if draws:
        lines += [
            "",
            "What draws random numbers in training draws them from torch's global stream: ``torch.manual_seed``",
            "repeats them. In ablate each such module has a stream of its own.",
        ]
    if tables:
        lines += ["", f"Computed once, and zeros here until the weights are loaded: {', '.join(sorted(tables))}."]
    lines += ["", f"The blocks' code is ablate's ({LICENSE}), or that of who wrote the block."]
    return "\n".join(lines)


def check(text: str, graph: Graph) -> None:
    """Run the file: the same weights by the same names in the same order, and equal outputs for two random examples."""
    space: dict[str, Any] = {"__name__": "ejected"}
    exec(compile(text, "<ejected>", "exec"), space)
    ours, theirs = build(graph).eval(), space["Network"]().eval()
    weights = ours.state_dict()
    if list(theirs.state_dict()) != list(weights) or _names(ours) != _names(theirs):
        missing = sorted(set(weights) ^ set(theirs.state_dict())) or ["their order"]
        raise CannotEject(f"came out with other weights than the network has: {', '.join(missing[:3])}")
    theirs.load_state_dict(weights, strict=True)
    inputs = torch.randn(2, *graph.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if not torch.equal(ours(inputs).nan_to_num(), theirs(inputs).nan_to_num()):
            raise CannotEject("came out with other outputs than the network gives")


def _names(network: nn.Module) -> list[str]:
    return [name for name, _ in network.named_parameters()]
