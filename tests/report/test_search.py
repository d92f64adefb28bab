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

from ablate.findings import findings_of, importances
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


def test_a_search_without_a_ranked_trial_has_a_table_and_a_report(tmp_path: Path) -> None:
    study = search(tmp_path, [refused(0, "rejected", "params", broken=["params"])])
    assert search_table(study).rows == ()
    assert "1 proposal by tpe: 1 rejected." in search_table(study).caption
    assert [path.name for path in write_report(study)] == [
        f"{name}.{suffix}" for name in ("table", "importance") for suffix in ("md", "tex", "csv")
    ]


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
    assert written[6:] == [
        f"{name}.{kind}" for name in ("history", "front", "slices") for kind in ("json", "svg", "png")
    ]
    assert all((study.folder / "report" / name).stat().st_size for name in written)
