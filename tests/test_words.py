"""One variant explained: the facts against what the spec says, and the words against the facts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from ablate.design import StudyPlan, study_plan
from ablate.facts import Explanation, explain
from ablate.prepare import certificate_of
from ablate.spec import load
from ablate.words import WIDTH, in_words
from ablate.yamlfile import dump

INSERT = "network.insert.attention"
SPEC: dict[str, Any] = {
    "name": "study",
    "profiles": {"tiny": {"train.epochs": 1, "network.graph.stem.kernel": 5}},
    "data": {"name": "fake", "shape": [3, 11, 13], "classes": 5, "count": {"train": 29, "test": 7}, "val": 0.3},
    "train": {"epochs": 2, "batch_size": 7, "optimizer": {"name": "sgd", "lr": 0.1}},
    "network": {
        "graph": {
            "stem": {"block": "conv_bn_act", "width": 16},
            "body": {"block": "conv_bn_act", "width": 16},
            "head": {"block": "classifier"},
        },
        "insert": {"attention": {"block": "se", "reduction": 8, "at": "after stem"}},
    },
}
PLACE = {
    "none": {INSERT: None},
    "stem": {f"{INSERT}.at": "after stem"},
    "both": {f"{INSERT}.at": ["after stem", "after body"]},
}
KIND = {"se": {f"{INSERT}.reduction": 32}, "self": {f"{INSERT}.block": "self_attention"}}


def planned(tmp_path: Path, ablation: dict[str, Any], **options: Any) -> StudyPlan:
    file = tmp_path / "spec.yaml"
    file.write_text(dump(copy.deepcopy(SPEC) | {"ablation": {"seeds": 1} | ablation}))
    return study_plan(load(file, **options))


def facts(plan: StudyPlan, name: str) -> Explanation:
    return explain(plan, plan.variant(name))


GRID = {"baseline": {"place": "none"}, "factors": {"place": PLACE, "kind": KIND}}


def test_what_was_asked_is_each_level_with_the_line_that_says_so(tmp_path: Path) -> None:
    plan = planned(tmp_path, GRID)
    asked = facts(plan, "both/se").asked
    lines = (tmp_path / "spec.yaml").read_text().splitlines()
    assert [(each["factor"], each["level"]) for each in asked] == [("place", "both"), ("kind", "se")]
    [reduction] = asked[1]["assigns"]
    assert (reduction["path"], reduction["value"]) == (f"{INSERT}.reduction", 32)
    assert lines[int(reduction["place"].rsplit(":")[-1]) - 1].strip() == f"{INSERT}.reduction: 32"


def test_the_difference_is_that_of_the_two_networks(tmp_path: Path) -> None:
    plan = planned(tmp_path, GRID)
    found = facts(plan, "both/se")
    own, base = (plan.variant(name).network.graph for name in ("both/se", "none/se"))
    assert found.difference is not None
    assert found.difference["added"] == [name for name in own.by_name if name not in base.by_name]
    [insertion] = found.insertions
    assert insertion["places"] == ["stem_attention", "body_attention"]
    assert insertion["params"] == found.difference["params"] == 2 * (16 * 1 + 1 + 1 * 16 + 16)
    assert found.effective == {"reduction 32 on 16 channels → hidden width 1": ["stem_attention", "body_attention"]}


def test_what_is_without_use_says_why(tmp_path: Path) -> None:
    plan = planned(tmp_path, GRID)
    [removed] = facts(plan, "none/se").inactive
    assert (removed["path"], removed["why"]) == (f"{INSERT}.reduction", f"{INSERT} is removed by place=none")
    [orphan] = facts(plan, "stem/self").inactive
    assert (orphan["path"], orphan["value"], orphan["layer"]) == (f"{INSERT}.reduction", 8, "spec")
    assert orphan["why"] == "'self_attention', chosen by kind=self, takes no 'reduction'"


def test_a_baseline_says_of_what_and_a_duplicate_whose(tmp_path: Path) -> None:
    plan = planned(tmp_path, GRID)
    assert facts(plan, "none/se").is_baseline_of == ["stem/se", "both/se"]
    assert facts(plan, "none/self").duplicate_of == "none/se"
    assert facts(plan, "none/se").duplicates == ["none/self"]
    said = in_words(facts(plan, "none/self"))
    assert "'none/se': one network and one recipe, trained once" in said


def test_the_recipes_differences_are_by_key_and_of_another_kind_as_a_whole(tmp_path: Path) -> None:
    variants = {
        "base": {},
        "longer": {"train.epochs": 3, "data.augment": ["horizontal_flip"]},
        "adam": {"train.optimizer": {"name": "adam", "lr": 0.01}, "train.freeze": ["stem"]},
    }
    plan = planned(tmp_path, {"design": "variants", "variants": variants, "baseline": "base"})
    longer = {each["path"]: (each["baseline"], each["here"]) for each in facts(plan, "longer").recipe}
    assert longer["train.epochs"] == (2, 3)
    assert set(longer) == {"train.epochs", "data.augment"}
    adam = {each["path"]: each["here"] for each in facts(plan, "adam").recipe}
    assert set(adam) == {"train.optimizer", "train.freeze"}
    assert adam["train.optimizer"]["name"] == "adam"
    assert facts(plan, "adam").frozen == ["stem.conv", "stem.bn"]
    assert "train.epochs: 2 → 3" in in_words(facts(plan, "longer"))
    assert "the same network, node for node" in in_words(facts(plan, "adam"))


def test_what_a_later_row_level_or_set_replaces_is_marked(tmp_path: Path) -> None:
    components = {"wide": {"network.graph.body.width": 24}, "wider": {"network.graph.body.width": 32}}
    plan = planned(tmp_path, {"design": "ladder", "components": components}, profile="tiny", sets=["train.epochs=3"])
    replaced = {
        (each["factor"], one["path"]): one["replaced_by"]
        for each in facts(plan, "+wider").asked
        for one in each["assigns"]
    }
    assert replaced == {
        ("wide", "network.graph.body.width"): "wider=with",
        ("wider", "network.graph.body.width"): None,
        ("--profile tiny", "train.epochs"): "--set",
        ("--profile tiny", "network.graph.stem.kernel"): None,
        ("--set", "train.epochs"): None,
    }
    said = in_words(facts(plan, "+wide"))
    assert "wider = without\n" in said
    assert "1 node changed, width 16 → 24: body.conv" in said


@pytest.mark.parametrize("name", ["none/se", "stem/self", "both/se"])
def test_the_words_fit_and_hold_no_control_characters(tmp_path: Path, name: str) -> None:
    said = in_words(facts(planned(tmp_path, GRID), name))
    assert all(len(line) <= WIDTH for line in said.splitlines() if "/" not in line)
    assert all(line.isprintable() for line in said.splitlines())


def test_the_certificate_of_one_variant_is_that_of_the_whole_plan(tmp_path: Path) -> None:
    from ablate.prepare import prepare

    plan = planned(tmp_path, GRID)
    alone = certificate_of(plan, "both/se")
    assert alone.as_dict() == prepare(plan).certificates["both/se"].as_dict()
    said = in_words(explain(plan, plan.variant("both/se"), alone))
    assert "certificate   certified\n" in said
    assert "The test split is read once" in said
