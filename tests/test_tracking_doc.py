"""docs/tracking.md: its commands run, and its code does what it says."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from ablate.cli import main
from ablate.store import Study
from tests.conftest import REPOSITORY, TINY
from tests.installed import install
from tests.trackers import database, held, of_trials, tables

__all__ = ["database", "tables"]

TEXT = (REPOSITORY / "docs" / "tracking.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)


def commands() -> list[list[str]]:
    lines = [shlex.split(line, comments=True) for block in blocks("sh") for line in block.splitlines()]
    return [words[1:] for words in lines if words[0] == "ablate"]


def test_the_commands_and_the_code_do_what_they_say(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """In a folder with a spec of that name, which is tiny."""
    assert database == f"sqlite:///{tmp_path}/mlflow.db"  # what the page calls sqlite:///mlflow.db
    monkeypatch.setenv("ABLATE_TRACK_WAIT", "200")
    (tmp_path / "specs").mkdir()
    (tmp_path / "specs" / "placement.yaml").write_text(TINY.replace("name: tiny", "name: placement"))
    swept, *sent = commands()
    assert main([*swept, "--executor", "local", "--quiet"]) == 0
    assert "not all was sent" not in capsys.readouterr().err
    study = Study.open(tmp_path / "runs" / "placement")
    assert len(of_trials(held(database))) == 6
    (shown,) = re.findall(r"tensorboard --logdir (\S+)", TEXT)
    assert (tmp_path / shown / "se" / "seed-1").is_dir()
    assert len(sent) == 2
    for words in sent:
        assert main(words) == 0
    said = capsys.readouterr().out
    assert said.count("6 of 6 trials, finished") == 3
    assert (tmp_path / "logs" / "placement" / "se" / "seed-1").is_dir()
    query, tracker = blocks("python")
    names: dict[str, Any] = {}
    exec(query, names)
    results = study.results()
    hashes = study.variants[1]["trials"].values()
    assert sorted(names["accuracies"]) == sorted(results[hash]["metrics"]["test.accuracy"] for hash in hashes)
    (entry_points,) = [tomllib.loads(block)["project"]["entry-points"] for block in blocks("toml")]
    install(tmp_path / "site", "acme-tracker", entry_points, {"acme_tracker": tracker})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert main(["track", "sync", str(study.folder), "--to", f"acme={tmp_path / 'acme.txt'}"]) == 0
    assert len((tmp_path / "acme.txt").read_text().splitlines()) == 6


def test_what_a_run_has_is_named_as_it_is(tmp_path: Path) -> None:
    from ablate.outcomes import RESULTS

    statuses = re.search(r"`FINISHED`; `FAILED`: (.*?); `KILLED`: (.*?) \|", TEXT)
    assert statuses is not None
    words = {word.replace(" ", "_") for word in re.split(r", | or ", " or ".join(statuses.groups()))}
    assert words | {"finished"} == {*RESULTS, "interrupted"}
