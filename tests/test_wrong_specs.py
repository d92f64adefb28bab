"""What `ablate check` says of the wrong specs under ``wrong_specs``: every line, with its place and its hint.

``NAME.txt`` beside ``NAME.yaml`` holds the lines. A third comment line in a spec, ``# arguments: …``, is put on the
command line. To accept new words after having read them: ``python -m tests.test_wrong_specs``.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import pytest

from ablate.cli import main
from ablate.design import as_written
from ablate.spec import load
from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "tests" / "wrong_specs"
WRONG = sorted(FOLDER.glob("*.yaml"))


def said(path: Path) -> tuple[int, str]:
    """The exit code, and what the command prints on stderr when it is called in the spec's folder."""
    third = path.read_text(encoding="utf-8").splitlines()[2]
    arguments = third.removeprefix("# arguments: ").split() if third.startswith("# arguments: ") else []
    errors, output = io.StringIO(), io.StringIO()
    with contextlib.chdir(FOLDER), contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
        code = main(["check", path.name, *arguments])
    return code, errors.getvalue()


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_a_wrong_spec_is_refused_with_these_words(path: Path) -> None:
    assert said(path) == (2, path.with_suffix(".txt").read_text(encoding="utf-8"))


def test_what_they_extend_is_sound() -> None:
    """Else each would be refused for a mistake that is not its own."""
    assert as_written(load(FOLDER / "base" / "resnet.yaml"))


def test_every_expectation_has_its_spec() -> None:
    assert len(WRONG) >= 30
    assert {path.stem for path in WRONG} == {path.stem for path in FOLDER.glob("*.txt")}


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_every_line_names_its_place(path: Path) -> None:
    for line in path.with_suffix(".txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("--"):
            continue  # a mistake on the command line
        file, row, column, _ = line.split(":", 3)
        assert (FOLDER / file).is_file()
        assert int(row) <= len((FOLDER / file).read_text(encoding="utf-8").splitlines())
        assert int(column) >= 1


if __name__ == "__main__":
    for wrong in WRONG:
        wrong.with_suffix(".txt").write_text(said(wrong)[1], encoding="utf-8")
