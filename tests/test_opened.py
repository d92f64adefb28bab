"""A study's folder as Python and notebooks see it."""

from __future__ import annotations

import io
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

import ablate
from ablate import opened
from ablate.report.render import render
from ablate.report.values import Cell, Column, Table
from ablate.store import Study as Store
from tests.conftest import TINY


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The spec, and its study: three variants over two seeds, two epochs each."""
    folder = tmp_path_factory.mktemp("opened")
    (folder / "tiny.yaml").write_text(TINY)
    spec = ablate.load(folder / "tiny.yaml", set={"train.epochs": 2, "ablation.seeds": 2})
    return spec, ablate.sweep(spec, folder=folder / "study", executor="local", cache=False)


@pytest.fixture
def study(swept: Any) -> ablate.Study:
    return ablate.Study(swept[1].folder)


def test_what_a_sweep_returns_is_the_same_study(swept: Any, study: ablate.Study) -> None:
    assert type(swept[1]) is ablate.Study
    assert study.results() == swept[1].results()
    assert study.table().equals(swept[1].table())
    assert repr(study) == f"Study('{study.folder}': 3 variants, 6 of 6 trials)"


def test_the_table_is_numbers_with_their_intervals(study: ablate.Study) -> None:
    table = study.table()
    assert list(table["variant"]) == [record["name"] for record in study.variants]
    accuracy = {record["name"]: [] for record in study.variants}
    for record in study.variants:
        for hash in record["trials"].values():
            accuracy[record["name"]].append(study.results()[hash]["metrics"]["test.accuracy"])
    for _, row in table.iterrows():
        first, second = accuracy[row["variant"]]
        half = 12.706204736 * abs(first - second) / 2  # Student's t of 1 degree, times the error of the mean
        assert row["test.accuracy"] == pytest.approx((first + second) / 2)
        assert row["test.accuracy.high"] - row["test.accuracy"] == pytest.approx(half)
        assert row["test.accuracy.n"] == 2
    assert table["params"].tolist() == [record["cost"]["params"] for record in study.variants]
    assert table.attrs["units"]["test.accuracy"] == table.attrs["units"]["test.accuracy.low"] == "%"
    assert table.attrs["title"] == study.name
    assert study.table(["params", "seconds"]).columns[-2] != "test.accuracy"
    with pytest.raises(ablate.UserError, match="unknown column 'parms'; did you mean 'params'"):
        study.table(["parms"])


def test_a_row_per_trial(study: ablate.Study) -> None:
    trials = study.trials()
    assert len(trials) == len(study.results())
    assert set(trials["hash"]) == set(study.results())
    assert set(trials["status"]) == {"finished"}
    assert trials["seed"].tolist() == [0, 1] * 3
    row = trials[(trials["variant"] == "se") & (trials["seed"] == 1)].iloc[0]
    result = study.results()[row["hash"]]
    assert row["val.accuracy"] == result["metrics"]["val.accuracy"]
    assert (row["epochs"], row["seconds"]) == (2, result["seconds"])
    assert trials.attrs["hidden"] == []


def test_the_test_split_stays_hidden_until_every_trial_has_a_result(swept: Any, tmp_path: Path) -> None:
    shutil.copytree(swept[1].folder, tmp_path / "study")
    gone = next(iter(swept[1].results()))
    shutil.rmtree(tmp_path / "study" / "trials" / gone)
    trials = ablate.Study(tmp_path / "study").trials()
    assert trials.attrs["hidden"]
    assert not [name for name in trials.columns if name.startswith("test.")]
    assert trials.set_index("hash").loc[gone, "status"] == "waiting"
    assert math.isnan(trials.set_index("hash").loc[gone, "val.accuracy"])


def test_a_trial_epoch_by_epoch(study: ablate.Study) -> None:
    rows = study.metrics("se", 1)
    assert rows.index.name == "epoch"
    hash = next(record for record in study.variants if record["name"] == "se")["trials"]["1"]
    told = Store.open(study.folder).metrics(hash)
    assert rows["train.loss"].tolist() == [row["train.loss"] for row in told]
    assert len(rows) == 2
    assert not rows["train.loss"].equals(study.metrics("se")["train.loss"])  # the first seed


def test_the_trained_network(swept: Any, study: ablate.Study) -> None:
    spec, _ = swept
    model = study.model("se", 1)
    started = ablate.build(spec, variant="se", seed=1)
    assert not model.training
    assert any(not torch.equal(value, started.state_dict()[name]) for name, value in model.state_dict().items())
    file = study.folder.parent / "se.safetensors"
    ablate.export(spec, to="safetensors", variant="se", seed=1, study=study.folder, file=file)
    weights = load_file(file)
    for found in (model, study.model("se", 1, spec=spec)):
        assert all(torch.equal(weights[name], value) for name, value in found.state_dict().items())
    first = study.model("se").state_dict()
    assert any(not torch.equal(weights[name], value) for name, value in first.items())


def test_figures_are_pictures_of_a_notebook(study: ablate.Study) -> None:
    picture = study.figure("seeds")
    assert picture._repr_svg_().lstrip().startswith("<?xml")
    assert picture.png.startswith(b"\x89PNG")
    assert picture.numbers["metric"]
    assert repr(picture) == "Picture('seeds')"
    with pytest.raises(ablate.UserError, match="has no figure 'seds'; did you mean 'seeds'"):
        study.figure("seds")


def test_certificate_and_report(study: ablate.Study) -> None:
    certificate = study.certificate("se")
    assert certificate["variant"] == "se"
    assert certificate["failures"] == []
    page = study.report()
    assert page.name == "report.html"
    assert page.parent.parent == study.folder


def test_what_is_not_there_is_said(study: ablate.Study) -> None:
    for call in (study.metrics, study.model, study.certificate):
        with pytest.raises(ablate.UserError, match="has no variant 'betwen'; did you mean 'between'"):
            call("betwen")
        with pytest.raises(ablate.UserError, match="which variant of the study"):
            call()
    with pytest.raises(ablate.UserError, match="no trial of seed 7; its seeds: 0, 1"):
        study.metrics("se", 7)


def test_notebooks_and_terminals_show_the_table(study: ablate.Study) -> None:
    html = study._repr_html_()
    assert html.count("<tr>") == 4
    assert "test.accuracy (%)" in html
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(study)
    assert console.export_text().split() == render(study.values(), "terminal").split()


def test_names_in_html_are_escaped(study: ablate.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = "<script>"
    table = Table(bad, (Column(bad),), ((Cell(bad, note='"' + bad),),), bad, (bad,))
    monkeypatch.setattr(opened, "ablation_table", lambda *_: table)
    assert bad not in study._repr_html_()
    assert study._repr_html_().count("&lt;script&gt;") == 6


def test_without_pandas_it_says_what_to_install(study: ablate.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    for call in (study.table, study.trials, lambda: study.metrics("se")):
        with pytest.raises(ablate.UserError, match=r"needs the package pandas; pip install 'ablate-harness\[pandas\]'"):
            call()
    assert study.values().rows


def test_reading_a_study_imports_no_torch(study: ablate.Study) -> None:
    code = (
        "import sys, ablate; s = ablate.Study(sys.argv[1]); s.table(); s.trials(); s.metrics('se'); s.figure('seeds');"
        "s.certificate('se'); s.report(); s._repr_html_(); repr(s); print(sorted({'torch', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(study.folder)], check=True, cwd=Path(__file__).parents[1], capture_output=True
    )
    assert done.stdout.strip() == b"[]"


def test_a_search_has_its_own_table(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    spec = ablate.load(tmp_path / "tiny.yaml", set={"train.epochs": 1, "ablation": None})
    space = {
        "space": {"train.optimizer.lr": {"choice": [0.1, 0.2]}},
        "objectives": {"val.accuracy": "maximize"},
        "sampler": {"name": "grid"},
    }
    found = ablate.search(spec, space, folder=tmp_path / "search", executor="local", trials=2)
    assert len(found.table()) == len(found.values().rows) == 2
    assert found.figure("history")._repr_svg_()
    with pytest.raises(ablate.UserError, match="columns of its own"):
        found.table(["params"])
