"""What tests of trackers share: a small study, databases of MLflow, and servers that are none."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ablate.store import Study
from tests.conftest import TINY


def swept(folder: Path, sets: list[str] | None = None) -> Study:
    """A study of three variants, two seeds and two epochs, trained here."""
    from ablate.design import study_plan
    from ablate.prepare import prepare
    from ablate.report import write_report
    from ablate.spec import load
    from ablate.sweeping import sweep

    spec = folder.with_suffix(".yaml")
    spec.write_text(TINY)
    study = sweep(prepare(study_plan(load(spec, sets=sets or [])), folder=folder), executor="local")
    write_report(study)
    return study


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder: to be copied, never to be changed."""
    return swept(tmp_path_factory.mktemp("trained") / "tiny").folder


@pytest.fixture
def study(trained: Path, tmp_path: Path) -> Study:
    """A copy of it."""
    return Study.open(Path(shutil.copytree(trained, tmp_path / "tiny")))


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of MLflow's without runs: it takes seconds to make one."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("tables") / "empty.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def database(tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of an empty one of the test's own; files that runs hold lie beside it."""
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{shutil.copy(tables, tmp_path / 'mlflow.db')}"


def held(uri: str) -> dict[str, dict[str, Any]]:
    """All that MLflow reads back of its runs, by the run's id."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    found = {}
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            key = run.info.run_id
            found[key] = {
                "name": run.info.run_name,
                "experiment": experiment.name,
                "status": run.info.status,
                "tags": dict(run.data.tags),
                "params": dict(run.data.params),
                "metrics": {
                    name: [(metric.step, metric.value, metric.timestamp) for metric in history]
                    for name in run.data.metrics
                    for history in [client.get_metric_history(key, name)]
                },
                "files": sorted(_files(client, key)),
            }
    return found


def _files(client: Any, run: str, folder: str | None = None) -> Iterator[str]:
    for found in client.list_artifacts(run, folder):
        if found.is_dir:
            yield from _files(client, run, found.path)
        else:
            yield found.path


def of_trials(runs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The trials' runs by the trial's hash; each has one, or those that were superseded left out."""
    found = [run for run in runs.values() if run["tags"]["ablate.kind"] == "trial"]
    valid = [run for run in found if "ablate.superseded_by" not in run["tags"]]
    by_hash = {run["tags"]["ablate.trial"]: run for run in valid}
    assert len(by_hash) == len(valid)
    return by_hash


def rows_of(run: dict[str, Any], study: Study, hash: str) -> list[dict[str, Any]]:
    """A run's metrics, as ``metrics.jsonl`` would have them; a number that is there twice is an error."""
    rows: dict[int, dict[str, Any]] = {}
    names = {name for row in study.metrics(hash) for name in row}
    for name in names & run["metrics"].keys():
        for step, value, _ in run["metrics"][name]:
            row = rows.setdefault(step, {"epoch": step})
            assert name not in row
            row[name] = value
    return [rows[step] for step in sorted(rows)]


@contextmanager
def no_server(kind: str) -> Iterator[str]:
    """An address where MLflow is not: ``refuses``, ``hangs`` or ``fails``, which answers everything with a 500."""
    listening = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    if kind == "refuses":
        listening.close()
        yield address
        return
    ended = threading.Event()

    taken: list[socket.socket] = []

    def serve() -> None:
        while not ended.is_set():
            try:
                taken.append(listening.accept()[0])
            except OSError:
                return
            if kind == "fails":
                with suppress(OSError):  # a client that has gone
                    taken[-1].settimeout(5.0)
                    taken[-1].recv(65536)
                    taken[-1].sendall(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
                    taken[-1].close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield address
    finally:
        ended.set()
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()
        for each in taken:
            each.close()
