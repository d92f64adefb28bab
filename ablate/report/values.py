"""A table as values: numbers with their intervals, and the text that stands for them; ``render`` draws it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ablate import stats
from ablate.quantities import COSTS, HUGE, PREFIXES, format_value

MOST_DIGITS = 9
"""Behind the point of a published cost."""
Align = Literal["left", "right"]
Kind = Literal["text", "number", "estimate"]


@dataclass(frozen=True)
class Column:
    """``kind`` says what CSV writes: the text; the value; or mean, half-width, n, low and high, a column each."""

    name: str
    unit: str = ""
    align: Align = "left"
    kind: Kind = "text"

    @property
    def header(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True)
class Cell:
    """A value, its interval, the number of values behind it, and the text that is shown; ``note`` is a footnote.

    ``best``: shown in bold, where a format has it.
    """

    text: str = ""
    value: float | None = None
    interval: stats.Interval | None = None
    n: int | None = None
    note: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table of values. ``footnotes`` are about the whole table; those of a cell are the cell's ``note``."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    footnotes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError("a row has as many cells as the table has columns")

    def column(self, name: str) -> list[Cell]:
        """The cells of the column of that name, row by row."""
        index = [column.name for column in self.columns].index(name)
        return [row[index] for row in self.rows]


def format_published(name: str, value: float, printed_to: float | None = None) -> str:
    """A published number; a count to the digit that decides its verdict: ``28.0 M`` where it is ``printed_to`` 1e5."""
    if name not in COSTS or not abs(value) < HUGE:
        return format_value(name, value)
    printed_to = printed_to or 2 * stats.half_a_digit(value)
    size, prefix = next(((size, prefix) for size, prefix in PREFIXES if abs(value) >= size), (1.0, ""))
    digits = min(MOST_DIGITS, max(0, round(math.log10(size / printed_to))))
    return f"{value / size:,.{digits}f} {prefix}".strip()
