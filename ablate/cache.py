"""Finished trials, kept in the user's cache folder: what one study has trained no other study trains again.

    ~/.cache/ablate/trials/<code>/trials/<hash>/    the trial's files, as in its study

A trial is known by its hash and by the ``code`` that trained it (``code.code_digest``, recorded in its ``trial.json``)
and is taken only by the same code: after an update everything is trained anew, and an older version finds what it had
made. An entry is made beside its place and renamed, and from then on its files are never written; whoever removes
it renames it first. So there are no locks, and no entry is ever half there.

Large files are hard links where study and cache are on one file system. The store replaces those whole, so that neither
side's next write reaches the other; what it appends to is copied. What somebody alters in place is damaged in both,
and by its checksum found in both.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablate.disk import cache_folder, is_leftover, write, writing
from ablate.errors import Problem, UserError
from ablate.store import CHECKPOINT, PREDICTIONS, RESULT, TRIAL, TRIALS, Study
from ablate.store.layout import is_hash, owned
from ablate.store.records import read_json

VARIABLE = "ABLATE_CACHE"
"""The environment variable that names another folder, or is ``off``."""
DAY = 86400  # seconds
LINKED = (PREDICTIONS, CHECKPOINT)
"""What the store only ever replaces whole."""


@dataclass(frozen=True)
class Entry:
    """A trial in the cache. Sizes are in bytes, times in seconds since 1970.

    ``own`` is what removing it sets free, ``shared`` what a study holds as well; ``made`` is when it was kept here,
    ``used`` when it was last taken, or given again.
    """

    folder: Path
    hash: str
    code: str
    own: int
    shared: int
    made: float
    used: float
    study: str
    variant: str

    @property
    def name(self) -> str:
        return f"{self.code}/{self.hash}"


@dataclass
class Freed:
    """What ``gc`` removed; of the damaged ones, why each was: an entry's name → what is wrong with it."""

    removed: list[Entry] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(entry.own for entry in self.removed)


def default_cache() -> Cache | None:
    """The user's cache; None where ``ABLATE_CACHE`` is ``off``. UserError where it names what cannot be one."""
    named = os.environ.get(VARIABLE, "")
    if named == "off":
        return None
    if not named:
        return Cache(cache_folder("trials"))
    folder = Path(named).expanduser()
    if os.path.lexists(folder) and not (folder.is_dir() and owned([folder.resolve()])):
        hint = f"name a folder of your own, or write {VARIABLE}=off"
        raise UserError(Problem(f"{VARIABLE}={named} is no folder of this user", hint=hint))
    return Cache(folder)


class Cache:
    """Trials by hash and code. Any number of processes may use one at once.

    Only what the user owns is given or taken, and nothing through a link: a stranger's folder may claim any number.
    The folder itself may be a link.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    def give(self, study: Study, hash: str) -> bool:
        """Keep a trial of a study. Whether the cache has it now; what did not finish it never keeps.

        A cache that can't be written (full, read-only) keeps nothing: no sweep fails for it.
        """
        result, source = study.result(hash), study.trial_folder(hash)
        code = _code_of(source)
        if result is None or result["status"] != "finished" or TRIAL not in result["files"] or code is None:
            return False
        paths = [source / name for name in [*result["files"], RESULT] if (source / name).exists()]
        if not owned([study.folder.resolve(), study.folder / TRIALS, source, *paths]):
            return False
        with suppress(OSError, UserError):
            return self._keep(paths, hash, code)
        return False

    def take(self, study: Study, hash: str, code: str) -> bool:
        """Copy a trial into a study, as if it had been trained there by this ``code``. False where there is none.

        UserError where the study can't be written.
        """
        if not is_hash(hash) or not is_hash(code):
            raise ValueError(f"a trial is known by two digests, not by {hash!r} and {code!r}")
        entry = self.folder / code / TRIALS / hash
        before = _stamp(entry)
        if before is None or not owned([self.folder, *entry.parents[:2], entry]) or _code_of(entry) != code:
            return False
        try:
            taken = study.adopt(hash, self.folder / code)
        except UserError:
            if _stamp(entry) == before:
                raise
            return False  # it was removed while it was read
        if taken:
            with suppress(OSError):  # removed just now, or read-only: it was taken all the same
                os.utime(entry)
        return taken

    def entries(self) -> list[Entry]:
        """All that may be taken, if it is sound; the longest unused first."""
        return sorted(self._entries(), key=lambda entry: (entry.used, entry.name))

    def verify(self) -> dict[str, str]:
        """Read every file of every entry: what is damaged → why."""
        found = ((entry, self._damage(entry)) for entry in self.entries())
        return {entry.name: why for entry, why in found if why is not None}

    def gc(self, keep: int | None = None, older: float | None = None) -> Freed:
        """Remove what is damaged, what was not used for ``older`` days, and the longest unused beyond ``keep`` bytes.

        What a study holds as well takes no room here and does not count. UserError where nothing can be removed.
        """
        freed = Freed()
        if older is not None:
            since = time.time() - older * DAY
            self._remove_all([each for each in self.entries() if each.used < since], freed)
        if keep != 0:  # nothing is read that goes anyway
            freed.damaged = self.verify()
            self._remove_all([each for each in self.entries() if each.name in freed.damaged], freed)
        if keep is not None:
            left = self.entries()
            own = sum(each.own for each in left)
            for each in left:
                if own <= keep:
                    break
                own -= each.own
                self._remove_all([each], freed)
        self._tidy()
        return freed

    def _keep(self, paths: list[Path], hash: str, code: str) -> bool:
        entry = self.folder / code / TRIALS / hash
        entry.parent.mkdir(parents=True, exist_ok=True)
        if not owned([self.folder, *entry.parents[:2]]):
            return False
        if os.path.lexists(entry):
            if Study(self.folder / code, {}, [], {}).result(hash) is not None:
                os.utime(entry)
                return True
            _remove(entry)
        beside = _beside(entry)
        try:
            beside.mkdir()
            for path in paths:
                _copy(path, beside / path.name)
            os.rename(beside, entry)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        return True

    def _entries(self) -> Iterator[Entry]:
        for code in _folders(self.folder):
            for folder in _folders(code / TRIALS):
                if owned([self.folder, code, code / TRIALS, folder]):
                    with suppress(OSError):  # it was removed just now, or is no folder
                        yield _entry(folder, code.name)

    def _damage(self, entry: Entry) -> str | None:
        before = _stamp(entry.folder)
        why = self._looked_at(entry)
        gone = _stamp(entry.folder) != before or not entry.folder.exists()
        return None if gone else why  # what was removed meanwhile is not damaged

    def _looked_at(self, entry: Entry) -> str | None:
        store = Study(self.folder / entry.code, {}, [], {})
        result = store.result(entry.hash)
        if result is None:
            return store.damaged.get(entry.hash, f"{RESULT} is missing")
        if result["status"] != "finished" or TRIAL not in result["files"]:
            return "it is no trial that finished"
        if _code_of(entry.folder) != entry.code:
            return f"{TRIAL} names other code"
        paths = [entry.folder / name for name in result["files"]]
        foreign = [path.name for path in paths if os.path.lexists(path) and not owned([path])]
        return f"{foreign[0]} is not this user's" if foreign else None

    def _remove_all(self, entries: Iterable[Entry], freed: Freed) -> None:
        for entry in entries:
            with writing(self.folder):
                if _remove(entry.folder):
                    freed.removed.append(entry)

    def _tidy(self) -> None:
        """What killed processes left behind, after a day, and folders that are empty."""
        for code in _folders(self.folder):
            entries = code / TRIALS
            with suppress(OSError):
                for path in list(entries.iterdir()):
                    if is_leftover(path.name) and path.lstat().st_mtime < time.time() - DAY:
                        shutil.rmtree(path, ignore_errors=True)
                entries.rmdir()
                code.rmdir()


def _folders(folder: Path) -> list[Path]:
    """Those that are named by a trial's hash or by a digest of code: both are 32 hexadecimal characters."""
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if is_hash(path.name))
    return []


def _entry(folder: Path, code: str) -> Entry:
    stats = [path.lstat() for path in folder.iterdir()]
    own = sum(each.st_size for each in stats if each.st_nlink == 1)
    trial = _record(folder)
    return Entry(
        folder=folder,
        hash=folder.name,
        code=code,
        own=own,
        shared=sum(each.st_size for each in stats) - own,
        made=max((each.st_mtime for each in stats), default=0.0),
        used=folder.stat().st_mtime,
        study=str(trial.get("study") or ""),
        variant=str(trial.get("variant") or ""),
    )


def _record(folder: Path) -> dict[str, Any]:
    """What the trial's ``trial.json`` says; nothing where there is none, or a damaged one."""
    with suppress(OSError, ValueError):
        record = read_json(folder / TRIAL)
        return record if isinstance(record, dict) else {}
    return {}


def _code_of(folder: Path) -> str | None:
    """The code that trained the trial, if its record names one."""
    code = _record(folder).get("code")
    return code if isinstance(code, str) and is_hash(code) else None


def _stamp(entry: Path) -> tuple[int, int] | None:
    """Another one for every entry that was ever in that place; None without a result."""
    with suppress(OSError):
        stat = (entry / RESULT).lstat()
        return stat.st_ino, stat.st_mtime_ns
    return None


def _copy(source: Path, target: Path) -> None:
    if source.name in LINKED:
        with suppress(OSError):  # another file system, or one without links
            os.link(source, target, follow_symlinks=False)
            return
    write(target, source.read_bytes())


def _beside(entry: Path) -> Path:
    return entry.with_name(f".{entry.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _remove(entry: Path) -> bool:
    """At once for all who look, by a rename; False where another process was faster."""
    beside = _beside(entry)
    try:
        os.rename(entry, beside)
    except FileNotFoundError:
        return False
    shutil.rmtree(beside, ignore_errors=True)
    return True
