"""What papers claim, beside what trials say: verdicts with amounts, order, budgets, and ``report --strict``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.multitest import multipletests

from ablate import stats
from ablate.analysis.arms import Arm, arms_of
from ablate.analysis.order import ALPHA, Ordered, orders_of, paired_t_p, pairs_of
from ablate.analysis.papers import Judged, Published, judge, judged, seeds_to_tell
from ablate.cli import main
from ablate.report import ablation_table
from ablate.report.claims import broken_claims, order_table, order_text, orders, verdicts
from ablate.report.papers import verdict_note, verdict_text
from ablate.store import Study
from tests.tabled import build

PAPER = {"title": "P", "table": 3, "metric": "test.accuracy", "values": {"a": 91.0, "b": 92.0, "c": 91.5}}
METRIC = "test.accuracy"


def arm(name: str, values: Sequence[float], **record: Any) -> Arm:
    results = {
        str(seed): {"status": "finished", "metrics": {METRIC: float(value)}} for seed, value in enumerate(values)
    }
    return Arm(name, {"name": name, **record}, results)


def claim(values: Sequence[float], published: float, plus_minus: float = 0.0, **more: Any) -> Judged:
    return judge(Published("P", METRIC, {"a": (published, plus_minus)}, **more), arm("a", values))


# ---- values ----


def test_a_value_that_differs_says_by_how_much_and_how_far_outside() -> None:
    found = claim([90.0, 91.0, 92.0], 85.0)
    half = scipy_stats.t.ppf(0.975, 2) * math.sqrt(1 + 1 / 3)
    assert found.verdict == "differs"
    assert found.broken
    assert found.off == pytest.approx(6.0)
    assert found.beyond == pytest.approx(91.0 - half - 85.0)
    assert verdict_text(found) == "differs (+6.00)"
    assert "the published value is 0.26 below it" not in verdict_note(found)
    assert f"the published value is {91.0 - half - 85.0:.2f} below it" in verdict_note(found)


def test_the_papers_own_plus_minus_widens_the_interval() -> None:
    narrow, wide = claim([90.0, 91.0, 92.0], 85.0), claim([90.0, 91.0, 92.0], 85.0, 1.3)
    assert narrow.interval is not None
    assert wide.interval == pytest.approx((narrow.interval.low - 1.3, narrow.interval.high + 1.3))
    assert (narrow.verdict, wide.verdict) == ("differs", "reproduced")
    entry = {"title": "P", "metric": METRIC, "values": {"a": 85.0}, "plus_minus": {"a": 1.3}}
    assert Published.read(entry).values == {"a": (85.0, 1.3)}


def test_with_too_few_seeds_it_says_how_many_would_tell() -> None:
    found = claim([90.0, 91.0], 88.0)
    assert found.verdict == "inconclusive"
    assert found.seeds is not None
    assert f"{found.seeds} seeds would tell the published value apart" in verdict_note(found)
    assert "a verdict takes 3" in verdict_note(found)
    one = claim([90.0], 88.0)
    assert (one.verdict, one.seeds, verdict_note(one)) == (
        "inconclusive",
        None,
        "one seed has no spread: a verdict takes 3",
    )
    assert verdict_note(claim([90.0, 90.0, 90.0], 91.0)) == "every seed gave the same value"


@pytest.mark.parametrize(("sd", "off", "plus_minus"), [(0.3, 1.0, 0.0), (0.3, 0.62, 0.0), (0.2, -0.9, 0.4), (1, 9, 0)])
def test_seeds_to_tell_is_the_least_number_whose_prediction_interval_is_narrower(
    sd: float, off: float, plus_minus: float
) -> None:
    found = next(
        n for n in range(3, 1000) if scipy_stats.t.ppf(0.975, n - 1) * sd * math.sqrt(1 + 1 / n) + plus_minus < abs(off)
    )
    assert seeds_to_tell(sd, off, plus_minus) == found


def test_no_number_of_seeds_tells_what_lies_within_the_spread_of_single_runs() -> None:
    assert seeds_to_tell(1.0, 1.9) is None
    assert seeds_to_tell(0.0, 1.9) is None
    note = verdict_note(claim([90.0, 91.0, 92.0], 91.5))
    assert "as near as single runs are to one another" in note


def test_on_another_budget_no_trained_value_is_judged_and_costs_are() -> None:
    paper = Published("P", METRIC, {"a": (85.0, 0.0)}, budget="profile cpu")
    found = judge(paper, arm("a", [90.0, 91.0, 92.0]))
    assert (found.verdict, found.measured, verdict_note(found)) == ("not run", 91.0, "profile cpu: another budget")
    costs = Published("P", "params", {"a": (270e3, 0.0)}, printed_to=1e4, budget="profile cpu")
    assert judge(costs, arm("a", [], cost={"params": 269_722})).verdict == "reproduced"


def test_the_costs_of_a_network_that_a_profile_has_narrowed_are_not_the_papers() -> None:
    costs = Published("P", "params", {"a": (270e3, 0.0)}, not_reproducible={"a": "since"})
    found = judge(costs, arm("a", [], cost={"params": 20_000}, resized_by="--profile cpu"))
    assert (found.verdict, found.why) == ("not run", "--profile cpu changes what it is about")


# ---- order ----


def test_pairs_are_those_that_the_paper_sets_apart() -> None:
    paper = Published("P", METRIC, {"a": (91.0, 0.3), "b": (92.0, 0.4), "c": (91.0, 0.0), "d": (91.2, 0.3)})
    assert [pair[:2] for pair in pairs_of(paper)] == [("b", "a"), ("b", "c"), ("b", "d")]
    assert [pair[2] for pair in pairs_of(paper)] == pytest.approx([1.0, 1.0, 0.8])
    ranked = Published("P", METRIC, {}, order=[["c", "a", "b"]])
    assert pairs_of(ranked) == [("c", "a", None), ("c", "b", None), ("a", "b", None)]


def test_p_is_that_of_the_paired_t_test() -> None:
    draws = np.random.default_rng(0)
    for n in (2, 3, 7):
        a, b = draws.normal(90, 1, n), draws.normal(90.5, 1, n)
        difference = stats.paired_difference(dict(enumerate(a)), dict(enumerate(b)))
        assert paired_t_p(difference) == pytest.approx(scipy_stats.ttest_rel(a, b).pvalue)
    assert paired_t_p(stats.paired_difference({0: 1.0}, {0: 2.0})) is None
    assert paired_t_p(stats.paired_difference({0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.0})) is None


def power(n: int, effect: float, alpha: float) -> float:
    critical, shift = scipy_stats.t.ppf(1 - alpha / 2, n - 1), effect * math.sqrt(n)
    return float(scipy_stats.nct.sf(critical, n - 1, shift) + scipy_stats.nct.cdf(-critical, n - 1, shift))


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 6])
def test_what_could_have_been_found_has_power_80_percent(alpha: float) -> None:
    for n in (5, 10, 50):
        assert power(n, stats.detectable_difference(1.0, n, alpha) or 0.0, alpha) == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize(("effect", "alpha"), [(2.0, 0.05), (0.7, 0.05), (0.4, 0.01), (0.15, 0.05)])
def test_the_seeds_that_are_needed_are_the_fewest_with_that_power(effect: float, alpha: float) -> None:
    n = stats.seeds_to_detect(1.0, effect, alpha)
    assert n is not None
    assert power(n, effect, alpha) >= 0.8 - 1e-4 > power(n - 1, effect, alpha) - 1e-4
    assert abs(n - next(m for m in range(2, 1000) if power(m, effect, alpha) >= 0.8)) <= (n > 200)


def test_few_seeds_of_a_tiny_level_and_more_than_anyone_trains() -> None:
    assert stats.seeds_to_detect(1.0, (stats.detectable_difference(1.0, 2, 1e-4) or 0.0) * 1.0001, 1e-4) == 2
    assert stats.seeds_to_detect(1.0, 0.01, 0.05) is None


def found_in(values: Mapping[str, Sequence[float]], published: Mapping[str, float] | None = None) -> list[Ordered]:
    entry = {**PAPER, "values": dict(published)} if published else PAPER
    return orders_of([Published.read(entry)], [arm(name, row) for name, row in values.items()])


def test_each_pair_is_borne_out_or_differs_or_cannot_be_told() -> None:
    noise = np.array([0.02, -0.03, 0.01, 0.0])
    found = found_in({"a": 60 + noise, "b": 50 - noise, "c": 60 + noise[::-1]})
    by_pair = {(each.above, each.below): each for each in found}
    assert [by_pair[pair].verdict for pair in (("b", "a"), ("c", "a"), ("b", "c"))] == [
        "differs",
        "cannot be told",
        "differs",
    ]
    assert [each.broken for each in found].count(True) == 2
    ps = [scipy_stats.ttest_rel(*pair).pvalue for pair in _pairs_of_rows(found, {"a": 60 + noise, "b": 50 - noise})]
    assert ps == pytest.approx([by_pair["b", "a"].p])
    adjusted = multipletests([each.p for each in found], method="holm")[1]
    assert [each.p_holm for each in found] == pytest.approx(list(adjusted))
    rest = by_pair["c", "a"]
    assert rest.difference.sd is not None
    assert rest.detectable == pytest.approx(stats.detectable_difference(rest.difference.sd, 4, ALPHA / 3))
    assert rest.seeds == stats.seeds_to_detect(rest.difference.sd, 0.5, ALPHA / 3)


def _pairs_of_rows(found: Sequence[Ordered], rows: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    return [(rows[each.above], rows[each.below]) for each in found if {each.above, each.below} <= rows.keys()]


def test_one_seed_equal_differences_and_no_run_are_told_apart_in_words() -> None:
    assert {(each.verdict, each.why) for each in found_in({"a": [1.0], "b": [2.0], "c": [3.0]})} == {
        ("cannot be told", "one seed")
    }
    same = found_in({"a": [1.0, 2.0], "b": [2.0, 3.0]})
    assert [(each.verdict, each.why) for each in same] == [
        ("cannot be told", "every seed gave the same difference"),
        ("not run", "no seed that both have"),
        ("not run", "no seed that both have"),
    ]


def test_models_that_do_not_differ_are_ordered_in_one_study_of_twenty_at_most() -> None:
    """Without Holm it is 24% here."""
    draws = np.random.default_rng(1)
    paper, told, studies = Published("P", METRIC, {}, order=["abcd"]), 0, 400
    for _ in range(studies):
        found = orders_of([paper], [arm(name, draws.normal(90, 0.5, 4)) for name in "abcd"])
        told += any(each.verdict in ("borne out", "differs") for each in found)
    assert told / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


# ---- a study ----


def study_of(folder: Path, rows: Mapping[str, Sequence[float | None]], **spec: Any) -> Study:
    trials = {
        name: {str(seed): f"{ord(name):02x}{seed:030x}" for seed in range(len(row))} for name, row in rows.items()
    }
    variants = [
        {"name": name, "levels": {}, "baseline": None if name == "a" else "a", "trials": hashes, "cost": {"params": 99}}
        for name, hashes in trials.items()
    ]
    whole = {"name": "s", "train": {"epochs": 2}, "ablation": {"seeds": 3}, "report": {"columns": [METRIC]}}
    study = Study.create(folder / "s", whole | {"paper": [PAPER]} | spec, variants, {})
    for name, row in rows.items():
        for seed, value in enumerate(row):
            if value is not None:
                hash = trials[name][str(seed)]
                study.begin({"hash": hash, "variant": name, "seed": seed})
                study.finish(hash, _result(value))
    return study


def _result(value: float) -> dict[str, Any]:
    about = {"epochs": 2, "selected_epoch": 2, "seconds": 1.0, "images_per_second": 1.0, "test_readings": 1}
    return {"status": "finished", "metrics": {METRIC: value}, "error": None, **about}


SOUND = {"a": [90.9, 91.1, 91.0, 91.1], "b": [91.9, 92.1, 92.1, 92.0], "c": [91.4, 91.6, 91.5, 91.7]}
TURNED = {"a": [90.9, 91.1, 91.0, 91.1], "b": [80.1, 80.3, 80.2, 80.1], "c": [91.4, 91.6, 91.5, 91.7]}


def test_strict_fails_on_a_broken_claim_alone_and_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound, turned = (study_of(tmp_path / name, rows) for name, rows in (("1", SOUND), ("2", TURNED)))
    assert [each.verdict for each in verdicts(sound, arms_of(sound))] == ["reproduced"] * 3
    assert main(["report", str(sound.folder), "--json", "--strict"]) == 0
    assert "broken" not in capsys.readouterr().err
    assert main(["report", str(turned.folder), "--json"]) == 0
    assert main(["report", str(turned.folder), "--json", "--strict"]) == 1
    said = capsys.readouterr().err
    assert "broken: P Table 3: test.accuracy of b is 92.00 there and 80.17 here" in said
    assert "broken: P Table 3: b has the higher test.accuracy there; here a has it, by 10.85" in said


def test_strict_says_how_much_could_not_be_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paper = {"title": "P", "metric": "test.accuracy", "values": {"none": 96.0, "a": 97.0}}
    study = build(tmp_path, {"none": [97.0], "a": [None]}, {"paper": [paper]})
    assert main(["report", str(study.folder), "--strict"]) == 1  # a trial is missing
    err = capsys.readouterr().err
    assert "not judged: 2 of 2 values (2 hidden until the study is complete)" in err
    assert "1 of 1 pairs in order (1 hidden until the study is complete)" in err


def test_a_value_that_no_network_could_have_breaks_no_claim(tmp_path: Path) -> None:
    paper = {"title": "P", "metric": "params", "values": {"a": 98}, "not_reproducible": {"a": "a gate adds"}}
    assert broken_claims(study_of(tmp_path / "1", SOUND, paper=[paper])) == []
    del paper["not_reproducible"]
    assert broken_claims(study_of(tmp_path / "2", SOUND, paper=[paper])) == ["P: params of a is 98 there and 99 here"]


def test_under_a_profile_the_order_alone_is_asked_and_the_budget_is_said(tmp_path: Path) -> None:
    study = study_of(tmp_path, TURNED, profile="cpu")
    assert {each.verdict for each in verdicts(study, arms_of(study))} == {"not run"}
    assert [each.verdict for each in orders(study, arms_of(study))] == ["differs", "borne out", "differs"]
    assert [text.endswith("(profile cpu: another budget)") for text in broken_claims(study)] == [True, True]
    table = order_table(study, arms_of(study))
    assert table is not None
    assert "another budget than the paper's (profile cpu)" in table.caption
    shown = ablation_table(study)
    assert {cell.text for cell in shown.column("verdict")} == {"not run"}
    assert {cell.note for cell in shown.column("verdict")} == {"profile cpu: another budget"}


def test_the_profile_paper_has_the_papers_budget(tmp_path: Path) -> None:
    study = study_of(tmp_path, SOUND, profile="paper")
    assert {each.verdict for each in verdicts(study, arms_of(study))} == {"reproduced"}


def test_the_order_is_a_table_of_numbers(tmp_path: Path) -> None:
    study = study_of(tmp_path, SOUND)
    table = order_table(study, arms_of(study))
    assert table is not None
    assert [cell.text for cell in table.column("higher in the paper")] == ["b", "c", "b"]
    assert [cell.value for cell in table.column("published Δ")] == pytest.approx([1.0, 0.5, 0.5])
    assert table.column("measured Δ")[0].value == pytest.approx(1.0)
    assert [cell.text for cell in table.column("order")] == ["borne out"] * 3
    assert order_text(study, orders(study, arms_of(study))) == "Of 3 pairs that the paper sets apart, 3 are borne out."


def test_nothing_of_the_test_split_is_said_before_the_last_trial(tmp_path: Path) -> None:
    study = study_of(tmp_path, {**TURNED, "c": [91.4, 91.6, None, 91.7]})
    assert verdicts(study, arms_of(study)) == []
    assert order_table(study, arms_of(study)) is None
    assert broken_claims(study) == []


def test_judged_goes_by_the_order_of_the_spec() -> None:
    found = judged([Published.read(PAPER)], [arm(name, row) for name, row in reversed(SOUND.items())])
    assert [each.variant for each in found] == ["a", "b", "c"]
