"""Importance against what is known: additive functions with stated variances, and Optuna's own evaluator."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
import pytest

from ablate.findings import importances
from ablate.findings.importance import LEAST, Importance
from ablate.findings.ranking import ranked
from ablate.findings.values import Findings, Trial

SPACE: dict[str, Any] = {
    "a.lr": {"float": [0.001, 1.0], "log": True},
    "a.width": {"int": [1, 3]},
    "a.block": {"choice": ["se", "cbam", "simam"]},
}


def drawn(
    value: Callable[[Mapping[str, Any]], float],
    count: int,
    space: Mapping[str, Any] = SPACE,
    way: str = "maximize",
    keep: Callable[[str, Mapping[str, Any]], bool] = lambda path, values: True,
) -> Findings:
    """A random search of an exact function."""
    random_ = random.Random(0)
    trials = []
    for number in range(count):
        values: dict[str, Any] = {}
        for path, written in space.items():
            if "float" in written:
                low, high = map(math.log, written["float"])
                chosen: Any = math.exp(random_.uniform(low, high))
            else:
                chosen = random_.choice(written["choice"]) if "choice" in written else random_.randint(*written["int"])
            if keep(path, values):
                values[path] = chosen
        labels = {path: str(chosen) for path, chosen in values.items()}
        metrics = {"val.loss": value(values)}
        trials.append(Trial(number, str(number), f"{number:032x}", labels, values, "finished", metrics, 5, 5))
    objectives = {"val.loss": way}
    order, on_front = ranked(trials, objectives)
    section = {"objectives": objectives, "space": space}
    return Findings("a", section, tuple(space), tuple(trials), order, on_front, {}, {}, {})


def by_path(found: Findings) -> dict[str, Importance]:
    return {each.path: each for each in importances(found)}


def additive(values: Mapping[str, Any]) -> float:
    """Over the space: lr's part has the variance 4/12, width's 2/3, block's 4/3 · 1/6."""
    lr = 2 * math.log(values["a.lr"] / 0.001) / math.log(1000)
    return lr + values["a.width"] + {"se": 0.0, "cbam": 0.5, "simam": 1.0}[values["a.block"]] * math.sqrt(4 / 3)


def test_fanova_is_the_share_of_the_variance_of_an_additive_function() -> None:
    variances = {"a.lr": 4 / 12, "a.width": 2 / 3, "a.block": 4 / 3 / 6}
    told = by_path(drawn(additive, 200))
    for path, variance in variances.items():
        # small learning rates, the ends of whole numbers, and one of three blocks: each counts as it is drawn
        assert told[path].fanova == pytest.approx(variance / sum(variances.values()), abs=0.05)
        assert told[path].n == 200
    assert sum(each.ped_anova or 0.0 for each in told.values()) == pytest.approx(1)


def test_the_ends_of_whole_numbers_count_as_much_as_the_others() -> None:
    space = {"a.width": {"int": [1, 3]}, "a.block": {"choice": ["se", "simam"]}}
    # both have the variance 2/3
    told = by_path(drawn(lambda values: values["a.width"] + math.sqrt(8 / 3) * (values["a.block"] == "se"), 60, space))
    assert told["a.width"].fanova == pytest.approx(0.5, abs=0.02)
    assert told["a.block"].fanova == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("way", "decides", "does_not"), [("maximize", "a.lr", "a.block"), ("minimize", "a.block", "a.lr")]
)
def test_ped_anova_is_about_the_best_whichever_way_is_better(way: str, decides: str, does_not: str) -> None:
    def value(values: Mapping[str, Any]) -> float:
        """The highest are those with a large lr, the lowest those with a certain block."""
        unrelated = math.sin(1e6 * values["a.lr"]) / 1000
        if values["a.lr"] > 0.35:
            return 10 + unrelated
        return unrelated - (values["a.block"] == "se")

    told = by_path(drawn(value, 150, way=way))
    assert (told[decides].ped_anova or 0) > 0.6
    assert (told[does_not].ped_anova or 0) < 0.2


def test_a_conditional_path_is_told_of_the_trials_in_which_it_is_active() -> None:
    space = {"a.block": {"choice": ["se", "simam"]}, "a.reduction": {"choice": [2, 4]}, "a.width": {"int": [1, 3]}}

    def active(path: str, values: Mapping[str, Any]) -> bool:
        return path != "a.reduction" or values["a.block"] == "se"

    def value(values: Mapping[str, Any]) -> float:
        return 10.0 * (values["a.block"] == "se") + (values.get("a.reduction") == 4) + values["a.width"] / 1000

    found = drawn(value, 60, space, keep=active)
    told = by_path(found)
    count = sum("a.reduction" in trial.labels for trial in found.trials)
    assert 0 < count < 60
    assert (told["a.reduction"].n, told["a.block"].n) == (count, 60)
    # among those with the block its reduction is all that matters; among all, the block
    assert told["a.reduction"].fanova == pytest.approx(1, abs=0.02)
    assert told["a.block"].fanova == pytest.approx(1, abs=0.02)
    assert (told["a.width"].fanova or 0) < 0.05


def test_nothing_is_said_of_few_trials_or_of_what_does_not_vary() -> None:
    assert importances(drawn(additive, LEAST - 1)) == []
    constant = importances(drawn(lambda values: 1.0, LEAST))
    assert [(each.fanova, each.ped_anova) for each in constant] == [(None, None)] * 3


def test_optunas_log_and_the_warnings_are_as_they_were_and_the_numbers_come_out_again() -> None:
    found = drawn(additive, 20)
    level, filters = optuna.logging.get_verbosity(), list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = importances(found)
    assert first == importances(found)
    assert optuna.logging.get_verbosity() == level
    assert warnings.filters == filters
