"""Durations and sizes: what a person writes, both ways, and never a number without its unit."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.units import DURATION, SIZE, duration, duration_text, size, size_text


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("45s", timedelta(seconds=45)),
        ("30m", timedelta(minutes=30)),
        ("2h", timedelta(hours=2)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("1.5h", timedelta(hours=1, minutes=30)),
        ("3d2h1m7s", timedelta(days=3, hours=2, minutes=1, seconds=7)),
        ("90m", timedelta(minutes=90)),
    ],
)
def test_a_duration_is_what_the_calendar_says(text: str, time: timedelta) -> None:
    assert duration(text) == time.total_seconds()


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("500MB", 500_000_000),
        ("4GiB", 4 << 30),
        ("1.5GiB", 3 << 29),
        ("2TB", 2 * 10**12),
        ("7kB", 7000),
        ("7KiB", 7168),
    ],
)
def test_a_size_is_in_powers_of_ten_or_with_an_i_of_two(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("90", "'90' has no unit; 90s, 90m or 90h"),
        ("1.5", "'1.5' has no unit"),
        ("", "'' is no duration"),
        ("30m1h", "no duration"),
        ("2 h", "no duration"),
        ("2h\n", "no duration"),
        ("-2h", "no duration"),
        ("1e3s", "no duration"),
        ("2H", "no duration"),
        ("0h0m", "'0h0m' is no time at all"),
    ],
)
def test_what_is_no_duration_is_said_and_what_is_one(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        duration(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("4", "'4' has no unit; 4MiB or 4GiB"),
        ("4Gi", "no size"),
        ("4gb", "no size"),
        ("4GiB\n", "no size"),
        ("0GB", "nothing"),
    ],
)
def test_what_is_no_size_is_said_and_what_is_one(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        size(text)


@given(st.integers(1, 10**7))
def test_a_duration_is_written_as_it_is_read(seconds: int) -> None:
    assert duration(duration_text(seconds)) == seconds


def test_durations_and_sizes_are_short() -> None:
    assert [duration_text(seconds) for seconds in (0, 59.6, 5400, 90061)] == ["0s", "1m", "1h30m", "1d1h1m1s"]
    assert [size_text(count) for count in (0, 512, 1024, 3 << 29, 4 << 30, 1 << 44)] == [
        "0 B",
        "512 B",
        "1 KiB",
        "1.5 GiB",
        "4 GiB",
        "16 TiB",
    ]


number = st.sampled_from(["", "0", "7", "30", "1.5", ".5", "1."])
unit = st.sampled_from(["", "d", "h", "m", "s", "H", "kB", "KB", "MiB", "GiB", "TB", "Gi", " "])


@given(st.lists(st.tuples(number, unit), max_size=3).map(lambda parts: "".join(a + b for a, b in parts)))
def test_the_patterns_take_what_is_read_and_nothing_else(text: str) -> None:
    """An editor must not underline what the tool takes, nor the other way round but for what comes to nothing."""
    for pattern, read in ((DURATION, duration), (SIZE, size)):
        assert bool(re.fullmatch(pattern, text)) == taken(read, text)


def taken(read: Callable[[str], float], text: str) -> bool:
    try:
        read(text)
    except ValueError as error:
        return "at all" in str(error)
    return True
