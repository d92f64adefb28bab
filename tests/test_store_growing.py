"""What may change when a study goes on, and how it grows."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ablate import store
from ablate.errors import UserError
from ablate.store import Study, begun_with
from tests.stores import SPEC, VARIANTS, A, B, C, D, names, train


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.create(tmp_path / "placement", SPEC, VARIANTS, {"torch": "2.6"})


def variants(*hashes: str, name: str = "none") -> list[dict[str, Any]]:
    """One variant with these trials."""
    return [{"name": name, "levels": {}, "baseline": None, "trials": {str(i): h for i, h in enumerate(hashes)}}]


def begun(folder: Path, spec: dict[str, Any], records: list[dict[str, Any]]) -> Study:
    study = Study.create(folder, spec, records, {})
    train(study, records[0]["trials"]["0"])
    return study


def test_seeds_can_be_added_and_not_taken_away(tmp_path: Path) -> None:
    for seeds in (2, 3, [0, 1, 2, 7]):
        Study.create(tmp_path / "s", {**SPEC, "ablation": {"seeds": seeds}}, VARIANTS, {})
    with pytest.raises(UserError, match="begun with seed 7 too: seeds can be added, not taken away"):
        Study.create(tmp_path / "s", {**SPEC, "ablation": {"seeds": 3}}, VARIANTS, {})


def test_the_same_spec_resumes_and_brings_the_records_up_to_date(study: Study) -> None:
    train(study, A)
    spec = {
        **SPEC,
        "report": {},
        "paper": [{"title": "P", "metric": "val.accuracy"}],
        "ablation": {**SPEC["ablation"], "seeds": 5},
    }
    resumed = Study.create(study.folder, spec, VARIANTS[:1], {"torch": "2.7"})
    assert resumed.results().keys() == {A}
    found = Study.open(study.folder)
    assert (found.spec, found.variants, found.environment) == (spec, VARIANTS[:1], {"torch": "2.7"})


def test_another_spec_is_refused_and_the_differences_are_named(study: Study) -> None:
    before = (study.folder / store.SPEC).read_bytes()
    optimizer = {"name": "adam", "lr": 0.1, "betas": [0.9, 0.99]}
    other = {**SPEC, "train": {"epochs": 5.0, "optimizer": optimizer}, "data": {"limit": {"train": 7}}}
    with pytest.raises(UserError) as refused:
        Study.create(study.folder, other, variants(D), {})
    message = str(refused.value)
    for path in ("train.epochs", "train.optimizer.name", "train.optimizer.betas", "data.limit.train"):
        assert path in message
    assert "optimizer.lr" not in message
    assert "--out" in message
    assert (study.folder / store.SPEC).read_bytes() == before


def test_of_many_differences_five_are_named(study: Study) -> None:
    with pytest.raises(UserError, match=r"x0, x1, x2, x3, x4, … \(7 in all\)"):
        Study.create(study.folder, {**SPEC, **{f"x{i}": i for i in range(7)}}, variants(D), {})


def test_true_is_not_one(study: Study) -> None:
    folder = study.folder.parent / "other"
    Study.create(folder, {"a": 1}, [], {})
    with pytest.raises(UserError, match="differ in a"):
        Study.create(folder, {"a": True}, [], {})


FACTORS: dict[str, Any] = {"seeds": 1, "baseline": {"a": "x"}, "factors": {"a": {"x": {}, "y": {"p": 1}}, "b": [1, 2]}}
GROWING: dict[str, Any] = {"name": "g", "train": {"epochs": 5, "lr": 0.1}, "ablation": FACTORS}


def changed(spec: dict[str, Any], **paths: Any) -> dict[str, Any]:
    """The spec with values at paths that are written ``train__epochs``."""
    spec = json.loads(json.dumps(spec))
    for path, value in paths.items():
        *above, last = path.split("__")
        place = spec
        for key in above:
            place = place.setdefault(key, {})
        place[last] = value
    return spec


def test_a_spec_with_the_same_trials_and_more_is_the_same_study_whatever_it_says(tmp_path: Path) -> None:
    study = begun(tmp_path / "s", GROWING, variants(A, B))
    grown = changed(GROWING, ablation__factors__a__z={}, ablation__baseline={"a": "z"}, train__lr=0.1, network=7)
    for records in (variants(A, B, C), variants(A, B, C, name="renamed")):
        study = Study.create(study.folder, grown, records, {})
    assert study.results().keys() == {A}
    event = study.events()[0][0]
    assert (event["event"], event["changed"]) == ("spec", ["ablation.baseline.a", "ablation.factors.a.z", "network"])
    assert event["time"].endswith("+00:00")
    with pytest.raises(UserError, match=r"differ in ablation\.baseline\.a, ablation\.factors\.a\.z, network"):
        Study.create(study.folder, GROWING, variants(A, B), {})  # C was a trial of it


def test_a_study_is_trained_for_more_epochs_and_never_for_fewer(tmp_path: Path) -> None:
    study = begun(tmp_path / "s", GROWING, variants(A))
    study.expose(by="sweep", trial=A)
    longer = changed(GROWING, train__epochs=7, ablation__factors__a__z={}, ablation__seeds=3)
    assert list(Study.create(study.folder, longer, variants(B, C), {}).states()) == [B, C]
    assert study.results().keys() == {A}  # it stays
    assert [reading["trial"] for reading in study.exposures()] == [A]
    with pytest.raises(UserError, match=r"train\.epochs"):
        Study.create(study.folder, changed(longer, train__epochs=6), variants(D, A), {})


@pytest.mark.parametrize(
    ("paths", "named"),
    [
        ({"train__lr": 0.2}, "differ in train.lr$"),
        ({"ablation__factors__a__y__p": 2}, "differ in ablation.factors.a.y.p$"),
        ({"ablation__factors__a": {"x": {}}}, "differ in ablation.factors.a.y.p$"),
        ({"ablation__factors__b": [2, 3]}, "differ in ablation.factors.b$"),
        ({"ablation__baseline__a": "y"}, "differ in ablation.baseline.a$"),
        ({"train__epochs": 7.0}, "differ in train.epochs$"),
    ],
)
def test_with_more_epochs_nothing_else_may_have_another_value(
    tmp_path: Path, paths: dict[str, Any], named: str
) -> None:
    study = begun(tmp_path / "s", GROWING, variants(A))
    with pytest.raises(UserError) as refused:
        Study.create(study.folder, changed(GROWING, **{"train__epochs": 7, **paths}), variants(B), {})
    assert re.search(named, refused.value.problems[0].message)
    assert Study.open(study.folder).spec == GROWING


@pytest.mark.parametrize(
    ("old", "new", "may"),
    [
        ({"variants": {"v": {"block": {"p": 1}}}}, {"variants": {"v": {"block": {"p": 1}}, "w": {}}}, True),
        ({"variants": {"v": {"block": {"p": 1}}}}, {"variants": {"v": {"block": {"p": 1, "q": 2}}}}, False),
        ({"variants": {"v": {"block": None}}}, {"variants": {"v": {"block": {"p": 1}}}}, False),
        ({"variants": {"v": None}}, {"variants": {"v": {"p": 1}}}, False),
        ({"variants": {"v": {"layers": [1]}}}, {"variants": {"v": {"layers": [1, 2]}}}, False),
        ({"components": {"c": {"p": 1}}}, {"components": {"c": {"p": 1}, "d": {"p": 2}}}, True),
        ({"components": {"c": {"p": {}}}}, {"components": {"c": {"p": {"q": 1}}}}, False),
        ({"factors": {"a": {"x": {}}}}, {"factors": {"a": {"x": {}, "y": {"p": 1}}, "b": {"z": {}}}}, True),
        ({"factors": {"a": {"x": {}}}}, {"factors": {"a": {"x": {"p": 1}}}}, False),
        ({"factors": {"a": {"path": "p", "levels": [1]}}}, {"factors": {"a": {"path": "p", "levels": [1, 2]}}}, True),
        ({"factors": {"a": {"path": "p", "levels": [1]}}}, {"factors": {"a": {"path": "q", "levels": [1]}}}, False),
        ({"factors": {"a": {"path": "p", "levels": {"x": {}}}}},
         {"factors": {"a": {"path": "p", "levels": {"x": {"q": 1}}}}}, False),
        ({"baseline": None}, {"baseline": "v"}, False),
        ({}, {"exclude": [{"a": "x"}]}, False),
        ({"zip": [["a", "b"]]}, {"zip": [["a", "b"], ["c", "d"]]}, False),
    ],
)  # fmt: skip
def test_with_more_epochs_names_may_be_added_and_no_recipe_changed(
    tmp_path: Path, old: dict[str, Any], new: dict[str, Any], may: bool
) -> None:
    spec = {"name": "g", "train": {"epochs": 5}, "ablation": {"seeds": 1, **old}}
    study = begun(tmp_path / "s", spec, variants(A))
    longer = {"name": "g", "train": {"epochs": 7}, "ablation": {"seeds": 2, **new}}
    if may:
        assert Study.create(study.folder, longer, variants(B), {}).spec == longer
    else:
        with pytest.raises(UserError, match=r"they differ in ablation\."):
            Study.create(study.folder, longer, variants(B), {})


@pytest.mark.parametrize("grown", [{}, {"ablation__seeds": 3}, {"ablation__factors__a__z": {}}, {"data__root": "/b"}])
def test_other_trials_of_the_same_spec_are_refused(tmp_path: Path, grown: dict[str, Any]) -> None:
    """A block's code has changed, or the data: the old results would vanish from the table."""
    records = [*variants(A, B), *variants(C, name="other")]
    study = begun(tmp_path / "s", GROWING, records)
    files = {path: path.read_bytes() for path in study.folder.iterdir() if path.is_file()}
    more = variants(D, name="new")
    others = [{**records[0], "trials": {"0": A, "1": D}}, records[1], *more]
    with pytest.raises(UserError, match=r"trials of none are others now.*: the code of .*; choose another --out$"):
        Study.create(study.folder, changed(GROWING, **grown), others, {})
    assert {path: path.read_bytes() for path in study.folder.iterdir() if path.is_file()} == files
    assert Study.create(study.folder, changed(GROWING, **grown), [*records, *more], {}).results().keys() == {A}


def test_with_more_epochs_no_variant_may_be_gone(tmp_path: Path) -> None:
    study = begun(tmp_path / "s", GROWING, variants(A))
    with pytest.raises(UserError, match="none is gone"):
        Study.create(study.folder, changed(GROWING, train__epochs=7), variants(B, name="other"), {})


def test_the_spec_that_goes_on_unchanged_is_no_event(study: Study) -> None:
    Study.create(study.folder, SPEC, VARIANTS, {})
    assert names(study.folder) == [
        ".lock", store.CERTIFICATES, store.ENVIRONMENT, store.SPEC, store.TRIALS
    ]  # fmt: skip


def test_the_numerics_of_an_edited_spec_are_kept_since_its_trials_have_them(tmp_path: Path) -> None:
    spec = {**GROWING, "numerics": {"threads": 3}}
    path = Study.create(tmp_path / "s", spec, variants(A), {}).folder / store.SPEC
    path.write_text(path.read_text().replace("lr: 0.1", "lr: 0.2"))
    assert begun_with(tmp_path / "s", GROWING) == {"threads": 3}
    assert Study.create(tmp_path / "s", spec, variants(A), {}).spec == spec
    path.write_text("{")
    assert begun_with(tmp_path / "s", GROWING) is None


def test_the_numerics_are_kept_for_a_study_that_grows(tmp_path: Path) -> None:
    spec = changed(GROWING, execution={"threads": "auto", "retries": 2})
    Study.create(tmp_path / "s", {**spec, "numerics": {"threads": 3}}, variants(A), {})
    for paths in ({}, {"train__epochs": 7}, {"ablation": {}}, {"execution__retries": 0, "execution__budget": "2h"}):
        assert begun_with(tmp_path / "s", changed(spec, **paths)) == {"threads": 3}, paths
    for other in ({"train__lr": 0.2}, {"execution__threads": 2}):
        assert begun_with(tmp_path / "s", changed(spec, **other)) is None
    assert begun_with(tmp_path, spec) is None


@pytest.mark.parametrize(
    ("sampler", "also", "hint"),
    [
        (
            {"name": "gp", "seed": 0},
            {},
            "it was searched by tpe: --sampler tpe goes on with it; or choose another --out",
        ),
        ({"name": "gp"}, {}, "it was searched by tpe: --sampler tpe goes on with it; or choose another --out"),
        ({"name": "tpe", "seed": 1}, {}, "choose another --out"),
        ({"name": "gp", "seed": 0}, {"seed": 1}, "choose another --out"),
        ({"name": "tpe", "seed": 0}, {"pruner": {"name": "asha"}}, "choose another --out"),
    ],
)
def test_a_search_by_another_sampler_says_by_which_it_was(
    tmp_path: Path, sampler: dict[str, Any], also: dict[str, Any], hint: str
) -> None:
    search = {"space": {"train.lr": {"float": [0.1, 0.5]}}, "seed": 0, "sampler": {"name": "tpe", "seed": 0}}
    spec = {"name": "s", "search": search}
    Study.create(tmp_path / "s", spec, [], {})
    with pytest.raises(UserError) as refused:
        Study.create(tmp_path / "s", {**spec, "search": {**search, "sampler": sampler, **also}}, [], {})
    assert refused.value.problems[0].hint == hint
