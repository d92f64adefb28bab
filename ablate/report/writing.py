"""Writes a study's ``report/``: tables in each format, and of a search its figures with their numbers."""

from __future__ import annotations

import json
from pathlib import Path

from ablate.disk import write
from ablate.findings import findings_of, importances, is_search
from ablate.report.render import render
from ablate.report.search import importance_table, search_table
from ablate.report.tables import ablation_table
from ablate.report.values import Table
from ablate.store import Study

_FILES = {"md": "markdown", "tex": "latex", "csv": "csv"}


def write_report(study: Study) -> list[Path]:
    """Write ``report/table.md``, ``table.tex`` and ``table.csv``; returns the paths.

    Of a search, the table is that of all its ranked trials; beside it are ``importance.md``, ``.tex`` and ``.csv``,
    where there are trials enough to say what mattered, and each figure as SVG, as PNG and, its numbers, as JSON.
    """
    return _write_search(study) if is_search(study) else _write_table(study, "table", ablation_table(study))


def _write_search(study: Study) -> list[Path]:
    from ablate.figures import search_figures

    found = findings_of(study)
    by_path = importances(found)
    written = _write_table(study, "table", search_table(study, None, found))
    if by_path:
        written += _write_table(study, "importance", importance_table(found, by_path))
    for figure in search_figures(found, by_path):
        written.append(study.save_report(f"{figure.name}.json", json.dumps(figure.numbers, indent=1) + "\n"))
        for suffix, image in (("svg", figure.images.svg), ("png", figure.images.png)):
            path = written[-1].with_name(f"{figure.name}.{suffix}")
            write(path, image)
            written.append(path)
    return written


def _write_table(study: Study, name: str, table: Table) -> list[Path]:
    """A file in each format."""
    return [study.save_report(f"{name}.{suffix}", render(table, format)) for suffix, format in _FILES.items()]
