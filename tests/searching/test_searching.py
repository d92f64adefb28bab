"""A search as a user runs one: what is trained, refused, answered from the store, and what a cut leaves behind."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ablate.design import study_plan, trial_hash
from ablate.errors import UserError
from ablate.events import Event
from ablate.progress import Progress
from ablate.searching import held, search, settle, winner
from ablate.space import load_space
from ablate.spec import load
from ablate.store import Study

SPEC = """\
name: tiny
data: {name: fake, shape: [3, 8, 8], classes: 3, count: {train: 48, test: 12}, val: 0.25}
train: {epochs: 2, batch_size: 12, precision: fp32, optimizer: {name: sgd, lr: 0.05, momentum: 0.9}}
network:
  params: {k: 1}
  graph:
    stem: {block: conv_bn_act, width: 4*$k, kernel: 3}
    body: {block: basic, width: 4*$k, repeat: 1, shortcut: pad}
    head: {block: classifier}
  insert:
    attention: {block: se, reduction: 2, at: after body}
execution: {threads: 1}
"""
SPACE = """\
space:
  network.insert.attention.block: {choice: [se, simam]}
  network.insert.attention.reduction: {choice: [1, 2, 4], when: {network.insert.attention.block: se}}
  network.params.k: {choice: [1, 2]}
  train.optimizer.lr: {choice: [0.003, 0.03, 0.3]}
"""


class CutOff(BaseException):
    """A process that ends here, whatever would catch it."""


class CutAfter(Progress):
    """Ends its search when it has been told of so many events."""

    def __init__(self, events: int | None = None) -> None:
        self.left, self.told = events, [] if events is None else None
        self.events: list[Event] = []

    def tell(self, event: Event) -> None:
        self.events.append(event)
        if self.left is not None and len(self.events) >= self.left:
            raise CutOff


Run = Callable[..., Study]


@pytest.fixture
def searched(tmp_path: Path) -> Run:
    """Searches a space, given as lines beside the paths, in this process."""
    (tmp_path / "spec.yaml").write_text(SPEC)

    def run(lines: str, folder: str = "study", *, space: str = SPACE, **options: Any) -> Study:
        (tmp_path / "space.yaml").write_text(space + lines)
        found = held(load_space(tmp_path / "space.yaml"), load(tmp_path / "spec.yaml"))
        prepared = settle(found, folder=tmp_path / folder, concurrent=1, measure=False)
        return search(prepared, **{"executor": "local", **options})

    return run


def outcomes(study: Study) -> Counter[str]:
    return Counter(record["outcome"] for record in study.proposals())


def told_to_optuna(study: Study) -> list[Any]:
    """What Optuna's own reader says of the journal."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage = JournalStorage(JournalFileBackend(str(study.folder / "optuna.jsonl")))
    return optuna.load_study(study_name="search", storage=storage).trials


def everything(study: Study) -> tuple[Any, ...]:
    """All that a search decided and measured; how long things took is no part of it."""
    proposals = [
        {key: record[key] for key in ("name", "outcome", "trial", "of", "values", "why")}
        for record in study.proposals()
    ]
    results = {
        hash: (result["status"], result["epochs"], result["metrics"]) for hash, result in study.results().items()
    }
    return proposals, results


def test_it_trains_as_many_points_as_its_budget_says_each_certified_against_the_spec(searched: Run) -> None:
    study = searched("objectives: {val.accuracy: maximize}\nsampler: {name: random}\nbudget: {trials: 3}\n")
    records = study.proposals()
    assert len(study.results()) == 3
    assert all(result["status"] == "finished" for result in study.results().values())
    assert [record["variant"]["certificate"]["failures"] for record in records] == [[], [], []]
    assert {record["variant"]["baseline"] for record in records} == {"tiny"}
    values = [trial.values[0] for trial in told_to_optuna(study)]
    assert values == [study.results()[record["trial"]]["metrics"]["val.accuracy"] for record in records]


@pytest.mark.parametrize(
    "sampler",
    ["{name: tpe, startup: 2}", pytest.param("{name: nsga2, population: 2}", marks=pytest.mark.slow)],
)
def test_cut_off_anywhere_it_ends_as_if_nothing_had_happened(searched: Run, sampler: str) -> None:
    lines = f"objectives: {{val.loss: minimize}}\nsampler: {sampler}\npruner: {{name: asha, reduction: 2}}\n"
    lines += "constraints: {params: {max: 1500}}\nbudget: {trials: 5}\n"
    whole = searched(lines, "whole")
    cuts = 0
    for events in (2, 4, 5, 7, 1000):
        try:
            cut = searched(lines, "cut", progress=CutAfter(events))
        except CutOff:
            cuts += 1
    assert cuts == 4
    assert everything(cut) == everything(whole)
    assert "pruned" in {result["status"] for result in whole.results().values()}


def test_a_network_that_breaks_a_constraint_is_never_trained_and_why_is_on_record(searched: Run) -> None:
    lines = "objectives: {val.accuracy: maximize}\nconstraints: {params: {max: 700}}\nsampler: {name: grid}\n"
    study = searched(lines + "budget: {trials: 100}\n")
    for record in study.proposals():
        params = record["known"]["params"]
        assert (record["outcome"] == "rejected") == (params > 700)
        assert (record["trial"] is None) == (params > 700)
        assert record["why"] == ("" if params <= 700 else f"params {params:,.0f} is more than 700")
    assert outcomes(study)["rejected"] == 12
    # SE on 4 channels with reduction 4 has one hidden unit, as few as with any larger reduction
    assert outcomes(study)["trained"] + outcomes(study)["rejected"] + outcomes(study)["duplicate"] == 24


def test_what_is_the_same_network_and_recipe_is_answered_from_the_store(searched: Run) -> None:
    space = "space:\n  network.insert.attention.reduction: {choice: [4, 8, 16]}\n  network.params.k: {choice: [1]}\n"
    lines = "objectives: {val.accuracy: maximize}\nsampler: {name: grid}\nbudget: {trials: 9}\n"
    study = searched(lines, space=space)
    assert outcomes(study) == {"trained": 1, "duplicate": 2}
    assert len({trial.values[0] for trial in told_to_optuna(study)}) == 1
    assert {record["of"] for record in study.proposals() if record["outcome"] == "duplicate"} == {0}


def test_trials_that_a_pruner_ends_are_no_failures_and_the_sampler_knows(searched: Run) -> None:
    lines = "objectives: {val.loss: minimize}\nsampler: {name: random}\npruner: {name: asha, reduction: 2}\n"
    progress = CutAfter()
    study = searched(lines + "budget: {trials: 6}\n", progress=progress)
    results = study.results()
    pruned = [hash for hash, result in results.items() if result["status"] == "pruned"]
    assert pruned
    assert all(results[hash]["epochs"] == 1 == len(study.metrics(hash)) for hash in pruned)
    assert all("val.loss" in results[hash]["metrics"] for hash in pruned)
    states = {trial.number: trial.state.name for trial in told_to_optuna(study)}
    numbers = {record["trial"]: record["number"] for record in study.proposals()}
    assert {number for number, state in states.items() if state == "PRUNED"} == {numbers[hash] for hash in pruned}
    # by hand: with reduction 2, a trial goes on whose first epoch is no worse than the median of those before it
    import numpy as np

    first = {event["trial"]: event["row"]["val.loss"] for event in progress.events if _is_first_epoch(event)}
    before: list[float] = []
    for hash, value in first.items():
        assert (hash in pruned) == (bool(before) and value > np.percentile(before, 50))
        before.append(value)


def _is_first_epoch(event: Event) -> bool:
    return event["event"] == "epoch" and event["row"]["epoch"] == 1


def test_a_score_filters_what_is_trained(searched: Run) -> None:
    lines = "objectives: {val.accuracy: maximize}\nsampler: {name: random}\nbudget: {trials: 5}\n"
    study = searched(lines + "filter: {by: synflow, keep: 0.5, after: 2}\n")
    scores: list[float] = []
    for record in study.proposals():
        if record["outcome"] == "duplicate":
            continue
        scores.append(record["known"]["synflow"])
        better = sum(score > scores[-1] for score in scores)
        trained = len(scores) <= 2 or better < len(scores) / 2
        assert record["outcome"] == ("trained" if trained else "filtered")
    assert outcomes(study)["filtered"] > 0


def test_several_objectives_of_which_one_is_known_beforehand(searched: Run) -> None:
    lines = "objectives: {val.accuracy: maximize, flops: minimize}\nbudget: {trials: 4}\n"
    study = searched(lines)
    for trial, record in zip(told_to_optuna(study), study.proposals(), strict=True):
        result = study.results()[record["trial"]]
        assert trial.values == [result["metrics"]["val.accuracy"], record["known"]["flops"]]


def test_the_winner_is_a_spec_that_trains_the_same_trial(searched: Run, tmp_path: Path) -> None:
    lines = "objectives: {val.accuracy: maximize}\nsampler: {name: random}\nbudget: {trials: 3}\n"
    study = searched(lines)
    found = held(load_space(tmp_path / "space.yaml"), load(tmp_path / "spec.yaml"))
    (tmp_path / "best.yaml").write_text(winner(found, study))
    plan = study_plan(load(tmp_path / "best.yaml"))
    best = max(study.proposals(), key=lambda record: study.results()[record["trial"]]["metrics"]["val.accuracy"])
    content = settle(found, folder=tmp_path / "x", concurrent=1, measure=False).data_of(plan.variants[0].data)
    assert trial_hash(plan.variants[0], 0, content.content_hash, study.spec["numerics"]) == best["trial"]


def test_a_larger_budget_goes_on_and_another_space_is_refused(searched: Run) -> None:
    lines = "objectives: {val.accuracy: maximize}\nsampler: {name: random}\n"
    first = everything(searched(lines + "budget: {trials: 2}\n"))
    longer = searched(lines + "budget: {trials: 4}\n")
    assert everything(longer)[0][:2] == first[0]
    assert len(longer.results()) == 4
    with pytest.raises(UserError, match=r"search\.space"):
        searched(lines + "budget: {trials: 4}\n", space=SPACE.replace("0.3]", "0.1]"))


def test_a_budget_of_epochs_ends_it(searched: Run) -> None:
    study = searched("objectives: {val.accuracy: maximize}\nsampler: {name: random}\nbudget: {epochs: 3}\n")
    assert sum(result["epochs"] for result in study.results().values()) == 4  # two of two: begun before it was spent


def test_it_ends_where_nothing_keeps_the_constraints(searched: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablate.searching.source.FUTILE", 5)
    lines = "objectives: {val.accuracy: maximize}\nconstraints: {params: {max: 3}}\nbudget: {trials: 2}\n"
    study = searched(lines)
    assert outcomes(study) == {"rejected": 5}


def test_what_a_trial_can_not_tell_is_said_before_anything_runs(searched: Run, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC.replace(", val: 0.25", ""))
    with pytest.raises(UserError, match=r"val\.accuracy.*needs a validation split"):
        searched("objectives: {val.accuracy: maximize}\n")
    with pytest.raises(UserError, match="known without training"):
        searched("objectives: {params: minimize}\n")
    with pytest.raises(UserError, match="what is to be found"):
        searched("")
    assert not (tmp_path / "study").exists()


@pytest.fixture
def ray_searched(searched: Run, ray_session: None) -> Run:
    return lambda *args, **options: searched(*args, executor="ray", **options)


@pytest.mark.ray
def test_through_ray_tune_it_comes_to_the_same(searched: Run, ray_searched: Run) -> None:
    lines = "objectives: {val.loss: minimize}\nsampler: {name: tpe, startup: 2}\n"
    lines += "pruner: {name: asha, reduction: 2}\nbudget: {trials: 5}\n"
    here, there = searched(lines, "here"), ray_searched(lines, "there")
    assert everything(here) == everything(there)
    assert "pruned" in {result["status"] for result in there.results().values()}
    events = [json.loads(line) for line in (there.folder / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in events].count("ended") == 5


def test_what_was_let_go_on_is_not_pruned_by_what_others_came_to_later(
    searched: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "objectives: {val.accuracy: maximize}\nsampler: {name: random}\npruner: {name: asha, reduction: 2}\n"
    study = searched(lines + "budget: {trials: 3}\n")
    with study.hold():
        first, *others = [record["trial"] for record in study.proposals()]
        rows = [{"epoch": epoch, "lr": 0.1, "val.accuracy": 1.0, "seconds": 1.0} for epoch in (1, 2)]
        study.begin({"hash": first, "attempt": 1})  # cut off after its second epoch, at whose first it was the only one
        study.rewrite_metrics(first, rows)
    again = searched(lines + "budget: {trials: 3}\n")
    assert again.results()[first]["status"] == "finished"
    assert others


def test_a_trial_of_fewer_epochs_is_not_pruned_after_its_last(searched: Run) -> None:
    space = "space:\n  train.epochs: {choice: [1, 2]}\n  train.optimizer.lr: {choice: [0.0001, 0.01, 0.1, 0.3]}\n"
    lines = "objectives: {train.loss: minimize}\nsampler: {name: grid}\npruner: {name: asha, reduction: 2}\n"
    study = searched(lines + "budget: {trials: 8}\n", space=space)
    for record in study.proposals():
        if record["values"]["train.epochs"] == 1:
            assert study.results()[record["trial"]]["status"] == "finished"


def test_a_journal_that_lacks_what_is_on_record_is_refused(searched: Run) -> None:
    lines = "objectives: {val.accuracy: maximize}\nsampler: {name: random}\nbudget: {trials: 2}\n"
    study = searched(lines)
    (study.folder / "optuna.jsonl").unlink()
    with pytest.raises(UserError, match="that its journal lacks, from number 0 on"):
        searched(lines)
    assert outcomes(Study.open(study.folder)) == {"trained": 2}


def test_readings_of_the_test_split_by_trials_of_the_cache_are_on_record(searched: Run, tmp_path: Path) -> None:
    from ablate.cache import Cache

    lines = "objectives: {val.accuracy: maximize}\nsampler: {name: random}\nbudget: {trials: 2}\n"
    cache = Cache(tmp_path / "cache")
    searched(lines, "one", cache=cache)
    other = searched(lines, "other", cache=cache)
    assert len(other.exposures()) == sum(result["test_readings"] for result in other.results().values()) == 2
    assert {exposure["by"] for exposure in other.exposures()} == {"cache"}
