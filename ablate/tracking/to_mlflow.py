"""Studies in MLflow: an experiment by the spec's name, a run a study, and beneath it a run a trial.

What is there is asked of the server, once for each run that may lack something: so nothing is sent twice, whatever
became of the process that sent it last.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ablate.outcomes import FAILED
from ablate.tracking.certified import certificate_text
from ablate.tracking.targets import without_secrets
from ablate.tracking.view import StudyView, TrialView
from ablate.tracking.viewing import same

QUIET = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds; MLflow's own patience is many minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Set before MLflow is imported, where the user has not."""
TIMINGS = ("seconds", "images_per_second")
"""Of an epoch that was trained twice, the time of the first stands; any other number would be another trial."""
MOST = {"params": 100, "metrics": 500, "tags": 100}
"""At once: MLflow refuses more, and more than a megabyte."""
LONGEST = {"name": 250, "param": 500, "tag": 5000}
"""Characters that servers of all versions take."""
_STATUS = {"finished": "FINISHED", "running": "RUNNING", "pruned": "KILLED", "interrupted": "KILLED"}


@dataclass
class _Known:
    """What a run of the server has: values by metric and step, parameters, tags and its status."""

    status: str
    values: dict[tuple[str, int], float] = field(default_factory=dict)
    params: frozenset[str] = frozenset()
    tags: dict[str, str] = field(default_factory=dict)


class MlflowTracker:
    """Through MLflow's client: to a server, a database or, where MLflow still allows it, a folder."""

    def __init__(self, target: str) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import mlflow
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._uri = _absolute(target or mlflow.get_tracking_uri())
        self.target = without_secrets(self._uri)
        self._make_client: Callable[..., Any] = MlflowClient
        self._client: Any = None
        self._refusal = MlflowException
        self._known: dict[str, _Known] = {}
        self._found: dict[str, str] | None = None
        """Runs of this study's trials that the server has, by the trial's hash; None: it was not asked yet."""

    def sync(self, study: StudyView, memory: dict[str, Any]) -> None:
        try:
            if self._client is None:
                self._client = self._make_client(tracking_uri=self._uri)  # makes the tables of a new database
                self._forget_what_is_gone(memory)
            self._send(study, memory)
        except Exception:
            self._client, self._found = None, None
            self._known.clear()
            raise

    def _send(self, study: StudyView, memory: dict[str, Any]) -> None:
        parent = self._parent(study, memory)
        refused: list[Exception] = []
        sent = memory.setdefault("trials", {})
        for trial in study.trials:
            if sent.get(trial.hash, {}).get("version") == trial.version:
                continue
            try:
                self._send_trial(study, trial, memory, parent)
            except self._refusal as error:
                if error.error_code not in ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST"):
                    raise
                refused.append(error)  # of this trial alone
        self._send_study(study, memory, parent)
        if refused:
            raise refused[0]

    # Where the runs are.

    def _forget_what_is_gone(self, memory: dict[str, Any]) -> None:
        """A server that lost what it had, or whose user deleted the study's run, is sent everything anew."""
        run = memory.get("run")
        if run is not None and not self._is_there(run):
            memory.clear()

    def _is_there(self, run: str) -> bool:
        try:
            return bool(self._client.get_run(run).info.lifecycle_stage == "active")
        except self._refusal as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def _experiment(self, study: StudyView, memory: dict[str, Any]) -> str:
        if "experiment" not in memory:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or study.name
            memory["experiment"] = os.environ.get("MLFLOW_EXPERIMENT_ID") or self._experiment_named(name)
        return str(memory["experiment"])

    def _experiment_named(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except self._refusal as error:  # somebody else has just made it
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise error from None
        if found.lifecycle_stage != "active":
            raise RuntimeError(f"the experiment {name!r} is deleted: restore it, or set MLFLOW_EXPERIMENT_NAME")
        return str(found.experiment_id)

    def _parent(self, study: StudyView, memory: dict[str, Any]) -> str:
        """The study's run, perhaps a new one."""
        if "run" not in memory:
            experiment = self._experiment(study, memory)
            found = self._search(experiment, study.id, "study")
            memory["run"] = (
                found[0].info.run_id
                if found
                else self._create(experiment, study.folder.name, study.started, _study_tags(study))
            )
        return str(memory["run"])

    def _run_of(self, study: StudyView, trial: TrialView, memory: dict[str, Any], parent: str) -> str:
        """The trial's run: remembered, found by its tags, or a new one."""
        remembered = memory["trials"].get(trial.hash, {}).get("run")
        if remembered:
            return str(remembered)
        experiment = self._experiment(study, memory)
        if self._found is None:
            runs = self._search(experiment, study.id, "trial")
            self._found = {
                run.data.tags["ablate.trial"]: run.info.run_id
                for run in runs
                if "ablate.superseded_by" not in run.data.tags
            }
        if trial.hash not in self._found:
            tags = _trial_tags(study, trial, parent)
            self._found[trial.hash] = self._create(experiment, trial.name, trial.started, tags)
        return self._found[trial.hash]

    def _search(self, experiment: str, study: str, kind: str) -> list[Any]:
        which = f"tags.`ablate.study` = '{study}' and tags.`ablate.kind` = '{kind}'"
        found: list[Any] = []
        token = None
        while True:
            page = self._client.search_runs([experiment], which, max_results=1000, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _create(self, experiment: str, name: str, started: float, tags: dict[str, str]) -> str:
        time = _milliseconds(started) or None
        run = self._client.create_run(experiment, start_time=time, tags=tags, run_name=name).info.run_id
        self._known[run] = _Known("RUNNING", tags=tags)
        return str(run)

    # What is in them.

    def _send_trial(self, study: StudyView, trial: TrialView, memory: dict[str, Any], parent: str) -> None:
        run = self._run_of(study, trial, memory, parent)
        known = self._known_of(run)
        if known is None or _contradicts(known, trial):
            run = self._instead(study, trial, memory, parent, run, gone=known is None)
        mine = memory["trials"].setdefault(trial.hash, {})
        mine["run"] = run
        self._log(run, _metrics(trial), _params(trial.recipe), _trial_tags(study, trial, parent))
        self._set_status(run, _status(trial), trial.ended)
        files = {"certificate.json": _json(trial.certificate)}
        if trial.result is not None:
            files["result.json"] = _json(trial.result)
        self._send_texts(run, files, mine)
        mine["version"] = trial.version

    def _instead(
        self, study: StudyView, trial: TrialView, memory: dict[str, Any], parent: str, old: str, *, gone: bool
    ) -> str:
        """A new run for a trial that began again and came to other numbers: MLflow takes none back."""
        new = self._create(
            self._experiment(study, memory), trial.name, trial.started, _trial_tags(study, trial, parent)
        )
        if not gone:
            self._client.set_tag(old, "ablate.superseded_by", new)
            self._client.set_terminated(old, "KILLED")
        if self._found is not None:
            self._found[trial.hash] = new
        memory["trials"][trial.hash] = {"run": new}
        return new

    def _send_study(self, study: StudyView, memory: dict[str, Any], parent: str) -> None:
        files = {name: _sha256(path) for name, path in study.files.items()}
        shown = [study.state, study.count, [trial.version for trial in study.trials], study.summary, study.recipe]
        version = hashlib.sha256(repr([shown, files]).encode()).hexdigest()[:32]
        mine = memory.setdefault("study", {})
        if mine.get("version") == version:
            return
        self._log(parent, [], _params(study.recipe), _study_tags(study))
        self._set_status(parent, _state(study), study.ended)
        sent = mine.setdefault("files", {})
        for name, digest in files.items():
            if sent.get(name) != digest:
                self._client.log_artifact(parent, str(study.files[name]), name.rpartition("/")[0] or None)
                sent[name] = digest
        mine["version"] = version

    def _known_of(self, run: str) -> _Known | None:
        """What the server has of a run; None where it is gone or deleted."""
        if run not in self._known:
            try:
                found = self._client.get_run(run)
            except self._refusal as error:
                if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                    return None
                raise
            if found.info.lifecycle_stage != "active":
                return None
            values = {
                (name, metric.step): metric.value
                for name in found.data.metrics
                for metric in self._client.get_metric_history(run, name)
            }
            params = frozenset(found.data.params)
            self._known[run] = _Known(found.info.status, values, params, dict(found.data.tags))
        return self._known[run]

    def _log(
        self, run: str, metrics: list[tuple[str, int, float, int]], params: dict[str, str], tags: dict[str, str]
    ) -> None:
        """What the run lacks of these. A failure leaves open what of it arrived: the server is asked again."""
        from mlflow.entities import Metric, Param, RunTag

        known = self._known_of(run)
        if known is None:
            raise RuntimeError(f"run {run} was deleted while it was written to")
        missing = [each for each in metrics if (each[0], each[1]) not in known.values]
        new = {name: value for name, value in params.items() if name not in known.params}
        changed = {name: value for name, value in tags.items() if known.tags.get(name, "") != value}
        del self._known[run]
        lists: dict[str, list[Any]] = {
            "params": [Param(name, value) for name, value in new.items()],
            "tags": [RunTag(name, value) for name, value in changed.items()],
            "metrics": [Metric(name, value, time, step) for name, step, value, time in missing],
        }
        while any(lists.values()):
            batch = {kind: items[: MOST[kind]] for kind, items in lists.items()}
            self._client.log_batch(run, **batch)
            lists = {kind: items[MOST[kind] :] for kind, items in lists.items()}
        values = known.values | {(name, step): value for name, step, value, _ in missing}
        self._known[run] = _Known(known.status, values, known.params | new.keys(), known.tags | changed)

    def _set_status(self, run: str, status: str, ended: float | None) -> None:
        known = self._known[run]
        if known.status == status:
            return
        if status == "RUNNING":
            self._client.update_run(run, status=status)
        else:
            self._client.set_terminated(run, status, _milliseconds(ended) if ended else None)
        known.status = status

    def _send_texts(self, run: str, texts: Mapping[str, str], mine: dict[str, Any]) -> None:
        sent = mine.setdefault("files", {})
        for name, text in texts.items():
            digest = hashlib.sha256(text.encode()).hexdigest()
            if sent.get(name) != digest:
                self._client.log_text(run, text, name)
                sent[name] = digest


def _absolute(uri: str) -> str:
    """A database's file or a folder, whatever folder the next process is in."""
    scheme, colon, rest = uri.partition(":///")
    if colon and scheme.split("+")[0] == "sqlite" and rest and not rest.startswith(("/", ":")):
        return f"{scheme}:///{Path(unquote(rest)).absolute()}"
    return uri if ":" in uri or uri in ("databricks", "uc") else Path(uri).absolute().as_uri()


def _contradicts(known: _Known, trial: TrialView) -> bool:
    """Whether a run has numbers that the trial has not: it was trained anew, and differs."""
    now = {(name, step): value for name, step, value, _ in _metrics(trial)}
    if trial.result is not None and any(key not in now for key in known.values):
        return True
    return any(
        key in now and not same(value, now[key]) for key, value in known.values.items() if not _is_of_time(key[0])
    )


def _is_of_time(name: str) -> bool:
    return name.rpartition(".")[2] in TIMINGS


def _metrics(trial: TrialView) -> list[tuple[str, int, float, int]]:
    """Name, step, value and time in milliseconds: of each epoch; the costs at step 0; the final ones at the last."""
    found = [
        (_name(name), epoch.number, value, _milliseconds(epoch.time))
        for epoch in trial.epochs
        for name, value in epoch.metrics.items()
    ]
    begun, ended = _milliseconds(trial.started), _milliseconds(trial.ended or trial.started)
    last = trial.epochs[-1].number if trial.epochs else 0
    found += [(_name(f"cost.{name}"), 0, value, begun) for name, value in trial.cost.items()]
    found += [(_name(name), last, value, ended) for name, value in trial.final.items()]
    return found


def _params(recipe: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path, value in recipe.items():
        if value == "":
            continue  # older servers refuse it
        name = _name(path)
        if name in found:
            name = f"{name[:230]}-{hashlib.sha256(path.encode()).hexdigest()[:8]}"
        found[name] = _cut(str(value), LONGEST["param"])
    return found


def _trial_tags(study: StudyView, trial: TrialView, parent: str) -> dict[str, str]:
    tags = {
        "mlflow.parentRunId": parent,
        "mlflow.runName": trial.name,
        "mlflow.note.content": certificate_text(trial),
        "ablate.kind": "trial",
        "ablate.study": study.id,
        "ablate.trial": trial.hash,
        "ablate.variant": trial.variant,
        "ablate.seed": str(trial.seed),
        "ablate.status": trial.status,
        "ablate.attempts": str(trial.attempts),
        "ablate.identity": trial.identity,
        "ablate.fingerprint": trial.fingerprint,
        "ablate.baseline": trial.baseline or "",
        "ablate.error": trial.error or "",
        **_source(study),
    }
    return {name: _cut(value, LONGEST["tag"]) for name, value in tags.items()}


def _study_tags(study: StudyView) -> dict[str, str]:
    statuses = [trial.status for trial in study.trials]
    counts = {status: statuses.count(status) for status in dict.fromkeys(statuses)}
    said = ", ".join(f"{count} {status}" for status, count in counts.items()) or "none has begun"
    tags = {
        "mlflow.runName": study.folder.name,
        "mlflow.note.content": study.summary or f"{study.name}: {study.count} trials",
        "ablate.kind": "study",
        "ablate.study": study.id,
        "ablate.name": study.name,
        "ablate.folder": str(study.folder),
        "ablate.status": study.state,
        "ablate.trials": f"{said} of {study.count}",
        **_source(study),
    }
    return {name: _cut(value, LONGEST["tag"]) for name, value in tags.items()}


def _source(study: StudyView) -> dict[str, str]:
    commit = {"mlflow.source.git.commit": study.commit} if study.commit else {}
    with suppress(OSError, KeyError):  # no such user on this machine, as in a container
        commit["mlflow.user"] = getpass.getuser()
    return {"mlflow.source.name": f"ablate {study.name}", "mlflow.source.type": "LOCAL", **commit}


def _status(trial: TrialView) -> str:
    return "FAILED" if trial.status in FAILED else _STATUS.get(trial.status, "KILLED")


def _state(study: StudyView) -> str:
    return "FAILED" if study.state == "failed" else _STATUS.get(study.state, "KILLED")


def _name(name: str) -> str:
    """With the characters that MLflow takes."""
    plain = re.sub(r"[^\w.\- :]", "_", name)
    if len(plain) <= LONGEST["name"]:
        return plain or "_"
    return f"{plain[:230]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _milliseconds(seconds: float | None) -> int:
    return int((seconds or 0.0) * 1000)


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1) + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
