"""The report: tables and figures, computed from a study's folder alone."""

from __future__ import annotations

from pathlib import Path

from ablate.report.render import FORMATS, render
from ablate.report.tables import Cell, Column, Table, ablation_table
from ablate.store import Study

__all__ = ["FORMATS", "Cell", "Column", "Table", "ablation_table", "render", "write_report"]

_FILES = {"table.md": "markdown", "table.tex": "latex", "table.csv": "csv"}


def write_report(study: Study) -> list[Path]:
    """Write ``report/table.md``, ``table.tex`` and ``table.csv`` of the ablation table; returns their paths."""
    table = ablation_table(study)
    return [study.save_report(name, render(table, format)) for name, format in _FILES.items()]
