"""Names of another program's weights → ours: ordered rules, each a regular expression and its replacement.

A rule stands for a name that its whole expression matches (``re.fullmatch``); of several rules the first that matches
acts, and a name that none matches stays as it is. In a replacement ``\\1`` and ``\\g<name>`` are groups.

Names come from a file and rules from a spec, both perhaps a stranger's: an expression that could backtrack without end
is refused before it is tried.
"""

from __future__ import annotations

import re
import re._parser as parser  # type: ignore[import-not-found]  # the expression's structure: nothing public tells it
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import comb
from typing import Any, NamedTuple, TypeVar

from ablate.diagnose import shown
from ablate.errors import Problem, UserError

MOST_RULES = 500
LONGEST_PATTERN = 200
LONGEST_KEY = 300
"""Of an expression and of a name, in characters."""
MOST_COMPARED = 5_000
"""Names among which the nearest is looked for."""
MOST_STEPS = 10**9
"""That all matching together may take in the worst case: some ten seconds."""

T = TypeVar("T")


class Wrong(NamedTuple):
    """What is wrong with a rule, or (without ``pattern``) with the names that the rules lead to."""

    pattern: str | None
    message: str
    hint: str = ""


def rename_keys(state: Mapping[str, T], rules: Mapping[str, str]) -> dict[str, T]:
    """The same tensors under the names that the rules give them.

    ``UserError`` for an expression or a replacement that is none, a rule that matches nothing, two tensors that would
    get one name, and an expression that could take too long on these names.
    """
    names, wrong = new_names(state, rules)
    if wrong:
        paths = (f"rename.{each.pattern}" if each.pattern is not None else "rename" for each in wrong)
        raise UserError([Problem(each.message, path, hint=each.hint) for each, path in zip(wrong, paths, strict=True)])
    return {names[key]: value for key, value in state.items()}


def new_names(keys: Iterable[str], rules: Mapping[str, str]) -> tuple[dict[str, str], list[Wrong]]:
    """(old name → new name, what is wrong). The names are of no use where something is wrong."""
    keys = list(keys)
    compiled, wrong = _compiled(rules)
    if not wrong and rules:
        wrong = _too_long(keys) or _too_slow(keys, compiled)
    if wrong:
        return {}, wrong
    names = dict(zip(keys, keys, strict=True))
    used: dict[str, str] = {}
    """Rule → the first name it stands for."""
    for key in keys:
        for rule in compiled:
            if match := rule.pattern.fullmatch(key):
                names[key] = match.expand(rule.replacement)
                used.setdefault(rule.text, key)
                break
    wrong = [_unused(rule, keys, compiled) for rule in compiled if rule.text not in used]
    return names, wrong + _collisions(names)


@dataclass(frozen=True)
class _Rule:
    text: str
    pattern: re.Pattern[str]
    replacement: str
    choices: int
    """In how many ways its alternatives and optional parts combine."""
    loops: int
    """How many parts of it have no length of their own."""
    nested: int
    """How often repeats within one another look at a character: more often than once where they look ahead."""

    def steps(self, length: int) -> int:
        """That it may take, in the worst case, on a name of ``length`` characters."""
        return self.choices * comb(length + self.loops, self.loops) * max(length + 1, self.nested)


def _compiled(rules: Mapping[str, str]) -> tuple[list[_Rule], list[Wrong]]:
    found: list[_Rule] = []
    wrong: list[Wrong] = []
    if len(rules) > MOST_RULES:
        return [], [Wrong(None, f"{len(rules):,} rules; at most {MOST_RULES}")]
    for text, replacement in rules.items():
        if len(text) > LONGEST_PATTERN or len(replacement) > LONGEST_KEY:
            wrong.append(Wrong(text, f"a rule of more than {LONGEST_PATTERN} characters"))
            continue
        try:
            found.append(_rule(text, replacement))
        except _Unfit as error:
            wrong.append(Wrong(text, *error.args))
    return found, wrong


class _Unfit(Exception):
    """A rule that can't be used: message and hint."""


def _rule(text: str, replacement: str) -> _Rule:
    try:
        pattern = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise _Unfit(f"{shown(text)} is no regular expression: {error}", "a dot of a name is written \\.") from None
    structure = _structure(parser.parse(text))
    try:
        parser.parse_template(replacement, pattern)
    except (re.error, IndexError) as error:
        groups = f"the expression has {pattern.groups} group{'s' if pattern.groups != 1 else ''}"
        raise _Unfit(f"{shown(replacement)} is no replacement: {error}", f"{groups}; \\1 is the first") from None
    if pattern.groups and re.search(r"\$\d", replacement):
        raise _Unfit(f"{shown(replacement)} names no group", f"write \\{replacement[replacement.index('$') + 1]}")
    return _Rule(text, pattern, replacement, *structure)


def _structure(items: Any) -> tuple[int, int, int]:
    """(choices, loops, nested) of a parsed expression.

    A loop over what varies itself, or over what takes no character, is refused: it may take for ever.
    """
    choices, loops, nested = 1, 0, 1
    for operation, argument in items:
        kind = str(operation)
        inner = [(part, _structure(part)) for part in _parts(kind, argument)]
        times = 1
        if kind.endswith("_REPEAT"):
            least, most = argument[0], int(argument[1])
            for part, own in inner if most > 1 else []:
                _check_repeated(part, own)
            choices *= 2 if (least, most) == (0, 1) else 1
            loops += least != argument[1] and most > 1
            times = max(1, min(most, LONGEST_KEY))  # each takes a character, and a name has no more
        elif kind == "BRANCH":
            choices *= len(argument[1])
        for _, own in inner:
            choices, loops, nested = choices * own[0], loops + own[1], max(nested, times * own[2])
    return choices, loops, nested


def _check_repeated(part: Any, structure: tuple[int, int, int]) -> None:
    if structure[:2] != (1, 0):
        raise _Unfit("a repeat within a repeat, or of alternatives, may take for ever", "use one * or + there")
    if part.getwidth()[0] == 0:
        raise _Unfit("a repeat of what takes no character may take for ever", "leave the repeat out")


def _parts(kind: str, argument: Any) -> list[Any]:
    """The parsed expressions within an item."""
    if kind == "BRANCH":
        return list(argument[1])
    if kind.endswith("_REPEAT") or kind == "SUBPATTERN":
        return [argument[-1]]
    if kind in ("ASSERT", "ASSERT_NOT"):
        return [argument[1]]
    if kind == "GROUPREF_EXISTS":
        return [part for part in argument[1:] if part is not None]
    return [argument] if kind == "ATOMIC_GROUP" else []


def _too_long(keys: list[str]) -> list[Wrong]:
    longest = max(keys, key=len, default="")
    if len(longest) <= LONGEST_KEY:
        return []
    return [Wrong(None, f"a name has {len(longest):,} characters, at most {LONGEST_KEY}: {shown(longest)}")]


def _too_slow(keys: list[str], rules: list[_Rule]) -> list[Wrong]:
    lengths: dict[int, int] = {}
    for key in keys:
        lengths[len(key)] = lengths.get(len(key), 0) + 1
    for rule in rules:
        if sum(count * rule.steps(length) for length, count in lengths.items()) > MOST_STEPS:
            message = f"may take too long on {len(keys):,} names: {rule.loops} parts without a length of their own"
            return [Wrong(rule.text, message, "[^.]+ is one segment of a name; \\d is one digit")]
    return []


def _unused(rule: _Rule, keys: list[str], rules: list[_Rule]) -> Wrong:
    taken = next((key for key in keys if rule.pattern.fullmatch(key)), None)
    if taken is not None:
        first = next(other.text for other in rules if other.pattern.fullmatch(taken))
        return Wrong(rule.text, f"acts on nothing: {shown(first)}, which comes first, takes {shown(taken)}")
    plain = re.sub(r"\\(.)", r"\1", rule.text)
    near = get_close_matches(plain, keys[:MOST_COMPARED], n=1, cutoff=0.0)
    return Wrong(rule.text, "matches no name in the file", f"nearest: {shown(near[0])}" if near else "it has none")


def _collisions(names: Mapping[str, str]) -> list[Wrong]:
    first: dict[str, str] = {}
    wrong: list[Wrong] = []
    for key, name in sorted(names.items()):  # whatever the order of the file
        other = first.setdefault(name, key)
        if other != key:
            message = f"{shown(other)} and {shown(key)} both become {shown(name)}"
            wrong.append(Wrong(None, message, "each weight needs a name of its own"))
    return wrong
