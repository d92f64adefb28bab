"""Optuna's journal file: the trials of a search as optuna-dashboard reads them, one line an operation.

A trial is appended as *one* line, when its point is settled: however the process ends, the file holds all of a proposal
or nothing of it. A kill may still tear the line that was being written, at which Optuna would choke for ever: what
follows the last whole line is cut off when the file is opened. The lock is the kernel's (``flock``), which a kill lets
go of; Optuna's own are files that stay behind.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ablate.disk import writing
from ablate.errors import Problem, UserError


class Journal:
    """One study of a journal file. Nothing else may write the file at the same time."""

    def __init__(self, path: Path, name: str, objectives: Mapping[str, str]) -> None:
        self.path = path
        mend(path)
        with quiet(), writing(path):
            self.storage = JournalStorage(JournalFileBackend(str(path), FileLock(path)))
            self._id = self._study(name, [StudyDirection[way.upper()] for way in objectives.values()])
            names = "study:metric_names"
            if names not in self.storage.get_study_system_attrs(self._id):
                self.storage.set_study_system_attr(self._id, names, list(objectives))
        self.study = optuna.study.Study(name, self.storage)

    def _study(self, name: str, directions: Sequence[StudyDirection]) -> int:
        known = {study.study_name: study for study in self.storage.get_all_studies()}
        if name not in known:
            return self.storage.create_new_study(directions, name)
        if list(known[name].directions) != list(directions):
            raise UserError(Problem(f"{self.path}: begun with other objectives", hint="begin another search (--out)"))
        return int(known[name]._study_id)

    def trials(self) -> list[FrozenTrial]:
        return self.storage.get_all_trials(self._id, deepcopy=False)

    def add(self, trial: FrozenTrial) -> None:
        """A trial whose point is settled, with all that its sampler wants to find again: one line."""
        with writing(self.path):
            self.storage.create_new_trial(self._id, trial)

    def note(self, number: int, attributes: Mapping[str, Any]) -> None:
        with writing(self.path):
            for key, value in attributes.items():
                self.storage.set_trial_user_attr(self._trial(number), key, value)

    def end(
        self,
        number: int,
        state: TrialState,
        values: Sequence[float] | None = None,
        constraints: Mapping[str, float] | None = None,
        attributes: Mapping[str, Any] | None = None,
        reports: Mapping[int, float] | None = None,
    ) -> None:
        """The trial's state is its last line: without it the trial is open still, and is ended again."""
        at = self._trial(number)
        with quiet(), writing(self.path):
            trial = optuna.trial.Trial(self.study, at)
            for name, value in (constraints or {}).items():
                trial.set_constraint(name, value)
            for key, value in (attributes or {}).items():
                self.storage.set_trial_system_attr(at, key, value)
            for epoch, value in (reports or {}).items():
                self.storage.set_trial_intermediate_value(at, epoch, value)
            self.storage.set_trial_state_values(at, state, values)

    def _trial(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self._id, number)


class FileLock(JournalFileOpenLock):
    """The kernel's lock on the journal itself."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def acquire(self) -> bool:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        assert self._file is not None
        os.close(self._file)  # and with it the lock
        self._file = None


def mend(path: Path) -> None:
    """Cut off what a kill tore; ``UserError`` for a file that was damaged otherwise."""
    if not path.exists():
        return
    lock = FileLock(path)
    lock.acquire()
    try:
        text = path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        lines = whole.splitlines(keepends=True)
        while lines and not _is_record(lines[-1]):
            lines.pop()
        for number, line in enumerate(lines, start=1):
            if not _is_record(line):
                hint = "put a copy of it back, or begin another search (--out)"
                raise UserError(Problem(f"{path}:{number}: damaged: no record of Optuna's", hint=hint))
        kept = sum(map(len, lines))
        if kept < len(text):
            with path.open("rb+") as file:
                file.truncate(kept)
                os.fsync(file.fileno())
    finally:
        lock.release()


def _is_record(line: bytes) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return isinstance(record, dict) and "op_code" in record


@contextmanager
def quiet() -> Iterator[None]:
    """Without what Optuna logs and warns of: for as long as it is asked, and as the user has it again afterwards."""
    logger = logging.getLogger("optuna")
    level = logger.level
    if level < logging.ERROR:  # setting it takes a while, since every logger there is forgets what it knew
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if level < logging.ERROR:
            logger.setLevel(level)
