"""A key must be valid in the layer that wrote it: none that is misspelt is dropped with what another layer orphans."""

from __future__ import annotations

from typing import Any

import pytest

from ablate.design import as_written, study_plan
from ablate.errors import UserError
from ablate.spec import load

DATA = {"name": "fake", "shape": [3, 11, 11], "classes": 5, "val": 0.3}
SGD = {"name": "sgd", "lr": 0.1}
GRAPH = {
    "stem": {"block": "conv_bn_act", "width": 8},
    "body": {"block": "conv_bn_act", "width": 8},
    "head": {"block": "classifier"},
}
GATE = {"block": "spatial_gate", "at": "after stem"}
SE = {"block": "se", "reduction": 4, "at": "after stem"}


def spec(insertion: dict[str, Any] = SE, **sections: Any) -> dict[str, Any]:
    network = {"graph": GRAPH, "insert": {"a": insertion}} | sections.pop("network", {})
    return {"name": "study", "data": DATA, "train": {"epochs": 1, "optimizer": SGD}, "network": network} | sections


def refused(source: dict[str, Any], *, sets: Any = (), profile: str | None = None) -> list[str]:
    with pytest.raises(UserError) as caught:
        study_plan(load(source, sets=sets, profile=profile))
    return str(caught.value).splitlines()


@pytest.mark.parametrize("how", ["--set", "profile", "level"])
def test_a_misspelt_key_is_not_dropped_where_another_layer_changes_the_block(how: str) -> None:
    change = {"network.insert.a.block": "spatial_gate"}
    source = spec(SE | {"reducton": 3})
    options: dict[str, Any] = {"sets": change} if how == "--set" else {}
    if how == "profile":
        source["profiles"], options["profile"] = {"other": change}, "other"
    elif how == "level":
        source["ablation"] = {"seeds": 1, "factors": {"kind": {"gate": change}}}
    (line,) = refused(source, **options)
    assert line.endswith("network.insert.a.reducton: unknown parameter of block 'se'; did you mean 'reduction'?")


@pytest.mark.parametrize(
    ("section", "sets", "wanted"),
    [
        ({"data": {"name": "mnist5k", "clases": 4}}, {"data": DATA}, "data.clases: unknown key"),
        ({"data": {"name": "mnist5k", "clases": 4}}, {"data.name": "fake"}, "data.clases: unknown key"),
        (
            {"train": {"epochs": 1, "optimizer": SGD | {"momentun": 0.9}}},
            {"train.optimizer.name": "adam"},
            "train.optimizer.momentun: unknown key; did you mean 'momentum'?",
        ),
        (
            {"data": DATA | {"mix": {"name": "mixup", "alpa": 0.3}}},
            {"data.mix.name": "cutmix"},
            "data.mix.alpa: unknown key; did you mean 'alpha'?",
        ),
        (
            {"train": {"epochs": 1, "optimizer": SGD, "schedule": {"name": "step", "every": 3, "flor": 0.1}}},
            {"train.schedule.name": "cosine"},
            "train.schedule.flor: unknown key",
        ),
    ],
)
def test_a_misspelt_key_is_not_dropped_where_set_changes_the_name(section: Any, sets: Any, wanted: str) -> None:
    assert any(wanted in line for line in refused(spec(**section), sets=sets))


def test_a_level_has_only_keys_of_the_block_that_it_assigns() -> None:
    whole = {"gate": {"network.insert.a": GATE | {"reduction": 3}}, "se": {}}
    other = {"network.insert.a.reduction": 2}
    said = refused(spec(ablation={"seeds": 1, "factors": {"kind": whole, "size": {"small": other, "as": {}}}}))
    assert any("network.insert.a.reduction: unknown parameter of block 'spatial_gate'" in line for line in said)


def test_what_set_and_a_profile_assign_whole_has_keys_of_its_own_choice() -> None:
    source = spec(profiles={"tiny": {"train.optimizer": {"name": "adam", "lr": 0.1, "momentum": 0.3}}})
    (line,) = refused(source, profile="tiny", sets={"train.optimizer.name": "sgd"})
    assert "train.optimizer.momentum: unknown key" in line
    (line,) = refused(spec(), sets={"network.insert": {"a": GATE | {"kernl": 3}}, "network.insert.a.block": "se"})
    assert line.startswith("--set:")
    assert "network.insert.a.kernl: unknown parameter of block 'spatial_gate'; did you mean 'kernel'?" in line


def test_a_mistake_within_one_layer_is_said_once() -> None:
    for source in (spec(SE | {"reducton": 3}), spec(train={"epochs": 1, "optimizer": SGD | {"momentun": 0.9}})):
        assert len(refused(source)) == 1


def composite(**params: Any) -> dict[str, Any]:
    graph = {"conv": {"block": "conv", "width": "$width"}, "norm": {"block": "$norm"}}
    return {"mine": {"params": {"width": 8, "norm": "batch_norm"} | params, "graph": graph}}


def test_composites_are_blocks_with_the_parameters_that_the_spec_gives_them() -> None:
    section = {"blocks": composite(), "graph": GRAPH | {"body": {"block": "mine", "width": 8, "wdth": 3}}}
    (line,) = refused(spec(network=section), sets={"network.graph.body.block": "conv_bn_act"})
    assert "network.graph.body.wdth: unknown parameter of block 'mine'; did you mean 'width'?" in line


def test_what_another_layer_orphans_is_dropped_as_before() -> None:
    variant = as_written(load(spec(), sets={"network.insert.a.block": "spatial_gate"}))
    assert [orphan.path for orphan in variant.orphans] == ["network.insert.a.reduction"]
    section = {"blocks": composite(), "graph": GRAPH | {"body": {"block": "mine", "width": 8}}}
    assert as_written(load(spec(network=section), sets={"network.graph.body.block": "conv_bn_act"}))


# ---- paths below network.set and network.defaults ----

HOW = ["level", "profile", "--set"]
KERNEL, EPS = "network.set.bo*.conv.kernel", "network.defaults.batch_norm.eps"


def changed(how: str, changes: dict[str, Any], **sections: Any) -> Any:
    """The variant that a layer makes by these changes."""
    if how == "--set":
        return study_plan(load(spec(**sections), sets=changes)).variants[0]
    if how == "profile":
        return study_plan(load(spec(profiles={"p": changes}, **sections), profile="p")).variants[0]
    ablation = {"seeds": 1, "factors": {"f": {"changed": changes}}}
    return study_plan(load(spec(ablation=ablation, **sections))).variants[0]


@pytest.mark.parametrize("how", HOW)
def test_a_pattern_or_a_block_of_defaults_need_not_be_there_to_be_set(how: str) -> None:
    graph = changed(how, {KERNEL: 5, EPS: 0.25}).network.graph
    kernels = {name: graph.by_name[f"{name}.conv"].params.model_dump()["kernel"] for name in ("stem", "body")}
    assert kernels == {"stem": 3, "body": 5}
    assert {graph.by_name[f"{name}.bn"].params.model_dump()["eps"] for name in ("stem", "body")} == {0.25}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    ("path", "value", "wanted"),
    [
        ("network.set.bdy.kernel", 5, "network.set.bdy: pattern 'bdy' matches nothing; nearest: body"),
        ("network.defaults.batchnorm.eps", 0.1, "unknown block 'batchnorm'; did you mean 'batch_norm'?"),
        ("network.set.stem.kernel", None, "network.set.stem.kernel: null removes a node, an insertion or a section"),
        (EPS, None, f"{EPS}: null removes a node, an insertion or a section, and this is a parameter"),
        ("network.set.no.kernel", None, "there is no 'no.kernel' to remove"),
    ],
)
def test_what_is_set_below_them_is_checked_as_in_a_spec(how: str, path: str, value: Any, wanted: str) -> None:
    with pytest.raises(UserError) as caught:
        changed(how, {path: value}, network={"set": {"stem": {"kernel": 5}}})
    assert wanted in str(caught.value)


# ---- null within lists ----

GROUPS = [{"of": "norm", "lr": 0.3, "weight_decay": None}]


def test_null_is_no_value_within_a_list() -> None:
    claim = {"title": "x", "table": None, "metric": "test.accuracy", "values": {"study": 1.0}}
    said = refused(spec(train={"epochs": 1, "optimizer": SGD, "groups": GROUPS}, paper=[claim, None]))
    where = ["train.groups.0.weight_decay", "paper.0.table", "paper.1"]
    for path, line in zip(where, said, strict=True):
        assert f": {path}: null is no value within a list; leave it out" in line


@pytest.mark.parametrize("how", HOW)
def test_no_layer_assigns_a_list_with_a_null_in_it(how: str) -> None:
    with pytest.raises(UserError, match=r"train\.groups: null at '0\.weight_decay' removes nothing"):
        changed(how, {"train.groups": GROUPS})


# ---- what a layer adds must act ----


@pytest.mark.parametrize("how", HOW)
def test_a_default_of_an_assigned_mapping_that_fills_nothing_is_an_error(how: str) -> None:
    with pytest.raises(UserError) as caught:
        changed(how, {"network.defaults": {"act": "gelu", "heads": 4}})
    (line,) = str(caught.value).splitlines()
    assert "network.defaults.heads: has no effect in any variant" in line


def test_a_key_of_an_assigned_mapping_acts_if_it_does_so_in_one_variant() -> None:
    whole = {"acts": {"network.defaults": {"act": "gelu", "excitation": 0.5}}, "idle": {"network.defaults.act": "silu"}}
    factors = {"defaults": whole, "insertion": {"se": {}, "none": {"network.insert.a": None}}}
    source = spec({"block": "se", "at": "after stem"}, ablation={"seeds": 1, "factors": factors})
    with pytest.raises(UserError, match=r"network\.defaults\.excitation"):
        study_plan(load(source))
    whole["acts"]["network.defaults"] = {"act": "gelu", "reduction": 2}
    assert len(study_plan(load(source)).variants) == 4


def test_a_parameter_that_a_level_adds_and_nothing_reads_is_an_error() -> None:
    factors = {"f": {"dotted": {"network.params.q": 3}, "whole": {"network.params": {"r": 2, "s": "$r"}}, "none": {}}}
    said = refused(spec(ablation={"seeds": 1, "factors": factors}))
    wanted = [f"network.params.{name}: unused: no expression reads ${name} in a variant that has it" for name in "qs"]
    assert [line.split(": ", 1)[1] for line in said] == wanted


def test_a_parameter_that_one_factor_adds_and_another_reads_acts() -> None:
    factors = {
        "number": {"path": "network.params.q", "levels": [8, 16]},
        "reader": {"reads": {"network.graph.stem.width": "$q"}},
    }
    plan = study_plan(load(spec(ablation={"seeds": 1, "factors": factors})))
    assert [variant.network.graph.by_name["stem.conv"].shape[0] for variant in plan.variants] == [8, 16]
    apart = {"seeds": 1, "design": "one_at_a_time", "factors": {"number": factors["number"]}}
    assert all("unused: no expression reads $q" in line for line in refused(spec(ablation=apart)))


def test_a_level_may_remove_a_parameter_with_all_that_reads_it() -> None:
    gone = {"network.params.q": None, "network.graph.stem.width": 8}
    network = {"params": {"q": 16}, "graph": GRAPH | {"stem": {"block": "conv_bn_act", "width": "$q"}}}
    assert study_plan(load(spec(network=network, ablation={"seeds": 1, "factors": {"f": {"gone": gone, "as": {}}}})))
