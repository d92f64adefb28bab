"""An imported model → our graph, and the proof that it is the original."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from ablate.block import Shape, Value
from ablate.graph import INPUT, Graph, GraphBuilder, GraphError
from ablate.importing.imported import ImportedNode, ImportedParams, imported, original_name
from ablate.importing.origin import Origin, construct, one_line
from ablate.importing.parts import tensor_at
from ablate.importing.tracing import CONSTANT, TraceError
from ablate.streams import stream_seed


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
        values[part.name] = _placed(builder, part.name, params, inputs, module)
        if module in ("", part.name):
            own = ImportedNode.make(params)
            names |= {f"{part.name}.{name}": original_name(part, name) for name in own.state_dict()}
    _refuse_ties(found.model, names)
    builder.scopes = {scope: values[name] for scope, name in found.divided.scopes.items()}
    builder.repeats = dict(found.divided.repeats)
    graph = builder.finish(values[found.divided.output])
    return graph, Import(origin, shape, names, found.divided.numbered, found.divided.inside, found.whole)


def _placed(builder: GraphBuilder, name: str, params: ImportedParams, inputs: tuple[Value, ...], module: str) -> Value:
    try:
        return builder.place(name, ImportedNode, params, inputs, module=module)
    except GraphError:
        raise
    except Exception as error:  # a stranger's code, run on tensors of zeros
        raise TraceError(f"node '{name}': {type(error).__name__}: {one_line(error)}") from None


def _refuse_ties(model: nn.Module, names: Mapping[str, str]) -> None:
    """Each node has parameters of its own: one tensor in two places would be trained as two."""
    owners: dict[int, str] = {}
    for name, path in names.items():
        tensor = None if path.startswith(CONSTANT) else tensor_at(model, path)
        # Tables of indices are read in many places, and never change.
        if tensor is not None and tensor.is_floating_point():
            other = owners.setdefault(id(tensor), name)
            if other != name:
                message = f"'{path}' is read in two places, '{other}' and '{name}', and would be trained as two"
                raise TraceError(f"{message}; tied parameters can't be imported")


def differences(source: Import, graph: Graph, network: nn.Module, x: Tensor, seed: int) -> list[str]:
    """What a built network without insertions does otherwise than the original of that seed: nothing, bit for bit.

    In evaluation, and in training with the same random stream, with the running statistics that it leaves behind and
    with the gradients. Each call is made in the order of the original's own calls, so that the stream is read in the
    same order; then the network itself is run, which must give the same with its noise seeded by name.
    """
    original = copy.deepcopy(construct(source.origin, seed)).to(x.device)
    found: list[str] = []
    if sum(p.numel() for p in network.parameters()) != sum(p.numel() for p in original.parameters()):
        found.append(f"the imported network has not as many parameters as '{source.origin.name}'")
    differentiable = True
    for training in (False, True):
        outputs, backwards = [], []
        for model, run in ((original, original), (network, partial(_in_order, graph, network))):
            model.zero_grad(set_to_none=True)
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                model.train(training)
                outputs.append(run(x))
            backwards.append(_differentiated(outputs[-1]))
        differentiable = backwards[0]
        if backwards[0] and not backwards[1]:
            found.append(f"the imported network has no gradients where '{source.origin.name}' has them")
        one, other = outputs
        if one.shape != other.shape or not torch.equal(one, other):
            mode = "training" if training else "evaluation"
            gap = f": off by {float((one - other).detach().abs().max()):.3g}" if one.shape == other.shape else ""
            found.append(f"in {mode} the imported network does not give what '{source.origin.name}' gives{gap}")
    found += _state_differences(source, network, original, differentiable)
    found += _order_differences(graph, network, x, seed)
    network.zero_grad(set_to_none=True)
    return found


def _differentiated(output: Tensor) -> bool:
    """Whether gradients could be computed; of an original that writes over what its own backward pass needs: no."""
    try:
        output.square().sum().backward()  # type: ignore[no-untyped-call]
    except RuntimeError:
        return False
    return True


def _state_differences(source: Import, network: nn.Module, original: nn.Module, with_gradients: bool) -> list[str]:
    """Values at the start, running statistics after a pass in training, and the gradients of that pass."""
    ours, theirs = network.state_dict(keep_vars=True), original.state_dict(keep_vars=True)
    found = []
    largest = max(
        (float(p.grad.abs().max()) for p in original.parameters() if p.grad is not None and p.numel()), default=0
    )
    for name, path in source.names.items():
        if path not in theirs:
            continue
        if not torch.equal(ours[name], theirs[path]):
            found.append(
                f"'{name}' is not '{path}' of '{source.origin.name}', at the start or after a pass in training"
            )
        grad, expected = ours[name].grad, theirs[path].grad
        if with_gradients and not _close(grad, expected, largest):
            found.append(f"'{name}' has another gradient than '{path}' of '{source.origin.name}'")
    missing = set(theirs) - set(source.names.values())
    return found + [f"'{path}' of '{source.origin.name}' is in no node" for path in sorted(missing)]


def _close(one: Tensor | None, other: Tensor | None, largest: float) -> bool:
    """Gradients of one parameter. The order in which they are added up may differ, and so their last bits."""
    if one is None or other is None or not one.numel():
        return (one is None) == (other is None)
    return float((one - other).abs().max()) <= 1e-4 * float(other.abs().max()) + 1e-6 * largest


def _order_differences(graph: Graph, network: nn.Module, x: Tensor, seed: int) -> list[str]:
    """The network calls its nodes in an order of its own: what shares running statistics must not mind."""
    start = copy.deepcopy(network.state_dict())
    seen = []
    for run in (partial(_in_order, graph, network), network):
        network.load_state_dict(start)
        network.train()
        for name, module in network.named_modules():
            if getattr(module, "noisy", False):
                module.noise_seed = stream_seed(seed, "noise", name, 0)
                module.noise_calls = 0
        with torch.no_grad():
            seen.append((run(x), copy.deepcopy(network.state_dict())))
    for module in network.modules():
        if getattr(module, "noisy", False):
            module.noise_seed = None  # type: ignore[assignment]
    (one, left), (other, right) = seen
    if torch.equal(one, other) and all(torch.equal(left[name], right[name]) for name in left):
        return []
    return ["the order in which it calls a module that several nodes share matters, and is not the original's"]


def _in_order(graph: Graph, network: nn.Module, x: Tensor) -> Tensor:
    values: dict[Value, Tensor] = {INPUT: x}
    for node in graph.nodes:
        values[node.name] = network.get_submodule(node.module)(*(values[source] for source in node.inputs))
    return values[graph.output]
