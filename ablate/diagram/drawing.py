"""What a picture of networks shows, as values: items with a state, links between them. No shapes, no places."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ablate.block import Shape
from ablate.graph import INPUT, OUTPUT, Graph, Node

State = Literal["same", "added", "removed", "changed"]


@dataclass(frozen=True)
class Item:
    """One node of the picture."""

    name: str
    lines: tuple[str, ...]
    """Under the name: its block, its output's shape, what changed."""
    state: State = "same"
    inserted: bool = False
    signature: str = ""
    """Equal for nodes that are equal but for their names."""


@dataclass(frozen=True)
class Link:
    """An edge: a value that ``target`` reads."""

    source: str
    target: str
    state: State = "same"


@dataclass(frozen=True)
class Drawing:
    """Items in topological order, the network's input and output among them, and the links between them."""

    title: str
    items: tuple[Item, ...]
    links: tuple[Link, ...]
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Scope → what it was made by: ``basic ×3``."""


def drawing_of(graph: Graph, title: str, kinds: Mapping[str, str] | None = None) -> Drawing:
    """A graph, nothing of it changed."""
    items = [
        Item(INPUT, (shape_text(graph.input_shape),)),
        *(item_of(node) for node in graph.nodes),
        Item(OUTPUT, (shape_text(graph.shape(graph.output)),)),
    ]
    links = dict.fromkeys(Link(source, consumer) for source, consumer, _ in graph.edges())
    return Drawing(title, tuple(items), tuple(links), kinds or {})


def item_of(node: Node, state: State = "same", more: tuple[str, ...] = ()) -> Item:
    """A node, with ``more`` lines below its block and shape."""
    signature = json.dumps([node.block.name, node.effective, node.shapes, node.shape], sort_keys=True, default=str)
    lines = (f"{node.block.name} {shape_text(node.shape)}", *more)
    return Item(node.name, lines, state, node.insertion is not None, signature)


def kinds_of(graph: Graph) -> dict[str, str]:
    """What the scopes of a graph as written were made by: composites, and blocks that were repeated."""
    return {
        name: call.block.name + (f" ×{graph.repeats[name]}" if name in graph.repeats else "")
        for name, call in graph.calls.items()
    }


def shape_text(shape: Shape) -> str:
    return "×".join(str(size) for size in shape)
