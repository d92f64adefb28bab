"""The driver: what runs when, what is repeated, and that no fault and no kill loses a result or makes a second one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.driving import Attempt, Driver, Listed, Policy
from ablate.outcomes import repeated
from ablate.planting import Faults
from ablate.replaying import Clock, Recorded, run
from tests.notes import FULL, Dead, Notes, listed, result, row

A, B, C = listed(3)


class Sweep:
    """A driver on notes, with its clock and the events that it told."""

    def __init__(self, trials: Sequence[Listed] = (A, B, C), notes: Notes | None = None, **policy: Any) -> None:
        self.clock, self.notes = Clock(), notes or Notes()
        self.told: list[dict[str, Any]] = []
        self.driver = Driver(trials, self.notes, self.told.append, Policy(**policy), self.clock)  # type: ignore[arg-type]

    def begin(self) -> Attempt:
        """The next attempt, begun."""
        attempt = self.driver.next()
        assert attempt is not None
        self.driver.started(attempt, node="n", pid=7)
        return attempt

    def events(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.told if event["event"] == name]


# What is given out.


def test_trials_are_given_out_in_their_order_each_once() -> None:
    driver = Sweep().driver
    given = [driver.next() for _ in range(4)]
    assert given == [Attempt(A), Attempt(B), Attempt(C), None]
    assert list(driver.running.values()) == given[:3]
    assert not driver.over
    for attempt in given[:3]:
        assert attempt is not None
        driver.ended(attempt, result())
    assert driver.over
    assert driver.running == {}


def test_what_is_heard_of_an_attempt_that_has_ended_changes_nothing() -> None:
    sweep = Sweep([A], retries=3, trial_timeout=1.0)
    first = sweep.begin()
    sweep.driver.lost(first, "its worker died")
    second = sweep.begin()
    sweep.driver.epoch(first, row(1))
    sweep.driver.ended(first, result())
    sweep.driver.lost(first, "its node died")
    sweep.driver.put_back(first)
    assert sweep.driver.running == {A.hash: second}
    sweep.driver.timed_out(second)
    sweep.driver.lost(second, "it was killed for that")
    assert sweep.driver.over
    assert [event["event"] for event in sweep.told] == ["started", "again", "started", "ended"]


def test_without_trials_a_sweep_is_over_before_it_began() -> None:
    assert Sweep([]).driver.over
    assert not Sweep().driver.over


def test_what_could_not_begin_is_given_out_again_as_it_was() -> None:
    driver = Sweep().driver
    first = driver.next()
    assert first is not None
    driver.put_back(first)
    assert driver.running == {}
    assert [driver.next(), driver.next()] == [first, Attempt(B)]


def test_attempts_are_counted_over_all_sweeps() -> None:
    notes = Notes()
    Sweep([A, B], notes).begin()  # and its driver is killed
    sweep = Sweep([A, B], notes)
    again, other = sweep.begin(), sweep.begin()
    assert (again.number, other.number) == (2, 1)
    sweep.driver.lost(again, "w")
    third = sweep.begin()
    assert (third.trial, third.number) == (A, 3)
    sweep.driver.ended(third, result())
    assert notes.results()[A.hash]["attempts"] == 3


# What becomes of it.


@pytest.mark.parametrize("status", ["finished", "diverged", "crashed"])
def test_a_result_of_training_is_recorded_as_it_is_and_never_repeated(status: str) -> None:
    sweep = Sweep([A])
    sweep.driver.ended(sweep.begin(), result(status))
    assert sweep.notes.finished == [(A.hash, {**result(status), "attempts": 1})]
    assert sweep.driver.over


def test_a_trial_whose_worker_died_comes_next_until_it_has_died_too_often() -> None:
    sweep = Sweep([A, B], retries=2)
    for number in (1, 2, 3):
        attempt = sweep.begin()
        assert attempt == Attempt(A, number)
        sweep.clock.now += 7
        sweep.driver.epoch(attempt, row(2))
        sweep.driver.lost(attempt, f"why {number}")
    (_, lost), *others = sweep.notes.finished
    assert not others
    assert (lost["status"], lost["attempts"], lost["epochs"], lost["seconds"]) == ("lost", 3, 2, 7)
    assert lost["error"]["message"] == "why 3"
    assert [(event["attempt"], event["status"], event["why"]) for event in sweep.events("again")] == [
        (1, "lost", "why 1"),
        (2, "lost", "why 2"),
    ]
    assert sweep.begin().trial == B


def test_losses_count_in_one_sweep_only() -> None:
    notes = Notes()
    first = Sweep([A], notes, retries=1)
    first.driver.lost(first.begin(), "w")
    second = Sweep([A], notes, retries=1)
    second.driver.lost(second.begin(), "w")
    assert notes.finished == []
    second.driver.lost(second.begin(), "w")
    assert notes.results()[A.hash]["status"] == "lost"


def test_one_that_did_not_fit_is_repeated_once_with_nothing_beside_it() -> None:
    sweep = Sweep()
    driver = sweep.driver
    large, other = sweep.begin(), sweep.begin()
    driver.ended(large, result("out_of_memory"))
    assert sweep.notes.finished == []
    third = sweep.begin()
    assert third.trial == C
    assert driver.next() is None, "not while others run"
    driver.ended(other, result())
    assert driver.next() is None, "not while another runs"
    driver.ended(third, result())
    alone = sweep.begin()
    assert alone == Attempt(A, 2, alone=True)
    assert sweep.events("started")[-1]["alone"]
    driver.ended(alone, result("out_of_memory"))
    assert driver.over
    assert sweep.notes.results()[A.hash]["status"] == "out_of_memory"


def test_nothing_begins_beside_one_that_is_alone() -> None:
    sweep = Sweep([A, B])
    driver = sweep.driver
    for _ in range(2):
        driver.ended(sweep.begin(), result("out_of_memory"))
    alone = sweep.begin()
    assert driver.next() is None
    driver.lost(alone, "w")
    # the other one's turn, and then again this one's: still alone
    second = sweep.begin()
    assert driver.next() is None
    driver.ended(second, result())
    third = sweep.begin()
    assert {second.trial, third.trial} == {A, B}
    assert second.alone
    assert third.alone
    driver.put_back(third)
    assert driver.next() == third


def test_what_had_its_time_is_overdue_and_ends_as_timed_out() -> None:
    sweep = Sweep([A, B, C], trial_timeout=60.0)
    driver = sweep.driver
    first = sweep.begin()
    sweep.clock.now = 30.0
    second, unstarted = sweep.begin(), driver.next()
    assert unstarted is not None
    sweep.clock.now = 60.0
    assert driver.overdue() == []
    sweep.clock.now = 60.5
    assert driver.overdue() == [first]
    driver.epoch(first, row(2))
    driver.timed_out(first)
    found = sweep.notes.results()[A.hash]
    assert (found["status"], found["epochs"], found["seconds"]) == ("timed_out", 2, 60.5)
    assert "60 s" in found["error"]["message"]
    # which a later sweep repeats if it gives more
    assert not repeated(found, trial_timeout=60.0)
    assert repeated(found, trial_timeout=61.0)
    sweep.clock.now = 1000.0
    assert driver.overdue() == [second], "the one that was given out and never began has used no time"


def test_a_repeated_trial_has_its_whole_time_again() -> None:
    sweep = Sweep([A], trial_timeout=60.0)
    first = sweep.begin()
    sweep.clock.now = 50.0
    sweep.driver.lost(first, "w")
    sweep.begin()
    sweep.clock.now = 100.0
    assert sweep.driver.overdue() == []


def test_without_a_limit_nothing_is_overdue() -> None:
    sweep = Sweep()
    sweep.begin()
    sweep.clock.now = 1e9
    assert sweep.driver.overdue() == []
    assert not sweep.driver.over


# How a sweep ends before its end.


def test_a_budget_that_is_used_up_stops_the_sweep_and_records_nothing_of_what_runs() -> None:
    sweep = Sweep([A, B], budget=3600.0)
    sweep.begin()
    sweep.clock.now = 3600.0
    assert not sweep.driver.over
    sweep.clock.now = 3600.5
    assert sweep.driver.next() is None
    assert sweep.driver.over
    assert sweep.driver.stopping == "budget"
    assert sweep.notes.finished == []


def test_a_budget_that_ends_after_all_is_done_stops_nothing() -> None:
    sweep = Sweep([A], budget=10.0)
    sweep.driver.ended(sweep.begin(), result())
    sweep.clock.now = 11.0
    assert sweep.driver.over
    assert sweep.driver.stopping is None


def test_a_sweep_that_is_stopped_gives_nothing_more_out_and_its_first_reason_stays() -> None:
    sweep = Sweep()
    sweep.begin()
    sweep.driver.stop("interrupted")
    sweep.driver.stop("budget")
    assert sweep.driver.next() is None
    assert sweep.driver.over
    assert sweep.driver.stopping == "interrupted"


@pytest.mark.parametrize("refuses", ["note_begun", "log", "expose", "finish"])
def test_a_full_disk_stops_the_sweep_whatever_was_to_be_written_and_says_so_once(refuses: str) -> None:
    sweep = Sweep([A, B])
    sweep.notes.refuses = (refuses,)
    attempt = sweep.begin()
    sweep.driver.epoch(attempt, row(1, reads=True))
    sweep.driver.ended(attempt, result(epochs=1, readings=2))
    assert sweep.driver.stopping == "refused"
    assert [str(problem) for problem in sweep.driver.problems] == [FULL]
    assert sweep.driver.next() is None
    assert sweep.driver.over


@pytest.mark.parametrize("refuses", ["expose", "finish"])
def test_what_was_not_recorded_has_not_ended(refuses: str) -> None:
    sweep = Sweep([A])
    attempt = sweep.begin()
    sweep.notes.refuses = (refuses,)
    sweep.driver.ended(attempt, result())
    assert sweep.notes.finished == []
    assert sweep.events("ended") == []
    # and where there is room again, it is done and recorded, whole
    sweep.notes.refuses = ()
    again = Sweep([A], sweep.notes)
    again.driver.ended(again.begin(), result())
    assert len(sweep.notes.finished) == 1


# What is said.


def test_every_event_is_logged_and_told_alike() -> None:
    sweep = Sweep([A, B], retries=1)
    first = sweep.begin()
    sweep.driver.epoch(first, row(1), {"cpu": 0.5})
    sweep.driver.lost(first, "w")
    sweep.driver.ended(sweep.begin(), result("crashed"))
    assert sweep.told == sweep.notes.logged
    assert [event["event"] for event in sweep.told] == ["started", "epoch", "again", "started", "ended"]
    started, epoch, again, _, ended = [
        {key: value for key, value in event.items() if key not in ("event", "time")} for event in sweep.told
    ]
    about = {"trial": A.hash, "variant": "v0", "seed": 0}
    assert started == {**about, "attempt": 1, "epochs": 3, "alone": False, "node": "n", "pid": 7}
    assert epoch == {"trial": A.hash, "row": row(1), "use": {"cpu": 0.5}}
    assert again == {**about, "attempt": 1, "status": "lost", "why": "w"}
    kept = {key: result("crashed")[key] for key in ("status", "epochs", "metrics", "seconds", "images_per_second")}
    assert ended == {**about, "attempt": 2, "error": "E: m", **kept}


# Readings of the test split.


def test_each_reading_is_on_record_when_it_is_told_and_the_last_with_the_result() -> None:
    sweep = Sweep([A])
    attempt = sweep.begin()
    for epoch in (1, 2, 3):
        sweep.driver.epoch(attempt, row(epoch, reads=epoch != 2))
    about = {"by": "sweep", "trial": A.hash, "variant": "v0", "seed": 0}
    assert sweep.notes.read == [{**about, "epoch": 1}, {**about, "epoch": 3}]
    sweep.driver.ended(attempt, result(readings=3))
    assert sweep.notes.read[2:] == [{**about, "epoch": None}]


def test_a_reading_that_a_killed_driver_never_heard_of_is_on_record_with_the_result() -> None:
    notes = Notes()
    killed = Sweep([A], notes)
    killed.driver.epoch(killed.begin(), row(1, reads=True))
    # the worker read again after its second epoch, saved that, and went on from there
    sweep = Sweep([A], notes)
    attempt = sweep.begin()
    sweep.driver.epoch(attempt, row(3, reads=True))
    sweep.driver.ended(attempt, result(readings=4))
    assert [reading["epoch"] for reading in notes.read] == [1, 3, None, None]


def test_an_epoch_that_is_done_twice_is_read_twice_and_still_counts_once_for_the_result() -> None:
    sweep = Sweep([A], retries=1)
    for last in (2, 3):
        attempt = sweep.begin()
        for epoch in range(1 if last == 2 else 2, last + 1):
            sweep.driver.epoch(attempt, row(epoch, reads=True))
        if last == 2:
            sweep.driver.lost(attempt, "w")
    sweep.driver.ended(attempt, result(readings=4))
    assert [reading["epoch"] for reading in sweep.notes.read] == [1, 2, 2, 3, None]


def test_a_repeated_trial_that_stops_earlier_has_its_last_reading_on_record_too() -> None:
    sweep = Sweep([A], retries=1)
    first = sweep.begin()
    for epoch in (1, 2, 3):
        sweep.driver.epoch(first, row(epoch, reads=True))
    sweep.driver.lost(first, "w")
    second = sweep.begin()
    sweep.driver.epoch(second, row(1, reads=True))
    sweep.driver.ended(second, result(epochs=1, readings=2))
    assert [reading["epoch"] for reading in sweep.notes.read] == [1, 2, 3, 1, None]


def test_what_was_lost_for_good_keeps_its_readings() -> None:
    sweep = Sweep([A], retries=0)
    attempt = sweep.begin()
    sweep.driver.epoch(attempt, row(1, reads=True))
    sweep.driver.lost(attempt, "w")
    assert sweep.notes.results()[A.hash]["test_readings"] == 1
    assert len(sweep.notes.read) == 1


# Whatever happens.


class Watch(Driver):
    """A driver whose executor is watched: that what is alone is alone, and what it said ended."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.results_heard = 0

    def started(self, attempt: Attempt, **where: Any) -> None:
        at_work = self.study.at_work  # type: ignore[attr-defined]
        assert attempt.trial.hash in at_work
        assert at_work <= self.running.keys()
        assert len(at_work) == 1 or not any(each.alone for each in self.running.values()), "beside one that is alone"
        super().started(attempt, **where)

    def ended(self, attempt: Attempt, result: Mapping[str, Any]) -> None:
        self.results_heard += 1
        super().ended(attempt, result)


@st.composite
def curves(draw: st.DrawFn) -> dict[Listed, Recorded]:
    """Trials with what they come to; some read the test split after each epoch, some don't even begin their first."""
    found = {}
    for index in range(draw(st.integers(2, 7))):
        epochs, reads = draw(st.integers(1, 4)), draw(st.booleans())
        status = draw(st.sampled_from(["finished", "finished", "finished", "diverged", "crashed"]))
        done = epochs if status == "finished" else draw(st.integers(0, epochs))
        readings = (done if reads else 0) + (status == "finished")
        seconds = draw(st.sampled_from([1.0, 2.0, 5.0]))
        trial = replace(listed(index + 1)[-1], epochs=epochs)
        rows = [row(epoch, reads=reads) for epoch in range(1, done + 1)]
        found[trial] = Recorded(rows, [seconds] * done, result(status, done, readings))
    return found


shares = st.sampled_from([0.2, 0.0, 0.33])
disturbances = st.fixed_dictionaries(
    {
        "faults": st.builds(
            Faults,
            seed=st.integers(0, 10_000),
            death=shares,
            out_of_memory=shares,
            hang=shares,
            nodes=st.integers(1, 3),
            node_every=st.sampled_from([20.0, 5.0, None]),
            node_back=st.sampled_from([0.0, 4.0]),
            kill_after=st.integers(1, 20) | st.none(),
        ),
        "policy": st.builds(
            Policy, retries=st.integers(0, 2), trial_timeout=st.just(50.0), budget=st.none() | st.just(30.0)
        ),
        "writes": st.none() | st.integers(1, 40),
    }
)


@given(curves(), st.lists(disturbances, min_size=1, max_size=4), st.integers(1, 4), st.integers(1, 2))
def test_whatever_happens_every_trial_has_its_one_result_in_the_end(
    curves: dict[Listed, Recorded], disturbed: list[dict[str, Any]], slots: int, save_every: int
) -> None:
    notes = Notes()
    recorded = {trial.hash: curve for trial, curve in curves.items()}
    heard = 0
    told: list[dict[str, Any]] = []
    undisturbed = {"faults": Faults(), "policy": Policy(), "writes": None}
    for each in [*disturbed, undisturbed]:
        results = notes.results()
        given = {"trial_timeout": each["policy"].trial_timeout}
        to_do = [trial for trial in curves if trial.hash not in results or repeated(results[trial.hash], **given)]
        before, events, clock = len(notes.finished), [], Clock()
        driver = Watch(to_do, notes, events.append, each["policy"], clock)
        notes.writes_left = each["writes"]
        with suppress(Dead):
            course = run(driver, recorded, slots, clock, each["faults"], save_every)
            assert course.killed or driver.stopping or not (driver.running or notes.at_work)
        notes.writes_left = None
        assert not notes.at_work
        check_sweep(to_do, notes.finished[before:], events, each["policy"], slots)
        told += events
        heard += driver.results_heard
    check_study(curves, notes, told, heard)


def check_sweep(
    to_do: list[Listed],
    finished: list[tuple[str, dict[str, Any]]],
    events: list[dict[str, Any]],
    policy: Policy,
    slots: int,
) -> None:
    """One sweep, by its events: who ran beside whom, and that it repeats what it should and nothing else."""
    running: dict[str, bool] = {}
    lost: Counter[str] = Counter()
    for event in events:
        hash = event.get("trial")
        match event["event"]:
            case "started":
                assert hash not in running
                running[hash] = event["alone"]
                assert len(running) <= slots
                assert len(running) == 1 or not any(running.values())
            case "again":
                lost[hash] += event["status"] == "lost"
                assert running.pop(hash) is False or event["status"] == "lost", "it did not fit alone, and comes again"
            case "ended":
                alone = running.pop(hash)
                assert alone or event["status"] != "out_of_memory"
    assert all(number <= policy.retries for number in lost.values())
    hashes = [hash for hash, _ in finished]
    assert len(hashes) == len(set(hashes))
    assert set(hashes) <= {trial.hash for trial in to_do}
    assert all(lost[hash] == policy.retries for hash, found in finished if found["status"] == "lost")


def check_study(curves: dict[Listed, Recorded], notes: Notes, told: list[dict[str, Any]], heard: int) -> None:
    """In the end: one result of each, as undisturbed; each attempt numbered; each reading on record."""
    final: dict[str, list[dict[str, Any]]] = {trial.hash: [] for trial in curves}
    for hash, found in notes.finished:
        if found["status"] not in ("lost", "timed_out"):
            final[hash].append(found)
    lines = Counter((reading["trial"], reading["epoch"]) for reading in notes.read)
    for trial, curve in curves.items():
        (found,) = final[trial.hash]
        assert {**found, "attempts": None} == {**curve.result, "attempts": None}
        assert notes.rows[trial.hash] == curve.rows
        assert sum(lines[key] for key in lines if key[0] == trial.hash) >= curve.result["test_readings"]
    for hash in final:
        numbers = [event["attempt"] for event in told if event["event"] == "started" and event["trial"] == hash]
        assert numbers == sorted(set(numbers))
    reads = {trial.hash for trial, curve in curves.items() if any("test.error" in row for row in curve.rows)}
    rows = Counter(written for written in notes.rows_written if written[0] in reads)
    rows_told = Counter((event["trial"], event["row"]["epoch"]) for event in told if event["event"] == "epoch")
    for key, number in rows.items():
        assert rows_told[key] <= lines[key] <= number
    assert lines.total() <= rows.total() + heard
