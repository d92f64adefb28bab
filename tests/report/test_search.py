"""A search's table: its rows, what stands beneath them, and what is written into the report's folder."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ablate.cli.searched import print_findings
from ablate.findings import correlations, findings_of, importances
from ablate.report import write_report
from ablate.report.render import render
from ablate.report.search import importance_table, record, search_table
from ablate.store import Study
from tests.searches import BLOCK, LR, REDUCTION, refused, search, trained

TWO = {"val.accuracy": "maximize", "flops": "minimize"}


def proposals() -> list[dict[str, Any]]:
    found = [
        trained(0, {BLOCK: "se", REDUCTION: 8, LR: 0.1}, {"val.accuracy": 97.0}, params=300, flops=41_000_000),
        trained(1, {BLOCK: "simam", LR: 0.0123456}, {"val.accuracy": 96.0}, params=290, flops=40_000_000),
        trained(2, {BLOCK: "cbam", REDUCTION: 2, LR: 0.5}, {"val.accuracy": 98.0}, params=310, flops=42_000_000),
        trained(3, {BLOCK: "cbam", REDUCTION: 4, LR: 0.5}, {"val.accuracy": 95.0}, params=310, flops=43_000_000),
        trained(4, {BLOCK: "se", REDUCTION: 4, LR: 0.2}, {"val.accuracy": 60.0}, status="pruned", epochs=1),
        trained(5, {BLOCK: "se", REDUCTION: 4, LR: 0.3}, {"val.accuracy": math.inf}),
        trained(6, {BLOCK: "se", REDUCTION: 4, LR: 0.4}, {}, status="crashed"),
        trained(7, {BLOCK: "se", REDUCTION: 4, LR: 0.4}, None),
        refused(8, "rejected", "params 312 is more than 311", broken=["params"]),
        refused(9, "duplicate", of=0),
        refused(10, "duplicate", of=1),
        refused(11, "impossible", "hidden width 0"),
        refused(12, "uncertified", "2 modules are never called"),
        refused(13, "filtered", "synflow 3.1 is less than 4.0"),
    ]
    return found


def texts(study: Study, column: str, top: int | None = None) -> list[str]:
    return [cell.text for cell in search_table(study, top).column(column)]


def test_the_best_first_with_what_varied_what_it_costs_and_who_is_on_the_front(tmp_path: Path) -> None:
    study = search(tmp_path, proposals(), objectives=TWO)
    assert [column.header for column in search_table(study).columns] == [
        *("number", "block", "reduction", "lr", "val.accuracy (%)", "flops (MACs)", "params", "epochs", "front")
    ]
    assert texts(study, "number") == ["2", "0", "1", "3"]
    assert texts(study, "front") == ["yes", "yes", "yes", ""]
    assert texts(study, "reduction") == ["2", "8", "—", "4"]
    assert texts(study, "lr") == ["0.5", "0.1", "0.01235", "0.5"]
    assert texts(study, "flops") == ["42.00 M", "41.00 M", "40.00 M", "43.00 M"]
    assert texts(study, "number", 2) == ["2", "0"]
    assert search_table(study, 2).title.endswith("4 trials ranked, the first 2")
    rows = list(csv.DictReader(io.StringIO(render(search_table(study), "csv"))))
    assert rows[2]["lr"] == "0.0123456"
    assert rows[2]["reduction"] == ""


def test_beneath_it_stands_what_became_of_the_others(tmp_path: Path) -> None:
    rule = {"by": "synflow", "keep": 0.25, "after": 8}
    table = search_table(search(tmp_path, proposals(), objectives=TWO, pruner={"name": "asha"}, filter=rule))
    proposed, fates = table.caption.split(". ")[:2]
    assert proposed.startswith("14 proposals by tpe: 8 trained, ")
    assert {*proposed.split(": ")[1].split(", ")} == {
        *("8 trained", "1 rejected", "2 duplicates", "1 filtered", "1 impossible", "1 uncertified")
    }
    assert fates == "Of the trained, 5 finished, 1 pruned, 1 crashed, 1 waiting"
    for said in (
        "Not complete: 1 trial of 8 without a result: 1 waiting.",
        "Rejected before training: 1 by params.",
        "Filtered: 1 not trained, whose synflow was not among the best 25% of those scored so far.",
        "1 impossible: hidden width 0.",
        "1 uncertified: 2 modules are never called.",
        "Pruned by asha, and in no ranking: 1 trial, which saved 4 of their 5 epochs; 31 were trained in all.",
        "In no ranking, since they did not finish: 1 crashed.",
        "In no ranking, since an objective is missing or not finite: 1 finished.",
        # ranks of accuracy 3 2 4 1, of flops 2 1 3 4, of params 2 1 3.5 3.5
        "Rank correlation with val.accuracy (Spearman / Kendall): flops −0.20 / +0.00 (n = 4), "
        "params +0.11 / +0.18 (n = 4); of those that were filtered it is not known.",
        "Nothing was selected on the test split.",
    ):
        assert said in table.footnotes, said


def test_a_choice_on_the_test_split_is_said_in_words(tmp_path: Path) -> None:
    trials = [trained(0, {LR: 0.1}, {"test.accuracy": 9.0})]
    assert (
        "Chosen on the test split: test.accuracy"
        in search_table(search(tmp_path / "test", trials, objectives={"test.accuracy": "maximize"})).caption
    )
    assert "test split" not in search_table(search(tmp_path / "val", proposals())).caption


def test_what_the_proposals_had_to_keep_is_said_as_it_was_written(tmp_path: Path) -> None:
    asked = {
        "constraints": {
            "params": {"max": 3000.0},
            "flops": {"min": 1e6},
            "activations": {"min": 1.0, "max": 2.5},
            "synflow": {"near": 27.5e6, "within": 50_000},
            "latency": {"max": 0.0125},
        },
        "sampler": {"name": "nsga2", "seed": 3},
        "seed": 7,
    }
    said = search_table(search(tmp_path / "a", proposals(), **asked)).caption
    bounds = (
        "Subject to params ≤ 3,000 and 1,000,000 ≤ flops and 1 ≤ activations ≤ 2.5 and synflow within 50,000 of "
        "27,500,000 and latency ≤ 12.5 ms"
    )
    assert f"{bounds}. Every trial with seed 7; nsga2 with seed 3. " in said
    rule = {"by": "synflow", "keep": 0.25, "after": 8}
    said = search_table(search(tmp_path / "b", proposals(), constraints={}, filter=rule)).caption
    assert "Filtered: synflow among the best 25% of those scored so far, once there are 8. " in said


def test_a_constraint_that_none_keeps_is_named_with_the_nearest_value(tmp_path: Path) -> None:
    def said(name: str, constraints: dict[str, Any], *known: dict[str, float]) -> tuple[str, tuple[str, ...]]:
        tried = [refused(n, "rejected", "x", broken=[*constraints][:1], known=each) for n, each in enumerate(known)]
        table = search_table(search(tmp_path / name, tried, constraints=constraints))
        return table.caption, table.footnotes

    known = [{"params": 1519}, {"params": 435}, {}]
    caption, notes = said("max", {"params": {"max": 10}}, *known)
    assert caption == (
        "3 proposals by tpe: 3 rejected. Subject to params ≤ 10. tpe with seed 0. "
        "No proposal keeps params ≤ 10: the nearest has 435."
    )
    assert notes == ("Rejected before training: 3 by params.",)
    assert "1,600 ≤ params: the nearest has 1,519." in said("min", {"params": {"min": 1600}}, *known)[0]
    assert (
        "within 100 of 600: the nearest has 435." in said("near", {"params": {"near": 600, "within": 100}}, *known)[0]
    )
    # each is kept by one of them
    both = {"params": {"max": 10}, "flops": {"max": 10}}
    caption, _ = said("both", both, {"params": 9, "flops": 11}, {"params": 11, "flops": 9})
    assert caption.endswith("Each constraint is kept by some proposals, and all of them by none.")


def test_the_test_split_is_read_once_a_trial(tmp_path: Path) -> None:
    once = "The test split is read once, after training, and decides nothing."
    trials = [trained(n, {LR: 0.1 + n}, {"val.accuracy": 9.0, "test.accuracy": 9.0}, protocol=[once]) for n in range(2)]
    said = "\n".join(search_table(search(tmp_path / "val", trials)).footnotes)
    assert once not in said
    assert "The test split is read once a trial, after training, and decides nothing; it is no ground to prefer" in said
    ranked_by_it = search(tmp_path / "test", trials, objectives={"test.accuracy": "maximize"})
    said = "\n".join(search_table(ranked_by_it).footnotes)
    assert "The test split is read once a trial, after training, and decides the ranking." in said


def test_a_path_that_ends_like_a_column_of_every_table_has_a_longer_name(tmp_path: Path) -> None:
    values = [{"train.epochs": 1 + n, "data.number": n, LR: 0.1 + n} for n in range(2)]
    study = search(tmp_path, [trained(n, each, {"val.accuracy": 9.0}) for n, each in enumerate(values)], space={})
    assert [column.header for column in search_table(study).columns] == [
        *("number", "train.epochs", "data.number", "lr", "val.accuracy (%)", "params", "flops (MACs)", "epochs")
    ]


def tuning(folder: Path) -> Study:
    trials = [
        trained(n, {LR: 0.1 + n}, {"val.accuracy": 9.0 + n}, flops=n, protocol=["There is no test split."], readings=0)
        for n in range(12)
    ]
    names = [f"{variant}/{n}" for variant in ("none", "se", "cbam") for n in range(4)]
    study = search(
        folder, [{**each, "name": name} for each, name in zip(trials, names, strict=True)], budget={"trials": 4}
    )
    return study


def test_a_tuning_is_several_searches_of_which_nothing_is_said_together(tmp_path: Path) -> None:
    study = tuning(tmp_path)
    found = findings_of(study)
    assert found.tuned == {"none": 4, "se": 4, "cbam": 4}
    assert correlations(found) == []
    assert importances(found) == []
    assert importance_table(found).caption == "Nothing is said: 12 ranked trials, of several searches at once."
    notes = search_table(study).footnotes
    assert notes == (
        "Tuning: 4 trials for each of 3 variants; ranked together here only to be looked at.",
        "The test split is left unread.",
    )


def test_ties_for_the_best_are_said_and_the_cheaper_come_first(tmp_path: Path) -> None:
    costs = [(9, 5), (7, 6), (7, 5), (8, 1), (1, 1)]
    trials = [
        trained(n, {LR: 0.1 + n}, {"val.accuracy": 90.0 if n < 4 else 80.0}, flops=flops, params=params)
        for n, (flops, params) in enumerate(costs)
    ]
    study = search(tmp_path / "tied", trials)
    assert texts(study, "number") == ["2", "1", "3", "0", "4"]
    assert "Ranked by val.accuracy (maximize): 2 is tied with 1, 3 and 0, of which" in search_table(study).caption
    assert "tied" not in search_table(search(tmp_path / "not", trials[3:])).caption


def test_what_was_written_is_one_line_and_what_is_missing_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = search(tmp_path, proposals(), objectives=TWO)
    assert print_findings(study, "terminal") == 1
    assert capsys.readouterr().err.splitlines() == [
        "What mattered takes at least 10 ranked trials to say.",
        f"1 trial missing, 1 failed: ablate status {study.folder}",
        f"wrote {study.folder}/report/ (14 files)",
    ]
    assert not [*(study.folder / "report").glob("importance*")]


def test_a_search_without_a_ranked_trial_has_a_table_and_a_report(tmp_path: Path) -> None:
    study = search(tmp_path, [refused(0, "rejected", "params", broken=["params"])])
    assert search_table(study).rows == ()
    assert "1 proposal by tpe: 1 rejected." in search_table(study).caption
    names = [f"table.{suffix}" for suffix in ("md", "tex", "csv", "json")]
    assert [path.name for path in write_report(study)] == [*names, "report.html"]


def test_the_record_has_every_trial_and_is_json(tmp_path: Path) -> None:
    found = findings_of(search(tmp_path, proposals(), objectives=TWO))
    told = json.loads(json.dumps(record(found, importances(found)), allow_nan=False))
    assert [(each["number"], each["rank"], each["front"]) for each in told["trials"]][:5] == [
        *((0, 2, True), (1, 3, True), (2, 1, True), (3, 4, False), (4, None, False))
    ]
    assert told["trials"][5]["metrics"]["val.accuracy"] is None
    assert told["importance"] == []
    assert importance_table(found).caption == "Nothing is said: 4 ranked trials, fewer than 10."


def test_neither_torch_nor_ray_nor_pyplot_is_imported(tmp_path: Path) -> None:
    study = search(tmp_path, proposals(), objectives=TWO)
    code = (
        "import sys, pathlib; from ablate.store import Study; from ablate.report import write_report; "
        "assert 'optuna' not in sys.modules and 'matplotlib' not in sys.modules; "
        "print(*(path.name for path in write_report(Study.open(pathlib.Path(sys.argv[1]))))); "
        "assert not {'torch', 'ray', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(study.folder)], text=True, capture_output=True, check=True
    )
    written = process.stdout.split()
    figures = [f"{name}.{kind}" for name in ("history", "front", "slices") for kind in ("numbers.json", "svg", "png")]
    assert written[4:] == [*figures, "report.html"]
    assert all((study.folder / "report" / name).stat().st_size for name in written)
