"""Whatever bytes a reader is given, it returns a value or raises what is meant for the user; a few of them in each run.

``benchmarks/fuzz.py`` goes on for as long as it is let. What it found is in ``FOUND``.
"""

from __future__ import annotations

import io
import random
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzzing import TARGETS, seeds
from tests.mutations import mutated

QUICK = {"yaml", "pattern", "expression", "ablation", "npz", "parquet", "safetensors", "pt"}


def _cut_header(data: bytes) -> bytes:
    """An .npz with sound checksums, whose arrays' headers have a bracket that is never closed."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b"), }", b"(, }"))
    return made.getvalue()


FOUND = [
    *((target, _cut_header(seeds(target)[0])) for target in ("npz", "predictions")),
    ("yaml", b"a: 2..."),  # written anew, it was 2
    ("pt", b"\x80\x02\x8e" + (1 << 45).to_bytes(8, "little")),  # a pickle with a text of that many bytes
]
"""Target and input at which a reader once ended otherwise."""


@pytest.mark.parametrize("target", TARGETS)
def test_sound_inputs_are_read(target: str) -> None:
    for data in seeds(target):
        assert TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
def test_a_harmed_input_ends_in_a_value_or_in_words(target: str) -> None:
    choice = random.Random(target)
    for _ in range(60 if target in QUICK else 12):
        data = choice.choice(seeds(target))
        for _ in range(choice.randint(1, 3)):
            data = mutated(data, choice)
        try:
            TARGETS[target](data)
        except Exception as error:
            raise AssertionError(f"{target}: {data[:2000]!r}") from error


@pytest.mark.parametrize("target", sorted(QUICK))
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=200) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_bytes_from_nowhere_end_in_a_value_or_in_words(target: str, data: bytes) -> None:
    TARGETS[target](data)


@pytest.mark.parametrize(("target", "data"), FOUND, ids=[target for target, _ in FOUND])
def test_what_was_found_once_is_found_no_more(target: str, data: bytes) -> None:
    TARGETS[target](data)
