"""Files that are written whole or not at all, appended to by the line, and locked.

What the disk refuses (full, read-only) is a ``UserError`` that names the folder.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import time
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ablate.errors import Problem, UserError


class InUseError(UserError):
    """Another process has the lock; it may give it back."""


UNREADABLE: tuple[type[Exception], ...] = (
    *(OSError, ValueError, EOFError, KeyError, SyntaxError, NotImplementedError, RuntimeError),
    *(zlib.error, zipfile.BadZipFile, tokenize.TokenError, AttributeError, MemoryError),
)
"""What zipfile and numpy raise at damaged .npz files, at files of Python objects and at files with a password."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_MOMENT = 0.25
"""Seconds for which a lock is tried at least: who asks whether it is held has it for microseconds."""


def cache_folder(name: str) -> Path:
    """Where the user's caches lie: beneath ``$XDG_CACHE_HOME``, else ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ablate" / name


def settled_checksum(path: Path) -> str:
    """The file's sha256, once the disk has it: a result must not outlive the files that it vouches for."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What the disk refuses, said as something that a user can fix."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise no_space(folder) from error
        if error.errno in _DENIED:
            raise UserError(f"{folder} cannot be written: {error.strerror}") from error
        raise UserError(f"cannot write in {folder}: {error.strerror or error}") from error


def no_space(folder: Path) -> UserError:
    """The disk of ``folder`` is full, or the user's quota is."""
    return UserError(Problem(f"no space left for {folder}", hint="free some and run the command again"))


def write_json(path: Path, data: Any) -> None:
    """Replace ``path`` by JSON, whole or not at all."""
    write(path, (json.dumps(data, indent=1) + "\n").encode())


def write(path: Path, *parts: bytes) -> None:
    """Replace ``path`` by these bytes, whole or not at all: a new file beside it, on the disk, then renamed."""
    beside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    with writing(path.parent):
        try:
            _write_new(beside, parts)
            os.replace(beside, path)
            _settle_folder(path.parent)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def _write_new(path: Path, parts: Sequence[bytes]) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        for part in parts:
            _write_all(file, part)
        os.fsync(file)
    finally:
        os.close(file)


def _write_all(file: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def _settle_folder(folder: Path) -> None:
    """A rename is on the disk when its folder is."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def append(path: Path, row: Mapping[str, Any], *, settle: bool = True) -> None:
    """Add a line, whole or not at all. A half line that a killed process left is ended first: it spoils no other.

    Without ``settle`` the line survives the process, and perhaps not the machine.
    """
    line = json.dumps(row).encode() + b"\n"
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    with writing(path.parent):
        file = os.open(path, flags, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = os.fstat(file).st_size
            torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
            try:
                _write_all(file, b"\n" + line if torn else line)
                if settle:
                    os.fsync(file)
                if settle and size == 0:
                    _settle_folder(path.parent)
            except BaseException:
                os.ftruncate(file, size)
                raise
        finally:
            os.close(file)


_LEFTOVER = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.tmp")


def is_leftover(name: str) -> bool:
    """Whether a file is one that ``write`` was to rename and never did."""
    return _LEFTOVER.fullmatch(name) is not None


def remove_leftovers(folder: Path) -> None:
    """What a killed process had begun to write and never renamed."""
    with writing(folder):
        for path in folder.iterdir():
            if is_leftover(path.name):
                path.unlink(missing_ok=True)


_held: set[int] = set()


def _forget_locks() -> None:
    """A forked child shares its parent's locks, and would keep them when the parent is killed: it lets go of them."""
    for file in _held:
        os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_forget_locks)


@contextmanager
def locked(folder: Path, name: str, *, patience: float = 0.0, hint: str = "wait for it, or end it") -> Iterator[None]:
    """The sole right to ``folder``, by a lock on the file ``name`` in it; ``InUseError`` names who has it.

    It is waited for, ``patience`` seconds. The kernel gives the lock back when the process ends in whatever way, so
    that none is ever stale.
    """
    owner = os.getpid()
    file = _lock(folder, name, time.monotonic() + max(patience, _MOMENT), hint)
    try:
        with writing(folder):
            os.ftruncate(file, 0)
            _write_all(file, f"process {os.getpid()} on {os.uname().nodename}\n".encode())
        yield
    finally:
        if os.getpid() == owner:  # in a forked child the number may be another file's by now
            _let_go(file)


def _lock(folder: Path, name: str, until: float, hint: str) -> int:
    """A locked file of that name, as it is in the folder: one that was removed in the meantime locks nothing."""
    while True:
        with writing(folder):
            file = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        _held.add(file)
        try:
            while not _taken(file, folder):
                if time.monotonic() > until:
                    raise InUseError(Problem(f"{folder} is in use by {_named(file)}", hint=hint))
                time.sleep(0.01)
            if _is_at(file, folder / name):
                return file
        except BaseException:
            _let_go(file)
            raise
        _let_go(file)


def _let_go(file: int) -> None:
    _held.discard(file)
    os.close(file)


def _taken(file: int, folder: Path) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(f"{folder} cannot be locked: {error.strerror}") from error
    return True


def _is_at(file: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file), os.lstat(path))
    return False


def _named(file: int) -> str:
    return os.pread(file, 200, 0).decode(errors="replace").strip() or "another process"


def holder(folder: Path, name: str) -> str | None:
    """Who has the lock, as it calls itself; None where nobody has. Needs no right to write, and bars nobody."""
    try:
        file = os.open(folder / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _named(file)
    except OSError:  # a file system without locks
        return None
    finally:
        os.close(file)
    return None


def remove_lock(folder: Path, name: str) -> None:
    """Remove the file of a lock, unless somebody has it."""
    with writing(folder), suppress(FileNotFoundError):
        file = os.open(folder / name, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (folder / name).unlink()
        except BlockingIOError:
            pass
        finally:
            os.close(file)
