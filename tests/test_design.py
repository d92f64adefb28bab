"""The rules that decide what a variant is: each is a wrong table somewhere."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ablate import stats
from ablate.design import StudyPlan, Variant, as_written, study_plan, trial_hash
from ablate.design import plan as plans
from ablate.errors import UserError
from ablate.spec import load
from ablate.yamlfile import dump

DATA = {"name": "fake", "shape": [3, 11, 11], "classes": 5, "count": {"train": 23, "test": 7}, "val": 0.3}
TRAIN = {"epochs": 2, "batch_size": 7, "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}}
GRAPH = {
    "stem": {"block": "conv_bn_act", "width": 16, "kernel": 3},
    "body": {"block": "conv_bn_act", "width": 16, "kernel": 3},
    "head": {"block": "classifier"},
}
ATTENTION = {"block": "cbam", "reduction": 4, "at": "after stem"}
NO_ATTENTION = {"network.insert.attention": None}
CLASSIFIER = {"block": "classifier"}


def spec(ablation: dict[str, Any] | None = None, **sections: Any) -> dict[str, Any]:
    network = {"graph": GRAPH, "insert": {"attention": ATTENTION}} | sections.pop("network", {})
    whole = {"name": "study", "data": DATA, "train": TRAIN, "network": network} | sections
    return whole if ablation is None else whole | {"ablation": {"seeds": 2} | ablation}


def planned(ablation: dict[str, Any] | None = None, *, sets: Any = (), **sections: Any) -> StudyPlan:
    return study_plan(load(spec(ablation, **sections), sets=sets))


def refused(ablation: dict[str, Any] | None = None, *, sets: Any = (), **sections: Any) -> str:
    with pytest.raises(UserError) as caught:
        planned(ablation, sets=sets, **sections)
    return str(caught.value)


def by_path(path: str, *levels: Any) -> dict[str, Any]:
    return {"path": path, "levels": list(levels)}


def names(plan: StudyPlan) -> list[str]:
    return [variant.name for variant in plan.variants]


PLACEMENT = {
    "none": NO_ATTENTION,
    "stem": {"network.insert.attention.at": "after stem"},
    "body": {"network.insert.attention.at": "after body"},
}
REDUCTION = by_path("network.insert.attention.reduction", 4, 8)


# ---- rule 1: one path, one writer ----


def test_set_wins_over_the_spec_and_a_level_over_the_spec() -> None:
    plan = planned({"factors": {"lr": by_path("train.optimizer.lr", 0.2, 0.3)}}, sets=["train.epochs=5"])
    assert [variant.train.optimizer.lr for variant in plan.variants] == [0.2, 0.3]
    assert {variant.train.epochs for variant in plan.variants} == {5}


def test_two_factors_on_one_path_are_an_error_that_names_both() -> None:
    said = refused(
        {
            "factors": {
                "rate": by_path("train.optimizer.lr", 0.2, 0.3),
                "speed": {"slow": {"train.optimizer.lr": 0.01}, "fast": {"train.epochs": 1}},
            }
        }
    )
    assert "train.optimizer.lr: factors 'rate' and 'speed' both set this path" in said


def test_two_factors_of_which_one_acts_within_what_the_other_assigns_are_sound() -> None:
    whole = {
        "cbam": {"network.insert.attention": {"block": "cbam", "at": "after stem"}},
        "se": {"network.insert.attention": {"block": "se", "at": "after stem"}},
    }
    plan = planned({"factors": {"kind": whole, "reduction": REDUCTION}})
    assert len({variant.identity for variant in plan.variants}) == 4


RATES = {rate: {"train.optimizer": TRAIN["optimizer"] | {"lr": float(rate)}} for rate in ("0.1", "0.2")}
KINDS = {
    "cbam": {"network.insert.attention": ATTENTION},
    "se": {"network.insert.attention": {"block": "se", "at": "after body"}},
    "none": NO_ATTENTION,
}


@pytest.mark.parametrize(
    ("whole", "path", "values"),
    [
        (RATES, "train.optimizer.lr", [0.3, 0.5]),
        (KINDS, "network.insert.attention.block", ["se", "cbam"]),
        (KINDS, "network.insert.attention.reduction", [2, 4]),
        ({"a": {"network.set": {"body": {"kernel": 5}}}}, "network.set.body", [{"kernel": 7}]),
    ],
)
def test_a_path_that_another_factor_states_in_a_mapping_is_an_error(whole: Any, path: str, values: list[Any]) -> None:
    for one, other in (("whole", "z"), ("z", "a")):  # whichever is written, or named, first
        factors = {one: whole, other: by_path(path, *values)}
        (assigned,) = next(iter(whole.values()))
        wanted = f"{path}: factors '{one}' and '{other}' both set this path: '{one}' in {assigned}"
        assert wanted in refused({"factors": factors})
        assert wanted in refused({"factors": dict(reversed(factors.items()))})


@pytest.mark.parametrize(("whole", "path"), [(RATES, "train.optimizer.lr"), (KINDS, "network.insert.attention.at")])
def test_set_on_a_path_that_a_level_states_in_a_mapping_is_an_error(whole: Any, path: str) -> None:
    said = refused({"factors": {"whole": whole}}, sets={path: 0.05})
    assert said.startswith(f"--set {path}: factor 'whole' varies {path}; change the factor's levels")


def test_set_below_what_a_level_assigns_acts_where_the_level_states_nothing() -> None:
    plan = planned({"factors": {"whole": RATES}}, sets={"train.optimizer.nesterov": True})
    assert [variant.train.optimizer.model_dump()["nesterov"] for variant in plan.variants] == [True, True]


@pytest.mark.parametrize("path", ["train.optimizer.lr", "train.optimizer", "train"])
def test_set_on_a_path_that_a_factor_varies_is_an_error_that_names_the_factor(path: str) -> None:
    value: Any = {"train.optimizer.lr": 0.5, "train.optimizer": TRAIN["optimizer"], "train": TRAIN}[path]
    said = refused({"factors": {"rate": by_path("train.optimizer.lr", 0.2, 0.3)}}, sets={path: value})
    assert f"--set {path}: factor 'rate' varies train.optimizer.lr" in said


def test_a_bootstrap_of_few_seeds_is_refused_before_anything_is_trained() -> None:
    factors, sets = {"rate": by_path("train.optimizer.lr", 0.2, 0.3)}, {"report.interval": "bootstrap"}
    few = stats.FEWEST_RESAMPLED - 1
    said = refused({"seeds": few, "factors": factors}, sets=sets)
    assert f"report.interval: a bootstrap over {few} seeds is far too narrow; at least {few + 1} are needed" in said
    assert planned({"seeds": few + 1, "factors": factors}, sets=sets).report.interval == "bootstrap"


def test_set_reaches_every_section() -> None:
    sets = [
        "ablation.seeds=[3, 5, 7]",
        "train.batch_size=11",
        "data.count.train=29",
        "report.columns=[params]",
        "execution.threads=2",
        "name=other",
    ]
    plan = planned({"factors": {"placement": PLACEMENT}}, sets=sets)
    assert plan.seeds == [3, 5, 7]
    assert {variant.train.batch_size for variant in plan.variants} == {11}
    assert {variant.data.params.count.train for variant in plan.variants} == {29}  # type: ignore[attr-defined]
    assert (plan.report.columns, plan.execution.threads, plan.tree["name"]) == (["params"], 2, "other")


@pytest.mark.parametrize("text", ["report.colums=[params]", "ablation.seed=3", "execution.thread=2", "train.epoch=2"])
def test_set_of_a_misspelt_key_is_an_error_in_every_section(text: str) -> None:
    assert "did you mean" in refused({"factors": {"placement": PLACEMENT}}, sets=[text])


def test_set_may_give_a_factor_and_its_levels() -> None:
    plan = planned(
        {"factors": {"placement": PLACEMENT}},
        sets=[
            "ablation.factors.rate={path: train.optimizer.lr, levels: [0.2, 0.3]}",
            "ablation.factors.placement={none: {network.insert.attention: null}, there: {}}",
        ],
    )
    assert names(plan) == ["none/0.2", "none/0.3", "there/0.2", "there/0.3"]


# ---- rule 2: null ----


def test_a_level_that_removes_an_insertion_gives_the_network_without_it() -> None:
    plan = planned({"factors": {"placement": PLACEMENT}})
    without = as_written(load(spec(network={"insert": {}})))
    assert plan.variant("none").network.graph.fingerprint == without.network.graph.fingerprint


def test_a_node_that_a_level_removes_disappears_from_a_sum_which_is_then_bypassed() -> None:
    graph = {
        **{k: GRAPH[k] for k in ("stem", "body")},
        "mix": {"block": "add", "from": ["body", "stem"]},
        "head": CLASSIFIER,
    }
    plan = planned(
        {"factors": {"f": {"full": {}, "less": {"network.graph.body": None}}}}, network={"graph": graph, "insert": {}}
    )
    assert [node.name for node in plan.variant("less").network.graph.nodes][:3] == ["stem.conv", "stem.bn", "stem.act"]
    assert not any(node.name.startswith(("mix", "body")) for node in plan.variant("less").network.graph.nodes)


def test_a_node_that_a_child_spec_removes_disappears_from_a_sum_too(tmp_path: Path) -> None:
    graph = {
        **{k: GRAPH[k] for k in ("stem", "body")},
        "mix": {"block": "add", "from": ["body", "stem"]},
        "head": CLASSIFIER,
    }
    (tmp_path / "base.yaml").write_text(dump(spec(network={"graph": graph, "insert": {}})))
    (tmp_path / "spec.yaml").write_text("extends: base.yaml\nnetwork: {graph: {body: null}}\n")
    assert not any(n.name.startswith("mix") for n in as_written(load(tmp_path / "spec.yaml")).network.graph.nodes)


def test_a_level_can_not_give_a_parameter_null() -> None:
    said = refused({"factors": {"f": {"a": {"network.insert.attention.reduction": None}, "b": {}}}})
    assert "network.insert.attention.reduction: null removes" in said
    said = refused({"factors": {"f": by_path("network.graph.body.act", None, "relu")}})
    assert "network.graph.body.act: null removes" in said


def test_a_level_that_removes_what_is_not_there_is_an_error() -> None:
    said = refused({"factors": {"f": {"a": {"network.insert.atention": None}, "b": {}}}})
    assert "there is no 'atention' to remove; did you mean 'attention'?" in said


# ---- rule 3: keys, orphans, activity ----


def test_a_parameter_that_another_block_does_not_take_is_dropped_and_listed() -> None:
    plan = planned({"factors": {"kind": by_path("network.insert.attention.block", "cbam", "self_attention")}})
    assert [(orphan.path, orphan.value, orphan.layer) for orphan in plan.variant("self_attention").orphans] == [
        ("network.insert.attention.reduction", 4, "spec")
    ]
    assert plan.variant("cbam").orphans == ()


def test_a_parameter_that_the_layer_of_the_block_wrote_wrongly_is_an_error() -> None:
    whole = {"block": "self_attention", "reduction": 4, "at": "after stem"}
    said = refused({"factors": {"f": {"a": {"network.insert.attention": whole}, "b": {}}}})
    assert "network.insert.attention.reduction: unknown parameter of block 'self_attention'" in said
    pair = {"network.insert.attention.block": "se", "network.insert.attention.kernel": 3}
    assert "unknown parameter of block 'se'" in refused({"factors": {"f": {"a": pair, "b": {}}}})


def test_a_path_must_act_in_some_variant_and_its_nearest_parameter_is_named() -> None:
    said = refused({"factors": {"f": by_path("network.insert.attention.reducton", 2, 8)}})
    assert "has no effect in any variant" in said
    assert said.endswith("did you mean 'reduction'?")
    said = refused(
        {"factors": {"f": by_path("train.optimizer.lr", 0.2, 0.3)}}, sets=["network.insert.attention.krnel=3"]
    )
    assert said.startswith("--set network.insert.attention.krnel has no effect in any variant")
    assert said.endswith("did you mean 'kernel'?")


def test_a_level_misspelt_beside_sound_ones_is_an_error() -> None:
    levels = {"a": {"network.insert.attention.reduction": 2}, "b": {"network.insert.attention.reducton": 8}}
    assert "reducton: has no effect" in refused({"factors": {"f": levels}})


def test_a_parameter_that_only_some_blocks_take_is_inactive_in_the_others() -> None:
    kinds = by_path("network.insert.attention.block", "cbam", "se")
    plan = planned({"factors": {"kind": kinds, "kernel": by_path("network.insert.attention.kernel", 3, 5)}})
    assert [variant.inactive_factors() for variant in plan.variants] == [set(), set(), {"kernel"}, {"kernel"}]
    assert [variant.duplicate_of for variant in plan.variants] == [None, None, None, "se/3"]


def test_placement_by_reduction_has_the_reduction_of_no_attention_as_inactive_duplicates() -> None:
    plan = planned({"factors": {"placement": PLACEMENT, "reduction": REDUCTION}, "baseline": {"placement": "none"}})
    assert names(plan) == ["none/4", "none/8", "stem/4", "stem/8", "body/4", "body/8"]
    assert [variant.duplicate_of for variant in plan.variants] == [None, "none/4", None, None, None, None]
    assert len(plan.distinct) == 5
    assert [variant.inactive_factors() for variant in plan.variants][:3] == [{"reduction"}, {"reduction"}, set()]


def test_an_inactive_level_is_not_taken_for_a_no_op_of_a_whole_baseline() -> None:
    plan = planned({"factors": {"placement": PLACEMENT, "reduction": REDUCTION}, "baseline": "none/4"})
    assert [variant.baseline for variant in plan.variants] == [None, *["none/4"] * 5]


def test_a_level_below_a_node_that_another_level_removes_is_inactive() -> None:
    trunk = {"with": {}, "without": {"network.graph.body": None}}
    plan = planned({"factors": {"trunk": trunk, "kernel": by_path("network.graph.body.kernel", 3, 5)}})
    assert [variant.inactive_factors() for variant in plan.variants] == [set(), set(), {"kernel"}, {"kernel"}]


def test_a_data_set_that_does_not_take_a_factors_parameter_makes_it_inactive() -> None:
    data = by_path("data.name", "fake", "mnist5k")
    graph = {**GRAPH, "body": {"block": "conv_bn_act", "width": 16, "stride": 2}}
    plan = planned(
        {"factors": {"data": data, "noise": by_path("data.count", {"train": 31, "test": 7}, {"train": 37, "test": 7})}},
        network={"graph": graph},
    )
    assert [variant.inactive_factors() for variant in plan.variants] == [set(), set(), {"noise"}, {"noise"}]
    assert [variant.shape for variant in plan.variants] == [(3, 11, 11)] * 2 + [(1, 28, 28)] * 2


# ---- rule 4: identity, duplicates, no-ops ----


def written(**sections: Any) -> Variant:
    return as_written(load(spec(**sections)))


def inserted(**changes: Any) -> dict[str, Any]:
    return {"insert": {"attention": ATTENTION | changes}}


def test_identity_is_equal_up_to_names() -> None:
    renamed = {"first": GRAPH["stem"], "second": GRAPH["body"], "last": GRAPH["head"]}
    insert = {"gate": ATTENTION | {"at": "before second"}}
    assert written(network={"graph": renamed, "insert": insert}).identity == written().identity


def test_nodes_without_effect_do_not_count() -> None:
    graph = {
        "stem": GRAPH["stem"],
        "idle": {"block": "identity"},
        "drop": {"block": "dropout", "rate": 0.0},
        "body": GRAPH["body"],
        "head": CLASSIFIER,
    }
    assert written(network={"graph": graph}).identity == written().identity


@pytest.mark.parametrize(
    "sections",
    [
        {"network": inserted(reduction=8)},
        {"network": inserted(at="after body")},
        {"network": inserted(residual="plain")},
        {"network": {"init": {"recipe": "torch_default"}}},
        {"train": TRAIN | {"epochs": 3}},
        {"train": TRAIN | {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.8}}},
        {"train": TRAIN | {"precision": "bf16"}},
        {"data": DATA | {"count": {"train": 29, "test": 7}}},
        {"data": DATA | {"val": {"fraction": 0.3, "seed": 1}}},
        {"data": DATA | {"augment": ["horizontal_flip"]}},
    ],
)
def test_identity_is_of_the_network_its_init_the_recipe_and_the_data(sections: dict[str, Any]) -> None:
    assert written(**sections).identity != written().identity


@pytest.mark.parametrize(
    "sections",
    [
        {"name": "other"},
        {"report": {"columns": ["flops"]}},
        {"execution": {"threads": 2}},
        {"train": TRAIN | {"schedule": {"name": "constant"}}},
        {"network": inserted(min_hidden=1, kernel=7)},
        {"network": inserted(at="after stem.act")},
        {"network": {"params": {"w": 4}, "graph": {**GRAPH, "stem": {"block": "conv_bn_act", "width": "4*$w"}}}},
    ],
)
def test_identity_is_not_of_how_it_was_written(sections: dict[str, Any]) -> None:
    assert written(**sections).identity == written().identity


def test_two_levels_that_come_to_one_network_are_duplicates_and_trained_once() -> None:
    plan = planned({"factors": {"at": by_path("network.insert.attention.at", "after stem", "before body")}})
    assert [variant.duplicate_of for variant in plan.variants] == [None, "after stem"]
    assert names(plan) == ["after stem", "before body"]
    assert [variant.name for variant in plan.distinct] == ["after stem"]


def test_reductions_that_round_to_one_width_are_a_no_op_with_their_place(tmp_path: Path) -> None:
    ablation = {
        "baseline": {"reduction": "16"},
        "factors": {"reduction": by_path("network.insert.attention.reduction", 16, 32)},
    }
    file = tmp_path / "spec.yaml"
    file.write_text(dump(spec(ablation)))
    line = next(i for i, text in enumerate(file.read_text().splitlines(), 1) if text.strip() == "- 16" and i > 40)
    with pytest.raises(UserError) as caught:
        study_plan(load(file))
    said = str(caught.value)
    assert "variant '32' is the baseline '16': setting network.insert.attention.reduction changes nothing" in said
    assert "reduction 32 on 16 channels → hidden width 1" in said
    assert caught.value.problems[0].place is not None
    assert caught.value.problems[0].place.line in (line, line + 1)


def test_a_level_that_sets_what_the_baseline_has_is_a_no_op() -> None:
    said = refused(
        {"factors": {"f": {"base": {}, "same": {"network.insert.attention.reduction": 4}}}, "baseline": "base"}
    )
    assert "variant 'same' is the baseline 'base'" in said
    said = refused({"factors": {"f": {"base": {}, "same": {"train.epochs": 2}}}, "baseline": "base"})
    assert "setting train.epochs changes nothing" in said


def test_a_level_without_a_patch_is_a_duplicate_and_no_no_op() -> None:
    plan = planned({"factors": {"f": {"base": {}, "same": {}}}, "baseline": "base"})
    assert [variant.duplicate_of for variant in plan.variants] == [None, "base"]


def test_a_factor_that_varies_only_training_is_neither_no_op_nor_duplicate() -> None:
    plan = planned({"factors": {"lr": by_path("train.optimizer.lr", 0.1, 0.2)}, "baseline": "0.1"})
    assert [variant.duplicate_of for variant in plan.variants] == [None, None]
    assert len({variant.network.graph.fingerprint for variant in plan.variants}) == 1


def test_two_folders_of_data_are_two_variants_though_the_identity_leaves_the_folder_out() -> None:
    data = {"name": "mnist", "val": 0.3}
    folders = {"factors": {"site": by_path("data.root", "north", "south")}, "baseline": "north"}
    plan = planned(folders, data=data)
    assert [variant.duplicate_of for variant in plan.variants] == [None, None]
    assert len({variant.identity for variant in plan.variants}) == 1


# ---- baselines and names ----


def test_a_variants_name_is_its_levels_joined_in_the_order_of_the_factors() -> None:
    plan = planned({"factors": {"lr": by_path("train.optimizer.lr", 0.1, 0.2), "placement": PLACEMENT}})
    assert names(plan) == ["0.1/none", "0.1/stem", "0.1/body", "0.2/none", "0.2/stem", "0.2/body"]


def test_a_partial_baseline_pairs_each_variant_with_the_one_that_shares_its_other_levels() -> None:
    plan = planned(
        {
            "factors": {"placement": PLACEMENT, "lr": by_path("train.optimizer.lr", 0.1, 0.2)},
            "baseline": {"placement": "none"},
        }
    )
    assert {variant.name: variant.baseline for variant in plan.variants} == {
        "none/0.1": None,
        "none/0.2": None,
        "stem/0.1": "none/0.1",
        "stem/0.2": "none/0.2",
        "body/0.1": "none/0.1",
        "body/0.2": "none/0.2",
    }


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ("nome", "no variant 'nome'; did you mean 'none'?"),
        ({"placement": "nome"}, "factor 'placement' has no level 'nome'; did you mean 'none'?"),
        ({"placment": "none"}, "no factor 'placment'; did you mean 'placement'?"),
        ({"placement": 3}, "factor 'placement' has no level '3'; one of: body, none, stem"),
    ],
)
def test_a_baseline_that_is_not_there_is_an_error(baseline: Any, message: str) -> None:
    assert message in refused({"factors": {"placement": PLACEMENT}, "baseline": baseline})


def test_variants_listed_by_hand_are_patches_of_the_spec() -> None:
    variants = {"Baseline": NO_ATTENTION, "CBAM-4": {}, "CBAM-8": {"network.insert.attention.reduction": 8}}
    plan = planned({"design": "variants", "variants": variants, "baseline": "Baseline"})
    assert names(plan) == ["Baseline", "CBAM-4", "CBAM-8"]
    assert [variant.levels for variant in plan.variants][1] == {"variant": "CBAM-4"}
    assert [variant.baseline for variant in plan.variants] == [None, "Baseline", "Baseline"]


def test_a_spec_without_ablation_is_one_variant_of_one_seed() -> None:
    plan = planned()
    assert (names(plan), plan.seeds) == (["study"], [0])


def test_a_spec_without_a_name_can_be_looked_at_and_not_swept() -> None:
    nameless = spec({"factors": {"placement": PLACEMENT}})
    del nameless["name"]
    assert as_written(load(nameless)).classes == 5
    with pytest.raises(UserError, match="a study needs a name"):
        study_plan(load(nameless))


def test_published_values_of_no_variant_are_an_error() -> None:
    paper = [{"title": "A paper", "metric": "test.accuracy", "values": {"nonne": 90.0, "stem": 91.0}}]
    assert "paper.0.values.nonne: no variant 'nonne'; did you mean 'none'?" in refused(
        {"factors": {"placement": PLACEMENT}}, paper=paper
    )


# ---- everything that is wrong, at once, where it stands ----

STRICT = """\
# where should attention go?
name: placement
data:  {name: fake, shape: [3, 11, 11], classes: 5}
train: {epochs: 5, batch_size: 128, optimizer: {name: sgd, lr: 0.1}, schedule: {name: one_cycle}}
network:
  graph:
    stage1: {block: conv_bn_act, width: 16}
    head:   {block: classifier}
  insert:
    attention: {block: cbam, reducton: 8, at: after stages*}
"""


def test_the_example_of_two_mistakes_names_both_places(tmp_path: Path) -> None:
    file = tmp_path / "placement.yaml"
    file.write_text(STRICT)
    with pytest.raises(UserError) as caught:
        as_written(load(file))
    attention = "network.insert.attention"
    assert str(caught.value).splitlines() == [
        f"{file}:10:30: {attention}.reducton: unknown parameter of block 'cbam'; did you mean 'reduction'?",
        f"{file}:10:53: {attention}.at: pattern 'stages*' matches nothing; nearest: stage1",
    ]


MANY = """\
name: many
data:  {name: fake, shape: [3, 11, 11], clases: 5}
train: {epochs: 3.7, batch_size: '8', optimizer: {name: sdg, lr: 0.1}, select: best}
network:
  graph:
    stage1: {block: conv_bn_act, width: 16, act: reluu}
    head:   {block: clasifier}
  insert:
    attention: {block: cbam, reducton: 8, at: after}
ablation:
  seeds: [1, 1]
  design: grid
  baseline: {placement: nome}
  factors:
    placement:
      none: {network.insert.atention: null}
      wide: {network.graph.stage1.width: 32}
      deep: {network.graph.stage1.repeat: 2.5}
    rate: {path: tran.lr, levels: [1, 2]}
    lr: {path: train.optimizer.lr, levels: [1, 1]}
report: {columns: [parms]}
"""


def test_fifteen_mistakes_are_said_at_once_each_with_its_place_path_and_hint(tmp_path: Path) -> None:
    file = tmp_path / "many.yaml"
    file.write_text(MANY)
    with pytest.raises(UserError) as caught:
        study_plan(load(file))
    said = [str(problem).removeprefix(f"{file}:") for problem in caught.value.problems]
    for start, words in [
        ("2:41: data.clases: ", "did you mean 'classes'?"),
        ("3:17: train.epochs: ", "3.7 is not a whole number"),
        ("3:34: train.batch_size: ", "remove the quotes"),
        ("3:57: train.optimizer.name: ", "did you mean 'sgd'?"),
        ("6:50: network.graph.stage1.act: ", "reluu"),
        ("7:21: network.graph.head.block: ", "did you mean 'classifier'?"),
        ("9:30: network.insert.attention.reducton: ", "did you mean 'reduction'?"),
        ("9:47: network.insert.attention.at: ", "write 'after PATTERN'"),
        ("11:10: ablation.seeds: ", "given twice"),
        ("13:25: ablation.baseline.placement: ", "did you mean 'none'?"),
        ("16:14: network.insert.atention: ", "did you mean 'attention'?"),
        ("18:43: network.graph.stage1.repeat: ", "2.5 is not a whole number"),
        ("19:18: ablation.factors.rate.path: ", "did you mean 'train'?"),
        ("20:48: ablation.factors.lr.levels.1: ", "given twice"),
        ("21:20: report.columns.0: ", "did you mean 'params'?"),
    ]:
        assert any(line.startswith(start) and words in line for line in said), (start, words, said)
    assert len(said) == 15
    places = [problem.place for problem in caught.value.problems if problem.place]
    assert places == sorted(places, key=lambda place: (place.line, place.column))


def test_a_mistake_of_a_levels_value_is_placed_at_the_value(tmp_path: Path) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(
        STRICT.replace("reducton: 8, at: after stages*", "reduction: 8, at: after stage*")
        + """\
ablation:
  seeds: 1
  factors:
    placement:
      here:  {network.insert.attention.at: after stage1}
      there: {network.insert.attention.at: after stagez*}
"""
    )
    with pytest.raises(UserError) as caught:
        study_plan(load(file))
    assert str(caught.value).startswith(f"{file}:16:50: network.insert.attention.at: pattern 'stagez*' matches nothing")


def test_a_network_that_does_not_end_in_the_classes_is_refused() -> None:
    pooled = {**GRAPH, "head": {"block": "global_pool"}}
    for graph in (pooled, {**GRAPH, "head": {"block": "conv", "width": 5}}):
        assert "so (5,) was expected" in refused(network={"graph": graph})


def test_what_the_protocol_can_not_do_is_refused() -> None:
    data = {key: value for key, value in DATA.items() if key != "val"}
    assert "'best' is chosen on validation" in refused(data=data, train=TRAIN | {"select": "best"})
    stopping = {"monitor": "val.error", "patience": 3}
    assert "'val.error' needs a validation split" in refused(data=data, train=TRAIN | {"early_stopping": stopping})
    assert "'ema' needs an average" in refused(train=TRAIN | {"select": "ema"})
    assert "unused: select is not ema" in refused(train=TRAIN | {"ema": {"decay": 0.9}})


@pytest.mark.parametrize(
    ("ablation", "message"),
    [
        ({"design": "grid"}, "missing: design 'grid' needs factors"),
        ({"design": "variants", "factors": {"placement": PLACEMENT}}, "missing: design 'variants' needs variants"),
        ({"factors": {"placement": PLACEMENT}, "variants": {"a": {}}}, "unused: design 'grid' takes factors"),
        ({"factors": {}}, "not a mapping of factors, with at least one"),
        ({"factors": {"f": {}}}, "not a mapping of levels to patches"),
        ({"factors": {"f": {"a": 3}}}, "3 is not a patch"),
        ({"factors": {"f": by_path("train.epochs")}}, "a list of at least one value"),
        ({"factors": {"f": {"path": "train.epochs", "level": [1]}}}, "written {path: …, levels: […]}"),
        ({"factors": {"f": by_path("report.columns", ["params"])}}, "not a path that a level may change"),
        ({"factors": {"f": {"a": {"train": {"epochs": 3}}}}}, "'train' is a whole section"),
        ({"factors": {"f": {"a/b": {}}}}, "can't name a level"),
        ({"factors": {"f=g": {"a": {}}}}, "can't name a factor"),
        ({"factors": {"f": by_path("network.insert.attention.at", "after stem", "a/b")}}, "can't name a level"),
        ({"design": "random", "factors": {"placement": PLACEMENT}}, "not one of: grid, one_at_a_time, leave_one_out"),
    ],
)
def test_an_ablation_that_makes_no_design_says_why(ablation: dict[str, Any], message: str) -> None:
    assert message in refused(ablation)


# ---- hostile specs ----


def test_a_million_variants_are_refused_before_any_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    factors = {f"f{i}": by_path(f"network.params.p{i}", *range(10)) for i in range(6)}
    built: list[str] = []
    original = plans._variant

    def counted(spec: Any, name: str, *rest: Any) -> Any:
        built.append(name)
        return original(spec, name, *rest)

    monkeypatch.setattr(plans, "_variant", counted)
    for baseline in ("0/0/0/0/0/0", {"f0": "0"}):
        built.clear()
        assert "1,000,000 variants; at most 10,000" in refused({"factors": factors, "baseline": baseline})
        assert built == ["study"]


def test_a_factor_of_very_many_levels_is_refused_without_comparing_them_all() -> None:
    began = time.process_time()
    assert "variants; at most" in refused({"factors": {"lr": by_path("train.optimizer.lr", *range(20_000))}})
    assert time.process_time() - began < 30  # comparing each with each takes minutes


@pytest.mark.parametrize("seeds", [0, -3, 1_001, 10**15, list(range(1_001)), []])
def test_no_seeds_and_thousands_of_them_are_refused_without_listing_them(seeds: Any) -> None:
    said = refused({"seeds": seeds, "factors": {"placement": PLACEMENT}})
    assert "seeds; from 1 to 1,000" in said
    assert len(said) < 300


@pytest.mark.parametrize(("seeds", "message"), [([1, 1], "twice"), ([-1], "negative"), ("several", "was expected")])
def test_seeds_are_whole_distinct_and_count_from_0(seeds: Any, message: str) -> None:
    assert message in refused({"seeds": seeds, "factors": {"placement": PLACEMENT}})


@pytest.mark.parametrize(
    "ablation",
    [
        {"factors": {"f": {"a\x1b[31m": {}}}},
        {"factors": {"f\x1b[31m": {"a": {}}}},
        {"factors": {"f": by_path("network.insert.attention.at", "after\x1b[31m stem")}},
        {"design": "variants", "variants": {"a\nb": {}}},
    ],
)
def test_names_with_control_characters_are_refused_in_words_without_them(ablation: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        planned(ablation)
    problem = next(problem for problem in caught.value.problems if "can't name a" in problem.message)
    assert problem.message.isprintable()


# ---- the trial's hash ----

NUMERICS = {"threads": 1, "device": "cpu"}


def hashed(variant: Variant, seed: int = 0, content: str = "ab" * 32, numerics: Any = NUMERICS) -> str:
    return trial_hash(variant, seed, content, numerics)


def test_a_trials_hash_changes_with_all_that_a_result_depends_on() -> None:
    variant = written()
    renamed = {"first": GRAPH["stem"], "second": GRAPH["body"], "last": GRAPH["head"]}
    found = [
        hashed(variant),
        hashed(variant, seed=1),
        hashed(variant, content="cd" * 32),
        hashed(variant, numerics=NUMERICS | {"threads": 2}),
        hashed(written(train=TRAIN | {"epochs": 3})),
        hashed(written(network=inserted(reduction=8))),
        hashed(written(network={"graph": renamed, "insert": {"attention": ATTENTION | {"at": "after first"}}})),
    ]
    assert len(set(found)) == len(found)
    assert all(len(key) == 32 and set(key) <= set("0123456789abcdef") for key in found)


def test_a_trials_hash_does_not_change_with_folders_names_and_columns() -> None:
    assert hashed(written(report={"columns": ["flops"]}, name="other")) == hashed(written())
    paths = [as_written(load(spec(data={"name": "mnist", "val": 0.3, "root": root}))) for root in ("here", "there")]
    assert hashed(paths[0]) == hashed(paths[1])
    fetched = as_written(load(spec(data={"name": "mnist", "val": 0.3, "download": True})))
    assert hashed(fetched) == hashed(paths[0])


def test_a_trials_hash_is_the_same_wherever_it_is_computed() -> None:
    script = "import test_design; print(test_design.hashed(test_design.written()))"
    environment = os.environ | {"PYTHONHASHSEED": "13", "PYTHONPATH": os.pathsep.join(sys.path)}
    there = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert there.stdout.strip() == hashed(written())


def test_duplicates_may_differ_in_the_names_that_seed_them() -> None:
    plan = planned({"factors": {"at": by_path("network.insert.attention.at", "after stem", "before body")}})
    one, other = plan.variants
    assert one.identity == other.identity
    assert one.network.graph.seeding_names != other.network.graph.seeding_names
    assert hashed(one) != hashed(other)


def test_swapping_the_names_of_two_equal_branches_is_another_trial_of_the_same_network() -> None:
    # Each branch is seeded by its name, so the numbers that come out differ though the network is one.
    def branches(first: str, second: str) -> Variant:
        nodes = {
            "left": {"block": "conv", "width": 7, "from": "input"},
            "right": {"block": "conv", "width": 7, "from": "input"},
            "mix": {"block": "concat", "from": [first, second]},
            "head": {"block": "classifier"},
        }
        return as_written(load({"name": "study", "data": DATA, "train": TRAIN, "network": {"graph": nodes}}))

    one, other = branches("left", "right"), branches("right", "left")
    assert one.identity == other.identity
    assert hashed(one) != hashed(other)


EVERY_KEY: dict[str, Any] = {
    "name": "every-key",
    "data": {
        "name": "fake",
        "shape": [3, 11, 13],
        "classes": 5,
        "count": {"train": 70, "test": 20},
        "val": {"size": 15, "seed": 3},
        "limit": {"train": 40, "val": 10, "test": 15},
        "augment": [{"random_crop": {"padding": 2}}],
        "normalize": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
    },
    "train": {
        "epochs": 7,
        "batch_size": 16,
        "optimizer": {"name": "adam", "lr": 0.01, "betas": [0.9, 0.99], "eps": 1e-7, "weight_decay": 0.01},
        "schedule": {"name": "multi_step", "milestones": [3, 5], "gamma": 0.3},
        "loss": {"name": "cross_entropy", "label_smoothing": 0.1},
        "early_stopping": {"monitor": "val.error", "patience": 3, "threshold": 0.01, "mode": "absolute"},
        "clip_norm": 3.0,
        "ema": {"decay": 0.9},
        "select": "ema",
        "precision": "bf16",
    },
    "network": {
        "params": {"k": 2},
        "init": {"recipe": "kaiming_fan_in"},
        "graph": {
            "stem": {"block": "conv_bn_act", "width": "8*$k", "kernel": 5, "stride": 2, "act": "gelu"},
            "body": {"block": "basic", "width": 16, "repeat": 3, "shortcut": "pad", "stride": 2, "act": "silu"},
            "head": {"block": "classifier", "pool": "max", "dropout": 0.2},
        },
        "insert": {
            "a": {
                "block": "cbam",
                "reduction": 4,
                "kernel": 5,
                "at": "after body.0",
                "residual": {"kind": "weighted", "init": 0.5, "per": "channel"},
            },
            "b": {"block": "ai_gate", "mode": "combined", "reduction": 8, "at": "before body.*.conv2"},
        },
    },
}
OTHER_WORDS = {
    "kaiming_fan_in": "torch_default", "gelu": "relu", "silu": "relu", "pad": "project", "max": "avg",
    "combined": "spatial", "after body.0": "after body.1", "before body.*.conv2": "before body.*.conv1",
    "channel": "scalar", "cbam": "se", "val.error": "val.loss", "absolute": "relative", "ema": "last", "bf16": "fp32",
    "8*$k": "4*$k", "adam": "sgd",
}  # fmt: skip


def leaves(tree: Any, path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Any]]:
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return [leaf for key, item in items for leaf in leaves(item, (*path, key))]
    return [(path, tree)]


@pytest.mark.parametrize(
    ("path", "value"),
    [pytest.param(p, v, id=".".join(map(str, p))) for p, v in leaves(EVERY_KEY) if p[0] != "name"],
)
def test_every_key_of_a_spec_is_used_changing_it_changes_the_variant_or_is_refused(
    path: tuple[str | int, ...], value: Any
) -> None:
    changed = copy.deepcopy(EVERY_KEY)
    parent: Any = changed
    for part in path[:-1]:
        parent = parent[part]
    parent[path[-1]] = OTHER_WORDS.get(value, "another") if isinstance(value, str) else value * 2
    before = as_written(load(EVERY_KEY)).identity
    try:
        after = as_written(load(changed)).identity
    except UserError:
        return
    assert after != before


# ---- seeds without factors, limits and columns ----


def test_seeds_alone_are_those_of_the_spec_as_written() -> None:
    for plan in (
        planned(sets={"ablation.seeds": 3}),
        study_plan(load(spec() | {"ablation": {"seeds": 3}})),
        study_plan(load(spec() | {"profiles": {"t": {"ablation.seeds": 3}}}, profile="t")),
    ):
        assert (names(plan), plan.seeds) == (["study"], [0, 1, 2])
    assert planned().seeds == [0]
    assert "ablation.seeds: 0 seeds" in refused(sets={"ablation.seeds": 0})


def test_a_limit_of_a_split_that_there_is_not_is_an_error() -> None:
    data = {key: value for key, value in DATA.items() if key != "val"} | {"limit": {"val": 5}}
    assert refused(data=data).endswith("data.limit.val: there is no val split to limit; add data.val")
    assert planned(data=DATA | {"limit": {"val": 5}})


def test_columns_that_no_trial_fills_or_that_are_given_twice_are_errors() -> None:
    without = {key: value for key, value in DATA.items() if key != "val"}
    columns = {"columns": ["params", "val.accuracy", "params"]}
    val, twice = refused(data=without, report=columns).splitlines()
    assert val.endswith("columns.1: 'val.accuracy' needs a validation split, and no variant has one; add data.val")
    assert twice.endswith("report.columns.2: 'params' is given twice")
    assert planned(data=without)  # the default columns show what there is
    varied = {"f": {"none": {}, "some": {"data.val": 0.3}}}
    assert planned({"factors": varied}, data=without, report={"columns": ["val.accuracy"]})
