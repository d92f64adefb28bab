"""docs/explain.md: its commands run, and its figures are those that there are."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from ablate.cli import main
from ablate.store import EXPLAINED
from tests.conftest import REPOSITORY
from tests.explain.studies import trained

TEXT = (REPOSITORY / "docs" / "explain.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]


@pytest.mark.slow
def test_every_command_runs_and_the_figures_are_those_of_the_table(tmp_path: Path) -> None:
    study = trained(tmp_path).folder
    assert len(COMMANDS) == 8
    found: set[str] = set()
    for command in COMMANDS:
        program, *arguments = shlex.split(command)
        assert program == "ablate"
        assert main([str(study) if each == "runs/attention" else each for each in arguments]) == 0, command
        found |= {each.stem for each in (study / EXPLAINED).glob("*.svg")}
        shutil.rmtree(study / EXPLAINED)
    rows = re.findall(r"^\| (`.*?) \|", TEXT, re.MULTILINE)
    assert set(re.findall(r"`([a-z0-9-]+)`", " ".join(rows))) == found
