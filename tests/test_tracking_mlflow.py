"""MLflow: what its client reads back is what the study's folder has, each number once, whatever came between."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ablate.store import Study, Trackers
from ablate.tracking import Sender, Sent, Target
from tests.trackers import database, held, of_trials, rows_of, study, swept, tables, trained

__all__ = ["database", "study", "tables", "trained"]


def send(study: Study, uri: str) -> Sent:
    return Sender(study.folder, Target("mlflow", uri)).sync()


def forget(study: Study) -> None:
    """As if the process had been killed before it remembered anything."""
    for path in Trackers(study.folder).folder.glob("mlflow-*.json"):
        path.unlink()


@dataclass(frozen=True)
class Shown:
    """A study that was sent, and what is read back of it."""

    study: Study
    uri: str
    runs: dict[str, dict[str, Any]]


@pytest.fixture(scope="module", params=["database", "folder"])
def sent(
    request: pytest.FixtureRequest, trained: Path, tables: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shown]:
    """To a database; to a folder, which MLflow keeps for those who ask for it. Not to be changed."""
    folder = tmp_path_factory.mktemp(request.param)
    study = Study.open(Path(shutil.copytree(trained, folder / "tiny")))
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        if request.param == "database":
            uri = f"sqlite:///{shutil.copy(tables, folder / 'mlflow.db')}"
        else:
            patched.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = (folder / "mlruns").as_uri()
        assert send(study, uri).trials == 6
        yield Shown(study, uri, held(uri))


def test_a_run_has_each_number_of_its_trial(sent: Shown) -> None:
    study, runs = sent.study, of_trials(sent.runs)
    results = study.results()
    assert runs.keys() == results.keys()
    for hash, run in runs.items():
        assert rows_of(run, study, hash) == study.metrics(hash)
        for name, value in results[hash]["metrics"].items():
            shown = name if name.startswith("test.") else f"final.{name}"
            assert [(step, found) for step, found, _ in run["metrics"][shown]] == [(2, value)]
        record = next(each for each in study.variants if hash in each["trials"].values())
        costs = record["certificate"]["cost"]
        for name in ("params", "flops", "activations"):
            assert [found for _, found, _ in run["metrics"][f"cost.{name}"]] == [costs[name]]
        assert run["status"] == "FINISHED"
        assert run["files"] == ["certificate.json", "result.json"]


def test_a_run_says_which_trial_it_is_and_by_which_recipe(sent: Shown) -> None:
    study, runs = sent.study, sent.runs
    (parent,) = [key for key, run in runs.items() if run["tags"]["ablate.kind"] == "study"]
    hash = study.variants[1]["trials"]["1"]
    run = of_trials(runs)[hash]
    expected = {
        "mlflow.parentRunId": parent,
        "mlflow.runName": "se/seed-1",
        "mlflow.source.type": "LOCAL",
        "ablate.trial": hash,
        "ablate.variant": "se",
        "ablate.seed": "1",
        "ablate.status": "finished",
        "ablate.identity": study.variants[1]["identity"],
        "ablate.fingerprint": study.variants[1]["certificate"]["fingerprint"],
    }
    assert expected.items() <= run["tags"].items()
    assert "added stage1.0_attention, stage1.1_attention" in run["tags"]["mlflow.note.content"]
    params = {
        "train.optimizer.name": "sgd",
        "train.optimizer.lr": "0.05",
        "train.epochs": "2",
        "data.shape": "[3, 11, 13]",
        "levels.attention": "se",
        "network.insert.attention.block": "se",
        "seed": "1",
        "variant": "se",
    }
    assert params.items() <= run["params"].items()
    assert run["experiment"] == "tiny"


def test_the_study_is_a_run_with_its_files_and_its_table(sent: Shown) -> None:
    study = sent.study
    (run,) = [run for run in sent.runs.values() if run["tags"]["ablate.kind"] == "study"]
    assert (run["name"], run["status"]) == ("tiny", "FINISHED")
    assert {"spec.yaml", "certificates.json", "environment.json", "report/report.html"} <= set(run["files"])
    assert run["tags"]["mlflow.note.content"] == (study.folder / "report" / "table.md").read_text()
    assert run["tags"]["ablate.trials"] == "6 finished of 6"


@pytest.mark.parametrize("remembered", [True, False])
def test_sending_again_changes_nothing(sent: Shown, remembered: bool) -> None:
    if not remembered:
        forget(sent.study)
    send(sent.study, sent.uri)
    assert held(sent.uri) == sent.runs


def test_a_trial_that_was_cut_off_goes_on_in_its_run(study: Study, database: str, tmp_path: Path) -> None:
    hash = study.variants[1]["trials"]["0"]
    folder = study.trial_folder(hash)
    whole = Path(shutil.copytree(folder, tmp_path / "whole"))
    (folder / "result.json").unlink()
    (folder / "metrics.jsonl").write_text((whole / "metrics.jsonl").read_text().splitlines()[0] + "\n")
    send(study, database)
    first = held(database)
    assert of_trials(first)[hash]["status"] == "KILLED"
    assert len(rows_of(of_trials(first)[hash], study, hash)) == 1
    assert [run["status"] for run in first.values() if run["tags"]["ablate.kind"] == "study"] == ["KILLED"]
    shutil.copytree(whole, folder, dirs_exist_ok=True)
    send(study, database)
    second = held(database)
    assert second.keys() == first.keys()
    assert of_trials(second)[hash]["status"] == "FINISHED"
    assert rows_of(of_trials(second)[hash], study, hash) == study.metrics(hash)


def test_a_trial_that_came_to_other_numbers_has_a_new_run(study: Study, database: str) -> None:
    hash = study.variants[0]["trials"]["0"]
    folder = study.trial_folder(hash)
    send(study, database)
    (folder / "result.json").unlink()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows[1]["train.loss"] += 1.0
    study.rewrite_metrics(hash, rows)
    send(study, database)
    runs = held(database)
    assert len(runs) == 8
    assert rows_of(of_trials(runs)[hash], study, hash) == rows
    (old,) = [run for run in runs.values() if "ablate.superseded_by" in run["tags"]]
    assert (old["status"], old["tags"]["ablate.trial"]) == ("KILLED", hash)
    assert runs[old["tags"]["ablate.superseded_by"]]["name"] == old["name"]


def test_a_trial_that_ended_sooner_than_before_has_a_new_run(study: Study, database: str) -> None:
    hash = study.variants[0]["trials"]["0"]
    result, rows = study.results()[hash], study.metrics(hash)
    (study.trial_folder(hash) / "result.json").unlink()
    send(study, database)
    study.rewrite_metrics(hash, rows[:1])
    study.finish(hash, {**{key: value for key, value in result.items() if key != "files"}, "epochs": 1})
    send(study, database)
    assert rows_of(of_trials(held(database))[hash], study, hash) == rows[:1]


def test_an_epoch_trained_twice_to_the_same_numbers_keeps_its_first_time(study: Study, database: str) -> None:
    hash = study.variants[0]["trials"]["0"]
    folder = study.trial_folder(hash)
    send(study, database)
    before = held(database).keys()
    (folder / "result.json").unlink()
    study.rewrite_metrics(hash, [row | {"seconds": row["seconds"] + 1} for row in study.metrics(hash)])
    send(study, database)
    assert held(database).keys() == before


@pytest.mark.parametrize(("calls", "answered"), [(0, True), (3, False), (6, True)])
def test_a_connection_that_breaks_loses_and_doubles_nothing(
    study: Study, database: str, calls: int, answered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many batches, the next is lost or, if it arrived, the answer is; and the process forgets all."""
    from mlflow import MlflowClient

    log_batch, made = MlflowClient.log_batch, []

    def breaking(*args: Any, **kwargs: Any) -> Any:
        made.append(1)
        if len(made) > calls:
            if answered:
                log_batch(*args, **kwargs)
            raise ConnectionError("gone")
        return log_batch(*args, **kwargs)

    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "log_batch", breaking)
        with pytest.raises(ConnectionError):
            send(study, database)
    forget(study)
    send(study, database)
    runs = of_trials(held(database))
    assert len(held(database)) == 7
    for hash, run in runs.items():
        assert rows_of(run, study, hash) == study.metrics(hash)


def test_a_database_that_was_lost_is_sent_everything_anew(
    study: Study, database: str, tables: Path, tmp_path: Path
) -> None:
    send(study, database)
    from mlflow.tracking._tracking_service import utils

    utils._tracking_store_registry._get_store_with_resolved_uri.cache_clear()
    shutil.copy(tables, tmp_path / "mlflow.db")
    send(study, database)
    assert len(held(database)) == 7


def test_what_is_not_a_number_is_sent_once_too(study: Study, database: str) -> None:
    hash = study.variants[0]["trials"]["0"]
    (study.trial_folder(hash) / "result.json").unlink()
    rows = study.metrics(hash)
    study.rewrite_metrics(hash, [rows[0], rows[1] | {"train.loss": float("nan"), "val.loss": float("inf")}])
    send(study, database)
    before = held(database)
    forget(study)
    send(study, database)
    assert held(database).keys() == before.keys()
    assert len(of_trials(held(database))[hash]["metrics"]["train.loss"]) == 2


def test_trials_that_failed_are_failed_runs(tmp_path: Path, database: str) -> None:
    study = swept(tmp_path / "diverging", ["train.optimizer.lr=1e30", "ablation.seeds=1"])
    assert {result["status"] for result in study.results().values()} == {"diverged"}
    send(study, database)
    runs = held(database)
    assert {run["status"] for run in runs.values()} == {"FAILED"}
    assert {run["tags"]["ablate.status"] for run in of_trials(runs).values()} == {"diverged"}


def test_names_that_mlflow_refuses_are_written_otherwise_and_stay_apart() -> None:
    from ablate.tracking.to_mlflow import LONGEST, _params

    named = _params({"network.set.stage*.conv2": 1, "network.set.stage?.conv2": 2, "a" * 300: 3, "x": "y" * 9000})
    assert sorted(named.values(), key=len)[:3] == ["1", "2", "3"]
    assert "network.set.stage_.conv2" in named
    assert all(len(name) <= LONGEST["name"] for name in named)
    assert max(map(len, named.values())) == LONGEST["param"]
