"""What torch's restricted reader would build from a pickle, looked at before it does.

It runs no code of a file's; but a key of a dictionary is hashed, and a tuple of two of the same tuple, forty-five times
over, has 2⁴⁵ parts to hash: a file of 110 bytes would be read for years. Weights have names, and tuples of sizes.
"""

from __future__ import annotations

import io
import os
import pickletools
import tarfile
import zipfile
from typing import Any, BinaryIO, NamedTuple

MOST_PARTS = 100_000
"""Of a tuple, counted as often as they stand in it; what a state of a network or of an optimiser has is a dozen."""
MOST_IN_ALL = 10**8
DEEPEST = 50
"""Tuples within one another."""
LEGACY = 5
"""Pickles at the start of a file from before torch 1.6: two numbers, a machine's facts, the content, its storages."""

_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_KEPT = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_AGAIN = ("GET", "BINGET", "LONG_BINGET")
_MADE = ("REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD", "BINPERSID")


class TooNested(Exception):
    """A pickle with a tuple that no weights have."""


class _Size(NamedTuple):
    """Of a value that may be hashed: its parts, and how deep they lie."""

    parts: int = 1
    depth: int = 0


_LEAF = _Size()
_MARK = _Size(0)


def check_archive(archive: zipfile.ZipFile) -> None:
    """``TooNested`` for an archive one of whose pickles is; ``ValueError`` where one can't be followed."""
    for entry in archive.infolist():
        if entry.filename.endswith(".pkl"):
            with archive.open(entry) as file:
                file._expected_crc = None  # type: ignore[attr-defined]  # torch can leave it out when it writes
                _check(io.BytesIO(file.read()))


def check_file(file: BinaryIO) -> None:
    """The same of a file from before torch 1.6, whose pickles follow one another."""
    if tarfile.is_tarfile(file):
        raise ValueError("it is a tar archive")
    file.seek(0)
    for _ in range(LEGACY):
        start = file.tell()
        if not file.read(1):
            return
        file.seek(start)
        _check(_Clipped(file))


class _Clipped:
    """A file that is never asked for more than it has: memory is taken for all that a read asks for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size
        self.tell, self.readline = file.tell, file.readline

    def read(self, count: int) -> bytes:
        return self._file.read(min(count, self._size - self._file.tell()))


def _check(file: Any) -> None:
    stack: list[_Size] = []
    kept: dict[int, _Size] = {}
    total = 0
    try:
        for operation, argument, _ in pickletools.genops(file):
            total += _step(operation, argument, stack, kept)
            if total > MOST_IN_ALL:
                raise TooNested
    except (IndexError, KeyError, UnicodeDecodeError, OverflowError) as error:
        raise ValueError(f"its pickle can't be followed: {type(error).__name__}") from None


def _step(operation: pickletools.OpcodeInfo, argument: Any, stack: list[_Size], kept: dict[int, _Size]) -> int:
    """Follow one operation; how many parts it took off the stack."""
    name = operation.name
    taken: list[_Size] = []
    if name in _KEPT:
        kept[len(kept) if argument is None else argument] = stack[-1]
    elif name in _AGAIN:
        stack.append(kept[argument])
    elif name == "MARK":
        stack.append(_MARK)
    elif name == "DUP":
        stack.append(stack[-1])
    else:
        taken = _taken(operation, stack)
        made = _LEAF
        if name in _TUPLES or name == "TUPLE":
            made = _Size(1 + sum(each.parts for each in taken), 1 + max((each.depth for each in taken), default=0))
        elif name in _MADE and taken:  # of torch.Size the hash is its tuple's; a set hashes what it is given
            made = _Size(max(each.parts for each in taken), max(each.depth for each in taken))
        if made.depth > DEEPEST or made.parts > MOST_PARTS:
            raise TooNested
        stack += [made] * len(operation.stack_after)
    return sum(each.parts for each in taken)


def _taken(operation: pickletools.OpcodeInfo, stack: list[_Size]) -> list[_Size]:
    """What an operation takes off the stack: so many values, and with a mark all that lie above it."""
    before = operation.stack_before
    taken: list[_Size] = []
    if pickletools.markobject in before:
        while (top := stack.pop()) is not _MARK:
            taken.append(top)
        before = before[: before.index(pickletools.markobject)]
    for _ in before:
        taken.append(stack.pop())
    return taken
