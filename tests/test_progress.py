"""The tally of a sweep's events, and both ways of showing it."""

from __future__ import annotations

import io
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast, get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ablate.driving import Driver, Listed, Policy
from ablate.events import KINDS, Event, stamped, when
from ablate.outcomes import RESULTS
from ablate.progress import Display, Plain, Progress, Unfailing, duration, picture, sentence
from ablate.store import Study
from ablate.tally import MOST_FAILURES, Tally

CONTROL = "\x1b[31m\x07\u202e"


def at(clock: float, event: str, **about: Any) -> Event:
    """An event so long after the beginning of 1970."""
    return {"event": event, "time": datetime.fromtimestamp(clock, UTC).isoformat(), **about}


def sweep(seconds: float = 0, *, trials: int, epochs: int = 5, kept: int = 0, cached: int = 0, **about: Any) -> Event:
    known = {"kept": kept, "cached": cached, "to_do": (trials - kept - cached) * epochs}
    here = {"pid": 12, "host": "here", "executor": "local", "slots": 2}
    return at(seconds, "sweep", trials=trials, **{**known, **here, **about})


def started(seconds: float, trial: int, *, attempt: int = 1, epochs: int = 5, **about: Any) -> Event:
    named = {"trial": str(trial), "variant": f"v{trial}", "seed": trial, "attempt": attempt, "epochs": epochs}
    return at(seconds, "started", **{**named, "node": "here", "pid": 12, "alone": False, **about})


def epoch(seconds: float, trial: int, number: int, **use: float) -> Event:
    row = {"epoch": number, "train.loss": 1.25, "val.accuracy": 90.0, "images_per_second": 311.0}
    return at(seconds, "epoch", trial=str(trial), row=row, use=use)


def ended(seconds: float, trial: int, status: str = "finished", error: str | None = None, **about: Any) -> Event:
    measured = {"metrics": {"train.loss": 0.5, "val.accuracy": 91.25}, "images_per_second": 300.0, "seconds": 7.0}
    named = {"trial": str(trial), "variant": f"v{trial}", "seed": trial, "attempt": 1, "epochs": 3}
    return at(seconds, "ended", status=status, error=error, **{**named, **measured, **about})


def again(seconds: float, trial: int, status: str = "lost", why: str = "its worker died") -> Event:
    named = {"trial": str(trial), "variant": f"v{trial}", "seed": trial, "attempt": 1}
    return at(seconds, "again", status=status, why=why, **named)


def tallied(*events: Event) -> Tally:
    tally = Tally()
    for event in events:
        tally.apply(event)
    return tally


def drawn(tally: Tally, now: float = 0, height: int | None = None, width: int = 110) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width).print(picture(tally, now, height))
    return stream.getvalue().splitlines()


def test_the_time_left_follows_the_epochs_done() -> None:
    tally = tallied(sweep(trials=4, kept=1), started(0, 1))
    assert tally.seconds_left(5) is None
    tally.apply(epoch(6, 1, 1))
    tally.apply(epoch(12, 1, 2))
    assert tally.seconds_left() == pytest.approx(6 * (15 - 2))
    # One that stops early has no epochs left to do: only two trials of five epochs, on two slots, are.
    tally.apply(ended(12, 1))
    assert tally.seconds_left() == pytest.approx(6 * 10 / 2)


def test_the_time_left_is_shared_by_all_that_run_and_no_less_than_the_longest_takes() -> None:
    begun = [started(0, trial, epochs=50 if trial == 3 else 5) for trial in range(4)]
    tally = tallied(sweep(trials=8, slots=4) | {"to_do": 7 * 5 + 50}, *begun)
    for trial in range(4):
        tally.apply(epoch(10, trial, 1))
    # 81 epochs of 10 s on four slots would be 202.5 s, but one trial has 49 before it
    assert tally.seconds_left() == pytest.approx(490)
    # in the midst of an epoch it goes down by the second, until that epoch takes longer than it should
    assert tally.seconds_left(14) == pytest.approx(486)
    assert tally.seconds_left(90) == tally.seconds_left(20) == pytest.approx(480)
    tally.apply(ended(10, 3))
    assert tally.seconds_left() == pytest.approx((81 - 49) * 10 / 3)


def test_a_repeated_trial_has_its_epochs_to_do_again() -> None:
    tally = tallied(sweep(trials=1), started(0, 0), epoch(10, 0, 1), epoch(20, 0, 2), epoch(30, 0, 3), again(35, 0))
    assert (tally.epochs_left, tally.waiting, tally.running) == (2, 1, {})
    tally.apply(started(40, 0, attempt=2))
    tally.apply(epoch(50, 0, 1))
    assert (tally.epochs_left, tally.waiting) == (4, 0)
    # four epochs took 45 s: what was lost is paid for by each
    assert tally.seconds_left() == pytest.approx(4 * 45 / 4)


def test_epochs_that_a_checkpoint_spares_take_no_time() -> None:
    tally = tallied(sweep(trials=1, epochs=100), started(0, 0, attempt=2, epochs=100), epoch(10, 0, 91))
    assert tally.seconds_left() == pytest.approx(9 * 10)


def test_a_new_sweep_begins_a_new_tally_and_keeps_the_failures_in_sight() -> None:
    crashed = ended(5, 0, "crashed", "ValueError: no")
    tally = tallied(sweep(trials=3), started(0, 0), crashed, started(6, 1), sweep(90, trials=3, kept=1, kept_failed=1))
    assert tally.counts() == {"waiting": 2}
    assert tally.kept_failed == 1
    assert [failure.why for failure in tally.failures] == ["ValueError: no"]


def test_what_ran_as_the_sweep_ended_is_interrupted() -> None:
    over = at(9, "over", why="budget", message="")
    tally = tallied(sweep(trials=3), started(0, 0), epoch(4, 0, 1), started(1, 1), ended(5, 1), over)
    assert tally.counts() == {"finished": 1, "interrupted": 1, "waiting": 1}
    assert tally.seconds_left() is None


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["started", "epoch", "again", *RESULTS])), max_size=60))
def test_every_trial_is_in_one_state_whatever_happens(steps: list[tuple[int, str]]) -> None:
    """Against a plain record of where each trial is."""
    where = dict.fromkeys(range(4), "waiting")
    tally = tallied(sweep(trials=7, kept=2, kept_failed=1, cached=1))
    for time, (trial, step) in enumerate(steps):
        if where[trial] in RESULTS or (step != "started" and where[trial] == "waiting"):
            continue
        if step == "started":
            tally.apply(started(time, trial))
            where[trial] = "running"
        elif step == "epoch":
            tally.apply(epoch(time, trial, 1))
        elif step == "again":
            tally.apply(again(time, trial))
            where[trial] = "waiting"
        else:
            tally.apply(ended(time, trial, step))
            where[trial] = step
    states = [*where.values(), "finished", "finished"]
    assert tally.counts() == {state: states.count(state) for state in states}
    assert sum(tally.counts().values()) + tally.kept_failed == tally.total


@given(
    st.fixed_dictionaries(
        {"event": st.sampled_from([*KINDS, "new"]), "time": st.just("2026-01-01T00:00:00.000+00:00") | st.none()},
        optional={
            key: st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2) | st.floats()
            for key in ("trial", "variant", "seed", "attempt", "epochs", "row", "use", "status", "error", "why")
        }
        | {"trials": st.integers(), "kept": st.integers(), "to_do": st.integers(), "metrics": st.none()}
        | {"row": st.fixed_dictionaries({"epoch": st.integers()}, optional={"train.loss": st.text(max_size=2)})}
        | {"use": st.dictionaries(st.sampled_from(["cpu", "gpu", "node"]), st.floats() | st.text(max_size=2))},
    )
)
def test_a_line_of_the_log_that_says_nothing_sound_does_no_harm(event: Event) -> None:
    tally = tallied(sweep(trials=2), started(0, 0), epoch(5, 0, 1), event, started(6, 1), epoch(9, 1, 1))
    assert drawn(tally, 9, 20)
    assert sentence(event) is None or len(sentence(event) or ()) == 2


def test_a_status_of_a_later_version_is_no_end_that_we_know() -> None:
    tally = tallied(sweep(trials=2), started(0, 0), ended(5, 0, "resting\x1b"))
    assert tally.counts() == {"running": 1, "waiting": 1}
    assert not tally.failures


def test_an_event_costs_the_same_however_many_trials_there_are() -> None:
    """Nothing that an event changes is walked through: the containers of running and known trials refuse it."""

    class Unwalked(dict[str, Any]):
        def __iter__(self) -> Any:
            raise AssertionError("walked through")

        items = values = keys = __iter__

    tally = tallied(sweep(trials=900))
    tally.running, tally._epoch_of = Unwalked(), Unwalked()
    for trial in range(500):
        tally.apply(started(trial, trial))
        tally.apply(epoch(trial + 1, trial, 1))
    tally.apply(again(600, 3))
    tally.apply(ended(601, 4, "crashed", "E: no"))
    assert len(tally.running) == 498


def test_plain_lines_tell_starts_ends_and_failures() -> None:
    stream = io.StringIO()
    shown = Plain(stream)
    crashed = ended(9, 1, "crashed", f"RuntimeError: bad{CONTROL}\nline", attempt=2)
    over = at(11, "over", why="refused", message="no space left")
    for event in [sweep(trials=3), started(0, 0), epoch(6, 0, 1), ended(7, 0), crashed, again(10, 2), over]:
        shown.tell(event)
    assert stream.getvalue().splitlines() == [
        "              0 of 3 finished · 3 waiting",
        "started       v0, seed 0",
        "finished      v0, seed 0: train.loss 0.50, val.accuracy 91.25, 300 images/s, 7 s",
        "              1 of 3 finished · 2 waiting · about 35 s left",
        "crashed       v1, seed 1, attempt 2: RuntimeError: bad\ufffd[31m\ufffd\ufffd line",
        "              1 of 3 finished · 1 waiting · 1 crashed · about 35 s left",
        "lost          v2, seed 2: its worker died; it goes on",
        "over          refused: no space left",
    ]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (ended(0, 1, "diverged"), ("diverged", "v1, seed 1: in epoch 3")),
        (ended(0, 1, "timed_out", "timed_out: not done"), ("timed_out", "v1, seed 1: not done")),
        (ended(0, 1, "crashed", "E: " + "x" * 900), ("crashed", f"v1, seed 1: E: {'x' * 197}…")),
        (at(0, "node", name="n2", change="unfit", why="torch 2.6"), ("node", "n2 unfit: torch 2.6")),
        (at(0, "node", name="n2", change="joined"), ("node", "n2 joined")),
        (at(0, "spec", changed=["ablation.seeds"]), ("spec", "the study goes on with other ablation.seeds")),
        (at(0, "over", why="done", message=""), None),
        (epoch(0, 1, 1), None),
    ],
)
def test_what_is_worth_a_line_has_one(event: Event, line: tuple[str, str] | None) -> None:
    assert sentence(event) == line


def test_the_picture_shows_what_runs_what_is_used_and_what_failed() -> None:
    tally = tallied(
        sweep(trials=9, kept=1, cached=2),
        started(0, 0, variant=f"[bold]se/4{CONTROL}"),
        started(0, 1, attempt=2, alone=True),
        epoch(6, 0, 1, cpu=0.9, memory=2**30, gpu_memory=3 * 2**30, gpu=0.5),
        epoch(6, 1, 3, cpu=1.2, memory=2**29, gpu=0.9),
        ended(7, 2, "crashed", f"ValueError: bad{CONTROL}"),
        again(7, 3),
    )
    lines = [line.rstrip() for line in drawn(tally, 10)]
    assert lines == [
        "variant                seed  epoch   loss  val. accuracy  images/s  time",
        "[bold]se/4�[31m��         0    1/5  1.250          90.00       311  10 s",
        "v1 (attempt 2, alone)     1    3/5  1.250          90.00       311  10 s",
        "3 of 9 finished (1 earlier, 2 from the cache) · 2 running · 3 waiting · 1 crashed",
        # of 6 trials of 5 epochs each 26 are to come, at 6 s, of which 4 s are over on both of two slots: 148 s / 2
        "about 1 min 14 s left · 2.1 cores busy · 1.5 GiB of memory · 3 GiB of GPU memory · GPU 70% busy",
        "crashed: v2, seed 2: ValueError: bad�[31m��",
        "lost: v3, seed 3: its worker died; goes on",
    ]


@pytest.mark.parametrize("height", [8, 24, 50])
def test_two_hundred_slots_fit_a_terminal(height: int) -> None:
    failed = [ended(3, trial, "crashed", "E: " + "x" * 300) for trial in range(200, 210)]
    begun = [event for trial in range(200) for event in (started(0, trial), epoch(6, trial, 1, cpu=1.0))]
    tally = tallied(sweep(trials=999), *failed, *begun)
    lines = drawn(tally, 9, height, width=70)
    assert len(lines) <= height - 1
    rows = sum(line.startswith("v") and not line.startswith("variant") for line in lines)
    assert rows >= 1
    assert f"… {200 - rows} more running" in [line.strip() for line in lines]
    assert len(tally.failures) == MOST_FAILURES
    everything = drawn(tally, 9)
    assert sum(line.startswith("v") for line in everything) == 201
    assert not any("more" in line for line in everything)


def test_several_machines_are_named() -> None:
    tally = tallied(sweep(trials=2), started(0, 0, node="n1"), started(0, 1, node="n2"))
    tally.apply(at(1, "node", name="n3", change="unfit", why="torch 2.5"))
    lines = drawn(tally, 2)
    assert lines[0].split()[-1] == "node"
    assert [line.split()[-1] for line in lines[1:3]] == ["n1", "n2"]
    assert "unfit: n3" in lines[-1]


def test_the_live_view_prints_what_ended_above_the_picture() -> None:
    stream = io.StringIO()
    shown = Display(Console(file=stream, width=100, height=30, force_terminal=True, color_system=None))
    try:
        events = [sweep(trials=2), started(0, 0), epoch(6, 0, 3), ended(7, 0), started(8, 1)]
        for event in events:
            shown.tell(event)
        stream.truncate(0)
        shown.console.print(shown.drawn())
    finally:
        shown.close()
    text = stream.getvalue()
    assert "0/5" in text
    assert "1 of 2 finished · 1 running" in text
    shown.tell(ended(9, 1))  # after its end it draws nothing more
    assert not shown._live.is_started


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize(
    "make", [lambda: Plain(Gone()), lambda: Display(Console(file=cast(Any, Unfailing(Gone())), force_terminal=True))]
)
def test_a_terminal_that_has_gone_ends_no_sweep(make: Any) -> None:
    shown: Progress = make()
    for event in [sweep(trials=2), started(0, 0), ended(7, 0), at(8, "over", why="done", message="")]:
        shown.tell(event)
    shown.close()
    assert shown.tally.finished == 1  # type: ignore[attr-defined]


def test_the_driver_and_the_store_speak_the_vocabulary(tmp_path: Path) -> None:
    record = [{"name": "none", "trials": {"0": "0" * 32, "1": "1" * 32}}]
    study = Study.create(tmp_path / "s", {"name": "s"}, record[:0], {})
    study = Study.create(tmp_path / "s", {"name": "s", "report": {"columns": ["params"]}}, record, {})
    told: list[Event] = []
    trials = [Listed(hash, "none", seed, 3) for seed, hash in enumerate(("0" * 32, "1" * 32))]
    driver = Driver(trials, study, told.append, Policy())
    measured = {"metrics": {}, "epochs": 3, "seconds": 1.0, "images_per_second": 5.0, "test_readings": 0, "error": None}
    with study.hold():
        while not driver.over:
            attempt = driver.next()
            assert attempt is not None
            driver.started(attempt, node="here", pid=1)
            study.begin({"hash": attempt.trial.hash})
            driver.epoch(attempt, {"epoch": 1}, {"cpu": 1.0})
            if attempt.number == 1:
                driver.lost(attempt, "its worker died")
            else:
                driver.ended(attempt, {**measured, "status": "finished"})
    logged, _ = study.events()
    assert logged[1:] == told
    each = ["started", "epoch", "again", "started", "epoch", "ended"]
    assert [event["event"] for event in logged] == ["spec", *each, *each]
    for event in logged:
        shape = KINDS[event["event"]]
        assert shape.__required_keys__ <= {*event} <= {*get_type_hints(shape)}
    assert tallied(sweep(trials=2), *logged).counts() == {"finished": 2}


def test_the_vocabulary_names_its_own_kinds() -> None:
    for kind, shape in KINDS.items():
        assert get_args(get_type_hints(shape)["event"]) == (kind,)
    now = stamped("node", name="n", change="joined")
    assert math.isclose(when(now) or 0, datetime.now(UTC).timestamp(), abs_tol=5)


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (7260, "2 h 01 min")])
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
