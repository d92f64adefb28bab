"""The store against a dict: whatever begins, ends, is damaged or opened anew, both say the same."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from ablate import disk, store
from ablate.outcomes import RESULTS, RESUMABLE
from ablate.store import Study, keeping
from tests.stores import RESULT, flip

HASHES = [letter * 32 for letter in "abc"]
RECORDS: list[dict[str, Any]] = [
    {"name": "v", "levels": {}, "baseline": None, "trials": dict(zip("012", HASHES, strict=True))}
]
hashes = st.sampled_from(HASHES)


class Store(RuleBasedStateMachine):
    """``results``, ``begun`` and ``states`` are what the store is to say; ``damaged`` trials have neither."""

    def __init__(self) -> None:
        super().__init__()
        self.parent = Path(tempfile.mkdtemp())
        self.study = Study.create(self.parent / "s", {"name": "s"}, RECORDS, {})
        self.held = ExitStack()
        self.results: dict[str, str] = {}
        self.begun: dict[str, int] = {}
        self.damaged: set[str] = set()
        self.states: dict[str, bytes] = {}
        self.holding = False

    def teardown(self) -> None:
        self.held.close()
        shutil.rmtree(self.parent)

    @rule(hash=hashes, attempt=st.integers(1, 7), resume=st.booleans())
    def begin(self, hash: str, attempt: int, resume: bool) -> None:
        self.study.note_begun(hash, attempt)
        self.study.begin({"hash": hash, "attempt": attempt}, resume=resume)
        self.begun[hash] = attempt
        self.results.pop(hash, None)
        self.damaged.discard(hash)
        if not resume:
            self.states.pop(hash, None)

    @precondition(lambda self: self.begun)
    @rule(data=st.data(), content=st.binary(max_size=7))
    def save(self, data: st.DataObject, content: bytes) -> None:
        hash = data.draw(st.sampled_from(sorted(self.begun)))
        if hash not in self.results and hash not in self.damaged:
            self.study.append_metrics(hash, {"epoch": 1})
            self.study.save_state(hash, content)
            self.states[hash] = content

    @rule(hash=hashes, status=st.sampled_from(RESULTS))
    def finish(self, hash: str, status: str) -> None:
        self.study.finish(hash, {**RESULT, "status": status, "attempts": self.begun.get(hash, 1)})
        self.results[hash] = status
        self.damaged.discard(hash)
        if status not in RESUMABLE:
            self.states.pop(hash, None)

    @precondition(lambda self: self.results)
    @rule(data=st.data(), name=st.sampled_from([store.RESULT, store.TRIAL, store.METRICS]))
    def damage(self, data: st.DataObject, name: str) -> None:
        hash = data.draw(st.sampled_from(sorted(self.results)))
        path = self.study.trial_folder(hash) / name
        if path.exists():
            flip(path)
            del self.results[hash]
            self.damaged.add(hash)

    @precondition(lambda self: not self.holding)
    @rule()
    def hold(self) -> None:
        self.held.enter_context(self.study.hold())
        self.holding = True

    @rule()
    def open_anew(self) -> None:
        self.held.close()
        self.holding = False
        self.study = Study.create(self.study.folder, {"name": "s"}, RECORDS, {})

    @precondition(lambda self: not self.holding)
    @rule(how=st.sampled_from(["gone", "garbage", "rebuilt"]))
    def treat_the_index(self, how: str) -> None:
        path = self.study.folder / store.INDEX
        if how == "rebuilt":
            self.study.rebuild()
        elif how == "garbage":
            path.write_bytes(b"garbage" * 1009)
        else:
            path.unlink(missing_ok=True)

    @invariant()
    def both_say_the_same(self) -> None:
        for study in (self.study, Study.open(self.study.folder)):
            results = study.results()
            assert {hash: result["status"] for hash, result in results.items()} == self.results
            assert study.damaged.keys() == self.damaged
            begun = "running" if self.holding else "interrupted"
            expected = {
                hash: self.results.get(hash)
                or ("damaged" if hash in self.damaged else begun if hash in self.begun else "waiting")
                for hash in HASHES
            }
            assert {hash: state.status for hash, state in study.states().items()} == expected
            assert {hash: study.state(hash) for hash in HASHES} == {hash: self.states.get(hash) for hash in HASHES}


def test_the_store_is_as_a_dict_would_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.os, "fsync", lambda file: None)  # nobody cuts the power
    monkeypatch.setattr(keeping.time, "sleep", lambda seconds: None)
    checks = settings(max_examples=12, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Store, settings=checks)
