"""The LaTeX of a table compiles, whatever is written in it: by pdflatex, where there is one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ablate.analysis.arms import arms_of
from ablate.analysis.comparisons import comparisons_of
from ablate.report import ablation_table
from ablate.report.compared import comparison_tables
from ablate.report.render import render
from ablate.report.values import Cell, Column, Table
from tests.tabled import build

HOSTILE = [
    "\\input{/etc/passwd}",
    "\\\\[1cm] \\write18{rm}",
    "$x$ % & # _ ^ ~ { } < > | \" ` '",
    "[1cm] * =cmd ![x](http://x)",
    "\x1b[31mred\u202e \ud800 one\ntwo",
    "日本 ẍ ấ ḉ ✓ ₂ Ąą Þð «x» ¿¡ “q” ’ ﬁ ½ ‰ € → ≠ · µ ²ⁿ ∞ αβ",
    "".join(map(chr, range(0xA1, 0x180))),
]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="there is no pdflatex")
def test_every_table_compiles(tmp_path: Path) -> None:
    values = {"none": [97.0, 96.0, 98.0], "every_block": [99.5, 98.7, 100.3]}
    study = build(tmp_path, values, {"name": HOSTILE[2]})
    tables = [
        ablation_table(study),
        *comparison_tables(study, comparisons_of(study, "val.accuracy", arms_of(study))).values(),
    ]
    for text in HOSTILE:
        cell = Cell(text, note=text, best=True)
        tables.append(Table(text, (Column(text, text), Column("b", "", "right")), ((cell, cell),) * 2, text, (text,)))
    document = [r"\documentclass{article}", r"\usepackage{booktabs}", r"\usepackage{textcomp}", r"\begin{document}"]
    document += [*(render(table, "latex") for table in tables), r"\end{document}"]
    (tmp_path / "tables.tex").write_text("\n".join(document), encoding="utf-8")
    command = ["pdflatex", "-no-shell-escape", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-1500:]
    assert (tmp_path / "tables.pdf").stat().st_size > 10_000
