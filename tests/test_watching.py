"""A sweep seen from elsewhere: by its log and its lock, nothing else."""

from __future__ import annotations

import io
import platform
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ablate import watching
from ablate.events import stamped
from ablate.store import EVENTS, Study

HERE = platform.node()
HASHES = [f"{number:032x}" for number in range(3)]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    variants = [{"name": "none", "trials": {str(seed): hash for seed, hash in enumerate(HASHES)}}]
    return Study.create(tmp_path / "placement", {"name": "placement", "train": {"epochs": 5}}, variants, {})


def sweep(study: Study, **about: Any) -> None:
    told = {"pid": 12, "host": HERE, "executor": "local", "trials": 3, "kept": 0, "cached": 0, "slots": 2, "to_do": 15}
    study.log(stamped("sweep", **{**told, **about}))


def start(study: Study, seed: int) -> None:
    hash = HASHES[seed]
    study.begin({"hash": hash, "variant": "none", "seed": seed, "attempt": 1})
    about = {"variant": "none", "seed": seed, "attempt": 1, "epochs": 5, "node": HERE, "pid": 12, "alone": False}
    study.log(stamped("started", trial=hash, **about))


def train(study: Study, seed: int, epoch: int) -> None:
    row = {"epoch": epoch, "train.loss": 1.25, "images_per_second": 311.0}
    study.append_metrics(HASHES[seed], row)
    study.log(stamped("epoch", trial=HASHES[seed], row=row, use={"cpu": 1.0, "memory": 2**30}))


def end(study: Study, seed: int, status: str = "finished", error: dict[str, str] | None = None) -> None:
    measured = {"status": status, "epochs": 5, "metrics": {}, "seconds": 7.0, "images_per_second": 300.0}
    study.finish(HASHES[seed], {**measured, "selected_epoch": 5, "test_readings": 0, "error": error})
    text = f"{error['type']}: {error['message']}" if error else None
    named = {"trial": HASHES[seed], "variant": "none", "seed": seed, "attempt": 1}
    study.log(stamped("ended", **named, **measured, error=text))


def over(study: Study, why: str = "done", message: str = "") -> None:
    study.log(stamped("over", why=why, message=message))


def pictured(study: Study) -> list[str]:
    out = io.StringIO()
    watching.once(Study.open(study.folder), out)
    return out.getvalue().splitlines()


def followed(study: Study, steps: Iterator[None]) -> list[str]:
    """What is shown while the steps happen, one between each two looks."""
    out = io.StringIO()
    watching.follow(Study.open(study.folder), out, lambda: next(steps))
    return re.sub(" · about .* left$", "", out.getvalue(), flags=re.MULTILINE).splitlines()


def test_one_picture_of_a_sweep_at_work(study: Study) -> None:
    with study.hold():
        sweep(study)
        start(study, 0)
        start(study, 1)
        train(study, 1, 1)
        end(study, 0, "crashed", {"type": "ValueError", "message": "bad\x1b[31m", "traceback": ""})
        lines = pictured(study)
    assert lines[0].startswith(f"{study.folder} · process ")
    assert lines[1].split() == ["variant", "seed", "epoch", "loss", "val.", "accuracy", "images/s", "time"]
    assert lines[2].split()[:5] == ["none", "1", "1/5", "1.250", "311"]
    assert lines[3] == "0 of 3 finished · 1 running · 1 waiting · 1 crashed"
    assert "1.0 cores busy · 1 GiB of memory" in lines[4]
    assert lines[5:] == ["crashed: none, seed 0: ValueError: bad\ufffd[31m"]


def test_it_follows_to_the_end_and_reads_what_was_said_last(study: Study) -> None:
    def steps() -> Iterator[None]:
        with study.hold():
            sweep(study)
            start(study, 0)
            yield
            train(study, 0, 1)
            end(study, 0)
            yield
            start(study, 1)
            end(study, 1, "diverged")
            over(study, "budget", "12h are over")
        yield

    going = steps()
    next(going)
    lines = followed(study, going)
    assert lines[3].startswith("0 of 3 finished · 1 running")
    assert lines[4:] == [
        "finished      none, seed 0: 300 images/s, 7 s",
        "              1 of 3 finished · 2 waiting",
        "started       none, seed 1",
        "diverged      none, seed 1: in epoch 5",
        "              1 of 3 finished · 1 waiting · 1 diverged",
        "over          budget: 12h are over",
        f"{study.folder}: 1 of 3 trials finished; 1 diverged, 1 waiting",
        "diverged: none, seed 1",
        "no sweep holds the study; the last one is over: budget: 12h are over",
        f"next: ablate status {study.folder}",
    ]


def test_what_was_told_before_it_came_is_no_news(study: Study) -> None:
    def steps() -> Iterator[None]:
        with study.hold():
            sweep(study, trials=9)
            over(study)
            sweep(study)
            start(study, 2)
            end(study, 2)
            yield
            over(study)
        yield

    going = steps()
    next(going)
    lines = followed(study, going)
    assert lines[1] == "1 of 3 finished · 2 waiting"
    assert not [line for line in lines if line.startswith("finished")]
    assert lines[-2:] == ["no sweep holds the study; the last one is over: done", f"next: ablate status {study.folder}"]


def test_the_last_words_are_read_though_the_lock_is_gone_by_then(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep says its last and lets go between our reading of the log and our look at the lock."""
    with study.hold():
        sweep(study)
    holder = Study.in_use

    def in_use(self: Study) -> str | None:
        over(study)
        return holder(self)

    monkeypatch.setattr(Study, "in_use", in_use)
    assert "no sweep holds the study; the last one is over: done" in pictured(study)


@pytest.mark.parametrize("show", [pictured, lambda study: followed(study, iter(()))])
def test_without_a_sweep_it_says_so_and_ends(study: Study, show: Callable[[Study], list[str]]) -> None:
    assert show(study) == [
        f"{study.folder}: 0 of 3 trials finished; 3 waiting",
        "no sweep holds the study, and none has told of itself",
        f"next: ablate status {study.folder}",
    ]
    with study.hold():
        sweep(study)
        start(study, 0)
    assert show(study)[0].endswith("0 of 3 trials finished; 1 interrupted, 2 waiting")
    assert show(study)[1].endswith("the last one ended without a word, and `ablate sweep` goes on")


def test_where_locks_are_not_seen_a_log_that_grows_is_a_sweep(study: Study) -> None:
    """On a shared folder of another machine: nobody seems to hold it."""
    sweep(study, host="elsewhere")
    start(study, 0)
    assert "0 of 3 finished · 1 running · 2 waiting" in pictured(study)
    log = study.folder / EVENTS
    hours_ago = datetime.fromtimestamp(datetime.now(UTC).timestamp() - 7203, UTC).isoformat()
    day = datetime.now(UTC).isoformat()[:10]
    assert day in log.read_text()
    log.write_text("")
    for event in (stamped("sweep", host="elsewhere", trials=3, kept=0, to_do=15, pid=1, slots=1, cached=0),):
        study.log(event | {"time": hours_ago})
    said = "no sweep is seen to hold the study; that of elsewhere has said nothing for 2 h 00 min"
    assert said in pictured(study)
    over(study)
    assert "no sweep holds the study; the last one is over: done" in pictured(study)


def test_enough_seen_is_no_end_of_the_sweep(study: Study) -> None:
    def interrupted() -> Iterator[None]:
        raise KeyboardInterrupt
        yield

    with study.hold():
        sweep(study)
        assert followed(study, interrupted())[-2:] == ["0 of 3 finished · 3 waiting", "the sweep goes on"]
