"""The printer of ejected files: what it prints means the same, and ``ruff format`` leaves it as it is."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from ablate.ejecting.expressions import flat
from ablate.ejecting.pretty import commented, one_line, text_of
from tests.conftest import REPOSITORY

SOURCES = sorted((REPOSITORY / "ablate" / "blocks").rglob("*.py"))


def statements_of(text: str) -> list[ast.stmt]:
    """What the printer is for: no imports, no keywords of classes."""
    kept = [each for each in ast.parse(text).body if not isinstance(each, ast.Import | ast.ImportFrom)]
    for each in kept:
        if isinstance(each, ast.ClassDef):
            each.keywords = []
    return kept


def meaning(statements: list[ast.stmt]) -> list[str]:
    """The trees, with the spaces of texts left out: docstrings are laid out anew."""
    for statement in statements:
        for node in ast.walk(statement):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                node.value = " ".join(node.value.split())
    return [ast.dump(statement) for statement in statements]


def test_the_blocks_own_files_are_printed_as_ruff_has_them(tmp_path: Path) -> None:
    for source in SOURCES:
        text = source.read_text(encoding="utf-8")
        printed = text_of(statements_of(text))
        assert meaning(statements_of(printed)) == meaning(statements_of(text)), source.name
        (tmp_path / f"{source.parent.name}_{source.name}").write_text(printed, encoding="utf-8")
    command = [sys.executable, "-m", "ruff", "format", "--diff", "--isolated", "--line-length", "120", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == ""


@pytest.mark.parametrize(
    "code",
    [
        "(a + b) * c - (d - (e - f))",
        "-x**2 + (-x) ** 2 + 2 ** -x + (a.b) ** c[0]",
        "x[:, :, ::s, a + 1 :, : n - 1, ..., None]",
        "(yield_ if not (a and b or c) else (lambda q: q + 1))(3)",
        "a < b <= c and not d is None or e not in (1,)",
        "[i for i in range(3) if i] + [*rest, 1.0, 1e-06, -2]",
        "f(*a, k=1, **w)(x for x in y)",
        "'a\"b' + \"it's\" + 'plain' + f'{x!r:>4}'",
        "(1).real + 1.5.real",
        "a @ b @ (c @ d)",
        "not a == b",
    ],
)
def test_an_expression_keeps_its_meaning_on_one_line(code: str) -> None:
    tree = ast.parse(code, mode="eval").body
    assert ast.dump(ast.parse(flat(tree), mode="eval").body) == ast.dump(tree)


def test_comments_stand_beside_or_above_and_end_with_their_line() -> None:
    short, long = ast.parse("x = 1\ny = 2").body
    text = text_of([commented(short, ["first\nimport os"], beside="one\r"), commented(long, beside="2" * 120)])
    assert text == f"# first\\nimport os\nx = 1  # one\\r\n# {'2' * 120}\ny = 2\n"
    assert one_line("a\u202eb\x00") == "a\\u202eb\\x00"
