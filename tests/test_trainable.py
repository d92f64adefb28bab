"""What is trained: patterns of the finished graph → modules and parameters, their identity, and training itself."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ablate import block as blocks
from ablate import yamlfile
from ablate.block import Block, BlockParams, Shape
from ablate.builder import build
from ablate.certify import Certifier
from ablate.data.batches import Batches
from ablate.data.dataset import DataSpec, ImageData
from ablate.data.dataset import load as load_data
from ablate.design import StudyPlan, as_written, study_plan, trial_hash
from ablate.design.variant import Variant
from ablate.errors import UserError
from ablate.numerics import Numerics
from ablate.spec import load
from ablate.train import train, trial_of
from ablate.trainable import Trainable, freeze, insertion_names, training_mode


class Whitening(Block):
    """Normalises by running statistics, without parameters, inside of a leaf."""

    name = "test_whitening"

    def __init__(self, params: BlockParams, shape: Shape) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.BatchNorm2d(shape[0], affine=False))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        return y


@pytest.fixture(autouse=True, scope="module")
def blocks_of_this_file() -> Iterator[None]:
    """Registered while these tests run, and unknown to the tests of all registered blocks."""
    blocks.register(Whitening)
    yield
    del blocks._registry[Whitening.name]


DATA = {"name": "fake", "shape": [3, 11, 13], "classes": 5, "count": {"train": 7, "test": 3}}
TRAIN: dict[str, Any] = {"epochs": 1, "batch_size": 5, "optimizer": {"name": "sgd", "lr": 0.1, "weight_decay": 0.01}}
GRAPH: dict[str, Any] = {
    "stem": {"block": "conv_bn_act", "width": 7, "kernel": 3},
    "stage1": {"block": "basic", "width": 7, "repeat": 2},
    "stage2": {"block": "basic", "width": 11, "stride": 2, "repeat": 2, "shortcut": "pad"},
    "head": {"block": "classifier"},
}
DROPOUT = {"block": "dropout", "rate": 0.3, "at": "after stem"}
GATE = {"block": "se", "reduction": 2, "at": "after stage1.*", "residual": "weighted"}


def spec(network: dict[str, Any] | None = None, ablation: Any = None, **recipe: Any) -> dict[str, Any]:
    section = {"graph": GRAPH, "insert": {"attention": GATE}} | (network or {})
    tree = {"name": "study", "data": DATA, "train": TRAIN | recipe, "network": section}
    return tree | ({"ablation": ablation} if ablation else {})


def written(network: dict[str, Any] | None = None, **recipe: Any) -> Variant:
    return as_written(load(spec(network, **recipe)))


def planned(variants: dict[str, Any], network: dict[str, Any] | None = None, **recipe: Any) -> StudyPlan:
    return study_plan(load(spec(network, {"seeds": 1, "design": "variants", "variants": variants}, **recipe)))


def refused(network: dict[str, Any] | None = None, **recipe: Any) -> str:
    with pytest.raises(UserError) as error:
        written(network, **recipe)
    return str(error.value)


def parameters_of(variant: Variant, modules: tuple[str, ...]) -> set[str]:
    """By the built network: the parameters of these modules."""
    network = build(variant.network.graph)
    return {name for name, _ in network.named_parameters() if name.rpartition(".")[0].startswith(modules)}


def frozen_parameters(variant: Variant) -> set[str]:
    network = build(variant.network.graph)
    freeze(network, variant.trainable)
    return {name for name, parameter in network.named_parameters() if not parameter.requires_grad}


@lru_cache(maxsize=4)
def arrays() -> ImageData:
    return load_data(DataSpec.model_validate(DATA), base=Path())


# ---- freeze and only ----


def test_nothing_is_frozen_unless_asked_for() -> None:
    assert written().trainable == Trainable()
    assert written(freeze=[]).trainable == Trainable()


def test_a_scope_freezes_all_its_nodes_inserted_ones_included() -> None:
    variant = written(freeze=["stage1"])
    # stage1.0_attention stands in stage1, by its name; stage1.1_attention too
    assert frozen_parameters(variant) == parameters_of(variant, ("stage1.",))
    assert any("attention" in name for name in frozen_parameters(variant))


def test_a_node_and_a_pattern_freeze_what_they_name_alone() -> None:
    variant = written(freeze=["stem.conv", "stage*.*.bn(1|2)"])
    bn = {f"stage{s}.{b}.bn{n}.{p}" for s in (1, 2) for b in (0, 1) for n in (1, 2) for p in ("weight", "bias")}
    assert frozen_parameters(variant) == bn | {"stem.conv.weight"}


def test_the_last_of_a_repeat_is_minus_one() -> None:
    variant = written(freeze=["stage2.-1"])
    assert frozen_parameters(variant) == parameters_of(variant, ("stage2.1.",))


def test_insert_means_an_insertions_own_nodes_with_its_residual_weight() -> None:
    variant = written(freeze=["insert.attention"])
    own = {name for name, _ in build(variant.network.graph).named_parameters() if "attention" in name}
    assert frozen_parameters(variant) == own
    assert {name for name in own if name.endswith("_residual.weight")} == {
        "stage1.0_attention_residual.weight",
        "stage1.1_attention_residual.weight",
    }


def test_only_freezes_everything_else() -> None:
    variant = written(only=["insert.attention", "head"])
    every = {name for name, _ in build(variant.network.graph).named_parameters()}
    trained = {name for name in every if "attention" in name or name.startswith("head.")}
    assert frozen_parameters(variant) == every - trained


def test_a_pattern_sees_the_finished_graph() -> None:
    variant = written(freeze=["stage1.0_attention"])
    assert frozen_parameters(variant) == parameters_of(variant, ("stage1.0_attention",)) - {
        "stage1.0_attention_residual.weight"
    }


def test_what_is_trainable_can_be_pickled_to_a_worker() -> None:
    variant = written(freeze=["stem"], groups=[{"of": "bias", "weight_decay": 0.0}])
    trial = trial_of(variant, 3, Numerics())
    assert pickle.loads(pickle.dumps(trial)).trainable == variant.trainable == trial.trainable


# ---- what is wrong ----


def test_a_pattern_that_matches_nothing_is_an_error_at_its_place_with_the_nearest_names(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    text = yamlfile.dump(spec()).replace("batch_size: 5", 'batch_size: 5\n  freeze:\n  - stem\n  - "stagee*"')
    file.write_text(text)
    line = text.split("\n").index('  - "stagee*"') + 1
    with pytest.raises(UserError) as error:
        as_written(load(file))
    assert str(error.value) == (
        f"{file}:{line}:5: train.freeze.1: pattern 'stagee*' matches nothing; nearest: stage1, stage2, stem"
    )


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"freeze": ["stem"], "only": ["head"]}, "'freeze' and 'only' are both given"),
        ({"freeze": ["stem", "stage*", "head"]}, "everything is frozen: there is nothing to train"),
        ({"only": []}, "at least 1"),
        ({"freeze": ["stage1.0.add"]}, "there are no parameters in stage1.0.add"),
        ({"freeze": ["insert.attentoin"]}, "there is no insertion 'attentoin'; did you mean 'attention'?"),
        ({"freeze": ["attention"]}, "an insertion's nodes are insert.attention"),
        ({"freeze": ["stage("]}, "'stage(' in pattern 'stage('"),
        ({"freeze": ["insert."]}, "an empty pattern"),
        ({"freeze": "stem"}, "a list"),
        ({"freeze": ["input"]}, "pattern 'input' matches nothing"),
        ({"groups": [{"of": "norm", "weight_decay": 0.0}, {"of": "stem.bn", "lr": 0.1}]}, "has no parameter left"),
        ({"groups": [{"of": "stem", "lr": 0.2}], "freeze": ["stem"]}, "has no parameter left"),
        ({"groups": [{"of": "stem", "lr": 0.2, "lr_factor": 2.0}]}, "'lr' and 'lr_factor' are both given"),
        ({"groups": [{"of": "stem"}]}, "the group changes nothing"),
        ({"groups": [{"of": "norm|biases", "lr": 0.2}]}, "'biases' is no kind of parameter; did you mean 'bias'?"),
        ({"groups": [{"of": "stemm", "lr": 0.2}]}, "pattern 'stemm' matches nothing; nearest: stage1, stage2, stem"),
        ({"groups": [{"of": "stem", "momentum": 0.2}]}, "momentum: unknown key"),
    ],
)
def test_what_can_not_be_meant_is_an_error(recipe: dict[str, Any], said: str) -> None:
    message = refused(**recipe)
    assert said in message
    assert "\n" not in message


def test_a_kind_that_the_network_has_not_is_an_error() -> None:
    graph = {"pool": {"block": "classifier"}}
    message = refused({"graph": graph, "insert": {}}, groups=[{"of": "norm", "lr": 0.2}])
    assert "no parameter of this network is a norm" in message


# ---- an insertion that is not in every variant ----

WITH_AND_WITHOUT = {"with": {}, "without": {"network.insert.attention": None}}


def test_an_insertion_that_a_level_removed_leaves_its_entry_inactive() -> None:
    plan = planned(WITH_AND_WITHOUT, only=["insert.attention", "head"])
    without = plan.variant("without")
    assert [(o.path, o.value, o.layer) for o in without.orphans] == [("train.only.0", "insert.attention", "spec")]
    assert plan.variant("with").orphans == ()
    assert frozen_parameters(without) == {n for n in every_parameter(without) if not n.startswith("head.")}


def every_parameter(variant: Variant) -> set[str]:
    return {name for name, _ in build(variant.network.graph).named_parameters()}


def test_an_insertion_that_only_a_level_adds_is_known_in_the_others() -> None:
    plan = planned({"bare": {}, "gated": {"network.insert.gate": GATE}}, {"insert": {}}, freeze=["insert.gate"])
    assert plan.variant("bare").trainable == Trainable()
    assert [orphan.path for orphan in plan.variant("bare").orphans] == ["train.freeze"]
    assert all("gate" in name for name in plan.variant("gated").trainable.frozen)
    assert plan.variant("gated").trainable.frozen


def test_an_insertion_without_parameters_leaves_its_entry_inactive() -> None:
    variant = written({"insert": {"attention": DROPOUT}}, freeze=["insert.*"])
    assert [orphan.path for orphan in variant.orphans] == ["train.freeze"]
    assert variant.trainable == Trainable()


def test_a_level_that_freezes_what_another_level_removed_counts_as_inactive() -> None:
    factors = {
        "gate": {"with": {}, "without": {"network.insert.attention": None}},
        "frozen": {"no": {}, "yes": {"train.freeze": ["insert.attention"]}},
    }
    plan = study_plan(load(spec(None, {"seeds": 1, "factors": factors, "baseline": {"frozen": "no"}})))
    assert plan.variant("without/yes").inactive_factors() == {"frozen"}
    assert plan.variant("without/yes").duplicate_of == "without/no"
    assert plan.variant("with/yes").duplicate_of is None


def test_the_names_of_insertions_are_found_wherever_a_spec_speaks_of_them() -> None:
    tree = {
        "network": {"insert": {"a": {}}},
        "profiles": {"tiny": {"network.insert.b.rank": 1}},
        "ablation": {
            "factors": {
                "f": {"one": {"network.insert.c": None}, "two": {"network.insert": {"d": {}}}},
                "g": {"path": "network.insert.e.rank", "levels": [1]},
            },
            "variants": {"v": {"network": {"insert": {"h": {}}}, "train.freeze": ["insert.i"]}},
        },
    }
    assert insertion_names(tree) == {"a", "b", "c", "d", "e", "h"}


# ---- identity ----


def test_two_texts_that_freeze_the_same_are_duplicates() -> None:
    plan = planned(
        {
            "free": {},
            "scope": {"train.freeze": ["stage1.0"]},
            "nodes": {"train.freeze": ["stage1.0.conv*", "stage1.0.bn*"]},
            "only": {"train.only": ["stem", "stage1.1", "stage1.*_attention", "insert.attention", "stage2", "head"]},
            "more": {"train.freeze": ["stage1"]},
        }
    )
    assert [variant.duplicate_of for variant in plan.variants] == [None, None, "scope", "scope", None]


def test_freezing_the_norms_statistics_is_another_variant_than_freezing_a_convolution() -> None:
    identities = {written(freeze=[name]).identity for name in ("stem.conv", "stem.bn", "stage1.0.conv1")}
    assert len({*identities, written().identity}) == 4


def test_names_do_not_enter_the_identity_of_what_is_frozen() -> None:
    renamed = {"first": GRAPH["stem"], **{name: node for name, node in GRAPH.items() if name != "stem"}}
    one, other = written(freeze=["stem"]), written({"graph": renamed}, freeze=["first"])
    assert one.identity == other.identity
    # the parameters are drawn by name, so that the trials differ all the same
    assert trial_hash(one, 0, "", {}) != trial_hash(other, 0, "", {})


def test_two_groups_that_come_to_the_same_are_one_identity_and_one_that_changes_nothing_is_none() -> None:
    base = written().identity
    halves = [written(groups=[{"of": "stem", **how}]).identity for how in ({"lr": 0.05}, {"lr_factor": 0.5})]
    assert halves[0] == halves[1] != base
    assert written(groups=[{"of": "stem", "lr": 0.1, "weight_decay": 0.01}]).identity == base
    assert written(groups=[{"of": "stem.bn", "lr": 0.05}]).identity not in (base, halves[0])


def test_the_identity_of_a_recipe_without_new_keys_is_what_it_was() -> None:
    assert written().identity_parts["train"] == {
        "epochs": 1,
        "batch_size": 5,
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.01, "nesterov": False},
        "schedule": {"name": "constant"},
        "loss": {"name": "cross_entropy", "label_smoothing": 0.0},
        "early_stopping": None,
        "clip_norm": None,
        "ema": None,
        "select": "last",
        "precision": "auto",
    }


PARTS = ["stem.conv", "stem.bn", "stage1.0.conv1", "stage1.0.bn2", "stage1.1.conv2", "stage2.0.bn1", "stage2.1.conv1"]


@given(st.lists(st.sampled_from(PARTS), min_size=1, unique=True), st.randoms(use_true_random=False))
@settings(max_examples=23)
def test_the_order_of_the_texts_changes_nothing(parts: list[str], random: Any) -> None:
    shuffled = random.sample(parts, len(parts))
    one, other = (written({"insert": {}}, freeze=texts) for texts in (parts, [*shuffled, shuffled[0]]))
    assert one.trainable == other.trainable
    assert one.identity == other.identity
    assert set(one.trainable.frozen) == set(parts)


# ---- groups ----


def rates(variant: Variant) -> dict[str, tuple[float, float]]:
    return {f"{s.module}.{s.parameter}": (s.lr, s.weight_decay) for s in variant.trainable.settings}


def test_a_kind_is_found_in_leaves_and_within_blocks() -> None:
    gated = {"insert": {"gate": {"block": "self_attention", "at": "after stem"}}}
    every = every_parameter(written(gated))
    norms = {name for name in every if ".bn" in name}
    biases = {name for name in every if name.endswith("bias")}
    assert {"stem_gate.key.bias", "head.fc.bias", "stem.bn.bias"} <= biases
    for of, wanted in {"norm": norms, "bias": biases, "norm|bias": norms | biases, "bias|norm": norms | biases}.items():
        found = written(gated, groups=[{"of": of, "weight_decay": 0.0}])
        assert rates(found) == dict.fromkeys(wanted, (0.1, 0.0))


@pytest.mark.parametrize("norm", ["group", "layer", "instance"])
def test_every_norm_is_of_the_kind_norm(norm: str) -> None:
    graph = {"stem": {"block": "conv_bn_act", "width": 32, "norm": norm}, "head": GRAPH["head"]}
    variant = written({"graph": graph, "insert": {}}, groups=[{"of": "norm", "lr": 0.3}])
    assert set(rates(variant)) == {name for name in every_parameter(variant) if name.startswith("stem.bn")}


def test_of_two_groups_that_name_a_parameter_the_first_acts() -> None:
    groups = [{"of": "stem.bn", "lr": 0.3}, {"of": "norm", "weight_decay": 0.0}, {"of": "stem", "lr_factor": 0.5}]
    found = rates(written(groups=groups))
    assert found["stem.bn.weight"] == (0.3, 0.01)
    assert found["stage1.0.bn1.weight"] == (0.1, 0.0)
    assert found["stem.conv.weight"] == (0.05, 0.01)


def test_a_node_that_is_called_norm_is_a_pattern_in_brackets() -> None:
    graph = {"stem": GRAPH["stem"], "norm": {"block": "batch_norm"}, "head": GRAPH["head"]}
    found = rates(written({"graph": graph, "insert": {}}, groups=[{"of": "(norm)", "lr": 0.3}]))
    assert set(found) == {"norm.weight", "norm.bias"}


def test_frozen_parameters_are_in_no_group() -> None:
    found = rates(written(groups=[{"of": "norm", "weight_decay": 0.0}], freeze=["stem"]))
    assert "stem.bn.weight" not in found
    assert "stage1.0.bn1.weight" in found


def test_the_group_of_an_insertion_that_a_level_removed_is_inactive() -> None:
    plan = planned(WITH_AND_WITHOUT, groups=[{"of": "insert.attention", "lr": 0.3}])
    assert plan.variant("without").trainable == Trainable()
    assert [orphan.path for orphan in plan.variant("without").orphans] == ["train.groups"]
    half = written(
        {"insert": {"attention": DROPOUT}}, groups=[{"of": "stem", "lr": 0.3}, {"of": "insert.*", "lr": 0.3}]
    )
    assert [orphan.path for orphan in half.orphans] == ["train.groups.1"]
    assert len(rates(plan.variant("with"))) == len(
        [n for n in every_parameter(plan.variant("with")) if "attention" in n]
    )


# ---- training ----


def test_a_frozen_norm_keeps_its_statistics_and_frozen_dropout_draws_on() -> None:
    graph = {
        "stem": GRAPH["stem"],
        "drop": {"block": "dropout", "rate": 0.5},
        "stage1": GRAPH["stage1"],
        "head": GRAPH["head"],
    }
    variant = written({"graph": graph, "insert": {}}, freeze=["stem"])
    network = build(variant.network.graph)
    training_mode(network, variant.trainable)
    modes = {name: module.training for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert modes.pop("stem.bn") is False
    assert all(modes.values())
    assert network.get_submodule("drop").training


WHITENED = {
    "graph": {"stem": GRAPH["stem"], "white": {"block": "test_whitening"}, "head": GRAPH["head"]},
    "insert": {},
}


def test_statistics_without_parameters_inside_of_a_leaf_are_frozen_too() -> None:
    variant = written(WHITENED, freeze=["white"])
    assert variant.identity != written(WHITENED).identity
    outcome = train(trial_of(variant, 3, Numerics()), arrays())
    assert_moved(variant, outcome.weights or {}, seed=3)


def test_a_group_of_statistics_without_parameters_is_an_error() -> None:
    assert "there are no parameters in white" in refused(WHITENED, groups=[{"of": "white", "lr": 0.3}])


RECIPES: dict[str, dict[str, Any]] = {
    "weight decay": {},
    "momentum": {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}},
    "adamw": {"optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.3}},
    "average": {"ema": {"decay": 0.7}, "select": "ema"},
    "clipped": {"clip_norm": 0.1},
}


@pytest.mark.parametrize("name", RECIPES)
def test_what_is_frozen_stays_equal_to_the_bit_and_the_rest_moves(name: str) -> None:
    recipe = RECIPES[name]
    variant = written(freeze=["stem", "stage1.0", "stage2.*.bn1"], epochs=2, **recipe)
    outcome = train(trial_of(variant, 3, Numerics()), arrays())
    assert outcome.result["status"] == "finished", outcome.result["error"]
    assert_moved(variant, outcome.weights or {}, seed=3)


def assert_moved(variant: Variant, weights: dict[str, Tensor], seed: int) -> None:
    """Every tensor of a frozen module is as it started, statistics included, and no other is."""
    start = build(variant.network.graph, seed=seed).state_dict()
    assert weights.keys() == start.keys()
    for name, tensor in weights.items():
        frozen = name.startswith(tuple(f"{module}." for module in variant.trainable.frozen))
        assert torch.equal(tensor, start[name]) == frozen, name


RESNET20 = {
    "graph": {
        "stem": {"block": "conv_bn_act", "width": 16, "kernel": 3},
        "stage1": {"block": "basic", "width": 16, "repeat": 3, "shortcut": "pad"},
        "stage2": {"block": "basic", "width": 32, "repeat": 3, "stride": 2, "shortcut": "pad"},
        "stage3": {"block": "basic", "width": 64, "repeat": 3, "stride": 2, "shortcut": "pad"},
        "head": {"block": "classifier"},
    },
    "insert": {"attention": {"block": "cbam", "reduction": 8, "at": "after stage*", "residual": "plain"}},
}


def test_training_attention_and_head_alone_leaves_resnet20_as_it_was() -> None:
    variant = written(RESNET20, only=["insert.attention", "head"])
    certificate = Certifier(lambda data: arrays(), Numerics()).certify(variant, None)
    assert certificate.failures == []
    trained = {name for name in every_parameter(variant) if "attention" in name or name.startswith("head.")}
    gradients = certificate.passes["gradients"]
    assert set(gradients["frozen"]) == every_parameter(variant) - trained
    assert gradients["parameters"] == gradients["with_gradient"] == len(trained)
    outcome = train(trial_of(variant, 0, Numerics()), arrays())  # 7 images, 5 a step: two steps
    assert outcome.result["status"] == "finished", outcome.result["error"]
    assert_moved(variant, outcome.weights or {}, seed=0)


def test_a_trial_trains_its_groups_as_torchs_own_made_by_hand() -> None:
    groups = [{"of": "bias|norm", "weight_decay": 0.0}, {"of": "insert.attention", "lr": 0.3}]
    cycle = {"name": "one_cycle", "warmup": 0.4}
    variant = written(groups=groups, schedule=cycle, epochs=3)
    network = build(variant.network.graph, seed=3).to(memory_format=torch.channels_last)
    held: dict[str, list[Tensor]] = {"plain": [], "free": [], "attention": []}
    for name, parameter in network.named_parameters():
        kind = "attention" if "attention" in name else "plain"
        held["free" if name.endswith("bias") or ".bn" in name else kind].append(parameter)
    by_hand = torch.optim.SGD(
        [
            {"params": held["plain"]},
            {"params": held["free"], "weight_decay": 0.0},
            {"params": held["attention"], "lr": 0.3},
        ],
        lr=0.1,
        weight_decay=0.01,
    )
    batches = Batches(arrays().train, arrays(), (), 5, 3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        by_hand, [0.1, 0.1, 0.3], 3 * len(batches), pct_start=0.4, cycle_momentum=False
    )
    network.train()
    for epoch in range(3):
        for x, y in batches.epoch(epoch):
            by_hand.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()  # type: ignore[no-untyped-call]
            by_hand.step()
            schedule.step()
    outcome = train(trial_of(variant, 3, Numerics()), arrays())
    assert outcome.result["status"] == "finished", outcome.result["error"]
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close((outcome.weights or {})[name], tensor, rtol=1e-6, atol=1e-7, msg=name)
