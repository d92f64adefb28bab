"""A stream's numbers depend on its name and on nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ablate.streams import generator, stream_seed

parts = st.lists(st.integers() | st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4)


@given(parts)
def test_a_seed_is_the_same_each_time_and_fits_63_bits(name: list[str | int]) -> None:
    assert stream_seed(*name) == stream_seed(*name)
    assert 0 <= stream_seed(*name) < 2**63


@given(parts, parts)
def test_different_names_are_different_streams(one: list[str | int], other: list[str | int]) -> None:
    same = [(type(a), a) for a in one] == [(type(b), b) for b in other]
    assert (stream_seed(*one) == stream_seed(*other)) == same


@pytest.mark.parametrize(
    ("one", "other"),
    [(("ab", "c"), ("a", "bc")), ((1,), ("1",)), ((1, 23), (12, 3)), (("a", "b"), ("b", "a")), (("s1:a",), ("a",))],
)
def test_joining_the_parts_by_hand_would_confuse_these(one: tuple[str | int], other: tuple[str | int]) -> None:
    assert stream_seed(*one) != stream_seed(*other)


@pytest.mark.parametrize("part", [True, 0.5, None, b"a"])
def test_only_text_and_whole_numbers_name_a_stream(part: object) -> None:
    with pytest.raises(TypeError, match="text and whole numbers"):
        stream_seed("order", part)  # type: ignore[arg-type]


def test_a_stream_needs_a_name() -> None:
    with pytest.raises(TypeError, match="at least one part"):
        stream_seed()


def test_another_process_gets_the_same_seed() -> None:
    # Python's own hash() is salted by the process: it would fail here
    code = "from ablate.streams import stream_seed; print(stream_seed('order', 7, -3, 'ä'))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == stream_seed("order", 7, -3, "ä")


def test_neither_the_global_stream_nor_another_stream_shifts_a_stream() -> None:
    first = torch.rand(5, generator=generator("init", 3))
    torch.rand(7)
    torch.rand(11, generator=generator("other", 3))
    assert torch.equal(first, torch.rand(5, generator=generator("init", 3)))


def test_the_module_does_not_import_torch() -> None:
    code = "import sys, ablate.streams; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
