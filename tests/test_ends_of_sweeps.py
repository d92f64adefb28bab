"""How a sweep can end before it is done: by a signal, a full disk, another sweep at work; and that it goes on."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from ablate.cli import main
from ablate.cli.studies import _is_complete
from ablate.design import study_plan
from ablate.errors import UserError
from ablate.events import Event
from ablate.progress import Progress
from ablate.spec import load
from ablate.store import Study
from tests.conftest import fill

Sweep = Callable[..., Study]


class After(Progress):
    """Does something once, at the first event of a kind."""

    def __init__(self, kind: str, then: Callable[[], object]) -> None:
        self.kind, self.then = kind, then
        self.last: Event = {}

    def tell(self, event: Event) -> None:
        self.last = event
        if event["event"] == self.kind:
            self.kind = ""
            self.then()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("kind", ["epoch", "ended"])
def test_a_signal_ends_it_as_ctrl_c_does_and_what_was_finished_is_kept(
    tiny: Path, tmp_path: Path, sweep_spec: Sweep, number: signal.Signals, kind: str
) -> None:
    before = signal.getsignal(number)
    progress = After(kind, lambda: signal.raise_signal(number))
    with pytest.raises(KeyboardInterrupt):
        sweep_spec(tiny, tmp_path / "s", ["ablation.seeds=1"], executor="local", progress=progress)
    assert progress.last["event"] == "over"
    assert progress.last["why"] == "interrupted"
    assert signal.getsignal(number) == before
    study = Study.open(tmp_path / "s")
    kept = study.results()
    assert len(kept) == (1 if kind == "ended" else 0)
    states = [state.status for state in study.states().values()]
    assert sorted(states) == sorted((["finished"] if kept else ["interrupted"]) + ["waiting"] * 2)
    again = sweep_spec(tiny, tmp_path / "s", ["ablation.seeds=1"], executor="local")
    assert {result["status"] for result in again.results().values()} == {"finished"}
    assert {key: again.results()[key] for key in kept} == kept


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_signal_ends_it_through_ray_too(tiny: Path, tmp_path: Path, sweep_spec: Sweep) -> None:
    before = signal.getsignal(signal.SIGINT)
    progress = After("ended", lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        sweep_spec(tiny, tmp_path / "s", ["train.epochs=20"], executor="ray", progress=progress)
    assert progress.last["why"] == "interrupted"
    assert signal.getsignal(signal.SIGINT) == before
    assert 1 <= len(Study.open(tmp_path / "s").results()) < 6


def test_a_full_disk_ends_it_cleanly_and_it_goes_on_when_there_is_room(
    tiny: Path, small_disk: Path, tmp_path: Path, sweep_spec: Sweep
) -> None:
    alone = sweep_spec(tiny, tmp_path / "alone", executor="local").results()
    rest = small_disk / "rest"
    progress = After("ended", lambda: fill(rest))
    with pytest.raises(UserError, match=r"no space left for .*; free some and run the command again"):
        sweep_spec(tiny, small_disk / "s", executor="local", progress=progress)
    assert progress.last["event"] == "over"
    assert progress.last["why"] == "refused"
    assert "no space left" in progress.last["message"]
    kept = Study.open(small_disk / "s").results()
    assert 1 <= len(kept) < 6
    rest.unlink()
    after = sweep_spec(tiny, small_disk / "s", executor="local").results()
    assert {key: after[key] for key in kept} == kept
    assert {key: result["metrics"] for key, result in after.items()} == {
        key: result["metrics"] for key, result in alone.items()
    }


def test_a_second_sweep_says_who_is_at_work_and_exits_with_2(
    tiny: Path, tmp_path: Path, sweep_spec: Sweep, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = sweep_spec(tiny, tmp_path / "s", ["ablation.seeds=1"], executor="local")
    monkeypatch.setattr("ablate.prepare.prepare", lambda *_, **__: pytest.fail("it was to be told first"))
    with study.hold():
        assert main(["sweep", str(tiny), "--set", "ablation.seeds=1", "--out", str(study.folder)]) == 2
    assert "is in use by process" in capsys.readouterr().err


def test_a_study_with_a_damaged_record_does_not_count_as_complete(
    tiny: Path, tmp_path: Path, sweep_spec: Sweep
) -> None:
    study = sweep_spec(tiny, tmp_path / "s", ["ablation.seeds=1", "train.epochs=1"], executor="local")
    plan = study_plan(load(tiny))
    assert _is_complete(study.folder, plan)
    (study.folder / "certificates.json").write_text("{")
    assert not _is_complete(study.folder, plan)


def test_an_address_is_refused_where_no_ray_is_used(tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", str(tiny), "--executor", "local", "--address", "auto"]) == 2
    assert "--executor local uses none; leave one out" in capsys.readouterr().err
