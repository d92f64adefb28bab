"""Decoded pixels, kept in the user's cache folder: what was decoded once is read and not decoded again.

A file has a slot for each image of a folder; slots that nobody filled take no place on the disk. All who fill a slot
write the same bytes, so that trials share a file without waiting for each other. A slot's checksum covers its number,
shape and pixels: what a killed process, a full disk or a failing one left there is as good as nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ablate.data.checks import Images
from ablate.disk import cache_folder

HEADER = struct.Struct("<5I")
"""Number of the slot from 1, the three sides of the array, CRC-32 of these and of the pixels."""
LEFT_FREE = 0.05
"""Share of the disk that is never filled: a study's results need some."""


class PixelCache:
    """Arrays of uint8 (·, ·, ·) by number, each of at most ``slot`` bytes, in the file of that ``key``.

    All files of the folder take at most ``limit`` bytes: those that no process has open make room, the longest unused
    first. Where nothing can be read or written it is a cache that is always empty, never an error.
    """

    _file: int | None = None

    def __init__(self, key: str, slot: int, limit: int) -> None:
        self.slot, self.limit = slot, limit
        name = hashlib.sha256(f"{_decoders()} {slot} {key}".encode()).hexdigest()[:32]
        self.path = cache_folder("pixels") / f"{name}.bin"
        self._tried = self._full = not 0 < slot <= limit

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_tried": self._tried and self._file is None}

    def __del__(self) -> None:
        self._close()

    def read(self, number: int) -> Images | None:
        """The array of that number, if it is there and whole."""
        with suppress(OSError):
            if (file := self._open()) is not None:
                return self._read(file, number)
        return None

    def write(self, number: int, pixels: Images) -> None:
        """Keep the array, if it is small enough and there is room for it."""
        if self._full or pixels.nbytes > self.slot:
            return
        self._full = True  # unless what follows succeeds: no later array is tried
        with suppress(OSError):
            if (file := self._open()) is not None and self._has_room(file, pixels.nbytes):
                os.pwritev(file, [_header(number, pixels), _flat(pixels)], self._offset(number))
                self._full = False

    def _read(self, file: int, number: int) -> Images | None:
        header = os.pread(file, HEADER.size, self._offset(number))
        if len(header) < HEADER.size:
            return None
        _, *shape, _ = HEADER.unpack(header)
        if not 0 < math.prod(shape) <= self.slot:
            return None
        pixels = np.empty(shape, dtype=np.uint8)
        os.preadv(file, [_flat(pixels)], self._offset(number) + HEADER.size)
        return pixels if header == _header(number, pixels) else None

    def _offset(self, number: int) -> int:
        return number * (HEADER.size + self.slot)

    def _open(self) -> int | None:
        """The file, locked against removal for as long as it is open."""
        if not self._tried:
            self._tried = True
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            try:
                fcntl.flock(self._file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                os.utime(self._file)
            except OSError:
                self._close()
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None

    def _has_room(self, file: int, wanted: int) -> bool:
        disk = os.fstatvfs(file)
        if (disk.f_bavail * disk.f_frsize - wanted) < LEFT_FREE * disk.f_blocks * disk.f_frsize:
            return False
        while True:
            files = sorted(_files(self.path.parent))
            if sum(size for _, size, _ in files) + wanted <= self.limit:
                return True
            if not any(_removed(path) for _, _, path in files):
                return False


def _header(number: int, pixels: Images) -> bytes:
    start = HEADER.pack(number + 1, *pixels.shape, 0)[:-4]
    return start + zlib.crc32(_flat(pixels), zlib.crc32(start)).to_bytes(4, "little")


def _flat(pixels: Images) -> memoryview[Any]:
    return memoryview(pixels.reshape(-1))  # type: ignore[arg-type]


def _decoders() -> str:
    """What pixels depend on beside the files: another decoder may round otherwise."""
    from PIL import __version__, features

    return f"1 {__version__} {[features.version(name) for name in ('jpg', 'libjpeg_turbo', 'webp', 'zlib')]}"


def _files(folder: Path) -> Iterator[tuple[float, int, str]]:
    """Time of the last use, bytes on the disk and path of each."""
    for entry in os.scandir(folder):
        with suppress(OSError):  # another process has just removed it
            stat = entry.stat(follow_symlinks=False)
            yield stat.st_mtime, stat.st_blocks * 512, entry.path


def _removed(path: str) -> bool:
    """Remove a file that no process has open."""
    with suppress(OSError):
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)  # nothing waits for a pipe
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
            return True
        finally:
            os.close(file)
    return False
