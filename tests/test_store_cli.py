"""``ablate store``: what is damaged is named, and the index is made anew."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from ablate import store
from ablate.cli import store as command
from ablate.errors import UserError
from ablate.store import Study
from tests.stores import CRASHED, SPEC, VARIANTS, A, B, C, D, flip, rows, train


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study = Study.create(tmp_path / "my study", SPEC, VARIANTS, {})
    with study.hold():
        train(study, A)
        train(study, B, CRASHED)
    return study


def run(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    command.add(parser.add_subparsers())
    options = parser.parse_args([str(argument) for argument in arguments])
    code: int = options.command(options)
    return code


def test_a_sound_study_is_said_to_be(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("store", "verify", study.folder) == 0
    assert capsys.readouterr().out == f"{study.folder}: sound: every file of 2 trials is as it was written\n"


def test_what_is_damaged_is_named_with_its_variant_and_what_trains_it_again(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    train(study, C)
    train(study, D)  # of a study that grew: no trial of it now
    flip(study.trial_folder(C) / store.METRICS)
    flip(study.trial_folder(D) / store.METRICS)
    assert run("store", "verify", study.folder) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"damaged: {C} (every_block, seed 0): metrics.jsonl is not as it was written",
        f"damaged: {D}: metrics.jsonl is not as it was written",
        f"`ablate sweep` of the study's spec with --out '{study.folder}' trains it again",
    ]
    flip(study.trial_folder(A) / store.METRICS)
    (study.folder / store.INDEX).write_bytes(b"none")
    assert run("store", "verify", study.folder) == 1
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"`ablate sweep` of the study's spec with --out '{study.folder}' trains these 2 trials again",
        f"next: ablate store rebuild '{study.folder}'",
    ]


def test_what_a_strangers_study_says_moves_no_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = [{**VARIANTS[0], "name": "n\x1b[2Jone"}]
    study = Study.create(tmp_path / "s\x1b[2J", SPEC, hostile, {})
    train(study, A)
    for harm in (lambda path: None, flip):
        harm(study.trial_folder(A) / store.METRICS)
        (study.folder / store.INDEX).write_bytes(b"none")
        for action in ("verify", "rebuild", "verify"):
            run("store", action, study.folder)
    out = capsys.readouterr().out
    assert "n\ufffd[2Jone" in out
    assert "\x1b" not in out


def test_the_index_is_made_anew(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    (study.folder / store.INDEX).write_bytes(b"none")
    assert run("store", "rebuild", study.folder) == 0
    path = study.folder / store.INDEX
    assert capsys.readouterr().out.splitlines() == [
        f"wrote {path}: 2 trials",
        f"next: ablate store verify '{study.folder}'",
    ]
    assert rows(path, "SELECT hash FROM trials ORDER BY hash") == [(A,), (B,)]
    flip(study.trial_folder(B) / store.METRICS)
    assert run("store", "rebuild", study.folder) == 1
    assert f"damaged: {B} (none, seed 1)" in capsys.readouterr().out


def test_an_index_is_not_taken_from_under_a_sweep(study: Study) -> None:
    with study.hold(), pytest.raises(UserError, match="in use by process"):
        run("store", "rebuild", study.folder)


def test_no_study_is_said_to_be_none(tmp_path: Path) -> None:
    for action in ("verify", "rebuild"):
        with pytest.raises(UserError, match="no study"):
            run("store", action, tmp_path)
