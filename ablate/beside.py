"""Two variants side by side, for a reader: the tables and the picture of a ``Comparison``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ablate.block import Shape
from ablate.design.variant import Variant
from ablate.diagram.drawing import Drawing, Item, Link, State, item_of, kinds_of, shape_text
from ablate.difference import Comparison, NodeChange, common_sources
from ablate.graph import INPUT, OUTPUT, Graph
from ablate.report.tables import Cell, Column, Table

SIGNS = {"added": "+", "removed": "−", "changed": "≠", "renamed": "→"}
SENTENCES = {
    "equal": "The networks are equal, names included.",
    "equal up to names": "The networks are equal up to names: one graph, and first weights that are drawn by name.",
    "different": "The networks differ.",
}
MOST_NAMES = 3


def tables(comparison: Comparison) -> list[Table]:
    """Cost by stage, with what is to be said in a sentence; and where there is any: nodes, and the recipe."""
    found = [_cost_table(comparison)]
    if comparison.nodes:
        found.append(_node_table(comparison))
    if comparison.recipe:
        found.append(_recipe_table(comparison))
    return found


def sentences(comparison: Comparison) -> str:
    """What two variants are to each other."""
    said = [SENTENCES[comparison.verdict]]
    if comparison.same_identity:
        said.append("Recipe and data are the same too: in one study they are trained once.")
    elif comparison.verdict != "different":
        said.append(_what_differs(comparison))
    return " ".join(text for text in said if text)


def _what_differs(comparison: Comparison) -> str:
    """Of two networks that are one graph."""
    starts = [each["path"].startswith("init.") for each in comparison.recipe]
    what = ["how they start"] if any(starts) else []
    what += ["how they are trained, or on what"] if not all(starts) else []
    return f"What differs is {', and '.join(what)}." if what else ""


def _cost_table(comparison: Comparison) -> Table:
    a, b = comparison.a, comparison.b
    names = ("params A", "params B", "Δ params", "FLOPs A", "FLOPs B", "Δ FLOPs")
    columns = (Column("stage"), *(Column(name, "", "right", "number") for name in names))
    rows = [_cost_row(name, pair) for name, pair in comparison.stages.items()]
    total = _cost_row("total", comparison.total)
    notes = [
        f"{name}: written otherwise, and without effect: {_pairs_text(pairs)}"
        for name, pairs in comparison.without_effect.items()
    ]
    return Table(f"{a} (A) → {b} (B): cost", columns, (*rows, total), sentences(comparison), tuple(notes))


def _cost_row(name: str, pair: tuple[tuple[int, int], tuple[int, int]]) -> tuple[Cell, ...]:
    (params, flops), (own_params, own_flops) = pair
    numbers = [_number(params), _number(own_params), _signed(own_params - params)]
    return (Cell(name), *numbers, _number(flops), _number(own_flops), _signed(own_flops - flops))


def _node_table(comparison: Comparison) -> Table:
    columns = (
        Column("change"),
        Column("node"),
        Column("count", "", "right", "number"),
        Column("block"),
        Column("what changed"),
        Column("Δ params", "", "right", "number"),
        Column("Δ FLOPs", "", "right", "number"),
    )
    groups: dict[tuple[str, ...], list[NodeChange]] = {}
    for change in comparison.nodes:
        key = (
            change.kind,
            re.sub(r"\d+", "*", change.name),
            change.block,
            re.sub(r"[\w.]*\.\d+[\w.]*", "…", said(change)),
        )
        groups.setdefault(key, []).append(change)
    rows = tuple(_node_row(pattern, changes) for (_, pattern, _, _), changes in groups.items())
    counts = [f"{len(comparison.of(kind))} {kind}" for kind in SIGNS if comparison.of(kind)]  # type: ignore[arg-type]
    caption = f"{', '.join(counts)}. Names that differ in numbers alone share a row, * for the number."
    return Table("nodes", columns, rows, caption)


def _node_row(pattern: str, changes: list[NodeChange]) -> tuple[Cell, ...]:
    first = changes[0]
    texts = list(dict.fromkeys(said(change) for change in changes))
    return (
        Cell(f"{SIGNS[first.kind]} {first.kind}"),
        Cell(first.name if len(changes) == 1 else pattern),
        _number(len(changes)),
        Cell(first.block),
        Cell(texts[0] + (" (and so on)" if len(texts) > 1 else "")),
        _signed(sum(change.params for change in changes)),
        _signed(sum(change.flops for change in changes)),
    )


def _recipe_table(comparison: Comparison) -> Table:
    columns = (Column("path"), Column("A"), Column("B"))
    rows = tuple((Cell(each["path"]), Cell(_text(each["a"])), Cell(_text(each["b"]))) for each in comparison.recipe)
    return Table("recipe and data", columns, rows)


def said(change: NodeChange) -> str:
    """What changed about a node, in a line."""
    return "; ".join(_parts(change))


def _parts(change: NodeChange) -> Iterable[str]:
    if change.was != change.name:
        yield f"was {change.was}"
    if change.parameters:
        yield _pairs_text(change.parameters)
    if change.effective:
        yield _pairs_text(change.effective)
    if "reads" in change.wiring:
        before, after = (_shapes(side) for side in change.wiring["reads"])
        yield f"reads {before} → {after}"
    if "from" in change.wiring:
        before, after = (" and ".join(_names(names) for names in side) for side in change.wiring["from"])
        yield f"from {before} → {after}"
    if change.start:
        before, after = map(_text, change.start)
        yield f"starts {before} → {after}"
    for key, (was, now) in change.training.items():
        yield key if now is True else f"no longer {key}" if was is True else f"{key} {_text(was)} → {_text(now)}"


def _shapes(shapes: Sequence[Shape]) -> str:
    """Each shape that is read; one that is read several times once."""
    return " and ".join(dict.fromkeys(map(shape_text, shapes)))


def _names(names: list[str]) -> str:
    head = ", ".join(names[:MOST_NAMES])
    return f"{head}, … ({len(names)})" if len(names) > MOST_NAMES else head


def _pairs_text(pairs: Mapping[str, list[Any]]) -> str:
    return ", ".join(f"{key} {_text(before)} → {_text(after)}" for key, (before, after) in pairs.items())


def _text(value: Any) -> str:
    if value is None:
        return "—"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _number(value: int) -> Cell:
    return Cell(f"{value:,}", value)


def _signed(value: int) -> Cell:
    return Cell(f"{value:+,}".replace("-", "−") if value else "", value)


def drawing_of_comparison(comparison: Comparison, a: Variant, b: Variant) -> Drawing:
    """Both networks in one picture. All of B is in it; of A what is gone, dashed."""
    one, other = a.network.graph, b.network.graph
    changes = {change.name: change for change in comparison.nodes if change.kind in ("changed", "renamed")}
    items = [_input_item(one, other)]
    gone = _gone(comparison, one)
    items += gone.pop(INPUT, [])
    for node in other.nodes:
        change = changes.get(node.name)
        state: State = "changed" if change and change.kind == "changed" else "same"
        if node.name not in comparison.match.values():
            state = "added"
        items.append(item_of(node, state, tuple(_parts(change)) if change else ()))
        items += gone.pop(node.name, [])
    items.append(Item(OUTPUT, (shape_text(other.shape(other.output)),)))
    links = _links(comparison, one, other)
    kinds = {**kinds_of(a.network.written), **kinds_of(b.network.written)}
    return Drawing(f"{comparison.a} → {comparison.b}", tuple(items), tuple(links), kinds)


def _input_item(one: Graph, other: Graph) -> Item:
    before, after = shape_text(one.input_shape), shape_text(other.input_shape)
    return Item(INPUT, (after,)) if before == after else Item(INPUT, (f"{before} → {after}",), "changed")


def _gone(comparison: Comparison, one: Graph) -> dict[str, list[Item]]:
    """The removed nodes, by the node of B after which A has them."""
    found: dict[str, list[Item]] = {}
    last = INPUT
    for node in one.nodes:
        if node.name in comparison.match:
            last = comparison.match[node.name]
        else:
            item = item_of(node, "removed")
            found.setdefault(last, []).append(replace(item, name=_name_in_picture(comparison, node.name)))
    return found


def _name_in_picture(comparison: Comparison, name: str) -> str:
    """A node of A under its name in B; one that is gone keeps its own, told apart where B gave it to another."""
    found = comparison.match.get(name, name)
    taken = name not in comparison.match and (name in comparison.match.values() or name in _added(comparison))
    return f"{name} (A)" if taken else found


def _added(comparison: Comparison) -> set[str]:
    return {change.name for change in comparison.of("added")}


def _links(comparison: Comparison, one: Graph, other: Graph) -> list[Link]:
    """B's edges, green where A has no such; and A's that are gone, but where a node in between is all that is new."""
    names = {INPUT: INPUT, OUTPUT: OUTPUT} | {node.name: _name_in_picture(comparison, node.name) for node in one.nodes}
    theirs = {(names[source], names[consumer]): (source, consumer) for source, consumer, _ in one.edges()}
    own = dict.fromkeys((source, consumer) for source, consumer, _ in other.edges())
    links = []
    for source, consumer in own:
        both_there = source in names.values() and consumer in names.values()
        passed = both_there and _passes_removed(comparison, one, source, consumer)
        links.append(Link(source, consumer, "same" if (source, consumer) in theirs or passed else "added"))
    for ends, (source, consumer) in theirs.items():
        if ends not in own and not _passes_added(comparison, other, source, consumer):
            links.append(Link(*ends, "removed"))
    return links


def _passes_added(comparison: Comparison, other: Graph, source: str, consumer: str) -> bool:
    """Whether in B the value of ``source`` still comes to ``consumer``, by way of added nodes alone."""
    if (source != INPUT and source not in comparison.match) or (
        consumer != OUTPUT and consumer not in comparison.match
    ):
        return False
    common = {name: name for name in comparison.match.values()}
    return comparison.match.get(source, source) in _into(other, comparison.match.get(consumer, consumer), common)


def _passes_removed(comparison: Comparison, one: Graph, source: str, consumer: str) -> bool:
    """Whether in A the value of ``source`` came to ``consumer``, by way of removed nodes alone."""
    back = {y: x for x, y in comparison.match.items()}
    if (source != INPUT and source not in back) or (consumer != OUTPUT and consumer not in back):
        return False
    common = {name: name for name in comparison.match}
    return back.get(source, source) in _into(one, back.get(consumer, consumer), common)


def _into(graph: Graph, consumer: str, common: Mapping[str, str]) -> set[str]:
    inputs = (graph.output,) if consumer == OUTPUT else graph.by_name[consumer].inputs
    return set().union(*(common_sources(graph, value, common) for value in inputs))
