"""The guides of docs/, followed to the letter."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.guided import follow, steps

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
    """A console fence without a prompt would not be run."""
    for name in GUIDES:
        text = (DOCS / name).read_text(encoding="utf-8")
        consoles = len(re.findall(r"^```console$", text, re.MULTILINE))
        assert len([step for step in steps(text) if step.kind == "command"]) >= consoles, name


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*DOCS.glob("*.md"), REPOSITORY / "README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
