"""Profiles: one of a spec's own sets of assignments, after the spec and before its levels."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ablate
from ablate.design import StudyPlan, as_written, study_plan
from ablate.errors import UserError
from ablate.facts import explain
from ablate.spec import load
from ablate.yamlfile import dump
from tests.conftest import TINY

SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.0}
SPEC: dict[str, Any] = {
    "name": "study",
    "data": {"name": "fake", "shape": [3, 11, 13], "classes": 5, "count": {"train": 23, "test": 7}, "val": 0.3},
    "train": {"epochs": 2, "optimizer": SGD},
    "network": {
        "graph": {
            "stem": {"block": "conv_bn_act", "width": 8},
            "body": {"block": "conv_bn_act", "width": 8},
            "head": {"block": "classifier"},
        },
        "insert": {"attention": {"block": "se", "reduction": 2, "at": "after stem"}},
    },
}
PLACE = {"none": {"network.insert.attention": None}, "body": {"network.insert.attention.at": "after body"}}


def with_profile(profile: dict[str, Any], **sections: Any) -> dict[str, Any]:
    return copy.deepcopy(SPEC) | {"profiles": {"tiny": profile}} | sections


def planned(profile: dict[str, Any], *, sets: Any = (), **sections: Any) -> StudyPlan:
    return study_plan(load(with_profile(profile, **sections), sets=sets, profile="tiny"))


def refused(profile: dict[str, Any], *, sets: Any = (), chosen: str | None = "tiny", **sections: Any) -> str:
    with pytest.raises(UserError) as caught:
        study_plan(load(with_profile(profile, **sections), sets=sets, profile=chosen))
    return str(caught.value)


def factors(**levels: Any) -> dict[str, Any]:
    return {"seeds": 3, "factors": levels}


# ---- precedence ----

LAYERS = ("extends", "spec", "profile", "level", "--set")
choices = st.fixed_dictionaries({layer: st.sampled_from(["nothing", "path", "whole"]) for layer in LAYERS[1:]})


def patch(kind: str, lr: float) -> dict[str, Any]:
    """The learning rate by its own path, by the shorter path of the whole optimiser, or not at all."""
    whole = {"train.optimizer": SGD | {"lr": lr, "momentum": lr}}
    return {"nothing": {}, "path": {"train.optimizer.lr": lr}, "whole": whole}[kind]


@given(choices)
@settings(max_examples=40)
def test_extends_gives_way_to_spec_to_profile_to_level_to_set_whatever_the_length_of_the_path(
    choice: dict[str, str],
) -> None:
    expected = {"lr": 0.1, "momentum": 0.0}
    rates = dict(zip(LAYERS[1:], (0.2, 0.3, 0.4, 0.5), strict=True))
    for layer, rate in rates.items():
        kind = choice[layer]
        merged = {"nothing": {}, "path": {"lr": rate}, "whole": {"lr": rate, "momentum": rate}}[kind]
        expected |= merged
    own = {key.split(".")[-1]: value for key, value in patch(choice["spec"], 0.2).items()}
    optimizer = own.get("optimizer", own)
    child = {
        "extends": "base.yaml",
        "profiles": {"tiny": patch(choice["profile"], 0.3)},
        "ablation": factors(f={"a": patch(choice["level"], 0.4), "b": {}}),
    } | ({"train": {"optimizer": optimizer}} if optimizer else {})
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "base.yaml").write_text(dump(SPEC))
        Path(folder, "spec.yaml").write_text(dump(child))
        sets = patch(choice["--set"], 0.5)
        varied = "nothing" not in (choice["level"], choice["--set"])
        if varied:
            with pytest.raises(UserError, match=r"factor 'f' varies train\.optimizer"):
                study_plan(load(Path(folder, "spec.yaml"), sets=sets, profile="tiny"))
            return
        variant, _ = study_plan(load(Path(folder, "spec.yaml"), sets=sets, profile="tiny")).variants
    found = variant.train.optimizer.model_dump()
    assert {key: found[key] for key in expected} == expected


def test_a_longer_path_of_the_profile_does_not_reach_into_what_a_level_sets_whole() -> None:
    whole = {"network.insert.attention": {"block": "se", "reduction": 4, "at": "after body"}}
    plan = planned({"network.insert.attention.reduction": 1}, ablation=factors(f={"as": {}, "whole": whole}))
    notes = [variant.network.insertions[0].params.model_dump()["reduction"] for variant in plan.variants]
    assert notes == [1, 4]


def test_a_level_reaches_into_a_section_that_the_profile_sets_whole() -> None:
    data = SPEC["data"] | {"classes": 3}
    plan = planned({"data": data}, ablation=factors(v={"path": "data.val", "levels": [0.3, 0.5]}))
    assert [variant.classes for variant in plan.variants] == [3, 3]
    assert [variant.data.val.fraction for variant in plan.variants if variant.data.val] == [0.3, 0.5]


def test_a_profile_reaches_seeds_execution_and_report() -> None:
    profile = {"ablation.seeds": 1, "execution": {"threads": 2}, "report.columns": ["params"]}
    plan = planned(profile, ablation=factors(place=PLACE))
    assert (plan.seeds, plan.execution.threads, plan.report.columns) == ([0], 2, ["params"])


def test_without_the_option_no_profile_acts() -> None:
    spec = load(with_profile({"train.epochs": 1}))
    assert as_written(spec).train.epochs == 2
    assert "profile" not in study_plan(spec).tree


# ---- null, and what has no effect ----


def test_null_in_a_profile_removes_and_what_levels_set_below_it_is_inactive() -> None:
    plan = planned({"network.insert.attention": None}, ablation=factors(e={"path": "train.epochs", "levels": [1, 3]}))
    assert all(not variant.network.insertions for variant in plan.variants)
    said = refused({"network.insert.attention": None}, ablation=factors(place=PLACE))
    assert "network.insert.attention.at: has no effect in any variant" in said


def test_null_of_what_is_not_there_and_of_a_parameter_are_errors() -> None:
    assert "there is no 'atention' to remove; did you mean 'attention'?" in refused({"network.insert.atention": None})
    assert "null removes" in refused({"train.epochs": None})


def test_a_level_brings_back_what_the_profile_removed() -> None:
    back = {"network.insert.attention": {"block": "se", "reduction": 4, "at": "after body"}}
    plan = planned({"network.insert.attention": None}, ablation=factors(f={"without": {}, "back": back}))
    assert [len(variant.network.insertions) for variant in plan.variants] == [0, 1]


def test_an_assignment_that_acts_in_no_variant_is_an_error_and_one_that_set_replaces_is_not() -> None:
    said = refused({"network.insert.attention.reducton": 4})
    assert "profiles.tiny" not in said
    assert "network.insert.attention.reducton: has no effect in any variant" in said
    assert said.endswith("did you mean 'reduction'?")
    said = refused({"train.epochs": 1}, ablation=factors(e={"path": "train.epochs", "levels": [3, 5]}))
    assert "train.epochs: has no effect in any variant: a level of each sets this path" in said
    assert planned({"train.epochs": 1}, sets=["train.epochs=5"]).variants[0].train.epochs == 5


def test_a_key_of_the_spec_that_the_profile_orphans_is_listed() -> None:
    [variant] = planned({"network.insert.attention.block": "self_attention"}).variants
    assert [(orphan.path, orphan.layer) for orphan in variant.orphans] == [
        ("network.insert.attention.reduction", "spec")
    ]


# ---- what a profile may say ----


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"name": "other"}, "'name' is not a path that a profile may change"),
        ({"extends": "x.yaml"}, "'extends' is not a path that a profile may change"),
        ({"profiles.more.train.epochs": 3}, "is not a path that a profile may change"),
        ({"trian.epochs": 3}, "did you mean 'train'?"),
        ({"network": {}}, "'network' is the whole network; name a path within it"),
        ({"ablation.factors.f": {}}, "changes nothing of 'ablation' but ablation.seeds"),
        ({"train..epochs": 3}, "has an empty part"),
        ({"data": 3}, "3 is not a mapping"),
        (3, "3 is not a profile"),
    ],
)
def test_every_profile_is_checked_also_when_none_is_chosen(profile: Any, message: str) -> None:
    said = refused(profile, chosen=None)
    assert message in said
    assert said.startswith("<mapping>:")


def test_an_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no profile 'tinny'; did you mean 'tiny'\?"):
        load(with_profile({"train.epochs": 1}), profile="tinny")
    with pytest.raises(UserError, match="the spec has no profiles"):
        load(SPEC, profile="tiny")


def test_a_childs_profile_of_the_same_name_merges_entry_by_entry(tmp_path: Path) -> None:
    base = with_profile({"train.epochs": 1, "data": SPEC["data"] | {"classes": 3}, "network.insert.attention": None})
    (tmp_path / "base.yaml").write_text(dump(base))
    child = {"train.epochs": 3, "data": {key: SPEC["data"][key] for key in ("name", "shape")}}
    (tmp_path / "spec.yaml").write_text(dump({"extends": "base.yaml", "profiles": {"tiny": child, "other": {}}}))
    variant = as_written(load(tmp_path / "spec.yaml", profile="tiny"))
    assert variant.train.epochs == 3
    assert variant.data.val is None
    assert not variant.network.insertions
    assert as_written(load(tmp_path / "spec.yaml", profile="other")).train.epochs == 2


RATE = {"train.epochs": 1, "train.optimizer.lr": 0.5, "train.optimizer": SGD, "network.params.n": 3}
ADAM = {"train": {"epochs": 7, "optimizer": {"name": "adam", "lr": 0.001}}}


@pytest.fixture
def below(tmp_path: Path) -> Any:
    """Loads a spec with these profiles, which extends one with others."""

    def read(parent: dict[str, Any], child: Any, profile: str | None = "tiny") -> Any:
        (tmp_path / "base.yaml").write_text(dump(copy.deepcopy(SPEC) | {"profiles": parent}))
        (tmp_path / "spec.yaml").write_text(dump({"extends": "base.yaml", "profiles": child}))
        return load(tmp_path / "spec.yaml", profile=profile)

    return read


@pytest.mark.parametrize(
    ("child", "kept"),
    [
        (ADAM, {"network.params.n", "train"}),
        ({"train.optimizer": SGD}, {"network.params.n", "train.epochs", "train.optimizer"}),
        ({"train.optimizer.lr": 0.3}, set(RATE)),
        ({"train.epoch": 3}, {*RATE, "train.epoch"}),
        ({}, set(RATE)),
    ],
)
def test_what_a_childs_profile_assigns_takes_the_place_of_all_that_the_parents_says_below(
    below: Any, child: dict[str, Any], kept: set[str]
) -> None:
    spec = below({"tiny": RATE, "other": RATE}, {"tiny": child})
    assert {assignment.dotted for assignment in spec.profiled} == kept
    assert {a.dotted for a in load(Path(spec.file), profile="other").profiled} == set(RATE)


def test_the_longer_path_of_a_parents_profile_does_not_reach_into_the_childs_section(below: Any) -> None:
    variant = as_written(below({"tiny": {"train.epochs": 1, "train.optimizer.lr": 0.5}}, {"tiny": ADAM}))
    assert (variant.train.epochs, variant.train.optimizer.model_dump()["lr"]) == (7, 0.001)


def test_null_removes_a_profile_or_all_that_the_extended_file_has(below: Any) -> None:
    both = {"tiny": {"train.epochs": 1}, "other": {"train.epochs": 3}}
    assert list(below(both, {"tiny": None}, None).tree["profiles"]) == ["other"]
    assert "profiles" not in below(both, None, None).tree
    with pytest.raises(UserError, match="no profile 'tiny'; one of: other"):
        below(both, {"tiny": None})
    with pytest.raises(UserError, match=r"profiles\.tinny: there is nothing to remove; did you mean 'tiny'\?"):
        below(both, {"tinny": None})


def test_the_null_of_an_entry_is_assigned_and_removes_when_the_profile_is_chosen(below: Any) -> None:
    gone = {"network.insert.attention": None}
    assert not as_written(below({"tiny": {"network.insert.attention.reduction": 3}}, {"tiny": gone})).network.insertions
    (entry,) = below({"tiny": {"network.insert.attention.reduction": 3}}, {"tiny": gone}).profiled
    assert entry.value is None


def test_a_profile_is_no_path_of_set_and_no_key_that_a_user_writes() -> None:
    with pytest.raises(UserError, match="choose one by --profile"):
        load(with_profile({}), sets=["profiles.tiny.train={}"])
    with pytest.raises(UserError, match="a profile is chosen on the command line; --profile tiny"):
        load(with_profile({}) | {"profile": "tiny"})


# ---- what is kept of it ----


def test_the_study_records_its_profile_and_its_spec_says_the_same_study_again(tiny: Path, tmp_path: Path) -> None:
    profiles = "profiles: {small: {train.epochs: 1, ablation.seeds: 1}}\n"
    tiny.write_text(TINY + profiles)
    spec = ablate.load(tiny, profile="small")
    table = ablate.sweep(spec, folder=tmp_path / "s", executor="local").values()
    frozen = study_plan(load(tmp_path / "s" / "spec.yaml"))
    assert "profiles" not in frozen.tree
    assert frozen.tree["profile"] == "small"
    assert [variant.identity for variant in frozen.variants] == [
        variant.identity for variant in study_plan(spec).variants
    ]
    assert table.caption.startswith("Profile small. ")
    assert table.column("trials")[0].text == "1 of 1"


def test_what_a_levels_whole_network_takes_from_the_profile_is_listed() -> None:
    """Without a word the profile would have made one variant small and left the other as it is."""
    other = {"graph": {"only": {"block": "conv_bn_act", "width": 7}, "head": {"block": "classifier"}}}
    small = {"network.graph.stem.width": 3}
    variants = {"here": {}, "other": {"network": other}}
    ablation = {"seeds": 1, "design": "variants", "baseline": "here", "variants": variants}
    plan = planned(small, ablation=ablation)
    assert [a.dotted for a in plan.variant("here").inactive] == []
    assert [a.dotted for a in plan.variant("other").inactive] == ["network.graph.stem.width"]
    (said,) = explain(plan, plan.variant("other")).inactive
    assert said["why"] == "variant=other puts another network in its place"
