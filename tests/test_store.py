"""The store: what is written is read back, what is damaged is found, and a killed process leaves nothing half done."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate import store
from ablate.errors import UserError
from ablate.store import Study, stamps, study_folder, trials
from tests.stores import CRASHED, RESULT, SPEC, VARIANTS, A, B, C, D, cut, flip, names, train


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.create(tmp_path / "placement", SPEC, VARIANTS, {"torch": "2.6"})


# What is written is read back.


def test_a_study_is_read_back_as_it_was_created(study: Study) -> None:
    found = Study.open(study.folder)
    assert (found.spec, found.variants, found.environment) == (SPEC, VARIANTS, {"torch": "2.6"})
    for name in (store.CERTIFICATES, store.ENVIRONMENT):
        assert json.loads((study.folder / name).read_text())["format"] == store.FORMAT


def test_a_trial_is_read_back_as_it_was_written(study: Study) -> None:
    train(study, A)
    found = Study.open(study.folder)
    result = found.result(A)
    assert result is not None
    assert sorted(result.pop("files")) == sorted([store.TRIAL, store.METRICS, store.PREDICTIONS, store.CHECKPOINT])
    assert result == RESULT
    assert [row["epoch"] for row in found.metrics(A)] == [1, 2, 3]
    predictions = found.predictions(A)
    np.testing.assert_array_equal(predictions["val"], np.arange(7))
    assert predictions["test"].dtype == np.float32
    assert found.results().keys() == {A}
    assert found.damaged == {}
    assert found.result(B) is None
    assert found.metrics(B) == []
    assert found.predictions(B) == {}


json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=7,
)

json_record = st.dictionaries(st.text(), json_value, max_size=3)


@given(metrics=st.dictionaries(st.text(), st.floats(-1e100, 1e100) | st.just(math.inf)), error=st.none() | json_record)
def test_any_result_survives_the_disk(
    tmp_path_factory: pytest.TempPathFactory, metrics: dict[str, float], error: Any
) -> None:
    study = Study(tmp_path_factory.mktemp("study"), {}, [], {})
    study.begin({"hash": D})
    study.finish(D, {**RESULT, "metrics": metrics, "error": error})
    result = study.result(D)
    assert result is not None
    assert (result["metrics"], result["error"]) == (metrics, error)


def test_a_loss_that_is_not_a_number_stays_one(study: Study) -> None:
    study.begin({"hash": A})
    study.append_metrics(A, {"epoch": 1, "train.loss": float("nan")})
    study.finish(A, {**RESULT, "status": "diverged", "metrics": {"train.loss": float("inf")}})
    result = study.result(A)
    assert result is not None
    assert result["metrics"]["train.loss"] == float("inf")
    assert np.isnan(study.metrics(A)[0]["train.loss"])


def test_a_status_that_is_none_is_our_own_bug(study: Study) -> None:
    study.begin({"hash": A})
    with pytest.raises(ValueError, match="'done' is none of finished, pruned, diverged, crashed"):
        study.finish(A, {**RESULT, "status": "done"})


def test_objects_are_no_predictions(study: Study) -> None:
    study.begin({"hash": A})
    with pytest.raises(ValueError, match="pickled"):
        study.save_predictions(A, {"val": np.array([{}])})


def test_readings_of_the_test_split_are_counted_in_order(study: Study) -> None:
    study.expose(by="train", trial=A, variant="none", seed=0, epochs=[5])
    study.expose(by="explain", trial=A, time="2026-01-01T00:00:00+00:00")
    first, second = Study.open(study.folder).exposures()
    assert (first["by"], first["epochs"], second["by"]) == ("train", [5], "explain")
    assert "T" in first["time"]
    assert second["time"] == "2026-01-01T00:00:00+00:00"


# Resuming.


def test_an_interrupted_trial_starts_afresh(study: Study) -> None:
    study.begin({"hash": A})
    study.append_metrics(A, {"epoch": 1})
    folder = study.trial_folder(A)
    (folder / store.CHECKPOINT).write_bytes(b"half way")
    with (folder / store.METRICS).open("a") as file:
        file.write('{"epoch": 1, "tra')
    assert study.metrics(A) == [{"epoch": 1}]
    study.begin({"hash": A})
    assert names(folder) == [store.TRIAL]
    study.append_metrics(A, {"epoch": 1, "again": True})
    study.finish(A, RESULT)
    assert study.metrics(A) == [{"epoch": 1, "again": True}]


def test_a_trial_with_a_result_starts_afresh(study: Study) -> None:
    train(study, A)
    study.begin({"hash": A, "again": True})
    assert names(study.trial_folder(A)) == [store.TRIAL]
    assert study.result(A) is None


def test_what_a_killed_process_had_begun_to_write_is_removed(study: Study) -> None:
    study.begin({"hash": A})
    for folder in (study.folder, study.trial_folder(A)):
        (folder / ".result.json.7-0123abcd.tmp").write_text("{")
        (folder / ".mine.tmp").write_text("no name of ours")
    Study.create(study.folder, SPEC, VARIANTS, {})
    study.begin({"hash": A})
    study.finish(A, RESULT)
    assert names(study.trial_folder(A)) == [".mine.tmp", store.RESULT, store.TRIAL]
    assert [name for name in names(study.folder) if name.endswith(".tmp")] == [".mine.tmp"]


# Damage.


@pytest.mark.parametrize("harm", [flip, cut, lambda path: path.write_bytes(b"")], ids=["flip", "cut", "empty"])
@pytest.mark.parametrize("name", [store.RESULT, store.METRICS, store.PREDICTIONS, store.CHECKPOINT, store.TRIAL])
def test_damage_is_found_and_never_read_as_a_result(study: Study, name: str, harm: Callable[[Path], None]) -> None:
    train(study, A)
    train(study, B)
    harm(study.trial_folder(A) / name)
    found = Study.open(study.folder)
    assert found.result(A) is None
    assert name in found.damaged[A]
    assert found.results().keys() == {B}
    assert found.metrics(A) == []
    assert found.predictions(A) == {}
    train(found, A)
    assert found.damaged == {}
    assert found.results().keys() == {A, B}


def test_every_byte_of_a_result_counts(study: Study) -> None:
    train(study, A)
    path = study.trial_folder(A) / store.RESULT
    whole = path.read_bytes()
    expected = study.result(A)
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert study.result(A) in (None, expected)  # equal: white space turned into other white space


def test_a_result_in_another_trials_folder_is_damage(study: Study) -> None:
    train(study, A)
    study.trial_folder(A).rename(study.trial_folder(B))
    assert study.result(B) is None
    assert "another trial's" in study.damaged[B]


@pytest.mark.parametrize(
    "foreign",
    [
        {"status": "weird"},
        {"status": ["finished"]},
        {"status": None},
        {"files": None},
        {"files": [store.TRIAL]},
        {"files": {store.TRIAL: 7}},
        {"files": {"../../spec.yaml": "0" * 64}},
        {"files": {"notes.txt": "0" * 64}},
        {"files": {store.STATE: "0" * 64}},
        {"metrics": [1.0]},
        {"epochs": "5"},
        {"seconds": {}},
    ],
    ids=str,
)
def test_a_result_that_is_consistent_and_not_ours_is_damage(study: Study, foreign: dict[str, Any]) -> None:
    train(study, A)
    (study.trial_folder(A) / "notes.txt").write_bytes(b"")
    path = study.trial_folder(A) / store.RESULT
    for record in ({**RESULT, "files": {}, **foreign}, {}):
        record = {**record, "trial": A}
        digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
        path.write_text(json.dumps({**record, "checksum": digest}))
        with study.hold():
            assert study.results() == {}
            assert study.states()[A].status == "damaged"
        assert study.result(A) is None
        assert store.RESULT in study.damaged[A]
        assert study.verify().keys() == {A}


def test_what_no_result_vouches_for_is_never_read_as_its_trials(study: Study) -> None:
    study.begin({"hash": A})
    study.finish(A, RESULT)
    assert study.verify() == {}
    study.append_metrics(A, {"epoch": 1})
    study.save_predictions(A, {"val": np.arange(7)})
    study.save_checkpoint(A, b"weights")
    assert study.result(A) is not None
    assert (study.metrics(A), study.predictions(A)) == ([], {})
    with pytest.raises(UserError, match="its result vouches for none"):
        study.weights(A)
    unlisted = (store.METRICS, store.PREDICTIONS, store.CHECKPOINT)
    assert study.verify().keys() == {f"{store.TRIALS}/{A}/{name}" for name in unlisted}


def test_what_is_no_file_of_a_trial_does_not_matter_to_its_result(study: Study) -> None:
    foreign = study.trial_folder(A) / ".nfs0001"
    study.begin({"hash": A})
    foreign.write_bytes(b"open elsewhere")
    study.finish(A, RESULT)
    foreign.unlink()
    assert study.verify() == {}
    assert study.results().keys() == {A}


def test_missing_predictions_are_damage_and_a_missing_checkpoint_is_not(study: Study) -> None:
    train(study, A)
    (study.trial_folder(A) / store.CHECKPOINT).unlink()
    assert study.result(A) is not None
    (study.trial_folder(A) / store.PREDICTIONS).unlink()
    assert study.result(A) is None
    assert "missing" in study.damaged[A]


def test_a_torn_line_of_exposures_spoils_no_other_and_is_told(study: Study) -> None:
    study.expose(by="train")
    with (study.folder / store.EXPOSURES).open("a") as file:
        file.write('{"by": "tr')
    study.expose(by="explain")
    assert [record["by"] for record in study.exposures()] == ["train", "explain"]
    assert "line 2" in study.damaged[store.EXPOSURES]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"variants": []}', '{"format": 1}', "[" * 100_000])
def test_damaged_records_are_an_error_of_the_folder_and_a_resume_writes_them_anew(study: Study, text: str) -> None:
    (study.folder / store.CERTIFICATES).write_text(text)
    with pytest.raises(UserError, match=r"certificates\.json is damaged"):
        Study.open(study.folder)
    Study.create(study.folder, SPEC, VARIANTS, {})
    assert Study.open(study.folder).variants == VARIANTS


@pytest.mark.parametrize("name", [store.CERTIFICATES, store.ENVIRONMENT])
def test_an_altered_record_is_found_though_it_is_json(study: Study, name: str) -> None:
    path = study.folder / name
    path.write_text(path.read_text().replace("none", "some").replace("2.6", "2.7"))
    assert study.verify().keys() == {name}
    with pytest.raises(UserError, match="not as it was written; `ablate sweep` into this folder writes it anew"):
        Study.open(study.folder)
    Study.create(study.folder, SPEC, VARIANTS, {"torch": "2.6"})
    assert Study.open(study.folder).verify() == {}


def test_every_byte_of_a_spec_counts(study: Study) -> None:
    path = study.folder / store.SPEC
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(UserError, match=r"spec\.yaml (was edited, or is damaged|has format)"):
            Study.open(study.folder)


def test_an_edited_spec_is_told_and_written_anew_for_the_same_trials_alone(study: Study) -> None:
    path = study.folder / store.SPEC
    whole = path.read_bytes()
    for edited in (whole.replace(b"lr: 0.1", b"lr: 0.2"), b"\0" + whole[1:]):
        path.write_bytes(edited)
        with pytest.raises(UserError, match=r"spec\.yaml was edited, or is damaged: .*with this folder as --out"):
            Study.open(study.folder)
        assert study.verify() == {store.SPEC: "it is not as it was written"}
        others = [{**VARIANTS[0], "trials": {"0": D}}]
        spec = {**SPEC, "train": {"epochs": 5, "optimizer": {"name": "sgd", "lr": 0.2}}}
        with pytest.raises(UserError, match="this spec's trials are not those of the study; choose another --out"):
            Study.create(study.folder, spec, others, {})
        assert path.read_bytes() == edited
        Study.create(study.folder, SPEC, VARIANTS, {})
        assert path.read_bytes() == whole
        assert Study.open(study.folder).spec == SPEC


def test_a_later_format_is_refused(study: Study) -> None:
    (study.folder / store.CERTIFICATES).write_text(json.dumps({"format": store.FORMAT + 1, "variants": []}))
    with pytest.raises(UserError, match="update ablate"):
        Study.open(study.folder)
    with pytest.raises(UserError, match="update ablate"):
        Study.create(study.folder, SPEC, VARIANTS, {})


# What does not belong.


def test_a_folder_that_is_no_study_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no study: it has no spec\.yaml"):
        Study.open(tmp_path)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"holds 'thesis\.tex'"):
        Study.create(tmp_path, SPEC, VARIANTS, {})
    assert names(tmp_path) == ["thesis.tex"]
    with pytest.raises(UserError, match="Not a directory"):
        Study.create(tmp_path / "thesis.tex", SPEC, VARIANTS, {})


def test_a_create_that_was_killed_before_the_spec_can_be_repeated(study: Study) -> None:
    (study.folder / store.SPEC).unlink()
    (study.folder / ".spec.yaml.7-0123abcd.tmp").write_text("na")
    Study.create(study.folder, SPEC, VARIANTS, {})
    assert Study.open(study.folder).spec == SPEC


HOSTILE = [
    "",
    "..",
    "../../etc",
    "a" * 31,
    "a" * 33,
    "A" * 32,
    "a" * 31 + "/",
    "a" * 32 + "\n",
    "\uff41" * 32,
    "a" * 31 + "\0",
]


@pytest.mark.parametrize("hash", [*HOSTILE, None, 7])
def test_a_hostile_hash_never_becomes_a_path(study: Study, hash: Any) -> None:
    for use in (study.trial_folder, study.result, study.metrics, lambda h: study.begin({"hash": h})):
        with pytest.raises(UserError, match="no trial's hash"):
            use(hash)
    with pytest.raises(UserError, match="'none'"):
        Study.create(study.folder, SPEC, [{"name": "none", "trials": {"0": hash}}], {})


def test_a_link_in_the_place_of_a_trial_is_refused(study: Study, tmp_path: Path) -> None:
    train(study, A)
    (study.folder / store.TRIALS / B).symlink_to(study.trial_folder(A))
    with pytest.raises(UserError, match="is a link"):
        study.begin({"hash": B})
    assert study.results().keys() == {A}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "-rf", "a\n", "a b", "é", "x" * 101, "a\0", None])
def test_a_hostile_name_never_becomes_a_folder(study: Study, name: Any) -> None:
    with pytest.raises(UserError, match="cannot name a folder"):
        study_folder(Path("runs"), name)
    assert study_folder(Path("runs"), "placement-2.b_c") == Path("runs/placement-2.b_c")


@pytest.mark.parametrize("name", ["../spec.yaml", "", ".lock", "a/b"])
def test_a_hostile_name_never_becomes_a_report(study: Study, name: str) -> None:
    with pytest.raises(UserError, match="cannot name a file"):
        study.save_report(name, "")


# Trials of another study.


def test_a_finished_trial_is_adopted_whole(study: Study, tmp_path: Path) -> None:
    train(study, A)
    train(study, B, CRASHED)
    train(study, C)
    flip(study.trial_folder(C) / store.METRICS)
    other = Study.create(tmp_path / "other", SPEC, VARIANTS, {})
    assert [other.adopt(hash, study.folder) for hash in (A, B, C, D)] == [True, False, False, False]
    assert other.results() == {A: study.result(A)}
    assert other.metrics(A) == study.metrics(A)
    assert names(other.trial_folder(A)) == names(study.trial_folder(A))


def test_nothing_is_adopted_from_a_strangers_folder(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(study, A)
    other = Study.create(tmp_path / "other", SPEC, VARIANTS, {})
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    assert not other.adopt(A, study.folder)
    assert other.results() == {}


@pytest.mark.parametrize("open_to_all", [store.TRIALS, f"{store.TRIALS}/{A}", f"{store.TRIALS}/{A}/{store.METRICS}"])
def test_nothing_is_adopted_that_everybody_may_write(study: Study, tmp_path: Path, open_to_all: str) -> None:
    train(study, A)
    other = Study.create(tmp_path / "other", SPEC, VARIANTS, {})
    path = study.folder / open_to_all
    path.chmod(path.stat().st_mode | 0o002)
    assert not other.adopt(A, study.folder)
    path.chmod(path.stat().st_mode & ~0o002)
    assert other.adopt(A, study.folder)


@pytest.mark.parametrize("name", ["", store.TRIAL, store.METRICS, store.PREDICTIONS, store.CHECKPOINT])
def test_a_trial_that_goes_while_it_is_adopted_is_none_and_changes_nothing(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As a cache removes it; by name, as it is damaged."""
    train(study, A)
    other = Study.create(tmp_path / "other", SPEC, VARIANTS, {})
    other.begin({"hash": A})
    other.append_metrics(A, {"epoch": 1})
    other.save_state(A, b"state")
    before = {path.name: path.read_bytes() for path in other.trial_folder(A).iterdir()}
    real = stamps.checked_result

    def overtaken(folder: Path, *rest: Any) -> Any:
        result = real(folder, *rest)
        if name:
            flip(folder / name)
        else:
            folder.rename(folder.with_name(".gone"))
        return result

    monkeypatch.setattr(trials, "checked_result", overtaken)
    assert not other.adopt(A, study.folder)
    assert {path.name: path.read_bytes() for path in other.trial_folder(A).iterdir()} == before


def test_nothing_is_adopted_by_a_trial_that_somebody_works_on(study: Study, tmp_path: Path) -> None:
    train(study, A)
    other = Study.create(tmp_path / "other", SPEC, VARIANTS, {})
    with other.working(A):
        other.begin({"hash": A})
        assert not other.adopt(A, study.folder)
        assert names(other.trial_folder(A)) == [store.LOCK, store.TRIAL]
    assert other.adopt(A, study.folder)
