"""A study's folder as views, read anew as far as it has changed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.events import when
from ablate.outcomes import DONE, FAILED
from ablate.store import CERTIFICATES, ENVIRONMENT, REPORT, SPEC, Study, Trackers, TrialState
from ablate.tracking.recipe import recipe_of
from ablate.tracking.view import Epoch, StudyView, TrialView

_OF_RESULT = ("epochs", "selected_epoch", "seconds", "images_per_second")
"""Numbers of a result beside its metrics."""


class Viewer:
    """Looks at one study's folder, again and again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._offset = 0
        self._epochs: dict[tuple[str, int], float] = {}
        self._started: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._swept: tuple[float, float] | None = None
        """When the first sweep began, and when anything was last told."""
        self._seen: dict[str, tuple[TrialState, str, TrialView]] = {}

    def view(self) -> StudyView:
        """As it is now. ``UserError``: no study is there, or it is damaged."""
        study = Study.open(self.folder)
        self._read_events(study)
        states = study.states()
        first: dict[str, tuple[dict[str, Any], int]] = {}
        for record in study.variants:
            for seed, hash in record["trials"].items():
                first.setdefault(hash, (record, int(seed)))
        trials = [
            self._trial(study, state, *first[hash])
            for hash, state in states.items()
            if state.status not in ("waiting", "damaged")
        ]
        held = study.in_use() is not None
        began, last = self._swept or (0.0, 0.0)
        return StudyView(
            id=Trackers(self.folder).identity(),
            name=str(study.spec.get("name", self.folder.name)),
            folder=self.folder,
            state=_state(states, held),
            started=began,
            ended=None if held else last,
            trials=trials,
            count=len(states),
            recipe=recipe_of(study.spec),
            spec=(self.folder / SPEC).read_text(encoding="utf-8"),
            summary=self._summary(),
            commit=study.environment.get("git_commit"),
            files=self._files(),
        )

    def _read_events(self, study: Study) -> None:
        while True:
            events, offset = study.events(self._offset)
            for event in events:
                time = when(event)
                if time is not None:
                    self._swept = (self._swept[0] if self._swept else time, time)
                    self._note(event, time)
            if offset == self._offset:
                return
            self._offset = offset

    def _note(self, event: Mapping[str, Any], time: float) -> None:
        kind, hash, row = event.get("event"), event.get("trial"), event.get("row")
        if not isinstance(hash, str):
            return
        if kind == "started":
            self._started.setdefault(hash, time)
        elif kind == "ended":
            self._ended[hash] = time
        elif kind == "epoch" and isinstance(row, dict) and isinstance(row.get("epoch"), int):
            self._epochs[hash, row["epoch"]] = time

    def _trial(self, study: Study, state: TrialState, record: dict[str, Any], seed: int) -> TrialView:
        of = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]
        seen = self._seen.get(state.hash)
        if seen and seen[:2] == (state, of):
            return seen[2]
        result = study.results([state.hash]).get(state.hash)
        rows = study.metrics(state.hash, result)
        began, last = self._swept or (0.0, 0.0)
        started = self._started.get(state.hash, began)
        ended = self._ended.get(state.hash, last)
        certificate = record.get("certificate") or {}
        view = TrialView(
            hash=state.hash,
            variant=record["name"],
            seed=seed,
            status=state.status,
            version=_digest([of, vars(state), rows, result]),
            started=started,
            ended=None if state.status == "running" else max(ended, started),
            attempts=state.attempts,
            epochs=[
                Epoch(row["epoch"], self._epochs.get((state.hash, row["epoch"]), ended), _numbers(row))
                for row in rows
                if isinstance(row.get("epoch"), int)
            ],
            final=_final(result, rows),
            cost=_numbers(certificate.get("cost") or record.get("cost") or {}),
            recipe={**recipe_of(study.spec, record), "variant": record["name"], "seed": seed},
            baseline=record.get("baseline"),
            identity=str(record.get("identity") or ""),
            fingerprint=str(certificate.get("fingerprint") or ""),
            certificate=certificate,
            result=result,
            error=state.error,
        )
        self._seen[state.hash] = (state, of, view)
        return view

    def _summary(self) -> str:
        try:
            return (self.folder / REPORT / "table.md").read_text(encoding="utf-8")
        except (OSError, ValueError):
            return ""

    def _files(self) -> dict[str, Path]:
        """Links lead elsewhere, and are not shown."""
        report = self.folder / REPORT
        found = [] if report.is_symlink() or not report.is_dir() else sorted(report.iterdir())
        files = {name: self.folder / name for name in (SPEC, CERTIFICATES, ENVIRONMENT)}
        files |= {f"{REPORT}/{path.name}": path for path in found if not path.name.startswith(".")}
        return {name: path for name, path in files.items() if path.is_file() and not path.is_symlink()}


def _state(states: Mapping[str, TrialState], held: bool) -> str:
    statuses = {state.status for state in states.values()}
    if held:
        return "running"
    if statuses <= set(DONE):
        return "finished"
    return "failed" if statuses <= {*DONE, *FAILED} else "interrupted"


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Those of a row, but for its epoch's own."""
    return {name: float(value) for name, value in row.items() if name != "epoch" and _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _final(result: Mapping[str, Any] | None, rows: list[dict[str, Any]]) -> dict[str, float]:
    """A result's metrics by their names, and under ``final.`` those that the epochs have too: others may be selected.

    None of a trial that failed: it may begin again.
    """
    if result is None or result["status"] not in DONE:
        return {}
    by_epoch = {name for row in rows for name in row}
    metrics = _numbers(result.get("metrics") or {})
    named = {f"final.{name}" if name in by_epoch else name: value for name, value in metrics.items()}
    return named | {f"final.{name}": float(result[name]) for name in _OF_RESULT if _is_number(result.get(name))}


def _digest(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def same(one: float, other: float) -> bool:
    """Whether two numbers are one, as databases keep them: not-a-number is itself, infinity the largest number."""
    one, other = (min(max(value, -1.7976931348623157e308), 1.7976931348623157e308) for value in (one, other))
    return one == other or (math.isnan(one) and math.isnan(other))
