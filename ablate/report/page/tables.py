"""Tables as the page shows them: each cell with what it is sorted by, each note once, and no more rows than fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ablate.analysis.papers import Judged
from ablate.quantities import format_value
from ablate.report.papers import verdict_note
from ablate.report.render import marks_of, shortened
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
    id: str
    """Of the first cell with its mark: where the note links back to."""


@dataclass(frozen=True)
class ShownTable:
    """``id`` is the page's own for it, and begins those of its notes."""

    id: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[ShownCell, ...], ...]
    caption: str
    notes: tuple[tuple[str, str, str], ...]
    """Mark, text, and the id of the first cell with that mark, empty where that row is left out."""
    footnotes: tuple[str, ...]
    left_out: int


def shown(name: str, table: Table, links: Mapping[str, str]) -> ShownTable:
    """The table of that name; ``links`` has the ids of variants that the page tells more of."""
    table = shortened(table)
    marks = marks_of(table)
    backs = {mark: f"{name}-back-{mark}" for mark in marks.values()}
    rows = [
        tuple(
            _cell(cell, column, marks, links if place == 0 else {}, backs) for place, (cell, column) in enumerate(cells)
        )
        for cells in (list(zip(row, table.columns, strict=True)) for row in table.rows[:MOST_ROWS])
    ]
    notes = tuple((mark, note, "" if mark in backs else f"{name}-back-{mark}") for note, mark in marks.items())
    left_out = len(table.rows) - len(rows)
    return ShownTable(
        name, table.title, table.columns, tuple(rows), table.caption, notes, table.footnotes, max(0, left_out)
    )


def _cell(
    cell: Cell, column: Column, marks: Mapping[str, str], links: Mapping[str, str], backs: dict[str, str]
) -> ShownCell:
    """``backs``: the ids for marks that no cell has yet; this one's is taken out of it."""
    key = cell.text if column.kind == "text" else "" if cell.value is None else repr(float(cell.value))
    mark = marks.get(cell.note, "")
    return ShownCell(cell.text, key, mark, links.get(cell.text, ""), cell.best, backs.pop(mark, ""))


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
