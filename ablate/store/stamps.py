"""What has changed since it was verified: a result's files are hashed again only if their stamps differ.

A stamp is remembered, as git's index does it, only once it can't be shared by a later change: the clock of a file
system ticks in milliseconds, so that of a file written just now one stamp may stand for two contents.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ablate.store.layout import CHECKPOINT, RESULT
from ablate.store.records import check_result, read_json

TICK = 0.02
"""Seconds: twice the longest tick of Linux's file systems."""


Stamp = tuple[int, int, int, int]
"""What the file system says of a file's content without reading it: size in bytes; when the content was modified, and
when that or the owner, the rights or the links were, in ns since 1970; inode."""

Stamps = Mapping[str, Stamp]
"""By file name, of one trial."""


def stamp(path: str) -> Stamp | None:
    """The stamp of a file; None where there is no regular file of that name."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def settled(found: Stamp, now: int) -> bool:
    """Whether a change after ``now``, in ns since 1970, would give the file another stamp."""
    return found[2] < now - TICK * 1e9


def unchanged(folder: str, known: Stamps) -> bool:
    """Whether a result and all its files are as they were verified. A weight file that was deleted is no change.

    A change of rights or links alone is none either, as of a file that the cache has let go of.
    """
    for name, (size, modified, _, inode) in known.items():
        try:
            found = os.lstat(f"{folder}/{name}")
        except OSError:
            if name == CHECKPOINT:
                continue
            return False
        if found.st_size != size or found.st_mtime_ns != modified or found.st_ino != inode:
            return False
    return RESULT in known


def checked_result(folder: Path, hash: str, known: Stamps, seen: dict[str, Stamp]) -> dict[str, Any] | None:
    """The result of a trial, checked against itself and the trial's files; None where there is none.

    Of the files, those are hashed that have another stamp than ``known`` says. ``seen`` gets the stamps to remember:
    that of the result if it gets those of all files. ValueError or OSError says what is wrong.
    """
    path = folder / RESULT
    found = stamp(str(path))
    while os.path.lexists(path):
        try:
            return _checked(folder, hash, known, seen)
        except (OSError, ValueError):
            # Meanwhile the trial may have begun anew, or ended: then it is another result that counts, or none.
            before, found = found, stamp(str(path))
            if found == before:
                raise
    return None


def _checked(folder: Path, hash: str, known: Stamps, seen: dict[str, Stamp]) -> dict[str, Any]:
    now = time.time_ns()
    seen.clear()
    of_result = stamp(str(folder / RESULT))
    if of_result is None:
        raise ValueError(f"{RESULT} is no file")
    record = check_result(read_json(folder / RESULT), hash)
    lasting = True
    for name, expected in record["files"].items():
        path = folder / name
        found = stamp(str(path))
        if found is None:
            if name == CHECKPOINT and not os.path.lexists(path):
                continue
            raise ValueError(f"{name} is missing")
        if found != known.get(name):
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    raise ValueError(f"{name} is not as it was written")
        if settled(found, now):
            seen[name] = found
        else:
            lasting = False
    if lasting and settled(of_result, now):
        seen[RESULT] = of_result
    return record
