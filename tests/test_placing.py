"""Where trials go: never more threads than cores, what is stated stays, and noise does not choose."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import replace
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
from ablate.placing import Measured, Placement, Stated, best, candidates, place, slots
from ablate.resolving import resolved
from ablate.spec import load as load_spec
from ablate.train import Trial, trial_of
from ablate.workers import KEPT, THREADS, worker_environment
from tests.faulty import Stubborn

few = st.integers(1, 13)
amounts = st.integers(0, 9)


def nodes_of(*resources: dict[str, float]) -> list[dict[str, Any]]:
    """As ``ray.nodes()`` gives them."""
    return [{"NodeID": str(index), "Alive": True, "Resources": held} for index, held in enumerate(resources)]


def machine(cores: int, gpus: int = 0) -> list[dict[str, Any]]:
    return nodes_of({"CPU": cores, "GPU": gpus, "memory": 2**40})


@given(cores=st.integers(1, 97), trials=few, devices=st.integers(1, 3), concurrent=st.none() | few)
def test_no_way_has_more_threads_than_cores_nor_more_at_once_than_trials(
    cores: int, trials: int, devices: int, concurrent: int | None
) -> None:
    ways = candidates(machine(cores), trials, devices, stated=Stated(concurrent=concurrent))
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
    here = machine(cores)
    assert candidates(here, trials, stated=Stated(threads)) == [(threads, min(trials, max(1, cores // threads)))]
    assert candidates(here, trials, stated=Stated(threads, concurrent=2)) == [(threads, min(trials, 2))]


def test_the_ways_fill_the_cores_by_their_divisors() -> None:
    assert candidates(machine(12), 100) == [(1, 12), (2, 6), (3, 4), (4, 3), (6, 2), (12, 1)]
    assert candidates(machine(12), 5) == [(1, 5), (2, 5), (3, 4), (4, 3), (6, 2), (12, 1)]
    assert candidates(machine(12), 100, 2) == [(1, 6), (2, 3), (3, 2), (4, 1), (6, 1)]


def test_no_trial_spans_two_nodes_of_a_cluster() -> None:
    four = {"CPU": 4.0, "memory": 2.0**35}
    assert candidates(nodes_of(four, four, four), 100) == [(1, 12), (2, 6), (4, 3)]
    # a head without cores for trials, and two nodes that only one thread fills both of
    assert candidates(nodes_of({"memory": 2.0**35}, {"CPU": 3}, {"CPU": 4}), 100) == [(1, 7)]
    assert candidates(nodes_of(four, four, four), 100, stated=Stated(3)) == [(3, 3)]


def test_on_cuda_trials_share_a_device_and_each_has_its_threads() -> None:
    assert candidates(machine(16, 2), 100, cuda=True) == [(1, 2), (1, 4), (1, 8)]
    assert candidates(machine(5, 2), 100, cuda=True) == [(1, 2), (1, 4), (1, 5)]
    assert candidates(machine(16, 2), 3, cuda=True) == [(1, 2), (1, 3)]
    assert candidates(machine(16, 4), 100, 2, cuda=True) == [(1, 2)]
    assert candidates(machine(16, 2), 100, stated=Stated(concurrent=3), cuda=True) == [(1, 3)]
    assert candidates(machine(16, 2), 100, stated=Stated(gpus=0.25), cuda=True) == [(1, 8)]
    assert candidates(machine(7, 2), 100, stated=Stated(2, gpus=0.25), cuda=True) == [(2, 3)]


@given(
    nodes=st.lists(st.fixed_dictionaries({"CPU": amounts, "GPU": st.integers(0, 3), "memory": amounts}), max_size=4),
    cpus=st.integers(1, 4),
    share=st.sampled_from([0.0, 1.0, 0.5, 0.4, 0.25, 0.3333]),
    memory=st.integers(0, 4),
)
def test_the_slots_of_a_cluster_are_what_putting_one_trial_after_another_onto_its_nodes_gives(
    nodes: list[dict[str, float]], cpus: int, share: float, memory: int
) -> None:
    """It catches a count over sums, or of a share that would be cut from two GPUs."""
    placed = 0
    for node in nodes:
        cores, left, gpus = node["CPU"], node["memory"], [1.0] * int(node["GPU"])
        while cores >= cpus and left >= memory and (not share or any(gpu >= share - 1e-9 for gpu in gpus)):
            cores, left, placed = cores - cpus, left - memory, placed + 1
            if share:
                gpus[next(index for index, gpu in enumerate(gpus) if gpu >= share - 1e-9)] -= share
    placement = Placement(1, 1, "", cpus=cpus, gpus=share, memory=memory)
    assert slots(placement, nodes_of(*nodes)) == placed
    assert slots(replace(placement, most=2), nodes_of(*nodes)) == min(placed, 2)


def test_slots_come_and_go_with_the_nodes() -> None:
    placement = Placement(2, 1, "", cpus=2.0, gpus=0.25, memory=1 << 30)
    one, other = nodes_of({"CPU": 8.0, "GPU": 1.0, "memory": 3.0 * 2**30}, {"CPU": 5.0, "GPU": 2.0, "memory": 2.0**40})
    assert slots(placement, [one]) == 3
    assert slots(placement, [one, other]) == 5
    assert slots(placement, [one, other | {"Alive": False}]) == 3
    assert slots(placement, nodes_of({"object_store_memory": 1.0})) == 0
    # a trial of two devices takes a GPU and half of its CPUs of any two nodes
    two = Placement(2, 1, "", cpus=4.0, gpus=2.0, devices=2)
    assert slots(two, [one, other]) == 1
    assert slots(two, [one]) == 0


@given(st.integers(1, 100))
def test_as_many_trials_share_a_gpu_as_the_share_says(count: int) -> None:
    """Ray counts in steps of 1/10,000, a sixth as 1,666 of them: rounded up, five would be all that a GPU has."""
    assert slots(Placement(1, 1, "", gpus=1 / count), machine(200, 1)) == count


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
    shared = Placement(2, 8, "as stated", cpus=3.0, gpus=0.25, memory=3 << 29)
    assert shared.text == "8 trials at once, 2 threads each (a trial holds 3 CPUs, 0.25 GPUs, 1.5 GiB): as stated"


def trial_and_data(spec: Path, *sets: str) -> tuple[Trial, ImageData]:
    plan = study_plan(load_spec(spec, sets=list(sets)))
    variant = plan.variant("se")
    return trial_of(variant, 0, Numerics()), load(variant.data, base=spec.parent)


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "available_cpus", lambda: 2)


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
    trials, measure = changes.pop("trials", 7), changes.pop("measure", True)
    return place(trial, data, trials=trials, stated=Stated(**changes), measure=measure)


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
    assert placed(trial, data, threads=2) == Placement(2, 1, "threads as stated", cpus=2.0)
    assert placed(trial, data, threads=1, concurrent=1) == Placement(1, 1, "as stated", most=1)
    assert placed(trial, data, concurrent=2) == Placement(1, 2, "the only way", most=2)
    assert placed(trial, data, measure=False) == Placement(1, 2, "by rule, not measured")
    held = Placement(1, 1, "threads as stated", cpus=2.0, memory=7)
    assert placed(trial, data, threads=1, cpus=2, memory=7) == held
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


def test_more_trials_at_once_than_the_machine_holds_are_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "available_cpus", lambda: 5)
    monkeypatch.setattr(placing, "memory_here", lambda: 10 << 30)
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
    with pytest.raises(UserError, match=r"max_concurrent: 3 trials at once, 2 CPUs each, are more than the 5 cores"):
        settle("execution={threads: 1, cpus: 2, max_concurrent: 3}")
    with pytest.raises(UserError, match=r"2 trials at once, 5 GiB each, are more than the 8 GiB that trials may take"):
        settle("execution={memory: 5GiB, max_concurrent: 2}")
    with pytest.raises(
        UserError, match=r"execution\.memory: 9 GiB a trial are more than the 8 GiB that trials may take"
    ):
        settle("execution={memory: 9GiB}")
    assert settle("execution={memory: 3GiB}").concurrent == 2


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
