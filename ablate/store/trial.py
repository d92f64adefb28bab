"""One trial's folder, as its worker writes it, and the result that its sweep writes last."""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.disk import (
    InUseError,
    append,
    locked,
    remove_leftovers,
    remove_lock,
    settled_checksum,
    write,
    write_json,
    writing,
)
from ablate.outcomes import RESULTS, RESUMABLE
from ablate.store.layout import (
    CHECKPOINT,
    LOCK,
    METRICS,
    PREDICTIONS,
    RESULT,
    STATE,
    TRIAL,
    owned,
    trial_files,
)
from ablate.store.records import plain, read_json, read_lines, regular, sealed
from ablate.store.stamps import Stamp, settled, stamp

if TYPE_CHECKING:
    import numpy as np


class TrialFolder:
    """The files of the trial of that hash, and the order in which they come and go."""

    def __init__(self, path: Path, hash: str) -> None:
        self.path = path
        self.hash = hash

    @contextmanager
    def working(self, patience: float) -> Iterator[None]:
        """The sole right to write the folder, waited for so many seconds; ``InUseError`` says who has it."""
        self._make()
        with locked(self.path, LOCK, patience=patience, hint="it outlived its sweep: end it, or wait for it"):
            yield

    def begin(self, trial: dict[str, Any], *, resume: bool) -> None:
        self._make()
        self.clear(METRICS, STATE, kept=resume)
        remove_leftovers(self.path)
        write_json(self.path / TRIAL, trial)

    def clear(self, *progress: str, kept: bool = False) -> None:
        """Remove what an attempt left, its result first; ``progress``, too, unless it is to be ``kept``."""
        with writing(self.path):
            for name in (RESULT, PREDICTIONS, CHECKPOINT, *(() if kept else progress)):
                (self.path / name).unlink(missing_ok=True)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        append(self.path / METRICS, row)

    def rewrite_metrics(self, rows: Iterable[Mapping[str, Any]]) -> None:
        write(self.path / METRICS, *(json.dumps(row).encode() + b"\n" for row in rows))

    def save_predictions(self, arrays: Mapping[str, np.ndarray]) -> None:
        import numpy as np

        if any(np.asarray(array).dtype.hasobject for array in arrays.values()):
            raise ValueError("predictions are arrays of numbers; objects would have to be pickled")
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]  # its stub takes a name for a flag
        write(self.path / PREDICTIONS, buffer.getvalue())

    def save_checkpoint(self, content: bytes) -> None:
        write(self.path / CHECKPOINT, content)

    def save_state(self, content: bytes) -> None:
        write(self.path / STATE, hashlib.sha256(content).hexdigest().encode() + b"\n", content)

    def state(self) -> bytes | None:
        """What ``save_state`` was given; None where there is none. ValueError for a damaged one."""
        try:
            with open(self.path / STATE, "rb", opener=regular) as file:
                expected, content = file.readline(100), file.read()
        except FileNotFoundError:
            return None
        if expected != hashlib.sha256(content).hexdigest().encode() + b"\n":
            raise ValueError(f"{STATE} is not as it was written")
        return content

    def drop_state(self) -> None:
        with writing(self.path):
            (self.path / STATE).unlink(missing_ok=True)

    def finish(self, result: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Stamp]]:
        """Write the result, with the checksums of the other files; it and the stamps to remember are returned."""
        if result.get("status") not in RESULTS:
            raise ValueError(f"status {result.get('status')!r} is none of {', '.join(RESULTS)}")
        self._make()
        now, stamps = time.time_ns(), {}
        with writing(self.path):
            paths = trial_files(self.path)
            for path in paths:
                found = stamp(str(path))
                if found is not None and settled(found, now):
                    stamps[path.name] = found
            files = {path.name: settled_checksum(path) for path in paths}
        record = plain({**result, "trial": self.hash, "files": files})
        write_json(self.path / RESULT, sealed(record))
        if record["status"] not in RESUMABLE:
            self.drop_state()
        remove_lock(self.path, LOCK)
        return record, stamps

    def take(self, source: Path, result: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Stamp]] | None:
        """Copy the trial of this result from a folder; what ``finish`` returns.

        None, and nothing is changed: a file is missing, another or not the user's, or somebody works on this trial.
        """
        contents = _contents(source, result["files"])
        if contents is None:
            return None
        try:
            with self.working(patience=0.0):
                self.clear(METRICS, STATE, TRIAL)
                for name, content in contents.items():
                    write(self.path / name, content)
                ended = self.finish({key: value for key, value in result.items() if key != "files"})
        except InUseError:
            return None
        remove_lock(self.path, LOCK)
        return ended

    def rows(self) -> tuple[list[dict[str, Any]], str]:
        """The epochs written so far, and what is wrong; half a line of a process that was killed is not."""
        from ablate.store.schemas import RowRecord, wrong_with

        try:
            rows, bad = read_lines(self.path / METRICS)
        except OSError as error:
            return [], f"{METRICS}: {error.strerror or error}"
        if bad and bad != [len(rows) + 1]:
            return [], f"{METRICS}: line {bad[0]} is not JSON"
        if wrong := wrong_with(rows, list[RowRecord]):
            return [], f"{METRICS}: {wrong}"
        return rows, ""

    def begun(self) -> dict[str, Any] | None:
        """What ``begin`` was given; None where it never ended. ValueError for a damaged one."""
        try:
            trial = read_json(self.path / TRIAL)
        except FileNotFoundError:
            return None
        if not isinstance(trial, dict):
            raise ValueError(f"{TRIAL} is no record")
        return trial

    def _make(self) -> None:
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)


def _contents(folder: Path, files: Mapping[str, str]) -> dict[str, bytes] | None:
    """What these files, by name with their sha256, hold; None: one is missing, another, or not the user's.

    A checkpoint may be missing. Should somebody remove the folder meanwhile, then what is read last is missing, too.
    """
    paths = [folder / name for name in files if name != CHECKPOINT or os.path.lexists(folder / name)]
    try:
        contents = {path.name: path.read_bytes() for path in paths}
    except OSError:
        return None
    sound = all(hashlib.sha256(content).hexdigest() == files[name] for name, content in contents.items())
    return contents if sound and owned([folder, *paths]) else None
