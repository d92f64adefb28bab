"""Sweeps: the two executors agree, nothing finished is lost or trained twice, and every failure is a result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ablate
from ablate import block as block_module
from ablate.block import Block, BlockParams, Shape
from ablate.cache import Cache
from ablate.errors import UserError
from ablate.events import Event
from ablate.numerics import Numerics
from ablate.progress import Progress
from ablate.store import Study
from ablate.workers import worker_environment
from tests.conftest import REPOSITORY
from tests.faulty import Fatal, Witness

Sweep = Callable[..., Study]


def comparable(study: Study) -> dict[str, Any]:
    """What must be equal between two runs of one trial: everything but how long it took."""
    return {
        key: {name: result[name] for name in ("status", "metrics", "epochs", "selected_epoch", "test_readings")}
        for key, result in study.results().items()
    }


def weights(study: Study, key: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(study.trial_folder(key) / "checkpoint.pt", weights_only=True)
    return state


class Log(Progress):
    """Progress that remembers, and like a live display can't be pickled."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.events: list[Event] = []

    def tell(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["event"] == kind]

    @property
    def kept(self) -> int:
        return int(self.of("sweep")[0]["kept"])

    @property
    def started_trials(self) -> list[tuple[str, int]]:
        return [(event["variant"], event["seed"]) for event in self.of("started")]

    @property
    def rows(self) -> list[dict[str, float]]:
        return [event["row"] for event in self.of("epoch")]


@contextmanager
def registered(block: type[Block]) -> Iterator[None]:
    block_module.register(block)
    try:
        yield
    finally:
        del block_module._registry[block.name]


def test_a_sweep_trains_every_variant_over_every_seed(tiny: Path, tmp_path: Path, sweep_spec: Sweep) -> None:
    log = Log()
    study = sweep_spec(tiny, tmp_path / "s", executor="local", progress=log)
    results = study.results()
    assert len(results) == 6
    assert {result["status"] for result in results.values()} == {"finished"}
    assert len(log.rows) == 12
    for record in study.variants:
        assert list(record["trials"]) == ["0", "1"]
        for key in record["trials"].values():
            assert [row["epoch"] for row in study.metrics(key)] == [1, 2]
            predictions = study.predictions(key)
            accuracy = 100 * np.mean(predictions["predicted"] == predictions["label"])
            assert accuracy == pytest.approx(results[key]["metrics"]["test.accuracy"])


def test_the_test_split_is_read_once_a_trial_and_each_reading_is_recorded(
    tiny: Path, tmp_path: Path, sweep_spec: Sweep
) -> None:
    study = sweep_spec(tiny, tmp_path / "s", executor="local")
    read = [(exposure["variant"], exposure["seed"]) for exposure in study.exposures()]
    assert sorted(read) == sorted((name, seed) for name in ("none", "se", "between") for seed in (0, 1))


def test_monitoring_the_test_split_is_counted_reading_by_reading(tiny: Path, tmp_path: Path, sweep_spec: Sweep) -> None:
    stopping = "train.early_stopping={monitor: test.error, patience: 5}"
    study = sweep_spec(tiny, tmp_path / "s", [stopping, "ablation.seeds=1"], executor="local")
    # Two epochs and the end, for each of three trials.
    assert len(study.exposures()) == 9
    assert {result["test_readings"] for result in study.results().values()} == {3}
    assert any("biased" in sentence for sentence in study.variants[0]["certificate"]["protocol"])


def test_a_finished_trial_is_not_trained_again(tiny: Path, tmp_path: Path, sweep_spec: Sweep) -> None:
    first = comparable(sweep_spec(tiny, tmp_path / "s", executor="local"))
    log = Log()
    again = sweep_spec(tiny, tmp_path / "s", executor="local", progress=log)
    assert (log.kept, log.started_trials) == (6, [])
    assert comparable(again) == first


def test_a_trial_without_a_result_is_trained_again_to_the_same_bits(
    tiny: Path, tmp_path: Path, sweep_spec: Sweep
) -> None:
    study = sweep_spec(tiny, tmp_path / "s", executor="local")
    before, key = comparable(study), study.variants[1]["trials"]["1"]
    state = weights(study, key)
    (study.trial_folder(key) / "result.json").unlink()
    log = Log()
    again = sweep_spec(tiny, tmp_path / "s", executor="local", progress=log)
    assert log.started_trials == [("se", 1)]
    assert comparable(again) == before
    assert all(torch.equal(tensor, state[name]) for name, tensor in weights(again, key).items())


def test_a_deterministic_study_is_equal_to_the_last_bit_wherever_it_is_swept(
    tiny: Path, tmp_path: Path, sweep_spec: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ablate.resolving.fastest_precision", lambda device: "bf16")
    sets = ["execution.deterministic=true", "ablation={seeds: 1}"]
    one, other = (sweep_spec(tiny, tmp_path / name, sets, executor="local") for name in ("one", "other"))
    assert comparable(one) == comparable(other)
    numerics = one.spec["numerics"]
    assert (numerics["deterministic"], numerics["precision"], numerics["compile"]) == (True, "fp32", False)
    (key,) = one.results()
    found, again = weights(one, key), weights(other, key)
    assert found.keys() == again.keys()
    assert all(torch.equal(tensor, again[name]) for name, tensor in found.items())


def test_more_seeds_train_only_the_new_ones(tiny: Path, tmp_path: Path, sweep_spec: Sweep) -> None:
    sweep_spec(tiny, tmp_path / "s", executor="local")
    log = Log()
    sweep_spec(tiny, tmp_path / "s", ["ablation.seeds=3"], executor="local", progress=log)
    assert log.started_trials == [("none", 2), ("se", 2), ("between", 2)]


def test_the_folder_of_another_spec_is_refused(tiny: Path, tmp_path: Path, sweep_spec: Sweep) -> None:
    sweep_spec(tiny, tmp_path / "s", ["ablation.seeds=1"], executor="local")
    with pytest.raises(UserError, match=r"another spec: they differ in train\.epochs; choose another --out"):
        sweep_spec(tiny, tmp_path / "s", ["ablation.seeds=1", "train.epochs=1"], executor="local")


def test_duplicates_are_trained_once_and_share_their_trials(tiny: Path, tmp_path: Path, sweep_spec: Sweep) -> None:
    text = tiny.read_text().replace("between: {network.insert.attention.at: after stage1}", "same: {}")
    tiny.write_text(text)
    study = sweep_spec(tiny, tmp_path / "s", executor="local")
    records = {record["name"]: record for record in study.variants}
    assert records["same"]["duplicate_of"] == "se"
    assert records["same"]["trials"] == records["se"]["trials"]
    assert len(study.results()) == 4


class Explosive(Block):
    """Raises in the second training step, and nowhere before."""

    name = "explosive"
    calls = 0

    class Params(BlockParams): ...

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.dtype == torch.float32 and x.shape[0] == 16:
            Explosive.calls += 1
            if Explosive.calls == 2:
                raise RuntimeError("a block's own bug")
        return x * 1


def test_a_bug_in_a_block_is_a_result_with_its_traceback_and_the_study_goes_on(
    tiny: Path, tmp_path: Path, sweep_spec: Sweep
) -> None:
    text = tiny.read_text().replace("network.insert.attention.block: se", "network.insert.attention.block: explosive")
    tiny.write_text(text)
    Explosive.calls = 0
    with registered(Explosive):
        sets = ["ablation.seeds=1", "train.precision=fp32"]
        study = sweep_spec(tiny, tmp_path / "s", sets, executor="local")
    statuses = {record["name"]: study.result(record["trials"]["0"]) for record in study.variants}
    crashed = statuses["se"]
    assert crashed is not None
    assert crashed["status"] == "crashed"
    assert "a block's own bug" in crashed["error"]["traceback"]
    assert [result["status"] for result in statuses.values() if result] == ["finished", "crashed", "finished"]


def test_a_loss_that_is_no_number_is_a_result(tiny: Path, tmp_path: Path, sweep_spec: Sweep) -> None:
    study = sweep_spec(tiny, tmp_path / "s", ["ablation.seeds=1", "train.optimizer.lr=1.0e+30"], executor="local")
    assert {result["status"] for result in study.results().values()} == {"diverged"}
    assert study.exposures() == []


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_ray_and_local_give_equal_results_bit_for_bit(tiny: Path, tmp_path: Path, sweep_spec: Sweep) -> None:
    here = sweep_spec(tiny, tmp_path / "here", executor="local")
    log = Log()
    there = sweep_spec(tiny, tmp_path / "there", executor="ray", concurrent=2, progress=log)
    assert comparable(here) == comparable(there)
    assert sorted(log.started_trials) == sorted((v, s) for v in ("none", "se", "between") for s in (0, 1))
    assert len(log.rows) == 12
    for key in here.results():
        mine, theirs = weights(here, key), weights(there, key)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_session")
def test_a_trial_whose_worker_dies_is_repeated(tiny: Path, tmp_path: Path, sweep_spec: Sweep) -> None:
    marker = tmp_path / "marker"
    patch = f"network.insert.attention: {{block: fatal, marker: {marker}, at: after stage1}}"
    tiny.write_text(tiny.read_text().replace("network.insert.attention.block: se", patch))
    log = Log()
    with registered(Fatal):
        study = sweep_spec(tiny, tmp_path / "s", ["ablation.seeds=1"], executor="ray", concurrent=2, progress=log)
    assert marker.exists()
    assert log.started_trials.count(("se", 0)) == 2
    assert {result["status"] for result in study.results().values()} == {"finished"}
    key = study.variants[1]["trials"]["0"]
    assert [row["epoch"] for row in study.metrics(key)] == [1, 2]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_worker_has_its_threads_its_cores_and_its_allocator_and_flushes_denormals(
    tiny: Path, tmp_path: Path, sweep_spec: Sweep
) -> None:
    file = tmp_path / "seen.json"
    patch = f"network.insert.attention: {{block: witness, file: {file}, at: after stage1}}"
    tiny.write_text(tiny.read_text().replace("network.insert.attention.block: se", patch))
    with registered(Witness):
        sweep_spec(tiny, tmp_path / "s", ["ablation.seeds=1", "execution.threads=2"], executor="ray")
    seen = json.loads(file.read_text())
    # the session was started for one thread; the study's own number stands above it
    assert (seen["threads"], seen["cores"], seen["flushed"]) == (2, 2, True)
    expected = worker_environment(Numerics())
    assert {key: seen["environment"].get(key) for key in expected} == expected


SWEEP = [sys.executable, "-m", "ablate", "sweep"]


def start_sweep(spec: Path, folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*SWEEP, str(spec), "--out", str(folder), "--quiet"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finished(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("trials/*/result.json")}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_killed_with_all_its_processes_loses_no_finished_trial(
    tiny: Path, tmp_path: Path, sweep_spec: Sweep
) -> None:
    tiny.write_text(tiny.read_text().replace("count: {train: 60", "count: {train: 600"))
    undisturbed = comparable(sweep_spec(tiny, tmp_path / "undisturbed", executor="local"))
    folder = tmp_path / "killed"
    process = start_sweep(tiny, folder)
    deadline = time.monotonic() + 240
    while len(finished(folder)) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = finished(folder)
    assert 2 <= len(before) < 6, "the kill came too early or too late to show anything"
    process = start_sweep(tiny, folder)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    after = finished(folder)
    assert {key: after[key] for key in before} == before, "a finished trial was trained again"
    assert comparable(Study.open(folder)) == undisturbed


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ctrl_c_ends_a_sweep_and_the_same_command_goes_on(tiny: Path, tmp_path: Path) -> None:
    tiny.write_text(tiny.read_text().replace("count: {train: 60", "count: {train: 600"))
    folder = tmp_path / "s"
    process = start_sweep(tiny, folder)
    deadline = time.monotonic() + 240
    while not finished(folder) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors.decode()
    assert b"Traceback" not in errors
    kept = finished(folder)
    assert 1 <= len(kept) < 6
    process = start_sweep(tiny, folder)
    assert process.communicate(timeout=300)
    assert process.returncode == 0
    after = finished(folder)
    assert len(after) == 6
    assert {key: after[key] for key in kept} == kept


def test_the_resolved_spec_in_the_folder_gives_the_same_study(tiny: Path, tmp_path: Path, sweep_spec: Sweep) -> None:
    study = sweep_spec(tiny, tmp_path / "s", ["train.epochs=1", "ablation.seeds=1"], executor="local")
    stored = json.loads(json.dumps(study.spec))
    assert stored["numerics"]["threads"] == 1
    again = ablate.sweep(ablate.load(stored), folder=tmp_path / "again", executor="local")
    assert again.results().keys() == study.results().keys()
    stored["numerics"]["torch"] = "1.13.1"
    with pytest.raises(UserError, match=r"numerics\.torch: the spec was frozen with '1\.13\.1', and here it is"):
        ablate.sweep(ablate.load(stored), folder=tmp_path / "again", executor="local")


def test_two_studies_that_share_half_of_their_trials_train_that_half_once(
    tiny: Path, tmp_path: Path, sweep_spec: Sweep
) -> None:
    cache = Cache(tmp_path / "cache")
    first = sweep_spec(tiny, tmp_path / "first", ["ablation.seeds=[0, 1]"], executor="local", cache=cache)
    log = Log()
    sets = ["ablation.seeds=[1, 2]", "name=another"]
    second = sweep_spec(tiny, tmp_path / "second", sets, executor="local", progress=log, cache=cache)
    assert log.started_trials == [(variant, 2) for variant in ("none", "se", "between")]
    assert log.of("sweep")[0]["cached"] == 3
    shared = first.results().keys() & second.results().keys()
    assert len(shared) == 3
    assert {key: comparable(second)[key] for key in shared} == {key: comparable(first)[key] for key in shared}
    # what was taken has read the test split, too; and a sweep that was killed before it said so says it the next time
    read = sorted(second.results())
    assert sorted(exposure["trial"] for exposure in second.exposures()) == read
    (second.folder / "exposures.jsonl").unlink()
    for _ in range(2):
        second = sweep_spec(tiny, tmp_path / "second", sets, executor="local", cache=cache)
        assert sorted(exposure["trial"] for exposure in second.exposures()) == read


def test_more_levels_train_only_the_new_ones(tiny: Path, tmp_path: Path, sweep_spec: Sweep) -> None:
    sweep_spec(tiny, tmp_path / "s", ["ablation.seeds=1"], executor="local")
    tiny.write_text(tiny.read_text() + "      cbam:    {network.insert.attention.block: cbam}\n")
    log = Log()
    study = sweep_spec(tiny, tmp_path / "s", ["ablation.seeds=1"], executor="local", progress=log)
    assert log.started_trials == [("cbam", 0)]
    assert len(study.results()) == 4
    assert [event["changed"] for event in study.events()[0] if event["event"] == "spec"] == [
        ["ablation.factors.attention.cbam.network.insert.attention.block"]
    ]


def test_more_epochs_train_all_anew_and_what_was_read_before_stays_on_record(
    tiny: Path, tmp_path: Path, sweep_spec: Sweep
) -> None:
    sweep_spec(tiny, tmp_path / "s", ["ablation.seeds=1"], executor="local")
    log = Log()
    study = sweep_spec(tiny, tmp_path / "s", ["ablation.seeds=1", "train.epochs=3"], executor="local", progress=log)
    assert len(log.started_trials) == 3
    assert len(study.exposures()) == 6
    assert len(study.results()) == 6
    assert {row["epoch"] for row in log.rows} == {1, 2, 3}
    with pytest.raises(UserError, match=r"another spec: they differ in train\.epochs; choose another --out"):
        sweep_spec(tiny, tmp_path / "s", ["ablation.seeds=1", "train.epochs=2"], executor="local")
