"""The whole file: what it is, its imports, its classes, and what it does when it is run; then it is checked."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ablate.costing import cost_of
from ablate.ejecting.checking import check
from ablate.ejecting.make import expression
from ablate.ejecting.modules import Modules
from ablate.ejecting.pretty import docstring, text_of
from ablate.ejecting.regions import Regions
from ablate.ejecting.source import IMPORTS, Sheet
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
    command: str = "ablate eject SPEC"
    """What wrote the file."""
    weights: str = "ablate export SPEC --to safetensors"
    """What writes its weights."""


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
        f"    {about.command}",
        "",
        "WARNING: training from this file alone does not repeat the study. ``Network()`` starts with torch's own first",
        "values, not with those of the study's seeds. This writes the study's (with --seed N, those of seed N):",
        "",
        f"    {about.weights}",
        "",
        "and this loads them, after which the outputs are those of the network in ablate, bit for bit:",
        "",
        "    from safetensors.torch import load_file",
        "    network = Network()",
        '    network.load_state_dict(load_file("FILE.safetensors"), strict=True)',
        "",
        "Shapes, in comments and docstrings, are those of one example, without the batch.",
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
