"""The certificate: what was proven about a variant before its first training step.

1. every key of the spec was used, and which became orphans;
2. its identity and the network's fingerprint;
3. its exact difference from the baseline;
4. a forward and a backward pass on a real batch, as initialised and with all parameters random;
5. shared parameters start bit-equal to the baseline's, and the first batches are the same;
6. the protocol, in words;
7. where recipes are tuned: that every variant was tuned by as many trials.

A claim that does not hold is a ``failure``; a variant with failures is not trained.
"""

from __future__ import annotations

import hashlib
import json
import traceback
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from ablate.builder import build, parameter_digests, tensor_digest
from ablate.costing import Cost, cost_of
from ablate.data.dataset import DataSpec, ImageData
from ablate.design.variant import Variant, digest
from ablate.difference import difference
from ablate.graph import Graph
from ablate.importing.graph import differences
from ablate.numerics import Numerics, process_settings
from ablate.optimizing import make_loss
from ablate.passes import (
    SEEDS,
    Probe,
    called_problems,
    dead_nodes,
    first_output,
    first_pass,
    gradient_check,
    stuck_parameters,
)
from ablate.train import first_batches, trial_of
from ablate.trainable import freeze

BATCH = 8


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
    weights: dict[str, Any] | None = None
    """What of the first seed's network starts from ``init.from``, and what does not."""
    passes: dict[str, Any] = field(default_factory=dict)
    shared: dict[str, Any] | None = None
    first_batches: dict[str, Any] | None = None
    protocol: list[str] = field(default_factory=list)
    tuning: dict[str, Any] | None = None
    """Where its recipe was tuned: over which space, by how many trials, to which values."""
    code: dict[str, dict[str, str]] = field(default_factory=dict)
    """Of each block, data set and augmentation from outside this package: the digest of its source, and whose it is."""
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
        self._shapes: dict[str, dict[str, torch.Size]] = {}
        self._first: dict[str, str] = {}
        self._originals: dict[str, list[str]] = {}
        """What imported networks do otherwise than their originals."""

    def certify(self, variant: Variant, baseline: Variant | None, *, passes: bool = True) -> Certificate:
        """The certificate of one variant, computed as training would compute it.

        Without ``passes`` nothing is run forward or backward; every other claim is made and held all the same.
        """
        with process_settings(self.numerics):
            return self._certificate(variant, baseline, passes)

    def _certificate(self, variant: Variant, baseline: Variant | None, passes: bool) -> Certificate:
        graph = variant.network.graph
        cost = cost_of(graph)
        certificate = Certificate(variant.name, variant.identity, graph.fingerprint, variant.network.init.recipe)
        certificate.keys = used_keys(variant)
        certificate.effective = effective_sizes(graph)
        certificate.weights = variant.network.weights.facts(self.seed) if variant.network.weights else None
        tested = self.data_of(variant.data).test is not None
        certificate.protocol = protocol(variant, self.numerics.devices, tested=tested)
        certificate.tuning = dict(variant.tuning) if variant.tuning else None
        certificate.failures += tuning_problems(variant)
        certificate.code = variant.code
        certificate.cost = cost_summary(cost)
        if baseline is not None:
            certificate.difference = difference(graph, baseline.network.graph, cost) | {"baseline": baseline.name}
        certificate.failures += dead_nodes(graph)
        if passes:
            self._passes(variant, baseline, certificate)
        if baseline is not None:
            self._shared(variant, baseline, certificate)
            self._batches(variant, baseline, certificate)
        return certificate

    def _build(self, variant: Variant, seed: int | None = None) -> fx.GraphModule:
        seed = self.seed if seed is None else seed
        network = variant.network.built(seed, weights_of=self.seed)
        freeze(network, variant.trainable)
        return network

    def _passes(self, variant: Variant, baseline: Variant | None, certificate: Certificate) -> None:
        graph = variant.network.graph
        data = self.data_of(variant.data)
        x, y = _real_batch(data)
        network, probe = self._build(variant), Probe(self.seed, variant.trainable)
        certificate.passes = {"batch": len(x), "nodes": len(graph.nodes)}
        try:
            self._original(variant, x, certificate)
            certificate.failures += called_problems(probe, network, graph, x)
            loss, problems = first_pass(probe, network, x, y, make_loss(variant.train, graph.classes))
            gradients = gradient_check(probe, network, graph, x, y)
            exempt = {*gradients["invariant"], *gradients["cancelled_by_batch_norm"], *gradients["without"]}
            stuck, silent = self._stuck(variant, x, y, exempt)
            starts_equal = self._starts_equal(variant, baseline, x) if baseline is not None else None
        except Exception as error:  # whatever a block raises: the other variants are certified all the same
            certificate.failures.append(f"a pass over {len(x)} images raises {type(error).__name__}: {error}")
            certificate.passes["traceback"] = traceback.format_exc()
            return
        certificate.passes |= {"first_loss": loss, "gradients": gradients, "silent_at_first": silent}
        certificate.failures += problems
        certificate.failures += [
            f"parameter '{name}' never moves from its start: its gradient is 0 in every first step, with every seed"
            for name in stuck
        ]
        certificate.failures += [f"parameter '{name}' never receives a gradient" for name in gradients["without"]]
        if starts_equal is not None:
            certificate.passes["starts_as_baseline"] = starts_equal
            if starts_equal and self._stays_as_it_starts(network, certificate):
                message = "starts as its baseline, and nothing in which it differs is trained: it will stay equal"
                certificate.failures.append(message)

    def _original(self, variant: Variant, x: Tensor, certificate: Certificate) -> None:
        """Of an imported network: without its insertions it is the original, in evaluation and in training."""
        source, written = variant.network.source, variant.network.written
        if source is None:
            return
        key = digest([source.origin.identity, source.shape, tensor_digest(x)])
        if key not in self._originals:
            network = build(written, seed=self.seed)
            self._originals[key] = differences(source, written, network, x, self.seed)
        certificate.passes["imported"] = {
            "from": source.origin.name,
            "arguments": json.loads(source.origin.arguments),
            "equal_to_the_original": not self._originals[key],
            "kept_whole": list(source.whole),
        }
        certificate.failures += self._originals[key]

    def _stuck(self, variant: Variant, x: Tensor, y: Tensor, exempt: set[str]) -> tuple[list[str], list[str]]:
        """(parameters that never move, whatever the seed; those that do not with the first seed alone)"""
        first = stuck_parameters(Probe(self.seed, variant.trainable), self._build(variant), x, y) - exempt
        # A trained network may hold units that are silent for good: that is its start, and no mistake of the spec's.
        always = first - self._loaded(variant)
        for seed in range(self.seed + 1, self.seed + SEEDS):
            if not always:
                break
            always = always & stuck_parameters(Probe(seed, variant.trainable), self._build(variant, seed), x, y)
        return sorted(always), sorted(first - always)

    def _loaded(self, variant: Variant) -> Set[str]:
        """The parameters and buffers that start from the weights of ``init.from``."""
        weights = variant.network.weights
        return weights.matched(self.seed)[1].loaded.keys() if weights else set()

    def _stays_as_it_starts(self, network: fx.GraphModule, certificate: Certificate) -> bool:
        """Whether what differs from the baseline has parameters, and all of them are frozen."""
        found = certificate.difference or {"added": [], "changed": {}}
        prefixes = tuple(f"{name}." for name in [*found["added"], *found["changed"]])
        own = [parameter for name, parameter in network.named_parameters() if name.startswith(prefixes)]
        return bool(prefixes and own) and not any(parameter.requires_grad for parameter in own)

    def _starts_equal(self, variant: Variant, baseline: Variant, x: Tensor) -> bool:
        """Whether the whole network's first output equals the baseline's (a residual weight that starts at 0)."""
        if variant.shape != baseline.shape or variant.classes != baseline.classes:
            return False
        outputs = [first_output(Probe(self.seed, each.trainable), self._build(each), x) for each in (variant, baseline)]
        return outputs[0].shape == outputs[1].shape and bool((outputs[0] == outputs[1]).all())

    def _shared(self, variant: Variant, baseline: Variant, certificate: Certificate) -> None:
        own, others = self._state(variant), self._state(baseline)
        changed = [*(certificate.difference or {}).get("changed", {})]
        shared = [name for name in own if name in others]
        unequal = [name for name in shared if own[name] != others[name]]
        explained = [name for name in unequal if any(name.startswith(f"{node}.") for node in changed)]
        if _of_init(variant) != _of_init(baseline):
            explained = unequal
        loaded = self._loaded(variant) | self._loaded(baseline)
        explained = [name for name in unequal if name in explained or name in loaded]
        certificate.shared = {
            "of": len(own),
            "shared": len(shared),
            "equal": len(shared) - len(unequal),
            "unequal_by_difference": explained,
        }
        shapes, base = self._shapes[variant.name], self._shapes[baseline.name]
        if reshaped := sum(shapes[name] != base[name] for name in shared):  # of a wider network most can't be equal
            certificate.shared["of_another_shape"] = reshaped
        if by_weights := [name for name in explained if name in loaded]:
            certificate.shared["unequal_by_weights"] = by_weights
        certificate.failures += [
            f"'{name}' starts with other values than in '{baseline.name}', though its node is the same"
            for name in unequal
            if name not in explained
        ]

    def _state(self, variant: Variant) -> dict[str, str]:
        if variant.name not in self._digests:
            network = self._build(variant)
            self._digests[variant.name] = parameter_digests(network)
            self._shapes[variant.name] = {name: tensor.shape for name, tensor in network.state_dict().items()}
        return self._digests[variant.name]

    def _batches(self, variant: Variant, baseline: Variant, certificate: Certificate) -> None:
        differs = [
            what
            for what, same in {
                "data": _without(variant.data, "augment", "mix") == _without(baseline.data, "augment", "mix"),
                "augmentation": variant.data.augment == baseline.data.augment,
                "mixing": variant.data.mix == baseline.data.mix,
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
            for x, y in first_batches(trial_of(variant, self.seed, self.numerics), self.data_of(variant.data), 2):
                digest.update((tensor_digest(x) + tensor_digest(y)).encode())
            self._first[variant.name] = digest.hexdigest()[:32]
        return self._first[variant.name]


def _of_init(variant: Variant) -> tuple[str, Mapping[str, Any]]:
    """How parameters start that nothing is loaded into."""
    return variant.network.init.recipe, variant.network.init.set


def _without(data: DataSpec, *fields: str) -> dict[str, Any]:
    return data.model_dump(mode="json", exclude=set(fields))


def _real_batch(data: ImageData) -> tuple[Tensor, Tensor]:
    """The first training images, as float32 in [0, 1] normalised, and their labels."""
    rows = np.arange(min(BATCH, len(data.train)))
    images = torch.from_numpy(data.train.batch(rows)).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    return (images - mean) / std, torch.from_numpy(data.train.labels[rows])


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
        # An entry of a list that is without use leaves the list one key.
        "used": count - sum(1 for orphan in variant.orphans if not _is_entry(orphan.path)),
        "orphans": [asdict(orphan) for orphan in variant.orphans],
        "inactive": [{"path": a.dotted, "layer": a.layer} for a in variant.inactive],
    }


def _is_entry(path: str) -> bool:
    return any(part.isdigit() for part in path.split("."))


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


def protocol(variant: Variant, devices: int = 1, *, tested: bool = True) -> list[str]:
    """What tunes the recipe, selects the epoch, stops the training, reads the test split, shares and splits a batch."""
    train, data = variant.train, variant.data
    chosen = {
        "last": "The weights of the last epoch are reported.",
        "best": "The weights of the epoch with the highest validation accuracy are reported (the first of equals).",
        "ema": "The moving average of the weights is reported.",
    }
    weights = variant.network.weights
    sentences = [*([weights.in_words()] if weights else []), *_tuned(variant)]
    sentences.append(chosen[train.select])
    stopping = train.early_stopping
    if stopping is None:
        sentences.append(f"Training ends after {_epochs(train.epochs)}.")
    else:
        sentences.append(
            f"Training ends after {_epochs(train.epochs)} at most, or when {stopping.monitor} has not improved for "
            f"{stopping.patience} epochs ({stopping.mode} threshold {stopping.threshold:g})."
        )
    if train.evaluates_every not in (None, 1) and (stopping is not None or train.select == "best"):
        sentences.append(
            f"It is looked at every {train.evaluates_every} epochs and after the last, and not in between."
        )
    if stopping is not None and stopping.monitor.startswith("test."):
        sentences.append(
            "The test split decides when training stops, so the test figures are biased in this variant's favour."
        )
    elif tested and train.evaluates_test:
        sentences.append(
            f"The test split is read after {_often(train.evaluates_every)} and once more after training: its curve is "
            "shown, and decides nothing."
        )
    elif tested:
        sentences.append("The test split is read once, after training, and decides nothing.")
    else:
        sentences.append("There is no test split.")
    if data.val is None:
        sentences.append("There is no validation split.")
    share = train.batch_size / devices
    seen = min(share, train.micro_batch or share)
    if devices > 1:
        sentences.append(
            f"Each batch is shared by {devices} devices: batch norm, where there is any, sees {seen:.4g} of its "
            f"{train.batch_size} images, and dropout is drawn on each device by itself."
        )
    if seen < share:
        sentences.append(
            f"{share:.4g} images are computed in parts of {seen}, whose gradients add up to one step: batch norm, "
            "where there is any, sees one part at a time."
        )
    return sentences


def _tuned(variant: Variant) -> list[str]:
    """What all tuned variants have alike, and what this one came to."""
    found = variant.tuning
    if found is None:
        return []
    count = found["trained"]
    of = f"the best of {count} trials on {found['objective']}" if count > 1 else f"one trial, on {found['objective']}"
    alike = "; every variant had as many" if count == found["most"] else ""
    values = ", ".join(f"{path} {_short(label)}" for path, label in found["values"].items())
    return [
        f"The recipe was tuned beforehand: {of} over {found['space'].rpartition('/')[2]}, seed {found['seed']}{alike}.",
        f"It was tuned to {values} ({found['objective']} {found['value']:.4g}).",
    ]


def _short(label: str) -> str:
    """A number with four digits, where it was drawn with more."""
    try:
        return f"{float(label):.4g}" if len(label) > 8 else label
    except ValueError:
        return label


def tuning_problems(variant: Variant) -> list[str]:
    """Variants are compared at their best only if each had as many trials to find it."""
    found = variant.tuning
    if found is None or found["trained"] == found["most"]:
        return []
    count = "1 trial" if found["trained"] == 1 else f"{found['trained']} trials"
    return [f"its recipe was tuned by {count}, and that of another variant by {found['most']}"]


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _often(every: int | None) -> str:
    """After which epochs is evaluated."""
    if every is None:
        return "the last epoch"
    return "every epoch" if every == 1 else f"every {every} epochs and the last"


def failed(certificates: Mapping[str, Certificate]) -> list[str]:
    """Every failure, a line each, with its variant."""
    return [f"{name}: {failure}" for name, certificate in certificates.items() for failure in certificate.failures]
