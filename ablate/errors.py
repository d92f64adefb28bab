"""What a user can fix: one base class, and every problem said at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches


@dataclass(frozen=True)
class Place:
    """Where a key or a value stands: line and column count from 1.

    ``layer`` names who wrote it: ``spec``, ``--set`` or a level (``placement=none``).
    """

    file: str
    line: int
    column: int
    layer: str = "spec"

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"

    def shifted(self, columns: int) -> Place:
        return replace(self, column=self.column + columns)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what, and what instead."""

    message: str
    path: str = ""
    place: Place | None = None
    hint: str = ""

    def __str__(self) -> str:
        parts = [str(self.place)] if self.place else []
        if self.path:
            parts.append(printable(self.path))
        text = ": ".join([*parts, self.message])
        return f"{text}; {self.hint}" if self.hint else text


class UserError(Exception):
    """The user's input is wrong. Carries every problem that was found, in the order of their places."""

    def __init__(self, problems: Problem | str | Iterable[Problem]) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        found = [problems] if isinstance(problems, Problem) else list(problems)
        self.problems: list[Problem] = list(dict.fromkeys(found))
        super().__init__(str(self))

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)

    def __reduce__(self) -> tuple[type[UserError], tuple[list[Problem]]]:
        return type(self), (self.problems,)


def printable(text: str) -> str:
    """On one line, and without what would steer a terminal."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint with the nearest known word, or with all of them where none is near."""
    words = sorted(set(known))
    near = get_close_matches(word, words, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"one of: {listed(words)}" if words else ""


def listed(words: Sequence[str], most: int = 12) -> str:
    """``a, b, c``; a long list is cut and says so."""
    head = ", ".join(words[:most])
    return f"{head}, … ({len(words)} in all)" if len(words) > most else head
