"""How often intervals miss under ``seeds: auto``: a coarse form of benchmarks/auto_seeds.py, held against the docs."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ablate.analysis.arms import Arm
from ablate.analysis.widths import Until, look
from ablate.grammar import UntilSpec
from benchmarks.auto_seeds import ADD, COMPARISONS, FIRST, MOST, RATIOS, TRUE, Drawn, by_width, drawn, looks, naive
from tests.conftest import REPOSITORY

STUDIES = 8_000
PAGE = (REPOSITORY / "docs" / "statistics.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def studies() -> Drawn:
    return drawn(STUDIES, seed=7)


def printed(head: str) -> list[list[list[float]]]:
    """The numbers in the cells of the page's table whose first column is called so, row by row."""
    table = PAGE.split(f"| {head} |")[1].split("\n\n")[0]
    rows = [line.strip("|").split("|")[1:] for line in table.splitlines()[2:]]
    return [[[float(number) for number in re.findall(r"\d+\.\d|\d+(?=%)", cell)] for cell in row] for row in rows]


def near(percent: float, share: float, studies: int = STUDIES) -> bool:
    """Within four standard errors of both simulations, and what is lost by rounding."""
    error = 100 * np.sqrt(max(share * (1 - share), 0.001) * (1 / studies + 1 / 25_000))
    return abs(percent - 100 * share) <= 4 * error + 0.05


def test_the_page_has_the_rates_of_the_rule(studies: Drawn) -> None:
    table = printed("half_width / sd")
    assert len(table) == len(RATIOS)
    for ratio, row in zip(RATIOS, table, strict=True):
        for first, (misses, seeds) in zip(FIRST, row, strict=True):
            found = by_width(studies, first, ratio)
            assert near(misses, found.misses), (ratio, first, misses, found)
            assert seeds == pytest.approx(found.seeds, abs=0.3)
            assert found.excludes_zero == found.misses  # the true difference is 0


def test_the_page_has_the_rates_of_the_naive_rule(studies: Drawn) -> None:
    table = printed("true difference / sd")
    assert len(table) == len(TRUE)
    for true, row in zip(TRUE, table, strict=True):
        for first, (misses, words) in zip(FIRST, row, strict=True):
            found = naive(studies, first, true)
            assert near(misses, found.misses), (true, first, misses, found)
            assert near(words, found.excludes_zero), (true, first, words, found)


def test_the_default_misses_seldom_and_the_naive_rule_often(studies: Drawn) -> None:
    first = UntilSpec.model_fields["first"].default
    rates = [by_width(studies, first, ratio).misses for ratio in np.linspace(0.25, 4, 16)]
    assert 0.07 < max(rates) < 0.09
    assert min(rates) > 0.04
    assert naive(studies, first, 0.0).misses > 0.15
    assert (UntilSpec.model_fields["add"].default, UntilSpec.model_fields["most"].default) == (ADD, MOST)


def test_several_comparisons_miss_less() -> None:
    found = [by_width(drawn(2_000, comparisons, seed=3), 5, 0.75) for comparisons in COMPARISONS]
    assert found[0].misses > found[-1].misses
    assert found[0].seeds < found[1].seeds < found[2].seeds


def test_a_fixed_number_of_seeds_misses_in_5_percent(studies: Drawn) -> None:
    """The simulation itself: with one look no rule chooses anything."""
    assert looks(MOST) == [MOST]
    assert by_width(studies, MOST, 1.0).misses == pytest.approx(0.05, abs=4 * 0.0024)


@pytest.mark.parametrize("comparisons", [1, 3])
def test_the_simulated_rule_is_the_one_that_sweeps_follow(comparisons: int) -> None:
    until = Until("val.loss", 0.9, 3, ADD, MOST)
    for seed in range(12):
        arms = np.random.default_rng(seed).normal(size=(1, comparisons + 1, MOST)) / np.sqrt(2)
        n = until.first
        while more := look(until, _arms(arms[0, :, :n])).more:
            n += more
        assert by_width(drawn(1, comparisons, seed=seed), until.first, until.half_width).seeds == n


def _arms(values: np.ndarray) -> list[Arm]:
    found = []
    for index, row in enumerate(values):
        results = {str(seed): {"status": "finished", "metrics": {"val.loss": v}} for seed, v in enumerate(row)}
        trials = {seed: f"{index}-{seed}" for seed in results}
        found.append(Arm(f"v{index}", {"baseline": "v0" if index else None, "trials": trials}, results))
    return found
