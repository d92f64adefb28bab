"""``trials.sqlite``: what is asked of thousands of trials at once, so that not every file is read.

It says nothing that the folders don't say, and of a trial only for as long as its files have the stamps that it
remembers. Who holds the study writes it; where it can't be read or written, the folders are read instead.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

from ablate.disk import no_space
from ablate.store.layout import FILES, FORMAT, INDEX, RESULT
from ablate.store.records import check_format
from ablate.store.stamps import Stamp, stamp
from ablate.store.states import TrialState

BEGUN = "begun"
"""The status of a row that stands for a trial without a result."""

_TABLES = {
    "variants": "name TEXT, seed TEXT, trial TEXT, duplicate_of TEXT, PRIMARY KEY (name, seed)",
    "trials": "hash TEXT PRIMARY KEY, status TEXT, attempts INTEGER, epochs INTEGER, seconds REAL, "
    "images_per_second REAL, error TEXT, stamps TEXT",
    "metrics": "trial TEXT, name TEXT, value REAL, PRIMARY KEY (trial, name)",
}
_STAMPED = {*FILES, RESULT}
_SMALL = 64 * 1024
"""Bytes. A disk with less room is full for SQLite, which then speaks of errors of other kinds."""


@dataclass(frozen=True)
class Entry:
    """A row: a trial's state, the stamps of its files when they were verified, and what its result measured."""

    state: TrialState
    stamps: dict[str, Stamp] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    """Written; never read back, since only the result is believed."""


class Damaged(Exception):
    """The index is none, or of an earlier format: it is to be made anew."""


class Unusable(Exception):
    """There is none, or this file system or this user can't have it."""


def read(folder: Path) -> dict[str, Entry]:
    """The rows by hash, read by anybody; none without a usable index. ``UserError``: it is of a later ``ablate``."""
    try:
        return check(folder)
    except (Damaged, Unusable):
        return {}


def check(folder: Path) -> dict[str, Entry]:
    """The rows by hash. ``Damaged``, ``Unusable``; ``UserError``: it is of a later ``ablate``."""
    if not (folder / INDEX).exists():
        raise Unusable
    before = _still(folder)
    if before:
        # Without a writer no memory has to be shared with it, which would take the right to write there.
        rows = _read(folder, "mode=ro&immutable=1")
        if _still(folder) == before:
            return rows
    return _read(folder, "mode=ro")


def _read(folder: Path, how: str) -> dict[str, Entry]:
    uri = f"{(folder / INDEX).absolute().as_uri()}?{how}"
    with _told(folder), closing(sqlite3.connect(uri, uri=True, timeout=5)) as database:
        _check_version(folder, database)
        return _rows(database)


def _still(folder: Path) -> Stamp | None:
    """The stamp of an index that nobody writes; None where somebody does, or where there is none."""
    return None if (folder / f"{INDEX}-wal").exists() else stamp(str(folder / INDEX))


class Index:
    """The index, opened to be written: by one process, and one Study in it."""

    def __init__(self, folder: Path) -> None:
        """``Damaged``, ``Unusable``; ``UserError``: the disk is full, or it is of a later ``ablate``."""
        self.folder = folder
        self.new = not (folder / INDEX).exists()
        with _told(folder):
            self._database = sqlite3.connect(folder / INDEX, timeout=10, check_same_thread=False)
        try:
            with _told(folder):
                self._prepare()
        except BaseException:
            self._database.close()
            raise

    def _prepare(self) -> None:
        if not self.new:
            _check_version(self.folder, self._database)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        if self.new:
            with self._database:
                self._database.execute("BEGIN")
                for table, columns in _TABLES.items():
                    self._database.execute(f"CREATE TABLE {table} ({columns})")
                self._database.execute(f"PRAGMA user_version = {FORMAT}")

    def rows(self) -> dict[str, Entry]:
        with _told(self.folder):
            return _rows(self._database)

    def list_variants(self, variants: list[dict[str, Any]]) -> None:
        """Replace the table of which variant has which trials."""
        rows = [row for variant in variants for row in _rows_of(variant)]
        with _told(self.folder), self._database as database:
            database.execute("DELETE FROM variants")
            database.executemany("INSERT INTO variants VALUES (?,?,?,?)", rows)

    def list_variant(self, name: str, variant: Mapping[str, Any] | None) -> None:
        """Replace the trials of one variant; None: it has none any more."""
        with _told(self.folder), self._database as database:
            database.execute("DELETE FROM variants WHERE name = ?", (name,))
            database.executemany("INSERT INTO variants VALUES (?,?,?,?)", _rows_of(variant) if variant else [])

    def write(self, entries: Iterable[Entry]) -> None:
        """Replace the rows of these trials, all or none."""
        with _told(self.folder), self._database as database:
            for entry in entries:
                hash = entry.state.hash
                *state, error = astuple(entry.state)
                row = (*state, error and _storable(error), json.dumps(entry.stamps))
                database.execute("INSERT OR REPLACE INTO trials VALUES (?,?,?,?,?,?,?,?)", row)
                database.execute("DELETE FROM metrics WHERE trial = ?", (hash,))
                measured = [(hash, _storable(name), float(value)) for name, value in entry.metrics.items()]
                database.executemany("INSERT INTO metrics VALUES (?,?,?)", measured)

    def close(self) -> None:
        with _told(self.folder):
            self._database.close()


def _rows_of(variant: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    same = variant.get("duplicate_of")
    return [(variant["name"], seed, hash, same) for seed, hash in variant["trials"].items()]


def _storable(text: str) -> str:
    """A message may quote what is no Unicode, as the name of a file."""
    return text.encode(errors="backslashreplace").decode()


def remove(folder: Path) -> None:
    """Remove an index that nobody has open."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        (folder / (INDEX + suffix)).unlink(missing_ok=True)


def _rows(database: sqlite3.Connection) -> dict[str, Entry]:
    query = "SELECT hash, status, attempts, epochs, seconds, images_per_second, error, stamps FROM trials"
    found = {}
    for *state, text in database.execute(query):
        stamps, read = json.loads(text), dict[str, Stamp]()
        if not isinstance(stamps, dict) or not stamps.keys() <= _STAMPED:
            raise ValueError(f"no stamps of {state[0]}")
        for name, (size, modified, changed, inode) in stamps.items():
            read[name] = size, modified, changed, inode
        found[state[0]] = Entry(TrialState(*state), read)
    return found


def _check_version(folder: Path, database: sqlite3.Connection) -> None:
    version = database.execute("PRAGMA user_version").fetchone()[0]
    check_format(folder / INDEX, version)
    if version < FORMAT:
        raise Damaged(f"{INDEX} is of an earlier format")


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """SQLite's errors: a full disk is the user's to mend, the rest is what becomes of the index."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL or (code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and _full(folder)):
            raise no_space(folder) from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            raise Damaged(f"{INDEX} is damaged: {error}") from error
        raise Unusable(f"{INDEX}: {error}") from error
    except (ValueError, TypeError, OverflowError) as error:  # of a row that is not as it was written
        raise Damaged(f"{INDEX} is damaged: {error}") from error


def _full(folder: Path) -> bool:
    room = os.statvfs(folder)
    return room.f_bavail * room.f_frsize < _SMALL
