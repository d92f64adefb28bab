"""The guides of docs/, followed to the letter."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from ablate.cli import parser
from ablate.design import study_plan
from ablate.spec import load
from tests.conftest import REPOSITORY
from tests.guided import follow

DOCS = REPOSITORY / "docs"
GUIDES = ("first_ablation.md", "certificate.md", "security.md", "reproduce.md", "comparison.md")


@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_does_what_it_says(name: str, tmp_path: Path) -> None:
    for folder in ("specs", "search_spaces"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    follow((DOCS / name).read_text(encoding="utf-8"), tmp_path)


def test_a_guide_that_says_what_is_not_so_is_caught(tmp_path: Path) -> None:
    page = "```console\n$ ablate blocks se\nsqueeze the lemon\n```\n"
    with pytest.raises(AssertionError, match="did not print: squeeze the lemon"):
        follow(page, tmp_path)
    with pytest.raises(AssertionError):
        follow("```console\n$ ablate check nowhere.yaml\n```\n", tmp_path)


def test_no_example_of_a_guide_is_left_out() -> None:
    """A console fence that does not begin with a prompt would not be run."""
    for name in GUIDES:
        for fence in re.findall(r"^```console\n(.*?)^```$", (DOCS / name).read_text(encoding="utf-8"), re.M | re.S):
            assert fence.startswith("$ ablate "), f"{name}: {fence}"


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*DOCS.glob("*.md"), REPOSITORY / "README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def commands_in(text: str) -> list[list[str]]:
    """What is typed at a prompt, in fences of any kind and in tables: the words after ``ablate``."""
    fenced = "\n".join(re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    lines = re.findall(r"^(?:\$ )?ablate ([^#\n]*?)(?:\s{3,}[^\n]*|\s*#[^\n]*)?$", fenced, re.MULTILINE)
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize("page", [*sorted(DOCS.glob("*.md")), REPOSITORY / "README.md"], ids=lambda page: page.name)
def test_every_command_on_a_page_is_one_that_there_is(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With options that it takes; those that are quick are run by the tests of their page."""
    if page.name == "commands.md":  # its usage lines are patterns, and made by the parser itself
        return
    for words in commands_in(page.read_text(encoding="utf-8")):
        refused = None
        try:
            parser().parse_args(words)
        except SystemExit as left:
            refused = left.code
        assert not refused, f"{page.name}: ablate {shlex.join(words)}\n{capsys.readouterr().err}"


FRAGMENTS = ("statistics.md", "speed.md", "cluster.md", "report.md")


@pytest.mark.parametrize("name", FRAGMENTS)
def test_fragments_of_specs_are_sound_on_a_spec(name: str, tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "specs", tmp_path / "specs")
    for number, text in enumerate(re.findall(r"^```yaml\n(.*?)^```$", (DOCS / name).read_text("utf-8"), re.M | re.S)):
        spec = tmp_path / "specs" / f"fragment{number}.yaml"
        spec.write_text(f"extends: placement.yaml\n{text}", encoding="utf-8")
        assert study_plan(load(spec, sets=["train.epochs=30"])).variants
