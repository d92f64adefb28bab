"""What ``auto`` comes to: once for a study, the same for all of its trials, and never what contradicts itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ablate import placing, resolving
from ablate.compiling import Estimate
from ablate.design import StudyPlan, study_plan
from ablate.errors import UserError
from ablate.nodes import Gpu
from ablate.numerics import Numerics
from ablate.placing import Measured, Placement, available_cpus
from ablate.prepare import create_study, loader, prepare
from ablate.resolving import Resolved, on_this_machine, resolved
from ablate.spec import load
from ablate.store import Study


@pytest.fixture
def plan_of(tiny: Path) -> Any:
    def make(*sets: str) -> StudyPlan:
        given = {"ablation.seeds": "1", "execution.device": "cpu"} | dict(item.split("=", 1) for item in sets)
        return study_plan(load(tiny, sets=[f"{path}={value}" for path, value in given.items()]))

    return make


def settled(plan: StudyPlan, **options: Any) -> Resolved:
    return resolved(plan, loader(plan), **options)


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every study counts as long; what is asked of the stopwatch is noted, and 2 threads win."""
    asked: list[dict[str, Any]] = []

    def place(trial: Any, data: Any, **options: Any) -> Placement:
        stated = options["stated"]
        asked.append({"measure": options["measure"], "threads": stated.threads, "concurrent": stated.concurrent})
        if not options["measure"]:
            return Placement(stated.threads or 1, stated.concurrent or 1, "by rule")
        threads = stated.threads or 2
        return Placement(threads, 1, "measured", (Measured(threads, 1, 50.0),))

    monkeypatch.setattr(resolving, "LONG", 0.0)
    monkeypatch.setattr(resolving, "place", place)
    monkeypatch.setattr(placing, "available_cpus", lambda: 8)
    return asked


def test_a_short_study_is_placed_by_rule_and_never_by_a_stopwatch(
    plan_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: Any, **options: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(resolving, "time_steps", never)
    monkeypatch.setattr("ablate.placing.measured", never)
    found = settled(plan_of())
    assert (found.numerics.threads, found.numerics.compile) == (1, False)
    assert found.placement.concurrent == min(3, available_cpus())
    assert settled(plan_of()) == found


def test_a_long_study_is_measured_unless_that_is_not_wanted_or_decided(
    plan_of: Any, long: list[dict[str, Any]]
) -> None:
    assert settled(plan_of()).numerics.threads == 2
    assert settled(plan_of(), measure=False).numerics.threads == 1
    assert settled(plan_of("execution.deterministic=true")).numerics.threads == 1
    assert settled(plan_of("execution.threads=4")).numerics.threads == 4
    assert [each["measure"] for each in long] == [True, False, False, True]
    assert [each["threads"] for each in long] == [None, None, 1, 4]


def test_trials_at_once_are_the_command_lines_before_the_specs(plan_of: Any, long: list[dict[str, Any]]) -> None:
    settled(plan_of())
    settled(plan_of("execution.max_concurrent=3"))
    settled(plan_of("execution.max_concurrent=3"), concurrent=5)
    assert [each["concurrent"] for each in long] == [None, 3, 5]


def test_cpus_are_threads_where_those_are_left_open_but_never_for_a_study_that_was_begun(
    plan_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "available_cpus", lambda: 9)
    found = settled(plan_of("execution.cpus=3"))
    assert (found.numerics.threads, found.placement.cpus, found.placement.concurrent) == (3, 3.0, 3)
    both = settled(plan_of("execution={cpus: 4, threads: 1}"))
    assert (both.numerics.threads, both.placement.cpus, both.placement.concurrent) == (1, 4.0, 2)
    create_study(prepare(plan_of("execution.cpus=3"), folder=tmp_path / "s", measure=False))
    for cpus, at_once in (("auto", 3), (4, 2), (9, 1)):
        again = settled(plan_of(f"execution.cpus={cpus}"), folder=tmp_path / "s")
        assert (again.numerics.threads, again.placement.concurrent) == (3, at_once)
    with pytest.raises(UserError, match=r"execution\.cpus: 2 CPUs are fewer than the 3 threads of a trial"):
        settled(plan_of("execution.cpus=2"), folder=tmp_path / "s")


Cluster = Callable[..., None]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """A Ray cluster that was joined; this machine itself has a core, and no GPU."""
    monkeypatch.setattr(placing, "available_cpus", lambda: 1)

    def join(*resources: dict[str, float], gpu: Gpu | None = None) -> None:
        nodes = [{"Alive": True, "Resources": held} for held in resources]
        ray = SimpleNamespace(is_initialized=lambda: True, nodes=lambda: nodes)
        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.setattr("ablate.placing.own_session", False)  # that of other tests in this process
        monkeypatch.setattr(resolving, "gpu_here", lambda: None)
        monkeypatch.setattr(resolving, "gpu_of_the_cluster", lambda: gpu)

    return join


def test_in_a_cluster_its_nodes_count_and_not_this_machine(plan_of: Any, cluster: Cluster) -> None:
    cluster({"CPU": 4.0, "memory": 2.0**33}, {"CPU": 3.0, "memory": 2.0**33}, {"memory": 1.0})
    assert settled(plan_of()).placement.concurrent == 3
    many = settled(plan_of("execution={cpus: 2, max_concurrent: 100}", "ablation.seeds=9")).placement
    assert (many.concurrent, many.cpus, many.most) == (3, 2.0, 100)
    assert settled(plan_of("execution={memory: 4GiB}", "ablation.seeds=9")).placement.concurrent == 4
    with pytest.raises(UserError, match="5 threads a trial are more than the 4 cores on a node of the cluster"):
        settled(plan_of("execution.threads=5"))
    with pytest.raises(UserError, match=r"execution\.cpus: 5 threads a trial are more than the 4 cores on a node"):
        settled(plan_of("execution.cpus=5"))
    with pytest.raises(UserError, match=r"execution\.memory: 9 GiB a trial are more than the 8 GiB"):
        settled(plan_of("execution.memory=9GiB"))
    with pytest.raises(UserError, match=r"execution\.gpus: no CUDA device on a node of the cluster"):
        settled(plan_of("execution.device=auto", "execution.gpus=0.5"))


def test_the_gpus_of_a_cluster_are_asked_what_they_are_by_a_head_that_has_none(plan_of: Any, cluster: Cluster) -> None:
    head, worker = {"CPU": 2.0}, {"CPU": 16.0, "GPU": 2.0}
    cluster(head, worker, worker, gpu=Gpu("A GPU", "bf16", "no triton"))
    auto = ("execution.device=auto", "ablation.seeds=9")
    found = settled(plan_of(*auto))
    assert (found.numerics.device, found.numerics.device_name, found.numerics.precision) == ("cuda", "A GPU", "bf16")
    assert (found.placement.concurrent, found.placement.gpus) == (4, 1.0)
    shared = settled(plan_of(*auto, "execution.gpus=0.25")).placement
    assert (shared.concurrent, shared.gpus, shared.cpus) == (16, 0.25, 1.0)
    at_once = settled(plan_of(*auto, "execution.max_concurrent=7")).placement
    assert (at_once.concurrent, at_once.gpus) == (7, 0.5)
    with pytest.raises(UserError, match="no triton"):
        settled(plan_of(*auto, "execution.compile=true"))
    with pytest.raises(UserError, match="4 CUDA devices in the cluster"):
        settled(plan_of(*auto, "execution.devices=5", "train.batch_size=10"))
    cluster(head, gpu=None)
    with pytest.raises(UserError, match=r"execution\.device: no CUDA device in the cluster"):
        settled(plan_of("execution.device=cuda"))


def test_gpus_on_this_machine_are_shared_as_stated(plan_of: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "available_cpus", lambda: 16)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr(resolving, "gpu_here", lambda: Gpu("A GPU", "bf16", None))
    many = ("execution.device=cuda", "ablation.seeds=9")
    assert settled(plan_of(*many, "execution.gpus=0.25")).placement.concurrent == 8
    assert settled(plan_of(*many, "execution.max_concurrent=6")).placement.gpus == 1 / 3
    assert settled(plan_of(*many)).placement.gpus == 1.0
    two = settled(plan_of(*many, "execution={devices: 2, gpus: 2}", "train.batch_size=10")).placement
    assert (two.concurrent, two.gpus, two.cpus) == (1, 2.0, 2.0)
    with pytest.raises(UserError, match=r"max_concurrent: 9 trials at once, 0\.25 GPUs each, are more than the 2 GPUs"):
        settled(plan_of(*many, "execution={gpus: 0.25, max_concurrent: 9}"))


def test_compiling_is_decided_by_what_it_costs_and_saves(
    plan_of: Any, long: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def estimate(**given: Any) -> Estimate:
        asked.append(given)
        return Estimate(len(asked) == 1, "so it is")

    monkeypatch.setattr(resolving, "estimate", estimate)
    assert settled(plan_of()).numerics.compile
    assert not settled(plan_of()).numerics.compile
    assert not settled(plan_of("execution.compile=false")).numerics.compile
    given = asked[0]
    assert len(asked) == 2
    assert (given["trials"], given["concurrent"], len(given["nodes"])) == (3, 1, 3)
    # 45 train images, 2 epochs, at 50 images a second: the three variants cost nearly alike
    assert given["seconds"] == pytest.approx(3 * 45 * 2 / 50, rel=0.1)


def test_a_study_goes_on_with_the_profile_that_it_was_begun_with(
    plan_of: Any, long: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = prepare(plan_of(), folder=tmp_path / "s", measure=False)
    profile = replace(begun.numerics, threads=4, precision="fp16", compile=True)
    create_study(replace(begun, settled=replace(begun.settled, numerics=profile)))
    monkeypatch.setattr(resolving, "why_not", lambda device: None)
    again = settled(plan_of(), folder=tmp_path / "s").numerics
    assert (again.threads, again.precision, again.compile) == (4, "fp16", True)
    elsewhere = settled(plan_of(), folder=tmp_path / "t").numerics
    assert (elsewhere.threads, elsewhere.precision) != (4, "fp16")
    # what the spec states is never overruled: the store then says that it is another study
    assert settled(plan_of("execution.threads=2"), folder=tmp_path / "s").numerics.threads == 2


def test_a_study_with_a_network_that_can_not_be_compiled_is_not_compiled_and_says_which(
    plan_of: Any, long: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolving, "estimate", lambda **given: Estimate(True, "it pays"))
    seen: list[int] = []

    def second(network: Any, x: Any) -> str | None:
        seen.append(len(x))
        return "a graph break" if len(seen) == 2 else None

    monkeypatch.setattr(resolving, "why_not_captured", second)
    found = settled(plan_of())
    assert (found.numerics.compile, found.compiling.worth) == (False, False)
    assert found.compiling.why == "se: a graph break"


def test_a_damaged_record_of_a_study_hides_its_profile_from_nobody(plan_of: Any, tmp_path: Path) -> None:
    begun = prepare(plan_of(), folder=tmp_path / "s", measure=False)
    profile = replace(begun.numerics, precision="fp16")
    create_study(replace(begun, settled=replace(begun.settled, numerics=profile)))
    (tmp_path / "s" / "certificates.json").write_text("{")
    again = prepare(plan_of(), folder=tmp_path / "s", measure=False)
    assert again.numerics == profile
    create_study(again)  # writes the record anew
    assert Study.open(tmp_path / "s").variants


def test_what_auto_comes_to_in_precision_is_the_machines_and_deterministic_is_fp32(
    plan_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolving, "fastest_precision", lambda device: "bf16")
    assert on_this_machine(plan_of()).precision == "bf16"
    assert on_this_machine(plan_of("execution.deterministic=true")).precision == "fp32"
    # where every variant states its own there is nothing to resolve, and so nothing in the hash
    assert on_this_machine(plan_of("train.precision=bf16")).precision == "fp32"


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        ([f"execution.threads={available_cpus() + 1}"], "execution.threads"),
        (["execution.deterministic=true", "train.precision=bf16"], "deterministic: true is fp32"),
        (["execution.deterministic=true", "execution.compile=true"], "compiled is not deterministic"),
        (["execution.threads=1", "execution.max_concurrent=1000"], "execution.max_concurrent"),
    ],
)
def test_what_contradicts_itself_or_the_machine_is_refused(plan_of: Any, sets: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        settled(plan_of(*sets))


def test_compile_without_a_compiler_is_refused_with_what_is_missing(
    plan_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolving, "why_not", lambda device: "no C++ compiler")
    with pytest.raises(UserError, match=r"execution\.compile: no C\+\+ compiler; compile: false"):
        settled(plan_of("execution.compile=true"))
    assert not settled(plan_of()).numerics.compile


def test_the_profile_is_plain_data_that_a_frozen_spec_can_hold() -> None:
    assert Numerics(**Numerics(threads=3).as_dict()) == Numerics(threads=3)
