"""A study's figures: their numbers against plain Python and scipy, ids at their marks, names that never overlap."""

from __future__ import annotations

import itertools
import json
import random
import re
import statistics
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
from matplotlib.text import Text

from ablate.analysis.arms import Arm, arms_of
from ablate.analysis.costs import Priced, trade, trades_of
from ablate.analysis.curves import curves_of, rows_of
from ablate.analysis.effects import effects_of
from ablate.analysis.seeds import told
from ablate.figures import Figure, study_figures
from ablate.figures.canvas import draw, row_labels, settle
from ablate.figures.names import name_points
from ablate.store import Study

METRIC = "val.accuracy"
HOSTILE = "<script>$x$ & a name that goes on and on"
Errors = Mapping[str, list[list[float] | None]]
"""Variant → by seed the val.error of each epoch; None: that trial diverged."""


def build(folder: Path, errors: Errors, **spec: Any) -> Study:
    variants = [
        {
            "name": name,
            "levels": dict(zip("ab", name.split("/"), strict=False)),
            "baseline": None if index == 0 else next(iter(errors)),
            "duplicate_of": None,
            "trials": {str(seed): f"{100 * index + seed:032x}" for seed in range(len(by_seed))},
            "cost": {"params": 1000 + index, "flops": 10**6 * (1 + index)},
        }
        for index, (name, by_seed) in enumerate(errors.items())
    ]
    study = Study.create(folder / "study", {"name": "placement", "train": {"epochs": 3}, **spec}, variants, {})
    for variant, by_seed in zip(variants, errors.values(), strict=True):
        for hash, own in zip(variant["trials"].values(), by_seed, strict=True):
            study.begin({"hash": hash})
            rows = [
                {"epoch": i + 1, "val.error": error, "train.error": error / 2} for i, error in enumerate(own or [9])
            ]
            study.rewrite_metrics(hash, rows)
            metrics = {METRIC: 100 - rows[-1]["val.error"]}
            study.finish(
                hash,
                {"status": "finished" if own else "diverged", "metrics": metrics, "epochs": len(rows), "seconds": 7.0},
            )
    return study


def figures(study: Study) -> dict[str, Figure]:
    arms = arms_of(study)
    return {f.name: f for f in study_figures(study, arms, METRIC, (), effects_of(study, METRIC, arms))}


def test_a_curve_is_the_mean_of_the_trials_still_training_with_their_t_interval(tmp_path: Path) -> None:
    seeds = [[50.0, 31.0, 23.0], [47.0, 29.0, 19.0], [53.0, 37.0]]
    study = build(tmp_path, {"none": [*seeds, None], "se": [[41.0, 30.0, 20.0], [43.0, 32.0, 10.0]]})
    arms = arms_of(study)
    found = {(curve.variant, curve.metric): curve for curve in curves_of(rows_of(study, arms))}
    own = found["none", "val.error"]
    assert (own.epochs, own.n, own.band) == ((1, 2, 3), (3, 3, 2), "95% t-interval")
    for place in range(2):
        values = [seed[place] for seed in seeds]
        low, high = scipy.stats.t.interval(0.95, 2, statistics.mean(values), scipy.stats.sem(values))
        assert own.mean[place] == pytest.approx(statistics.mean(values))
        assert (own.low[place], own.high[place]) == pytest.approx((low, high))
    assert (own.mean[2], own.low[2]) == (21.0, None)
    two = found["se", "train.error"]
    assert (two.band, two.low[2], two.high[2]) == ("lowest to highest", 5.0, 10.0)
    text = figures(study)["curves"].text
    assert "those still training" in text
    assert "In no mean: 1 trial " in text


@pytest.mark.parametrize("metric", [METRIC, "val.error"])
def test_nobody_beats_a_variant_on_the_front(metric: str) -> None:
    generator = random.Random(3)
    points = [Priced(f"{i}", generator.randrange(7), generator.randrange(7), None, 1) for i in range(41)]
    sign = 1 if metric == "val.error" else -1

    def beaten(point: Priced) -> bool:
        own = (point.cost, sign * point.mean)
        others = [(each.cost, sign * each.mean) for each in points]
        return any(cost <= own[0] and mean <= own[1] and (cost, mean) != own for cost, mean in others)

    found = trade("flops", metric, points)
    assert {*found.front} == {each.variant for each in points if not beaten(each)}
    assert all(a == c or b == d for (a, b), (c, d) in itertools.pairwise(found.steps))


def test_a_cost_that_does_not_differ_has_no_panel(tmp_path: Path) -> None:
    study = build(tmp_path, {"none": [[9.0]], "se": [[8.0]]})
    assert [each.cost for each in trades_of(arms_of(study), METRIC)] == ["flops", "params"]


def test_the_baseline_and_the_best_are_told() -> None:
    def arm(name: str, value: float) -> Arm:
        result = {"status": "finished", "metrics": {METRIC: value, "val.error": 100 - value}}
        return Arm(name, {"name": name, "baseline": None if name == "a" else "a", "trials": {}}, {"0": result}, {})

    arms = [arm(*each) for each in (("a", 1.0), ("b", 5.0), ("c", 2.0), ("d", 9.0))]
    for metric in (METRIC, "val.error"):
        assert [each.name for each in told(arms, metric, 3)] == ["a", "b", "d"]


def test_each_mark_has_its_id_and_its_place(tmp_path: Path) -> None:
    study = build(tmp_path, {"none": [[9.0], [7.0], None], HOSTILE: [[8.0], [6.0], [1.0]]})
    made = figures(study)["seeds"]
    svg = ElementTree.fromstring(made.images.svg)
    ids = [element.attrib["id"] for element in svg.iter() if "id" in element.attrib]
    assert len(ids) == len({*ids})
    assert {*made.numbers["hover"]} == {id for id in ids if id.startswith("point:")}
    assert made.numbers["hover"]["point:1:2"] == f"{HOSTILE}, seed 2: 99.00%"
    assert "point:0:2" not in ids
    at = {
        element.attrib["id"]: float(element.attrib["x"])
        for element in svg.findall(".//{*}use")
        if "id" in element.attrib
    }
    values = {"point:0:0": 91.0, "point:0:1": 93.0, "point:1:2": 99.0, "point:1:mean": 95.0}
    places = [(at[id] - at["point:0:0"]) / (at["point:1:2"] - at["point:0:0"]) for id in values]
    assert places == pytest.approx([(value - 91) / 8 for value in values.values()], abs=1e-5)
    assert b"<script" not in made.images.svg
    json.dumps(made.numbers, allow_nan=False)


def test_published_values_are_drawn_under_the_papers_budget_alone(tmp_path: Path) -> None:
    paper = [{"title": "CNNtention", "table": 3, "metric": METRIC, "values": {"none": 92.5}}]
    for profile, there in (("paper", True), ("cpu", False)):
        study = build(tmp_path / profile, {"none": [[9.0]]}, paper=paper, profile=profile)
        made = figures(study)["seeds"]
        assert ("point:0:published0" in made.numbers["hover"]) == there
        assert ("another budget" in made.text) != there


def test_a_grid_has_its_effects_and_interactions(tmp_path: Path) -> None:
    places = itertools.product(enumerate("xyz"), enumerate("pqr"))
    cells = {f"{a}/{b}": [[10.0 + i + j + 3 * (i * j == 2) + s] for s in range(2)] for (i, a), (j, b) in places}
    made = figures(build(tmp_path, cells))
    assert [*made] == ["seeds", "costs", "effects", "interactions"]
    assert len(made["effects"].numbers["hover"]) == 6
    for name in ("effects", "interactions"):
        ids = re.findall(r'<use id="(point:[^"]*)"', made[name].images.svg.decode())
        assert sorted(ids) == sorted(made[name].numbers["hover"])


def test_names_overlap_neither_each_other_nor_points_nor_the_frame() -> None:
    generator = random.Random(5)
    named = [(f"name {i}", generator.gauss(0, 1), generator.gauss(0, 1)) for i in range(60)]
    seen = []

    def act(figure: Any) -> None:
        axes = figure.subplots()
        axes.scatter([x for _, x, _ in named], [y for *_, y in named])
        settle(figure)
        left_out = name_points(axes, named)
        assert len(axes.texts) == len(named) - len(left_out) > 20
        for text in axes.texts:
            text.update_positions(figure.canvas.get_renderer())
            seen.append(Text.get_window_extent(text))
        places = axes.transData.transform([each[1:] for each in named])
        frame = axes.get_window_extent()
        for box in seen:
            assert min(box.x0 - frame.x0, frame.x1 - box.x1, box.y0 - frame.y0, frame.y1 - box.y1) >= 0
            assert not any(box.x0 < x < box.x1 and box.y0 < y < box.y1 for x, y in places)
        for a, b in itertools.combinations(seen, 2):
            assert not (a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1)

    draw("names", act)
    assert seen


def test_labels_that_are_cut_stay_apart() -> None:
    names = ["one name that is long: 1", "one name that is long: 2", "one name, rather long: 1", "short"]
    cut = row_labels(names, 11)
    assert len({*cut}) == 4
    assert cut[3] == "short"
    assert all(len(each) <= 11 + len(" (2)") for each in cut)
