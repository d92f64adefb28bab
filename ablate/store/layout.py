"""The names in a study's folder, and what may become a path."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from ablate.disk import is_leftover
from ablate.errors import Problem, UserError

FORMAT = 2
"""The layout of the folder. An earlier one is read and goes on as this one; a later one is refused, never guessed at.

1 had neither states nor events, and an index without stamps.
"""

SPEC, CERTIFICATES, ENVIRONMENT = "spec.yaml", "certificates.json", "environment.json"
TRIALS, EXPOSURES, EVENTS, INDEX, REPORT = "trials", "exposures.jsonl", "events.jsonl", "trials.sqlite", "report"
PROPOSALS, JOURNAL = "proposals.jsonl", "optuna.jsonl"
"""Of a search: what was proposed; and Optuna's journal of it, from which the samplers learn."""
DIAGRAMS = "diagrams.json"
"""Pictures of the variants' networks: the report shows them, and can't build what they show."""
TUNING = "tuning"
"""The study, in the folder of another, of the search that tunes the variants of that one."""
TRACKING = "tracking"
"""What the study's trackers were sent."""
EXPLAINED = "explained"
"""What was drawn of its networks: attention, gates, Grad-CAM."""
LOCK = ".lock"
"""Of the study, and of each trial that somebody works on."""
TRIAL, METRICS, PREDICTIONS, CHECKPOINT, STATE, RESULT = (
    "trial.json",
    "metrics.jsonl",
    "predictions.npz",
    "checkpoint.pt",
    "state.pt",
    "result.json",
)
FILES = (TRIAL, METRICS, PREDICTIONS, CHECKPOINT)
"""What a result vouches for, of these what there is: the rest only a resume needs, or is not the trial's."""

_HASH = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_OUR_FILES = {
    *(SPEC, CERTIFICATES, ENVIRONMENT, DIAGRAMS, TRIALS, EXPOSURES, EVENTS, PROPOSALS, JOURNAL, TUNING, REPORT, LOCK),
    TRACKING,
    EXPLAINED,
    *(INDEX + suffix for suffix in ("", "-wal", "-shm", "-journal")),
}


def is_hash(hash: object) -> bool:
    """Whether this is a trial's hash."""
    return isinstance(hash, str) and _HASH.fullmatch(hash) is not None


def is_name(name: object) -> bool:
    """Whether this is a plain name of a folder or a file."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def study_folder(runs: Path, name: str) -> Path:
    """``runs/name``, for a name that is a plain folder name; anything else is refused (UserError)."""
    if not is_name(name):
        raise UserError(
            Problem(f"{name!r} cannot name a folder", hint="letters, digits, '_', '-' and '.', at most 100")
        )
    return runs / name


def is_study(folder: Path) -> bool:
    """Whether the folder is a study's, of whatever state."""
    return os.path.isfile(folder / SPEC)


def trial_folder(study: Path, hash: str) -> Path:
    """The trial's folder, whether or not it exists. A hash that is not 32 hex characters is refused (UserError)."""
    if not is_hash(hash):
        raise UserError(f"{hash!r} is no trial's hash: 32 characters of 0-9 and a-f were expected")
    folder = study / TRIALS / hash
    if folder.is_symlink():
        raise UserError(f"{folder} is a link: a trial's folder is a folder of its study")
    return folder


def trials_in(study: Path) -> list[str]:
    """The hashes of all trials that have a folder, in order; links are none."""
    try:
        with os.scandir(study / TRIALS) as entries:
            return sorted(entry.name for entry in entries if is_hash(entry.name) and not entry.is_symlink())
    except OSError:
        return []


def trial_files(folder: Path) -> list[Path]:
    """What a result of the trial vouches for now."""
    paths = [folder / name for name in FILES]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


def owned(paths: list[Path]) -> bool:
    """Whether all of these exist, are no links, belong to the user, and are not open to everybody's writing."""
    try:
        return all(_own(path.lstat()) for path in paths)
    except OSError:
        return False


def _own(found: os.stat_result) -> bool:
    return not stat.S_ISLNK(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & stat.S_IWOTH


def refuse_foreign(folder: Path) -> None:
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
