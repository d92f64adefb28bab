"""The graph as a Mermaid flowchart."""

from __future__ import annotations

from collections.abc import Mapping

from ablate.block import Shape
from ablate.graph import INPUT, OUTPUT, Graph


def mermaid(graph: Graph) -> str:
    """The graph as a Mermaid flowchart, a subgraph for each scope."""
    ids = {INPUT: "input", **{node.name: f"n{index}" for index, node in enumerate(graph.nodes)}}
    lines = ["flowchart TD", f'  input(["input {_shape_text(graph.input_shape)}"])']
    lines += _mermaid_scope(graph, ids)
    lines.append('  output(["output"])')
    for source, consumer, _ in graph.edges():
        lines.append(f"  {ids[source]} --> {ids.get(consumer, OUTPUT)}")
    inserted = [ids[node.name] for node in graph.nodes if node.insertion]
    if inserted:
        lines += ["  classDef inserted stroke-width:3px", f"  class {','.join(inserted)} inserted"]
    return "\n".join(lines) + "\n"


def _mermaid_scope(graph: Graph, ids: Mapping[str, str]) -> list[str]:
    lines: list[str] = []
    opened: list[str] = []
    for node in graph.nodes:
        scopes = node.name.split(".")[:-1]
        shared = 0
        while shared < min(len(opened), len(scopes)) and opened[shared] == scopes[shared]:
            shared += 1
        while len(opened) > shared:
            opened.pop()
            lines.append("  " * (len(opened) + 1) + "end")
        for scope in scopes[shared:]:
            opened.append(scope)
            lines.append("  " * len(opened) + f'subgraph {ids[node.name]}_{len(opened)} ["{scope}"]')
        text = f"{node.name.rsplit('.', 1)[-1]}<br/>{node.block.name} {_shape_text(node.shape)}"
        lines.append("  " * (len(opened) + 1) + f'{ids[node.name]}["{text}"]')
    lines += ["  " * depth + "end" for depth in range(len(opened), 0, -1)]
    return lines


def _shape_text(shape: Shape) -> str:
    return "×".join(str(size) for size in shape)
