"""An imported model → our graph, and the proof that it is the original."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ablate.block import Shape, Value
from ablate.graph import INPUT, Graph, GraphBuilder
from ablate.importing.imported import ImportedNode, ImportedParams, imported, original_name
from ablate.importing.origin import Origin, construct


@dataclass(frozen=True)
class Import:
    """What is known of a network's import beside its graph."""

    origin: Origin
    shape: Shape
    names: Mapping[str, str]
    """Parameter or buffer of ours → its name in the original."""
    numbered: Mapping[str, tuple[str, ...]]
    """A module that is called more than once → the nodes that call it."""
    inside: Mapping[str, str] = field(default_factory=dict)
    """A module that can't be selected → the node that it is inside of."""
    whole: tuple[str, ...] = ()
    """Modules that can't be traced, and so are one node each."""


def import_graph(origin: Origin, shape: Shape, classes: int) -> tuple[Graph, Import]:
    """The graph of a model for images (C, H, W). ``OriginError``, ``TraceError`` or ``GraphError`` say why not.

    Nodes are called as the modules that they call; a function is named by its scope.
    """
    found = imported(origin, shape)
    builder = GraphBuilder(shape, classes)
    values: dict[str, Value] = {"": INPUT}
    names: dict[str, str] = {}
    first: dict[str, str] = {}
    for part in found.divided.parts:
        params = ImportedParams(
            model=origin.name,
            arguments=origin.arguments,
            file=origin.file,
            digest=origin.digest,
            shape=shape,
            part=part.name,
        )
        # Two nodes share a module only where it has a state to share.
        stateful = part.alone is not None and bool(found.meta.get_submodule(part.alone).state_dict())
        module = first.setdefault(part.alone, part.name) if part.alone is not None and stateful else ""
        inputs = tuple(values[name] for name in part.inputs)
        values[part.name] = builder.place(part.name, ImportedNode, params, inputs, module=module)
        if module in ("", part.name):
            own = ImportedNode.make(params)
            names |= {f"{part.name}.{name}": original_name(part, name) for name in own.state_dict()}
    builder.scopes = {scope: values[name] for scope, name in found.divided.scopes.items()}
    builder.repeats = dict(found.divided.repeats)
    graph = builder.finish(values[found.divided.output])
    return graph, Import(origin, shape, names, found.divided.numbered, found.divided.inside, found.whole)


def differences(source: Import, graph: Graph, network: nn.Module, x: Tensor, seed: int) -> list[str]:
    """What a built network without insertions does otherwise than the original of that seed: nothing, bit for bit.

    In evaluation, and in training with the same random stream, with the running statistics that it leaves behind.
    Each call is made in the order of the original's own calls, so that the stream is read in the same order.
    """
    original = copy.deepcopy(construct(source.origin, seed)).to(x.device)
    found: list[str] = []
    for training in (False, True):
        outputs = []
        for run in (original, lambda images: _in_order(graph, network, images)):
            original.train(training)
            network.train(training)
            with torch.no_grad(), torch.random.fork_rng():
                torch.manual_seed(seed)
                outputs.append(run(x))
        one, other = outputs
        if one.shape != other.shape or not torch.equal(one, other):
            mode = "training" if training else "evaluation"
            gap = f": off by {float((one - other).abs().max()):.3g}" if one.shape == other.shape else ""
            found.append(f"in {mode} the imported network does not give what '{source.origin.name}' gives{gap}")
    ours, theirs = network.state_dict(), original.state_dict()
    for name, path in source.names.items():
        if path in theirs and not torch.equal(ours[name], theirs[path]):
            found.append(
                f"'{name}' is not '{path}' of '{source.origin.name}', at the start or after a pass in training"
            )
    missing = set(theirs) - set(source.names.values())
    found += [f"'{path}' of '{source.origin.name}' is in no node" for path in sorted(missing)]
    return found


def _in_order(graph: Graph, network: nn.Module, x: Tensor) -> Tensor:
    values: dict[Value, Tensor] = {INPUT: x}
    for node in graph.nodes:
        values[node.name] = network.get_submodule(node.module)(*(values[source] for source in node.inputs))
    return values[graph.output]
