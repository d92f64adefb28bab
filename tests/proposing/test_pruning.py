"""Judged as Ray Tune's own schedulers judge, and as the papers' rules say; a pruner begun anew judges as before."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule

from ablate.errors import UserError
from ablate.proposing import Pruner
from ablate.space import PrunerSpec

EPOCHS = 9


def curves(trials: int, seed: int = 0) -> dict[str, list[float]]:
    """Trial → its metric by epoch: some rise to more than others, all with noise."""
    draws = random.Random(seed)
    ends = {f"trial{index}": draws.uniform(50, 95) for index in range(trials)}
    return {
        trial: [end * (1 - 0.7 ** (epoch + 1)) + draws.gauss(0, 3) for epoch in range(EPOCHS)]
        for trial, end in ends.items()
    }


def order(given: dict[str, list[float]], at_once: int = 4) -> list[tuple[str, int, float]]:
    """So many trials side by side, an epoch of each in turn."""
    waiting, running, told = list(given), dict[str, int](), []
    while waiting or running:
        while waiting and len(running) < at_once:
            running[waiting.pop(0)] = 0
        for trial in list(running):
            running[trial] += 1
            told.append((trial, running[trial], given[trial][running[trial] - 1]))
            if running[trial] == EPOCHS:
                del running[trial]
    return told


def judged(pruner: Pruner, rows: list[tuple[str, int, float]]) -> dict[str, int]:
    """Trial → the epoch after which it was ended; the rest is trained to the end."""
    ended: dict[str, int] = {}
    for trial, epoch, value in rows:
        if trial not in ended and pruner.judge(trial, epoch, value):
            ended[trial] = epoch
    return ended


@pytest.mark.parametrize("mode", ["maximize", "minimize"])
@pytest.mark.parametrize(("grace", "reduction"), [(1, 2), (1, 3), (2, 4)])
def test_asha_ends_what_is_not_among_the_best_of_its_rung(mode: str, grace: int, reduction: int) -> None:
    """By the rule: at epoch grace · reductionᵏ a trial goes on if it is not below the quantile of those before."""
    sign = 1 if mode == "maximize" else -1
    rows = order(curves(40))
    expected: dict[str, int] = {}
    rungs: dict[int, list[float]] = {}
    for trial, epoch, value in rows:
        rung = next((k for k in range(9) if grace * reduction**k == epoch < EPOCHS), None)
        if trial in expected or rung is None:
            continue
        before = rungs.setdefault(rung, [])
        if before and sign * value < np.quantile(before, 1 - 1 / reduction):
            expected[trial] = epoch
        before.append(sign * value)
    found = judged(Pruner(PrunerSpec(name="asha", grace=grace, reduction=reduction), mode, EPOCHS), rows)
    assert found == expected
    assert 10 < len(found) < 40


class Tuned:
    """A trial and a controller as Tune's schedulers know them."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id

    def get_live_trials(self) -> list[object]:
        return []


@pytest.mark.parametrize("mode", ["maximize", "minimize"])
@pytest.mark.parametrize("name", ["asha", "median"])
def test_it_judges_as_rays_scheduler_that_is_driven_by_hand(name: str, mode: str) -> None:
    if name == "asha":
        ray = AsyncHyperBandScheduler("epoch", "value", mode[:3], EPOCHS, 2, 3)
    else:
        ray = MedianStoppingRule("epoch", "value", mode[:3], grace_period=2, min_samples_required=5)
    sign = 1 if mode == "maximize" else -1
    rows = [(trial, epoch, sign * value) for trial, epoch, value in order(curves(30, seed=1))]
    expected, trials = dict[str, int](), dict[str, Tuned]()
    for trial, epoch, value in rows:
        if trial not in trials:
            trials[trial] = Tuned(trial)
            ray.on_trial_add(trials[trial], trials[trial])
        if trial in expected:
            continue
        result = {"epoch": epoch, "value": value}
        if ray.on_trial_result(trials[trial], trials[trial], result) == "STOP" and epoch < EPOCHS:
            expected[trial] = epoch
    keys = {"reduction": 3} if name == "asha" else {"samples": 5}
    assert judged(Pruner(PrunerSpec(name=name, grace=2, **keys), mode, EPOCHS), rows) == expected
    assert expected


def test_the_median_rule_ends_what_never_was_as_good_as_the_others_were_on_average() -> None:
    pruner = Pruner(PrunerSpec(name="median", grace=2, samples=2), "maximize", EPOCHS)
    pruner.recall("a", [(1, 10.0), (2, 20.0), (3, 30.0)])  # from epoch 2 on: 20, 25 on average
    pruner.recall("b", [(1, 10.0), (2, 40.0), (3, 60.0)])  # 40, 50
    assert not pruner.judge("c", 1, 0.0)
    assert not pruner.judge("c", 2, 31.0)  # more than 30
    assert pruner.judge("c", 3, 32.0)  # its best is less than 37.5
    assert pruner.judge("d", 2, 30.5), "now c's 31 is the median"


def test_hyperband_has_brackets_by_name_and_touches_no_global_stream() -> None:
    spec = PrunerSpec(name="hyperband", grace=1, reduction=3, brackets=3)
    rows = order(curves(60, seed=2))
    state = np.random.get_state()[1].copy()
    found = judged(Pruner(spec, "maximize", EPOCHS), rows)
    assert (np.random.get_state()[1] == state).all()
    assert found == judged(Pruner(spec, "maximize", EPOCHS), rows)
    # A trial of the second bracket has three epochs of grace, and of the third nine, which is all.
    asha = judged(Pruner(PrunerSpec(name="asha", grace=1, reduction=3), "maximize", EPOCHS), rows)
    assert set(found.values()) == {1, 3}
    assert len(found) < len(asha)
    kept = [trial for trial, values in curves(60, seed=2).items() if trial not in found and max(values) < 60]
    assert kept, "some that are bad are in the bracket that ends nothing"


@pytest.mark.parametrize(
    "spec",
    [
        PrunerSpec(name="asha", reduction=2),
        PrunerSpec(name="hyperband", brackets=2),
        PrunerSpec(name="median", grace=2),
    ],
    ids=lambda spec: spec.name,
)
def test_begun_anew_from_the_rows_it_judges_as_before(spec: PrunerSpec) -> None:
    """At any moment; the last row of each trial that runs may have been written and not judged, or judged already."""
    rows = order(curves(14, seed=3))
    whole = judged(Pruner(spec, "maximize", EPOCHS), rows)
    assert whole
    lived = [(trial, epoch, value) for trial, epoch, value in rows if epoch <= whole.get(trial, EPOCHS)]
    for cut in range(0, len(lived), 5):
        pruner = Pruner(spec, "maximize", EPOCHS)
        trials = sorted({trial for trial, _, _ in lived[:cut]}, key=lambda trial: whole.get(trial, 0))
        for trial in trials:
            pruner.recall(trial, [(epoch, value) for other, epoch, value in lived[:cut] if other == trial])
        ended = {trial: epoch for trial, epoch in whole.items() if (trial, epoch) in {row[:2] for row in lived[:cut]}}
        assert {**ended, **judged(pruner, [row for row in lived[cut:] if row[0] not in ended])} == whole


def test_a_row_that_was_recalled_is_judged_as_if_it_came_now() -> None:
    rows = [(f"t{index}", 1, float(index)) for index in range(9)]
    fresh, again = (Pruner(PrunerSpec(name="asha", reduction=3), "maximize", EPOCHS) for _ in range(2))
    for row in rows:
        fresh.judge(*row)
        again.recall(row[0], [row[1:]])
    for pruner in (fresh, again):
        pruner.recall("late", [(1, 3.0)])
    assert fresh.judge("late", 1, 3.0)
    assert again.judge("late", 1, 3.0)
    assert again.judge("late", 1, 3.0), "and the same once more"
    assert not again.judge("better", 1, 7.0)


def test_nothing_is_ended_after_the_last_epoch_nor_for_what_is_no_number() -> None:
    pruner = Pruner(PrunerSpec(name="asha", reduction=2), "maximize", 2)
    for index, (one, two) in enumerate(pairwise([90.0, 80.0, 70.0, 60.0])):
        pruner.judge(f"t{index}", 1, one)
        assert not pruner.judge(f"t{index}", 2, two)
    assert not pruner.judge("nan", 1, float("nan"))
    assert not pruner.judge("inf", 1, float("-inf"))
    assert pruner.judge("low", 1, 1.0)


def test_more_grace_than_epochs_is_said() -> None:
    with pytest.raises(UserError, match=r"pruner\.grace: 5 epochs of grace, and a trial has 3.*at most 2"):
        Pruner(PrunerSpec(name="asha", grace=5), "maximize", 3)
