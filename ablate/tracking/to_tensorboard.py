"""Studies in TensorBoard: a run a trial, ``VARIANT/seed-N``, with its scalars by epoch, its recipe and its certificate.

TensorBoard reads folders of event files, to which one only adds. Each session adds a file of its own to a run: a file
that a killed process left half a record in is left alone. What a run has is read back first, so that nothing is in it
twice.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any

import numpy as np

from ablate.errors import Problem, UserError
from ablate.outcomes import DONE
from ablate.store import TRACKING
from ablate.tracking.certified import certificate_text
from ablate.tracking.view import StudyView, TrialView
from ablate.tracking.viewing import same

TIMINGS = ("seconds", "images_per_second")
"""Of an epoch that was trained twice, the time of the first stands."""
_STUDY, _START, _END = "study", "_hparams_/session_start_info", "_hparams_/session_end_info"
_EXPERIMENT = "_hparams_/experiment"


@dataclass
class _Run:
    """What the event files of a run hold: scalars by tag and step, and the latest text of each other tag."""

    scalars: dict[tuple[str, int], float] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    file: str = ""
    """That of this session; none yet."""
    begun: bool = False
    """Whether it has a start: only those after the first void anything."""


class TensorboardTracker:
    """Into ``TARGET/STUDY``, or, without a target, into ``tracking/tensorboard`` of the study's folder."""

    def __init__(self, target: str) -> None:
        import tensorboard.summary  # noqa: F401  (what it lacks is said before a study is there)

        self.target = os.path.abspath(target) if target else ""
        self._runs: dict[Path, _Run] = {}

    def folder(self, study: StudyView) -> Path:
        """What ``tensorboard --logdir`` takes."""
        return Path(self.target) / _part(study.name) if self.target else study.folder / TRACKING / "tensorboard"

    def sync(self, study: StudyView, memory: dict[str, Any]) -> None:
        root = self.folder(study)
        if self._run(root).texts.get(_STUDY, study.id.encode()) != study.id.encode():
            message = f"{root} shows another study of that name"
            raise UserError(Problem(message, hint="name another folder: --track tensorboard=FOLDER"))
        shown = [study.spec, study.summary, sorted({name for trial in study.trials for name in trial.recipe})]
        version = hashlib.sha256(repr(shown).encode()).hexdigest()
        if memory.get("study") != version or not _has_events(root):
            self._send_study(study, root)
            memory["study"] = version
        sent = memory.setdefault("trials", {})
        taken: dict[Path, str] = {}
        for trial in study.trials:
            path = root / _part(trial.variant) / f"seed-{trial.seed}"
            if taken.setdefault(path, trial.hash) != trial.hash:
                path = path.with_name(f"{path.name}-{trial.hash[:8]}")
            if sent.get(trial.hash) != trial.version or not _has_events(path):
                self._send_trial(trial, path)
                sent[trial.hash] = trial.version

    def _send_trial(self, trial: TrialView, path: Path) -> None:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        run = self._run(path)
        events: list[Any] = []
        scalars = _scalars(trial)
        restart = _first_contradiction(run, scalars)
        if restart is not None:
            events.append(_start(restart))
            run.scalars = {key: value for key, value in run.scalars.items() if key[1] < restart}
        for (tag, step), (value, when) in scalars.items():
            if (tag, step) not in run.scalars:
                events.append(_scalar(tag, step, value, when))
                run.scalars[tag, step] = value
        texts = {"trial": trial.hash, "certificate": certificate_text(trial)}
        events += [_text(run, tag, text, trial.started) for tag, text in texts.items() if _is_new(run, tag, text)]
        if _START not in run.texts:
            values = {name: value if _is_plain(value) else str(value) for name, value in trial.recipe.items()}
            summary = hparams_pb(values, trial_id=trial.hash, start_time_secs=trial.started)
            events.append(_event(summary, 0, trial.started))
            run.texts[_START] = b""
        how = "done" if trial.status in DONE else "failed"
        if trial.over and _is_new(run, _END, how):
            events.append(_event(_session_end(trial), 0, trial.ended or trial.started))
            run.texts[_END] = how.encode()
        self._append(path, run, events)

    def _send_study(self, study: StudyView, root: Path) -> None:
        from tensorboard.plugins.hparams.summary_v2 import HParam, Metric, hparams_config_pb

        run = self._run(root)
        texts = {_STUDY: study.id, "spec": f"```yaml\n{study.spec}```\n", "report": study.summary}
        new = {tag: text for tag, text in texts.items() if text and _is_new(run, tag, text)}
        events = [_text(run, tag, text, study.started) for tag, text in new.items()]
        names = list(dict.fromkeys(name for trial in study.trials for name in trial.recipe))
        tags = dict.fromkeys(tag for trial in study.trials for tag, _ in _scalars(trial))
        shown = [tag for tag in tags if tag.startswith(("test.", "val.", "cost."))]
        if _is_new(run, _EXPERIMENT, repr([names, shown])):
            run.texts[_EXPERIMENT] = repr([names, shown]).encode()
            config = hparams_config_pb([HParam(name) for name in names], [Metric(tag) for tag in shown], study.started)
            events.append(_event(config, 0, study.started))
        self._append(root, run, events)

    def _run(self, path: Path) -> _Run:
        if path not in self._runs or not _has_events(path):
            self._runs[path] = _read(path)
        return self._runs[path]

    def _append(self, path: Path, run: _Run, events: list[Any]) -> None:
        """All of them, or, should that fail, none that is counted on."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        if not events:
            return
        path.mkdir(parents=True, exist_ok=True)
        if not run.begun:
            run.begun, events = True, [_start(0), *events]
        if not run.file:
            run.file = _new_file(path)
            events = [Event(wall_time=time(), file_version="brain.Event:2"), *events]
        content = io.BytesIO()
        writer = RecordWriter(content)
        for event in events:
            writer.write(event.SerializeToString())
        try:
            with (path / run.file).open("ab", buffering=0) as file:
                if file.write(content.getvalue()) != content.tell():
                    raise OSError("no space left")
        except OSError:
            del self._runs[path]  # read back, and gone on with in another file
            raise


def _read(path: Path) -> _Run:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    run = _Run()
    for file in sorted(path.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(file)).Load():
            if event.HasField("session_log") and not run.begun:
                run.begun = True
            elif event.HasField("session_log"):
                run.scalars = {key: value for key, value in run.scalars.items() if key[1] < event.step}
            for value in event.summary.value:
                found = make_ndarray(value.tensor)
                if value.metadata.plugin_data.plugin_name == "scalars":
                    run.scalars[value.tag, event.step] = float(found.item())
                elif value.metadata.plugin_data.plugin_name == "hparams":
                    run.texts[value.tag] = _hparams(value.metadata.plugin_data.content)
                else:
                    run.texts[value.tag] = bytes(found.reshape(-1)[0])
    return run


def _hparams(content: bytes) -> bytes:
    """What an entry of the HParams tab says, as far as it is compared."""
    from tensorboard.plugins.hparams import api_pb2
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = HParamsPluginData.FromString(content)
    if found.HasField("session_end_info"):
        return b"done" if found.session_end_info.status == api_pb2.STATUS_SUCCESS else b"failed"
    names = [each.name for each in found.experiment.hparam_infos]
    return repr([names, [each.name.tag for each in found.experiment.metric_infos]]).encode()


def _new_file(path: Path) -> str:
    """One that is read after all others: TensorBoard reads them in the order of their names."""
    last = max((file.name.split(".")[3] for file in path.glob("events.out.tfevents.*")), default="0")
    stamp = max(int(time()), int(last) + 1 if last.isdecimal() else 0)
    return f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}.{os.getpid()}.0"


def _has_events(path: Path) -> bool:
    return any(path.glob("events.out.tfevents.*"))


def _scalars(trial: TrialView) -> dict[tuple[str, int], tuple[float, float]]:
    """By tag and step: the value, and its time in seconds."""
    found = {
        (name, epoch.number): (value, epoch.time) for epoch in trial.epochs for name, value in epoch.metrics.items()
    }
    last = trial.epochs[-1].number if trial.epochs else 0
    found |= {(name, last): (value, trial.ended or trial.started) for name, value in trial.final.items()}
    return found | {(f"cost.{name}", 0): (value, trial.started) for name, value in trial.cost.items()}


def _first_contradiction(run: _Run, scalars: Mapping[tuple[str, int], tuple[float, float]]) -> int | None:
    """The first step at which the run has another number than the trial, which was trained anew."""
    differ = [
        step
        for (tag, step), value in run.scalars.items()
        if tag.rpartition(".")[2] not in TIMINGS
        and (tag, step) in scalars
        and not same(float(np.float32(scalars[tag, step][0])), float(np.float32(value)))
    ]
    return min(differ, default=None)


def _event(summary: Any, step: int, when: float) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event

    return Event(wall_time=when, step=step, summary=summary)


def _scalar(tag: str, step: int, value: float, when: float) -> Any:
    from tensorboard.plugins.scalar.summary_v2 import scalar_pb

    return _event(scalar_pb(tag, value), step, when)


def _start(step: int) -> Any:
    """From here on, what a run had at this step and after it is void, unless it is the run's first start."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    return Event(wall_time=time(), step=step, session_log=SessionLog(status=SessionLog.START))


def _is_new(run: _Run, tag: str, text: str) -> bool:
    return run.texts.get(tag) != text.encode()


def _text(run: _Run, tag: str, text: str, when: float) -> Any:
    from tensorboard.plugins.text.summary_v2 import text_pb

    run.texts[tag] = text.encode()
    return _event(text_pb(tag, text), 0, when)


def _session_end(trial: TrialView) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    status = api_pb2.STATUS_SUCCESS if trial.status in DONE else api_pb2.STATUS_FAILURE
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=trial.ended or trial.started)
    about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
    summary = Summary()
    summary.value.add(tag=_END, metadata=about, tensor=metadata.NULL_TENSOR)
    return summary


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str)


def _part(name: str) -> str:
    """One folder's name; other names stay other names."""
    plain = re.sub(r"[^A-Za-z0-9_.=,+@()%-]", "_", name)[:100].lstrip(".") or "_"
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
