"""Correlations, bootstraps, effects of designs: against scipy, statsmodels, or their definition by brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats as reference
from statsmodels.stats.multitest import multipletests

from ablate import stats

value = st.integers(-1_000_000, 1_000_000).map(lambda n: n / 10_000)
pairs = st.lists(st.tuples(value, value), min_size=3, max_size=13)


@given(pairs)
def test_a_correlation_is_scipys(points: list[tuple[float, float]]) -> None:
    a, b = [list(side) for side in zip(*points, strict=True)]
    assume(len(set(a)) > 1 and len(set(b)) > 1)
    assert stats.correlation(a, b) == pytest.approx(reference.pearsonr(a, b).statistic, abs=1e-6)


def test_no_correlation_of_two_pairs_nor_of_what_does_not_vary() -> None:
    assert stats.correlation([1, 2], [1, 2]) is None
    assert stats.correlation([1, 2, 3], [5, 5, 5]) is None
    with pytest.raises(ValueError, match="3 values can't be paired with 2"):
        stats.correlation([1, 2, 3], [1, 2])


@pytest.mark.parametrize("count", [1, 2, 7])
def test_holm_is_statsmodels(count: int) -> None:
    ps = (np.random.default_rng(count).random(count) ** 3).tolist()
    assert stats.holm(ps) == pytest.approx(multipletests(ps, method="holm")[1].tolist())


@pytest.mark.parametrize(("sd", "difference"), [(1.0, 3.3), (0.3, 0.31), (2.0, 40.0)])
def test_the_seeds_that_are_needed_are_the_fewest_that_detect_the_difference(sd: float, difference: float) -> None:
    by_trying = next(n for n in itertools.count(2) if (stats.detectable_difference(sd, n) or 0.0) <= difference)
    assert stats.seeds_to_detect(sd, difference) == stats.seeds_to_detect(sd, -difference) == by_trying


def test_nothing_finds_a_difference_of_zero_nor_one_that_is_too_small() -> None:
    assert stats.seeds_to_detect(1.0, 0.0) is None
    assert stats.seeds_to_detect(1.0, 0.01) is None  # beyond 10,000


def test_a_bootstrap_over_fewer_than_ten_seeds_is_refused() -> None:
    nine = [float(n) for n in range(9)]
    with pytest.raises(ValueError, match="a bootstrap over 9 values is too narrow; at least 10 are needed"):
        stats.bootstrap_interval(nine)
    assert stats.summary(nine, method="bootstrap").interval is None
    assert stats.summary([*nine, 9.0], method="bootstrap").interval is not None


def test_a_bootstrap_is_scipys_and_says_the_same_again() -> None:
    values = np.random.default_rng(7).exponential(size=23)
    expected = reference.bootstrap((values,), np.mean, n_resamples=10_000, random_state=np.random.default_rng(1))
    found = stats.bootstrap_interval(values)
    width = found.high - found.low
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=0.08 * width)
    assert found == stats.bootstrap_interval(values)
    assert stats.bootstrap_interval([3.0] * 11) == stats.Interval(3.0, 3.0)


def test_three_seeds_would_be_covered_by_a_bootstrap_three_times_in_four() -> None:
    """Why it is refused: the figure that the message rests on, for the percentile bootstrap."""
    samples = np.random.default_rng(0).normal(size=(4_000, 3))
    resampled = samples[:, list(itertools.product(range(3), repeat=3))].mean(axis=2)  # all there are, equally likely
    low, high = np.quantile(resampled, [0.025, 0.975], axis=1, method="inverted_cdf")
    assert np.mean((low <= 0) & (high >= 0)) == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_example_interval_is_scipys_percentile_bootstrap(seeds: int) -> None:
    random = np.random.default_rng(seeds)
    ours, theirs = random.random((seeds, 997)) < 0.8, random.random((seeds, 997)) < 0.7
    per_image = 100 * (ours.mean(axis=0) - theirs.mean(axis=0))
    expected = reference.bootstrap(
        (per_image,), np.mean, n_resamples=4_000, method="percentile", random_state=np.random.default_rng(1)
    )
    found = stats.example_interval(per_image)
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=0.15)
    assert stats.example_interval([1.0]) is None


def grid(*sizes: int, seeds: int) -> np.ndarray:
    """A grid of random values that differ by level, by seed, and by cell."""
    random = np.random.default_rng(sum(sizes))
    cells = random.normal(size=(*sizes, seeds)) + random.normal(size=seeds)
    for axis, size in enumerate(sizes):
        cells += 3 * random.normal(size=[size if each == axis else 1 for each in range(cells.ndim)])
    return cells


@pytest.mark.parametrize("sizes", [(2, 3), (3, 2, 2)])
def test_effects_add_up_to_the_sums_of_squares_of_statsmodels_anova(sizes: tuple[int, ...]) -> None:
    """Without replicates beyond seeds: the seed-averaged grid, whose ANOVA of main effects and pairs is exact."""
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    cells = grid(*sizes, seeds=5)
    rows = [
        {**{f"f{axis}": level for axis, level in enumerate(where[:-1])}, "y": cells[where]}
        for where in np.ndindex(cells.shape)
    ]
    terms = [f"C(f{axis})" for axis in range(len(sizes))]
    both = [f"{a}:{b}" for a, b in itertools.combinations(terms, 2)]
    table = anova_lm(ols("y ~ " + " + ".join(terms + both), pd.DataFrame(rows)).fit(), typ=2)
    for axis, size in enumerate(sizes):
        effects = stats.main_effects(cells, axis)
        squares = sum(effect.mean**2 for effect in effects if effect.mean is not None) * cells.size / size
        assert squares == pytest.approx(table.loc[f"C(f{axis})", "sum_sq"])
        assert sum(effect.mean or 0.0 for effect in effects) == pytest.approx(0.0, abs=1e-12)
    for first, second in itertools.combinations(range(len(sizes)), 2):
        found = [each.mean or 0.0 for row in stats.interactions(cells, first, second) for each in row]
        share = cells.size / (sizes[first] * sizes[second])
        assert sum(mean**2 for mean in found) * share == pytest.approx(table.loc[f"C(f{first}):C(f{second})", "sum_sq"])


def test_an_effects_interval_is_scipys_over_its_values_in_each_seed() -> None:
    cells = grid(3, 4, seeds=5)
    by_seed = cells[1].mean(axis=0) - cells.mean(axis=(0, 1))
    expected = reference.ttest_1samp(by_seed, 0.0).confidence_interval(0.95)
    assert stats.main_effects(cells, 0)[1].interval == pytest.approx((expected.low, expected.high))


def test_pairing_takes_out_of_an_effect_what_a_seed_gives_to_all_cells() -> None:
    cells = np.arange(6.0).reshape(2, 3, 1) + 100 * np.random.default_rng(0).normal(size=5)
    effect = stats.main_effects(cells, 0)[1]
    assert effect.interval == pytest.approx((1.5, 1.5))
    assert [each.mean for row in stats.interactions(cells, 0, 1) for each in row] == pytest.approx([0.0] * 6)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_t_and_prediction_intervals_cover_95_percent_of_normal_data(n: int) -> None:
    random = np.random.default_rng(n)
    samples, following = random.normal(size=(20_000, n)), random.normal(size=20_000)
    mean, sd = samples.mean(axis=1), samples.std(axis=1, ddof=1)
    unit = stats.summary(samples[0]).interval
    assert unit is not None
    # the width is a multiple of the standard deviation: found once, by our own functions
    half = unit.half_width / sd[0]
    whole = stats.prediction_interval(samples[0])
    assert whole is not None
    assert 0.94 < np.mean(np.abs(mean) <= half * sd) < 0.96
    assert 0.94 < np.mean(np.abs(following - mean) <= whole.half_width / sd[0] * sd) < 0.96
