"""The report: tables and figures, computed from a study's folder alone."""

from ablate.report.render import FORMATS, render
from ablate.report.tables import Cell, Column, Table, ablation_table
from ablate.report.writing import Report, report_of, write_report, written

__all__ = [
    "FORMATS",
    "Cell",
    "Column",
    "Report",
    "Table",
    "ablation_table",
    "render",
    "report_of",
    "write_report",
    "written",
]
