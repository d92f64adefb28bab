"""What a search proposes: on record line by line, a variant at once, and sound or named as damaged."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablate import outcomes, store
from ablate.cli import main
from ablate.errors import UserError
from ablate.store import Study, begun_with, proposals
from ablate.store.index import Index
from ablate.store.proposals import Proposals
from tests.stores import CRASHED, RESULT, SPEC, VARIANTS, A, flip, rows, train

SEARCH: dict[str, Any] = {
    **SPEC,
    "search": {
        "file": "search_spaces/rate.yaml",
        "space": {"train.optimizer.lr": {"float": [0.01, 0.1]}},
        "objectives": {"val.accuracy": "maximize"},
        "budget": {"trials": 5},
        "seed": 0,
    },
}


def hash_of(number: int) -> str:
    return f"{number:032x}"


def proposal(number: int, outcome: str = "trained", **about: Any) -> dict[str, Any]:
    record = {"number": number, "name": str(number), "levels": {"lr": "0.1"}, "outcome": outcome, "trial": None}
    if outcome == "trained":
        variant = {"name": str(number), "levels": {"lr": "0.1"}, "baseline": None, "trials": {"0": hash_of(number)}}
        record |= {"trial": hash_of(number), "variant": variant}
    return {**record, "known": {"params": 7.5, "naswot": float("inf")}, **about}


def line_of(record: dict[str, Any]) -> bytes:
    """As it lies on the disk: the record, and the sha256 of its JSON."""
    text = json.dumps(record)
    return f'{text[:-1]}, "checksum": "{hashlib.sha256(text.encode()).hexdigest()}"}}\n'.encode()


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study = Study.create(tmp_path / "rate", SEARCH, [], {})
    for number, outcome in enumerate(["trained", "rejected", "trained"]):
        study.propose(proposal(number, outcome))
    return study


def variants(study: Study) -> list[str]:
    return [variant["name"] for variant in study.variants]


def path_of(study: Study) -> Path:
    return study.folder / store.PROPOSALS


def listed(study: Study) -> list[tuple[Any, ...]]:
    return sorted(rows(study.folder / store.INDEX, "SELECT name, seed, trial FROM variants"))


# What is proposed is read back, and what is trained is a variant.


def test_what_is_proposed_is_read_back_and_what_is_trained_is_a_variant(study: Study) -> None:
    expected = [proposal(0), proposal(1, "rejected"), proposal(2)]
    assert path_of(study).read_bytes() == b"".join(map(line_of, expected))
    for found in (study, Study.open(study.folder), Study.create(study.folder, SEARCH, [], {})):
        assert found.proposals() == expected
        assert found.variants == [expected[0]["variant"], expected[2]["variant"]]
        assert found.verify() == {}
        assert [state.status for state in found.states().values()] == ["waiting", "waiting"]


def test_the_index_and_the_states_see_a_proposal_at_once(study: Study) -> None:
    with study.hold():
        study.results()  # the index is opened, with what was known by then
        assert [name for name, *_ in listed(study)] == ["0", "2"]
        study.propose(proposal(3))
        study.propose(proposal(4, "duplicate", of=3))
        assert listed(study) == [(str(number), "0", hash_of(number)) for number in (0, 2, 3)]
        train(study, hash_of(3))
        assert study.states()[hash_of(3)].status == "finished"
        assert Study.open(study.folder).states() == study.states()
    (study.folder / store.INDEX).unlink()
    study.rebuild()
    assert [name for name, *_ in listed(study)] == ["0", "2", "3"]


def test_a_name_that_is_proposed_twice_stands_for_the_latest(study: Study) -> None:
    with study.hold():
        study.results()
        study.propose(proposal(0, "uncertified", why="no gradient"))
        study.propose(proposal(1))
        study.propose(proposal(2, known={}))
        assert [name for name, *_ in listed(study)] == ["1", "2"]
    for found in (study, Study.open(study.folder)):
        assert [record["outcome"] for record in found.proposals()] == ["uncertified", "trained", "trained"]
        assert found.proposals()[2]["known"] == {}
        assert variants(found) == ["1", "2"]


def test_proposals_come_after_the_variants_that_none_proposed(tmp_path: Path) -> None:
    study = Study.create(tmp_path / "s", SPEC, VARIANTS, {})
    study.propose(proposal(9, name="none/9", variant={**proposal(9)["variant"], "name": "none/9"}))
    for found in (study, Study.open(study.folder), Study.create(study.folder, SPEC, VARIANTS, {})):
        assert found.variants[:-1] == VARIANTS
        assert variants(found)[-1] == "none/9"
    with pytest.raises(ValueError, match="'again' is a variant that no search proposed"):
        study.propose(proposal(1, "rejected", name="again"))


def test_who_holds_the_study_knows_what_was_proposed_since_it_was_opened(study: Study) -> None:
    other = Study.open(study.folder)
    study.propose(proposal(3))
    assert variants(other) == ["0", "2"]
    with other.hold():
        assert variants(other) == ["0", "2", "3"]
        assert len(other.proposals()) == 4


@pytest.mark.parametrize(
    "wrong",
    [
        proposal(7, "postponed"),
        proposal(7, name=None),
        {**proposal(7), "number": "7"},
        {**proposal(7), "number": True},
        proposal(7, trial=hash_of(8)),
        proposal(7, variant=None),
        proposal(7, "rejected", variant=proposal(7)["variant"]),
        proposal(7, variant={**proposal(7)["variant"], "name": "8"}),
        proposal(7, trial="../7", variant={"name": "7", "trials": {"0": "../7"}}),
        proposal(7, checksum="0"),
    ],
)
def test_what_is_no_record_of_a_proposal_is_our_own_bug(study: Study, wrong: dict[str, Any]) -> None:
    before = path_of(study).read_bytes()
    with pytest.raises(ValueError, match="no record of a proposal"):
        study.propose(wrong)
    assert path_of(study).read_bytes() == before
    # and one that is found on the disk, whoever sealed it, is damaged
    path_of(study).write_bytes(before + line_of(wrong))
    assert Study.open(study.folder).verify() == {store.PROPOSALS: "not as it was written: line 4"}


# Torn and damaged lines.


def test_wherever_a_killed_process_stopped_writing_the_whole_lines_count(study: Study) -> None:
    path, whole = path_of(study), path_of(study).read_bytes()
    ends = [position for position, byte in enumerate(whole) if byte == ord("\n")]
    for size in sorted({end + near for end in ends for near in (-1, 0, 1)} | {*range(ends[0] + 1, len(whole), 29)}):
        path.write_bytes(whole[:size])
        found = Proposals(path)
        found.read()
        complete = [line for line in whole.split(b"\n")[:3] if whole.index(line) + len(line) <= size]
        assert list(found.records) == [str(json.loads(line)["number"]) for line in complete]
        assert found.damage() == ""
        found.mend()
        assert path.read_bytes() in (b"\n".join(complete), b"\n".join([*complete, b""]))
        found.add(proposal(5))
        found.read()
        again = Proposals(path)
        again.read()
        assert again.records == found.records
        assert (list(again.records)[-1], again.bad) == ("5", [])


def test_the_holder_mends_and_a_reader_changes_nothing(study: Study) -> None:
    path = path_of(study)
    torn = path.read_bytes()[:-9]
    path.write_bytes(torn)
    reader = Study.open(study.folder)
    assert (variants(reader), reader.damaged, path.read_bytes()) == (["0"], {}, torn)
    with Study.open(study.folder).hold():
        assert path.read_bytes() == torn[: torn.rindex(b"\n") + 1]


def test_a_damaged_line_is_named_and_spoils_no_other(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    path, whole = path_of(study), path_of(study).read_bytes()
    first, second = (len(b"".join(map(line_of, [proposal(0), proposal(1, "rejected")][:n]))) for n in (1, 2))
    for position in range(first, second - 1):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        found = Proposals(path)
        found.read()
        assert (list(found.records), found.damage()) == (["0", "2"], "not as it was written: line 2"), position
    opened = Study.open(study.folder)
    assert opened.damaged == {store.PROPOSALS: "not as it was written: line 2"}
    assert opened.verify() == opened.damaged
    with opened.hold():
        opened.propose(proposal(1, "rejected"))
    assert [record["name"] for record in Study.open(study.folder).proposals()] == ["0", "2", "1"]
    assert main(["store", "verify", str(study.folder)]) == 1
    assert "damaged: proposals.jsonl: not as it was written: line 2" in capsys.readouterr().out


def test_a_file_that_was_replaced_is_read_anew(study: Study) -> None:
    found = Proposals(path_of(study))
    found.read()
    path_of(study).write_bytes(line_of(proposal(8)))
    found.read()
    assert list(found.records) == ["8"]


# Ten thousand.


def test_ten_thousand_proposals_cost_a_look_at_each_and_one_more_costs_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 10_000
    study = Study.create(tmp_path / "s", SEARCH, [], {})
    lines = (line_of(proposal(number, "rejected" if number % 50 else "trained")) for number in range(count))
    path_of(study).write_bytes(b"".join(lines))
    done: Counter[str] = Counter()

    def counted(owner: Any, name: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def call(*args: Any) -> Any:
            done[name] += 1
            return real(*args)

        monkeypatch.setattr(owner, name, call)

    for owner, name in [
        (proposals, "_record"),
        (Proposals, "_unread"),
        (Index, "list_variants"),
        (Proposals, "variants"),
    ]:
        counted(owner, name)
    study = Study.open(study.folder)
    assert (len(study.proposals()), len(study.variants)) == (count, count // 50)
    assert (done["_record"], done["_unread"]) == (count + 1, 1)
    with study.hold():
        study.results()
        done.clear()
        for number in range(count, count + 7):
            study.propose(proposal(number))
    assert done == {"_record": 7 * 2, "_unread": 7}
    assert len(study.variants) == count // 50 + 7


# A search goes on.


def changed(path: str, value: Any) -> dict[str, Any]:
    spec: dict[str, Any] = json.loads(json.dumps(SEARCH))
    *above, key = path.split("/")
    below = spec
    for name in above:
        below = below[name]
    below[key] = value
    return spec


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("search/budget", {"trials": 50, "time": 60.0}),
        ("search/file", "/else.yaml"),
        ("report", {}),
        ("ablation/seeds", 1),
    ],
)
def test_a_search_goes_on_for_longer(study: Study, path: str, value: Any) -> None:
    spec = changed(path, value)
    assert begun_with(study.folder, spec) is None  # it states no numerics
    found = Study.create(study.folder, spec, [], {})
    assert (variants(found), found.spec) == (["0", "2"], spec)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("search/space/train.optimizer.lr", {"float": [0.01, 0.2]}, "search.space.train.optimizer.lr.float"),
        ("search/seed", 1, "search.seed"),
        ("search/objectives", {"val.loss": "minimize"}, "search.objectives.val.accuracy, search.objectives.val.loss"),
        ("search/pruner", {"name": "asha"}, "search.pruner.name"),
        ("train/epochs", 9, "train.epochs"),
        ("ablation/baseline", None, "ablation.baseline"),
    ],
)
def test_another_search_is_refused_and_the_differences_are_named(
    study: Study, path: str, value: Any, named: str
) -> None:
    before = {file: file.read_bytes() for file in study.folder.iterdir() if file.is_file()}
    with pytest.raises(UserError, match=f"holds a study of another spec: they differ in {named}; choose another"):
        Study.create(study.folder, changed(path, value), [], {})
    del before[study.folder / store.LOCK]
    assert all(file.read_bytes() == content for file, content in before.items())


def test_a_sweep_is_no_search_and_a_search_no_sweep(study: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds a search, and this is a sweep; choose another --out"):
        Study.create(study.folder, SPEC, VARIANTS, {})
    swept = Study.create(tmp_path / "swept", SPEC, VARIANTS, {})
    with pytest.raises(UserError, match="holds a sweep, and this is a search; choose another --out"):
        Study.create(swept.folder, SEARCH, [], {})


def test_a_damaged_spec_is_written_anew_by_the_same_search_alone(study: Study) -> None:
    path = study.folder / store.SPEC
    whole = path.read_bytes()
    flip(path)
    for path_, value in [("train/epochs", 9), ("search/seed", 1)]:
        with pytest.raises(UserError, match="was edited, or is damaged"):
            Study.create(study.folder, changed(path_, value), [], {})
    assert variants(Study.create(study.folder, SEARCH, [], {})) == ["0", "2"]
    assert path.read_bytes() == whole
    flip(path)
    longer = changed("search/budget", {"trials": 9})
    assert Study.create(study.folder, longer, [], {}).spec == longer


def test_a_search_goes_on_with_its_numerics_whether_or_not_the_spec_names_its_space(tmp_path: Path) -> None:
    numerics = {"threads": 3}
    Study.create(tmp_path / "s", {**SEARCH, "numerics": numerics}, [], {})
    assert begun_with(tmp_path / "s", SEARCH) == begun_with(tmp_path / "s", SPEC) == numerics
    assert begun_with(tmp_path / "s", changed("search/seed", 1)) is None


def test_a_folder_in_which_a_search_was_killed_before_it_began_is_taken(tmp_path: Path) -> None:
    (tmp_path / "s" / store.TUNING).mkdir(parents=True)
    (tmp_path / "s" / store.JOURNAL).write_bytes(b"")
    assert Study.create(tmp_path / "s", SEARCH, [], {}).proposals() == []


# Pruned.


def test_a_pruned_trial_is_done_and_no_other_study_takes_it(study: Study, tmp_path: Path) -> None:
    result = {**RESULT, "status": "pruned", "metrics": {"val.accuracy": 31.0}, "epochs": 2}
    study.begin({"hash": A})
    study.save_state(A, b"state")
    study.finish(A, result)
    assert not (study.trial_folder(A) / store.STATE).exists()
    found = study.result(A)
    assert found is not None
    assert (found["status"], found["metrics"]) == ("pruned", {"val.accuracy": 31.0})
    assert not outcomes.repeated(found, retry_failed=True, trial_timeout=1e9)
    assert outcomes.repeated(CRASHED, retry_failed=True)
    other = Study.create(tmp_path / "other", SPEC, VARIANTS, {})
    assert not other.adopt(A, study.folder)
    with pytest.raises(UserError, match="has no weights: its status is pruned"):
        study.weights(A)
    assert {"pruned"} == {*outcomes.RESULTS} - {*outcomes.FAILED} - {"finished"}
