"""Trackers beside a sweep: they hold nothing up, are warned of once, and what they lack is sent later."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from ablate import tracking
from ablate.cli import main
from ablate.errors import UserError
from ablate.store import Study, Trackers
from ablate.tracking import Sender, StudyView, Target, parse, tracked
from ablate.tracking.following import Task, follow
from ablate.tracking.recipe import recipe_of
from ablate.tracking.targets import reason, without_secrets
from tests.installed import install
from tests.trackers import database, held, no_server, of_trials, rows_of, study, swept, tables, trained

__all__ = ["database", "study", "tables", "trained"]

PACKAGE = """\
import json
from pathlib import Path


class Lines:
    def __init__(self, target):
        self.target = target

    def sync(self, study, memory):
        with Path(self.target).open("a") as file:
            for trial in study.trials:
                if memory.get(trial.hash) != trial.version:
                    file.write(json.dumps([trial.name, trial.status, len(trial.epochs)]) + "\\n")
                    memory[trial.hash] = trial.version


class Never(Lines):
    def sync(self, study, memory):
        import time
        time.sleep(3600)
"""


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a tracker that another package brings: ``--track lines=FILE``."""
    entry_points = {"ablate.loggers": {"lines": "acme_lines:Lines", "never": "acme_lines:Never"}}
    install(tmp_path / "site", "acme-lines", entry_points, {"acme_lines": PACKAGE})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path / "lines.jsonl"


class Failing:
    """A tracker that is down."""

    target = "nowhere"

    def __init__(self, target: str = "") -> None:
        self.asked = 0

    def sync(self, study: StudyView, memory: dict[str, Any]) -> None:
        self.asked += 1
        raise ConnectionError("down")


class After:
    """A sweep that ends after so many looks."""

    def __init__(self, looks: int, then: Callable[[], object] = lambda: None) -> None:
        self.looks, self.then = looks, then

    def within(self, seconds: float) -> bool:
        self.looks -= 1
        self.then()
        return self.looks < 0


def followed(study: Study, tracker: Any, ended: After) -> tuple[int, list[tuple[str, str]]]:
    said: list[tuple[str, str]] = []
    task = Task(study.folder, Target("lines"), os.getpid(), 10.0)
    return follow(task, tracker, ended, lambda kind, text: said.append((kind, text))), said


def test_a_tracker_that_is_down_is_warned_of_once_and_asked_again(study: Study) -> None:
    tracker = Failing()
    code, said = followed(study, tracker, After(5))
    assert (code, tracker.asked) == (1, 6)
    assert said == [("warning", "ConnectionError: down"), ("unsent", "ConnectionError: down")]


def test_a_tracker_is_asked_only_when_something_happened(study: Study) -> None:
    asked = []

    class Counting(Failing):
        def sync(self, study: StudyView, memory: dict[str, Any]) -> None:
            asked.append(study.state)

    code, said = followed(study, Counting(), After(9))
    assert (code, said, len(asked)) == (0, [], 2)  # at first, and at the end


def test_what_a_tracker_remembered_before_it_failed_is_kept(study: Study) -> None:
    class Half(Failing):
        def sync(self, study: StudyView, memory: dict[str, Any]) -> None:
            memory["sent"] = memory.get("sent", 0) + 1
            raise ConnectionError("down")

    followed(study, Half(), After(2))
    assert Trackers(study.folder).memory("lines", "nowhere") == {"sent": 3}


@pytest.mark.parametrize("kind", ["refuses", "fails", "hangs"])
def test_a_sweep_beside_a_server_that_is_none_loses_nothing(
    kind: str,
    trained: Path,
    tmp_path: Path,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ABLATE_TRACK_WAIT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with no_server(kind) as address:
        said = ""
        with tracked(tmp_path / "tiny", [f"mlflow={address.replace('//', '//user:hunter2@')}"]):
            study = swept(tmp_path / "tiny")
            while "warning" not in said:  # the test's own time limit ends what never comes
                sleep(0.05)
                said += capfd.readouterr().err
        said += capfd.readouterr().err
    (warning,) = [line for line in said.splitlines() if line.startswith("warning")]
    assert f"mlflow={address}" in warning
    assert f"next: ablate track sync {study.folder} --to mlflow={address}" in said
    assert "hunter2" not in said
    assert not [path for path in study.folder.rglob("*.json*") if "hunter2" in path.read_text()]
    assert study.results().keys() == Study.open(trained).results().keys()  # of the same trials, tracked or not
    assert main(["track", "sync", str(study.folder), "--to", f"mlflow={database}"]) == 0
    runs = of_trials(held(database))
    assert len(runs) == 6
    for hash, run in runs.items():
        assert rows_of(run, study, hash) == study.metrics(hash)


def test_a_sweep_is_shown_while_it_runs(tmp_path: Path, lines: Path) -> None:
    with tracked(tmp_path / "tiny", [f"lines={lines}"]):
        swept(tmp_path / "tiny")
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    names = [f"{variant}/seed-{seed}" for variant in ("none", "se", "between") for seed in (0, 1)]
    assert sorted(name for name, status, epochs in told if (status, epochs) == ("finished", 2)) == sorted(names)


def test_a_tracker_that_hangs_is_left_behind(
    study: Study, lines: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ABLATE_TRACK_WAIT", "0.5")
    with tracked(study.folder, ["never=there"]):
        pass
    assert "not all was sent to never=there: no answer within 0.5 seconds" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["mlfow", "tensorbord=logs"])
def test_a_tracker_that_is_none_is_named_before_anything_is_done(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"did you mean '(mlflow|tensorboard)'"), tracked(tmp_path / "s", [name]):
        raise AssertionError


@pytest.mark.parametrize(
    ("text", "lacking", "message"),
    [
        ("mlflow", "mlflow", "--track mlflow: mlflow is not installed; pip install 'ablate-harness[mlflow]'"),
        ("mlflow=sqlite:///a.db", "alembic", "alembic is not installed; pip install 'ablate-harness[mlflow]'"),
        ("tensorboard", "tensorboard", "tensorboard is not installed; pip install 'ablate-harness[tensorboard]'"),
    ],
)
def test_what_is_not_installed_is_named_with_how_to_install_it(
    text: str, lacking: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.util import find_spec

    monkeypatch.setattr("ablate.tracking.targets.find_spec", lambda name: None if name == lacking else find_spec(name))
    with pytest.raises(UserError) as raised:
        parse([text])
    assert message in str(raised.value)


def test_a_search_names_a_wrong_tracker_too(tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("space: {train.optimizer.lr: {choice: [0.1, 0.2]}}\nobjectives: {val.accuracy: maximize}\n")
    assert main(["search", str(tiny), "--space", str(space), "--track", "mlfow", "--executor", "local"]) == 2
    assert "did you mean 'mlflow'?" in capsys.readouterr().err


def test_a_search_is_shown_with_what_it_proposed(tmp_path: Path, tiny: Path, lines: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(
        "space: {train.optimizer.lr: {choice: [0.1, 0.2]}}\nobjectives: {val.accuracy: maximize}\nbudget: {trials: 2}\n"
    )
    options = ["--executor", "local", "--out", str(tmp_path / "s"), "--track", f"lines={lines}", "--quiet"]
    assert main(["search", str(tiny), "--space", str(space), *options]) == 0
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len({name for name, status, _ in told if status == "finished"}) == 2


def test_when_the_sweep_is_killed_its_tracker_sends_what_there_is_and_ends(study: Study, lines: Path) -> None:
    code = (
        "import json, sys, time\nsys.path[:] = json.loads(sys.argv[1])\nfrom pathlib import Path\n"
        "from ablate.tracking import tracked\n"
        "with tracked(Path(sys.argv[2]), [sys.argv[3]]):\n    print('on', flush=True)\n    time.sleep(3600)\n"
    )
    arguments = [json.dumps(sys.path), str(study.folder), f"lines={lines}"]
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        process.send_signal(signal.SIGKILL)
    with Trackers(study.folder).sending("lines", str(lines), patience=60.0):  # it has let go
        pass
    while not lines.exists() or len(lines.read_text().splitlines()) < 6:
        sleep(0.05)


def test_sync_says_what_was_sent_and_knows_where_to(study: Study, lines: Path, capsys: Any) -> None:
    folder = str(study.folder)
    assert main(["track", "sync", folder]) == 2
    assert "was sent nowhere yet; name where to: --to mlflow=URI" in capsys.readouterr().err
    for options in (["--to", f"lines={lines}"], []):
        assert main(["track", "sync", folder, *options]) == 0
        assert capsys.readouterr().out == f"sent to lines ({lines}): 6 of 6 trials, finished\n"
    assert len(lines.read_text().splitlines()) == 6


def test_sync_fails_with_the_reason(study: Study, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    with no_server("refuses") as address:
        assert main(["track", "sync", str(study.folder), "--to", f"mlflow={address}"]) == 1
    said = capsys.readouterr()
    assert f"not sent to mlflow={address}: " in said.err
    assert "Connection refused" in said.err
    assert f"next: ablate track sync {study.folder} --to mlflow={address}" in said.err
    assert said.out == ""


def test_two_processes_do_not_send_at_once(study: Study, lines: Path, capsys: Any) -> None:
    with Trackers(study.folder).sending("lines", str(lines)):
        assert main(["track", "sync", str(study.folder), "--to", f"lines={lines}"]) == 1
    assert "is in use by process" in capsys.readouterr().err


def test_a_damaged_trial_is_not_shown(study: Study, lines: Path) -> None:
    damaged = study.variants[0]["trials"]["0"]
    (study.trial_folder(damaged) / "metrics.jsonl").write_text("{}\n")
    Sender(study.folder, Target("lines", str(lines))).sync()
    shown = {json.loads(line)[0] for line in lines.read_text().splitlines()}
    assert shown == {"none/seed-1", "se/seed-0", "se/seed-1", "between/seed-0", "between/seed-1"}


def test_the_recipe_is_the_one_that_was_trained(tiny: Path) -> None:
    """What the records say, against the sections of the variant that was built."""
    from ablate.design import study_plan
    from ablate.spec import load
    from ablate.tracking.recipe import flat

    factors = {
        "optimizer": {
            "sgd": {},
            "adam": {"train.optimizer.name": "adam", "train.optimizer.lr": 0.001},
            "slow": {"train.optimizer": {"name": "sgd", "lr": 0.0625}, "train.clip_norm": 1.5},
        }
    }
    set = {"ablation": {"seeds": 1, "factors": factors}}
    plan = study_plan(load(tiny, sets=set))
    for variant in plan.variants:
        record = {
            "levels": variant.levels,
            "patch": [[each.dotted, each.value] for level in variant.patched for each in level.assignments],
            "certificate": {"keys": {"orphans": [vars(orphan) for orphan in variant.orphans]}},
        }
        recipe = recipe_of(plan.tree, record)
        said = {path: value for path, value in recipe.items() if path.startswith("train.")}
        dumped = flat({"train": variant.train.model_dump(mode="json")})
        assert {path: dumped[path] for path in said} == said
        assert recipe["levels.optimizer"] == variant.levels["optimizer"]
    assert "train.optimizer.momentum" not in said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://user:hunter2@lab.example/mlflow", "https://lab.example/mlflow"),
        ("https://token@lab.example", "https://lab.example"),
        ("postgresql://me:hunter2@db:5432/runs?sslmode=require", "postgresql://db:5432/runs?sslmode=require"),
        ("mysql://db/runs?user=me&password=hunter2&x=1", "mysql://db/runs?user=me&password=…&x=1"),
        ("http://localhost:5000/a@b", "http://localhost:5000/a@b"),
        ("sqlite:////home/me/runs.db", "sqlite:////home/me/runs.db"),
    ],
)
def test_addresses_are_shown_without_secrets(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert str(Target("mlflow", text)) == f"mlflow={shown}"
    assert reason(ConnectionError(f"no {text}")) == f"ConnectionError: no {shown}"


def test_the_process_beside_a_sweep_needs_no_torch() -> None:
    code = "import ablate.tracking.following, ablate.tracking.to_mlflow, sys; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_study_is_itself_wherever_its_folder_goes(study: Study, tmp_path: Path) -> None:
    identity = Trackers(study.folder).identity()
    study.folder.rename(tmp_path / "moved")
    assert Trackers(tmp_path / "moved").identity() == identity


def test_what_trackers_were_sent_is_not_written_elsewhere(study: Study, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    shutil.rmtree(study.folder / "tracking", ignore_errors=True)
    (study.folder / "tracking").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link"):
        Trackers(study.folder).identity()


def test_the_public_names_are_there() -> None:
    assert {"Tracker", "StudyView", "TrialView", "Epoch"} <= set(tracking.__all__)
