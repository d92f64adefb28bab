"""Decoded pixels on the disk: what is read is what was written, or nothing."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL
import pytest

from ablate.data import pixelcache
from ablate.data.pixelcache import HEADER, LEFT_FREE, PixelCache

MIB = 1 << 20
SHAPE = (3, 5, 7)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(pixelcache, "LEFT_FREE", 0.0)  # where these tests run the disk may be nearly full
    return tmp_path / "ablate" / "pixels"


def pixels(number: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray[Any, Any]:
    return np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)


def cache(key: str = "set", slot: int = 105, limit: int = MIB) -> PixelCache:
    return PixelCache(key, slot, limit)


def same(found: np.ndarray[Any, Any] | None, number: int, shape: tuple[int, ...] = SHAPE) -> bool:
    return found is not None and np.array_equal(found, pixels(number, shape))


def test_what_was_written_is_read_by_all_who_know_the_key() -> None:
    ours = cache()
    for number in (11, 0, 3):
        ours.write(number, pixels(number))
    for reader in (ours, cache(), pickle.loads(pickle.dumps(ours))):
        assert all(same(reader.read(number), number) for number in (11, 0, 3))
        assert [reader.read(number) for number in (1, 10, 12)] == [None] * 3
    assert cache("other").read(3) is None
    assert cache(slot=107).read(3) is None


def test_arrays_of_other_shapes_and_black_ones_are_kept_too() -> None:
    ours = cache()
    ours.write(2, pixels(2, (1, 2, 3)))
    ours.write(1, np.zeros(SHAPE, dtype=np.uint8))
    assert same(ours.read(2), 2, (1, 2, 3))
    black = ours.read(1)
    assert black is not None
    assert black.shape == SHAPE
    assert not black.any()


def test_no_damaged_byte_is_ever_read() -> None:
    ours = cache(slot=6)
    ours.write(0, pixels(0, (1, 2, 3)))
    whole = ours.path.read_bytes()
    assert len(whole) == HEADER.size + 6
    for place in range(len(whole)):
        for flip in (1, 128, 255):
            ours.path.write_bytes(bytes([*whole[:place], whole[place] ^ flip, *whole[place + 1 :]]))
            assert cache(slot=6).read(0) is None, (place, flip)
    for length in range(len(whole)):
        ours.path.write_bytes(whole[:length])
        assert cache(slot=6).read(0) is None, length


def test_a_slot_in_the_place_of_another_is_not_read() -> None:
    ours = cache(slot=6)
    ours.write(1, pixels(1, (1, 2, 3)))
    record = ours.path.read_bytes()[HEADER.size + 6 :]
    ours.path.write_bytes(record * 3)
    assert [same(cache(slot=6).read(number), 1, (1, 2, 3)) for number in range(3)] == [False, True, False]


def test_damage_is_mended_by_writing_again() -> None:
    ours = cache()
    ours.write(5, pixels(5))
    ours.path.write_bytes(b"x" * 1000)
    assert ours.read(5) is None
    ours.write(5, pixels(5))
    assert same(ours.read(5), 5)


def test_what_is_larger_than_a_slot_is_not_kept_and_harms_none() -> None:
    ours = cache(slot=104)
    ours.write(0, pixels(0))
    assert ours.read(0) is None
    ours.write(1, pixels(1, (1, 8, 13)))
    assert same(ours.read(1), 1, (1, 8, 13))


def test_the_limit_holds_for_all_files_together() -> None:
    side = (3, 64, 128)  # 24 KiB
    first, second = cache("a", 24 << 10, 256 << 10), cache("b", 24 << 10, 256 << 10)
    for number in range(20):
        first.write(number, pixels(number, side))
        second.write(number, pixels(number, side))
    taken = sum(file.stat().st_blocks * 512 for file in first.path.parent.iterdir())
    assert 200 << 10 < taken <= (256 + 16) << 10  # both are in use: neither made room; blocks are 4 KiB
    assert same(first.read(0), 0, side)
    assert same(second.read(0), 0, side)
    assert first.read(19) is None


def test_files_that_nobody_uses_make_room_the_longest_unused_first() -> None:
    side = (3, 64, 128)
    for age, key in enumerate(("older", "oldest", "newer")):
        unused = cache(key, 24 << 10)
        unused.write(0, pixels(0, side))
        os.utime(unused.path, (0, 1000 * (4 - age) if key != "oldest" else 1))
        del unused
    held = cache("held", 24 << 10)
    held.write(0, pixels(0, side))
    os.utime(held.path, (0, 0))
    ours = cache("ours", 24 << 10, limit=110 << 10)
    ours.write(0, pixels(0, side))
    assert same(ours.read(0), 0, side)
    there = {key for key in ("older", "oldest", "newer", "held") if cache(key, 24 << 10).path.exists()}
    assert there == {"older", "newer", "held"}


@pytest.mark.parametrize("reason", ["none left", "no room on the disk", "no limit"])
def test_a_full_disk_is_no_error(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    def full(*args: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    ours = cache(limit=0 if reason == "no limit" else MIB)
    if reason == "none left":
        monkeypatch.setattr(os, "pwritev", full)
    elif reason == "no room on the disk":
        monkeypatch.setattr(pixelcache, "LEFT_FREE", LEFT_FREE)
        disk = SimpleNamespace(f_bavail=49, f_blocks=1000, f_frsize=4096)
        monkeypatch.setattr(os, "fstatvfs", lambda file: disk)
    ours.write(0, pixels(0))
    assert ours.read(0) is None
    monkeypatch.undo()


def test_a_folder_that_cannot_be_written_is_an_empty_cache(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where the folder would be")
    ours = cache()
    ours.write(0, pixels(0))
    assert ours.read(0) is None


def test_a_link_that_someone_left_is_not_followed(folder: Path, tmp_path: Path) -> None:
    folder.mkdir(parents=True)
    cache().path.symlink_to(tmp_path / "elsewhere")
    cache().write(0, pixels(0))
    assert not (tmp_path / "elsewhere").exists()


def test_pixels_of_another_decoder_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    cache().write(0, pixels(0))
    monkeypatch.setattr(PIL, "__version__", "0.1")
    assert cache().read(0) is None


def test_a_header_that_claims_much_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = cache()
    ours.write(0, pixels(0))
    ours.path.write_bytes(HEADER.pack(1, 2**31, 2**31, 2**31, 0) + b"x" * 105)
    monkeypatch.setattr(pixelcache.np, "empty", lambda *args, **kwargs: pytest.fail("asked for memory"))
    assert ours.read(0) is None
