"""Each statistic against scipy, a closed form, or its definition worked out by brute force; coverage by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats as reference

from ablate import stats

# A grid of 1e-4, as accuracies have one: no spread is a rounding error of the values.
value = st.integers(-1_000_000, 1_000_000).map(lambda n: n / 10_000)
several = st.lists(value, min_size=2, max_size=13)
p_values = st.lists(st.floats(0, 1), min_size=1, max_size=6)


@given(several)
def test_a_summary_is_numpys_mean_and_sd_and_scipys_t_interval(values: list[float]) -> None:
    found = stats.summary(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert found.sd == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    assert found.n == len(values)
    assume(found.sd)
    expected = reference.t.interval(0.95, len(values) - 1, np.mean(values), reference.sem(values))
    assert found.interval == pytest.approx(expected)
    assert found.interval is not None
    assert found.interval.half_width == pytest.approx((expected[1] - expected[0]) / 2)


def test_one_value_has_neither_deviation_nor_interval() -> None:
    assert stats.summary([97.3]) == stats.Summary(97.3, None, 1, None)


def test_equal_values_deviate_by_exactly_zero() -> None:
    assert stats.summary([0.1] * 3) == stats.Summary(0.1, 0.0, 3, stats.Interval(0.1, 0.1))


def test_nothing_and_what_is_not_finite_have_no_summary() -> None:
    with pytest.raises(ValueError, match="needs a value"):
        stats.summary([])
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not finite"):
            stats.summary([97.0, bad])


@given(st.dictionaries(st.integers(0, 12), value), st.dictionaries(st.integers(0, 12), value))
def test_a_paired_difference_uses_the_seeds_that_both_have(a: dict[int, float], b: dict[int, float]) -> None:
    found = stats.paired_difference(a, b)
    common = [seed for seed in range(13) if seed in a and seed in b]
    assert found.n == len(common)
    assert sorted(found.seeds) == common
    if not common:
        assert found.mean is None
        return
    differences = [a[seed] - b[seed] for seed in common]
    assert found.mean == pytest.approx(np.mean(differences), abs=1e-9)
    if len(common) < 2:
        assert found.interval is None
    elif np.ptp(differences) > 1e-6:
        test = reference.ttest_rel([a[s] for s in common], [b[s] for s in common])
        assert found.interval == pytest.approx(tuple(test.confidence_interval(0.95)))


@given(several, several)
def test_an_unpaired_difference_is_scipys_welch_interval(a: list[float], b: list[float]) -> None:
    assume(np.ptp(a) > 0 or np.ptp(b) > 0)
    found = stats.unpaired_difference(a, b)
    expected = reference.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert found.interval == pytest.approx(tuple(expected), rel=1e-6, abs=1e-9)
    assert found.n == len(a) + len(b)


def test_an_unpaired_difference_needs_two_values_on_each_side_for_an_interval() -> None:
    assert stats.unpaired_difference([97.0], [96.0, 95.0]) == stats.Difference(1.5, None, 3, None)
    assert stats.unpaired_difference([], [96.0]).mean is None
    assert stats.unpaired_difference([2.0, 2.0], [1.0, 1.0]).interval == (1.0, 1.0)


def test_at_three_seeds_without_correlation_pairing_widens_the_interval() -> None:
    """Equal deviations s: paired t(2)·√2·s/√3 = 3.51 s against Welch's t(4)·s·√(2/3) = 2.27 s."""
    a, c = [1.0, 2.0, 3.0], [5 + x / math.sqrt(3) for x in (-1, 2, -1)]  # both with a deviation of 1
    assert np.corrcoef(a, c)[0, 1] == pytest.approx(0)
    paired = stats.paired_difference(dict(enumerate(a)), dict(enumerate(c))).interval
    unpaired = stats.unpaired_difference(a, c).interval
    assert paired is not None
    assert unpaired is not None
    assert paired.half_width == pytest.approx(4.302653 * math.sqrt(2 / 3))
    assert unpaired.half_width == pytest.approx(2.776445 * math.sqrt(2 / 3))


def test_hedges_g_of_a_worked_example() -> None:
    """a = 3 ± 1, b = 1 ± 1, n = 3 each: d = 2, and J(4) = Γ(2) / (√2 Γ(3/2)) = √(2/π)."""
    assert stats.hedges_g([2, 3, 4], [0, 1, 2]) == pytest.approx(2 * math.sqrt(2 / math.pi))


@given(several, several)
def test_hedges_g_has_the_sign_of_the_difference_and_shrinks_cohens_d(a: list[float], b: list[float]) -> None:
    assume(np.ptp(a) > 0 or np.ptp(b) > 0)
    pooled = math.sqrt(((len(a) - 1) * np.var(a, ddof=1) + (len(b) - 1) * np.var(b, ddof=1)) / (len(a) + len(b) - 2))
    cohen = (np.mean(a) - np.mean(b)) / pooled
    freedom = len(a) + len(b) - 2
    # The usual approximation of the exact factor, Hedges 1981; at its worst (2 degrees) off by 1.3%.
    assert stats.hedges_g(a, b) == pytest.approx(cohen * (1 - 3 / (4 * freedom - 1)), rel=0.02, abs=1e-9)


def test_hedges_g_is_none_where_nothing_can_be_said() -> None:
    assert stats.hedges_g([1.0], [1.0, 2.0]) is None
    assert stats.hedges_g([1.0, 1.0], [2.0, 2.0]) is None


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=9))
def test_the_sign_flip_p_counts_all_sign_patterns(differences: list[int]) -> None:
    observed = abs(sum(differences))
    patterns = list(itertools.product((1, -1), repeat=len(differences)))
    as_far = sum(abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= observed for signs in patterns)
    assert stats.sign_flip_p([d / 10 for d in differences]) == as_far / len(patterns)


def test_the_sign_flip_p_is_scipys_exact_permutation_test() -> None:
    differences = np.random.default_rng(7).normal(0.3, 1, 11)
    expected = reference.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    assert stats.sign_flip_p(differences) == pytest.approx(expected.pvalue)


def test_the_sign_flip_p_at_its_limits() -> None:
    assert stats.sign_flip_p([]) is None
    assert stats.sign_flip_p([0.0, 0.0]) == 1
    assert stats.sign_flip_p([0.1] * 32) == 2.0**-31


def test_beyond_what_can_be_counted_patterns_are_drawn_and_no_p_is_too_small() -> None:
    assert stats.sign_flip_p([0.1] * 33) == stats.smallest_p(33) == 1e-5
    random = np.random.default_rng(5)
    for shift in (0.0, 0.2, 0.35):
        differences = random.normal(shift, 1, 60)
        expected = reference.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=200_000, vectorized=True, rng=random
        )
        assert stats.sign_flip_p(differences) == pytest.approx(expected.pvalue, abs=0.006)
        assert stats.sign_flip_p(differences) == stats.sign_flip_p(list(differences))


@given(st.integers(1, 13))
def test_the_smallest_p_is_that_of_differences_of_one_sign(n: int) -> None:
    assert stats.smallest_p(n) == stats.sign_flip_p(range(1, n + 1))


def test_three_seeds_give_a_quarter_and_holm_over_four_needs_eight() -> None:
    assert stats.smallest_p(3) == 0.25
    assert stats.smallest_p(7, comparisons=4) >= 0.05 > stats.smallest_p(8, comparisons=4)


@given(p_values)
def test_holm_is_the_closed_test_by_bonferroni(ps: list[float]) -> None:
    """p of hypothesis i: the largest Bonferroni p among all sets of hypotheses that contain it."""
    indices = range(len(ps))
    sets = [s for size in range(1, len(ps) + 1) for s in itertools.combinations(indices, size)]
    bonferroni = {s: min(1.0, len(s) * min(ps[i] for i in s)) for s in sets}
    assert stats.holm(ps) == pytest.approx([max(bonferroni[s] for s in sets if i in s) for i in indices])


def test_holm_refuses_what_is_no_p() -> None:
    assert stats.holm([]) == []
    for bad in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            stats.holm([0.5, bad])


@pytest.mark.parametrize("n", [2, 3, 5, 17])
def test_the_detectable_difference_is_found_in_80_percent_of_simulated_studies(n: int) -> None:
    sd = 0.7
    difference = stats.detectable_difference(sd, n) or math.nan
    samples = np.random.default_rng(11).normal(difference, sd, (20_000, n))
    found = reference.ttest_1samp(samples, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.012)


def test_the_detectable_difference_nears_the_normal_one_with_many_seeds() -> None:
    expected = (reference.norm.ppf(0.975) + reference.norm.ppf(0.8)) / math.sqrt(1009)
    assert stats.detectable_difference(1.0, 1009) == pytest.approx(expected, rel=2e-3)
    assert stats.detectable_difference(0.0, 3) == 0
    t, freedom = reference.t.ppf(0.975, 4), 4
    shift = (stats.detectable_difference(1.0, 5) or math.nan) * math.sqrt(5)
    assert reference.nct.sf(t, freedom, shift) == pytest.approx(0.8, abs=1e-4)
    assert stats.detectable_difference(1.0, 1) is None


@pytest.mark.parametrize("n", [2, 3, 5])
def test_intervals_cover_what_they_promise(n: int) -> None:
    rng = np.random.default_rng(13)
    runs = 4_000
    mean_covered = next_covered = welch_covered = 0
    for sample, other, following in zip(
        rng.normal(97, 0.3, (runs, n)), rng.normal(96, 0.3, (runs, n)), rng.normal(97, 0.3, runs), strict=True
    ):
        interval, ahead = stats.summary(sample).interval, stats.prediction_interval(sample)
        apart = stats.unpaired_difference(sample, other).interval
        assert interval is not None
        assert ahead is not None
        assert apart is not None
        mean_covered += interval.low <= 97 <= interval.high
        next_covered += ahead.low <= following <= ahead.high
        welch_covered += apart.low <= 1 <= apart.high
    assert mean_covered / runs == pytest.approx(0.95, abs=0.012)
    assert next_covered / runs == pytest.approx(0.95, abs=0.012)
    assert welch_covered / runs >= 0.938  # Welch's is conservative for few values, never lax


@given(several)
def test_the_prediction_interval_is_wider_than_the_means_by_root_n_plus_1(values: list[float]) -> None:
    ahead, interval = stats.prediction_interval(values), stats.summary(values).interval
    assert ahead is not None
    assert interval is not None
    assert ahead.half_width == pytest.approx(interval.half_width * math.sqrt(len(values) + 1), abs=1e-9)


def test_verdicts() -> None:
    # Mean 90, sd 1, n = 3: the interval is ± 4.3027·√(4/3) = 4.968.
    runs = [89.0, 90.0, 91.0]
    assert stats.verdict(runs, 94.96) == "reproduced"
    assert stats.verdict(runs, 94.98) == "differs"
    assert stats.verdict(runs, 94.98, plus_minus=0.1) == "reproduced"
    assert stats.verdict([], 90.0) == "not run"
    assert stats.verdict([90.0], 90.0) == "inconclusive"
    with pytest.raises(ValueError, match="finite"):
        stats.verdict(runs, math.nan)


def test_two_runs_may_refute_a_paper_and_never_reproduce_it() -> None:
    # ± 12.706·√1.5·0.0707 = 1.10
    assert stats.verdict([90.0, 90.1], 90.05) == "inconclusive"
    assert stats.verdict([90.0, 90.1], 91.2) == "differs"


def test_runs_of_equal_value_refute_no_paper() -> None:
    assert stats.verdict([99.1, 99.1, 99.1], 99.13) == "inconclusive"
    assert stats.verdict([99.1, 99.1, 99.1], 99.1) == "reproduced"


def test_a_cost_is_reproduced_if_it_rounds_to_what_was_printed() -> None:
    assert stats.verdict_exact(25_557_032, 25.6e6) == "reproduced"  # ResNet-50
    assert stats.verdict_exact(25_557_032, 25.5e6) == "differs"
    assert stats.verdict_exact(269_722, 269_723) == "differs"
    assert stats.verdict_exact(None, 25.6e6) == "not run"


@pytest.mark.parametrize(
    ("number", "half"),
    [(90.9, 0.05), (25.6e6, 5e4), (4.1e9, 5e7), (7.0, 0.5), (1e22, 5e21), (0.001, 0.0005), (0.0, 0.5)],
)
def test_the_last_digit_that_a_number_shows(number: float, half: float) -> None:
    assert stats.half_a_digit(number) == pytest.approx(half)


coarse = st.integers(-3, 3).map(float)


@given(st.lists(st.tuples(coarse, coarse), min_size=3, max_size=13))
def test_a_rank_correlation_is_scipys_with_ties_and_without(pairs: list[tuple[float, float]]) -> None:
    a, b = zip(*pairs, strict=True)
    found = stats.rank_correlation(a, b)
    assert found.n == len(pairs)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert found.spearman is found.kendall is None
        return
    # rho: Pearson's of the mean ranks; tau-b: concordant less discordant pairs, over those without a tie on a side
    ranks = [reference.rankdata(side) for side in (a, b)]
    assert found.spearman == pytest.approx(np.corrcoef(ranks)[0, 1])
    signs = np.array([np.sign([x - p, y - q]) for (x, y), (p, q) in itertools.combinations(pairs, 2)])
    score, untied = signs.prod(1).sum(), np.abs(signs).sum(0).prod()
    assert found.kendall == pytest.approx(score / math.sqrt(untied))


def test_two_pairs_have_no_rank_correlation_and_unpaired_values_are_refused() -> None:
    assert stats.rank_correlation([1, 2], [3, 4]) == stats.RankCorrelation(None, None, 2)
    assert stats.rank_correlation([], []) == stats.RankCorrelation(None, None, 0)
    for a, b, message in (([1, 2, 3], [1, 2], "can't be paired"), ([1, 2, math.nan], [1, 2, 3], "not finite")):
        with pytest.raises(ValueError, match=message):
            stats.rank_correlation(a, b)
