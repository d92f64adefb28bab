"""Graph → ``torch.fx.GraphModule``: modules under their nodes' names, parameters initialised by name.

Each parameter is drawn from a stream of its own, seeded by (seed, its full name). So two variants of one
seed share, bit for bit, the first weights of every module that both have, whatever stands between.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import fx, nn

from ablate.block import INIT_RECIPES, Block, init_layers, start_parameters
from ablate.graph import INPUT, Graph, Node
from ablate.streams import generator, stream_seed


def build(graph: Graph, *, seed: int = 0, recipe: str = "kaiming_fan_out") -> fx.GraphModule:
    """The graph as a PyTorch module: ``(B, C, H, W)`` float in, the output node's shape out.

    Parameter names are ``stage1.0.conv1.weight``. The global random state is left as it was.
    """
    root = nn.Module()
    # In the order of calls, in which fx keeps them: what sums over all parameters sums in one order.
    for node in graph.in_execution_order:
        if node.module == node.name:
            _attach(root, node.name, _module(node, seed, recipe))
    lowered = fx.Graph()
    values = {INPUT: lowered.placeholder(INPUT)}
    for node in graph.in_execution_order:
        values[node.name] = lowered.call_module(node.module, tuple(values[source] for source in node.inputs))
    lowered.output(values[graph.output])
    network = fx.GraphModule(root, lowered, class_name="Network")
    network.meta["nodes"] = {values[node.name].name: node.name for node in graph.nodes}
    return network


class PassThrough(nn.Module):
    """In the place of a block that returns its first input: it adds nothing to the graph of autograd either."""

    def __init__(self, block: str) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        return x

    def extra_repr(self) -> str:
        return self.block


def _module(node: Node, seed: int, recipe: str) -> nn.Module:
    # A block whose constructor draws (a third party's) draws from the node's own stream.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stream_seed(seed, "construct", node.name))
        module = node.block.make(node.params, *node.shapes)
    if node.is_identity and not module.state_dict():
        return PassThrough(node.block.name)

    def stream(name: str) -> torch.Generator:
        return generator(seed, "init", f"{node.name}.{name}")

    start = node.start
    with torch.no_grad():
        stated = start.kind if start and start.kind in INIT_RECIPES else None
        node.block.initialise(module, node.params, stream, stated or recipe, seed)
        if stated and not isinstance(module, Block):
            init_layers(module, stream, stated)  # an imported node keeps its own start unless another is stated
        if start and start.kind not in INIT_RECIPES:
            start_parameters(module, start, stream)
    return module


def _attach(root: nn.Module, name: str, module: nn.Module) -> None:
    *scopes, last = name.split(".")
    parent = root
    for scope in scopes:
        if scope not in parent._modules:
            parent.add_module(scope, nn.Module())
        parent = parent.get_submodule(scope)
    parent.add_module(last, module)


def noisy_modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that draw random numbers in training (dropout), by name."""
    for name, module in network.named_modules():
        if getattr(module, "noisy", False):
            yield name, module


def seed_noise(network: nn.Module, seed: int, step: int, *more: int) -> None:
    """Before each training step: what a module draws depends on (seed, its name, the step) and on nothing else.

    ``more``: what tells one of several processes that share each batch from the others.
    """
    for name, module in noisy_modules(network):
        module.noise_seed = stream_seed(seed, "noise", name, step, *more)  # type: ignore[assignment]
        module.noise_calls = 0  # type: ignore[assignment]


def parameter_digests(network: nn.Module) -> dict[str, str]:
    """The SHA-256 of every parameter and buffer, to compare variants bit for bit."""
    return {name: tensor_digest(tensor) for name, tensor in network.state_dict().items()}


def tensor_digest(tensor: torch.Tensor) -> str:
    """The SHA-256 of a tensor's type, shape and bytes."""
    plain = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{plain.dtype}{tuple(plain.shape)}".encode())
    if plain.numel():
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
