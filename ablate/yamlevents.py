"""YAML text → the parser's events, within bounds, and what the parser dislikes in plain words.

The bounds are checked on the stream of events, where an alias is still one event: a file of 200 bytes can stand for
10⁹ values. So nothing is built, and no alias expanded, before the whole is known to be small.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Never

import yaml
from yaml import events as ev

from ablate.errors import Place, Problem, UserError

FILE_LIMIT = 1 << 20
"""Bytes of a file."""
NESTING_LIMIT = 50
"""Collections within collections, aliases expanded."""
NODE_LIMIT = 100_000
"""Keys, values and collections, aliases expanded."""
SCALAR_LIMIT = 1 << 16
"""Characters of one scalar."""

# libyaml where PyYAML was built with it: 0.4 s for a file of 1 MiB, and 6 s without.
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_TAB_INDENT = re.compile(r" *\t[ \t]*[^\s#]")


@dataclass(frozen=True)
class Origin:
    """Who wrote a text: the file, and the layer that its places name."""

    file: str
    layer: str = "spec"

    def place(self, line: int = 1, column: int = 1) -> Place:
        return Place(self.file, line, column, self.layer)

    def at(self, mark: Any) -> Place:
        return self.place(mark.line + 1, mark.column + 1)


def read_events(text: str, origin: Origin) -> tuple[list[ev.Event], list[Problem]]:
    """The events of the first document, and the problems of the text as such: syntax, tabs, a second document.

    Where there is a problem the events may end early. ``UserError`` at once where a limit is passed, and for
    characters that are not text.
    """
    _refuse_unreadable(text, origin)
    budget = _Budget(origin)
    found: list[ev.Event] = []
    problems: list[Problem] = []
    documents = 0
    try:
        for event in yaml.parse(text, Loader=_PARSER):
            documents += isinstance(event, ev.DocumentStartEvent)
            if documents > 1:
                message = "a second document begins here; a file holds one"
                problems.append(Problem(message, place=origin.at(event.start_mark)))
                break
            budget.charge(event)
            found.append(event)
    except yaml.MarkedYAMLError as error:
        problems.append(_syntax_problem(error, text, origin))
    except yaml.YAMLError as error:
        problems.append(Problem(f"not YAML: {error}", place=origin.place()))
    return found, list(dict.fromkeys([*problems, *_tab_problems(text, found, origin)]))


def line_and_column(before: str) -> tuple[int, int]:
    """Where the character after this text stands. PyYAML breaks lines where ``splitlines`` does."""
    lines = f"{before}x".splitlines()
    return len(lines), len(lines[-1])


def quoting(word: str) -> str:
    """The hint for text whose first character means something to YAML."""
    return f"quote text that begins with {word[:1]}: '{word[:40]}'"


def _refuse_unreadable(text: str, origin: Origin) -> None:
    if len(text.encode("utf-8", "surrogatepass")) > FILE_LIMIT:
        raise UserError(Problem(f"the text is longer than {FILE_LIMIT:,} bytes", place=origin.place()))
    bad = _CONTROL.search(text)
    if bad:
        place = origin.place(*line_and_column(text[: bad.start()]))
        raise UserError(Problem(f"control character U+{ord(bad.group()):04X}", place=place, hint="remove it"))


@dataclass
class _Size:
    """What a node comes to when its aliases are expanded."""

    anchor: str | None = None
    nodes: int = 1
    height: int = 0


@dataclass
class _Budget:
    """Counts what a text would grow to; ``UserError`` where it is too much."""

    origin: Origin
    nodes: int = 0
    open: list[_Size] = field(default_factory=list)
    anchors: dict[str | None, _Size] = field(default_factory=dict)

    def charge(self, event: ev.Event) -> None:
        if isinstance(event, ev.CollectionEndEvent):
            self._close(self.open.pop())
        elif isinstance(event, ev.CollectionStartEvent):
            self.open.append(_Size(event.anchor, height=1))
            self._count(_Size(), event)
        elif isinstance(event, ev.AliasEvent):
            target = self.anchors.get(event.anchor, _Size())
            self._count(target, event)
            self._close(_Size(None, target.nodes, target.height))
        elif isinstance(event, ev.ScalarEvent):
            if len(event.value) > SCALAR_LIMIT:
                self._refuse(f"a value of {len(event.value):,} characters; it may have {SCALAR_LIMIT:,}", event)
            self._count(_Size(), event)
            self._close(_Size(event.anchor))

    def _count(self, size: _Size, event: ev.Event) -> None:
        self.nodes += size.nodes
        if self.nodes > NODE_LIMIT:
            self._refuse(f"more than {NODE_LIMIT:,} keys and values (aliases expanded)", event)
        if len(self.open) + size.height > NESTING_LIMIT:
            self._refuse(f"nested more than {NESTING_LIMIT} deep", event)

    def _close(self, size: _Size) -> None:
        if size.anchor is not None:
            self.anchors[size.anchor] = size
        if self.open:
            self.open[-1].nodes += size.nodes
            self.open[-1].height = max(self.open[-1].height, size.height + 1)

    def _refuse(self, message: str, event: ev.Event) -> Never:
        raise UserError(Problem(message, place=self.origin.at(event.start_mark)))


# Patterns fit the wording of libyaml and of PyYAML's own parser.
_SYNTAX: tuple[tuple[str, str], ...] = (
    (r"quoted scalar.*unexpected end", "a quote is opened here and never closed"),
    (r"unknown escape", "unknown escape in a text in double quotes; single quotes take a backslash as it is"),
    (r"flow sequence", "a list is opened with '[' here, and a ',' or ']' is missing"),
    (r"flow mapping", "a mapping is opened with '{' here, and a ',' or '}' is missing"),
    (
        r"mapping values are not allowed",
        "a ':' is not allowed here; check the indentation, or quote text that has ': '",
    ),
    (r"sequence entries are not allowed", "a list item ('- ') is not allowed here; begin the list on its own line"),
    (r"could not find expected ':'", "a ':' is missing after the key"),
    (r"did not find expected key|block mapping", "a key was expected; check the indentation and the quotes"),
    (r"block collection|expected '-'", "a list item ('- ') was expected; check the indentation"),
    (r"expected (the )?node content", "a value is missing here"),
    (r"incompatible YAML", "the %YAML directive names a version that is not 1.2"),
)
_AT_CONTEXT = re.compile("quoted scalar|flow sequence|flow mapping")


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, origin: Origin) -> Problem:
    said = f"{error.context}: {error.problem}" if error.context else f"{error.problem}"
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return Problem(f"not YAML: {said}", place=origin.place())
    line = [*text.splitlines(), ""][mark.line]  # the end of the text may be a line of its own
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return _tab_problem(mark.line + 1, origin)
    if line[mark.column : mark.column + 1] == "\t":  # PyYAML's own parser takes none between words either
        return Problem("a tab is not allowed here", place=origin.at(mark), hint="use spaces")
    if error.context_mark and "scanning an alias" in said:
        return _first_character_problem(line, error.context_mark, origin)
    if "cannot start any token" in said:
        return _first_character_problem(line, mark, origin)
    message = next((plain for pattern, plain in _SYNTAX if re.search(pattern, said)), f"not YAML: {said}")
    at_context = error.context_mark and _AT_CONTEXT.search(said)
    return Problem(message, place=origin.at(error.context_mark if at_context else mark))


def _first_character_problem(line: str, mark: Any, origin: Origin) -> Problem:
    word = re.split(r"[\s,\]}#]", line[mark.column :], maxsplit=1)[0]
    return Problem(f"a value cannot begin with '{word[:1]}'", place=origin.at(mark), hint=quoting(word))


def _tab_problem(line: int, origin: Origin) -> Problem:
    return Problem("the line is indented with a tab", place=origin.place(line), hint="use spaces")


def _tab_problems(text: str, events: list[ev.Event], origin: Origin) -> list[Problem]:
    """Lines indented with tabs, but for those within quoted and block text. libyaml lets them pass within brackets."""
    indented = {number for number, line in enumerate(text.splitlines(), 1) if _TAB_INDENT.match(line)}
    for event in events:
        start, end = event.start_mark, event.end_mark
        if indented and start and end and isinstance(event, ev.ScalarEvent) and event.style:
            indented -= set(range(start.line + 2, end.line + 2))
    return [_tab_problem(line, origin) for line in sorted(indented)]
