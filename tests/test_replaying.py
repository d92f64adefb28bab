"""Replayed sweeps: virtual time is what it should be, planted faults strike as stated, and the folder is a real one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ablate.driving import Driver, Listed, Policy
from ablate.errors import UserError
from ablate.planting import Faults
from ablate.replaying import Clock, Course, Recorded, run
from ablate.store import Study
from tests.notes import Notes, listed, result, row

SECONDS = 5.0


def recorded(trials: list[Listed], *, reads: bool = False) -> dict[str, Recorded]:
    """Curves of epochs of 5 s, each trial with an accuracy of its own."""
    found = {}
    for trial in trials:
        index = int(trial.hash, 16)
        rows = [row(epoch, reads=reads) | {"val.loss": index + 1 / epoch} for epoch in range(1, trial.epochs + 1)]
        final = result(epochs=trial.epochs, readings=1 + reads * trial.epochs)
        final["metrics"] = {"test.accuracy": 10.0 + index}
        found[trial.hash] = Recorded(rows, [SECONDS] * trial.epochs, final)
    return found


class Replay:
    """A replayed sweep: in memory, unless a study is given."""

    def __init__(
        self,
        trials: list[Listed],
        slots: int,
        faults: Faults | None = None,
        study: Any = None,
        save_every: int = 1,
        reads: bool = False,
        **policy: Any,
    ) -> None:
        self.clock, self.study = Clock(), study if study is not None else Notes()
        self.told: list[dict[str, Any]] = []
        self.driver = Driver(trials, self.study, self.told.append, Policy(**policy), self.clock)
        self.course: Course = run(self.driver, recorded(trials, reads=reads), slots, self.clock, faults, save_every)

    def statuses(self) -> Counter[str]:
        return Counter(found["status"] for found in self.study.results().values())

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.told if event["event"] == name]


def test_virtual_time_passes_as_on_so_many_slots() -> None:
    replay = Replay(listed(7, epochs=3), slots=2)
    # the fuller slot has four trials of three epochs of 5 s
    assert replay.clock.now == 60.0
    assert replay.course == Course(steps=7 * 4, epochs=7 * 3)
    assert replay.statuses() == {"finished": 7}


def test_rows_and_results_are_the_recorded_ones() -> None:
    trials = listed(3, epochs=2)
    replay = Replay(trials, slots=2)
    curves = recorded(trials)
    assert replay.study.rows == {hash: curve.rows for hash, curve in curves.items()}
    assert replay.study.results() == {hash: {**curve.result, "attempts": 1} for hash, curve in curves.items()}
    assert [event["row"] for event in replay.events("epoch") if event["trial"] == trials[1].hash] == list(
        curves[trials[1].hash].rows
    )


def test_a_trial_that_failed_before_its_first_epoch_is_replayed_too() -> None:
    (trial,) = listed(1)
    study, clock = Notes(), Clock()
    driver = Driver([trial], study, lambda event: None, Policy(), clock)  # type: ignore[arg-type]
    run(driver, {trial.hash: Recorded([], [], result("crashed", 0, 0))}, 1, clock)
    assert study.results()[trial.hash]["status"] == "crashed"
    assert clock.now == 0.0


def test_the_budget_ends_a_sweep_between_two_steps() -> None:
    replay = Replay(listed(3, epochs=3), slots=1, budget=22.0)
    # one trial of 15 s, and one epoch of the next
    assert (replay.driver.stopping, replay.course.epochs) == ("budget", 4)
    assert replay.statuses() == {"finished": 1}
    assert not replay.study.at_work, "workers are ended with the sweep"


# Planted faults.


def test_workers_that_always_die_lose_their_trials() -> None:
    replay = Replay(listed(5), slots=2, faults=Faults(death=1.0), retries=2)
    assert replay.statuses() == {"lost": 5}
    assert replay.course.faults == {"death": 15}


def test_deaths_strike_the_stated_share_of_attempts_at_all_moments() -> None:
    replay = Replay(listed(400, epochs=4), slots=7, faults=Faults(death=0.3), retries=1000)
    begun = len(replay.events("started"))
    # of about 570 attempts; the standard deviation is 0.02
    assert replay.course.faults["death"] / begun == pytest.approx(0.3, abs=0.08)
    reached = Counter(len(rows) for rows in _rows_at_death(replay))
    assert set(reached) == {0, 1, 2, 3, 4}


def _rows_at_death(replay: Replay) -> list[list[int]]:
    """Of each attempt that was repeated: the epochs that the driver heard of."""
    found, running = [], {}
    for event in replay.told:
        match event["event"]:
            case "started":
                running[event["trial"]] = []
            case "epoch":
                running[event["trial"]].append(event["row"]["epoch"])
            case "again":
                found.append(running[event["trial"]])
    return found


def test_an_attempt_goes_on_from_the_last_epoch_that_was_saved() -> None:
    trials = listed(40, epochs=5)
    replay = Replay(trials, slots=3, faults=Faults(death=0.5), retries=1000, save_every=2)
    first_heard: dict[str, list[int]] = {}
    for hash, epochs in _attempts(replay):
        for before, after in zip(first_heard.get(hash, [])[-1:], epochs[:1], strict=False):
            # saved were epochs 2 and 4, of which the driver may not have heard
            assert after in (1, 3, 5)
            assert after >= before - before % 2 + (0 if before == 5 else 1)
        first_heard[hash] = epochs or first_heard.get(hash, [])
    assert replay.course.epochs > 40 * 5
    assert replay.study.rows == {hash: curve.rows for hash, curve in recorded(trials).items()}


def _attempts(replay: Replay) -> list[tuple[str, list[int]]]:
    found: list[tuple[str, list[int]]] = []
    running: dict[str, list[int]] = {}
    for event in replay.told:
        if event["event"] == "started":
            running[event["trial"]] = []
            found.append((event["trial"], running[event["trial"]]))
        elif event["event"] == "epoch":
            running[event["trial"]].append(event["row"]["epoch"])
    return found


def test_what_does_not_fit_beside_others_is_done_alone_one_after_the_other() -> None:
    replay = Replay(listed(4, epochs=3), slots=4, faults=Faults(out_of_memory=1.0), save_every=10)
    assert replay.statuses() == {"finished": 4}
    assert replay.course.faults == {"out_of_memory": 4}
    started = replay.events("started")
    assert [event["alone"] for event in started] == [False] * 4 + [True] * 4
    assert 4 * 15.0 < replay.clock.now <= 5 * 15.0


def test_what_hangs_ends_by_its_time() -> None:
    replay = Replay(listed(4), slots=4, faults=Faults(hang=1.0), trial_timeout=100.0)
    assert replay.statuses() == {"timed_out": 4}
    assert replay.clock.now == pytest.approx(100.1)


def test_what_takes_longer_than_its_time_ends_too() -> None:
    replay = Replay(listed(2, epochs=3), slots=1, trial_timeout=12.0)
    assert replay.statuses() == {"timed_out": 2}
    assert {found["epochs"] for found in replay.study.results().values()} == {2}


def test_what_hangs_needs_a_limit_to_its_time() -> None:
    with pytest.raises(ValueError, match="trial_timeout"):
        Replay(listed(1), slots=1, faults=Faults(hang=0.5))


def test_a_node_takes_all_its_slots_with_it_and_gives_them_back() -> None:
    faults = Faults(seed=3, nodes=2, node_every=15.0, node_back=10.0)
    replay = Replay(listed(30), slots=6, faults=faults, retries=1000)
    assert replay.statuses() == {"finished": 30}
    assert replay.course.faults["node"] >= 2
    running: dict[str, str] = {}
    gone: set[str] = set()
    for event in replay.told:
        match event["event"]:
            case "started":
                assert event["node"] not in gone
                running[event["trial"]] = event["node"]
                assert max(Counter(running.values()).values()) <= 3
            case "again":
                assert running.pop(event["trial"]) in gone
            case "ended":
                del running[event["trial"]]
            case "node" if event["change"] == "left":
                gone.add(event["name"])
            case "node":
                gone.discard(event["name"])
        assert not gone & set(running.values()) or event["event"] in ("node", "again")


def test_the_one_node_that_died_is_waited_for() -> None:
    replay = Replay(listed(4), slots=2, faults=Faults(node_every=20.0, node_back=1000.0), retries=1000)
    assert replay.statuses() == {"finished": 4}
    assert replay.clock.now > 1000.0


def test_an_attempts_fault_does_not_depend_on_the_slots() -> None:
    faults = Faults(seed=5, death=0.3, hang=0.2)
    one, three = (Replay(listed(30), slots, faults, trial_timeout=99.0) for slots in (1, 3))
    assert one.course.faults == three.course.faults
    assert one.study.results().keys() == three.study.results().keys()
    assert one.statuses() == three.statuses()
    other = Replay(listed(30), 3, replace(faults, seed=6), trial_timeout=99.0)
    assert other.course.faults != one.course.faults


def test_a_full_disk_stops_a_replayed_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **named: Any) -> None:
        raise UserError("no space left")

    for method in ("begin", "append_metrics", "save_state"):
        with monkeypatch.context() as patched:
            patched.setattr(Notes, method, refuse)
            replay = Replay(listed(3), slots=2)
        assert replay.driver.stopping == "refused"
        assert [str(problem) for problem in replay.driver.problems] == ["no space left"]
        assert replay.statuses() == {}
        assert not replay.study.at_work


def test_a_driver_that_gives_nothing_out_and_is_not_over_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Driver, "next", lambda self: None)
    with pytest.raises(RuntimeError, match="gives nothing out"):
        Replay(listed(1), slots=1)


# On the disk.


def test_a_sweep_killed_twice_in_a_real_folder_ends_as_one_that_was_not(tmp_path: Path) -> None:
    trials = listed(12, epochs=3)
    seeds = [{"name": f"v{i}", "levels": {}, "baseline": None, "trials": {}} for i in range(6)]
    for trial in trials:
        seeds[int(trial.variant[1:])]["trials"][str(trial.seed)] = trial.hash  # type: ignore[index]
    spec = {"name": "s", "ablation": {"seeds": 2}}
    replays = []
    kills: list[int | None] = [17, 20, None]
    for seed, kill in enumerate(kills):
        study = Study.create(tmp_path / "s", spec, seeds, {})
        with study.hold():
            to_do = [trial for trial in trials if study.result(trial.hash) is None]
            faults = Faults(seed, death=0.2, out_of_memory=0.2, nodes=2, node_every=30.0, kill_after=kill)
            replays.append(Replay(to_do, 4, faults, study, reads=True, retries=1000))
    assert [replay.course.killed for replay in replays] == [True, True, False]
    study = Study.open(tmp_path / "s")
    curves = recorded(trials, reads=True)
    results = study.results()
    for trial in trials:
        curve, found = curves[trial.hash], results[trial.hash]
        assert {key: found[key] for key in curve.result} == curve.result
        assert study.metrics(trial.hash) == curve.rows
        assert study.state(trial.hash) is None
    starts = [event for replay in replays for event in replay.events("started")]
    for hash, found in results.items():
        assert [event["attempt"] for event in starts if event["trial"] == hash] == [*range(1, found["attempts"] + 1)]
    assert any(found["attempts"] > 1 for found in results.values())
    ended = Counter(event["trial"] for replay in replays for event in replay.events("ended"))
    assert ended == {trial.hash: 1 for trial in trials}
    logged, _ = study.events()
    assert logged == [event for replay in replays for event in replay.told]
    lines = Counter(reading["trial"] for reading in study.exposures())
    assert all(lines[hash] >= curve.result["test_readings"] for hash, curve in curves.items())
    assert {hash: state.status for hash, state in study.states().items()} == dict.fromkeys(curves, "finished")
    assert {hash: state.attempts for hash, state in study.states().items()} == {
        hash: found["attempts"] for hash, found in results.items()
    }
