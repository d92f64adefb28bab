"""Writes a study's ``report/``: tables in each format, figures with their numbers, and all of it as one page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.analysis.arms import Arm, arms_of
from ablate.analysis.comparisons import Comparison, compared_metric, comparisons_of
from ablate.analysis.effects import Effects, effects_of
from ablate.disk import write
from ablate.figures import Figure, search_figures, study_figures
from ablate.findings import findings_of, importances, is_search
from ablate.report.claims import order_table
from ablate.report.compared import comparison_tables, effects_tables
from ablate.report.page import page
from ablate.report.render import finite, render
from ablate.report.search import importance_table, search_table
from ablate.report.tables import ablation_table
from ablate.report.values import Table
from ablate.store import Study

PAGE = "report.html"
FILES = {"md": "markdown", "tex": "latex", "csv": "csv", "json": "json"}


@dataclass(frozen=True)
class Report:
    """What a report shows of a study: ``tables`` by the name of their files, of which ``table`` is the first."""

    study: Study
    tables: dict[str, Table]
    figures: Sequence[Figure]
    arms: Sequence[Arm]


def report_of(study: Study, columns: Sequence[str] | None = None) -> Report:
    """All of it as values. ``columns`` of the table, else the spec's own; of a search they are its own."""
    if is_search(study):
        found = findings_of(study)
        by_path = importances(found)
        tables = {"table": search_table(study, None, found)}
        if by_path:
            tables["importance"] = importance_table(found, by_path)
        return Report(study, tables, list(search_figures(found, by_path)), arms_of(study))
    arms = arms_of(study)
    metric = compared_metric(study, arms)
    comparisons: list[Comparison] = comparisons_of(study, metric, arms) if metric else []
    effects: Effects | None = effects_of(study, metric, arms) if metric else None
    tables = {"table": ablation_table(study, columns, arms)}
    tables |= comparison_tables(study, comparisons) | effects_tables(study, effects)
    if (order := order_table(study, arms)) is not None:
        tables["order"] = order
    figures = study_figures(study, arms, metric, comparisons, effects)
    return Report(study, tables, list(figures), arms)


def write_report(study: Study, columns: Sequence[str] | None = None) -> list[Path]:
    """Write ``report/``; returns the paths, the table's first.

    Each table as Markdown, LaTeX, CSV and JSON; each figure as SVG, as PNG and, its numbers, as JSON; and
    ``report.html``, which has all of them.
    """
    return written(report_of(study, columns))


def written(report: Report) -> list[Path]:
    """The files of ``write_report``."""
    study = report.study
    paths = [path for name, table in report.tables.items() for path in _table(study, name, table)]
    paths += _figures(study, report.figures)
    return [*paths, study.save_report(PAGE, page(study, report.arms, report.tables, report.figures))]


def _table(study: Study, name: str, table: Table) -> list[Path]:
    """A file in each format."""
    return [study.save_report(f"{name}.{suffix}", render(table, format)) for suffix, format in FILES.items()]


def _json(numbers: Any) -> str:
    return json.dumps(finite(numbers), indent=1, allow_nan=False) + "\n"


def _figures(study: Study, figures: Iterable[Figure]) -> Iterable[Path]:
    for figure in figures:
        path = study.save_report(f"{figure.name}.numbers.json", _json(figure.numbers))
        yield path
        for suffix, image in (("svg", figure.images.svg), ("png", figure.images.png)):
            drawn = path.with_name(f"{figure.name}.{suffix}")
            write(drawn, image)
            yield drawn
