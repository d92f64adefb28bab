"""The tally behind the live view, and both ways of showing it."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from ablate.progress import Display, Plain, Tally, duration

RESULT = {
    "status": "finished",
    "metrics": {"train.loss": 0.5, "val.accuracy": 91.25},
    "images_per_second": 300.0,
    "seconds": 7.0,
}


def trials(count: int, epochs: int = 5) -> list[Any]:
    return [
        SimpleNamespace(hash=str(i), variant=f"v{i}", seed=i, train=SimpleNamespace(epochs=epochs))
        for i in range(count)
    ]


def row(epoch: int) -> dict[str, float]:
    return {"epoch": epoch, "train.loss": 1.25, "val.accuracy": 90.0, "images_per_second": 311.0}


def test_the_time_left_follows_the_epochs_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("ablate.progress.time.monotonic", lambda: now)
    tally, ours = Tally(), trials(4)
    tally.begin(ours, 1)
    tally.started(ours[1])
    assert tally.seconds_left() is None
    now = 12.0
    tally.epoch(ours[1], row(1))
    tally.epoch(ours[1], row(2))
    assert tally.seconds_left() == pytest.approx(12.0 / 2 * (15 - 2))
    # One that stops early has no epochs left to do.
    tally.ended(ours[1], RESULT)
    assert tally.seconds_left() == pytest.approx(12.0 / 5 * 10)


def test_a_repeated_trial_has_its_epochs_to_do_again() -> None:
    tally, ours = Tally(), trials(1)
    tally.begin(ours, 0)
    tally.started(ours[0])
    tally.epoch(ours[0], row(1))
    tally.started(ours[0])
    assert tally.epochs_done == 0
    assert tally.waiting == 0


def test_plain_lines_tell_starts_ends_and_failures() -> None:
    stream = io.StringIO()
    shown, ours = Plain(stream), trials(3)
    shown.begin(ours, 0)
    shown.started(ours[0])
    shown.ended(ours[0], RESULT)
    shown.started(ours[1])
    shown.ended(ours[1], {"status": "crashed", "error": {"type": "RuntimeError", "message": "bad\x1b[31m"}})
    shown.lost(ours[2], "its worker died")
    lines = stream.getvalue().splitlines()
    assert lines[1] == "started   v0, seed 0"
    assert lines[2].startswith("finished  v0, seed 0: train.loss 0.50, val.accuracy 91.25, 300 images/s, 7 s")
    assert lines[5] == "crashed   v1, seed 1: crashed: RuntimeError: bad\ufffd[31m"
    assert "1 of 3 finished · 1 waiting · 1 failed" in lines[6]
    assert lines[-1] == "lost      v2, seed 2: its worker died"


def test_the_live_table_shows_what_runs() -> None:
    stream = io.StringIO()
    shown, ours = Display(Console(file=stream, width=100, force_terminal=False)), trials(2)
    shown.tally.begin(ours, 0)
    shown.started(ours[0])
    shown.epoch(ours[0], row(3))
    shown.console.print(shown.drawn())
    text = stream.getvalue()
    assert "v0" in text
    assert "3/5" in text
    assert "1.250" in text
    assert "0 of 2 finished · 1 running · 1 waiting" in text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (61, "1 min 01 s"), (7260, "2 h 01 min")])
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
