"""The certificate: what was proven about a variant before its first training step.

1. every key of the spec was used, and which became orphans;
2. its identity and the network's fingerprint;
3. its exact difference from the baseline;
4. a forward and a backward pass on a real batch, as initialised and with all parameters random;
5. shared parameters start bit-equal to the baseline's, and the first batches are the same;
6. the protocol, in words.

A claim that does not hold is a ``failure``; a variant with failures is not trained.
"""

from __future__ import annotations

import hashlib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ablate.block import Value
from ablate.builder import build, parameter_digests, seed_noise, tensor_digest
from ablate.costing import Cost, cost_of
from ablate.dataset import DataSpec, ImageData
from ablate.design import Variant
from ablate.errors import listed
from ablate.graph import INPUT, Graph, Node
from ablate.streams import generator
from ablate.train import Numerics, Trial, first_batches, process_settings

BATCH = 8
DRAWS = 16
"""How often random parameters are drawn before a gradient counts as zero: a ReLU may be silent for one draw."""
ZERO = 1e-10
"""A gradient this small, in float64 and relative to the network's largest, is rounding and no gradient."""


@dataclass
class Certificate:
    """The claims, as plain data, and the failures: empty for a variant that may be trained."""

    variant: str
    identity: str
    fingerprint: str
    init: str
    keys: dict[str, Any] = field(default_factory=dict)
    difference: dict[str, Any] | None = None
    effective: list[str] = field(default_factory=list)
    passes: dict[str, Any] = field(default_factory=dict)
    shared: dict[str, Any] | None = None
    first_batches: dict[str, Any] | None = None
    protocol: list[str] = field(default_factory=list)
    cost: dict[str, Any] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Certifier:
    """Certifies the variants of one study; what several variants need is computed once.

    ``data_of`` gives the arrays of a variant's ``data`` section.
    """

    def __init__(self, data_of: Callable[[DataSpec], ImageData], numerics: Numerics, seed: int = 0) -> None:
        self.data_of = data_of
        self.numerics = numerics
        self.seed = seed
        self._digests: dict[str, dict[str, str]] = {}
        self._first: dict[str, str] = {}

    def certify(self, variant: Variant, baseline: Variant | None) -> Certificate:
        """The certificate of one variant, computed as training would compute it."""
        with process_settings(self.numerics):
            return self._certificate(variant, baseline)

    def _certificate(self, variant: Variant, baseline: Variant | None) -> Certificate:
        graph = variant.network.graph
        cost = cost_of(graph)
        certificate = Certificate(variant.name, variant.identity, graph.fingerprint, variant.network.init.recipe)
        certificate.keys = used_keys(variant)
        certificate.effective = effective_sizes(graph)
        certificate.protocol = protocol(variant)
        certificate.cost = cost_summary(cost)
        if baseline is not None:
            certificate.difference = difference(graph, baseline.network.graph, cost) | {"baseline": baseline.name}
        self._passes(variant, baseline, certificate)
        if baseline is not None:
            self._shared(variant, baseline, certificate)
            self._batches(variant, baseline, certificate)
        return certificate

    def _trial(self, variant: Variant) -> Trial:
        network = variant.network
        augment = tuple(variant.data.augment)
        return Trial(
            "", variant.name, self.seed, network.graph, network.init.recipe, variant.train, augment, self.numerics
        )

    def _build(self, variant: Variant) -> fx.GraphModule:
        return build(variant.network.graph, seed=self.seed, recipe=variant.network.init.recipe)

    def _passes(self, variant: Variant, baseline: Variant | None, certificate: Certificate) -> None:
        graph = variant.network.graph
        data = self.data_of(variant.data)
        x, y = _real_batch(data)
        network = self._build(variant)
        certificate.passes = {"batch": len(x), "nodes": len(graph.nodes)}
        certificate.failures += dead_nodes(graph)
        try:
            certificate.failures += _called_problems(network, graph, x, self.seed)
            loss, problems = first_pass(network, x, y, self.seed)
            gradients = gradient_check(network, graph, x, y, self.seed)
            starts_equal = self._starts_equal(variant, baseline, x) if baseline is not None else None
        except Exception as error:  # whatever a block raises: the other variants are certified all the same
            certificate.failures.append(f"a pass over {len(x)} images raises {type(error).__name__}: {error}")
            certificate.passes["traceback"] = traceback.format_exc()
            return
        certificate.passes |= {"first_loss": loss, "gradients": gradients}
        certificate.failures += problems
        certificate.failures += [f"parameter '{name}' never receives a gradient" for name in gradients["without"]]
        if starts_equal is not None:
            certificate.passes["starts_as_baseline"] = starts_equal

    def _starts_equal(self, variant: Variant, baseline: Variant, x: Tensor) -> bool:
        """Whether the whole network's first output equals the baseline's (a residual weight that starts at 0)."""
        if variant.shape != baseline.shape or variant.classes != baseline.classes:
            return False
        outputs = [_output(self._build(each), x, self.seed) for each in (variant, baseline)]
        return outputs[0].shape == outputs[1].shape and bool((outputs[0] == outputs[1]).all())

    def _shared(self, variant: Variant, baseline: Variant, certificate: Certificate) -> None:
        own, others = self._state(variant), self._state(baseline)
        changed = [*(certificate.difference or {}).get("changed", {})]
        shared = [name for name in own if name in others]
        unequal = [name for name in shared if own[name] != others[name]]
        explained = [name for name in unequal if any(name.startswith(f"{node}.") for node in changed)]
        if variant.network.init != baseline.network.init:
            explained = unequal
        certificate.shared = {
            "of": len(own),
            "shared": len(shared),
            "equal": len(shared) - len(unequal),
            "unequal_by_difference": explained,
        }
        certificate.failures += [
            f"'{name}' starts with other values than in '{baseline.name}', though its node is the same"
            for name in unequal
            if name not in explained
        ]

    def _state(self, variant: Variant) -> dict[str, str]:
        if variant.name not in self._digests:
            self._digests[variant.name] = parameter_digests(self._build(variant))
        return self._digests[variant.name]

    def _batches(self, variant: Variant, baseline: Variant, certificate: Certificate) -> None:
        differs = [
            what
            for what, same in {
                "data": _without(variant.data, "augment") == _without(baseline.data, "augment"),
                "augmentation": variant.data.augment == baseline.data.augment,
                "batch size": variant.train.batch_size == baseline.train.batch_size,
            }.items()
            if not same
        ]
        own, other = self._first_digest(variant), self._first_digest(baseline)
        certificate.first_batches = {"equal": own == other, "differ_by": differs, "digest": own}
        if own != other and not differs:
            message = f"its first batches differ from those of '{baseline.name}', and nothing says so"
            certificate.failures.append(message)

    def _first_digest(self, variant: Variant) -> str:
        if variant.name not in self._first:
            digest = hashlib.sha256()
            for x, y in first_batches(self._trial(variant), self.data_of(variant.data), 2):
                digest.update((tensor_digest(x) + tensor_digest(y)).encode())
            self._first[variant.name] = digest.hexdigest()[:32]
        return self._first[variant.name]


def _without(data: DataSpec, *fields: str) -> dict[str, Any]:
    return data.model_dump(mode="json", exclude=set(fields))


def _real_batch(data: ImageData) -> tuple[Tensor, Tensor]:
    """The first training images, as float32 in [0, 1] normalised, and their labels."""
    images = torch.from_numpy(data.train.images[:BATCH].copy()).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    return (images - mean) / std, torch.from_numpy(data.train.labels[:BATCH].copy())


def used_keys(variant: Variant) -> dict[str, Any]:
    """How many keys the variant's network, data and recipe have; orphans and inactive assignments by name."""

    def leaves(value: object) -> Iterator[object]:
        if isinstance(value, dict):
            for item in value.values():
                yield from leaves(item)
        else:
            yield value

    count = sum(1 for section in ("network", "data", "train") for _ in leaves(variant.tree.get(section, {})))
    return {
        "used": count - len(variant.orphans),
        "orphans": [asdict(orphan) for orphan in variant.orphans],
        "inactive": [{"path": a.dotted, "layer": a.layer} for a in variant.inactive],
    }


def effective_sizes(graph: Graph) -> list[str]:
    """Where rounding or clamping took place, by node."""
    return [f"{node.name}: {note}" for node in graph.nodes for note in node.notes]


def cost_summary(cost: Cost) -> dict[str, Any]:
    return {
        "params": cost.params,
        "flops": cost.flops,
        "activations": cost.activations,
        "by_insertion": {name: list(pair) for name, pair in cost.by_insertion().items()},
        "by_stage": {name: list(pair) for name, pair in cost.by_stage().items()},
        "uncounted": {name: list(operations) for name, operations in cost.uncounted.items()},
    }


def difference(graph: Graph, baseline: Graph, cost: Cost) -> dict[str, Any]:
    """Nodes added, removed and changed, by name, and what they cost."""
    own, others = graph.by_name, baseline.by_name
    base = cost_of(baseline)
    changed = {}
    for name in own:
        if name in others:
            before = {"block": others[name].block.name, **others[name].effective, "reads": others[name].shapes}
            after = {"block": own[name].block.name, **own[name].effective, "reads": own[name].shapes}
            if before != after:
                keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
                changed[name] = {key: [before.get(key), after.get(key)] for key in keys}
    stages, base_stages = cost.by_stage(), base.by_stage()
    return {
        "added": [name for name in own if name not in others],
        "removed": [name for name in others if name not in own],
        "changed": changed,
        "params": cost.params - base.params,
        "flops": cost.flops - base.flops,
        "by_insertion": {name: list(pair) for name, pair in cost.by_insertion().items()},
        "by_stage": {
            name: [a - b for a, b in zip(stages.get(name, (0, 0)), base_stages.get(name, (0, 0)), strict=True)]
            for name in {**base_stages, **stages}
            if stages.get(name) != base_stages.get(name)
        },
    }


def dead_nodes(graph: Graph) -> list[str]:
    """Nodes that the output does not depend on."""
    return [
        f"node '{node.name}' is without effect: the output does not depend on it"
        for node in graph.nodes
        if node.name not in graph.reachable
    ]


def _called_problems(network: fx.GraphModule, graph: Graph, x: Tensor, seed: int) -> list[str]:
    """Run the module itself: it calls what the graph says, which reads what the graph says and writes nothing there."""
    watch = _Watch(graph, x)
    names = dict.fromkeys(node.module for node in graph.nodes)
    modules = {name: network.get_submodule(name) for name in names}
    handles = [module.register_forward_pre_hook(partial(watch.before, name)) for name, module in modules.items()]
    handles += [module.register_forward_hook(partial(watch.after, name)) for name, module in modules.items()]
    with torch.no_grad():
        network.train()
        seed_noise(network, seed, 0)
        output = network(x)
    for handle in handles:
        handle.remove()
    return watch.problems(output)


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


def first_pass(network: fx.GraphModule, x: Tensor, y: Tensor, seed: int) -> tuple[float, list[str]]:
    """(loss, problems) of one forward and backward pass as initialised: everything finite."""
    network.train()
    seed_noise(network, seed, 0)
    network.zero_grad(set_to_none=True)
    loss = F.cross_entropy(network(x), y)
    problems = [] if bool(loss.isfinite()) else ["the loss is not finite before the first step"]
    loss.backward()  # type: ignore[no-untyped-call]
    problems += [
        f"the gradient of '{name}' is not finite before the first step"
        for name, parameter in network.named_parameters()
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
    ]
    return float(loss.detach()), problems


def gradient_check(network: fx.GraphModule, graph: Graph, x: Tensor, y: Tensor, seed: int) -> dict[str, Any]:
    """With all parameters random, in float64: every trainable parameter has a gradient that is not zero.

    Random, since a residual weight of 0 or a zeroed last norm hides what stands behind it. Several draws, since a
    narrow ReLU may be silent in one. What autograd reaches in training, with a gradient of zero, and what has one in
    evaluation mode, is cancelled by batch norm in training (a bias before it) and named, as are the parameters that
    their block declares invariant.
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
        open_names -= _with_gradient(double, x.double(), y, seed, draw, training=True)
        reached |= {name for name in open_names if trainable[name].grad is not None}
        draws = draw + 1
    cancelled: set[str] = set()
    if open_names - declared:
        for draw in range(DRAWS):
            cancelled |= open_names & reached & _with_gradient(double, x.double(), y, seed, draw, training=False)
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


def _with_gradient(network: fx.GraphModule, x: Tensor, y: Tensor, seed: int, draw: int, *, training: bool) -> set[str]:
    """The parameters that have a gradient at one random setting of all of them."""
    _randomise(network, seed, draw)
    network.train(training)
    seed_noise(network, seed, draw)
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
    """Weights normal with variance 1/fan-in, everything else standard normal."""
    for name, parameter in network.named_parameters():
        stream = generator(seed, "certify", name, draw)
        scale = parameter[0].numel() ** -0.5 if parameter.ndim >= 2 and parameter.numel() else 1.0
        values = torch.randn(parameter.shape, generator=stream, dtype=torch.float64)
        parameter.copy_(values * scale)


def _output(network: fx.GraphModule, x: Tensor, seed: int) -> Tensor:
    network.train()
    seed_noise(network, seed, 0)
    with torch.no_grad():
        output: Tensor = network(x)
    return output


def protocol(variant: Variant) -> list[str]:
    """What selects the epoch, stops the training and reads the test split, in sentences."""
    train, data = variant.train, variant.data
    chosen = {
        "last": "The weights of the last epoch are reported.",
        "best": "The weights of the epoch with the highest validation accuracy are reported (the first of equals).",
        "ema": "The moving average of the weights is reported.",
    }
    sentences = [chosen[train.select]]
    stopping = train.early_stopping
    if stopping is None:
        sentences.append(f"Training ends after {_epochs(train.epochs)}.")
    else:
        sentences.append(
            f"Training ends after {_epochs(train.epochs)} at most, or when {stopping.monitor} has not improved for "
            f"{stopping.patience} epochs ({stopping.mode} threshold {stopping.threshold:g})."
        )
    if stopping is not None and stopping.monitor.startswith("test."):
        sentences.append(
            "The test split decides when training stops, so the test figures are biased in this variant's favour."
        )
    else:
        sentences.append("The test split is read once, after training, and decides nothing.")
    if data.val is None:
        sentences.append("There is no validation split.")
    return sentences


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def failed(certificates: Mapping[str, Certificate]) -> list[str]:
    """Every failure, a line each, with its variant."""
    return [f"{name}: {failure}" for name, certificate in certificates.items() for failure in certificate.failures]
