"""What `ablate search` says of the wrong spaces under ``wrong_spaces``: every line, with its place and its hint.

``NAME.txt`` beside ``NAME.yaml`` holds the lines. A second comment line in a space, ``# arguments: …``, is put on the
command line; ``# trained`` stands for a search that trains. To accept new words after having read them:
``python -m tests.test_wrong_spaces``.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from ablate.cli import main
from ablate.design import as_written
from ablate.spec import load
from ablate.static_search.search import spec_without_insertions
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "tests" / "wrong_spaces"
WRONG = sorted(FOLDER.glob("*.yaml"))
SPEC, TRAINED = "base/network.yaml", "base/trained.yaml"


def said(path: Path) -> tuple[int, str]:
    """The exit code, and what the command prints on stderr when it is called in the space's folder."""
    second = path.read_text(encoding="utf-8").splitlines()[1]
    arguments = second.removeprefix("# arguments: ").split() if second.startswith("# arguments: ") else []
    trained = second == "# trained"
    arguments += ["--executor", "local"] if trained else ["--static"]
    errors, output = io.StringIO(), io.StringIO()
    with contextlib.chdir(FOLDER), contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
        code = main(["search", TRAINED if trained else SPEC, "--space", path.name, "--quiet", *arguments])
    return code, errors.getvalue()


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_a_wrong_space_is_refused_with_these_words(path: Path) -> None:
    assert said(path) == (2, path.with_suffix(".txt").read_text(encoding="utf-8"))


def test_the_spec_that_they_are_tried_on_is_sound() -> None:
    """Else each would be refused for a mistake that is not its own."""
    assert spec_without_insertions(load(FOLDER / SPEC)).params > 0
    assert as_written(load(FOLDER / TRAINED)).train.epochs == 1


def test_every_expectation_has_its_space() -> None:
    assert len(WRONG) >= 20
    assert {path.stem for path in WRONG} == {path.stem for path in FOLDER.glob("*.txt")}


if __name__ == "__main__":
    for wrong in WRONG:
        wrong.with_suffix(".txt").write_text(said(wrong)[1], encoding="utf-8")
