"""Names, scopes and the patterns that select them.

A name is ``stage1.0.conv2``; each of its prefixes is a scope. A pattern matches whole names, segment by
segment: ``*`` within one segment, ``(1|3)`` alternatives, ``(2-4)`` a range of numbers, and a segment
``-1`` is the last of a ``repeat``.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

LONGEST = 200
MOST_COMPARED = 2_000
_RANGE = re.compile(r"([0-9]{1,4})-([0-9]{1,4})")
_TOKEN = re.compile(r"\*|\([^()]*\)|[A-Za-z0-9_#]+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def name_problem(name: str) -> str | None:
    """Why ``name`` can't be a node's or an insertion's name; ``None`` where it can."""
    if not _NAME.fullmatch(name):
        return f"'{name}' is not a name: a letter or _, then letters, digits and _, at most 64 in all"
    if keyword.iskeyword(name) or name in {"input", "output"}:
        return f"'{name}' is a reserved word; choose another name"
    return None


@dataclass(frozen=True)
class _Words:
    """One of these words stands here."""

    words: frozenset[str]

    @cached_property
    def lengths(self) -> frozenset[int]:
        return frozenset(len(word) for word in self.words)


_Token = _Words | None
"""Part of a segment; ``None`` is ``*``, anything."""


@dataclass(frozen=True)
class Pattern:
    """A parsed pattern. ``ValueError`` says what is wrong with the text."""

    text: str

    def __post_init__(self) -> None:
        if not self.text:
            raise ValueError("an empty pattern")
        if len(self.text) > LONGEST:
            raise ValueError(f"a pattern has at most {LONGEST} characters, this one {len(self.text)}")
        _ = self._segments

    @cached_property
    def _segments(self) -> tuple[tuple[_Token, ...] | int, ...]:
        return tuple(_segment(text, self.text) for text in self.text.split("."))

    def matches(self, name: str, repeats: Mapping[str, int]) -> bool:
        """Whether the pattern matches the whole of ``name``; ``repeats`` gives each repeated scope's count."""
        parts = name.split(".")
        if len(parts) != len(self._segments):
            return False
        for depth, (segment, part) in enumerate(zip(self._segments, parts, strict=True)):
            if isinstance(segment, int):
                count = repeats.get(".".join(parts[:depth]))
                if count is None or part != str(count + segment):
                    return False
            elif not _fits(segment, part):
                return False
        return True

    def select(self, names: Iterable[str], repeats: Mapping[str, int]) -> list[str]:
        return [name for name in names if self.matches(name, repeats)]


def nearest(pattern: str, names: Iterable[str], most: int = 3) -> str:
    """The names that look most like a pattern that matched nothing."""
    depth = pattern.count(".")
    known = list(dict.fromkeys(names))[:MOST_COMPARED]
    same_depth = [name for name in known if name.count(".") == depth]
    stem = pattern.replace("*", "")
    near = get_close_matches(stem, same_depth, n=most, cutoff=0.4) or get_close_matches(stem, known, n=most, cutoff=0.4)
    return ", ".join(sorted(near) if near else (same_depth or known)[:most])


def _segment(text: str, whole: str) -> tuple[_Token, ...] | int:
    if re.fullmatch(r"-[1-9][0-9]{0,3}", text):
        return int(text)
    if not text:
        raise ValueError(f"pattern '{whole}' has an empty segment; a dot joins two names")
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != text:
        raise ValueError(f"'{text}' in pattern '{whole}': only names, *, (a|b) and (2-4)")
    return tuple(_token(token, whole) for token in tokens)


def _fits(tokens: tuple[_Token, ...], part: str) -> bool:
    """Whether the tokens make up the whole of ``part``. Nothing is tried twice, so that no pattern takes long."""
    if len(tokens) == 1:  # a plain name, or * alone: most segments are
        return tokens[0] is None or part in tokens[0].words
    ends = {0}
    for token in tokens:
        if token is None:
            ends = set(range(min(ends), len(part) + 1))
        else:
            ends = {end + size for end in ends for size in token.lengths if part[end : end + size] in token.words}
        if not ends:
            return False
    return len(part) in ends


def _token(token: str, whole: str) -> _Token:
    if token == "*":
        return None
    if not token.startswith("("):
        return _Words(frozenset({token}))
    choices: list[str] = []
    for choice in token[1:-1].split("|"):
        numbers = _RANGE.fullmatch(choice)
        if numbers:
            low, high = int(numbers[1]), int(numbers[2])
            if low > high:
                raise ValueError(f"({choice}) in pattern '{whole}' is an empty range")
            choices += [str(number) for number in range(low, high + 1)]
        elif re.fullmatch(r"[A-Za-z0-9_#]+", choice):
            choices.append(choice)
        else:
            raise ValueError(f"({choice}) in pattern '{whole}': only names, joined by |, or a range like 2-4")
    return _Words(frozenset(choices))
