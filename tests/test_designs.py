"""Every design from the spec to its variants: what each is, and what is refused because it would change nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.design import StudyPlan, study_plan
from ablate.errors import UserError
from ablate.spec import load

SPEC: dict[str, Any] = {
    "name": "study",
    "data": {"name": "fake", "shape": [3, 11, 13], "classes": 5, "count": {"train": 23, "test": 7}, "val": 0.3},
    "train": {"epochs": 2, "optimizer": {"name": "sgd", "lr": 0.1}},
    "network": {
        "graph": {
            "stem": {"block": "conv_bn_act", "width": 16},
            "body": {"block": "conv_bn_act", "width": 16},
            "head": {"block": "classifier"},
        },
        "insert": {"attention": {"block": "se", "reduction": 4, "at": "after stem"}},
    },
}
REDUCTION = "network.insert.attention.reduction"
ADDED = {"network.insert.more": {"block": "spatial_gate", "kernel": 3, "at": "after body"}}


def planned(ablation: dict[str, Any], sets: Any = ()) -> StudyPlan:
    return study_plan(load(copy.deepcopy(SPEC) | {"ablation": {"seeds": 2} | ablation}, sets=sets))


def refused(ablation: dict[str, Any], sets: Any = ()) -> str:
    with pytest.raises(UserError) as caught:
        planned(ablation, sets)
    return str(caught.value)


def names(plan: StudyPlan) -> list[str]:
    return [variant.name for variant in plan.variants]


def test_a_ladder_adds_one_patch_after_another_and_a_later_one_may_set_a_path_again() -> None:
    components = {
        "wider": {"network.graph.body.width": 24},
        "gate": ADDED,
        "widest": {"network.graph.body.width": 32},
        "kernel": {"network.insert.more.kernel": 5},
        "gone": {"network.insert.more": None},
    }
    plan = planned({"design": "ladder", "components": components})
    assert names(plan) == ["bare", "+wider", "+gate", "+widest", "+kernel", "+gone"]
    widths = [variant.network.graph.by_name["body.conv"].shape[0] for variant in plan.variants]
    assert widths == [16, 24, 24, 32, 32, 32]
    gates = [[i.params.model_dump()["kernel"] for i in variant.network.insertions[1:]] for variant in plan.variants]
    assert gates == [[], [], [3], [3], [5], []]
    assert {variant.baseline for variant in plan.variants[1:]} == {"bare"}
    assert len({variant.identity for variant in plan.variants}) == 6


def test_what_a_row_brings_back_after_another_removed_it_can_be_changed_again() -> None:
    components = {
        "gone": {"network.insert.attention": None},
        "back": {"network.insert.attention": {"block": "se", "reduction": 2, "at": "after body"}},
        "narrow": {REDUCTION: 8},
    }
    plan = planned({"design": "ladder", "components": components})
    found = [[i.params.model_dump()["reduction"] for i in variant.network.insertions] for variant in plan.variants]
    assert found == [[4], [], [2], [8]]


def test_a_ladders_row_that_equals_the_row_before_it_is_a_no_op_though_it_differs_from_the_baseline() -> None:
    components = {"wider": {"network.graph.body.width": 24}, "same": {REDUCTION: 4}}
    said = refused({"design": "ladder", "components": components})
    assert f"variant '+same' is the row before it, '+wider': setting {REDUCTION} changes nothing" in said


def test_what_a_full_model_does_not_miss_is_a_no_op() -> None:
    components = {"attention": {"network.insert.attention": None}, "reduction": {REDUCTION: 4}}
    said = refused({"design": "leave_one_out", "components": components})
    assert f"variant 'without_reduction' is the baseline 'full': setting {REDUCTION} changes nothing" in said


def test_leave_one_out_compares_each_with_the_full_model() -> None:
    components = {
        "attention": {"network.insert.attention": None},
        "momentum": {"train.optimizer.momentum": 0.9},
        "body": {"network.graph.body": None},
    }
    plan = planned({"design": "leave_one_out", "components": components})
    assert names(plan) == ["full", "without_attention", "without_momentum", "without_body"]
    assert plan.variant("full").levels == {"attention": "with", "momentum": "with", "body": "with"}
    assert plan.variant("without_body").levels == {"attention": "with", "momentum": "with", "body": "without"}
    assert {variant.baseline for variant in plan.variants[1:]} == {"full"}


def test_two_components_that_come_to_one_network_are_trained_once() -> None:
    components = {"at": {"network.insert.attention.at": "before body"}, "more": ADDED}
    components["again"] = {"network.insert.other": ADDED["network.insert.more"]}
    said = refused({"design": "add_one_in", "components": components})
    assert "variant '+at' is the baseline 'bare'" in said
    del components["at"]
    plan = planned({"design": "add_one_in", "components": components})
    assert [variant.duplicate_of for variant in plan.variants] == [None, None, "+more"]


def test_a_patch_that_acts_in_no_row_is_an_error() -> None:
    gone = {"gone": {"network.insert.attention": None}, "after": {REDUCTION: 8}}
    assert f"{REDUCTION}: has no effect in any variant" in refused({"design": "ladder", "components": gone})
    assert f"{REDUCTION}: has no effect" not in str(
        planned({"design": "leave_one_out", "components": {"after": {REDUCTION: 8}}})
    )


def test_set_on_a_path_of_a_component_is_an_error_that_names_it() -> None:
    said = refused({"design": "ladder", "components": {"narrow": {REDUCTION: 8}}}, sets=[f"{REDUCTION}=2"])
    assert f"--set {REDUCTION}: component 'narrow' varies {REDUCTION}" in said


def test_one_at_a_time_compares_each_with_the_spec_as_written() -> None:
    factors = {
        "reduction": {"path": REDUCTION, "levels": [2, 4, 8]},
        "rate": {"path": "train.optimizer.lr", "levels": [0.1, 0.3]},
    }
    plan = planned({"design": "one_at_a_time", "factors": factors})
    assert names(plan) == ["reference", "reduction=2", "reduction=8", "rate=0.3"]
    assert {variant.baseline for variant in plan.variants[1:]} == {"reference"}
    assert plan.variant("rate=0.3").levels == {"reduction": "4", "rate": "0.3"}


def test_a_level_that_is_a_default_of_the_spec_as_written_says_how_to_name_it() -> None:
    said = refused({"design": "one_at_a_time", "factors": {"bias": {"path": "train.batch_size", "levels": [128, 64]}}})
    assert "variant 'bias=128' is the baseline 'reference'" in said
    assert "name it: reference: {bias: 128}" in said


def test_exclude_is_of_variants_that_would_not_build_too() -> None:
    factors = {
        "width": {"path": "network.graph.body.width", "levels": [16, 24]},
        "join": {"chain": {}, "sum": {"network.graph.mix": {"block": "add", "from": ["stem", "body"]},
                                      "network.graph.head.from": "mix"}},
    }  # fmt: skip
    said = refused({"factors": factors})
    assert "(24, 11, 13)" in said
    assert "'24/sum'" in said
    plan = planned({"factors": factors, "exclude": [{"width": 24, "join": "sum"}]})
    assert names(plan) == ["16/chain", "16/sum", "24/chain"]


def test_zipped_factors_act_together() -> None:
    factors = {
        "rate": {"path": "train.optimizer.lr", "levels": [0.1, 0.2]},
        "reduction": {"path": REDUCTION, "levels": [4, 8]},
        "batch": {"path": "train.batch_size", "levels": [16, 32]},
    }
    plan = planned({"factors": factors, "zip": [["rate", "batch"]]})
    assert names(plan) == ["0.1/16/4", "0.1/16/8", "0.2/32/4", "0.2/32/8"]
    assert [(v.train.optimizer.lr, v.train.batch_size) for v in plan.variants] == [(0.1, 16)] * 2 + [(0.2, 32)] * 2


INSERTED = {
    "first": {"no": {}, "yes": {"network.insert.first": {"block": "se", "reduction": 2, "at": "after body"}}},
    "second": {"no": {}, "yes": {"network.insert.second": {"block": "ai_gate", "at": "after body"}}},
    "rate": {"path": "train.optimizer.lr", "levels": [0.1, 0.3]},
}


@given(st.permutations(list(INSERTED)), st.sampled_from(["grid", "one_at_a_time"]))
@settings(max_examples=12)
def test_the_order_of_writing_factors_changes_no_identity(order: list[str], design: str) -> None:
    def identities(factors: dict[str, Any]) -> dict[frozenset[tuple[str, str]], str]:
        plan = planned({"design": design, "factors": factors})
        return {frozenset(variant.levels.items()): variant.identity for variant in plan.variants}

    assert identities({name: INSERTED[name] for name in order}) == identities(INSERTED)
