"""What `ablate status` says of a study's trials, and what another sweep would do about them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ablate.cli import main
from ablate.outcomes import DONE, FAILED, RESULTS, STATES
from ablate.report.render import render
from ablate.status import ORDER, Status, sentence, status, trained_by
from ablate.store import RESULT, Study

ERRORS = {
    "crashed": {"type": "ValueError", "message": "3 channels\x1b[31m", "traceback": "Traceback …"},
    "out_of_memory": {"type": "OutOfMemoryError", "message": "tried to allocate 2 GiB", "traceback": ""},
    "timed_out": {"type": "timed_out", "message": "not done within 60 s", "traceback": ""},
    "lost": {"type": "lost", "message": "its worker died", "traceback": ""},
}
SPEC = {"name": "placement", "train": {"epochs": 7}}


def result(state: str, attempts: int = 1) -> dict[str, Any]:
    done = {"epochs": 5, "selected_epoch": 5, "seconds": 61.5, "images_per_second": 1009.0, "test_readings": 0}
    return {**done, "status": state, "metrics": {}, "error": ERRORS.get(state), "attempts": attempts}


def make(folder: Path, *states: str, **more: list[str]) -> Study:
    """A study of a variant whose seeds have these states, and perhaps of others."""
    named = {"none": [*states], **more}
    hashes = {name: [f"{100 * i + j:032x}" for j in range(len(s))] for i, (name, s) in enumerate(named.items())}
    variants = [{"name": name, "trials": {str(seed): hash for seed, hash in enumerate(hashes[name])}} for name in named]
    study = Study.create(folder / "placement", SPEC, variants, {})
    with study.hold():
        for name, wanted in named.items():
            for seed, (hash, state) in enumerate(zip(hashes[name], wanted, strict=True)):
                if state != "waiting":
                    study.begin({"hash": hash, "variant": name, "seed": seed, "attempt": 2})
                    study.append_metrics(hash, {"epoch": 1, "train.loss": 2.5})
                if state in RESULTS or state == "damaged":
                    study.finish(hash, result("finished" if state == "damaged" else state, attempts=2))
                if state == "damaged":
                    (study.trial_folder(hash) / "metrics.jsonl").write_text("")
    return study


def texts(found: Status, column: str) -> list[str]:
    return [cell.text for cell in found.table().column(column)]


def test_every_state_has_its_row_and_the_worst_come_first(tmp_path: Path) -> None:
    study = make(tmp_path, "finished", "waiting", "interrupted", "damaged", *reversed(FAILED))
    found = status(study)
    states = [*FAILED, "damaged", "interrupted", "waiting"]
    assert texts(found, "state") == states
    assert texts(found, "seed") == ["8", "7", "6", "5", "4", "3", "2", "1"]
    assert found.counts == dict.fromkeys(["finished", *states], 1)
    assert list(found.counts) == [state for state in STATES if state not in ("running", "pruned")]
    assert texts(found, "attempts") == ["2"] * 5 + ["0", "2", ""]
    assert texts(found, "epochs") == ["5/7"] * 5 + ["0/7", "1/7", ""]
    reasons = dict(zip(states, texts(found, "reason"), strict=True))
    assert reasons["crashed"] == "ValueError: 3 channels\x1b[31m"
    assert reasons["timed_out"] == "not done within 60 s"
    assert reasons["lost"] == "its worker died"
    assert reasons["damaged"] == "metrics.jsonl is not as it was written"
    assert "\x1b" not in render(found.table(), "terminal")
    assert {*ORDER} == {*STATES} - {*DONE}


def test_what_another_sweep_does_is_said_of_every_state(tmp_path: Path) -> None:
    found = status(make(tmp_path, "waiting", "interrupted", "damaged", *FAILED))
    assert found.table().footnotes == (
        "`ablate sweep` again trains 4: 1 lost, 1 interrupted, 1 waiting, 1 damaged.",
        "What is lost or interrupted goes on from its checkpoint, where it has one.",
        "Only `ablate sweep --retry-failed` repeats 4: 1 diverged, 1 crashed, 1 out_of_memory, 1 timed_out.",
        "What timed out is repeated too when `execution.trial_timeout` is longer.",
    )
    assert trained_by("crashed") == "--retry-failed"
    assert status(make(tmp_path / "sound", "finished", "waiting")).table().footnotes == (
        "`ablate sweep` again trains 1: 1 waiting.",
    )


def test_a_traceback_is_named_once_for_all_that_crashed_alike(tmp_path: Path) -> None:
    study = make(tmp_path, "crashed", "crashed", "diverged")
    notes = [cell.note for cell in status(study).table().column("reason")]
    path = study.trial_folder(study.variants[0]["trials"]["0"]) / RESULT
    assert notes == ["", f"traceback: {path}", f"traceback: {path}"]
    assert json.loads(path.read_text())["error"]["traceback"]


def test_a_trial_that_two_variants_share_is_one(tmp_path: Path) -> None:
    study = make(tmp_path, "crashed", "finished")
    study.variants.append({"name": "twin", "trials": dict(study.variants[0]["trials"])})
    found = status(study)
    assert found.counts == {"finished": 1, "crashed": 1}
    assert texts(found, "variant") == ["none (= twin)"]


def test_a_study_at_work_says_by_whom(tmp_path: Path) -> None:
    study = make(tmp_path, "interrupted", "waiting", "diverged")
    with study.hold():
        found = status(Study.open(study.folder))
        assert texts(found, "state") == ["diverged", "running", "waiting"]
        assert f". In use by {study.in_use()}." in found.table().caption
    assert found.table().footnotes == ("Only `ablate sweep --retry-failed` repeats 1: 1 diverged.",)
    assert [trial["trained_by"] for trial in found.as_dict()["trials"]] == ["--retry-failed", None, "sweep"]


@pytest.mark.parametrize(("states", "code"), [(["finished"] * 2, 0), (["finished", "lost"], 1), (["waiting"], 1)])
def test_the_exit_code_says_whether_all_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], states: list[str], code: int
) -> None:
    study = make(tmp_path, *states)
    assert main(["status", str(study.folder)]) == code
    shown = capsys.readouterr()
    assert sentence(status(study).counts) in shown.out
    assert shown.err == ("next: ablate sweep SPEC\n" if code else f"next: ablate report {study.folder}\n")
    assert main(["status", str(study.folder), "--json"]) == code
    told = json.loads(capsys.readouterr().out)
    assert sum(told["counts"].values()) == len(states)
    assert [trial["state"] for trial in told["trials"]] == [state for state in states if state != "finished"]


def test_what_waits_is_cut_in_the_terminal_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = make(tmp_path, "crashed", *["waiting"] * 53)
    main(["status", str(study.folder)])
    assert "… 33 more" in capsys.readouterr().out
    main(["status", str(study.folder), "--format", "csv"])
    assert capsys.readouterr().out.count(",waiting,") == 53


def test_it_imports_neither_torch_nor_ray(tmp_path: Path) -> None:
    study = make(tmp_path, "finished", "crashed")
    code = (
        "import sys; from ablate.cli import main; codes = [main(['status', sys.argv[1]]), "
        "main(['watch', sys.argv[1], '--once'])]; print(codes, {'torch', 'ray', 'scipy', 'optuna'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(study.folder)], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[1, 0] set()"
