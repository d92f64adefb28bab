"""What a search found, against brute force: ranking, front, history, slices, correlations, counts."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, spearmanr

from ablate.findings import best_spec, correlations, findings_of, fronts, histories, slices
from ablate.findings.ranking import ranked
from ablate.findings.scales import columns_of, scale_of
from ablate.findings.values import Findings, Trial
from ablate.spec import load
from tests.searches import BLOCK, LR, REDUCTION, refused, search, trained

WAYS = ("minimize", "maximize")


def trial(number: int, status: str = "finished", **metrics: float) -> Trial:
    return Trial(number, str(number), f"{number:032x}", {}, {}, status, metrics)


def dominates(one: Trial, other: Trial, objectives: dict[str, str]) -> bool:
    pairs = [(one.metrics[m], other.metrics[m], way) for m, way in objectives.items()]
    no_worse = all(a <= b if way == "minimize" else a >= b for a, b, way in pairs)
    return no_worse and any(a != b for a, b, _ in pairs)


@given(
    st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=25),
    st.integers(1, 3),
    st.tuples(*[st.sampled_from(WAYS)] * 3),
)
def test_the_front_is_what_no_other_dominates_and_comes_first(
    rows: list[tuple[int, ...]], count: int, ways: tuple[str, ...]
) -> None:
    objectives = dict(zip("abc"[:count], ways, strict=False))
    trials = [trial(number, **dict(zip("abc", map(float, row), strict=True))) for number, row in enumerate(rows)]
    order, on_front = ranked(trials, objectives)
    assert sorted(t.number for t in order) == list(range(len(rows)))
    for place, each in enumerate(order):
        beaten = any(dominates(other, each, objectives) for other in trials)
        assert beaten == (place >= on_front)
        assert not any(dominates(later, each, objectives) for later in order[place + 1 :])


def test_of_one_objective_all_that_are_equally_best_are_on_the_front() -> None:
    trials = [trial(n, a=value) for n, value in enumerate([2.0, 3.0, 1.0, 3.0])]
    order, on_front = ranked(trials, {"a": "maximize"})
    assert [t.number for t in order] == [1, 3, 0, 2]
    assert on_front == 2


def test_what_failed_was_pruned_or_is_not_finite_is_in_no_ranking(tmp_path: Path) -> None:
    values = {BLOCK: "se", REDUCTION: 2, LR: 0.1}
    study = search(
        tmp_path,
        [
            trained(0, values, {"val.accuracy": 90.0}),
            trained(1, values, {"val.accuracy": 99.0}, status="pruned", epochs=2),
            trained(2, values, {"val.accuracy": math.nan}),
            trained(3, values, {"val.accuracy": 99.0}, status="diverged"),
            trained(4, values, {}, status="crashed", epochs=1),
            trained(5, values, {"val.loss": 0.1}),
            trained(6, values, None),
            refused(7, "rejected", "params", broken=["params", "flops"]),
            refused(8, "rejected", "params", broken=["params"]),
            refused(9, "duplicate", of=0),
            refused(10, "impossible", "hidden width 0"),
            refused(11, "filtered", "too low"),
        ],
    )
    found = findings_of(study)
    assert [t.number for t in found.ranked] == [0]
    assert found.fates == {"finished": 3, "pruned": 1, "diverged": 1, "crashed": 1, "waiting": 1}
    assert [t.number for t in found.unmeasured] == [2, 5]
    assert (found.failed, found.missing, found.done, found.proposed) == (2, 1, 4, 12)
    assert found.outcomes == {"trained": 7, "rejected": 2, "duplicate": 1, "impossible": 1, "filtered": 1}
    assert found.broken == {"params": 2, "flops": 1}
    assert found.reasons["impossible"] == {"hidden width 0": 1}
    assert (found.epochs_saved, found.epochs) == (3, 23)
    (history,) = histories(found)
    assert history.best == ((0, 90.0),)
    assert history.pruned == ((1, 99.0),)


def test_seconds_are_the_results_and_what_is_known_before_training_is_the_proposals(tmp_path: Path) -> None:
    study = search(
        tmp_path,
        [trained(n, {LR: 0.1}, {"val.accuracy": 90.0}, latency=latency) for n, latency in enumerate([0.2, 0.1])],
        objectives={"latency": "minimize", "seconds": "minimize"},
    )
    found = findings_of(study)
    assert [t.metrics["latency"] for t in found.ranked] == [0.1, 0.2]
    assert found.ranked[0].metrics["seconds"] == 7.5


def random_findings(seed: int, count: int = 40, **section: object) -> Findings:
    random_ = random.Random(seed)
    trials = []
    for number in range(count):
        block = random_.choice(["se", "cbam", "simam"])
        values = {BLOCK: block, LR: random_.uniform(0.001, 0.5)}
        values |= {} if block == "simam" else {REDUCTION: random_.choice([2, 4, 8])}
        metrics = {"val.accuracy": float(random_.randint(80, 90)), "flops": float(random_.randint(1, 9))}
        labels = {path: str(value) for path, value in values.items()}
        status = random_.choice(["finished"] * 4 + ["pruned"])
        trials.append(Trial(number, str(number), f"{number:032x}", labels, values, status, metrics, 5, 5))
    objectives = {"val.accuracy": "maximize", "flops": "minimize"}
    space = {BLOCK: {"choice": ["simam", "cbam", "se"]}, LR: {"float": [0.001, 0.5], "log": True}}
    order, on_front = ranked(trials, objectives)
    told = {"file": "a.yaml", "objectives": objectives, "space": space, **section}
    return Findings("a", told, (BLOCK, LR, REDUCTION), tuple(trials), order, on_front, {}, {}, {})


def test_the_best_so_far_is_the_running_extreme() -> None:
    found = random_findings(1)
    for history in histories(found):
        extreme = max if history.way == "maximize" else min
        steps, values = [], []
        for number, value in history.finished:
            values.append(value)
            if len(values) == 1 or extreme(values) != extreme(values[:-1]):
                steps.append((number, extreme(values)))
        assert history.best == tuple(steps)
        assert len(history.finished) == sum(t.status == "finished" for t in found.trials)


@pytest.mark.parametrize("ways", [(a, b) for a in WAYS for b in WAYS])
def test_the_staircase_separates_what_was_reached_from_what_was_not(ways: tuple[str, str]) -> None:
    random_ = random.Random(7)
    trials = [trial(n, y=random_.random(), x=random_.random()) for n in range(60)]
    objectives = {"y": ways[1], "x": ways[0]}
    order, on_front = ranked(trials, objectives)
    found = Findings("a", {"objectives": objectives}, (), tuple(trials), order, on_front, {}, {}, {})
    (pair,) = fronts(found)
    assert (pair.x, pair.y) == ("x", "y")
    sign = [1 if way == "minimize" else -1 for way in ways]
    reached = [(sign[0] * x, sign[1] * y) for _, x, y in (*pair.front, *pair.others)]
    corners = [(sign[0] * x, sign[1] * y) for x, y in pair.steps]
    assert len(corners) == 2 * len(pair.front) - 1
    for (a, b), (c, d) in pairwise(corners):
        assert (a == c) != (b == d)  # along an axis
        # a little better than the middle of an edge: none is there; a little worse: some is
        x, y = (a + c) / 2, (b + d) / 2
        assert not any(p <= x - 1e-9 and q <= y - 1e-9 for p, q in reached)
        assert any(p <= x + 1e-9 and q <= y + 1e-9 for p, q in reached)


def test_a_front_of_three_objectives_has_no_staircase() -> None:
    found = random_findings(2)
    three = {"val.accuracy": "maximize", "flops": "minimize", "x": "minimize"}
    trials = [Trial(t.number, t.name, t.hash, {}, {}, "finished", {**t.metrics, "x": 1.0}) for t in found.trials]
    order, on_front = ranked(trials, three)
    pairs = fronts(Findings("a", {"objectives": three}, (), tuple(trials), order, on_front, {}, {}, {}))
    assert [(pair.x, pair.y, pair.steps) for pair in pairs] == [
        ("flops", "val.accuracy", ()),
        ("x", "val.accuracy", ()),
    ]


def test_slices_have_each_ranked_trial_where_its_path_is_active() -> None:
    found = random_findings(3)
    rows = slices(found)
    assert [[(panel.scale.path, panel.objective) for panel in row] for row in rows] == [
        [(path, metric) for metric in found.objectives] for path in (BLOCK, LR, REDUCTION)
    ]
    for panel in (panel for row in rows for panel in row):
        path = panel.scale.path
        expected = {
            (t.name, t.labels[path] if panel.scale.categories else t.values[path], t.metrics[panel.objective])
            for t in found.ranked
            if path in t.labels
        }
        assert set(panel.points) == expected
        assert panel.inactive == len(found.ranked) - len(expected)


def test_categories_are_in_the_order_of_the_space_and_numbers_by_size() -> None:
    found = random_findings(4)
    assert list(scale_of(found, BLOCK).categories) == ["simam", "cbam", "se"]
    scale = scale_of(found, LR)
    assert (scale.low, scale.high, scale.log, scale.step) == (0.001, 0.5, True, 0)
    # a path of which the space says nothing: numbers from the least to the most that was tried
    assert (scale_of(found, REDUCTION).low, scale_of(found, REDUCTION).high) == (2, 8)
    choice = random_findings(4, space={REDUCTION: {"choice": [8, 2, 4]}})
    assert list(scale_of(choice, REDUCTION).categories) == ["2", "4", "8"]


def test_paths_that_the_space_writes_as_one_are_one_column(tmp_path: Path) -> None:
    space = {"network.graph.$each.repeat": {"each": "stage*", "int": [1, 5]}, LR: {"float": [0.1, 0.5]}}
    paths = [f"network.graph.stage{n}.repeat" for n in (1, 2)]
    found = findings_of(
        search(
            tmp_path,
            [trained(n, {paths[0]: 1 + n, paths[1]: 3 - n, LR: 0.1 * n + 0.1}, {"val.accuracy": 9.0}) for n in (0, 1)],
            space=space,
        )
    )
    assert columns_of(found) == {"repeat": paths, "lr": [LR]}
    assert scale_of(found, paths[0]).step == 1
    assert scale_of(found, paths[0]).high == 5


def test_rank_correlations_are_scipys_over_the_finished_trials() -> None:
    found = random_findings(5)
    (each,) = correlations(found)  # flops with val.accuracy; not the other way round
    finished = [t for t in found.trials if t.status == "finished"]
    pairs = [t.metrics["flops"] for t in finished], [t.metrics["val.accuracy"] for t in finished]
    assert (each.known, each.objective, each.n) == ("flops", "val.accuracy", len(finished))
    assert each.spearman == pytest.approx(spearmanr(*pairs).statistic)
    assert each.kendall == pytest.approx(kendalltau(*pairs).statistic)


def test_the_winner_is_a_plain_spec_that_loads(tmp_path: Path, tiny: Path) -> None:
    values = {BLOCK: "se", LR: 0.03}
    study = search(tmp_path / "s", [trained(3, values, {"val.accuracy": 91.5})])
    found = findings_of(study)
    tree = {**load(tiny).tree, "profile": "x", "paper": [{"title": "of other variants"}]}
    text = best_spec(tree, found, found.ranked[0])
    path = tiny.with_name("best.yaml")
    path.write_text(text, encoding="utf-8")
    spec = load(path)
    assert spec.tree["name"] == "placement-best"
    assert spec.tree["network"] == load(tiny).tree["network"]
    assert spec.tree["ablation"] == {"seeds": [1, 2, 3], "design": "variants", "variants": {"best": {}}}
    assert "paper" not in spec.tree
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert head[0] == "# Best of 1 finished trial of placement over search_spaces/attention.yaml: number 3."
    assert "val.accuracy (maximize) 91.50 %" in head[1]
    assert f"#   {LR} = 0.03" in head


@pytest.mark.parametrize(
    ("written", "searched", "expected"),
    [
        (None, 0, [1, 2, 3]),
        (None, 2, [0, 1, 3]),
        (1, 0, [1, 2, 3]),
        ([7, 9], 7, [0, 1, 2]),
        (3, 0, [1, 2]),
        ([7, 9, 11], 7, [9, 11]),
        ([0, 1, 2], 5, [0, 1, 2]),
    ],
)
def test_the_winner_is_trained_on_other_seeds_than_the_one_it_was_chosen_on(
    tmp_path: Path, written: object, searched: int, expected: list[int]
) -> None:
    found = findings_of(search(tmp_path, [trained(0, {LR: 0.1}, {"val.accuracy": 9.0})], seed=searched))
    tree = {"name": "a"} if written is None else {"name": "a", "ablation": {"seeds": written, "factors": {}}}
    text = best_spec(tree, found, found.ranked[0])
    assert yaml.safe_load(text)["ablation"]["seeds"] == expected
    assert f"with one seed ({searched})" in text
    assert "other seeds than the search's" in text


def test_the_winners_spec_says_where_it_stands(tmp_path: Path) -> None:
    trials = [trained(n, {LR: 0.1}, {"val.accuracy": 90.0 - n}, flops=9 - n) for n in range(3)]
    trials.append(trained(3, {LR: 0.1}, {"val.accuracy": 99.0}, status="pruned", epochs=1))
    found = findings_of(search(tmp_path / "one", trials))
    where = "of placement over search_spaces/attention.yaml"
    assert [best_spec({}, found, each).splitlines()[0] for each in found.trials] == [
        f"# Best of 3 finished trials {where}: number 0.",
        f"# Rank 2 of 3 finished trials {where}: number 1.",
        f"# Rank 3 of 3 finished trials {where}: number 2.",
        f"# Number 3 (pruned), in no ranking, of the 4 trials {where}.",
    ]
    two = findings_of(search(tmp_path / "two", trials, objectives={"val.accuracy": "maximize", "flops": "minimize"}))
    assert best_spec({}, two, two.ranked[1]).startswith(f"# On the front of 3 finished trials {where}: number 1.")


def test_what_a_name_holds_is_no_yaml_of_the_winners_spec(tmp_path: Path) -> None:
    label = "a\nnetwork: null"
    study = search(
        tmp_path, [trained(0, {BLOCK: label}, {"test.accuracy": 9.0})], objectives={"test.accuracy": "maximize"}
    )
    found = findings_of(study)
    text = best_spec({"name": "a"}, found, found.ranked[0])
    assert [line for line in text.splitlines() if line.startswith("network")] == []
    assert "# Chosen on the test split: test.accuracy." in text.splitlines()
