"""The certificate: every kind of fault is planted, and caught before the first training step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from ablate import block as blocks
from ablate import certify
from ablate.block import Block, BlockParams, Shape
from ablate.builder import build
from ablate.certify import Certificate, Certifier, failed
from ablate.data.dataset import DataSpec, ImageData
from ablate.data.dataset import load as load_data
from ablate.design import StudyPlan, as_written, study_plan
from ablate.errors import UserError
from ablate.graph import Node
from ablate.numerics import Numerics
from ablate.spec import load
from ablate.train import first_batches
from ablate.weights import loading

DATA = {"name": "fake", "shape": [3, 11, 13], "classes": 5, "count": {"train": 29, "test": 7}, "val": 0.3}
TRAIN = {"epochs": 1, "batch_size": 5, "optimizer": {"name": "sgd", "lr": 0.1}}
GRAPH: dict[str, dict[str, Any]] = {
    "stem": {"block": "conv_bn_act", "width": 16, "kernel": 3},
    "body": {"block": "basic", "width": 16, "repeat": 2},
    "head": {"block": "classifier"},
}
NUMERICS = Numerics()


class Detached(Block):
    """Its weight is read, and autograd does not see it."""

    name = "test_detached"

    def __init__(self, params: BlockParams, shape: Shape) -> None:
        super().__init__()
        self.conv = nn.Conv2d(shape[0], shape[0], 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x.detach()).detach()
        return x * torch.sigmoid(y)


class DetachedInTraining(Detached):
    """A fault that evaluation mode does not show."""

    name = "test_detached_in_training"

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x * torch.sigmoid(y.detach() if self.training else y)


class Unused(Detached):
    """A parameter that nothing reads."""

    name = "test_unused"

    def forward(self, x: Tensor) -> Tensor:
        return x


class InPlace(Block):
    name = "test_in_place"

    def __init__(self, params: BlockParams, shape: Shape) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(x)


class InPlaceInEvaluation(InPlace):
    """Training does not show it, and evaluation reads what it left."""

    name = "test_in_place_in_evaluation"

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if self.training else x.mul_(2)


class HiddenWrite(InPlace):
    """Writes where the version counter does not see it."""

    name = "test_hidden_write"

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        if not x.is_meta:
            x.data.mul_(0.5)
        return y


class StartsAsNan(Detached):
    name = "test_nan"

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x) * float("nan")
        return y


class InfiniteGradient(Detached):
    """Finite forward, not backward: the square root at 0."""

    name = "test_infinite_gradient"

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + torch.sqrt(y - y.detach())


class Raises(InPlace):
    name = "test_raises"

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise ZeroDivisionError("a block's own bug")
        return x


class Forgets(Detached):
    """Its parameters stay where the global stream left them."""

    name = "test_forgets"

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y

    def init(self, stream: Any, recipe: str) -> None:
        nn.init.normal_(self.conv.weight)


@pytest.fixture(autouse=True, scope="module")
def blocks_of_this_file() -> Iterator[None]:
    """Registered while these tests run, and unknown to the tests of all registered blocks."""
    kinds = (
        Detached,
        DetachedInTraining,
        Unused,
        InPlace,
        InPlaceInEvaluation,
        HiddenWrite,
        StartsAsNan,
        InfiniteGradient,
        Raises,
        Forgets,
    )
    for kind in kinds:
        blocks.register(kind)
    yield
    for kind in kinds:
        del blocks._registry[kind.name]


@lru_cache(maxsize=8)
def arrays(text: str) -> ImageData:
    return load_data(DataSpec.model_validate_json(text), base=Path())


def data_of(data: DataSpec) -> ImageData:
    return arrays(data.model_dump_json())


def spec(network: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    return {"name": "study", "data": DATA, "train": TRAIN, "network": {"graph": GRAPH} | (network or {})} | sections


def insertion(block: str, at: str = "after stem", **keys: Any) -> dict[str, Any]:
    return {"insert": {"extra": {"block": block, "at": at, **keys}}}


def certified(network: dict[str, Any] | None = None, **sections: Any) -> Certificate:
    return Certifier(data_of, NUMERICS).certify(as_written(load(spec(network, **sections))), None)


def planned(variants: dict[str, Any], network: dict[str, Any] | None = None, **sections: Any) -> StudyPlan:
    ablation = {"seeds": 1, "design": "variants", "baseline": next(iter(variants)), "variants": variants}
    return study_plan(load(spec(network, ablation=ablation, **sections)))


def certificates(variants: dict[str, Any], network: dict[str, Any] | None = None, **sections: Any) -> list[Certificate]:
    plan = planned(variants, network, **sections)
    certifier = Certifier(data_of, NUMERICS)
    return [certifier.certify(v, plan.variant(v.baseline) if v.baseline else None) for v in plan.variants]


# ---- a sound variant ----


def test_a_sound_network_has_no_failures_and_every_parameter_a_gradient() -> None:
    certificate = certified()
    assert certificate.failures == []
    gradients = certificate.passes["gradients"]
    network = build(as_written(load(spec())).network.graph)
    assert gradients["parameters"] == len(list(network.parameters()))
    assert gradients["with_gradient"] == gradients["parameters"]
    assert (gradients["invariant"], gradients["cancelled_by_batch_norm"], gradients["frozen"]) == ([], [], [])


def test_certifying_leaves_the_global_stream_as_it_was() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    certified(insertion("dropout", rate=0.3))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_certificate_is_plain_data_and_the_same_twice() -> None:
    import json

    first, second = (certified(insertion("cbam", reduction=5)).as_dict() for _ in range(2))
    assert json.loads(json.dumps(first)) == json.loads(json.dumps(second))


def test_failures_are_listed_with_their_variant() -> None:
    certificate = certified(insertion("test_unused"))
    assert failed({"study": certificate}) == ["study: parameter 'stem_extra.conv.weight' never receives a gradient"]


# ---- 1. every key was used ----


def test_the_keys_that_a_level_orphaned_are_named() -> None:
    variants = {"cbam": {}, "self": {"network.insert.extra.block": "self_attention"}}
    _, certificate = certificates(variants, insertion("cbam", reduction=5))
    assert certificate.keys["orphans"] == [{"path": "network.insert.extra.reduction", "value": 5, "layer": "spec"}]
    assert certificate.failures == []


def test_a_pattern_that_hits_nothing_never_comes_to_a_certificate() -> None:
    with pytest.raises(UserError, match=r"pattern 'boddy\.\*' matches nothing; nearest: body\.0, body\.1"):
        certified(insertion("se", at="after boddy.*"))


# ---- 2. identity ----


def test_the_certificate_carries_identity_and_fingerprint() -> None:
    variant = as_written(load(spec()))
    certificate = certified()
    assert (certificate.identity, certificate.fingerprint) == (variant.identity, variant.network.graph.fingerprint)


def test_two_levels_that_give_one_network_have_one_fingerprint_and_one_identity() -> None:
    variants = {
        "without": {"network.insert.extra": None},
        "after": {"network.insert.extra.at": "after stem"},
        "before": {"network.insert.extra.at": "before body"},
    }
    _, after, before = certificates(variants, insertion("se"))
    assert (after.identity, after.fingerprint) == (before.identity, before.fingerprint)


def test_a_no_op_never_comes_to_a_certificate() -> None:
    with pytest.raises(UserError, match="variant 'same' is the baseline 'base'"):
        planned({"base": {}, "same": {"network.insert.extra.reduction": 64}}, insertion("se", reduction=32))


# ---- 3. the difference from the baseline ----


def test_the_difference_names_what_was_added_changed_and_what_it_costs() -> None:
    variants = {
        "base": {},
        "more": {
            "network.insert.extra": {"block": "spatial_gate", "kernel": 3, "at": "after stem"},
            "network.graph.stem.kernel": 5,
        },
    }
    base, more = certificates(variants)
    assert base.difference is None
    assert more.difference is not None
    assert more.difference["added"] == ["stem_extra"]
    assert more.difference["removed"] == []
    assert more.difference["changed"]["stem.conv"]["kernel"] == [3, 5]
    assert more.difference["params"] == (2 * 9 + 1) + 3 * 16 * (25 - 9) == more.cost["params"] - base.cost["params"]
    assert more.difference["by_insertion"]["extra"][0] == 2 * 9 + 1
    assert more.difference["by_stage"]["stem"][1] == 3 * 16 * (25 - 9) * 11 * 13


def test_a_node_that_is_gone_is_named() -> None:
    _, less = certificates({"base": {}, "less": {"network.insert.extra": None}}, insertion("se"))
    assert less.difference is not None
    assert less.difference["removed"] == ["stem_extra"]


def test_sizes_that_were_rounded_are_named() -> None:
    assert certified(insertion("cbam", reduction=32)).effective == [
        "stem_extra: reduction 32 on 16 channels → hidden width 1"
    ]


# ---- 4. a forward and a backward pass ----


def test_a_hidden_width_of_0_is_certified_and_named() -> None:
    certificate = certified(insertion("cbam", reduction=32, min_hidden=0, residual="plain"))
    assert certificate.failures == []
    assert certificate.effective == ["stem_extra: reduction 32 on 16 channels → hidden width 0"]


SIDE = {
    "stem": GRAPH["stem"],
    "side": {"block": "conv_bn_act", "width": 7},
    "body": GRAPH["body"] | {"from": "stem"},
    "head": GRAPH["head"],
}


def test_an_insertion_at_a_node_that_nothing_reads_never_comes_to_a_certificate() -> None:
    with pytest.raises(UserError, match="insertion after 'side' has no effect"):
        certified({"graph": SIDE} | insertion("se", at="after side"))


def test_a_node_that_nothing_reads_is_caught() -> None:
    failures = certified({"graph": SIDE}).failures
    assert "node 'side.conv' is without effect: the output does not depend on it" in failures
    assert "parameter 'side.conv.weight' never receives a gradient" in failures


def test_an_insertion_that_a_faulty_rewrite_left_unread_is_caught() -> None:
    variant = as_written(load(spec(insertion("se"))))
    graph = variant.network.graph

    def past_it(node: Node) -> Node:
        return replace(node, inputs=tuple("stem.act" if source == "stem_extra" else source for source in node.inputs))

    graph = replace(graph, nodes=tuple(past_it(node) for node in graph.nodes))
    unread = replace(variant, network=replace(variant.network, graph=graph))
    failures = Certifier(data_of, NUMERICS).certify(unread, None).failures
    assert "node 'stem_extra' is without effect: the output does not depend on it" in failures
    assert "parameter 'stem_extra.fc1.weight' never receives a gradient" in failures


def rebuilt(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """``build`` with a fault planted into what it built."""

    def faulty(*args: Any, **kwargs: Any) -> fx.GraphModule:
        network = build(*args, **kwargs)
        change(network)
        network.graph.lint()
        network.recompile()
        return network

    monkeypatch.setattr(loading, "build", faulty)


def call(network: fx.GraphModule, target: str) -> fx.Node:
    found: fx.Node = next(node for node in network.graph.nodes if node.target == target)
    return found


def test_a_built_network_that_skips_a_node_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def skip(network: fx.GraphModule) -> None:
        node = call(network, "stem.act")
        node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
        network.graph.erase_node(node)

    rebuilt(monkeypatch, skip)
    assert "node 'stem.act' was called 0 times, not 1" in certified().failures


def test_a_built_network_that_calls_a_node_and_does_not_use_it_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def bypass(network: fx.GraphModule) -> None:
        node = call(network, "stem.act")
        node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]

    rebuilt(monkeypatch, bypass)
    assert "node 'body.0.conv1' does not read stem.act" in certified().failures


def test_a_built_network_that_calls_a_node_twice_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def repeat(network: fx.GraphModule) -> None:
        node = call(network, "stem.act")
        with network.graph.inserting_after(node):
            again = network.graph.call_module("stem.act", (node,))
        node.replace_all_uses_with(again, lambda user: user is not again)

    rebuilt(monkeypatch, repeat)
    assert "node 'stem.act' was called 2 times, not 1" in certified().failures


def test_a_built_network_with_swapped_ports_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def swap(network: fx.GraphModule) -> None:
        node = call(network, "body.1.add")
        node.args = node.args[::-1]

    rebuilt(monkeypatch, swap)
    assert any(failure.startswith("node 'body.1.add' does not read") for failure in certified().failures)


def test_a_built_network_that_returns_another_nodes_output_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = {**GRAPH, "again": {"block": "linear", "width": 5}}

    def stop_early(network: fx.GraphModule) -> None:
        call(network, "output").args = (call(network, "again").args[0],)

    rebuilt(monkeypatch, stop_early)
    assert "the network's output is not that of 'again'" in certified({"graph": graph}).failures


@pytest.mark.parametrize("name", ["test_detached", "test_detached_in_training", "test_unused"])
def test_a_parameter_without_gradient_is_caught(name: str) -> None:
    assert certified(insertion(name)).failures == ["parameter 'stem_extra.conv.weight' never receives a gradient"]


@pytest.mark.parametrize("per", ["scalar", "channel"])
def test_a_residual_weight_that_starts_at_0_hides_nothing(per: str) -> None:
    variants = {
        "base": {},
        "more": {
            "network.insert.extra": {
                "block": "se",
                "at": "after stem",
                "residual": {"kind": "weighted", "init": 0.0, "per": per},
            }
        },
    }
    _, certificate = certificates(variants)
    assert certificate.failures == []
    assert certificate.passes["starts_as_baseline"] is True


def test_a_fault_behind_a_residual_weight_of_0_is_caught() -> None:
    certificate = certified(insertion("test_detached", residual="weighted"))
    assert certificate.failures == ["parameter 'stem_extra.conv.weight' never receives a gradient"]


def test_a_last_norm_that_starts_at_0_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def zero(network: fx.GraphModule) -> None:
        for name, parameter in network.named_parameters():
            if name.endswith("bn2.weight"):
                nn.init.zeros_(parameter)

    rebuilt(monkeypatch, zero)
    assert certified().failures == []


def test_a_bias_that_softmax_cancels_is_named_as_invariant_and_no_failure() -> None:
    certificate = certified(insertion("self_attention", residual="weighted"))
    assert certificate.failures == []
    assert certificate.passes["gradients"]["invariant"] == ["stem_extra.key.bias"]


def test_a_bias_that_softmax_cancels_and_that_nobody_declared_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks.find("self_attention"), "invariant_parameters", frozenset())
    certificate = certified(insertion("self_attention"))
    assert certificate.failures == ["parameter 'stem_extra.key.bias' never receives a gradient"]


def test_a_bias_before_batch_norm_is_named_as_cancelled_and_no_failure() -> None:
    graph = {
        "conv": {"block": "conv", "width": 7, "bias": True},
        "bn": {"block": "batch_norm"},
        "act": {"block": "act"},
        "head": GRAPH["head"],
    }
    certificate = certified({"graph": graph})
    assert certificate.failures == []
    assert certificate.passes["gradients"]["cancelled_by_batch_norm"] == ["conv.bias"]


def test_a_bias_without_batch_norm_is_not_called_cancelled() -> None:
    graph = {"conv": {"block": "conv", "width": 7, "bias": True}, "act": {"block": "act"}, "head": GRAPH["head"]}
    assert certified({"graph": graph}).passes["gradients"]["cancelled_by_batch_norm"] == []


def test_a_frozen_parameter_is_exempt_and_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    rebuilt(monkeypatch, lambda network: network.get_parameter("stem.conv.weight").requires_grad_(False))
    certificate = certified()
    assert certificate.failures == []
    assert certificate.passes["gradients"]["frozen"] == ["stem.conv.weight"]


def test_what_the_recipe_freezes_is_exempt_and_listed() -> None:
    certificate = certified(train=TRAIN | {"freeze": ["stem", "body.0.bn1"]})
    assert certificate.failures == []
    gradients = certificate.passes["gradients"]
    wanted = ["stem.conv.weight", *(f"{bn}.{p}" for bn in ("stem.bn", "body.0.bn1") for p in ("weight", "bias"))]
    assert gradients["frozen"] == wanted
    assert gradients["parameters"] == gradients["with_gradient"] == len(list(parameters())) - len(wanted)


def parameters() -> Iterator[nn.Parameter]:
    return build(as_written(load(spec())).network.graph).parameters()


def test_a_fault_is_no_matter_where_it_is_frozen_and_is_one_where_it_alone_is_trained() -> None:
    faulty = insertion("test_unused")
    frozen = certified(faulty, train=TRAIN | {"freeze": ["insert.extra"]})
    assert (frozen.failures, frozen.passes["gradients"]["frozen"]) == ([], ["stem_extra.conv.weight"])
    trained = certified(faulty, train=TRAIN | {"only": ["insert.extra", "head"]})
    assert trained.failures == ["parameter 'stem_extra.conv.weight' never receives a gradient"]


def test_a_frozen_norm_normalises_by_its_statistics_and_cancels_no_bias() -> None:
    graph = {
        "conv": {"block": "conv", "width": 7, "bias": True},
        "bn": {"block": "batch_norm"},
        "act": {"block": "act"},
        "head": GRAPH["head"],
    }
    certificate = certified({"graph": graph}, train=TRAIN | {"freeze": ["bn"]})
    assert certificate.failures == []
    assert certificate.passes["gradients"]["cancelled_by_batch_norm"] == []
    assert certificate.passes["gradients"]["with_gradient"] == 4


def test_a_variant_with_a_frozen_norm_does_not_start_as_its_baseline() -> None:
    _, conv, norm = certificates(
        {"base": {}, "conv": {"train.freeze": ["stem.conv"]}, "norm": {"train.freeze": ["stem.bn"]}}
    )
    assert conv.passes["starts_as_baseline"] is True
    assert norm.passes["starts_as_baseline"] is False
    assert conv.failures == norm.failures == []


def test_the_first_loss_is_the_recipes() -> None:
    data = data_of(DataSpec.model_validate(DATA))
    variant = as_written(load(spec()))
    network = build(variant.network.graph)
    images = torch.from_numpy(data.train.images[:8]).float() / 255  # type: ignore[union-attr]
    mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
    scores = network((images - mean) / std).detach()
    y = F.one_hot(torch.from_numpy(data.train.labels[:8]), 5).float()
    binary = certified(train=TRAIN | {"loss": {"name": "bce"}}).passes["first_loss"]
    assert binary == pytest.approx(float(F.binary_cross_entropy(scores.sigmoid(), y)), rel=1e-5)


def test_an_insertion_that_is_not_there_to_be_frozen_is_listed_and_takes_no_key_away() -> None:
    variants = {"with": {}, "without": {"network.insert.extra": None}}
    recipe = TRAIN | {"freeze": ["insert.extra", "stem"]}
    with_it, without = certificates(variants, insertion("se"), train=recipe)
    assert without.keys["orphans"] == [{"path": "train.freeze.0", "value": "insert.extra", "layer": "spec"}]
    assert with_it.keys["used"] - without.keys["used"] == 2  # the insertion's block and at
    assert without.failures == with_it.failures == []


@pytest.mark.parametrize("name", ["test_in_place", "test_hidden_write"])
def test_a_node_that_writes_into_what_it_reads_is_caught(name: str) -> None:
    assert any(
        failure.startswith("node 'stem.bn_extra' writes into what it reads")
        for failure in certified(insertion(name, at="after stem.bn")).failures
    )


def test_a_write_that_changes_no_value_here_is_caught_too() -> None:
    failures = certified(insertion("test_in_place", at="after stem.act")).failures
    assert any(failure.startswith("node 'stem.act_extra' writes into what it reads") for failure in failures)


def test_what_is_no_number_at_the_start_is_caught_and_taken_for_nothing_else() -> None:
    failures = certified(insertion("test_nan", residual="plain")).failures
    assert "the loss is not finite before the first step" in failures
    assert not any("writes into" in failure for failure in failures)


def test_a_gradient_that_is_not_finite_at_the_start_is_caught() -> None:
    failures = certified(insertion("test_infinite_gradient")).failures
    assert "the gradient of 'stem_extra.conv.weight' is not finite before the first step" in failures
    assert "the loss is not finite before the first step" not in failures


def test_a_block_that_raises_is_a_failure_with_its_traceback_and_the_others_are_certified() -> None:
    variants = {"base": {}, "bad": {"network.insert.extra": {"block": "test_raises", "at": "after stem"}}}
    base, bad = certificates(variants)
    assert base.failures == []
    assert bad.failures == ["a pass over 8 images raises ZeroDivisionError: a block's own bug"]
    assert "in forward" in bad.passes["traceback"]


def test_networks_with_dropout_are_certified() -> None:
    certificate = certified(insertion("dropout", at="after body.*", rate=0.5))
    assert certificate.failures == []


# ---- 5. shared parameters and first batches ----

GATED = {"base": {}, "gated": {"network.insert.extra": {"block": "se", "at": "after stem"}}}


def test_shared_parameters_start_equal_and_are_counted() -> None:
    _, gated = certificates(GATED)
    shared = len(build(as_written(load(spec())).network.graph).state_dict())
    assert gated.shared == {"of": shared + 4, "shared": shared, "equal": shared, "unequal_by_difference": []}
    assert gated.failures == []


def test_init_from_one_stream_after_another_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def in_sequence(network: fx.GraphModule) -> None:
        stream = torch.Generator().manual_seed(0)
        for parameter in network.parameters():
            nn.init.normal_(parameter, generator=stream)

    rebuilt(monkeypatch, in_sequence)
    base, gated = certificates(GATED)
    assert base.failures == []
    assert "'head.fc.weight' starts with other values than in 'base', though its node is the same" in gated.failures


def test_a_block_that_initialises_from_the_global_stream_is_caught() -> None:
    both = {"base": {}, "more": {"train.optimizer.lr": 0.2}}
    _, more = certificates(both, insertion("test_forgets"))
    assert more.failures == [
        "'stem_extra.conv.weight' starts with other values than in 'base', though its node is the same"
    ]


def test_parameters_of_nodes_that_the_difference_names_may_start_unequal() -> None:
    _, wide = certificates({"base": {}, "wide": {"network.graph.stem.kernel": 5}})
    assert wide.failures == []
    assert wide.shared is not None
    assert wide.shared["unequal_by_difference"] == ["stem.conv.weight"]


def test_another_init_recipe_explains_unequal_starts() -> None:
    _, other = certificates({"base": {}, "torch": {"network.init.recipe": "torch_default"}})
    assert other.failures == []
    assert other.shared is not None
    assert "stem.conv.weight" in other.shared["unequal_by_difference"]


def test_first_batches_that_differ_and_should_not_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = {"base": 0, "gated": 1}
    monkeypatch.setattr(
        certify,
        "first_batches",
        lambda trial, data, count: first_batches(replace(trial, seed=seeds[trial.variant]), data, count),
    )
    _, gated = certificates(GATED)
    assert gated.failures == ["its first batches differ from those of 'base', and nothing says so"]


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ({"train.batch_size": 7}, "batch size"),
        ({"data.augment": ["horizontal_flip"]}, "augmentation"),
        ({"data.normalize": "none"}, "data"),
    ],
)
def test_first_batches_may_differ_by_what_varies(patch: dict[str, Any], reason: str) -> None:
    _, other = certificates({"base": {}, "other": patch})
    assert other.failures == []
    assert other.first_batches is not None
    assert (other.first_batches["equal"], other.first_batches["differ_by"]) == (False, [reason])


def test_a_recipe_that_varies_leaves_the_first_batches_equal() -> None:
    _, other = certificates({"base": {}, "other": {"train.optimizer.lr": 0.2}})
    assert other.first_batches is not None
    assert (other.first_batches["equal"], other.first_batches["differ_by"]) == (True, [])
    assert other.passes["starts_as_baseline"] is True


# ---- 6. the protocol, in words ----


def sentences(**train: Any) -> str:
    return " ".join(certified(train=TRAIN | train).protocol)


def test_the_protocol_says_whose_weights_are_reported() -> None:
    assert "weights of the last epoch" in sentences()
    assert "highest validation accuracy" in sentences(select="best")
    assert "moving average" in sentences(select="ema", ema={"decay": 0.9})


def test_the_protocol_says_in_words_when_the_test_split_decides() -> None:
    assert "read once, after training, and decides nothing" in sentences()
    leaky = sentences(early_stopping={"monitor": "test.error", "patience": 3})
    assert "The test split decides when training stops" in leaky
    assert "decides nothing" not in leaky
    honest = sentences(early_stopping={"monitor": "val.error", "patience": 3, "threshold": 0.001})
    assert "val.error has not improved for 3 epochs (relative threshold 0.001)" in honest
    assert "decides nothing" in honest


def test_the_protocol_says_when_the_test_split_is_read_for_its_curve() -> None:
    often = sentences(evaluate={"every": 1, "test": True})
    assert "The test split is read after every epoch and once more after training: its curve is shown" in often
    assert "and decides nothing" in often
    seldom = sentences(epochs=4, evaluate={"every": 2, "test": True})
    assert "read after every 2 epochs and the last and once more" in seldom
    assert "read once, after training" in sentences(epochs=4, evaluate={"every": 2})


def test_the_protocol_says_that_nothing_was_held_out() -> None:
    data = {key: value for key, value in DATA.items() if key != "val"}
    assert "There is no validation split." in certified(data=data).protocol


# ---- what would never learn ----


@pytest.mark.parametrize("residual", ["none", "weighted"])
def test_a_branch_that_starts_at_zero_and_can_not_leave_it_is_caught(residual: str) -> None:
    """A norm scaled by 0 whose output is multiplied by 0, or passed on alone: a saddle that no step leaves."""
    found = certified(insertion("non_local", at="after body.0", residual=residual))
    stuck = [failure for failure in found.failures if "never moves from its start" in failure]
    assert any("body.0_extra." in failure for failure in stuck)
    assert not found.passes["gradients"]["without"]


def test_a_branch_that_starts_at_zero_beside_its_input_is_certified() -> None:
    assert not certified(insertion("non_local", at="after body.0", residual="plain")).failures
    assert not certified(insertion("se", at="after body.0", residual="weighted")).failures


def test_a_network_whose_last_weights_are_zero_for_good_is_caught() -> None:
    network = {"graph": GRAPH, "init": {"set": {"body.1.conv2": "zero", "body.1.bn2": "zero"}}}
    assert any("'body.1.conv1.weight' never moves" in failure for failure in certified(network).failures)


def test_one_silent_unit_is_named_and_no_failure() -> None:
    """At a hidden width of 1 the ReLU of a gate is silent for half of all seeds."""
    network = insertion("se", at="after body.*", reduction=16)
    found = [Certifier(data_of, NUMERICS, seed).certify(as_written(load(spec(network))), None) for seed in range(6)]
    assert not any(certificate.failures for certificate in found)
    silent = [certificate.passes["silent_at_first"] for certificate in found]
    assert any(names and all("_extra." in name for name in names) for names in silent)


def test_what_is_frozen_hides_what_stands_behind_it() -> None:
    network = insertion("se", at="after body.0", reduction=2, residual="weighted")
    found = certified(network, train={**TRAIN, "freeze": ["body.0_extra_residual"]})
    assert any("'body.0_extra.fc1.weight' never receives a gradient" in failure for failure in found.failures)


def test_a_frozen_insertion_that_changes_nothing_is_caught() -> None:
    network = insertion("se", at="after body.0", reduction=2, residual="weighted")
    variants = {"base": {"network.insert.extra": None}, "frozen": {"train.freeze": ["insert.extra"]}}
    found = certificates(variants, network)[-1]
    assert any("it will stay equal" in failure for failure in found.failures)


def test_a_block_that_writes_in_evaluation_alone_is_caught() -> None:
    found = certified(insertion("test_in_place_in_evaluation", at="before body.1.conv1"))
    assert any("writes into what it reads" in failure for failure in found.failures)


def test_what_chance_drops_is_not_called_cancelled_by_batch_norm() -> None:
    network = insertion("drop_path", at="before body.*.add:branch", rate=0.99, per="batch")
    found = certified(network)
    assert not any(name.endswith("conv1.weight") for name in found.passes["gradients"]["cancelled_by_batch_norm"])


# ---- the difference, exactly ----


def test_another_wiring_another_start_and_another_order_are_differences() -> None:
    graph = {
        "stem": {"block": "conv_bn_act", "width": 16, "kernel": 3},
        "a": {"block": "conv", "width": 16},
        "b": {"block": "conv", "width": 16, "from": "a"},
        "join": {"block": "add", "from": ["a", "b"]},
        "head": {"block": "classifier"},
    }
    insert = {name: {"block": block, "at": "after join"} for name, block in {"x": "act", "y": "spatial_gate"}.items()}
    variants = {
        "base": {},
        "wired": {"network.graph.b.from": "stem"},
        "start": {"network.init.set.b": {"normal": 0.5}},
        "order": {"network.insert.x.rank": 1},
    }
    _, wired, start, order = certificates(variants, {"graph": graph, "insert": insert})
    assert wired.difference is not None
    assert wired.difference["changed"] == {"b": {"from": [[["a"]], [["stem.act"]]]}}
    assert start.difference is not None
    assert start.difference["changed"] == {"b": {"start": ["recipe", ["normal", 0.5]]}}
    assert order.difference is not None
    assert set(order.difference["changed"]) == {"join_x", "join_y", "head.pool"}


def test_an_insertion_changes_no_node_that_reads_it() -> None:
    (base, found) = certificates(
        {"base": {"network.insert.extra": None}, "x": {}},
        insertion("se", at="after body.0", reduction=2, residual="plain"),
    )
    assert found.difference is not None
    assert found.difference["changed"] == {}
    assert base.difference is None
