"""Every example in docs/search.md is a sound space, and the table on the page is what the command prints.

To write what it prints into the page after having read it: ``python -m tests.test_search_doc``.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from ablate import yamlfile
from ablate.cli import main
from ablate.space import KNOWN_METRICS, BudgetSpec, FilterSpec, PrunerSpec, SamplerSpec, grid_on
from ablate.space.distributions import KINDS
from ablate.space.grammar import Bound, SearchSpace, Target, read_space
from ablate.space.sampling import PRUNES, TAKES
from ablate.spec import load
from tests.conftest import REPOSITORY

PAGE = REPOSITORY / "docs" / "search.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
SPEC = REPOSITORY / "specs" / "placement.yaml"
CONSOLE = re.compile(r"^```console\n\$ ablate (.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def printed(folder: Path) -> str:
    """What the command of the page prints, in a folder with the page's space and the shipped specs."""
    name = EXAMPLES[0].split("\n", 1)[0].removeprefix("# ")
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(EXAMPLES[0], encoding="utf-8")
    (folder / "specs").symlink_to(REPOSITORY / "specs")
    match = CONSOLE.search(TEXT)
    assert match is not None
    output = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
        assert main(shlex.split(match[1])) == 0
    return output.getvalue()


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda text: text.split("\n", 2)[1].strip())
def test_an_example_is_sound_on_the_shipped_spec(text: str) -> None:
    space = read_space(yamlfile.loads(text, "example.yaml"), "example.yaml")
    assert grid_on(space, load(SPEC), trained=True).count != 1


def test_the_table_on_the_page_is_what_the_command_prints(tmp_path: Path) -> None:
    match = CONSOLE.search(TEXT)
    assert match is not None
    assert match[2] == printed(tmp_path)


SECTIONS = (SearchSpace, Bound, Target, SamplerSpec, PrunerSpec, BudgetSpec, FilterSpec)
WORDS = (*KINDS, *KNOWN_METRICS, *TAKES, *PRUNES, "when", "log", "each")
KEYS = sorted({*WORDS, *(key for section in SECTIONS for key in section.model_fields)})


@pytest.mark.parametrize("name", KEYS)
def test_every_key_is_on_the_page(name: str) -> None:
    assert re.search(rf"`{name}|[{{ ]{name}:|^{name}:", TEXT, re.MULTILINE)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        PAGE.write_text(CONSOLE.sub(lambda m: f"```console\n$ ablate {m[1]}\n{printed(Path(scratch))}```", TEXT))
