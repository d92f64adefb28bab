"""Parameters and FLOPs, a row per node.

FLOPs are counted as the papers count them: multiply-accumulates of convolutions and matrix products, attention
included, for one example, in evaluation mode. fvcore counts; handlers of ours add what it misses (``products``).
Elementwise operations, norms and poolings count as none by that convention (``conventions``); an operation that is
neither counted nor in that list is named in ``uncounted`` and never passes as a silent 0.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Any

import torch
from torch import fx, nn

from ablate.block import Block, BlockParams, Shape
from ablate.builder import PassThrough
from ablate.costing.conventions import NOT_COUNTED_BY_CONVENTION
from ablate.costing.products import handlers
from ablate.graph import Graph


@dataclass(frozen=True)
class NodeCost:
    """One node's share, for one example."""

    name: str
    block: str
    shape: Shape
    params: int
    flops: int
    activations: int
    """Values in the node's output; none where it passes on what arrives."""
    insertion: str | None = None
    uncounted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cost:
    """A network's cost for one example of ``input_shape``."""

    input_shape: Shape
    rows: tuple[NodeCost, ...]

    @cached_property
    def params(self) -> int:
        return sum(row.params for row in self.rows)

    @cached_property
    def flops(self) -> int:
        return sum(row.flops for row in self.rows)

    @cached_property
    def activations(self) -> int:
        return sum(row.activations for row in self.rows)

    @cached_property
    def uncounted(self) -> dict[str, tuple[str, ...]]:
        """Operations that no counter knows, by node."""
        return {row.name: row.uncounted for row in self.rows if row.uncounted}

    def by_insertion(self) -> dict[str, tuple[int, int]]:
        """(params, FLOPs) that each insertion brings."""
        return self._grouped(lambda row: row.insertion)

    def by_stage(self) -> dict[str, tuple[int, int]]:
        """(params, FLOPs) of each node of the spec: of the first segment of the names."""
        return self._grouped(lambda row: row.name.split(".")[0])

    def _grouped(self, key: Callable[[NodeCost], str | None]) -> dict[str, tuple[int, int]]:
        groups: dict[str, tuple[int, int]] = {}
        for row in self.rows:
            name = key(row)
            if name is not None:
                params, flops = groups.get(name, (0, 0))
                groups[name] = (params + row.params, flops + row.flops)
        return groups


def cost_of(graph: Graph) -> Cost:
    """The cost of a graph. A module that two nodes call has its parameters counted once."""
    rows: list[NodeCost] = []
    counted: set[str] = set()
    for node in graph.nodes:
        params, flops, uncounted = _leaf_cost(node.block, node.params_json, node.shapes)  # type: ignore[arg-type]
        own = 0 if node.module in counted else params
        counted.add(node.module)
        values = 0 if node.is_identity else prod(node.shape)
        rows.append(NodeCost(node.name, node.block.name, node.shape, own, flops, values, node.insertion, uncounted))
    return Cost(graph.input_shape, tuple(rows))


def cost(network: fx.GraphModule, input_shape: Shape) -> Cost:
    """The cost of a built network, counted on the modules themselves. ``input_shape`` has the batch axis first.

    Unlike ``cost_of`` this looks at the modules only, so it checks the graph's count. A parameter that two modules
    share is counted at the first.
    """
    names = network.meta.get("nodes", {})  # a pickled network has lost them; the modules' names are the nodes'
    counter = _Counter(network)
    with _evaluating(network), torch.no_grad():
        counter.run(torch.zeros(input_shape, device=_device(network)))
        counts = [count_flops(module, shapes) for *_, module, shapes, _ in counter.calls]
    rows: list[NodeCost] = []
    seen: set[int] = set()
    for (call, target, module, _, shape), (flops, uncounted) in zip(counter.calls, counts, strict=True):
        own = {id(parameter): parameter.numel() for parameter in module.parameters() if id(parameter) not in seen}
        seen.update(own)
        kind = module.block if isinstance(module, PassThrough) else getattr(type(module), "name", type(module).__name__)
        params = sum(own.values())
        values = 0 if isinstance(module, PassThrough) else prod(shape)
        rows.append(NodeCost(names.get(call, target), kind, shape, params, flops, values, None, uncounted))
    return Cost(tuple(input_shape[1:]), tuple(rows))


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """In eval mode, in which counting changes nothing (batch norm's statistics); each module's mode comes back."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _device(module: nn.Module) -> torch.device:
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


class _Counter(fx.Interpreter):
    """Records which module was called with which shapes."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.calls: list[tuple[str, str, nn.Module, tuple[Shape, ...], Shape]] = []

    def run_node(self, n: fx.Node) -> Any:
        output = super().run_node(n)
        if n.op == "call_module":
            args, _ = self.fetch_args_kwargs_from_env(n)
            shapes = tuple(tuple(arg.shape[1:]) for arg in args)
            target = str(n.target)
            self.calls.append((n.name, target, self.fetch_attr(target), shapes, tuple(output.shape[1:])))
        return output


@lru_cache(maxsize=65_536)
def _leaf_cost(block: type[Block], params_json: str, shapes: tuple[Shape, ...]) -> tuple[int, int, tuple[str, ...]]:
    params: BlockParams = block.Params.model_validate_json(params_json)
    with torch.random.fork_rng(devices=[]):
        module = block.make(params, *shapes)
    module.eval()  # whatever it returns: some models' own returns nothing
    flops, uncounted = count_flops(module, shapes)
    return sum(p.numel() for p in module.parameters()), flops, uncounted


def count_flops(module: nn.Module, shapes: tuple[Shape, ...]) -> tuple[int, tuple[str, ...]]:
    """(multiply-accumulates, operations that nobody counted) of one call on one example.

    The module is called with a tensor of each of ``shapes`` (without the batch axis), in the mode in which it is.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fvcore's import meets deprecations of torch.jit
        from fvcore.nn import FlopCountAnalysis

    inputs = tuple(torch.zeros(1, *shape, device=_device(module)) for shape in shapes)
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad(), _no_fast_path():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(module, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        for operation in NOT_COUNTED_BY_CONVENTION:
            # A handle of None would leave fvcore's own in force: it counts batch norm as 2 an element.
            analysis.set_op_handle(operation, _no_flops)
        for operation, handler in handlers().items():
            analysis.set_op_handle(operation, handler)
        total = int(sum(analysis.by_operator().values()))
        unsupported: Counter[str] = analysis.unsupported_ops()
    return total, tuple(sorted(unsupported))


def _no_flops(inputs: list[Any], outputs: list[Any]) -> int:
    return 0


@contextmanager
def _no_fast_path() -> Iterator[None]:
    """``nn.MultiheadAttention`` in its parts: in evaluation torch takes one operation for them all."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
