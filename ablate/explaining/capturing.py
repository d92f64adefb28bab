"""What attention and gates do in a forward pass, seen without changing it.

Attention is fused: no matrix is ever stored. So the operands of each call are taken, the matrix softmax(scale · q kᵀ +
mask) is computed from them, and A v is held against what the call returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ablate.errors import Problem, UserError
from ablate.graph import Graph, Node

GATES = ("gate", "channel_gate", "spatial_gate")
"""The methods by which blocks give their gates."""
CHECKED = 1e-4
"""Relative to the largest output: by what A v may differ, for rounding."""


@dataclass(frozen=True)
class Attention:
    """Of one node: (B, h, N, M), each row what one query reads from each key."""

    node: str
    matrix: Tensor
    apart: float | None
    """The largest difference of A v from the block's own, relative to the largest; None where there is nothing to hold
    it against, since the block stores its matrix."""
    queries: tuple[int, int] | None
    """Height and width of the queries' map; None where they are no pixels (channels)."""
    keys: tuple[int, int] | None
    extra: int = 0
    """Class tokens before the first pixel."""


@dataclass(frozen=True)
class Gate:
    """Of one node, one part (``channel``, ``spatial``; empty: the whole): what x is multiplied by, (B, C, H, W)."""

    node: str
    part: str
    values: Tensor
    """With 1 in the place of an axis along which it is constant."""

    @property
    def kind(self) -> str:
        channels, *sides = self.values.shape[1:]
        if max(sides) == 1:
            return "channel"
        return "spatial" if channels == 1 else "full"


@dataclass
class Seen:
    """Of one forward pass."""

    scores: Tensor
    attention: list[Attention] = field(default_factory=list)
    gates: list[Gate] = field(default_factory=list)
    hidden: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    """Node, part → (calls · B, hidden) behind the ReLU of a gate's MLP."""


@dataclass
class _Notes:
    """What was met on the way; ``at`` is the node that is being called."""

    at: list[str] = field(default_factory=list)
    calls: dict[str, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)
    gates: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    hidden: dict[tuple[str, str], list[Tensor]] = field(default_factory=dict)


def seen(network: fx.GraphModule, graph: Graph, x: Tensor, nodes: frozenset[str], *, attention: bool = True) -> Seen:
    """Run the images through the network, and look at these nodes; at their ``attention``, too, which takes N × N."""
    notes = _Notes()
    observed = _observed_attention(notes) if attention else nullcontext()
    with torch.no_grad(), _watching(network, graph, nodes, notes), observed:
        scores = network(x)
    found = Seen(scores.float())
    for node in graph.in_execution_order:
        if attention and node.name in nodes:
            found.attention += _attention_of(network, graph, node, notes)
    found.gates = [Gate(node, part, values) for (node, part), values in _parts(notes.gates).items()]
    found.hidden = {key: torch.cat(calls) for key, calls in notes.hidden.items()}
    return found


@contextmanager
def _watching(network: fx.GraphModule, graph: Graph, nodes: frozenset[str], notes: _Notes) -> Iterator[None]:
    handles: list[Any] = []
    wrapped: list[tuple[nn.Module, str]] = []
    for node in graph.nodes:
        if node.name not in nodes or node.module != node.name:
            continue
        module = network.get_submodule(node.module)
        handles.append(module.register_forward_pre_hook(_entering(notes, node.name)))
        handles.append(module.register_forward_hook(_leaving(notes), always_call=True))
        for path, part in module.named_modules():
            for method in GATES:
                if callable(getattr(part, method, None)) and not isinstance(getattr(part, method), nn.Module):
                    name = path if method == "gate" else ".".join(filter(None, [path, method.removesuffix("_gate")]))
                    # in the instance's own dict, which comes before its class's method
                    part.__dict__[method] = _noting(getattr(part, method), notes.gates, (node.name, name))
                    wrapped.append((part, method))
            first = getattr(part, "fc1", None)
            if isinstance(first, nn.Module):
                handles.append(first.register_forward_hook(_hidden(notes, (node.name, path))))
    try:
        yield
    finally:
        for part, method in wrapped:
            del part.__dict__[method]
        for handle in handles:
            handle.remove()


def _entering(notes: _Notes, node: str) -> Callable[..., None]:
    def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        notes.at.append(node)
        notes.inputs[node] = inputs[0]

    return enter


def _leaving(notes: _Notes) -> Callable[..., None]:
    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        notes.at.pop()

    return leave


def _noting(
    method: Callable[[Tensor], Tensor], gates: dict[tuple[str, str], Tensor], key: tuple[str, str]
) -> Callable[[Tensor], Tensor]:
    def noted(x: Tensor) -> Tensor:
        gates[key] = method(x)
        return gates[key]

    return noted


def _hidden(notes: _Notes, key: tuple[str, str]) -> Callable[..., None]:
    def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
        notes.hidden.setdefault(key, []).append(output.detach().relu().flatten(1))

    return note


def _parts(gates: dict[tuple[str, str], Tensor]) -> dict[tuple[str, str], Tensor]:
    """Of a gate that is a product of others, the others; values without four axes are no gates of images."""
    nodes = {node for node, part in gates if part}
    kept = {key: values for key, values in gates.items() if key[1] or key[0] not in nodes}
    return {key: values.detach() for key, values in kept.items() if values.dim() == 4}


@contextmanager
def _observed_attention(notes: _Notes) -> Iterator[None]:
    """Every call of torch's fused attention, within a node that is looked at, is taken note of."""
    fused = F.scaled_dot_product_attention

    def observed(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **more: Any,
    ) -> Tensor:
        found = fused(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **more)
        if notes.at and query.dim() == 4 and not is_causal and not more:
            factor = query.shape[-1] ** -0.5 if scale is None else scale
            notes.calls.setdefault(notes.at[-1], []).append(_recomputed(query, key, value, attn_mask, factor, found))
        return found

    F.scaled_dot_product_attention = observed  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = fused


def _recomputed(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, found: Tensor
) -> tuple[Tensor, Tensor]:
    """The matrix, and by what A v is apart from what was found, relative to its largest."""
    logits = scale * query.float() @ key.float().transpose(-2, -1)
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask.float()
    matrix = logits.softmax(-1)
    largest = found.abs().amax().clamp_min(torch.finfo(torch.float32).tiny)
    return matrix, (matrix @ value.float() - found).abs().amax() / largest


def _attention_of(network: fx.GraphModule, graph: Graph, node: Node, notes: _Notes) -> list[Attention]:
    calls = notes.calls.get(node.name)
    module = network.get_submodule(node.module)
    if not calls:
        own = getattr(module, "attention", None)
        if isinstance(own, nn.Module) or not callable(own) or node.name not in notes.inputs:
            return []
        with torch.no_grad():
            calls = [(own(notes.inputs[node.name]).float(), torch.tensor(float("nan")))]
    found = []
    for number, (matrix, apart) in enumerate(calls):
        name = node.name if len(calls) == 1 else f"{node.name}#{number}"
        distance = None if bool(apart.isnan()) else float(apart)
        if matrix.dim() != 4:
            continue
        if distance is not None and distance > CHECKED:
            message = f"'{name}': softmax(q k) v is not what it computed: they differ by {distance:.1e} of the largest"
            raise UserError(Problem(message, hint="choose other nodes by --nodes"))
        queries, keys, extra = _grids(graph, node, matrix.shape[2], matrix.shape[3])
        found.append(Attention(name, matrix, distance, queries, keys, extra))
    return found


Grid = tuple[int, int] | None


def _grids(graph: Graph, node: Node, queries: int, keys: int) -> tuple[Grid, Grid, int]:
    """Of what maps queries and keys are the pixels, and how many tokens come before them."""
    shape = node.shapes[0]
    if len(shape) == 3:
        _, height, width = node.shape if len(node.shape) == 3 else shape
        grids = [(height, width), (height // 2, width // 2)]
        return _fitting(grids, queries), _fitting(grids, keys), 0
    grid, extra = _token_grid(graph, node, queries)
    return (grid, grid, extra) if queries == keys else (None, None, 0)


def _fitting(grids: list[tuple[int, int]], count: int) -> Grid:
    return next((grid for grid in grids if grid[0] * grid[1] == count), None)


def _token_grid(graph: Graph, node: Node, count: int) -> tuple[Grid, int]:
    """Tokens are the pixels of the last map before them that has as many, or the patches of a block that has ``patch``.

    ``patch``: a parameter, the side of a patch in pixels. Where nothing says so, nothing is drawn: what has
    the number of some grid by chance would be drawn in wrong places.
    """
    value = node.inputs[0]
    while value in graph.by_name:
        before = graph.by_name[value]
        stated = getattr(before.params, "patch", None)
        patch = stated if isinstance(stated, int) and stated > 0 else 1
        for shape in (before.shape, *before.shapes):
            if len(shape) == 3:
                side = 1 if shape == before.shape else patch
                height, width = shape[1] // side, shape[2] // side
                if height * width in (count, count - 1) and height * width > 1:
                    return (height, width), count - height * width
        value = before.inputs[0]
    return None, 0
