"""The cache of finished trials: what is taken is what was given, whoever gives, takes and removes at that moment."""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablate import cache as cache_module
from ablate.cache import DAY, Cache, Entry, default_cache
from ablate.cli import cache as command
from ablate.code import code_digest
from ablate.errors import UserError
from ablate.outcomes import FAILED
from ablate.store import CHECKPOINT, METRICS, PREDICTIONS, RESULT, TRIAL, Study

A, B, C = (letter * 32 for letter in "abc")
CODE, OTHER = "1" * 32, "2" * 32
RESULT_OF_A: dict[str, Any] = {
    "status": "finished",
    "metrics": {"val.accuracy": 97.25},
    "epochs": 3,
    "selected_epoch": 2,
    "seconds": 7.5,
    "images_per_second": 1009.0,
    "test_readings": 1,
    "error": None,
}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return study_in(tmp_path / "study")


def study_in(folder: Path) -> Study:
    variants = [{"name": "none", "levels": {}, "baseline": None, "trials": {"0": A, "1": B, "2": C}}]
    return Study.create(folder, {"name": folder.name, "ablation": {"seeds": 3}}, variants, {})


def trained(
    study: Study, hash: str = A, code: str | None = CODE, status: str = "finished", weights: bytes = b"w" * 1009
) -> Study:
    study.begin({"hash": hash, "variant": "none", "seed": 0} | ({"code": code} if code else {}))
    for epoch in range(1, 4):
        study.append_metrics(hash, {"epoch": epoch})
    study.save_predictions(hash, {"val": np.arange(7)})
    study.save_checkpoint(hash, weights)
    study.finish(hash, RESULT_OF_A | {"status": status})
    return study


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def entry_of(cache: Cache, hash: str = A) -> Entry:
    return next(entry for entry in cache.entries() if entry.hash == hash)


def names(cache: Cache) -> str:
    return "".join(entry.hash[0] for entry in cache.entries())


def damage(path: Path) -> None:
    """As a failing disk does it: here alone, whatever shares the file."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content.replace(content[:1], b"?"))


# What is taken is what was given.


def test_a_trial_of_one_study_is_taken_by_another_as_if_it_had_been_trained_there(
    cache: Cache, study: Study, tmp_path: Path
) -> None:
    assert cache.give(trained(study), A)
    shutil.rmtree(study.folder)
    other = study_in(tmp_path / "other")
    assert cache.take(other, A, CODE)
    found = Study.open(other.folder)
    result = found.result(A)
    assert result is not None
    assert RESULT_OF_A.items() <= result.items()
    assert [row["epoch"] for row in found.metrics(A)] == [1, 2, 3]
    np.testing.assert_array_equal(found.predictions(A)["val"], np.arange(7))
    assert found.weights(A).read_bytes() == b"w" * 1009
    assert json.loads((found.trial_folder(A) / TRIAL).read_text())["code"] == CODE
    assert not cache.take(other, B, CODE)
    assert other.result(B) is None


def test_a_trial_is_taken_by_the_code_that_trained_it_only(cache: Cache, study: Study, tmp_path: Path) -> None:
    cache.give(trained(study), A)
    cache.give(trained(study, code=OTHER, weights=b"other"), A)
    for code, weights in ((CODE, b"w" * 1009), (OTHER, b"other")):
        taker = study_in(tmp_path / code)
        assert cache.take(taker, A, code)
        assert taker.weights(A).read_bytes() == weights
    assert not cache.take(study_in(tmp_path / "third"), A, "3" * 32)
    entry = entry_of(cache)
    os.rename(entry.folder.parent.parent, cache.folder / ("3" * 32))
    assert not cache.take(study_in(tmp_path / "third"), A, "3" * 32)


@pytest.mark.parametrize("status", FAILED)
def test_only_what_finished_is_kept(cache: Cache, study: Study, status: str) -> None:
    assert not cache.give(trained(study, status=status), A)
    study.begin({"hash": B, "variant": "none", "seed": 0, "code": CODE})
    assert not cache.give(study, B)
    assert cache.entries() == []


@pytest.mark.parametrize("code", [None, "../../elsewhere", "", "x" * 32])
def test_a_trial_that_names_no_code_is_not_kept(cache: Cache, study: Study, code: str | None) -> None:
    assert not cache.give(trained(study, code=code), A)
    assert not cache.folder.exists()


@pytest.mark.parametrize("name", [TRIAL, METRICS, PREDICTIONS, CHECKPOINT, RESULT])
def test_a_damaged_entry_is_never_taken_and_is_named_and_replaced(
    cache: Cache, study: Study, tmp_path: Path, name: str
) -> None:
    cache.give(trained(study), A)
    cache.give(trained(study, B), B)
    assert cache.verify() == {}
    damage(entry_of(cache).folder / name)
    other = study_in(tmp_path / "other")
    assert not cache.take(other, A, CODE)
    assert other.result(A) is None
    ((named, why),) = cache.verify().items()
    assert named == f"{CODE}/{A}"
    assert name in why
    assert cache.give(study, A)
    assert cache.verify() == {}
    assert cache.take(other, A, CODE)


def test_gc_removes_damaged_entries_and_no_others(cache: Cache, study: Study) -> None:
    for hash in (A, B, C):
        cache.give(trained(study, hash), hash)
    damage(entry_of(cache, B).folder / CHECKPOINT)
    freed = cache.gc()
    assert [entry.hash for entry in freed.removed] == [B]
    assert freed.damaged.keys() == {f"{CODE}/{B}"}
    assert sorted(names(cache)) == ["a", "c"]


# What one side writes never reaches the other.


def test_large_files_are_shared_and_what_a_study_writes_later_changes_no_entry(
    cache: Cache, study: Study, tmp_path: Path
) -> None:
    cache.give(trained(study), A)
    folder, kept = study.trial_folder(A), entry_of(cache).folder
    shared = {name for name in contents(kept) if (kept / name).samefile(folder / name)}
    assert shared == {PREDICTIONS, CHECKPOINT}
    before = contents(kept)
    trained(study, weights=b"another")
    study.append_metrics(A, {"epoch": 99})
    assert contents(kept) == before
    other = study_in(tmp_path / "other")
    assert cache.take(other, A, CODE)
    trained(other, weights=b"a third")
    assert contents(kept) == before
    assert cache.verify() == {}


def test_what_is_removed_from_the_cache_stays_in_the_study(cache: Cache, study: Study) -> None:
    cache.give(trained(study), A)
    before = contents(study.trial_folder(A))
    cache.gc(keep=0)
    assert contents(study.trial_folder(A)) == before
    assert study.result(A) is not None
    assert list(cache.folder.iterdir()) == []


def test_across_file_systems_files_are_copied(cache: Cache, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "link", refuse)
    assert cache.give(trained(study), A)
    entry = entry_of(cache)
    assert contents(entry.folder) == contents(study.trial_folder(A))
    assert entry.shared == 0


def test_a_cache_that_cannot_be_written_keeps_nothing_and_stops_nobody(tmp_path: Path, study: Study) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file")
    assert not cache.give(trained(study), A)
    assert not cache.take(study, A, CODE)
    assert cache.entries() == []
    assert cache.gc().removed == []


# Strangers and links.


def test_what_another_user_owns_is_neither_given_nor_taken(
    cache: Cache, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = study_in(tmp_path / "other")
    cache.give(trained(study), A)
    trained(study, B)
    me = os.geteuid()
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: me + 1)
        assert not cache.give(study, B)
        assert not cache.take(other, A, CODE)
        assert cache.entries() == []
        assert cache.gc(keep=0).removed == []
    assert names(cache) == "a"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("name", ["", RESULT, CHECKPOINT])
def test_a_file_of_another_user_in_ones_own_folder_is_refused(
    cache: Cache, study: Study, tmp_path: Path, name: str
) -> None:
    os.chown(trained(study).trial_folder(A) / name, os.geteuid() + 1, -1)
    assert not cache.give(study, A)
    cache.give(trained(study, B), B)
    os.chown(entry_of(cache, B).folder / name, os.geteuid() + 1, -1)
    assert not cache.take(study_in(tmp_path / "other"), B, CODE)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_nothing_is_taken_through_a_link(cache: Cache, study: Study, tmp_path: Path, depth: int) -> None:
    cache.give(trained(study), A)
    place = [entry_of(cache).folder, *entry_of(cache).folder.parents][depth]
    os.rename(place, tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    assert not cache.take(study_in(tmp_path / "other"), A, CODE)
    assert cache.entries() == []
    cache.gc(keep=0)
    assert len(list((tmp_path / "elsewhere").rglob(RESULT))) == 1


def test_the_folder_itself_may_be_a_link(study: Study, tmp_path: Path) -> None:
    (tmp_path / "roomy").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "roomy")
    assert Cache(tmp_path / "link").give(trained(study), A)
    assert names(Cache(tmp_path / "link")) == "a"


def test_the_environment_names_the_folder_or_turns_the_cache_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    folders = []
    for value in ("", str(tmp_path / "mine"), "off"):
        monkeypatch.setenv("ABLATE_CACHE", value)
        found = default_cache()
        folders.append(found and found.folder)
    assert folders == [tmp_path / "xdg" / "ablate" / "trials", tmp_path / "mine", None]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ABLATE_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="ABLATE_CACHE"):
        default_cache()


# What goes first.


@pytest.fixture
def aged(cache: Cache, study: Study) -> Cache:
    """Three entries that were last used 30, 20 and 10 days ago, and that no study holds."""
    for hash, days in ((B, 30), (C, 20), (A, 10)):
        cache.give(trained(study, hash), hash)
        os.utime(entry_of(cache, hash).folder, (time.time() - days * DAY,) * 2)
    shutil.rmtree(study.folder)
    return cache


def test_the_longest_unused_go_until_the_rest_is_small_enough(aged: Cache) -> None:
    sizes = {entry.hash: entry.own for entry in aged.entries()}
    assert names(aged) == "bca"
    assert aged.gc(keep=sum(sizes.values())).removed == []
    freed = aged.gc(keep=sum(sizes.values()) - 1)
    assert ([entry.hash for entry in freed.removed], freed.bytes) == ([B], sizes[B])
    aged.gc(keep=sizes[A])
    assert names(aged) == "a"


def test_what_is_taken_becomes_the_latest_used(aged: Cache, tmp_path: Path) -> None:
    assert aged.take(study_in(tmp_path / "other"), B, CODE)
    assert names(aged) == "cab"


def test_what_was_not_used_for_so_long_goes(aged: Cache) -> None:
    assert [entry.hash for entry in aged.gc(older=25).removed] == [B]
    assert [entry.hash for entry in aged.gc(older=15).removed] == [C]


def test_what_a_study_holds_too_takes_no_room(cache: Cache, study: Study) -> None:
    cache.give(trained(study, weights=b"w" * 100_003), A)
    entry = entry_of(cache)
    assert entry.shared > 100_003 > entry.own
    assert cache.gc(keep=entry.own).removed == []
    shutil.rmtree(study.folder)
    alone = entry_of(cache)
    assert (alone.own, alone.shared) == (entry.own + entry.shared, 0)
    assert alone.own == sum(map(len, contents(entry.folder).values()))
    assert cache.gc(keep=entry.own).bytes == alone.own


def test_what_a_killed_process_left_goes_after_a_day(cache: Cache, study: Study) -> None:
    cache.give(trained(study), A)
    old, young = (entry_of(cache).folder.with_name(f".{A}.{name}.tmp") for name in ("1-01234567", "1-89abcdef"))
    for folder in (old, young):
        folder.mkdir()
        (folder / CHECKPOINT).write_bytes(b"half")
    os.utime(old, (time.time() - 2 * DAY,) * 2)
    assert names(cache) == "a"
    cache.gc()
    assert (old.exists(), young.exists()) == (False, True)


# Several at once.


def test_an_entry_that_vanishes_while_it_is_read_is_not_taken(
    cache: Cache, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.give(trained(study), A)
    other, adopt = study_in(tmp_path / "other"), Study.adopt
    read = Path.read_bytes

    def vanishing(path: Path) -> bytes:
        if path.name == METRICS and cache.folder in path.parents:
            cache.gc(keep=0)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", vanishing)
    assert not cache.take(other, A, CODE)
    monkeypatch.undo()
    assert other.result(A) is None
    cache.give(study, A)

    def full(self: Study, hash: str, folder: Path) -> bool:
        raise UserError("no space left")

    monkeypatch.setattr(Study, "adopt", full)
    with pytest.raises(UserError, match="no space"):
        cache.take(other, A, CODE)
    monkeypatch.setattr(Study, "adopt", adopt)
    assert cache.take(other, A, CODE)


WORKER = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from ablate.cache import Cache
from tests.test_cache import CODE, study_in, trained

number, folder = int(sys.argv[1]), Path(sys.argv[2])
cache, hashes, took = Cache(folder / "cache"), [digit * 32 for digit in "abc"], 0
giver, taker = (study_in(folder / f"{{what}}{{number}}") for what in ("giver", "taker"))
for hash in hashes:
    trained(giver, hash)
for turn in range(11):
    hash = hashes[(turn + number) % 3]
    cache.give(giver, hash)
    taken = cache.take(taker, hash, CODE)
    took += taken
    result = taker.result(hash)
    assert taken <= (result is not None), taker.damaged
    cache.entries()
    if turn % 4 == number:
        cache.gc(keep=0)
    assert cache.verify() == {{}}, cache.verify()
print(took)
"""


def test_processes_that_give_take_and_remove_at_once_see_whole_entries_or_none(tmp_path: Path) -> None:
    script = WORKER.format(path=sys.path)
    command = [sys.executable, "-c", script]
    workers = [
        subprocess.Popen(
            [*command, str(number), str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for number in range(2)
    ]
    ended = [(worker.communicate(), worker.returncode) for worker in workers]
    assert [code for _, code in ended] == [0, 0], [err for (_, err), _ in ended]
    assert all(int(taken) > 0 for (taken, _), _ in ended)
    assert Cache(tmp_path / "cache").verify() == {}
    assert not list((tmp_path / "cache").rglob("*.tmp"))


# The command.


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    options = parser.parse_args(["cache", *arguments])
    code: int = options.command(options)
    return code


@pytest.fixture
def mine(aged: Cache, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv(cache_module.VARIABLE, str(aged.folder))
    return aged


def test_ls_counts_by_study_and_variant(
    mine: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = study_in(tmp_path / "named")
    study.begin({"hash": A, "variant": "se", "seed": 0, "code": code_digest(), "study": "named"})
    study.save_checkpoint(A, b"w" * 2048)
    study.finish(A, RESULT_OF_A)
    mine.give(study, A)
    assert run("ls", "--json") == 0
    rows = [
        [cell["value"] if isinstance(cell, dict) else cell for cell in row.values()]
        for row in json.loads(capsys.readouterr().out)
    ]
    sizes = [sum(each.own for each in mine.entries() if each.variant == variant) for variant in ("none", "se")]
    assert [row[:6] for row in rows] == [["—", "none", 3, 0, sizes[0], 0], ["named", "se", 1, 1, sizes[1], 2048]]
    assert run("ls") == 0
    out = capsys.readouterr().out
    assert "4 trials" in out
    assert "2 KiB shared with studies" in out
    monkeypatch.setenv(cache_module.VARIABLE, str(tmp_path / "nothing"))
    assert run("ls") == 0
    assert "0 trials, 0 B" in capsys.readouterr().out


def test_verify_names_what_is_damaged_by_exit_code_1(mine: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify") == 0
    assert "3 trials read, 0 damaged" in capsys.readouterr().out
    damage(entry_of(mine, C).folder / CHECKPOINT)
    assert run("verify") == 1
    out = capsys.readouterr().out
    assert f"{CODE}/{C}: {CHECKPOINT}" in out
    assert "1 damaged" in out


def test_gc_says_what_it_freed_and_what_is_left(mine: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    damage(entry_of(mine, C).folder / CHECKPOINT)
    assert run("gc", "--older", "25d") == 0
    out = capsys.readouterr().out
    assert f"damaged: {CODE}/{C}" in out
    assert "removed 2 trials" in out
    assert "left: 1 trial" in out
    assert run("gc", "--keep", "1GiB") == 0
    assert "removed 0 trials, which freed 0 B" in capsys.readouterr().out
    assert run("gc", "--all") == 0
    assert "left: 0 trials" in capsys.readouterr().out
    assert mine.entries() == []


def test_sizes_and_times_need_units_and_a_cache_that_is_off_has_no_commands(
    mine: Cache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for option, value in (("--keep", "10"), ("--older", "soon")):
        with pytest.raises(SystemExit):
            run("gc", option, value)
        assert value in capsys.readouterr().err
    monkeypatch.setenv(cache_module.VARIABLE, "off")
    with pytest.raises(UserError, match="no cache"):
        run("ls")
