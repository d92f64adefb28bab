"""How gates differ where variants reduce their channels by different ratios."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ablate.explaining.capturing import Seen, seen
from ablate.explaining.per_variant import Looks
from ablate.explaining.sources import Sources, normalised
from ablate.graph import Graph, Node

IMAGES, BATCH = 256, 64
"""Of the split's first images, the gates are averaged over so many."""


@dataclass(frozen=True)
class Reduced:
    """One node in one variant; ``gates`` are means over the images, one a channel (of a map: one a pixel)."""

    node: str
    variant: str
    reduction: int
    hidden: int | None
    part: str
    images: int
    gates: np.ndarray[Any, Any]
    across_images: float
    """The standard deviation over images, its mean over channels."""
    silent: int | None
    """Hidden units that are 0 on all images; of an MLP that is called twice, in both."""
    weight: float | None
    """The root mean square of the hidden units' weights."""

    def as_record(self) -> dict[str, Any]:
        values = asdict(self)
        gates = values.pop("gates")
        return {**values, "mean": float(gates.mean()), "across": float(gates.std())}


def reduced(sources: Sources, looks: Looks) -> list[Reduced]:
    """Of the nodes that two variants or more have, with different reductions; in the order of the graph."""
    by_node: dict[str, dict[str, int]] = {}
    for each in looks.by_variant:
        for node in each.graph.nodes:
            reduction = getattr(node.params, "reduction", None)
            if isinstance(reduction, int):
                by_node.setdefault(f"{node.block.name} {node.name}", {})[each.name] = reduction
    differing = {key for key, found in by_node.items() if len(set(found.values())) > 1}
    rows: list[Reduced] = []
    for each in looks.by_variant:
        own = [node for node in each.graph.nodes if f"{node.block.name} {node.name}" in differing]
        if own:
            rows += _of_variant(sources, each.name, each.graph, own)
    order = {key.partition(" ")[2]: place for place, key in enumerate(by_node)}
    return sorted(rows, key=lambda row: (order[row.node], row.part, row.reduction, row.variant))


def _of_variant(sources: Sources, name: str, graph: Graph, nodes: list[Node]) -> Iterator[Reduced]:
    network, _ = sources.network(name)
    split, data = sources.images(name), sources.data(name)
    count = min(IMAGES, len(split))
    wanted = frozenset(node.name for node in nodes)
    passes: list[Seen] = []
    for start in range(0, count, BATCH):
        x = normalised(split, data, range(start, min(start + BATCH, count)))
        passes.append(seen(network, graph, x, wanted, attention=False))
    for node in nodes:
        for first in passes[0].gates:
            if first.node == node.name and first.kind != "full":
                values = torch.cat([g.values for each in passes for g in each.gates if _same(g, first)])
                yield _row(network, node, name, first.part, count, values, passes)


def _same(one: Any, other: Any) -> bool:
    return bool((one.node, one.part) == (other.node, other.part))


def _row(
    network: Any, node: Node, variant: str, part: str, count: int, values: torch.Tensor, passes: list[Seen]
) -> Reduced:
    path = part if (node.name, part) in passes[0].hidden else ""
    hidden = [each.hidden[node.name, path] for each in passes if (node.name, path) in each.hidden]
    spatial = values.shape[1] == 1 and max(values.shape[2:]) > 1
    if spatial:
        hidden = []
    units = torch.cat(hidden) if hidden else None
    first = None
    if units is not None:
        first = network.get_submodule(".".join(filter(None, [node.module, path]))).fc1.weight
    flat = values.flatten(1).double()
    return Reduced(
        node.name,
        variant,
        int(node.params.reduction),  # type: ignore[attr-defined]
        units.shape[1] if units is not None else 0 if not spatial and node.effective.get("hidden") == 0 else None,
        part or ("spatial" if spatial else "channel"),
        count,
        flat.mean(0).numpy(),
        float(flat.std(0, correction=0).mean()),
        int((units.amax(0) <= 0).sum()) if units is not None else None,
        float(first.detach().double().pow(2).mean().sqrt()) if first is not None else None,
    )
