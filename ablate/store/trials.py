"""One trial of a study: what its worker writes, and what its sweep records and reads."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.disk import UNREADABLE
from ablate.errors import Problem, UserError
from ablate.store.keeping import Keeper
from ablate.store.layout import CHECKPOINT, METRICS, PREDICTIONS, RESULT, STATE, TRIALS, owned, trial_folder
from ablate.store.stamps import Stamp, checked_result
from ablate.store.trial import TrialFolder

if TYPE_CHECKING:
    import numpy as np


class Trials:
    """The trials in a study's folder, each by its hash. ``damaged``: what was found damaged → why."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.damaged: dict[str, str] = {}
        self._held: tuple[int, Keeper] | None = None

    @property
    def _keeper(self) -> Keeper | None:
        """Of the process that holds the study; a child that was forked from it holds nothing."""
        return self._held[1] if self._held and self._held[0] == os.getpid() else None

    # One trial: written by who works on it.

    def trial_folder(self, hash: str) -> Path:
        """The trial's folder, whether or not it exists. A hash that is not 32 hex characters is refused (UserError)."""
        return trial_folder(self.folder, hash)

    def _trial(self, hash: str) -> TrialFolder:
        return TrialFolder(self.trial_folder(hash), hash)

    def working(self, hash: str, patience: float = 180.0) -> AbstractContextManager[None]:
        """The sole right to write this trial's folder: a worker that outlived its sweep has it for as long as it lives.

        It is waited for, ``patience`` seconds; then an InUseError says who has it.
        """
        return self._trial(hash).working(patience)

    def begin(self, trial: dict[str, Any], *, resume: bool = False) -> None:
        """Record that ``trial`` (``hash`` and, say, ``attempt`` among its keys) is about to run.

        What an earlier attempt left behind is removed, its result first; with ``resume`` all but its metrics and the
        state from which it goes on.
        """
        self._trial(trial["hash"]).begin(trial, resume=resume)

    def append_metrics(self, hash: str, row: Mapping[str, Any]) -> None:
        """One line for ``metrics.jsonl``: an epoch and what was measured in it."""
        self._trial(hash).append_metrics(row)

    def rewrite_metrics(self, hash: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Replace ``metrics.jsonl`` whole: a trial that goes on has the epochs up to its state, and no more."""
        self._trial(hash).rewrite_metrics(rows)

    def save_predictions(self, hash: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Per-example arrays, by name: plain numbers only, never objects."""
        self._trial(hash).save_predictions(arrays)

    def save_checkpoint(self, hash: str, content: bytes) -> None:
        """The weights, as a file that ``torch.load(weights_only=True)`` reads."""
        self._trial(hash).save_checkpoint(content)

    def save_state(self, hash: str, content: bytes) -> None:
        """Replace that from which the trial goes on when it is cut off."""
        self._trial(hash).save_state(content)

    def state(self, hash: str) -> bytes | None:
        """What ``save_state`` was given last; None where there is none, or a damaged one, which ``damaged`` names."""
        name = _file(hash, STATE)
        self.damaged.pop(name, None)
        try:
            return self._trial(hash).state()
        except (OSError, ValueError) as error:
            self.damaged[name] = str(error)
            return None

    def drop_state(self, hash: str) -> None:
        """Remove the state, if there is one."""
        self._trial(hash).drop_state()

    # One trial: its result.

    def note_begun(self, hash: str, attempt: int) -> None:
        """Count an attempt in the index, whatever becomes of its worker. For who holds the study."""
        if self._keeper:
            self._keeper.begun(hash, attempt)

    def finish(self, hash: str, result: Mapping[str, Any]) -> None:
        """Write ``result.json``: last, atomically, with the checksums of the trial's other files.

        ``result["status"]`` is one of ``outcomes.RESULTS``. From here on the trial has ended; its state stays only if
        it could go on.
        """
        self._ended(hash, *self._trial(hash).finish(result))

    def _ended(self, hash: str, record: dict[str, Any], stamps: dict[str, Stamp]) -> None:
        self.damaged.pop(hash, None)
        if self._keeper:
            self._keeper.finished(hash, record, stamps)

    def result(self, hash: str) -> dict[str, Any] | None:
        """What ``finish`` was given, and ``files``: name → sha256. None where there is none, or a damaged one.

        Every file of the trial is read. A checkpoint that was deleted to save space is no damage, as no number depends
        on it; one that was altered is.
        """
        folder = self.trial_folder(hash)
        self.damaged.pop(hash, None)
        try:
            return checked_result(folder, hash, {}, {})
        except (OSError, ValueError) as error:
            self.damaged[hash] = str(error)
            return None

    def metrics(self, hash: str, result: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """The rows of ``metrics.jsonl``: of a trial that still runs, those written so far.

        None of a damaged one, nor where its result does not vouch for them. ``result``: what ``results`` gave of it, so
        that no other file of the trial has to be read.
        """
        trial = self._trial(hash)
        if (result is not None or (trial.path / RESULT).exists()) and not self._is_vouched(hash, METRICS, result):
            return []
        rows, wrong = trial.rows()
        if wrong:
            self.damaged[hash] = wrong
        return rows

    def predictions(self, hash: str, result: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
        """The arrays that were saved; none where no sound result vouches for them. ``result`` as for ``metrics``."""
        import numpy as np

        if not self._is_vouched(hash, PREDICTIONS, result):
            return {}
        try:
            with (
                (self.trial_folder(hash) / PREDICTIONS).open("rb") as file,
                np.load(file, allow_pickle=False) as arrays,
            ):
                return {name: arrays[name] for name in arrays.files}
        except UNREADABLE as error:
            self.damaged[hash] = f"{PREDICTIONS}: {error}"
            return {}

    def weights(self, hash: str) -> Path:
        """The file of the weights that a finished trial ended with, as it was written; ``UserError`` without one."""
        result = self.result(hash)
        if result is None or result["status"] != "finished":
            why = self.damaged.get(hash) or (f"its status is {result['status']}" if result else "it has no result")
            raise UserError(f"trial {hash} of {self.folder} has no weights: {why}")
        if CHECKPOINT not in result["files"]:
            raise UserError(f"trial {hash} of {self.folder} has no weights: its result vouches for none")
        path = self.trial_folder(hash) / CHECKPOINT
        if not path.is_file():
            message = f"the weights of trial {hash} of {self.folder} were deleted"
            raise UserError(Problem(message, hint="train it again, in another folder"))
        return path

    def adopt(self, hash: str, other: Path) -> bool:
        """Copy a finished trial from another study's folder, so that it is not trained twice.

        False where it has none, or somebody works on this one here. Only what the user owns is taken: a stranger's
        folder may claim any number.
        """
        source = trial_folder(other, hash)
        if not owned([other, other / TRIALS, source, source / RESULT]):
            return False
        result = None
        with suppress(OSError, ValueError):
            result = checked_result(source, hash, {}, {})
        if result is None or result["status"] != "finished":
            return False
        taken = self._trial(hash).take(source, result)
        if taken is None:
            return False
        self._ended(hash, *taken)
        return True

    def _is_vouched(self, hash: str, name: str, result: Mapping[str, Any] | None) -> bool:
        """Whether a sound result vouches for this file as it is. ``result`` is one; else it is read, with all files."""
        if result is None:
            result = self.result(hash)
            return result is not None and name in result["files"]
        if name not in result.get("files", {}):
            return False
        try:
            with (self.trial_folder(hash) / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == result["files"][name]:
                    return True
            self.damaged[hash] = f"{name} is not as it was written"
        except OSError as error:
            self.damaged[hash] = f"{name}: {error.strerror}"
        return False


def _file(hash: str, name: str) -> str:
    """How ``damaged`` names a file of a trial that is not its result's."""
    return f"{TRIALS}/{hash}/{name}"
