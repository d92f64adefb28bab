"""Activation memory: what training keeps for the backward pass, and what evaluation has alive at once.

Nothing is computed: the network runs on fake tensors, which have shapes, strides and storages and no values, so that a
batch that no machine could hold is measured in a moment. They stand for tensors of the CPU, in fp32 (4 bytes a value).
What autograd keeps is asked of autograd itself, by its hooks; attention is the kernel that torch would choose, the
fused one wherever it can, which keeps no matrix of N × N.

Not in it: parameters, their gradients and the optimiser's state, buffers (running statistics), the loss, what one
operation needs while it runs (cuDNN's workspace), and what the allocator rounds up.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ablate.builder import PassThrough
from ablate.graph import INPUT, Graph, Node


@dataclass(frozen=True)
class NodeMemory:
    """One node's share, in bytes, for the whole batch."""

    name: str
    saved: int
    """What autograd keeps for the backward pass that no node before it keeps already."""
    live: int
    """While the node runs in evaluation: its output, its inputs, and what was made earlier and is read later."""
    insertion: str | None = None


@dataclass(frozen=True)
class Memory:
    """A network's activation memory for a batch of ``batch`` examples, a row per node in the order of the calls."""

    batch: int
    rows: tuple[NodeMemory, ...]

    @cached_property
    def saved(self) -> int:
        """Bytes that a training step keeps between its forward and its backward pass."""
        return sum(row.saved for row in self.rows)

    @cached_property
    def peak(self) -> int:
        """The most bytes that are alive at once in evaluation, between nodes; what is alive within one is not seen."""
        return max(row.live for row in self.rows)

    @cached_property
    def peak_node(self) -> str:
        """The first node at which the peak is reached."""
        return next(row.name for row in self.rows if row.live == self.peak)

    def saved_by_insertion(self) -> dict[str, int]:
        """Bytes kept for the backward pass, by insertion."""
        return self._grouped({row.name: row.insertion for row in self.rows})

    def saved_by_stage(self) -> dict[str, int]:
        """Bytes kept for the backward pass, by node of the spec: by the first segment of the names."""
        return self._grouped({row.name: row.name.split(".")[0] for row in self.rows})

    def _grouped(self, groups: dict[str, str | None]) -> dict[str, int]:
        found: dict[str, int] = {}
        for row in self.rows:
            group = groups[row.name]
            if group is not None:
                found[group] = found.get(group, 0) + row.saved
        return found


def memory_of(graph: Graph, batch: int, *, frozen: Collection[str] = (), channels_last: bool = True) -> Memory:
    """The activation memory of a graph for ``batch`` examples.

    Saved: each storage once, at the first node whose operations keep it: a convolution keeps its input, batch norm its
    input besides two values per channel, ReLU its output. ``frozen`` names modules whose parameters take no gradient.
    Alive: a value lives from its node until the last node that reads it has run; views of one storage live together.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        modules = _modules(graph, frozen)
    with torch.random.fork_rng(devices=[]), FakeTensorMode():
        for module in modules.values():
            _fake(module)
        x = torch.empty(batch, *graph.input_shape)
        if channels_last:
            x = _channels_last(modules, x)
        _train(modules, frozen)
        saved = _saved(graph, modules, x)
        for module in modules.values():
            module.eval()
        live = _live(graph, modules, x)
    rows = (NodeMemory(node.name, saved[node.name], live[node.name], node.insertion) for node in _calls(graph))
    return Memory(batch, tuple(rows))


def _calls(graph: Graph) -> tuple[Node, ...]:
    return graph.in_execution_order


def _modules(graph: Graph, frozen: Collection[str]) -> dict[str, nn.Module]:
    """The modules by name, as ``builder.build`` has them, without values. Those that are alike are one, for speed."""
    made: dict[tuple[Any, ...], nn.Module] = {}
    found: dict[str, nn.Module] = {}
    for node in graph.nodes:
        kind = (node.block, node.params.model_dump_json(), node.shapes, node.module in frozen)
        if kind not in made:
            module = node.block.make(node.params, *node.shapes)
            plain = node.is_identity and not module.state_dict()
            made[kind] = PassThrough(node.block.name) if plain else module
        found.setdefault(node.module, made[kind])
    return found


def _fake(module: nn.Module) -> None:
    """Fake tensors of the CPU in the place of the module's parameters and buffers, which are of the meta device."""
    for part in module.modules():
        stores: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
        for held in stores:
            for name, tensor in held.items():
                if tensor is not None and tensor.is_meta:
                    plain = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
                    held[name] = nn.Parameter(plain) if isinstance(tensor, nn.Parameter) else plain


def _channels_last(modules: dict[str, nn.Module], x: Tensor) -> Tensor:
    """As the trainer lays out convolutions' weights and images."""
    for module in modules.values():
        for parameter in module.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def _train(modules: dict[str, nn.Module], frozen: Collection[str]) -> None:
    """Training mode; what is frozen takes no gradient, and its norms keep their running statistics."""
    for name, module in modules.items():
        module.train().requires_grad_(name not in frozen)
        for part in module.modules():
            if getattr(part, "noisy", False):
                part.noise_seed = 0  # type: ignore[assignment]
            if getattr(part, "running_mean", None) is not None:
                # statistics that are not written down are worth nothing here, and this is four times as fast
                part.track_running_stats = False  # type: ignore[assignment]
                if name in frozen:
                    part.eval()


def _saved(graph: Graph, modules: dict[str, nn.Module], x: Tensor) -> dict[str, int]:
    own = {_key(tensor) for module in modules.values() for tensor in (*module.parameters(), *module.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}  # the storages themselves, so that no key is given out twice
    bytes_of = {node.name: 0 for node in graph.nodes}
    values: dict[str, Tensor] = {INPUT: x}
    for node in _calls(graph):

        def keep(tensor: Tensor, name: str = node.name) -> Tensor:
            key = _key(tensor)
            if key not in own and key not in kept:
                kept[key] = tensor.untyped_storage()
                bytes_of[name] += kept[key].nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            values[node.name] = modules[node.module](*(values[source] for source in node.inputs))
    return bytes_of


def _live(graph: Graph, modules: dict[str, nn.Module], x: Tensor) -> dict[str, int]:
    values: dict[str, Tensor] = {INPUT: x}
    with torch.no_grad():
        for node in _calls(graph):
            values[node.name] = modules[node.module](*(values[source] for source in node.inputs))
    changes = [0] * (len(values) + 1)
    for first, last, size in _spans(graph, values).values():
        changes[first] += size
        changes[last + 1] -= size
    alive = accumulate(changes)
    return dict(zip(values, alive, strict=False))


def _spans(graph: Graph, values: dict[str, Tensor]) -> dict[int, tuple[int, int, int]]:
    """(first call, last call, bytes) of each storage; call 0 is the network's input."""
    place = {value: index for index, value in enumerate(values)}
    last = dict(place)
    for node in _calls(graph):
        last |= {source: max(last[source], place[node.name]) for source in node.inputs}
    last[graph.output] = len(values) - 1
    spans: dict[int, tuple[int, int, int]] = {}
    for value, tensor in values.items():
        first, latest, size = spans.get(_key(tensor), (place[value], 0, tensor.untyped_storage().nbytes()))
        spans[_key(tensor)] = (first, max(latest, last[value]), size)
    return spans


def _key(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key
