"""The store: a study's folder, and the only file that knows its paths.

    runs/placement/
      spec.yaml          the resolved spec             environment.json   packages, git commit, devices
      certificates.json  the variants' records         trials.sqlite      an index, rebuilt from the folders at will
      trials/<hash>/     trial.json, metrics.jsonl, predictions.npz, checkpoint.pt; result.json last
      exposures.jsonl    every reading of the test split
      report/            table.md, table.tex, table.csv

The folder is the truth. A file is replaced whole or not at all; a result carries the checksums of its trial's files,
so that damage is found and never read as a result. JSON is Python's dialect: a diverged loss is ``NaN``, as it was.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate import yamlfile
from ablate.disk import append, is_leftover, locked, remove_leftovers, settled_checksum, write, write_json, writing
from ablate.errors import Problem, UserError

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1
"""The layout of the folder. A study of a later format is refused, never guessed at."""

SPEC, CERTIFICATES, ENVIRONMENT = "spec.yaml", "certificates.json", "environment.json"
TRIALS, EXPOSURES, INDEX, REPORT, LOCK = "trials", "exposures.jsonl", "trials.sqlite", "report", ".lock"
TRIAL, METRICS, PREDICTIONS, CHECKPOINT, RESULT = (
    "trial.json",
    "metrics.jsonl",
    "predictions.npz",
    "checkpoint.pt",
    "result.json",
)
STATUSES = ("finished", "diverged", "crashed")
MAY_CHANGE = (
    "report",
    "paper",
    "ablation.seeds",
    "data.root",
    "data.download",
    "network.init.download",
    "execution.max_concurrent",
)
"""What may differ when a study is resumed: how it is read, where its files lie, and how often it is repeated."""

_HASH = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_OUR_FILES = {SPEC, CERTIFICATES, ENVIRONMENT, TRIALS, EXPOSURES, INDEX, f"{INDEX}-wal", f"{INDEX}-shm", REPORT, LOCK}


def study_folder(runs: Path, name: str) -> Path:
    """``runs/name``, for a name that is a plain folder name; anything else is refused (UserError)."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(
            Problem(f"{name!r} cannot name a folder", hint="letters, digits, '_', '-' and '.', at most 100")
        )
    return runs / name


class Study:
    """All trials of one spec, as they lie on the disk.

    ``spec`` is the resolved spec, ``variants`` the variants' records in the order of the table, ``environment`` what
    the trials ran on. ``damaged`` names what was found damaged since then: a trial's hash, or a file → why.

    One process writes (it ``hold``s the study); any number read.
    """

    def __init__(
        self, folder: Path, spec: dict[str, Any], variants: list[dict[str, Any]], environment: dict[str, Any]
    ) -> None:
        self.folder = folder
        self.spec = spec
        self.variants = variants
        self.environment = environment
        self.damaged: dict[str, str] = {}

    @classmethod
    def create(
        cls, folder: Path, spec: dict[str, Any], variants: list[dict[str, Any]], environment: dict[str, Any]
    ) -> Study:
        """A new study, or an existing one of the same spec, whose records are brought up to date.

        Errors (UserError): the folder holds a study of another spec, or something that is no study; another process
        holds it; it cannot be written.
        """
        spec, variants, environment = _plain(spec), _plain(variants), _plain(environment)
        _check_variants(variants)
        if not is_study(folder):
            _refuse_foreign(folder)
        with writing(folder):
            (folder / TRIALS).mkdir(parents=True, exist_ok=True)
        with locked(folder, LOCK):
            remove_leftovers(folder)
            if is_study(folder):
                _refuse_later_format(folder)
                old = _plain(yamlfile.load(folder / SPEC))
                _refuse_another_spec(folder, old, spec)
                _refuse_fewer_seeds(folder, old, spec)
            write_json(folder / ENVIRONMENT, {"format": FORMAT, "environment": environment})
            write_json(folder / CERTIFICATES, {"format": FORMAT, "variants": variants})
            # Last, since it is what makes the folder a study.
            write(folder / SPEC, f"# ablate study, format {FORMAT}\n{yamlfile.dump(spec)}".encode())
        return cls(folder, spec, variants, environment)

    @classmethod
    def open(cls, folder: Path) -> Study:
        """The study in ``folder``; nothing is written. Errors (UserError): none there, damaged, of a later format."""
        if not is_study(folder):
            raise UserError(Problem(f"{folder} is no study: it has no {SPEC}", hint="name a folder that a sweep wrote"))
        certificates, environment = (_read_record(folder / name) for name in (CERTIFICATES, ENVIRONMENT))
        variants = certificates.get("variants")
        if not isinstance(variants, list):
            raise UserError(f"{folder / CERTIFICATES} is damaged: it lists no variants")
        _check_variants(variants)
        spec = _plain(yamlfile.load(folder / SPEC))
        return cls(folder, spec, variants, dict(environment.get("environment") or {}))

    @contextmanager
    def hold(self) -> Iterator[None]:
        """The right to write, for this process alone; a second one gets a UserError that names the first.

        The kernel gives the lock back when the process ends in whatever way, so that none is ever stale.
        """
        with locked(self.folder, LOCK):
            yield

    def trial_folder(self, hash: str) -> Path:
        """The trial's folder, whether or not it exists. A hash that is not 32 hex characters is refused (UserError)."""
        if not isinstance(hash, str) or not _HASH.fullmatch(hash):
            raise UserError(f"{hash!r} is no trial's hash: 32 characters of 0-9 and a-f were expected")
        folder = self.folder / TRIALS / hash
        if folder.is_symlink():
            raise UserError(f"{folder} is a link: a trial's folder is a folder of its study")
        return folder

    def begin(self, trial: dict[str, Any]) -> None:
        """Record that ``trial`` (its ``hash`` among its keys) is about to run, from its first step.

        What an earlier attempt left behind is removed, its result first.
        """
        folder = self.trial_folder(trial["hash"])
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for name in (RESULT, METRICS, PREDICTIONS, CHECKPOINT):
                (folder / name).unlink(missing_ok=True)
        remove_leftovers(folder)
        write_json(folder / TRIAL, trial)

    def append_metrics(self, hash: str, row: Mapping[str, Any]) -> None:
        """One line for ``metrics.jsonl``: an epoch and what was measured in it."""
        append(self.trial_folder(hash) / METRICS, row)

    def save_predictions(self, hash: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Per-example arrays, by name: plain numbers only, never objects."""
        import numpy as np

        if any(np.asarray(array).dtype.hasobject for array in arrays.values()):
            raise ValueError("predictions are arrays of numbers; objects would have to be pickled")
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]  # its stub takes a name for a flag
        write(self.trial_folder(hash) / PREDICTIONS, buffer.getvalue())

    def save_checkpoint(self, hash: str, content: bytes) -> None:
        """The weights, as a file that ``torch.load(weights_only=True)`` reads."""
        write(self.trial_folder(hash) / CHECKPOINT, content)

    def finish(self, hash: str, result: Mapping[str, Any]) -> None:
        """Write ``result.json``: last, atomically, with the checksums of the trial's other files.

        ``result["status"]`` is one of ``STATUSES``. From here on the trial counts as done.
        """
        if result.get("status") not in STATUSES:
            raise ValueError(f"status {result.get('status')!r} is none of {', '.join(STATUSES)}")
        folder = self.trial_folder(hash)
        with writing(folder):
            files = {path.name: settled_checksum(path) for path in _trial_files(folder)}
        record = _plain({**result, "trial": hash, "files": files})
        write_json(folder / RESULT, {**record, "checksum": _checksum(record)})
        self.damaged.pop(hash, None)

    def result(self, hash: str) -> dict[str, Any] | None:
        """What ``finish`` was given, and ``files``: name → sha256. None where there is none, or a damaged one.

        A checkpoint that was deleted to save space is no damage, as no number depends on it; one that was altered is.
        """
        folder = self.trial_folder(hash)
        self.damaged.pop(hash, None)
        if not os.path.lexists(folder / RESULT):
            return None
        try:
            return _read_result(folder, hash)
        except (OSError, ValueError) as error:
            self.damaged[hash] = str(error)
            return None

    def metrics(self, hash: str) -> list[dict[str, Any]]:
        """The rows of ``metrics.jsonl``: of a trial that still runs, those written so far; of a damaged one, none."""
        folder = self.trial_folder(hash)
        if (folder / RESULT).exists() and self.result(hash) is None:
            return []
        rows, bad = _read_lines(folder / METRICS)
        # A process that was killed leaves half a line at the end at most; anything else is damage.
        if bad and bad != [len(rows) + 1]:
            self.damaged[hash] = f"{METRICS}: line {bad[0]} is not JSON"
            return []
        return rows

    def predictions(self, hash: str) -> dict[str, np.ndarray]:
        """The arrays that were saved; none where there are none, or the trial has no sound result."""
        import numpy as np

        path = self.trial_folder(hash) / PREDICTIONS
        if self.result(hash) is None or not path.exists():
            return {}
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    def weights(self, hash: str) -> Path:
        """The file of the weights that a finished trial ended with, as it was written; ``UserError`` without one."""
        result = self.result(hash)
        if result is None or result["status"] != "finished":
            why = self.damaged.get(hash) or (f"it {result['status']}" if result else "it has no result")
            raise UserError(f"trial {hash} of {self.folder} has no weights: {why}")
        path = self.trial_folder(hash) / CHECKPOINT
        if not path.is_file():
            message = f"the weights of trial {hash} of {self.folder} were deleted"
            raise UserError(Problem(message, hint="train it again, in another folder"))
        return path

    def adopt(self, hash: str, other: Path) -> bool:
        """Copy a finished trial from another study's folder, so that it is not trained twice. False where it has none.

        Only what the user owns is taken: a stranger's folder may claim any number.
        """
        source = Study(other, {}, [], {})
        folder, target = source.trial_folder(hash), self.trial_folder(hash)
        result = source.result(hash) if _owned([other, other / TRIALS, folder, folder / RESULT]) else None
        if result is None or result["status"] != "finished":
            return False
        paths = [folder / name for name in result["files"] if (folder / name).exists()]
        if not _owned(paths):
            return False
        with writing(target):
            target.mkdir(parents=True, exist_ok=True)
            (target / RESULT).unlink(missing_ok=True)
            for path in paths:
                write(target / path.name, path.read_bytes())
        if any(settled_checksum(target / path.name) != result["files"][path.name] for path in paths):
            return False
        self.finish(hash, {key: value for key, value in result.items() if key != "files"})
        return True

    def results(self) -> dict[str, dict[str, Any]]:
        """Every sound result in the folder, by the trial's hash."""
        found = {hash: self.result(hash) for hash in self._hashes()}
        return {hash: result for hash, result in found.items() if result is not None}

    def expose(self, **record: Any) -> None:
        """Put a reading of the test split on record: by, trial, variant, seed, epochs; ``time`` is now."""
        append(self.folder / EXPOSURES, {"time": datetime.now(UTC).isoformat(timespec="seconds"), **record})

    def exposures(self) -> list[dict[str, Any]]:
        """Every reading on record, in order. A damaged line is left out and told in ``damaged``."""
        rows, bad = _read_lines(self.folder / EXPOSURES)
        self.damaged.pop(EXPOSURES, None)
        if bad:
            self.damaged[EXPOSURES] = f"not JSON: line {', '.join(map(str, bad))}"
        return rows

    def save_report(self, name: str, text: str) -> Path:
        """``report/name``, replaced whole."""
        if not _NAME.fullmatch(name):
            raise UserError(f"{name!r} cannot name a file of the report")
        path = self.folder / REPORT / name
        with writing(path.parent):
            path.parent.mkdir(exist_ok=True)
        write(path, text.encode())
        return path

    def index(self) -> Path:
        """Rebuild ``trials.sqlite`` from the folders, in one transaction; a damaged file is replaced."""
        path = self.folder / INDEX
        with writing(self.folder):
            try:
                self._fill(path)
            except sqlite3.OperationalError as error:
                raise UserError(f"cannot write {path}: {error}") from error
            except sqlite3.DatabaseError:
                for suffix in ("", "-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
                self._fill(path)
        return path

    def _fill(self, path: Path) -> None:
        results = self.results()
        hashes = self._hashes()
        with closing(sqlite3.connect(path, timeout=60)) as database:
            database.execute("PRAGMA journal_mode=WAL")
            with database:
                for table, columns in _TABLES.items():
                    database.execute(f"DROP TABLE IF EXISTS {table}")
                    database.execute(f"CREATE TABLE {table} ({columns})")
                database.executemany("INSERT INTO variants VALUES (?,?,?,?)", _variant_rows(self.variants))
                database.executemany(
                    "INSERT INTO trials VALUES (?,?,?,?,?,?,?,?)",
                    [_trial_row(hash, results.get(hash), hash in self.damaged) for hash in hashes],
                )
                measured = [(h, n, v) for h, r in results.items() for n, v in r.get("metrics", {}).items()]
                database.executemany("INSERT INTO metrics VALUES (?,?,?)", measured)

    def _hashes(self) -> list[str]:
        folder = self.folder / TRIALS
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        return [name for name in names if _HASH.fullmatch(name) and not (folder / name).is_symlink()]


_TABLES = {
    "variants": "name TEXT, seed TEXT, trial TEXT, duplicate_of TEXT, PRIMARY KEY (name, seed)",
    "trials": "hash TEXT PRIMARY KEY, status TEXT, epochs INTEGER, selected_epoch INTEGER, seconds REAL, "
    "images_per_second REAL, test_readings INTEGER, error TEXT",
    "metrics": "trial TEXT, name TEXT, value REAL, PRIMARY KEY (trial, name)",
}


def _variant_rows(variants: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (variant["name"], seed, hash, variant.get("duplicate_of"))
        for variant in variants
        for seed, hash in variant["trials"].items()
    ]


def _trial_row(hash: str, result: dict[str, Any] | None, damaged: bool) -> tuple[Any, ...]:
    if result is None:
        return (hash, "damaged" if damaged else "begun", *[None] * 6)
    numbers = [result.get(key) for key in ("epochs", "selected_epoch", "seconds", "images_per_second", "test_readings")]
    error = result.get("error")
    return (hash, result["status"], *numbers, f"{error.get('type')}: {error.get('message')}" if error else None)


def _check_variants(variants: list[dict[str, Any]]) -> None:
    for variant in variants:
        for hash in variant["trials"].values():
            if not isinstance(hash, str) or not _HASH.fullmatch(hash):
                raise UserError(f"variant {variant['name']!r}: {hash!r} is no trial's hash")


def _owned(paths: list[Path]) -> bool:
    """Whether all of these exist, are no links, and belong to the user."""
    try:
        return all(not path.is_symlink() and path.stat().st_uid == os.geteuid() for path in paths)
    except OSError:
        return False


def begun_with(folder: Path, spec: Mapping[str, Any]) -> dict[str, Any] | None:
    """The numerics that a study of this very spec was begun with in the folder; None where there is no such study."""
    if not is_study(folder):
        return None
    old, new = _plain(yamlfile.load(folder / SPEC)), _plain(dict(spec))
    numerics = old.pop("numerics", None)
    new.pop("numerics", None)
    same = all(_may_change(path) for path in _differences(old, new))
    return numerics if same and isinstance(numerics, dict) else None


def is_study(folder: Path) -> bool:
    """Whether the folder is a study's, of whatever state."""
    return os.path.isfile(folder / SPEC)


def _refuse_later_format(folder: Path) -> None:
    """A damaged record is no reason to refuse here: it is about to be written anew."""
    for name in (CERTIFICATES, ENVIRONMENT):
        with suppress(OSError, ValueError):
            record = _read_json(folder / name)
            if isinstance(record, dict):
                _check_format(folder / name, record.get("format"))


def _check_format(path: Path, format: Any) -> None:
    if isinstance(format, int) and format > FORMAT:
        raise UserError(f"{path} has format {format}, and this ablate reads up to {FORMAT}: update ablate")


def _refuse_foreign(folder: Path) -> None:
    """A folder that holds other things is somebody's; a study is not spread among them."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"cannot use {folder} for a study: {error.strerror}") from error
    foreign = sorted(name for name in names if name not in _OUR_FILES and not is_leftover(name))
    if foreign:
        raise UserError(
            Problem(f"{folder} is no study and not empty: it holds {foreign[0]!r}", hint="choose another --out")
        )


def _refuse_another_spec(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    paths = [path for path in _differences(old, new) if not _may_change(path)]
    if not paths:
        return
    shown = ", ".join(paths[:5]) + (f", … ({len(paths)} in all)" if len(paths) > 5 else "")
    raise UserError(
        Problem(f"{folder} holds a study of another spec: they differ in {shown}", hint="choose another --out")
    )


def _refuse_fewer_seeds(folder: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """A seed that was seen can't be left out afterwards."""
    before, after = (_seeds(spec) for spec in (old, new))
    gone = sorted(before - after)
    if gone:
        shown = ", ".join(map(str, gone))
        raise UserError(
            Problem(
                f"{folder} was begun with seed {shown} too: seeds can be added, not taken away",
                hint="choose another --out",
            )
        )


def _seeds(spec: dict[str, Any]) -> set[int]:
    seeds = (spec.get("ablation") or {}).get("seeds", 1)
    return set(range(seeds)) if isinstance(seeds, int) else set(seeds)


def _may_change(path: str) -> bool:
    return any(path == free or path.startswith(f"{free}.") for free in MAY_CHANGE)


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Dotted paths at which two trees of plain data differ. ``True`` is not 1, and 1 is not 1.0."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if json.dumps(old) == json.dumps(new) else [path]
    found: list[str] = []
    for key in [*old, *(key for key in new if key not in old)]:
        below = f"{path}.{key}" if path else str(key)
        if key in old and key in new:
            found += _differences(old[key], new[key], below)
        else:
            found += _leaves(old.get(key, new.get(key)), below)
    return found


def _leaves(tree: Any, path: str) -> list[str]:
    """The paths of a subtree that only one side has, so that ``ablation.seeds`` is seen in a missing ``ablation``."""
    if isinstance(tree, dict) and tree:
        return [leaf for key, below in tree.items() for leaf in _leaves(below, f"{path}.{key}")]
    return [path]


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON: {error}") from error


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = _read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or missing: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("format"), int):
        raise UserError(f"{path} is damaged: it states no format")
    _check_format(path, record["format"])
    return record


def _read_result(folder: Path, hash: str) -> dict[str, Any]:
    """The result, checked against itself and its trial's files; ValueError says what is wrong."""
    record = _read_json(folder / RESULT)
    if not isinstance(record, dict) or record.pop("checksum", None) != _checksum(record):
        raise ValueError(f"{RESULT} is not as it was written")
    if record.pop("trial", None) != hash:
        raise ValueError(f"{RESULT} is another trial's")
    for name, expected in record["files"].items():
        path = folder / name
        if name == CHECKPOINT and not path.exists():
            continue
        if not path.is_file() or path.is_symlink():
            raise ValueError(f"{name} is missing")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                raise ValueError(f"{name} is not as it was written")
    return record


def _read_lines(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The rows of a ``.jsonl`` file, and the numbers (from 1) of lines that are none; without a file, nothing."""
    rows: list[dict[str, Any]] = []
    bad: list[int] = []
    with suppress(FileNotFoundError):
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict):
                rows.append(row)
            else:
                bad.append(number)
    return rows, bad


def _plain(data: Any) -> Any:
    """Plain JSON data: what is compared, hashed and returned is what will be read back."""
    return json.loads(json.dumps(data))


def _checksum(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _trial_files(folder: Path) -> list[Path]:
    paths = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.is_symlink()]
    return [path for path in paths if path.name != RESULT and not is_leftover(path.name)]
