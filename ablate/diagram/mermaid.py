"""A graph, or a folded picture, as a Mermaid flowchart. Every text is escaped."""

from __future__ import annotations

from collections.abc import Mapping

from ablate.diagram.drawing import State, shape_text
from ablate.diagram.folding import Box, Picture, Unit, boxes
from ablate.diagram.labels import frame_title, texts
from ablate.graph import INPUT, OUTPUT, Graph

STYLE: dict[State, str] = {
    "same": "fill:#f3f4f6,stroke:#6e7781,color:#1f2328",
    "added": "fill:#dafbe1,stroke:#1a7f37,color:#1f2328,stroke-width:2px",
    "removed": "fill:#ffebe9,stroke:#cf222e,color:#1f2328,stroke-width:2px,stroke-dasharray:5 3",
    "changed": "fill:#fff3c4,stroke:#9a6700,color:#1f2328,stroke-width:2px",
}


def mermaid(graph: Graph) -> str:
    """The graph as a Mermaid flowchart, a subgraph for each scope."""
    ids = {INPUT: "input", **{node.name: f"n{index}" for index, node in enumerate(graph.nodes)}}
    lines = ["flowchart TD", f'  input(["input {shape_text(graph.input_shape)}"])']
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
            lines.append("  " * len(opened) + f'subgraph {ids[node.name]}_{len(opened)} ["{escaped(scope)}"]')
        text = f"{escaped(node.name.rsplit('.', 1)[-1])}<br/>{escaped(node.block.name)} {shape_text(node.shape)}"
        lines.append("  " * (len(opened) + 1) + f'{ids[node.name]}["{text}"]')
    lines += ["  " * depth + "end" for depth in range(len(opened), 0, -1)]
    return lines


def mermaid_of(picture: Picture) -> str:
    """A folded picture as a Mermaid flowchart: what was removed is dashed."""
    ids = {box.key: f"n{index}" for index, box in enumerate(boxes(picture.units))}
    lines = ["flowchart TD"]
    for index, unit in enumerate(picture.units):
        lines += _unit(unit, ids, f"s{index}", 1)
    for link in picture.links:
        arrow = "-.->" if link.state == "removed" else "-->"
        lines.append(f"  {ids[link.source]} {arrow} {ids[link.target]}")
    for state, style in STYLE.items():
        own = [ids[box.key] for box in boxes(picture.units) if box.state == state]
        if own:
            lines += [f"  classDef {state} {style}", f"  class {','.join(own)} {state}"]
    for index, link in enumerate(picture.links):
        if link.state != "same":
            colour = STYLE[link.state].partition("stroke:")[2].partition(",")[0]
            lines.append(f"  linkStyle {index} stroke:{colour},stroke-width:2px")
    return "\n".join(lines) + "\n"


def _unit(unit: Unit, ids: Mapping[str, str], key: str, depth: int) -> list[str]:
    inset = "  " * depth
    if isinstance(unit, Box):
        return [f'{inset}{ids[unit.key]}["{"<br/>".join(escaped(text) for text in texts(unit))}"]']
    inner = [
        line for index, child in enumerate(unit.children) for line in _unit(child, ids, f"{key}_{index}", depth + 1)
    ]
    return [f'{inset}subgraph {key} ["{escaped(frame_title(unit))}"]', *inner, f"{inset}end"]


def escaped(text: str) -> str:
    """Text within quotes: Mermaid writes characters as ``#35;``, and reads Markdown and HTML in what is left."""
    return "".join(
        character if character.isalnum() or character in " ._-,:()×→≠+−…/=" else f"#{ord(character)};"
        for character in text
    )
