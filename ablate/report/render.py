"""Draws a ``Table``: for the terminal, as Markdown, as LaTeX, as CSV, as JSON.

Every text may come from a stranger's spec or from an exception's message, so that each format escapes all of it:
terminal control characters everywhere, Markdown's and HTML's markup, LaTeX's commands, a spreadsheet's formulas.
"""

from __future__ import annotations

import json
import math
import re
import string
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ablate.labels import clean
from ablate.report.values import Cell, Column, Table

__all__ = ["FORMATS", "clean", "finite", "render"]

FORMATS = ("terminal", "markdown", "csv", "latex", "json")
LONGEST, LONGEST_PROSE = 500, 10_000
"""Characters of a title, a cell and a note, and of what stands beneath a table: an error may have a million."""
Escape = Callable[[str], str]


def render(table: Table, format: str) -> str:
    """The table as text in one of ``FORMATS``; ends with a line break. ``ValueError`` for another format."""
    drawers = {"terminal": _terminal, "markdown": _markdown, "csv": _csv, "latex": _latex, "json": _json}
    if format not in drawers:
        raise ValueError(f"unknown format {format!r}; one of: {', '.join(FORMATS)}")
    return drawers[format](shortened(table))


def shortened(table: Table) -> Table:
    """The table with no text that is longer than it may be; ``…`` says where one was."""
    return replace(
        table,
        title=_cut(table.title),
        columns=tuple(replace(each, name=_cut(each.name), unit=_cut(each.unit)) for each in table.columns),
        rows=tuple(tuple(replace(cell, text=_cut(cell.text), note=_cut(cell.note)) for cell in r) for r in table.rows),
        caption=_cut(table.caption, LONGEST_PROSE),
        footnotes=tuple(_cut(note, LONGEST_PROSE) for note in table.footnotes),
    )


def _cut(text: str, longest: int = LONGEST) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def finite(data: Any) -> Any:
    """JSON data that every reader takes: a number that is not finite is null."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    return [finite(value) for value in data] if isinstance(data, list | tuple) else data


def marks_of(table: Table) -> dict[str, str]:
    """Each note once, in the order of reading → a, b, … z, aa, …"""
    notes = dict.fromkeys(cell.note for row in table.rows for cell in row if cell.note)
    return {note: _letters(number) for number, note in enumerate(notes)}


def _letters(number: int) -> str:
    text = ""
    number += 1
    while number:
        number, letter = divmod(number - 1, 26)
        text = string.ascii_lowercase[letter] + text
    return text


def _terminal(table: Table) -> str:
    marks = marks_of(table)
    header = [clean(column.header) for column in table.columns]
    rows = [[clean(cell.text) + (f" [{marks[cell.note]}]" if cell.note else "") for cell in row] for row in table.rows]
    widths = [max(map(_width, texts)) for texts in zip(header, *rows, strict=True)]
    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))

    def line(texts: Iterable[str]) -> str:
        padded = (_pad(*fields) for fields in zip(texts, widths, table.columns, strict=True))
        return "  ".join(padded).rstrip()

    lines = [clean(table.title), rule, line(header), rule, *map(line, rows), rule]
    below = [table.caption, *(f"[{mark}] {note}" for note, mark in marks.items()), *table.footnotes]
    return "\n".join([*lines, *(_wrapped(text, len(rule)) for text in below if text)]) + "\n"


def _pad(text: str, width: int, column: Column) -> str:
    space = " " * (width - _width(text))
    return space + text if column.align == "right" else text + space


def _width(text: str) -> int:
    """Cells of the terminal: wide East Asian characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(clean(text), max(60, width), break_on_hyphens=False)


_MARKDOWN = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    **{character: f"\\{character}" for character in "\\`*[]|~!$#"},
}


def _markdown(table: Table) -> str:
    marks = marks_of(table)
    rules = ["---:" if column.align == "right" else "---" for column in table.columns]
    header = [_markdown_text(column.header) for column in table.columns]
    rows = [[_marked(cell, marks, _markdown_text, "<sup>{}</sup>", "**{}**") for cell in row] for row in table.rows]
    lines = [f"| {' | '.join(texts)} |" for texts in (header, rules, *rows)]
    notes = [f"<sup>{mark}</sup> {_markdown_text(note)}" for note, mark in marks.items()]
    notes += [_markdown_text(note) for note in table.footnotes]
    above = f"**{_markdown_text(table.title)}**"
    blocks = [above, "\n".join(lines), _markdown_text(table.caption), "\n".join(f"- {note}" for note in notes)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _markdown_text(text: str) -> str:
    """Escaped wherever it stands. An underscore within a word is no markup: ``between_stages`` stays legible.

    Addresses, mentions and numbers of issues are no links, and Jekyll finds none of its ``{{ }}``.
    """
    text = "".join(_MARKDOWN.get(character, character) for character in clean(text)).strip()
    text = re.sub(r"\{(?=[{%])", r"{\\", text)
    text = re.sub(r":(?=//)|(?<=mailto):|(?<=xmpp):|(?<=www)\.", r"\\\g<0>", text, flags=re.IGNORECASE)
    # GitHub looks for these in what was rendered, where a backslash is gone
    text = re.sub(r"@(?=\w)|#(?=\d)", r"\g<0><!-- -->", text)
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)
    return re.sub(r"^(\d+(?=[.)](?:\s|$)))", r"\1\\", re.sub(r"^([-+=](?=[-+=\s]|$))", r"\\\1", text))


def _marked(cell: Cell, marks: dict[str, str], escape: Escape, mark: str, bold: str) -> str:
    text = bold.replace("{}", escape(cell.text)) if cell.best else escape(cell.text)
    return text + (mark.format(marks[cell.note]) if cell.note else "")


_LATEX = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\char34}",  # \textquotedbl is unknown to TeX's default font encoding
    "`": r"\textasciigrave{}",
    **{character: f"\\{character}" for character in "{}$&#%_"},
    # After a line's \\ these would be read as its arguments.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "±": r"$\pm$",
    "−": "$-$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "Δ": r"$\Delta$",
    "σ": r"$\sigma$",
    "…": r"\ldots{}",
    "—": "---",
    "–": "--",
    "→": r"$\rightarrow$",
    "≠": r"$\neq$",
    "²": r"\textsuperscript{2}",
    "ⁿ": r"\textsuperscript{n}",
    "·": r"$\cdot$",
    "µ": r"$\mu$",
    "“": "``",
    "”": "''",
    "’": "'",
    "\ufffd": "?",
}
_ACCENTS = "\u0300\u0301\u0302\u0303\u0308\u030a\u030c\u0327"


def _latex_text(text: str) -> str:
    return "".join(_latex_character(character) for character in clean(text))


def _latex_character(character: str) -> str:
    """Letters that pdfLaTeX has are as they are; those that only XeLaTeX and LuaLaTeX have are a ``?`` with it."""
    if character.isascii() or character in _LATEX:
        return _LATEX.get(character, character)
    letter, *accents = list(unicodedata.normalize("NFD", character))
    accented = character <= "\u017f" and letter.isascii() and letter.isalpha() and all(a in _ACCENTS for a in accents)
    if character in "ßÆæØøŒœ" or accented:
        return character
    return rf"\ifdefined\XeTeXversion {character}\else\ifdefined\directlua {character}\else ?\fi\fi{{}}"


def _latex(table: Table) -> str:
    marks = marks_of(table)
    alignment = "".join("r" if column.align == "right" else "l" for column in table.columns)
    header = " & ".join(_latex_text(column.header) for column in table.columns)
    mark = r"\textsuperscript{{{}}}"
    rows = [" & ".join(_marked(cell, marks, _latex_text, mark, r"\textbf{{}}") for cell in row) for row in table.rows]
    notes = [rf"{mark.format(letter)} {_latex_text(note)}" for note, letter in marks.items()]
    notes += [_latex_text(note) for note in table.footnotes]
    caption = " ".join(_latex_text(text) for text in (f"{table.title}.", table.caption) if text)
    lines = [
        r"% needs \usepackage{booktabs} and \usepackage{textcomp}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        rf"{header} \\",
        r"\midrule",
        *(rf"{row} \\" for row in rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\footnotesize {note}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _csv(table: Table) -> str:
    """Raw numbers, unrounded. Caption and footnotes are no data, and left out; the notes of cells are kept."""
    noted = bool(marks_of(table))
    header = [_csv_text(name) for column in table.columns for name in _csv_header(column)]
    lines = [_csv_line([*header, "notes"] if noted else header)]
    for row in table.rows:
        fields = [text for column, cell in zip(table.columns, row, strict=True) for text in _csv_fields(column, cell)]
        notes = _csv_text("; ".join(dict.fromkeys(cell.note for cell in row if cell.note)))
        lines.append(_csv_line([*fields, notes] if noted else fields))
    return "".join(lines)


def _csv_line(fields: list[str]) -> str:
    """A semicolon is quoted too, since in half of Europe spreadsheets take it for the end of a cell."""
    quoted = [f'"{text.replace(chr(34), 2 * chr(34))}"' if {*',;"'} & {*text} else text for text in fields]
    return (",".join(quoted) or '""') + "\n"


def _json(table: Table) -> str:
    """Raw numbers, unrounded, with caption and notes: columns, and rows as lists of cells, in the same order."""
    columns = [{"name": clean(each.name), "unit": clean(each.unit), "kind": each.kind} for each in table.columns]
    record = {
        "title": clean(table.title),
        "columns": columns,
        "rows": [[_json_cell(*pair) for pair in zip(table.columns, row, strict=True)] for row in table.rows],
        "caption": clean(table.caption),
        "notes": [clean(note) for note in table.footnotes],
    }
    return json.dumps(finite(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _json_cell(column: Column, cell: Cell) -> dict[str, Any]:
    values: dict[str, Any] = {"text": clean(cell.text)}
    if column.kind != "text":
        values["value"] = cell.value
    if column.kind == "estimate":
        values |= {"interval": None if cell.interval is None else [*cell.interval], "n": cell.n}
    return values | ({"note": clean(cell.note)} if cell.note else {}) | ({"best": True} if cell.best else {})


def _csv_header(column: Column) -> list[str]:
    if column.kind != "estimate":
        return [column.header]
    return [f"{column.header} {part}" for part in ("mean", "half-width", "n", "low", "high")]


def _csv_fields(column: Column, cell: Cell) -> list[str]:
    if column.kind == "text":
        return [_csv_text(cell.text)]
    if column.kind == "number":
        return [_csv_number(cell.value)]
    low, high = cell.interval or (None, None)
    half_width = cell.interval.half_width if cell.interval else None
    return [_csv_number(number) for number in (cell.value, half_width, cell.n, low, high)]


def _csv_number(number: float | None) -> str:
    if number is None:
        return ""
    return str(number) if isinstance(number, int) else repr(float(number))


def _csv_text(text: str) -> str:
    """A spreadsheet runs what starts like a formula, even behind spaces: an apostrophe makes it text.

    What follows a semicolon may start a cell as well.
    """
    return ";".join(map(_no_formula, clean(text).split(";")))


def _no_formula(text: str) -> str:
    start = unicodedata.normalize("NFKC", text.lstrip()[:1])  # full-width signs count too
    return f"'{text}" if start in ("=", "+", "-", "@") else text
