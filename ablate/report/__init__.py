"""The report: tables and figures, computed from a study's folder alone."""

from ablate.report.render import FORMATS, render
from ablate.report.tables import Cell, Column, Table, ablation_table
from ablate.report.writing import write_report

__all__ = ["FORMATS", "Cell", "Column", "Table", "ablation_table", "render", "write_report"]
