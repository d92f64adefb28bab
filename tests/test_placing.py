"""Where trials go: never more threads than cores, what is stated stays, and noise does not choose."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate import block as block_module
from ablate import placing
from ablate.data.dataset import ImageData, load
from ablate.design import study_plan
from ablate.errors import UserError
from ablate.measuring import NotMeasuredError, Reply, Side, sides
from ablate.numerics import Numerics
from ablate.placing import Measured, Placement, best, candidates, place
from ablate.resolving import resolved
from ablate.spec import load as load_spec
from ablate.train import Trial, trial_of
from ablate.workers import KEPT, THREADS, worker_environment
from tests.faulty import Stubborn

few = st.integers(1, 13)


@given(cores=st.integers(1, 97), trials=few, devices=st.integers(1, 3), concurrent=st.none() | few)
def test_no_way_has_more_threads_than_cores_nor_more_at_once_than_trials(
    cores: int, trials: int, devices: int, concurrent: int | None
) -> None:
    ways = candidates(cores, trials, devices, concurrent=concurrent)
    assert ways[0][0] == 1
    assert len(set(ways)) == len(ways)
    for threads, at_once in ways:
        assert 1 <= at_once <= trials
        if devices * (concurrent or 1) <= cores:
            assert threads * at_once * devices <= cores
        if concurrent:
            assert at_once == min(trials, concurrent)


@given(cores=st.integers(1, 97), trials=few, threads=st.integers(1, 97))
def test_threads_that_are_stated_stay_and_leave_one_way(cores: int, trials: int, threads: int) -> None:
    assert candidates(cores, trials, threads=threads) == [(threads, min(trials, max(1, cores // threads)))]
    assert candidates(cores, trials, threads=threads, concurrent=2) == [(threads, min(trials, 2))]


def test_the_ways_fill_the_cores_by_their_divisors() -> None:
    assert candidates(12, 100) == [(1, 12), (2, 6), (3, 4), (4, 3), (6, 2), (12, 1)]
    assert candidates(12, 5) == [(1, 5), (2, 5), (3, 4), (4, 3), (6, 2), (12, 1)]
    assert candidates(12, 100, 2) == [(1, 6), (2, 3), (3, 2), (4, 1), (6, 1)]
    # three machines of four cores: no process spans two of them
    assert candidates(12, 100, here=4) == [(1, 12), (2, 6), (3, 4), (4, 3)]


def test_on_cuda_trials_share_a_device_and_each_has_its_threads() -> None:
    assert candidates(16, 100, gpus=2) == [(1, 2), (1, 4), (1, 8)]
    assert candidates(5, 100, gpus=2) == [(1, 2), (1, 4), (1, 5)]
    assert candidates(16, 3, gpus=2) == [(1, 2), (1, 3)]
    assert candidates(16, 100, 2, gpus=4) == [(1, 2)]
    assert candidates(16, 100, gpus=2, concurrent=3) == [(1, 3)]


def test_the_fastest_way_is_taken_only_where_it_is_clearly_faster_than_the_simplest() -> None:
    simplest, other = Measured(1, 2, 1000.0), Measured(2, 1, 1040.0)
    assert (best([simplest, other], 100).threads, best([simplest, other], 100).concurrent) == (1, 2)
    faster = Measured(2, 1, 1060.0)
    assert (best([simplest, faster], 100).threads, best([simplest, faster], 100).concurrent) == (2, 1)


def test_places_that_are_idle_in_the_last_round_are_counted() -> None:
    # three trials in two rounds: the second place has nothing to do in the last
    assert Measured(1, 2, 1000.0).over(3) == pytest.approx(750.0)
    assert best([Measured(1, 2, 1000.0), Measured(2, 1, 800.0)], 3).concurrent == 1
    assert best([Measured(1, 2, 1000.0), Measured(2, 1, 800.0)], 4).concurrent == 2


def test_a_placement_says_what_it_was_chosen_from() -> None:
    placement = best([Measured(1, 2, 990.0), Measured(2, 1, 840.0)], 100)
    assert placement.text == (
        "2 trials at once, 1 thread each: 990 images/s; 1 trial at a time, 2 threads: 840 (measured)"
    )
    assert Placement(3, 1, "as stated").text == "1 trial at a time, 3 threads: as stated"


def trial_and_data(spec: Path, *sets: str) -> tuple[Trial, ImageData]:
    plan = study_plan(load_spec(spec, sets=list(sets)))
    variant = plan.variant("se")
    return trial_of(variant, 0, Numerics()), load(variant.data, base=spec.parent)


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "available_cpus", lambda: 2)
    monkeypatch.setattr(placing, "cores_for_trials", lambda: 2)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Side]:
    """The processes that were started to measure."""
    all_of_them: list[Side] = []
    original = Side.__init__

    def init(self: Side, trial: Trial) -> None:
        original(self, trial)
        all_of_them.append(self)

    monkeypatch.setattr(Side, "__init__", init)
    return all_of_them


def placed(trial: Trial, data: ImageData, **changes: Any) -> Placement:
    return place(trial, data, **{"trials": 7, "threads": None, "concurrent": None, "measure": True} | changes)


@pytest.mark.slow
@pytest.mark.usefixtures("two_cores")
def test_every_way_is_measured_by_real_steps_in_processes_that_end(
    tiny: Path, started: list[Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "WINDOW", 0.01)
    placement = placed(*trial_and_data(tiny, "train.schedule={name: one_cycle}"), concurrent=1)
    assert [(way.threads, way.concurrent) for way in placement.measured] == [(1, 1), (2, 1)]
    assert all(way.images_per_second > 0 for way in placement.measured)
    assert [side.process.returncode is not None for side in started] == [True]


@pytest.mark.usefixtures("two_cores")
def test_a_block_that_raises_while_it_is_measured_leaves_the_rule_and_says_so(tiny: Path, started: list[Side]) -> None:
    patch = f"network.insert.attention: {{block: stubborn, process: {os.getpid()}, at: after stage1}}"
    tiny.write_text(tiny.read_text().replace("network.insert.attention.block: se", patch))
    block_module.register(Stubborn)
    try:
        trial, data = trial_and_data(tiny)
    finally:
        del block_module._registry[Stubborn.name]
    placement = placed(trial, data, concurrent=1)
    assert (placement.threads, placement.concurrent, placement.measured) == (1, 1, ())
    assert placement.why == "by rule, since nothing could be measured: RuntimeError: not in this process"
    assert all(side.process.returncode is not None for side in started)


def test_a_process_that_dies_is_no_measurement_and_none_is_left(tiny: Path, started: list[Side]) -> None:
    trial, data = trial_and_data(tiny)

    def measure_with_a_death() -> None:
        with sides(trial, data, 2) as processes:
            processes[0].process.kill()
            processes[0].answer()

    with pytest.raises(NotMeasuredError, match="was ended"):
        measure_with_a_death()
    assert [side.process.returncode is not None for side in started] == [True, True]


@pytest.mark.usefixtures("two_cores")
def test_what_leaves_one_way_or_may_not_be_measured_starts_no_process(tiny: Path, started: list[Side]) -> None:
    trial, data = trial_and_data(tiny)
    assert placed(trial, data, threads=2) == Placement(2, 1, "threads as stated")
    assert placed(trial, data, threads=1, concurrent=1) == Placement(1, 1, "as stated")
    assert placed(trial, data, concurrent=2) == Placement(1, 2, "the only way")
    assert placed(trial, data, measure=False) == Placement(1, 2, "by rule, not measured")
    assert started == []


@pytest.mark.usefixtures("two_cores")
def test_a_way_that_does_not_fit_into_the_memory_is_left_out(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    def at_once(sides: list[Side], *_: Any) -> list[Reply]:
        told.append(len(sides))
        return [Reply(100.0, 0.41) for _ in sides]

    monkeypatch.setattr(placing, "at_once", at_once)
    monkeypatch.setattr(Side, "__init__", lambda self, trial: None)
    monkeypatch.setattr(Side, "tell", lambda self, message: None)
    monkeypatch.setattr(Side, "end", lambda self: None)
    placement = placed(*trial_and_data(tiny))
    assert set(told) == {1}
    assert (placement.threads, placement.concurrent) == (2, 1)


def test_more_trials_at_once_than_cores_are_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablate.resolving.cores_for_trials", lambda: 5)
    base = tiny.parent

    def settle(*sets: str, **options: Any) -> Placement:
        plan = study_plan(load_spec(tiny, sets=["execution.device=cpu", *sets]))
        return resolved(plan, lambda spec: load(spec, base=base), measure=False, **options).placement

    assert settle("execution={threads: 2, max_concurrent: 2}").concurrent == 2
    with pytest.raises(UserError, match=r"execution\.max_concurrent: 3 trials at once, 2 threads each, are more than"):
        settle("execution={threads: 2, max_concurrent: 3}")
    with pytest.raises(UserError, match=r"execution\.max_concurrent: 6 trials at once, 1 thread each, are more than"):
        settle(concurrent=6)
    with pytest.raises(UserError, match="6 threads a trial are more than the 5 cores here"):
        settle("execution.threads=6")


def test_the_allocator_stays_as_the_user_has_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [key for key in os.environ if key.startswith("MALLOC_")] + ["LD_PRELOAD", "GLIBC_TUNABLES"]:
        monkeypatch.delenv(key, raising=False)
    threads = dict.fromkeys(THREADS, "3")
    numerics = Numerics(threads=3)
    assert worker_environment(numerics) == threads | {key: str(value) for key, value in KEPT.items()}
    for key, value in {
        "LD_PRELOAD": "/usr/lib/libtcmalloc_minimal.so.4",
        "MALLOC_ARENA_MAX": "2",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    }.items():
        with monkeypatch.context() as patched:
            patched.setenv(key, value)
            assert worker_environment(numerics) == threads


FAULTS = """
import resource, sys
import numpy as np
from ablate.workers import keep_memory
def fill():
    np.ones(48 << 20, dtype=np.uint8)  # above 32 MiB glibc maps every block anew, however often it is asked for
fill()
if sys.argv[1] == "keep":
    keep_memory()  # of a process that has long been running
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_memory_that_is_kept_is_not_faulted_in_again() -> None:
    tuned = ("MALLOC_", "LD_PRELOAD", "GLIBC_TUNABLES")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(tuned)}

    def faults(*arguments: str, **extra: str) -> int:
        command = [sys.executable, "-c", FAULTS, *arguments]
        return int(subprocess.run(command, env=environment | extra, capture_output=True, check=True).stdout)

    by_environment = faults("leave", **{key: str(value) for key, value in KEPT.items()})
    assert faults("leave") > 20 * max(1, faults("keep"), by_environment)
