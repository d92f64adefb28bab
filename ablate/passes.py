"""The passes of a certificate: what a built network does with a real batch before its first training step.

What is frozen is frozen here too: it takes no gradient, and a frozen norm normalises by its running statistics.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ablate.block import Value
from ablate.builder import seed_noise
from ablate.errors import listed
from ablate.graph import INPUT, Graph, Node
from ablate.optimizing import LossFunction
from ablate.streams import generator
from ablate.trainable import Trainable, training_mode

DRAWS = 16
"""How often random parameters are drawn before a gradient counts as zero: a ReLU may be silent for one draw."""
SEEDS = 16
"""How many first weights are tried before a parameter counts as stuck: a ReLU of one unit may be silent for one."""
STEPS = 5
RATE = 0.1
"""Of the descent that must move every parameter: steps, and the learning rate."""
ZERO = 1e-10
"""A gradient this small, in float64 and relative to the network's largest, is rounding and no gradient."""


@dataclass(frozen=True)
class Probe:
    """How a network is entered: with a trial's seed, and with what is trainable."""

    seed: int
    trainable: Trainable

    def enter(self, network: fx.GraphModule, step: int) -> None:
        """Training mode, and the noise of that step."""
        training_mode(network, self.trainable)
        seed_noise(network, self.seed, step)


def dead_nodes(graph: Graph) -> list[str]:
    """Nodes that the output does not depend on."""
    return [
        f"node '{node.name}' is without effect: the output does not depend on it"
        for node in graph.nodes
        if node.name not in graph.reachable
    ]


def called_problems(probe: Probe, network: fx.GraphModule, graph: Graph, x: Tensor) -> list[str]:
    """Run the module itself: it calls what the graph says, which reads what the graph says and writes nothing there.

    In training and in evaluation: a block may write into its input in one of them alone.
    """
    found: list[str] = []
    names = dict.fromkeys(node.module for node in graph.nodes)
    modules = {name: network.get_submodule(name) for name in names}
    for training in (True, False):
        watch = _Watch(graph, x)
        handles = [module.register_forward_pre_hook(partial(watch.before, name)) for name, module in modules.items()]
        handles += [module.register_forward_hook(partial(watch.after, name)) for name, module in modules.items()]
        with torch.no_grad():
            probe.enter(network, 0)
            if not training:
                network.eval()
            output = network(x)
        for handle in handles:
            handle.remove()
        found += watch.problems(output)
    return list(dict.fromkeys(found))


class _Watch:
    """Follows the calls of a network's modules, by hooks, along the graph that it was built from."""

    def __init__(self, graph: Graph, x: Tensor) -> None:
        self.graph = graph
        self.waiting: dict[str, list[Node]] = {}
        for node in graph.in_execution_order:
            self.waiting.setdefault(node.module, []).append(node)
        self.values: dict[Value, Tensor] = {INPUT: x}
        self.calls: Counter[str] = Counter()
        self.read: list[tuple[Tensor, int, Tensor]] = []
        self.found: list[str] = []

    def before(self, module_name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self.read = [(tensor, tensor._version, tensor.detach().clone()) for tensor in args]
        if self.waiting[module_name]:
            node = self.waiting[module_name][0]
            sources = [self.values.get(source) for source in node.inputs]
            if len(args) != len(sources) or any(arg is not source for arg, source in zip(args, sources, strict=True)):
                self.found.append(f"node '{node.name}' does not read {listed(node.inputs)}")

    def after(self, module_name: str, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        self.calls[module_name] += 1
        if self.waiting[module_name]:
            self.values[self.waiting[module_name].pop(0).name] = output
        if any(_was_changed(tensor, version, copy) for tensor, version, copy in self.read):
            message = f"node '{module_name}' writes into what it reads; a branch grafted there would read that"
            self.found.append(message)

    def problems(self, output: Tensor) -> list[str]:
        wanted = Counter(node.module for node in self.graph.nodes)
        missed = [
            f"node '{name}' was called {self.calls[name]} times, not {count}"
            for name, count in wanted.items()
            if self.calls[name] != count
        ]
        if output is not self.values.get(self.graph.output):
            missed.append(f"the network's output is not that of '{self.graph.output}'")
        return list(dict.fromkeys([*missed, *self.found]))


def _was_changed(tensor: Tensor, version: int, copy: Tensor) -> bool:
    # The version misses what is written by way of ``.data``; the values miss a write of what was there already.
    return tensor._version != version or not torch.allclose(tensor.detach(), copy, rtol=0, atol=0, equal_nan=True)


def first_pass(
    probe: Probe, network: fx.GraphModule, x: Tensor, y: Tensor, loss_of: LossFunction
) -> tuple[float, list[str]]:
    """(training loss, problems) of one forward and backward pass as initialised: everything finite."""
    probe.enter(network, 0)
    network.zero_grad(set_to_none=True)
    loss = loss_of(network(x), y)
    problems = [] if bool(loss.isfinite()) else ["the loss is not finite before the first step"]
    loss.backward()  # type: ignore[no-untyped-call]
    problems += [
        f"the gradient of '{name}' is not finite before the first step"
        for name, parameter in network.named_parameters()
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
    ]
    return float(loss.detach()), problems


def gradient_check(probe: Probe, network: fx.GraphModule, graph: Graph, x: Tensor, y: Tensor) -> dict[str, Any]:
    """With all parameters random, in float64: every trainable parameter has a gradient that is not zero.

    Of the cross-entropy, whatever the recipe's loss is: that one may be 0 for an example that is right already.

    Random, since a residual weight of 0 or a zeroed last norm hides what stands behind it. Several draws, since a
    narrow ReLU may be silent in one. What autograd reaches, with a gradient of zero, and what has one once batch norm
    alone is in evaluation mode, is cancelled by batch norm (a bias before it) and named, as are the parameters that
    their block declares invariant. What is frozen keeps its first values: it may hide what stands behind it for good.
    """
    double = network.double()
    trainable = {n: p for n, p in double.named_parameters() if p.requires_grad and p.numel() > 0}
    frozen = [n for n, p in double.named_parameters() if not p.requires_grad]
    declared = _invariant(graph)
    open_names = set(trainable)
    reached: set[str] = set()
    draws = 0
    for draw in range(DRAWS):
        if not open_names - declared:
            break
        open_names -= _with_gradient(probe, double, x.double(), y, draw)
        reached |= {name for name in open_names if trainable[name].grad is not None}
        draws = draw + 1
    cancelled: set[str] = set()
    for draw in range(DRAWS):
        if not (open_names & reached) - declared - cancelled:
            break
        cancelled |= open_names & reached & _with_gradient(probe, double, x.double(), y, draw, by_batch=False)
    without = sorted(open_names - declared - cancelled)
    return {
        "parameters": len(trainable),
        "with_gradient": len(trainable) - len(open_names),
        "draws": draws,
        "invariant": sorted(open_names & declared),
        "cancelled_by_batch_norm": sorted(cancelled - declared),
        "frozen": frozen,
        "without": without,
    }


def _invariant(graph: Graph) -> set[str]:
    return {f"{node.module}.{name}" for node in graph.nodes for name in node.block.invariant_parameters}


def _with_gradient(
    probe: Probe, network: fx.GraphModule, x: Tensor, y: Tensor, draw: int, *, by_batch: bool = True
) -> set[str]:
    """The parameters that have a gradient at one random setting; without ``by_batch`` no norm sees the batch."""
    _randomise(network, probe.seed, draw)
    probe.enter(network, draw)
    if not by_batch:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    network.zero_grad(set_to_none=True)
    F.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
    sizes = {
        name: float(parameter.grad.abs().max())
        for name, parameter in network.named_parameters()
        if parameter.grad is not None and parameter.numel() > 0
    }
    largest = max(sizes.values(), default=0.0)
    return {name for name, size in sizes.items() if size > ZERO * largest}


@torch.no_grad()
def _randomise(network: nn.Module, seed: int, draw: int) -> None:
    """What is trained: weights normal with variance 1/fan-in, everything else standard normal."""
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        stream = generator(seed, "certify", name, draw)
        scale = parameter[0].numel() ** -0.5 if parameter.ndim >= 2 and parameter.numel() else 1.0
        values = torch.randn(parameter.shape, generator=stream, dtype=torch.float64)
        parameter.copy_(values * scale)


def stuck_parameters(probe: Probe, network: fx.GraphModule, x: Tensor, y: Tensor) -> set[str]:
    """The trainable parameters whose gradient is exactly 0 at each of the first steps of a descent from the true start.

    A branch that ends in a norm whose scale starts at 0, joined by a weight that starts at 0, is such a saddle: it
    would be trained for hundreds of epochs and never move. Takes the network with it.
    """
    double = network.double()
    trainable = {n: p for n, p in double.named_parameters() if p.requires_grad and p.numel() > 0}
    stuck = set(trainable)
    for step in range(STEPS):
        probe.enter(double, step)
        double.zero_grad(set_to_none=True)
        F.cross_entropy(double(x.double()), y).backward()  # type: ignore[no-untyped-call]
        stuck -= {name for name in stuck if (grad := trainable[name].grad) is not None and bool(grad.any())}
        if not stuck:
            break
        with torch.no_grad():
            for parameter in trainable.values():
                if parameter.grad is not None:
                    parameter.sub_(RATE * parameter.grad)
    return stuck


def first_output(probe: Probe, network: fx.GraphModule, x: Tensor) -> Tensor:
    """What the network gives before its first step, in training."""
    probe.enter(network, 0)
    with torch.no_grad():
        output: Tensor = network(x)
    return output
