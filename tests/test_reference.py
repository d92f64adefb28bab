"""docs/spec.md and docs/commands.md: current, and nothing missing."""

from __future__ import annotations

import json
import re
import runpy
from functools import cache
from pathlib import Path

from ablate.cli import parser
from ablate.grammar import AblationSpec, ExecutionSpec, ReportSpec
from ablate.recipe import TrainSpec
from tests.conftest import REPOSITORY


@cache
def pages() -> dict[Path, str]:
    found: dict[Path, str] = runpy.run_path(str(REPOSITORY / "docs" / "build_reference.py"))["pages"]()
    return found


def page(name: str) -> str:
    return pages()[REPOSITORY / "docs" / name]


def test_the_pages_in_the_repository_are_current() -> None:
    for file, text in pages().items():
        assert file.read_text(encoding="utf-8") == text, "run: make reference"


def test_every_key_of_the_sections_is_on_the_page() -> None:
    keys = set(re.findall(r"^\| `([^`]+)` \|", page("spec.md"), re.MULTILINE))
    sections = {"train": TrainSpec, "ablation": AblationSpec, "execution": ExecutionSpec, "report": ReportSpec}
    for section, model in sections.items():
        assert {f"{section}.{name}" for name in model.model_fields} <= keys
    assert {"network.insert.*.at", "train.optimizer (sgd).nesterov", "paper[].values"} <= keys
    schema = json.loads((REPOSITORY / "ablate" / "spec.schema.json").read_text(encoding="utf-8"))
    assert set(schema["properties"]["data"]["properties"]) <= {key.removeprefix("data.") for key in keys}


def test_every_command_is_on_the_page() -> None:
    text = page("commands.md")
    (commands,) = (action for action in parser()._actions if action.dest == "==SUPPRESS==" and action.choices)
    assert len(commands.choices or ()) > 20
    for command in commands.choices or ():
        assert f"## ablate {command}\n" in text
    assert "| `--executor {ray,local}` |" in text
