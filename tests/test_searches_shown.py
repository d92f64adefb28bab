"""How a search is shown: its tally, plain lines, the picture, `ablate status` and `ablate watch`."""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate import watching
from ablate.analysis.arms import arms_of
from ablate.cli import main
from ablate.events import KINDS, Event, stamped
from ablate.outcomes import FAILED, PROPOSED, RESULTS
from ablate.progress import Plain, best_text, sentence
from ablate.report.arms import trials_cell
from ablate.report.captions import footnotes
from ablate.status import status
from ablate.store import PROPOSALS, Study
from ablate.tally import Best
from tests.stores import RESULT
from tests.test_progress import at, drawn, ended, epoch, started, sweep, tallied

SPEC: dict[str, Any] = {
    "name": "rate",
    "train": {"epochs": 5},
    "search": {"objectives": {"val.accuracy": "maximize"}, "budget": {"trials": 30}, "seed": 0},
}
ERROR = {"type": "ValueError", "message": "no", "traceback": "t"}


def searched(seconds: float = 0, trials: int = 30, **about: Any) -> Event:
    proposed = about.pop("proposed", {})
    return sweep(seconds, trials=trials, search={"budget": trials, "proposed": proposed}, **about)


def proposed(outcome: str, number: int | str = 1, why: str = "too large", **about: Any) -> Event:
    return at(0, "proposed", number=number, outcome=outcome, why=why, **about)


def best(number: int | str, **values: float) -> Event:
    return at(0, "best", number=number, values={name.replace("_", "."): value for name, value in values.items()})


def shown(*events: Event) -> str:
    """The picture's line on how the search stands."""
    return next(line.rstrip() for line in drawn(tallied(*events), 9, width=200) if line.startswith("trial "))


# The tally, and what is drawn of it.


def test_the_picture_says_at_which_trial_a_search_is_and_its_best() -> None:
    events = [searched()]
    events += [event for trial in range(11) for event in (started(0, trial), ended(1, trial))][:4]
    events += [event for trial in range(2, 11) for event in (started(0, trial), ended(1, trial, "pruned"))]
    events += [proposed("rejected")] * 31 + [proposed("duplicate")] * 4
    events += [best(7, val_accuracy=96.5), best(9, val_accuracy=97.104), started(2, 11)]
    assert shown(*events) == "trial 12 of 30 · best val.accuracy 97.10% (9) · rejected 31 · duplicates 4 · pruned 9"
    crashed = [started(0, 12), ended(3, 12, "crashed", "E: no"), at(4, "over", why="budget", message="")]
    assert shown(*events, *crashed).endswith(" · pruned 9 · interrupted 1 · crashed 1")
    tally = tallied(*events, *crashed)
    assert (tally.finished, tally.pruned, tally.begun, tally.waiting) == (2, 9, 13, 17)
    assert [failure.status for failure in tally.failures] == ["crashed"]


def test_a_search_that_goes_on_counts_what_was_before() -> None:
    earlier = [searched(), proposed("filtered"), started(0, 1), ended(1, 1), best("1", val_accuracy=50.0)]
    known = {"kept": 6, "kept_failed": 1, "kept_pruned": 2, "cached": 0}
    again = searched(5, **known, proposed={"trained": 6, "rejected": 1234, "filtered": 1})
    line = "trial 6 of 30 (6 earlier) · best val.accuracy 50.00% (1) · rejected 1,234 · filtered 1 · pruned 2"
    assert shown(*earlier, again) == f"{line} · failed earlier 1"
    assert shown(again) == f"{line} · failed earlier 1".replace(" · best val.accuracy 50.00% (1)", "")
    # a log that does not say so says it line by line
    assert tallied(*earlier, sweep(5, trials=30, search={"budget": 30})).untrained == {"filtered": 1}
    assert (tallied(again).finished, tallied(again).pruned) == (3, 2)


def test_what_the_cache_has_is_a_trial_without_epochs() -> None:
    events = [searched(trials=3), started(0, 0), epoch(6, 0, 1), proposed("cached", epochs=5)]
    tally = tallied(*events)
    assert (tally.begun, tally.finished, tally.cached, tally.untrained.total()) == (2, 1, 1, 0)
    assert tally.seconds_left() == pytest.approx(6 * (15 - 1 - 5))
    assert shown(*events) == "trial 2 of 3 (1 from the cache)"


def test_a_pruned_trial_has_no_epochs_left_and_is_no_failure() -> None:
    tally = tallied(searched(trials=2), started(0, 0), epoch(6, 0, 1), ended(6, 0, "pruned"))
    assert tally.seconds_left() == pytest.approx(6 * 5 / 2)
    assert not tally.failures
    assert tally.counts() == {"pruned": 1, "waiting": 1}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"val.accuracy": 97.104}, "val.accuracy 97.10% (9)"),
        ({"val.error": 2.896, "flops": 40_551_000.0}, "val.error 2.90%, flops 40.55 M (9)"),
        ({"latency": 0.0035, "params": 312222.0}, "latency 3.5 ms, params 312,222 (9)"),
        ({"val.loss": 0.125, "seconds": 61.04}, "val.loss 0.1250, seconds 61.0 s (9)"),
        ({"\x1b[31m": 1.0}, "\ufffd[31m 1.0 (9)"),
    ],
)
def test_the_best_is_told_with_its_units(values: dict[str, float], text: str) -> None:
    assert best_text(Best("9", values)) == text


def test_plain_lines_of_a_search_tell_its_best_and_not_each_that_is_rejected() -> None:
    stream = io.StringIO()
    plain = Plain(stream)
    events = [searched(trials=2, epochs=5), started(0, 0), ended(6, 0, "pruned", epochs=1, images_per_second=0.0)]
    events += [proposed("rejected", n) for n in range(99)]
    events += [proposed("uncertified", 99, "no gradient\x1b"), best(3, val_accuracy=1.5)]
    for event in events:
        plain.tell(event)
    assert stream.getvalue().splitlines() == [
        "              trial 0 of 2",
        "started       v0, seed 0",
        "pruned        v0, seed 0: after epoch 1, train.loss 0.50, val.accuracy 91.25, 7 s",
        "              trial 1 of 2 · pruned 1",
        "uncertified   99: no gradient\ufffd",
        "              trial 1 of 2 · rejected 99 · uncertified 1 · pruned 1",
        "best          val.accuracy 1.50% (3)",
    ]
    assert sentence(proposed("rejected")) is None


@settings(max_examples=50)
@given(
    st.fixed_dictionaries(
        {"event": st.sampled_from(["proposed", "best", "sweep"]), "time": st.just("2026-01-01T00:00:00.000+00:00")},
        optional={
            "number": st.none() | st.integers() | st.text(max_size=3) | st.lists(st.none(), max_size=1),
            "outcome": st.sampled_from([*PROPOSED, "cached", "new"]) | st.none() | st.integers(),
            "values": st.none() | st.dictionaries(st.sampled_from(["flops", "val.accuracy"]), st.floats() | st.text()),
            "epochs": st.text(max_size=1),
            "search": st.none()
            | st.integers()
            | st.fixed_dictionaries({"proposed": st.none() | st.dictionaries(st.sampled_from(PROPOSED), st.text())}),
        }
        | {"trials": st.just(3), "kept": st.just(0), "to_do": st.just(0)},
    )
)
def test_a_line_that_says_nothing_sound_of_a_search_does_no_harm(event: Event) -> None:
    tally = tallied(searched(trials=2), started(0, 0), event, epoch(5, 0, 1))
    assert drawn(tally, 9, 20)
    assert sentence(event) is None or len(sentence(event) or ()) == 2


def test_a_search_speaks_the_vocabulary() -> None:
    for event in (searched(kept_pruned=1), proposed("cached", epochs=3), best(3, flops=1.0)):
        assert {*event} <= {*get_type_hints(KINDS[event["event"]])}


# From the study's folder.


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.create(tmp_path / "rate", SPEC, [], {})


def propose(study: Study, number: int, outcome: str = "trained") -> str:
    hash, name = f"{number:032x}", str(number)
    record = {"number": number, "name": name, "outcome": outcome, "trial": hash, "why": "too large"}
    if outcome == "trained":
        record["variant"] = {"name": name, "levels": {}, "baseline": None, "trials": {"0": hash}}
    study.propose(record)
    return hash


def end(study: Study, hash: str, ending: str) -> None:
    study.begin({"hash": hash})
    study.append_metrics(hash, {"epoch": 1, "val.accuracy": 50.0})
    error = ERROR if ending in FAILED else None
    study.finish(hash, {**RESULT, "status": ending, "error": error, "epochs": 5 if ending == "finished" else 1})


def swept(study: Study, *endings: str) -> Study:
    """A search of these trials, which also proposed what it did not train."""
    with study.hold():
        for number, ending in enumerate(endings):
            hash = propose(study, number)
            if ending in RESULTS:
                end(study, hash, ending)
        for number, outcome in enumerate(["rejected", "rejected", "duplicate"], start=100):
            propose(study, number, outcome)
    return study


def test_status_says_how_far_a_search_is_and_what_goes_on(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    found = status(swept(study, "finished", "pruned", "pruned", "crashed", "waiting"))
    assert found.counts == {"finished": 1, "pruned": 2, "crashed": 1, "waiting": 1}
    assert str(found) == (
        "1 of 5 trials finished; 2 pruned, 1 crashed, 1 waiting. Search: trial 5 of 30 · rejected 2 · duplicates 1."
    )
    assert [trial.state.status for trial in found.unfinished] == ["crashed", "waiting"]
    assert found.table().footnotes == (
        "`ablate search` again trains 1: 1 waiting.",
        "Only `ablate search --retry-failed` repeats 1: 1 crashed.",
        "`ablate search` again goes on: its budget leaves 25 trials.",
    )
    assert main(["status", str(study.folder)]) == 1
    assert capsys.readouterr().err == "next: ablate search SPEC --space FILE\n"
    assert main(["status", str(study.folder), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["search"] == {"budget": 30, "proposed": {"trained": 5, "rejected": 2, "duplicate": 1}}
    assert [trial["trained_by"] for trial in told["trials"]] == ["--retry-failed", "search"]


def test_a_search_of_which_all_finished_or_was_pruned_is_done(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    swept(study, "finished", "pruned")
    assert main(["status", str(study.folder)]) == 0
    said = capsys.readouterr()
    assert said.out == "1 of 2 trials finished; 1 pruned. Search: trial 2 of 30 · rejected 2 · duplicates 1.\n"
    assert said.err == f"next: ablate report {study.folder}\n"
    with study.hold():
        main(["status", str(study.folder)])
    assert capsys.readouterr().err == f"next: ablate watch {study.folder}\n"


def test_a_search_is_followed_to_its_end_though_it_proposed_more_since(study: Study) -> None:
    def steps() -> Iterator[None]:
        with study.hold():
            study.log(searched(host=platform.node()) | {"time": stamped("sweep")["time"]})
            yield
            end(study, propose(study, 0), "finished")
            end(study, propose(study, 1), "pruned")
            propose(study, 2, "filtered")
            study.log(stamped("best", number="0", values={"val.accuracy": 97.25}))
            yield
        yield

    going = steps()
    next(going)
    out = io.StringIO()
    watching.follow(Study.open(study.folder), out, lambda: next(going))
    assert out.getvalue().splitlines()[1:] == [
        "trial 0 of 30",
        "best          val.accuracy 97.25% (0)",
        f"{study.folder}: 1 of 2 trials finished; 1 pruned",
        "search: trial 2 of 30 · filtered 1 · best val.accuracy 97.25% (0)",
        "no sweep holds the study; the last one ended without a word, and `ablate search` goes on",
        f"next: ablate report {study.folder}",
    ]


def test_a_table_of_arms_counts_what_was_pruned_and_takes_no_mean_of_it(study: Study) -> None:
    arms = arms_of(swept(study, "finished", "pruned"))
    assert [trials_cell(arm).text for arm in arms] == ["1 of 1", "0 of 1; 1 pruned"]
    assert arms[1].values("val.accuracy") == {}
    said = [note for note in footnotes(study, arms, [], 0, []) if note.startswith("In no mean")]
    assert said == ["In no mean, since they did not finish: 1 pruned."]


def test_what_is_damaged_of_the_proposals_is_named(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    path = swept(study, "finished").folder / PROPOSALS
    path.write_bytes(path.read_bytes().replace(b"too large", b"too small", 1))
    assert main(["store", "verify", str(study.folder)]) == 1
    assert capsys.readouterr().out == "damaged: proposals.jsonl: not as it was written: line 1\n"
