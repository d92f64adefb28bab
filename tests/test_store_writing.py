"""Who may write a study, what a killed process leaves, and what a disk that refuses does to it."""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablate import disk, store
from ablate.disk import InUseError
from ablate.errors import UserError
from ablate.outcomes import RESULTS
from ablate.store import Study, events
from tests.conftest import fill
from tests.stores import RESULT, SPEC, VARIANTS, A, B, C, cut, flip, names, run_python, told, train


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study.create(tmp_path / "placement", SPEC, VARIANTS, {"torch": "2.6"})


# The disk refuses.

REFUSALS = {errno.ENOSPC: "no space left", errno.EDQUOT: "no space left", errno.EACCES: "cannot be written"}


def refuse(monkeypatch: pytest.MonkeyPatch, call: str, code: int) -> None:
    """From now on ``os.call`` fails; a write puts half of its bytes on the disk first."""
    real = getattr(os, call)

    def failing(file: int, *args: Any) -> Any:
        if call == "write" and len(args[0]) > 1:
            return real(file, bytes(args[0])[: len(args[0]) // 2 + 1]) if len(args[0]) > 40 else _fail(code)
        return _fail(code)

    monkeypatch.setattr(os, call, failing)


def _fail(code: int) -> None:
    raise OSError(code, os.strerror(code))


@pytest.mark.parametrize("code", REFUSALS)
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_refused_write_leaves_what_was_there(
    study: Study, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    train(study, A)
    study.expose(by="train")
    study.save_report("table.md", "old")
    study.begin({"hash": B})
    study.append_metrics(B, {"epoch": 1})
    files = {path: path.read_bytes() for path in study.folder.rglob("*") if path.is_file()}
    with monkeypatch.context() as patched:
        refuse(patched, call, code)
        for write in (
            lambda: study.finish(B, {**RESULT, "error": "x" * 500}),
            lambda: study.save_report("table.md", "new" * 100),
            lambda: study.save_predictions(B, {"val": np.arange(7)}),
        ):
            with pytest.raises(UserError, match=REFUSALS[code]):
                write()
        if call != "replace":
            with pytest.raises(UserError, match=REFUSALS[code]):
                study.expose(by="x" * 500)
    assert {path: path.read_bytes() for path in study.folder.rglob("*") if path.is_file()} == files
    study.finish(B, RESULT)
    assert study.results().keys() == {A, B}


def test_a_really_full_disk_is_told_and_loses_nothing(small_disk: Path) -> None:
    study = Study.create(small_disk / "study", SPEC, VARIANTS, {})
    train(study, A)
    before = names(study.trial_folder(A))
    study.begin({"hash": B})
    rest = small_disk / "rest"
    fill(rest)
    noise = np.random.default_rng(0).integers(0, 256, 100_003, dtype=np.uint8)
    for write in (
        lambda: study.save_predictions(B, {"val": noise}),
        lambda: study.finish(B, {**RESULT, "error": {"traceback": "x" * 100_003}}),
        lambda: study.begin({"hash": C}),
        lambda: study.expose(by="x" * 10_007),
        lambda: study.rebuild(),
        lambda: study.log({"event": "x" * 10_007}),
        lambda: study.save_state(B, bytes(100_003)),
        lambda: study.rewrite_metrics(B, [{"epoch": 1, "x": "y" * 10_007}]),
        lambda: Study.create(small_disk / "other", SPEC, VARIANTS, {}),
    ):
        with pytest.raises(UserError, match=r"no space left|disk is full|disk I/O error"):
            write()
    assert names(study.trial_folder(A)) == before
    assert names(study.trial_folder(B)) == [store.TRIAL]
    rest.unlink()
    assert Study.open(study.folder).results().keys() == {A}
    study.finish(B, RESULT)
    assert study.results().keys() == {A, B}
    assert study.rebuild().exists()


def test_a_read_only_folder_is_told(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "open", lambda *_, **__: _fail(errno.EROFS))
    with pytest.raises(UserError, match="cannot be written: Read-only file system"):
        study.save_report("table.md", "x")


# One writer.


HOLDER = """
    import os, sys, time
    from pathlib import Path
    from ablate.store import Study
    with Study.open(Path(sys.argv[1])).hold():
        if "fork" not in sys.argv:
            print(0, flush=True)
        elif os.fork() == 0:
            print(os.getpid(), flush=True)  # the child itself says that it is there
            time.sleep(600)
        sys.stdin.readline()
"""


def test_a_second_sweep_is_told_who_holds_the_study(study: Study) -> None:
    with run_python(HOLDER, str(study.folder)) as holder:
        told(holder)
        with pytest.raises(UserError, match=f"in use by process {holder.pid} "), study.hold():
            pass
        with pytest.raises(UserError, match=f"in use by process {holder.pid} "):
            Study.create(study.folder, SPEC, VARIANTS, {})
        holder.communicate("\n")
    with study.hold():
        pass


@pytest.mark.parametrize("how", ["alone", "fork"])
def test_a_killed_sweep_blocks_no_resume(study: Study, how: str) -> None:
    with run_python(HOLDER, str(study.folder), how) as holder:
        child = int(told(holder))
        try:
            with pytest.raises(UserError, match="in use by"), study.hold():
                pass
            holder.kill()
            holder.wait()
            with study.hold():
                pass
        finally:
            holder.kill()
            if child:
                os.kill(child, signal.SIGKILL)


def test_the_lock_is_given_back_after_an_error_and_bars_the_same_process_twice(study: Study) -> None:
    def fail() -> None:
        with pytest.raises(UserError, match=f"process {os.getpid()}"), study.hold():
            pass
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), study.hold():
        fail()
    with study.hold():
        pass


def test_a_process_killed_while_it_writes_leaves_whole_files(study: Study) -> None:
    """Killed at any moment, every result is there whole, or not at all."""
    writer = run_python(
        """
        import sys
        from pathlib import Path
        from ablate.store import Study
        study = Study.open(Path(sys.argv[1]))
        for number in range(100_000):
            hash = f"{number:032x}"
            study.begin({"hash": hash})
            study.append_metrics(hash, {"epoch": 1, "x": "y" * 5003})
            study.finish(hash, {"status": "finished", "number": number, "x": "y" * 50_021})
            if number == 7:
                print("ready", flush=True)
        """,
        str(study.folder),
    )
    with writer:
        told(writer)
        writer.kill()
    found = Study.open(study.folder)
    results = found.results()
    assert found.damaged == {}
    assert len(results) >= 8
    assert all(int(hash, 16) == result["number"] for hash, result in results.items())


def test_neither_torch_nor_ray_nor_scipy_is_imported() -> None:
    code = "import sys, ablate.store, ablate.stats, ablate.report; print({'torch', 'ray', 'scipy'} & {*sys.modules})"
    with run_python(code) as process:
        assert process.communicate()[0].strip() == "set()"


# A trial's own lock.

WORKER = """
    import sys
    from pathlib import Path
    from ablate.store import Study
    with Study.open(Path(sys.argv[1])).working(sys.argv[2]):
        print(flush=True)
        sys.stdin.readline()
"""


def test_a_worker_that_outlived_its_sweep_has_its_trial_and_no_other(study: Study) -> None:
    with run_python(WORKER, str(study.folder), A) as worker:
        told(worker)
        with (
            study.hold(),
            pytest.raises(UserError, match=f"{A} is in use by process {worker.pid} .*outlived"),
            study.working(A, patience=0),
        ):
            pass
        with study.working(B, patience=0):
            pass
        worker.kill()
        worker.wait()
        with study.working(A, patience=0):
            pass


def test_who_finds_a_lock_taken_can_tell_it_from_other_errors(study: Study) -> None:
    with study.hold(), study.working(A):
        for taken in (study.hold(), study.working(A, patience=0)):
            with pytest.raises(InUseError), taken:
                pass
        with pytest.raises(InUseError, match="in use by process") as refused:
            Study.create(study.folder, SPEC, VARIANTS, {})
    again = pickle.loads(pickle.dumps(refused.value))  # of a worker to its sweep
    assert (type(again), str(again)) == (InUseError, str(refused.value))


def test_a_trial_is_waited_for(study: Study) -> None:
    with run_python(WORKER, str(study.folder), A) as worker:
        told(worker)
        with ThreadPoolExecutor() as pool:
            waiting = pool.submit(lambda: study.working(A, patience=300).__enter__())
            assert not waiting.done()
            worker.communicate("\n")
            waiting.result()


def test_a_lock_that_was_removed_in_the_meantime_is_none(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else two would work: one by the file that is gone, one by its successor."""
    path = study.trial_folder(A) / store.LOCK
    real = fcntl.flock
    removed = []

    def remove_first(file: int, how: int) -> None:
        if not removed:
            removed.append(path.unlink())
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with study.working(A, patience=0), pytest.raises(UserError, match="in use"), study.working(A, patience=0):
        pass
    assert removed


def test_a_finished_trial_has_no_lock_and_one_that_is_worked_on_keeps_it(study: Study) -> None:
    with study.working(A):
        study.begin({"hash": A})
        study.finish(A, {**RESULT, "status": "lost"})
        with pytest.raises(UserError, match="in use"), study.working(A, patience=0):
            pass
    study.finish(A, RESULT)
    assert names(study.trial_folder(A)) == [store.RESULT, store.TRIAL]
    assert study.result(A) is not None


# Who holds it.


def test_asking_who_holds_a_study_bars_nobody(study: Study) -> None:
    assert study.in_use() is None
    with run_python(HOLDER, str(study.folder)) as process:
        told(process)
        assert study.in_use() == f"process {process.pid} on {os.uname().nodename}"
        process.communicate("\n")
    assert study.in_use() is None
    with study.hold():
        assert study.in_use() == f"process {os.getpid()} on {os.uname().nodename}"
        assert Study.open(study.folder).in_use() is not None


def test_who_asks_in_the_same_moment_does_not_keep_a_sweep_from_starting(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    with study.hold():
        pass
    asking = os.open(study.folder / store.LOCK, os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    monkeypatch.setattr("time.sleep", lambda _: fcntl.flock(asking, fcntl.LOCK_UN))
    with study.hold():
        pass
    os.close(asking)


# What a trial goes on from.


def test_a_trial_goes_on_from_its_state_and_its_metrics(study: Study) -> None:
    study.begin({"hash": A, "attempt": 1})
    study.append_metrics(A, {"epoch": 1})
    study.save_state(A, b"one\n")
    study.append_metrics(A, {"epoch": 2})
    study.save_predictions(A, {"val": np.arange(7)})
    study.begin({"hash": A, "attempt": 2}, resume=True)
    assert names(study.trial_folder(A)) == [store.METRICS, store.STATE, store.TRIAL]
    assert Study.open(study.folder).state(A) == b"one\n"
    study.rewrite_metrics(A, study.metrics(A)[:1])
    assert study.metrics(A) == [{"epoch": 1}]
    study.rewrite_metrics(A, [])
    assert study.metrics(A) == []
    study.begin({"hash": A, "attempt": 3})
    assert names(study.trial_folder(A)) == [store.TRIAL]
    assert study.state(A) is None
    study.drop_state(A)


@pytest.mark.parametrize("status", RESULTS)
def test_a_state_stays_only_where_the_trial_can_go_on(study: Study, status: str) -> None:
    study.begin({"hash": A})
    study.save_state(A, bytes(range(256)))
    study.finish(A, {**RESULT, "status": status})
    assert study.state(A) == (bytes(range(256)) if status in ("lost", "timed_out", "out_of_memory") else None)
    result = study.result(A)
    assert result is not None
    assert list(result["files"]) == [store.TRIAL]
    study.drop_state(A)
    assert study.result(A) is not None


@pytest.mark.parametrize("harm", [flip, cut, lambda path: path.write_bytes(b"")], ids=["flip", "cut", "empty"])
def test_a_damaged_state_is_named_and_the_trial_starts_afresh(study: Study, harm: Callable[[Path], None]) -> None:
    study.begin({"hash": A})
    study.save_state(A, b"a state")
    harm(study.trial_folder(A) / store.STATE)
    assert study.state(A) is None
    assert study.damaged == {f"trials/{A}/{store.STATE}": "state.pt is not as it was written"}
    study.save_state(A, b"the next")
    assert study.state(A) == b"the next"
    assert study.damaged == {}


def test_a_trial_whose_worker_never_began_can_be_recorded_as_lost(study: Study) -> None:
    study.finish(A, {**RESULT, "status": "lost"})
    result = study.result(A)
    assert result is not None
    assert (result["status"], result["files"]) == ("lost", {})


# The log.


def test_events_are_read_on_from_where_the_last_reading_ended(study: Study) -> None:
    assert study.events() == ([], 0)
    study.log({"event": "node", "name": "ä"})
    first, offset = study.events()
    assert (first, offset) == ([{"event": "node", "name": "ä"}], (study.folder / store.EVENTS).stat().st_size)
    with (study.folder / store.EVENTS).open("a") as file:
        file.write('{"event": "ep')
    assert study.events(offset) == ([], offset)  # not yet complete
    study.log({"event": "over"})  # by the next sweep: the torn line is left out
    assert study.events(offset)[0] == [{"event": "over"}]
    assert [event["event"] for event in study.events()[0]] == ["node", "over"]
    (study.folder / store.EVENTS).write_text('{"event": "sweep"}\n')
    assert study.events(1009)[0] == [{"event": "sweep"}]  # another log


def test_a_long_log_is_read_in_parts(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        study.log({"event": number})
    with (study.folder / store.EVENTS).open("a") as file:
        file.write("x" * 200 + "\n")  # no event
    study.log({"event": "last"})
    monkeypatch.setattr(events, "MOST", 64)
    found: list[dict[str, Any]] = []
    offset, before = 0, -1
    while offset != before:
        before = offset
        part, offset = study.events(before)
        assert offset - before <= 64
        found += part
    assert [event["event"] for event in found] == [*range(20), "last"]


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        (".result.json.7-0123abcd.tmp", True),
        (".a.b.123456-ffffffff.tmp", True),
        (".result.json.tmp", False),
        (".result.json.7-abc.tmp", False),
        ("result.json.7-0123abcd.tmp", False),
        (".result.json.7-0123abcd.tmp~", False),
        (".7-0123abcd.tmp", False),
    ],
)
def test_what_others_write_beside_is_no_leftover_of_ours(name: str, ours: bool) -> None:
    assert disk.is_leftover(name) == ours
