"""The page of all blocks: current, whole, and made of the blocks' own words."""

from __future__ import annotations

import re
from functools import cache

import pytest

from ablate import blocks_page
from ablate.block import BlockType, registry
from ablate.cli import main
from tests.conftest import REPOSITORY

BUILT_IN = {name: block for name, block in registry().items() if block.__module__.startswith("ablate.blocks.")}


@cache
def page() -> str:
    return blocks_page.page()


def part(name: str) -> str:
    found = re.search(rf"^### {name}\n(.*?)(?=^##|\Z)", page(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_page_in_the_repository_is_current() -> None:
    written = (REPOSITORY / "docs" / "blocks.md").read_text(encoding="utf-8")
    assert written == page(), "run: ablate blocks --markdown > docs/blocks.md"


@pytest.mark.parametrize("block", BUILT_IN.values(), ids=BUILT_IN)
def test_every_block_has_its_words_its_paper_its_cost_and_every_parameter(block: BlockType) -> None:
    text = part(block.name)
    assert f"[{block.name}](#{block.name})" in page()
    assert "parameters, " in text
    assert "FLOPs" in text
    for paper in re.findall(r"arXiv:\d{4}\.\d{4,5}", block.summary()):
        assert f"[{paper}](https://" in text
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+) \|$", text, re.MULTILINE)
    assert [row[0] for row in rows] == [*block.Params.model_fields]
    assert all(kind.strip() and description.strip() for _, kind, _, description in rows)
    assert (REPOSITORY / re.search(r"\[source\]\(\.\./(.+?)\)", text)[1]).is_file()  # type: ignore[index]


def test_what_is_said_of_one_block_is_what_a_closed_form_says() -> None:
    channels, hidden = 64, 64 // 16
    params = 2 * channels * hidden + hidden + channels
    assert f"{params} parameters, {2 * channels * hidden} FLOPs" in part("se")
    assert "`hidden: 4`" in part("se")
    assert "| `reduction` | integer \\> 0 | `16` |" in part("se")
    assert f"{2 * 9 * channels**2 + 4 * channels:,} parameters" in part("basic")
    assert "*(first of a repeat)*" in part("basic")
    assert "y = s ⊙ x\n```" in part("se")


def test_markup_in_a_docstring_is_escaped_but_for_code_and_papers() -> None:
    said = blocks_page._marked_up("a <b> of *x*, ``y*z`` and _w_, x_i: arXiv:1234.56789")
    assert said == (r"a \<b\> of \*x\*, `y*z` and \_w\_, x_i: [arXiv:1234.56789](https://arxiv.org/abs/1234.56789)")


def test_one_block_and_a_name_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["blocks", "se", "--markdown"]) == 0
    assert capsys.readouterr().out.startswith("### se\n")
    assert main(["blocks", "see", "--markdown"]) == 2
    assert "did you mean 'se'?" in capsys.readouterr().err
