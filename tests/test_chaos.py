"""A sweep of which a worker, a node and the driver itself are killed: the short form of benchmarks/chaos.py."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.store import Study
from benchmarks.chaos import differences, disturbed, write_spec


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_whatever_is_killed_the_study_ends_as_if_nothing_had_been(
    tmp_path: Path, sweep_spec: Callable[..., Study]
) -> None:
    spec = write_spec(tmp_path / "chaos.yaml", trials=6, epochs=5, images=400)
    alone = sweep_spec(spec, tmp_path / "alone", executor="local")
    done = disturbed(spec, tmp_path / "disturbed", ["worker", "node", "sweep"], random.Random(0), pause=0.5)
    assert done.killed == ["worker", "node", "sweep"]
    assert done.sweeps >= 2
    assert differences(alone, Study.open(tmp_path / "disturbed")) == []
