"""A search that is cut off anywhere goes on as if it had not been; optuna-dashboard reads its journal."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from io import BytesIO
from pathlib import Path

import optuna
import pytest
from grids import LISTED, MIXED, ONE, RANGES, TWO, answer, grid_of, proposer, searched, span, worth

from ablate.errors import UserError
from ablate.space import Bound, Grid, Point

BOUNDS = {"params": Bound(max=5000)}
CASES: dict[str, tuple[Grid, int, dict[str, object]]] = {
    "random": (MIXED, 12, {}),
    "grid": (LISTED, 12, {}),
    "tpe": (MIXED, 12, {"constraints": BOUNDS, "startup": 3}),
    "cmaes": (RANGES, 12, {"population": 3}),
    "nsga2": (MIXED, 12, {"objectives": TWO, "population": 2}),
    "nsga3": (MIXED, 12, {"objectives": TWO, "population": 2}),
}
"""Sampler → grid, points and what else; so that all of them have begun to learn, and NSGA has its third generation."""


@pytest.mark.parametrize("name", CASES)
def test_cut_off_after_any_line_it_proposes_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)
    grid, points, keys = CASES[name]
    whole = tmp_path / "whole.jsonl"
    expected = searched(proposer(name, grid, journal=whole, **keys), points)
    lines = whole.read_bytes().splitlines(keepends=True)
    assert sum(json.loads(line)["op_code"] == 4 for line in lines) == points, "a proposal is one line"
    for count in range(len(lines) + 1):
        cut = tmp_path / "cut.jsonl"
        cut.write_bytes(b"".join(lines[:count]))
        given = proposer(name, grid, journal=cut, **keys)
        begun = given.proposed
        assert all(proposal.point == expected[begun - 1] for proposal in given.open)
        further = min(points, begun + 2)
        assert searched(given, further) == expected[begun:further], count


def test_the_gaussian_process_goes_on_as_well(tmp_path: Path) -> None:
    grid, whole = grid_of(span("lr", 1e-3, 1.0, log=True), span("k", 0.0, 1.0)), tmp_path / "whole.jsonl"

    def gone_on(journal: Path, points: int) -> list[Point]:
        given = proposer("gp", grid, journal=journal, constraints={"k": Bound(max=0.3)}, startup=2)
        found = []
        while given.proposed < points and (proposal := given.propose()) is not None:
            found.append(proposal.point)
            values = _worth(proposal.point)
            if proposal.number == 1:
                given.refuse(proposal.number, "too much", {"k": 0.4})
            else:
                given.tell(proposal.number, values)
        return found

    expected = gone_on(whole, 4)
    lines = whole.read_bytes().splitlines(keepends=True)
    ended = [index for index, line in enumerate(lines, start=1) if json.loads(line)["op_code"] == 6]
    for count in ended[1:3]:
        cut = tmp_path / "cut.jsonl"
        cut.write_bytes(b"".join(lines[:count]))
        again = gone_on(cut, 4)
        assert again == expected[-len(again) :]
        assert again


def _worth(point: Point) -> dict[str, float]:
    rate, k = point
    assert rate is not None
    assert k is not None
    return {"val.accuracy": -abs(rate - 0.1) - abs(k - 0.4), "k": k}


@pytest.mark.slow
def test_another_process_with_other_hashes_goes_on_the_same(tmp_path: Path) -> None:
    """The order of a set of texts is another in every process."""
    code = (
        "from pathlib import Path; from grids import *; import sys\n"
        "for name in ('tpe', 'nsga3'):\n"
        "    print(searched(proposer(name, journal=Path(sys.argv[1], name), seed=5, objectives=TWO), 16)[-3:])"
    )
    for name in ("tpe", "nsga3"):
        searched(proposer(name, journal=tmp_path / name, seed=5, objectives=TWO), 13)
    ours = [searched(proposer(name, seed=5, objectives=TWO), 16)[-3:] for name in ("tpe", "nsga3")]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": path}
    run = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines() == [str(points) for points in ours], done.stderr


def test_a_line_that_was_torn_is_as_if_it_had_not_been_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda file: None)
    whole = tmp_path / "whole.jsonl"
    expected = searched(proposer("random", journal=whole), 3)
    text = whole.read_bytes()
    for end in range(0, len(text), 61):
        cut = tmp_path / "cut.jsonl"
        cut.write_bytes(text[:end])
        given = proposer("random", journal=cut)
        begun = given.proposed
        assert searched(given, 3) == expected[begun:]
        assert all(json.loads(line) for line in cut.read_bytes().splitlines())


def test_a_line_that_was_damaged_is_said(tmp_path: Path) -> None:
    journal = tmp_path / "optuna.jsonl"
    searched(proposer("random", journal=journal), 3)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:3], b"\0\0\0\n", *lines[4:]]))
    with pytest.raises(UserError, match=r"optuna\.jsonl:4: damaged"):
        proposer("random", journal=journal)


def test_told_twice_over_a_restart(tmp_path: Path) -> None:
    journal = tmp_path / "optuna.jsonl"
    given = proposer("tpe", journal=journal)
    proposal = given.propose()
    assert proposal is not None
    given.tell(proposal.number, {"val.accuracy": 1.0})
    text = journal.read_bytes()
    again = proposer("tpe", journal=journal)
    again.tell(proposal.number, {"val.accuracy": 2.0})
    again.refuse(proposal.number, "too late")
    assert journal.read_bytes() == text


def test_another_space_or_other_objectives_are_refused(tmp_path: Path) -> None:
    journal = tmp_path / "optuna.jsonl"
    searched(proposer("random", journal=journal), 2)
    with pytest.raises(UserError, match="other objectives"):
        proposer("random", journal=journal, objectives=TWO)
    with pytest.raises(UserError, match=r"of another space: .*lr"):
        proposer("random", LISTED, journal=journal)


def test_what_optuna_says_is_silenced_and_then_heard_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("optuna")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        searched(proposer("tpe", journal=tmp_path / "optuna.jsonl", constraints=BOUNDS, startup=3), 8)
    assert capfd.readouterr().err == ""
    assert logger.level == level


def test_the_journal_says_what_became_of_each(tmp_path: Path) -> None:
    """As Optuna reads it by itself: only what acts at a point, who was refused and why."""
    journal = tmp_path / "optuna.jsonl"
    given = proposer("nsga2", journal=journal, constraints=BOUNDS, objectives=TWO, population=3)
    points = searched(given, 12)
    study = _read(journal)
    assert study.metric_names == list(TWO)
    for point, trial in zip(points, study.trials, strict=True):
        values = worth(MIXED, point)
        assert ("reduction" in trial.params) == ("reduction" in MIXED.values(point))
        assert trial.params["lr"] == MIXED.values(point)["lr"]
        if trial.state == optuna.trial.TrialState.COMPLETE:
            assert trial.values == [values["val.accuracy"], values["flops"]]
            assert trial.constraints["params"] == (values["params"] - 5000) / 5000 <= 0
        elif values["params"] > 5000:
            assert trial.constraints["params"] > 0
            assert trial.user_attrs == {"refused": "too large"}
    assert {trial.state.name for trial in study.trials} == {"COMPLETE", "PRUNED", "FAIL"}


def _read(journal: Path) -> optuna.Study:
    backend = optuna.storages.journal.JournalFileBackend(str(journal))
    return optuna.load_study(study_name="search", storage=optuna.storages.JournalStorage(backend))


def test_optuna_dashboard_lists_the_study(tmp_path: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard")
    journal = tmp_path / "optuna.jsonl"
    given = proposer("tpe", journal=journal, objectives=ONE)
    searched(given, 5)
    answer(given, given.propose() or pytest.fail("nothing proposed"))
    app = dashboard.wsgi(optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(journal))))
    listed = _get(app, "/api/studies")["study_summaries"]
    assert [study["study_name"] for study in listed] == ["search"]
    shown = _get(app, f"/api/studies/{listed[0]['study_id']}")
    assert [trial["number"] for trial in shown["trials"]] == list(range(6))


def _get(app, path: str):
    """What the dashboard's server would send a browser."""
    status: list[str] = []
    request = {"REQUEST_METHOD": "GET", "PATH_INFO": path, "SERVER_NAME": "here", "SERVER_PORT": "80"}
    request |= {"wsgi.input": BytesIO(), "wsgi.errors": sys.stderr, "wsgi.url_scheme": "http", "QUERY_STRING": ""}
    body = b"".join(app(request, lambda line, headers, *_: status.append(line)))
    assert status == ["200 OK"], body
    return json.loads(body)
