"""The index: fast, remembered, and never believed about a result."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablate import store
from ablate.errors import UserError
from ablate.outcomes import RESULTS, STATES
from ablate.store import Study, TrialState, index
from ablate.store.stamps import settled
from tests.conftest import fill
from tests.stores import CRASHED, RESULT, SPEC, VARIANTS, A, B, C, D, cut, flip, names, rows, run_python, told, train


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.create(tmp_path / "placement", SPEC, VARIANTS, {"torch": "2.6"})


# The index.


def test_the_index_equals_the_folders(study: Study) -> None:
    train(study, A)
    train(study, B, CRASHED)
    train(study, C)
    flip(study.trial_folder(C) / store.PREDICTIONS)
    study.begin({"hash": D})
    (study.folder / store.TRIALS / "notes").mkdir()
    for _ in range(2):  # rebuilt at will
        path = study.rebuild()
        assert rows(path, "SELECT hash, status, attempts, epochs, seconds, error FROM trials ORDER BY hash") == [
            (A, "finished", 1, 5, 7.5, None),
            (B, "crashed", 1, 5, 7.5, "E: m"),
            (C, "damaged", 0, 0, None, "predictions.npz is not as it was written"),
            (D, "begun", 1, 0, None, None),
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
    assert rows(study.rebuild(), "SELECT hash FROM trials") == [(A,)]


# What it spares.


@pytest.fixture
def digests(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are hashed from now on."""
    hashed: list[str] = []
    real = hashlib.file_digest

    def noted(file: Any, how: str) -> Any:
        hashed.append(Path(file.name).name)
        return real(file, how)

    monkeypatch.setattr(hashlib, "file_digest", noted)
    return hashed


def swept(study: Study) -> Study:
    """Two trials ended while the study was held; as another process sees them."""
    with study.hold():
        train(study, A)
        train(study, B, CRASHED)
    return Study.open(study.folder)


def test_what_has_not_changed_is_not_read_again(
    study: Study, digests: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = swept(study)
    digests.clear()
    assert found.results().keys() == {A, B}
    assert digests == []
    path = study.trial_folder(A) / store.PREDICTIONS
    os.utime(path)
    assert found.results().keys() == {A, B}
    assert digests == [store.PREDICTIONS]
    with found.hold(), monkeypatch.context() as later:
        later.setattr("time.time_ns", lambda: path.stat().st_ctime_ns + 10**9)
        found.results()
    digests.clear()
    assert found.results([A]).keys() == {A}
    assert digests == []
    assert found.result(A) is not None
    assert sorted(digests) == sorted([store.TRIAL, store.METRICS, store.PREDICTIONS, store.CHECKPOINT])


def test_a_change_is_found_though_size_and_time_are_as_before(study: Study) -> None:
    found = swept(study)
    path = study.trial_folder(A) / store.METRICS
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert found.results().keys() == {B}
    assert "metrics.jsonl is not as it was written" in found.damaged[A]


def test_a_stamp_of_just_now_is_not_remembered(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two changes within a tick of the file system's clock have one stamp."""
    monkeypatch.setattr("time.time_ns", lambda: 0)
    swept(study)
    assert {hash: row.stamps for hash, row in index.read(study.folder).items()} == {A: {}, B: {}}
    assert not settled((7, 1, 2 * 10**9, 3), 2 * 10**9)
    assert settled((7, 1, 2 * 10**9, 3), 3 * 10**9)


def test_states_of_what_has_not_changed_come_from_the_index_alone(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = swept(study)
    expected = found.states()
    (study.folder / store.INDEX).rename(study.folder.parent / "index")
    assert found.states() == expected
    (study.folder.parent / "index").rename(study.folder / store.INDEX)
    monkeypatch.setattr("ablate.store.survey.checked_result", lambda *_: 1 / 0)
    assert found.states() == expected
    flip(study.trial_folder(A) / store.METRICS)
    with pytest.raises(ZeroDivisionError):
        found.states()


# States.


def test_each_trial_is_in_its_state(study: Study) -> None:
    hashes = [f"{number:032x}" for number in range(len(RESULTS) + 4)]
    trials = {str(seed): hash for seed, hash in enumerate(hashes)}
    records = [{"name": "v", "levels": {}, "baseline": None, "trials": trials}]
    study = Study.create(study.folder.parent / "s", SPEC, records, {})
    with study.hold():
        for hash, status in zip(hashes, RESULTS, strict=False):
            study.begin({"hash": hash, "attempt": 3})
            study.save_predictions(hash, {"val": np.arange(7)})
            study.finish(hash, {**CRASHED, "status": status, "attempts": 3})
        damaged, cut_off, unwritten, waiting = hashes[len(RESULTS) :]
        train(study, damaged)
        flip(study.trial_folder(damaged) / store.PREDICTIONS)
        study.note_begun(cut_off, 2)
        study.begin({"hash": cut_off, "attempt": 2})
        study.append_metrics(cut_off, {"epoch": 1})
        study.note_begun(unwritten, 4)  # its worker died first
        held = study.states()
        assert Study.open(study.folder).states() == held
    assert list(held) == hashes
    for hash, status in zip(hashes, RESULTS, strict=False):
        assert held[hash] == TrialState(hash, status, 3, 5, 7.5, 1009.0, "E: m")
    states = study.states()
    assert states[damaged] == TrialState(damaged, "damaged", error="predictions.npz is not as it was written")
    assert study.damaged.keys() == {damaged}
    assert states[cut_off] == TrialState(cut_off, "interrupted", attempts=2, epochs=1)
    assert states[unwritten] == TrialState(unwritten, "interrupted", attempts=4)
    assert states[waiting] == TrialState(waiting, "waiting")
    assert [held[hash].status for hash in (cut_off, unwritten, waiting)] == ["running", "running", "waiting"]
    assert {state.status for state in (*states.values(), *held.values())} == set(STATES)


def test_a_trial_that_began_again_is_not_in_the_state_of_its_former_result(study: Study) -> None:
    found = swept(study)
    study.begin({"hash": B, "attempt": 2})
    assert found.states()[B] == TrialState(B, "interrupted", attempts=2)


def test_a_trial_that_begins_while_it_is_read_is_not_damaged(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    train(study, A)
    real = hashlib.file_digest

    def overtaken(file: Any, how: str) -> Any:
        study.begin({"hash": A})
        return real(file, how)

    monkeypatch.setattr(hashlib, "file_digest", overtaken)
    found = Study.open(study.folder)
    assert found.result(A) is None
    assert found.damaged == {}
    assert found.states()[A].status == "interrupted"
    assert found.damaged == {}


# Where the index is no help.


def truth(study: Study) -> dict[str, TrialState]:
    """What the folders say, read without any index."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(index, "read", lambda _: {})
        return Study.open(study.folder).states()


def lie(study: Study) -> None:
    with closing(sqlite3.connect(study.folder / store.INDEX)) as database, database:
        database.execute("UPDATE trials SET status = 'finished', error = NULL")


def test_an_index_that_lies_is_not_believed_about_a_result(study: Study) -> None:
    found = swept(study)
    lie(study)
    assert {hash: result["status"] for hash, result in found.results().items()} == {A: "finished", B: "crashed"}
    assert found.verify() == {store.INDEX: f"it says of {B} what its result does not"}
    found.rebuild()
    assert found.verify() == {}
    assert found.states() == truth(study)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(b"no database" * 1009)


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def worn(path: Path) -> None:
    """Its pages are damaged, and its head is sound."""
    data = path.read_bytes()
    path.write_bytes(data[:4096] + bytes(len(data) - 4096))


def of_format_1(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE trials (hash TEXT PRIMARY KEY, status TEXT, epochs INTEGER)")
        database.execute(f"INSERT INTO trials VALUES ('{A}', 'begun', 7)")


def with_stamps(text: str) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE trials SET stamps = ?", (text,))

    return harm


unreadable_rows = with_stamps("{")
NO_STAMPS = [with_stamps(text) for text in ("[]", "7", '{"\\u0000": [1, 2, 3, 4]}')]


@pytest.mark.parametrize("harm", [Path.unlink, empty, garbage, torn, worn, of_format_1, unreadable_rows, *NO_STAMPS])
def test_without_a_sound_index_everything_works_and_who_holds_the_study_makes_it_anew(
    study: Study, harm: Callable[[Path], None]
) -> None:
    found = swept(study)
    expected = truth(study)
    harm(study.folder / store.INDEX)
    before = (names(study.folder), found.states(), found.results().keys())
    assert before == (names(study.folder), expected, {A, B})
    with found.hold():
        assert found.results().keys() == {A, B}
        train(found, C)
    assert found.states() == truth(study)
    assert index.check(study.folder).keys() == {A, B, C}
    assert found.verify() == {}


@pytest.mark.parametrize("harm", [garbage, torn, worn])
def test_an_index_that_is_damaged_while_it_is_held_is_made_anew(study: Study, harm: Callable[[Path], None]) -> None:
    swept(study)
    harm(study.folder / store.INDEX)
    with study.hold():
        study.finish(C, RESULT)  # without having read a row
    assert study.states() == truth(study)
    assert index.check(study.folder).keys() == {A, B, C}


def test_a_folder_in_the_place_of_the_index_hinders_nothing_but_rebuilding_it(study: Study) -> None:
    (study.folder / store.INDEX).mkdir()
    found = swept(study)
    assert found.results().keys() == {A, B}
    assert found.states()[B].status == "crashed"
    with pytest.raises(UserError, match=r"cannot write"):
        found.rebuild()


def test_a_study_that_must_not_be_written_is_read(small_disk: Path) -> None:
    study = Study.create(small_disk / "study", SPEC, VARIANTS, {})
    swept(study)
    expected = study.states()
    with run_python(KILLED, str(study.folder)) as process:
        told(process)
        process.kill()
    assert (study.folder / "trials.sqlite-wal").stat().st_size > 0
    for leave in ((), ("trials.sqlite-shm",), ("trials.sqlite-wal",), (store.INDEX,)):
        for name in leave:
            (study.folder / name).unlink(missing_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        found = Study.open(study.folder)
        assert found.states() | {C: expected[C]} == expected
        assert found.states()[C].status == "finished"
        assert found.results().keys() == {A, B, C}
        assert found.verify() == {}
        assert found.in_use() is None
        with pytest.raises(UserError, match="cannot be written"), found.hold():
            pass
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)


KILLED = f"""
    import sys
    from pathlib import Path
    from ablate.store import Study
    study = Study.open(Path(sys.argv[1]))
    with study.hold():
        study.begin({{"hash": "{C}"}})
        study.note_begun("{C}", 1)
        study.finish("{C}", {RESULT})
        print(flush=True)
        sys.stdin.readline()
"""


def test_what_a_killed_sweep_had_indexed_is_there_and_goes_on(study: Study) -> None:
    swept(study)
    with run_python(KILLED, str(study.folder)) as process:
        told(process)
        assert Study.open(study.folder).states() == truth(study)  # while it is written
        process.kill()
    assert index.check(study.folder)[C].state.status == "finished"
    with study.hold():
        study.note_begun(D, 1)
    assert index.check(study.folder).keys() == {A, B, C, D}
    assert study.states() == truth(study)


def test_a_child_of_the_one_who_holds_the_study_does_not_write_its_index(study: Study) -> None:
    with study.hold():
        study.note_begun(A, 1)
        child = os.fork()
        if child == 0:
            study.note_begun(B, 1)
            os._exit(0)
        os.waitpid(child, 0)
    assert index.check(study.folder).keys() == {A}


def note_many(study: Study) -> None:
    for number in range(1009):
        study.note_begun(f"{number:032x}", 1)


def test_a_full_disk_stops_who_holds_the_study_and_the_index_is_sound(small_disk: Path) -> None:
    study = Study.create(small_disk / "study", SPEC, VARIANTS, {})
    with study.hold():
        train(study, A)
        fill(small_disk / "rest")
        with pytest.raises(UserError, match="no space left"):
            note_many(study)
        (small_disk / "rest").unlink()
        train(study, B)
    assert study.states() == truth(study)
    assert study.verify() == {}


@pytest.mark.parametrize("there", [False, True])
def test_an_index_that_found_no_room_is_written_when_there_is_some(small_disk: Path, there: bool) -> None:
    study = Study.create(small_disk / "study", SPEC, VARIANTS, {})
    if there:
        study.rebuild()
    with study.hold():
        fill(small_disk / "rest")
        with pytest.raises(UserError, match="no space left"):
            study.note_begun(A, 1)
        (small_disk / "rest").unlink()
        study.note_begun(A, 1)
    assert index.check(study.folder).keys() == {A}


# Formats.


def test_a_study_of_format_1_is_read_and_goes_on_as_one_of_this_format(study: Study) -> None:
    train(study, A)
    for name in (store.CERTIFICATES, store.ENVIRONMENT):
        record = json.loads((study.folder / name).read_text())
        del record["checksum"]
        (study.folder / name).write_text(json.dumps({**record, "format": 1}))
    spec = study.folder / store.SPEC
    spec.write_text("# ablate study, format 1\n" + spec.read_text().partition("\n")[2])
    study.rebuild()
    of_format_1(study.folder / store.INDEX)
    found = Study.open(study.folder)
    assert found.results().keys() == {A}
    assert found.states()[A].status == "finished"
    assert found.verify().keys() == {store.INDEX}
    found = Study.create(study.folder, SPEC, VARIANTS, {})
    assert spec.read_text().startswith(f"# ablate study, format {store.FORMAT}, sha256 ")
    assert all("checksum" in (study.folder / name).read_text() for name in (store.CERTIFICATES, store.ENVIRONMENT))
    with found.hold():
        assert found.results().keys() == {A}
    assert index.check(study.folder).keys() == {A}


def test_an_index_of_an_earlier_format_is_made_anew_though_its_columns_are_those_of_today(study: Study) -> None:
    swept(study)
    with closing(sqlite3.connect(study.folder / store.INDEX)) as database:
        database.execute("PRAGMA user_version = 1")
    lie(study)
    assert study.states() == truth(study)
    with study.hold():
        assert study.states() == truth(study)


def later_spec(study: Study) -> None:
    path = study.folder / store.SPEC
    path.write_text(path.read_text().replace(f"format {store.FORMAT}", f"format {store.FORMAT + 1}"))


def later_index(study: Study) -> None:
    study.rebuild()
    with closing(sqlite3.connect(study.folder / store.INDEX)) as database:
        database.execute(f"PRAGMA user_version = {store.FORMAT + 1}")


def later_record(study: Study) -> None:
    (study.folder / store.ENVIRONMENT).write_text(json.dumps({"format": store.FORMAT + 1}))


@pytest.mark.parametrize("later", [later_spec, later_index, later_record])
def test_a_study_of_a_later_format_is_refused_whatever_says_so(study: Study, later: Callable[[Study], None]) -> None:
    later(study)
    files = {path: path.read_bytes() for path in study.folder.iterdir() if path.is_file()}
    uses: list[Callable[[], Any]] = [
        lambda: Study.open(study.folder),
        lambda: Study.create(study.folder, SPEC, VARIANTS, {}),
    ]
    if later is later_index:
        uses += [study.states, study.results]
    for use in uses:
        with pytest.raises(UserError, match=f"has format {store.FORMAT + 1}, and this ablate reads up to"):
            use()
    assert {path: path.read_bytes() for path in study.folder.iterdir() if path.is_file()} == files


# Verifying.


def test_every_file_is_read_whatever_the_index_remembers(study: Study, digests: list[str]) -> None:
    found = swept(study)
    digests.clear()
    assert found.verify() == {}
    assert len(digests) == 8


def test_everything_that_is_damaged_is_named(study: Study) -> None:
    swept(study)
    train(study, C)
    flip(study.trial_folder(A) / store.CHECKPOINT)
    cut(study.trial_folder(C) / store.RESULT)
    study.finish(B, {**RESULT, "status": "lost"})
    study.save_state(B, b"state")
    flip(study.trial_folder(B) / store.STATE)
    study.begin({"hash": D})
    (study.trial_folder(D) / store.METRICS).write_text('{"epoch": 1}\n{"ep\n{"epoch": 3}\n')
    cut(study.trial_folder(D) / store.TRIAL)
    study.expose(by="x")
    cut(study.folder / store.EXPOSURES)
    garbage(study.folder / store.INDEX)
    damaged = study.verify()
    assert damaged.keys() == {
        A,
        C,
        f"trials/{B}/{store.STATE}",
        f"trials/{D}/{store.METRICS}",
        f"trials/{D}/{store.TRIAL}",
        store.EXPOSURES,
        store.INDEX,
    }
    assert damaged[A] == "checkpoint.pt is not as it was written"
    assert damaged[f"trials/{D}/{store.METRICS}"] == "metrics.jsonl: line 2 is not JSON"
    assert study.damaged == damaged
