"""Seeds until the intervals are narrow: rounds of a sweep over made-up results, and what is said of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from ablate import describe
from ablate.analysis.arms import Arm, arms_of
from ablate.analysis.widths import Until, look
from ablate.design import search_plan, study_plan
from ablate.driving import Driver, Policy
from ablate.errors import UserError
from ablate.events import Event
from ablate.execute import Work
from ablate.prepare import Prepared, prepare, variant_records, with_seeds
from ablate.progress import Progress, sentence
from ablate.report import ablation_table
from ablate.spec import load
from ablate.store import INDEX, Study, seeds_of
from ablate.sweeping import _seeds_to_add, sweep
from tests.stores import RESULT, rows

SPEC = """\
name: tiny
data: {name: fake, shape: [3, 5, 7], classes: 3, count: {train: 12, test: 5}, val: 0.25}
train: {epochs: 1, batch_size: 4, precision: fp32, optimizer: {name: sgd, lr: 0.05}}
network:
  graph:
    stem: {block: conv_bn_act, width: 4, kernel: 3}
    body: {block: conv_bn_act, width: 4, kernel: 3}
    head: {block: classifier}
  insert:
    attention: {block: se, reduction: 2, at: after body}
execution: {threads: 1}
ablation:
  seeds: 2
  baseline: {attention: none}
  factors:
    attention:
      none: {network.insert.attention: null}
      se: {}
      between: {network.insert.attention.at: after stem}
"""
VARIANTS = ("none", "se", "between")
UNTIL = "ablation.until={metric: val.accuracy, half_width: 0.9, first: 3, add: 2, most: 12}"
AUTO = ["ablation.seeds=auto", UNTIL]
Values = Callable[[str, int], float | None]
"""Variant and seed → accuracy; None: the trial crashes."""


def noisy(variant: str, seed: int) -> float:
    return 90 + float(np.random.default_rng([VARIANTS.index(variant), seed]).normal())


def steady(variant: str, seed: int) -> float:
    return 90 + 0.001 * seed * VARIANTS.index(variant)


class CutOff(BaseException):
    """A process that ends here, whatever would catch it."""


class Log(Progress):
    """Remembers, and ends the process at the ``at``-th event of a kind."""

    def __init__(self, kind: str = "", at: int = 0) -> None:
        self.events: list[Event] = []
        self.kind, self.at = kind, at

    def tell(self, event: Event) -> None:
        self.events.append(event)
        if event["event"] == self.kind and len(self.of(self.kind)) == self.at:
            raise CutOff

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["event"] == kind]

    @property
    def looks(self) -> list[tuple[int, int]]:
        return [(event["seeds"], event["more"]) for event in self.of("seeds")]


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(SPEC)
    return path


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The study with three seeds to begin with, certified once for all tests."""
    path = tmp_path_factory.mktemp("spec") / "tiny.yaml"
    path.write_text(SPEC)
    return prepare(study_plan(load(path, sets=AUTO)), folder=path.parent / "nowhere", concurrent=1, measure=False)


@pytest.fixture
def swept(once: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Study]:
    """Sweeps it with made-up results, as if nothing but a folder were left of what went before."""

    def run(
        values: Values,
        *,
        log: Log | None = None,
        until: Mapping[str, Any] | None = None,
        budget: float | None = None,
        **options: Any,
    ) -> Study:
        def pretend(driver: Driver, work: Work, executor: str, beforehand: None = None) -> None:
            while not driver.over and (attempt := driver.next()):
                trial = attempt.trial
                driver.study.begin({"hash": trial.hash, "variant": trial.variant, "seed": trial.seed})
                driver.started(attempt)
                value = values(trial.variant, trial.seed)
                error = {"type": "E", "message": "m", "traceback": ""}
                ended = {"metrics": {"val.accuracy": value}} if value is not None else {}
                crashed = {"status": "crashed", "metrics": {}, "error": error} if value is None else {}
                driver.ended(attempt, {**RESULT, **ended, **crashed, "test_readings": 0})

        monkeypatch.setattr("ablate.sweeping.run", pretend)
        monkeypatch.setattr("ablate.prepare.diagrams_of", lambda variants: {})
        seeds = seeds_of(tmp_path / "s") or [0, 1, 2]
        section = {**once.plan.tree["ablation"]["until"], **(until or {})}
        tree = {**once.plan.tree, "ablation": {**once.plan.tree["ablation"], "until": section}}
        prepared = with_tree(once, tree, seeds, tmp_path / "s")
        execution = prepared.plan.execution.model_copy(update={"budget": budget})
        prepared = replace(prepared, plan=replace(prepared.plan, execution=execution))
        return sweep(prepared, executor="local", progress=log, **options)

    return run


def with_tree(once: Prepared, tree: Mapping[str, Any], seeds: list[int], folder: Path) -> Prepared:
    plan = replace(once.plan, tree=type(once.plan.tree)(tree))
    return with_seeds(replace(once, plan=plan, folder=folder), seeds)


def seeds_in(study: Study) -> list[list[str]]:
    return [list(record["trials"]) for record in Study.open(study.folder).variants]


def expected(values: Callable[[str, int], float], half_width: float = 0.9) -> int:
    """How many seeds the rule comes to, by scipy, with no code of ours."""
    for n in (3, 5, 7, 9, 11, 12):
        halves = []
        for variant in VARIANTS[1:]:
            differences = [values(variant, seed) - values("none", seed) for seed in range(n)]
            low, high = scipy_stats.t.interval(0.95, n - 1, 0, scipy_stats.sem(differences))
            halves.append((high - low) / 2)
        if max(halves) <= half_width:
            return n
    return 12


def test_seeds_are_added_until_every_interval_is_narrow(swept: Callable[..., Study]) -> None:
    log = Log()
    study = swept(noisy, log=log)
    n = expected(noisy)
    assert 3 < n < 12  # else this shows nothing
    assert seeds_in(study) == [[str(seed) for seed in range(n)]] * 3
    assert len(study.results()) == 3 * n
    assert rows(study.folder / INDEX, "SELECT COUNT(*) FROM variants") == [(3 * n,)]
    assert log.looks == [(k, 2 if k < n else 0) for k in range(3, n + 1, 2)]
    assert log.events[-1]["event"] == "seeds"
    assert [event["kept"] for event in log.of("sweep")] == [3 * k for k in (0, *range(3, n - 1, 2))]


def test_narrow_intervals_at_the_first_look_add_nothing(swept: Callable[..., Study]) -> None:
    log = Log()
    assert seeds_in(swept(steady, log=log)) == [["0", "1", "2"]] * 3
    assert log.looks == [(3, 0)]


def test_where_zero_lies_moves_nothing(swept: Callable[..., Study], tmp_path: Path) -> None:
    far = swept(lambda variant, seed: noisy(variant, seed) + 64.0 * (variant == "se"))
    assert len(seeds_in(far)[0]) == expected(noisy)


def test_the_most_seeds_end_it_with_what_is_left_to_them(swept: Callable[..., Study]) -> None:
    log = Log()
    study = swept(lambda variant, seed: 100 * noisy(variant, seed) % 90, log=log, until={"half_width": 1e-6})
    assert log.looks == [(3, 2), (5, 2), (7, 2), (9, 2), (11, 1), (12, 0)]
    assert len(seeds_in(study)[0]) == 12
    assert "none is added" in log.events[-1]["message"]


def test_the_study_stays_held_between_rounds(swept: Callable[..., Study], tmp_path: Path) -> None:
    holders = []

    class Asking(Log):
        def tell(self, event: Event) -> None:
            super().tell(event)
            if event["event"] in ("seeds", "over"):
                holders.append(Study.open(tmp_path / "s").in_use())

    swept(noisy, log=Asking())
    assert len(holders) > 2
    assert all(holders)


CUTS = [("ended", 4), ("seeds", 1), ("sweep", 2), ("ended", 11)]
"""Amid the first round; after it; after seeds were added; amid the second round."""


@pytest.mark.parametrize(("kind", "at"), CUTS)
def test_a_sweep_that_was_killed_comes_to_the_same_seeds(swept: Callable[..., Study], kind: str, at: int) -> None:
    with pytest.raises(CutOff):
        swept(noisy, log=Log(kind, at))
    log = Log()
    study = swept(noisy, log=log)
    n = expected(noisy)
    assert seeds_in(study) == [[str(seed) for seed in range(n)]] * 3
    assert len(study.results()) == 3 * n
    assert {state.status for state in Study.open(study.folder).states().values()} == {"finished"}


def test_seeds_that_a_study_has_stay_in_it(swept: Callable[..., Study], tmp_path: Path) -> None:
    n = expected(noisy)
    swept(noisy)
    log = Log()
    study = swept(noisy, log=log, until={"half_width": 50.0, "most": 4})
    assert (log.looks, log.of("started"), len(seeds_in(study)[0])) == ([(n, 0)], [], n)
    narrower = swept(noisy, until={"half_width": 0.01})
    assert len(seeds_in(narrower)[0]) == 12


def test_a_study_of_stated_seeds_goes_on_by_the_rule(once: Prepared, tmp_path: Path) -> None:
    ablation = {**once.plan.tree["ablation"], "seeds": [7, 11]}
    del ablation["until"]
    records = variant_records(with_seeds(once, [7, 11]))
    Study.create(tmp_path / "s", {**once.plan.tree, "ablation": ablation}, records, {})
    onwards = prepare(once.plan, folder=tmp_path / "s", concurrent=1, measure=False)
    assert onwards.plan.seeds == [7, 11, 0]
    assert onwards.plan.possible_seeds == [7, 11, *range(7), 8, 9, 10]
    Study.create(tmp_path / "s", onwards.plan.tree, variant_records(onwards), {})
    with pytest.raises(UserError, match="begun with seed 0 too: seeds can be added, not taken away"):
        Study.create(tmp_path / "s", {**once.plan.tree, "ablation": ablation}, records, {})


def test_a_variant_that_always_fails_is_left_out_and_named(swept: Callable[..., Study]) -> None:
    log = Log()
    study = swept(lambda variant, seed: None if variant == "se" else steady(variant, seed), log=log)
    assert log.looks == [(3, 0)]
    assert "no trial of se has a value" in log.events[-1]["message"]
    assert "no trial of se has a value" in ablation_table(study).caption


def test_a_baseline_that_always_fails_ends_it(swept: Callable[..., Study]) -> None:
    log = Log()
    swept(lambda variant, seed: None if variant == "none" else noisy(variant, seed), log=log)
    assert log.looks == [(3, 0)]
    assert "no interval on val.accuracy can be looked at" in log.events[-1]["message"]


def test_only_seeds_that_both_finished_count(swept: Callable[..., Study]) -> None:
    def late(variant: str, seed: int) -> float | None:
        return None if variant == "se" and seed < 2 else steady(variant, seed)

    log = Log()
    swept(late, log=log, retry_failed=True)
    assert log.looks == [(3, 2), (5, 0)]
    assert "se − none has no interval, with 1 finished in common" in log.of("seeds")[0]["message"]
    again = Log()
    swept(late, log=again, retry_failed=True, until={"half_width": 1e-6, "most": 7})
    assert again.looks == [(5, 2), (7, 0)]
    # what failed is repeated once in a call, and not in each of its rounds
    assert [(event["variant"], event["seed"]) for event in again.of("started")][:2] == [("se", 0), ("se", 1)]
    assert [event["seed"] for event in again.of("started")].count(0) == 1


def test_the_budget_of_the_whole_sweep_ends_it(swept: Callable[..., Study], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count(0.0, 101.0)
    monkeypatch.setattr("ablate.sweeping.monotonic", lambda: next(clock))
    log = Log()
    study = swept(noisy, log=log, budget=100.0)
    assert log.looks == [(3, 0)]
    assert log.events[-1]["message"].endswith("; execution.budget is over")
    assert {state.status for state in study.states().values()} == {"finished"}  # no seed was begun that can't end
    assert "so far" in ablation_table(study).caption
    monkeypatch.setattr("ablate.sweeping.monotonic", lambda: 0.0)
    assert len(seeds_in(swept(noisy, budget=100.0))[0]) == expected(noisy)


def test_a_budget_that_ends_a_round_is_said(swept: Callable[..., Study], once: Prepared, tmp_path: Path) -> None:
    """The driver itself stopped, and trials of the round may lack a result."""
    study = swept(noisy, until={"half_width": 1e-6, "most": 5})
    section = {**once.plan.tree["ablation"]["until"], "half_width": 1e-6}
    tree = {**once.plan.tree, "ablation": {**once.plan.tree["ablation"], "until": section}}
    log = Log()
    driver = Driver([], study, log.tell, Policy())
    driver.stop("budget")
    assert _seeds_to_add(study, with_tree(once, tree, [0, 1, 2, 3, 4], tmp_path / "s"), driver, Policy()) == []
    assert log.of("seeds")[0]["message"].endswith("; execution.budget is over")
    interrupted = Driver([], study, log.tell, Policy())
    interrupted.stop("interrupted")
    assert _seeds_to_add(study, with_tree(once, tree, [0], tmp_path / "s"), interrupted, Policy()) == []
    assert len(log.of("seeds")) == 1


def arm(name: str, values: Mapping[int, float | None], baseline: str | None = None, **record: Any) -> Arm:
    results = {
        str(seed): {"status": "finished", "metrics": {"val.loss": value}} if value is not None else None
        for seed, value in values.items()
    }
    trials = {seed: f"{name}{seed}" for seed in results}
    return Arm(name, {"baseline": baseline, "trials": trials, **record}, results)


def test_widths_are_scipys_t_intervals(rng: np.random.Generator) -> None:
    until = Until("val.loss", 0.5, 2, 2, 9)
    a, b = rng.normal(size=(2, 5))
    base, other = arm("a", dict(enumerate(a))), arm("b", dict(enumerate(b)), "a")
    (found,) = look(until, [base, other]).widths
    low, high = scipy_stats.ttest_rel(b, a).confidence_interval(0.95)
    assert found.half_width == pytest.approx((high - low) / 2)
    assert (found.name, found.n) == ("b − a", 5)
    means = look(until, [base, replace(other, record={**other.record, "baseline": None})]).widths
    for each, values in zip(means, (a, b), strict=True):
        low, high = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
        assert each.baseline is None
        assert each.half_width == pytest.approx((high - low) / 2)


def test_pairs_are_of_common_seeds_and_trials_of_their_own() -> None:
    until = Until("val.loss", 0.5, 2, 3, 9)
    base = arm("a", {0: 1.0, 1: None, 2: math.nan, 3: 2.0})
    same = replace(base, name="same", record={**base.record, "baseline": "a"})
    other = arm("b", {0: None, 1: 4.0, 2: 5.0, 3: 6.0}, "a")
    found = look(until, [base, same, other])
    assert [(each.name, each.n, each.half_width) for each in found.widths] == [("b − a", 1, None)]
    assert (found.more, found.reached) == (3, False)
    nothing = look(until, [base, arm("c", {0: None, 1: None, 2: None, 3: None}, "a")])
    assert (nothing.widths, nothing.without, nothing.more, nothing.reached) == ((), ("c",), 0, False)


REFUSED = {
    "'auto' needs ablation.until": ["ablation.seeds=auto"],
    "ablation.until: unused: it is for seeds: auto": [UNTIL],
    "half_width": [*AUTO, "ablation.until.half_width=0"],
    "ablation.until.first": [*AUTO, "ablation.until.first=2"],
    "ablation.until.add": [*AUTO, "ablation.until.add=0"],
    "at most 3 seeds are fewer than the first 4": [*AUTO, "ablation.until.most=3", "ablation.until.first=4"],
    "at most 20 seeds are fewer than the first 21": [
        AUTO[0],
        "ablation.until={metric: val.loss, half_width: 1, first: 21}",
    ],
    "ablation.until.metric": [*AUTO, "ablation.until.metric=seconds"],
    "goes by the width of t-intervals": [*AUTO, "report.interval=bootstrap"],
    "'val.accuracy' needs a validation split": [*AUTO, "data.val=null", "report.columns=[test.accuracy]"],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_makes_no_rule_is_refused(spec: Path, message: str) -> None:
    with pytest.raises(UserError) as refused:
        study_plan(load(spec, sets=REFUSED[message]))
    assert message in str(refused.value)
    assert len(refused.value.problems) == 1


def test_a_profile_can_state_the_seeds_instead(spec: Path) -> None:
    spec.write_text(
        SPEC.replace("seeds: 2", "seeds: auto\n  until: {metric: test.loss, half_width: 1}")
        + "profiles: {one: {ablation.seeds: 1, ablation.until: null}, few: {ablation.until.most: 7}}\n"
    )
    plans = {name: study_plan(load(spec, profile=name)) for name in (None, "one", "few")}
    assert {name: (plan.seeds, len(plan.possible_seeds)) for name, plan in plans.items()} == {
        None: ([0, 1, 2, 3, 4], 20),
        "one": ([0], 1),
        "few": ([0, 1, 2, 3, 4], 7),
    }
    assert Until.of(plans["few"].tree) == Until("test.loss", 1.0, 5, 2, 7)
    assert Until.of(plans["one"].tree) is None


def test_a_search_takes_the_first_seed(spec: Path) -> None:
    assert search_plan(load(spec, sets=AUTO), {}, 3).seeds == [0]


def test_plan_and_caption_say_the_rule(once: Prepared, swept: Callable[..., Study]) -> None:
    notes = " ".join(describe.plan(once).footnotes)
    rule = (
        "Seeds by rule (seeds: auto): 3, and 2 more at a time up to 12, while the 95% interval of every difference to "
        "the baseline on val.accuracy is not within ±0.9 points. Only widths are looked at, never where zero lies"
    )
    assert f"{rule}. That is 9 trials of 3 seeds to begin with, and at most 36 trials of 12 seeds." in notes
    assert "With the most, 12 seeds: the smallest p" in notes
    study = swept(noisy)
    n = expected(noisy)
    assert f"{n} seeds: within ±0.9 points: the widest interval, " in (said := ablation_table(study).caption)
    assert rule in said
    found = look(Until.of(study.spec) or pytest.fail("stated"), arms_of(study)).widest
    assert found is not None
    assert f"{found.name}, is ±{found.half_width:.3g}" in said


def test_a_rule_on_the_test_split_says_that_it_favours_nothing(once: Prepared) -> None:
    until = {**once.plan.tree["ablation"]["until"], "metric": "test.accuracy"}
    tree = {**once.plan.tree, "ablation": {**once.plan.tree["ablation"], "until": until}}
    notes = " ".join(describe.plan(with_tree(once, tree, [0, 1, 2], once.folder)).footnotes)
    assert "so that reading the test split for it favours no variant" in notes


def test_progress_has_a_line_for_it() -> None:
    assert sentence({"event": "seeds", "message": "5 seeds: within\x1b[2J"}) == ("seeds", "5 seeds: within�[2J")
