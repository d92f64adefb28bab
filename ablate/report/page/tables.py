"""Tables as the page shows them: each cell with what it is sorted by, each note once, and no more rows than fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ablate.analysis.papers import Judged
from ablate.quantities import format_value
from ablate.report.papers import verdict_note
from ablate.report.render import marks_of
from ablate.report.values import Cell, Column, Table, format_published

MOST_ROWS = 1000


@dataclass(frozen=True)
class ShownCell:
    """``key`` is what its column is sorted by: empty for what has no value, and comes last."""

    text: str
    key: str
    mark: str
    link: str
    """The id of the variant that it names."""
    best: bool


@dataclass(frozen=True)
class ShownTable:
    """``id`` is the page's own for it, and begins those of its notes."""

    id: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[ShownCell, ...], ...]
    caption: str
    notes: tuple[tuple[str, str], ...]
    """Mark and text."""
    footnotes: tuple[str, ...]
    left_out: int


def shown(name: str, table: Table, links: Mapping[str, str]) -> ShownTable:
    """The table of that name; ``links`` has the ids of variants that the page tells more of."""
    marks = marks_of(table)
    rows = [
        tuple(_cell(cell, column, marks, links if place == 0 else {}) for place, (cell, column) in enumerate(cells))
        for cells in (list(zip(row, table.columns, strict=True)) for row in table.rows[:MOST_ROWS])
    ]
    notes = tuple((mark, note) for note, mark in marks.items())
    left_out = len(table.rows) - len(rows)
    return ShownTable(
        name, table.title, table.columns, tuple(rows), table.caption, notes, table.footnotes, max(0, left_out)
    )


def _cell(cell: Cell, column: Column, marks: Mapping[str, str], links: Mapping[str, str]) -> ShownCell:
    key = cell.text if column.kind == "text" else "" if cell.value is None else repr(float(cell.value))
    return ShownCell(cell.text, key, marks.get(cell.note, ""), links.get(cell.text, ""), cell.best)


def verdict_table(claims: Sequence[Judged]) -> Table:
    """What papers published of a study, beside what was measured."""
    columns = (
        Column("variant"),
        Column("metric"),
        Column("paper"),
        Column("published", "", "right", "number"),
        Column("measured", "", "right", "number"),
        Column("measured − published", "", "right", "number"),
        Column("verdict"),
        Column("what it rests on"),
    )
    return Table("Published and measured values", columns, tuple(map(_verdict, claims)))


def _verdict(claim: Judged) -> tuple[Cell, ...]:
    def number(value: float | None, sign: bool = False) -> Cell:
        return Cell() if value is None else Cell(format_value(claim.metric, value, sign=sign), value)

    published = format_published(claim.metric, claim.published)
    return (
        Cell(claim.variant),
        Cell(claim.metric),
        Cell(claim.paper),
        Cell(published, claim.published),
        number(claim.measured),
        number(claim.off, sign=True),
        Cell(claim.verdict),
        Cell(verdict_note(claim)),
    )
