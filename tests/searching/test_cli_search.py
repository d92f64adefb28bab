"""``ablate search`` from its command line to the files that it leaves, and from Python."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ablate
from ablate.cli import main

SPEC = """\
name: tiny
data: {name: fake, shape: [3, 8, 8], classes: 3, count: {train: 48, test: 12}, val: 0.25}
train: {epochs: 1, batch_size: 12, precision: fp32, optimizer: {name: sgd, lr: 0.05, momentum: 0.9}}
network:
  graph:
    stem: {block: conv_bn_act, width: 4, kernel: 3}
    body: {block: basic, width: 4, repeat: 1, shortcut: pad}
    head: {block: classifier}
  insert:
    attention: {block: se, reduction: 2, at: after body}
execution: {threads: 1}
"""
SPACE = {
    "space": {
        "network.insert.attention.block": {"choice": ["simam", "eca"]},
        "train.optimizer.lr": {"float": [0.01, 0.3], "log": True},
    },
    "objectives": {"val.accuracy": "maximize"},
    "sampler": {"name": "random"},
    "budget": {"trials": 2},
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("spec.yaml").write_text(SPEC)
    Path("space.yaml").write_text(json.dumps(SPACE))  # JSON is YAML
    return tmp_path


def test_it_searches_prints_writes_and_names_the_next_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["search", "spec.yaml", "--space", "space.yaml", "--executor", "local"]
    assert main([*command, "--best", "best.yaml"]) == 0
    told = capsys.readouterr()
    assert "tiny over space.yaml: 2 trials ranked" in told.out
    assert told.err.splitlines()[-1] == "next: ablate sweep best.yaml"
    study = ablate.Study("runs/tiny-space")
    assert len(study.results()) == 2
    assert main(["check", "best.yaml"]) == 0  # without the reduction that was SE's
    capsys.readouterr()
    assert main(["report", "runs/tiny-space", "--json"]) == 0
    values = capsys.readouterr().out
    (best,) = [trial for trial in json.loads(values)["trials"] if trial["rank"] == 1]
    assert best["metrics"]["val.accuracy"] == max(r["metrics"]["val.accuracy"] for r in study.results().values())
    assert {"table.md", "history.svg", "history.png", "history.numbers.json", "report.html"} <= {
        path.name for path in Path("runs/tiny-space/report").iterdir()
    }


def test_from_python_a_space_may_be_a_mapping(here: Path) -> None:
    study = ablate.search(ablate.load("spec.yaml"), SPACE, trials=1, executor="local", cache=False)
    assert study.folder == Path("runs/tiny-search")
    assert len(study.results()) == len(study.values().rows) == 1


def test_options_that_would_say_nothing_are_mistakes_all_at_once(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["search", "spec.yaml", "--space", "space.yaml"]
    assert main([*command, "--static", "--best", "x.yaml", "--out", "y", "--epochs", "3"]) == 2
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["--epochs", "--out", "--best"]
    assert main([*command, "--limit", "3", "--number", "4", "--time", "2"]) == 2
    told = capsys.readouterr().err
    assert "--limit" in told
    assert "--number goes with --best" in told
    assert main([*command, "--time", "90"]) == 2
    assert "--time 90" in capsys.readouterr().err
