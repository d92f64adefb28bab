"""Comparisons: paired, unpaired, corrected, over images; controls, ladders and grids; what is shown in bold."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as reference

from ablate import stats
from ablate.analysis.arms import arms_of
from ablate.analysis.comparisons import Comparison, best_of, compared_metric, comparisons_of
from ablate.analysis.effects import effects_of
from ablate.report import ablation_table, write_report
from ablate.report.compared import comparison_tables, effects_tables
from ablate.report.render import render
from ablate.store import Study
from tests.tabled import Make, build, result

VAL = "val.accuracy"
VALUES = {
    "none": [97.0, 96.1, 98.2, 96.4, 97.9],
    "a": [97.5, 96.7, 98.4, 96.2, 98.8],
    "b": [95.5, 95.7, 97.4, 96.9, 96.8],
}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    numbers = itertools.count()
    return lambda *given, **more: build(tmp_path / str(next(numbers)), *given, **more)


def compared(study: Study, metric: str = VAL) -> list[Comparison]:
    return comparisons_of(study, metric, arms_of(study))


def test_a_comparison_is_what_scipy_says_of_the_same_values(make: Make) -> None:
    a, b = compared(make(VALUES))
    none, ours = VALUES["none"], VALUES["a"]
    paired = reference.ttest_rel(ours, none).confidence_interval(0.95)
    assert a.paired.interval == pytest.approx((paired.low, paired.high))
    unpaired = reference.ttest_ind(ours, none, equal_var=False).confidence_interval(0.95)
    assert a.unpaired.interval == pytest.approx((unpaired.low, unpaired.high))
    flips = reference.permutation_test(
        (np.subtract(ours, none),), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert a.p == pytest.approx(flips.pvalue)
    assert a.correlation == pytest.approx(reference.pearsonr(ours, none).statistic)
    assert a.pairing == pytest.approx((paired.high - paired.low) / (unpaired.high - unpaired.low))
    assert a.pairing is not None
    assert a.pairing < 1  # seeds go together here, so pairing saves
    assert a.detectable == stats.detectable_difference(float(np.std(np.subtract(ours, none), ddof=1)), 5)
    assert [each.p_holm for each in (a, b)] == stats.holm([a.p or 0.0, b.p or 0.0])
    assert a.smallest_p == stats.smallest_p(5, 2)


def test_what_failed_makes_holms_correction_no_milder(make: Make) -> None:
    found = compared(make({"none": [97.0, 96.0], "a": [97.5, 97.0], "gone": ["crashed", "crashed"]}))
    assert [(each.variant, each.p, each.p_holm) for each in found] == [("a", 0.5, 1.0), ("gone", None, None)]
    assert found[1].paired.mean is None


def test_one_network_under_two_names_is_tested_once(make: Make) -> None:
    twin = {"trials": {str(seed): f"{1_000 + seed:032x}" for seed in range(5)}, "duplicate_of": "a"}
    study = make({**VALUES, "twin": VALUES["a"]}, more={"twin": twin})
    a, b, again = compared(study)
    assert [each.p_holm for each in (a, b)] == stats.holm([a.p or 0.0, b.p or 0.0])
    assert (again.p_holm, again.among, again.smallest_p) == (a.p_holm, 2, stats.smallest_p(5, 2))
    table = comparison_tables(study, [a, b, again])["comparisons"]
    assert "Holm's correction over 2." in table.caption


def test_what_shares_its_trials_with_the_baseline_is_not_compared(make: Make) -> None:
    study = make({"none": [97.0], "again": [97.0]}, more={"again": {"trials": {"0": f"{0:032x}"}}})
    assert compared(study) == []


def test_the_images_interval_is_that_of_their_differences_over_the_seeds(make: Make) -> None:
    random = np.random.default_rng(3)
    right = {name: [random.random(401) < rate for _ in range(3)] for name, rate in (("none", 0.7), ("a", 0.8))}
    study = make({"none": [70.0] * 3, "a": [80.0, 81.0, 80.5]}, correct=right)
    (found,) = compared(study, "test.accuracy")
    per_image = 100 * (np.mean(right["a"], axis=0) - np.mean(right["none"], axis=0))
    assert found.examples == stats.example_interval(per_image)
    (error,) = compared(study, "test.error")
    assert error.examples is None  # no test.error was measured, so there are no seeds
    assert compared(study)[0].examples is None  # of val there are no predictions


def test_predictions_of_other_images_or_altered_ones_make_no_interval(make: Make) -> None:
    right = {"none": [np.ones(7, bool)], "a": [np.ones(8, bool)]}
    study = make({"none": [70.0], "a": [80.0]}, correct=right)
    assert compared(study, "test.accuracy")[0].examples is None
    right["a"] = [np.ones(7, bool)]
    study = build(study.folder / "other", {"none": [70.0], "a": [80.0]}, correct=right)
    assert compared(study, "test.accuracy")[0].examples is not None
    path = study.trial_folder(f"{1_000:032x}") / "predictions.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    arms = arms_of(Study.open(study.folder))
    assert arms[1].finished() == {}  # the store believes no altered trial at all


@pytest.mark.parametrize(
    "arrays",
    [
        {"label": np.zeros(3)},
        {"label": np.zeros(3), "predicted": np.zeros(4)},
        {"label": np.array(1), "predicted": np.array(1)},
    ],
)
def test_arrays_that_are_no_predictions_make_no_interval(make: Make, arrays: dict[str, Any]) -> None:
    study = make({"none": [70.0], "a": [None]}, correct={"none": [np.ones(3, bool)], "a": [np.ones(3, bool)]})
    hash = f"{1_000:032x}"
    study.save_predictions(hash, arrays)
    study.finish(hash, result(71.0))
    assert compared(study, "test.accuracy")[0].examples is None


def test_a_variant_is_compared_with_its_control_by_itself(make: Make) -> None:
    control = {"of": "a", "match": "flops", "by": "network.params.k", "value": 1.25, "wanted": 80e6, "reached": 79e6}
    study = make({**VALUES, "wide": [97.3, 96.9, 98.3, 96.3, 98.1]}, more={"wide": {"control": control}})
    kinds = [(each.variant, each.baseline, each.kind) for each in compared(study)]
    assert kinds == [
        ("a", "none", "baseline"),
        ("b", "none", "baseline"),
        ("wide", "none", "baseline"),
        ("a", "wide", "control"),
    ]
    table = ablation_table(study)
    column = next(each for each in table.columns if each.name == "Δ val.accuracy at equal flops")
    differences = [a - b for a, b in zip(VALUES["a"], [97.3, 96.9, 98.3, 96.3, 98.1], strict=True)]
    assert table.column(column.name)[1].value == pytest.approx(np.mean(differences))
    assert "control: network.params.k = 1.25 gives 79.00 M flops; a has 80.00 M" in table.column("variant")[3].note
    assert list(comparison_tables(study, compared(study))) == ["comparisons", "controls"]


def test_a_variant_that_needs_no_control_says_so(make: Make) -> None:
    control = {"of": "a", "match": "flops", "by": "network.params.k", "value": 1.25, "wanted": 80e6, "reached": 79e6}
    more = {"wide": {"control": control}, "b": {"near": {"flops": 0.01}}}
    table = ablation_table(make({**VALUES, "wide": [97.3, 96.9, 98.3, 96.3, 98.1]}, more=more))
    cells = table.column("Δ val.accuracy at equal flops")
    assert [cell.text for cell in (cells[0], cells[2])] == ["", "as expensive"]
    assert cells[2].note == "no control: its flops are within 1% of its baseline's"


def test_each_step_of_a_ladder_is_compared_with_the_row_before_it(make: Make) -> None:
    study = make(VALUES, {"ablation": {"design": "ladder"}})
    steps = [(each.variant, each.baseline) for each in compared(study) if each.kind == "step"]
    assert steps == [("a", "none"), ("b", "a")]
    assert not [each for each in compared(make({"x": [1.0], "y": [2.0]})) if each.kind == "step"]


def test_the_metric_that_is_stated_decides_and_a_hidden_one_never(make: Make) -> None:
    study = make(VALUES)
    assert compared_metric(study, arms_of(study)) == VAL
    study.spec["report"] = {"metric": "test.accuracy", "columns": ["params"]}
    assert compared_metric(study, arms_of(study)) == "test.accuracy"
    begun = make({"x": [97.0, None]}, {"report": {"metric": "test.accuracy"}, "name": "other"})
    assert compared_metric(begun, arms_of(begun)) is None


def test_what_is_the_best_under_two_names_is_bold_under_both(make: Make) -> None:
    twin = {"trials": {str(seed): f"{1_000 + seed:032x}" for seed in range(3)}, "duplicate_of": "a"}
    study = make({"none": [90.0, 90.1, 90.2], "a": [95.0, 95.1, 95.3], "twin": [95.0] * 3}, more={"twin": twin})
    assert [cell.best for cell in ablation_table(study).column(VAL)] == [False, True, True]


def test_bold_is_what_intervals_support_against_every_other(make: Make) -> None:
    apart = make({"none": [90.0, 91.0, 92.0], "a": [95.0, 96.1, 97.0], "b": [93.0, 94.2, 95.0]})
    arms = arms_of(apart)
    best = best_of(VAL, arms)
    assert best is not None
    assert best.name == "a"
    table = ablation_table(apart)
    assert [cell.best for cell in table.column(VAL)] == [False, True, False]
    assert "In bold the best val.accuracy, a:" in table.caption
    assert "| **96.03 ± 2.49** |" in render(table, "markdown")
    assert r"\textbf{96.03 $\pm$ 2.49}" in render(table, "latex")
    assert best_of("val.loss", arms) is None  # all equal


def test_the_more_variants_the_wider_what_bold_asks_for(make: Make) -> None:
    """One comparison at 95% would do; looking for the best of seven does not."""
    values = {"a": [1.0, 1.3, 1.1], "b": [0.0, 0.0, 0.0]}
    assert best_of(VAL, arms_of(make(values))) is not None
    more = {f"c{n}": [0.01 * n, 0.0, 0.0] for n in range(1, 12)}
    assert best_of(VAL, arms_of(make(values | more, {"name": "more"}))) is None


def cells(seeds: int) -> dict[str, list[float]]:
    random = np.random.default_rng(5)
    where = itertools.product((1, 2), (3, 4, 5))
    return {f"{i}/{j}": (90 + i - j + random.normal(size=seeds)).tolist() for i, j in where}


def grid(make: Make, outcomes: dict[str, Any], **spec: Any) -> Study:
    more = {
        name: {"levels": dict(zip(("width", "place"), name.split("/"), strict=True)), "baseline": None}
        for name in outcomes
    }
    return make(outcomes, {"ablation": {"seeds": 4}, **spec}, more)


def test_effects_of_a_grid_are_deviations_from_its_mean(make: Make) -> None:
    values = cells(4)
    effects = effects_of(study := grid(make, values), VAL, arms_of(study))
    assert effects is not None
    by_level = {(each.factor, each.level): each for each in effects.main}
    ones, everything = np.array([values[f"1/{j}"] for j in "345"]), np.array(list(values.values()))
    one = by_level["width", "1"]
    assert one.mean == pytest.approx(ones.mean())
    expected = reference.ttest_1samp(ones.mean(axis=0) - everything.mean(axis=0), 0).confidence_interval(0.95)
    assert one.difference.interval == pytest.approx((expected.low, expected.high))
    both = next(each for each in effects.interactions if each.levels == ("1", "4"))
    place = np.array([values["1/4"], values["2/4"]])
    additive = ones.mean() + place.mean() - everything.mean()
    assert both.difference.mean == pytest.approx(np.mean(values["1/4"]) - additive)
    assert list(effects_tables(study, effects)) == ["effects", "interactions"]


def test_seeds_that_not_every_cell_has_enter_no_effect_and_a_missing_cell_is_said(make: Make) -> None:
    values: dict[str, Any] = cells(4)
    values["1/3"] = [*values["1/3"][:3], "diverged"]
    effects = effects_of(study := grid(make, values), VAL, arms_of(study))
    assert effects is not None
    assert effects.seeds == ("0", "1", "2")
    assert {each.difference.n for each in effects.main} == {3}
    del values["2/5"]
    effects = effects_of(study := grid(make, values, name="less"), VAL, arms_of(study))
    assert effects is not None
    assert effects.why_not == "1 cells of the grid are not in the design (2 / 5)"
    assert "No effects are told: 1 cells" in effects_tables(study, effects)["effects"].caption


def test_no_grid_has_no_effects(make: Make) -> None:
    study = make(VALUES)
    assert effects_of(study, VAL, arms_of(study)) is None
    assert effects_tables(study, None) == {}


def test_a_table_says_what_so_few_seeds_can_show(make: Make) -> None:
    study = make({"none": [97.0, 96.0, 98.0], "a": [97.5, 97.0, 98.2]})
    table = comparison_tables(study, compared(study))["comparisons"]
    assert "The smallest p that these seeds could give is 0.25 after Holm's correction over 1." in table.caption
    assert table.column("p (Holm)")[0].text == "0.250"
    one = make({"none": [97.0], "a": [97.5]}, {"name": "one"})
    table = comparison_tables(one, compared(one))["comparisons"]
    assert table.caption == "No row has a test: that takes two seeds that both sides have."
    assert table.column("Δ paired")[0].text == "+0.50 (1 seed)"


def test_a_bootstrap_is_asked_for_by_the_spec_and_needs_ten_seeds(make: Make) -> None:
    values = [97.0 + 0.1 * (n % 4) for n in range(10)]
    study = make({"none": values, "a": [v + 1 for v in values]}, {"report": {"interval": "bootstrap"}})
    table = ablation_table(study, [VAL])
    interval = stats.bootstrap_interval(values)
    assert table.column(VAL)[0].interval == interval
    assert table.column(VAL)[0].text == f"97.13 [{interval.low:.2f}, {interval.high:.2f}]"
    assert "In brackets the 95% bootstrap interval (BCa) over seeds" in table.caption
    few = make({"none": [*values[:9], "crashed"]}, {"report": {"interval": "bootstrap"}, "name": "few"})
    assert ablation_table(few, [VAL]).column(VAL)[0].text == "97.13 (n=9: too few for a bootstrap)"


def test_what_only_rounding_tells_apart_is_no_spread_and_nothing_is_certain_by_it(make: Make) -> None:
    """71.3 − 70.9, 70.9 − 70.5 and 70.1 − 69.7 differ in their last bits."""
    study = make({"none": [70.9, 70.5, 69.7], "a": [71.3, 70.9, 70.1]})
    (found,) = compared(study)
    assert (found.paired.sd, found.detectable) == (0.0, None)
    assert best_of(VAL, arms_of(study)) is None


def test_the_caption_counts_the_tests_that_there_were_and_no_p_is_zero(make: Make) -> None:
    values = {"none": [90.0 + n % 3 for n in range(20)], "a": [91.5 + n % 3 + 0.01 * n for n in range(20)]}
    study = make(values | {"gone": ["crashed"] * 20})
    table = comparison_tables(study, compared(study))["comparisons"]
    assert "is 3.8e-06 after Holm's correction over 2, 1 of 2 rows tested." in table.caption
    assert [cell.text for cell in table.column("p")] == ["< 0.001", ""]


def test_an_order_that_a_paper_gives_without_numbers_is_reported(make: Make) -> None:
    paper = [{"title": "P", "table": "figure 5", "metric": VAL, "order": [["a", "none"]]}]
    study = make(VALUES, {"paper": paper})
    assert {"order.md", "seeds.png"} < {path.name for path in write_report(study)}
