"""The store: what is written is read back, what is damaged is found, and a killed process leaves nothing half done."""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate import store
from ablate.errors import UserError
from ablate.store import Study, study_folder
from tests.conftest import fill

SPEC: dict[str, Any] = {
    "name": "placement",
    "train": {"epochs": 5, "optimizer": {"name": "sgd", "lr": 0.1}},
    "ablation": {"seeds": 3, "baseline": {"placement": "none"}},
    "report": {"columns": ["params", "val.accuracy"]},
}
A, B, C, D = (letter * 32 for letter in "abcd")
VARIANTS: list[dict[str, Any]] = [
    {"name": "none", "levels": {"placement": "none"}, "baseline": None, "trials": {"0": A, "1": B}},
    {"name": "every_block", "levels": {"placement": "every_block"}, "baseline": "none", "trials": {"0": C}},
    {"name": "again", "levels": {}, "baseline": "none", "duplicate_of": "every_block", "trials": {"0": C}},
]
RESULT: dict[str, Any] = {
    "status": "finished",
    "metrics": {"val.accuracy": 97.25, "val.loss": 0.125},
    "epochs": 5,
    "selected_epoch": 4,
    "seconds": 7.5,
    "images_per_second": 1009.0,
    "test_readings": 1,
    "error": None,
}
CRASHED = {**RESULT, "status": "crashed", "metrics": {}, "error": {"type": "E", "message": "m", "traceback": "t"}}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.create(tmp_path / "placement", SPEC, VARIANTS, {"torch": "2.6"})


def train(study: Study, hash: str, result: dict[str, Any] = RESULT) -> None:
    """Everything that a trial leaves behind."""
    study.begin({"hash": hash, "variant": "none", "seed": 0})
    for epoch in range(3):
        study.append_metrics(hash, {"epoch": epoch, "train.loss": 1 / (epoch + 1)})
    study.save_predictions(hash, {"val": np.arange(7, dtype=np.int64), "test": np.eye(3, 5, dtype=np.float32)})
    (study.trial_folder(hash) / store.CHECKPOINT).write_bytes(b"weights")
    study.finish(hash, result)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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
    assert [row["epoch"] for row in found.metrics(A)] == [0, 1, 2]
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


@given(metrics=st.dictionaries(st.text(), st.floats(allow_nan=False)), error=json_value)
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
    study.append_metrics(A, {"epoch": 0, "train.loss": float("nan")})
    study.finish(A, {**RESULT, "status": "diverged", "metrics": {"train.loss": float("inf")}})
    result = study.result(A)
    assert result is not None
    assert result["metrics"]["train.loss"] == float("inf")
    assert np.isnan(study.metrics(A)[0]["train.loss"])


def test_a_status_that_is_none_is_our_own_bug(study: Study) -> None:
    study.begin({"hash": A})
    with pytest.raises(ValueError, match="'done' is none of finished, diverged, crashed"):
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
    study.append_metrics(A, {"epoch": 0})
    folder = study.trial_folder(A)
    (folder / store.CHECKPOINT).write_bytes(b"half way")
    with (folder / store.METRICS).open("a") as file:
        file.write('{"epoch": 1, "tra')
    assert study.metrics(A) == [{"epoch": 0}]
    study.begin({"hash": A})
    assert names(folder) == [store.TRIAL]
    study.append_metrics(A, {"epoch": 0, "again": True})
    study.finish(A, RESULT)
    assert study.metrics(A) == [{"epoch": 0, "again": True}]


def test_seeds_can_be_added_and_not_taken_away(tmp_path: Path) -> None:
    for seeds in (2, 3, [0, 1, 2, 7]):
        Study.create(tmp_path / "s", {**SPEC, "ablation": {"seeds": seeds}}, VARIANTS, {})
    with pytest.raises(UserError, match="begun with seed 7 too: seeds can be added, not taken away"):
        Study.create(tmp_path / "s", {**SPEC, "ablation": {"seeds": 3}}, VARIANTS, {})


def test_a_trial_with_a_result_starts_afresh(study: Study) -> None:
    train(study, A)
    study.begin({"hash": A, "again": True})
    assert names(study.trial_folder(A)) == [store.TRIAL]
    assert study.result(A) is None


def test_what_a_killed_process_had_begun_to_write_is_removed(study: Study) -> None:
    study.begin({"hash": A})
    for folder in (study.folder, study.trial_folder(A)):
        (folder / ".result.json.7-abc.tmp").write_text("{")
    Study.create(study.folder, SPEC, VARIANTS, {})
    study.begin({"hash": A})
    study.finish(A, RESULT)
    assert names(study.trial_folder(A)) == [store.RESULT, store.TRIAL]
    assert not [name for name in names(study.folder) if name.endswith(".tmp")]


def test_the_same_spec_resumes_and_brings_the_records_up_to_date(study: Study) -> None:
    train(study, A)
    spec = {**SPEC, "report": {}, "paper": [{"title": "P"}], "ablation": {**SPEC["ablation"], "seeds": 5}}
    resumed = Study.create(study.folder, spec, VARIANTS[:1], {"torch": "2.7"})
    assert resumed.results().keys() == {A}
    found = Study.open(study.folder)
    assert (found.spec, found.variants, found.environment) == (spec, VARIANTS[:1], {"torch": "2.7"})


def test_another_spec_is_refused_and_the_differences_are_named(study: Study) -> None:
    before = (study.folder / store.SPEC).read_bytes()
    optimizer = {"name": "adam", "lr": 0.1, "betas": [0.9, 0.99]}
    other = {**SPEC, "train": {"epochs": 5.0, "optimizer": optimizer}, "data": {"limit": {"train": 7}}}
    with pytest.raises(UserError) as refused:
        Study.create(study.folder, other, VARIANTS, {})
    message = str(refused.value)
    for path in ("train.epochs", "train.optimizer.name", "train.optimizer.betas", "data.limit.train"):
        assert path in message
    assert "optimizer.lr" not in message
    assert "--out" in message
    assert (study.folder / store.SPEC).read_bytes() == before


def test_of_many_differences_five_are_named(study: Study) -> None:
    with pytest.raises(UserError, match=r"x0, x1, x2, x3, x4, … \(7 in all\)"):
        Study.create(study.folder, {**SPEC, **{f"x{i}": i for i in range(7)}}, VARIANTS, {})


def test_true_is_not_one(study: Study) -> None:
    folder = study.folder.parent / "other"
    Study.create(folder, {"a": 1}, [], {})
    with pytest.raises(UserError, match="differ in a"):
        Study.create(folder, {"a": True}, [], {})


# Damage.


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


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
    (study.folder / ".spec.yaml.7-abc.tmp").write_text("na")
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


# The disk refuses.

REFUSALS = {errno.ENOSPC: "no space left", errno.EDQUOT: "no space left", errno.EACCES: "cannot be written"}


def refuse(monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    """From now on ``os.call`` fails; a write puts half of its bytes on the disk first."""
    real = getattr(os, call)

    def failing(file: int, *args: Any) -> Any:
        if call == "write" and len(args[0]) > 1:
            return real(file, bytes(args[0])[: len(args[0]) // 2 + 1]) if len(args[0]) > 40 else _fail(code)
        return _fail(code)

    monkeypatch.setattr(os, call, failing)


def _fail(code: int) -> None:
    raise OSError(code, os.strerror(code))


@pytest.mark.parametrize("code", REFUSALS)
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_refused_write_leaves_what_was_there(
    study: Study, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    train(study, A)
    study.expose(by="train")
    study.save_report("table.md", "old")
    study.begin({"hash": B})
    study.append_metrics(B, {"epoch": 0})
    files = {path: path.read_bytes() for path in study.folder.rglob("*") if path.is_file()}
    with monkeypatch.context() as patched:
        refuse(patched, call, code)
        for write in (
            lambda: study.finish(B, {**RESULT, "error": "x" * 500}),
            lambda: study.save_report("table.md", "new" * 100),
            lambda: study.save_predictions(B, {"val": np.arange(7)}),
        ):
            with pytest.raises(UserError, match=REFUSALS[code]):
                write()
        if call != "replace":
            with pytest.raises(UserError, match=REFUSALS[code]):
                study.expose(by="x" * 500)
    assert {path: path.read_bytes() for path in study.folder.rglob("*") if path.is_file()} == files
    study.finish(B, RESULT)
    assert study.results().keys() == {A, B}


def test_a_really_full_disk_is_told_and_loses_nothing(small_disk: Path) -> None:
    study = Study.create(small_disk / "study", SPEC, VARIANTS, {})
    train(study, A)
    before = names(study.trial_folder(A))
    study.begin({"hash": B})
    rest = small_disk / "rest"
    fill(rest)
    noise = np.random.default_rng(0).integers(0, 256, 100_003, dtype=np.uint8)
    for write in (
        lambda: study.save_predictions(B, {"val": noise}),
        lambda: study.finish(B, {**RESULT, "error": {"traceback": "x" * 100_003}}),
        lambda: study.begin({"hash": C}),
        lambda: study.expose(by="x" * 10_007),
        lambda: study.index(),
        lambda: Study.create(small_disk / "other", SPEC, VARIANTS, {}),
    ):
        with pytest.raises(UserError, match=r"no space left|disk is full|disk I/O error"):
            write()
    assert names(study.trial_folder(A)) == before
    assert names(study.trial_folder(B)) == [store.TRIAL]
    rest.unlink()
    assert Study.open(study.folder).results().keys() == {A}
    study.finish(B, RESULT)
    assert study.results().keys() == {A, B}
    assert study.index().exists()


def test_a_read_only_folder_is_told(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", lambda *_, **__: _fail(errno.EROFS))
    with pytest.raises(UserError, match="cannot be written: Read-only file system"):
        study.save_report("table.md", "x")


# One writer.


def run_python(code: str, *args: str) -> subprocess.Popen[str]:
    """A process to be used as a context manager: its pipes are closed and its end awaited."""
    root = Path(store.__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


HOLDER = """
    import os, sys, time
    from pathlib import Path
    from ablate.store import Study
    with Study.open(Path(sys.argv[1])).hold():
        if "fork" not in sys.argv:
            print(0, flush=True)
        elif os.fork() == 0:
            print(os.getpid(), flush=True)  # the child itself says that it is there
            time.sleep(600)
        sys.stdin.readline()
"""


def test_a_second_sweep_is_told_who_holds_the_study(study: Study) -> None:
    with run_python(HOLDER, str(study.folder)) as holder:
        told(holder)
        with pytest.raises(UserError, match=f"in use by process {holder.pid} "), study.hold():
            pass
        with pytest.raises(UserError, match=f"in use by process {holder.pid} "):
            Study.create(study.folder, SPEC, VARIANTS, {})
        holder.communicate("\n")
    with study.hold():
        pass


def told(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_a_killed_sweep_blocks_no_resume(study: Study, how: str) -> None:
    with run_python(HOLDER, str(study.folder), how) as holder:
        child = int(told(holder))
        try:
            with pytest.raises(UserError, match="in use by"), study.hold():
                pass
            holder.kill()
            holder.wait()
            with study.hold():
                pass
        finally:
            holder.kill()
            if child:
                os.kill(child, signal.SIGKILL)


def test_the_lock_is_given_back_after_an_error_and_bars_the_same_process_twice(study: Study) -> None:
    def fail() -> None:
        with pytest.raises(UserError, match=f"process {os.getpid()}"), study.hold():
            pass
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), study.hold():
        fail()
    with study.hold():
        pass


def test_a_process_killed_while_it_writes_leaves_whole_files(study: Study) -> None:
    """Killed at any moment, every result is there whole, or not at all."""
    writer = run_python(
        """
        import sys
        from pathlib import Path
        from ablate.store import Study
        study = Study.open(Path(sys.argv[1]))
        for number in range(100_000):
            hash = f"{number:032x}"
            study.begin({"hash": hash})
            study.append_metrics(hash, {"epoch": 0, "x": "y" * 5003})
            study.finish(hash, {"status": "finished", "number": number, "x": "y" * 50_021})
            if number == 7:
                print("ready", flush=True)
        """,
        str(study.folder),
    )
    with writer:
        told(writer)
        writer.kill()
    found = Study.open(study.folder)
    results = found.results()
    assert found.damaged == {}
    assert len(results) >= 8
    assert all(int(hash, 16) == result["number"] for hash, result in results.items())


# The index.


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(path)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


def test_the_index_equals_the_folders(study: Study) -> None:
    train(study, A)
    train(study, B, CRASHED)
    train(study, C)
    flip(study.trial_folder(C) / store.PREDICTIONS)
    study.begin({"hash": D})
    (study.folder / store.TRIALS / "notes").mkdir()
    for _ in range(2):  # rebuilt at will
        path = study.index()
        assert rows(path, "SELECT hash, status, epochs, seconds, test_readings, error FROM trials ORDER BY hash") == [
            (A, "finished", 5, 7.5, 1, None),
            (B, "crashed", 5, 7.5, 1, "E: m"),
            (C, "damaged", None, None, None, None),
            (D, "begun", None, None, None, None),
        ]
        assert rows(path, "SELECT * FROM metrics ORDER BY name") == [
            (A, "val.accuracy", 97.25),
            (A, "val.loss", 0.125),
        ]
        assert rows(path, "SELECT name, seed, trial, duplicate_of FROM variants ORDER BY rowid") == [
            ("none", "0", A, None),
            ("none", "1", B, None),
            ("every_block", "0", C, None),
            ("again", "0", C, "every_block"),
        ]
    assert rows(path, "PRAGMA journal_mode") == [("wal",)]


def test_a_damaged_index_is_replaced(study: Study) -> None:
    train(study, A)
    (study.folder / store.INDEX).write_bytes(b"no database" * 1009)
    assert rows(study.index(), "SELECT hash FROM trials") == [(A,)]


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


def test_neither_torch_nor_ray_nor_scipy_is_imported() -> None:
    code = "import sys, ablate.store, ablate.stats, ablate.report; print({'torch', 'ray', 'scipy'} & {*sys.modules})"
    with run_python(code) as process:
        assert process.communicate()[0].strip() == "set()"
