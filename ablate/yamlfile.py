"""YAML 1.2 text → data that knows the line and the column of every key and value.

PyYAML parses the text into events; what the events mean is decided here, since plain PyYAML reads ``1e-4`` as text
and ``no`` as false (YAML 1.1), lets the second of two equal keys win, and expands aliases without a bound. Scalars
follow the core schema of YAML 1.2 (yaml.org/spec/1.2.2, §10.3), and the text of a key is always text: the key ``4``
is ``"4"``. Tags, merge keys and several documents in a file are refused; so nothing in a file can name code to run.
"""

from __future__ import annotations

import math
import re
import stat
from collections import abc
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from yaml import events as ev

from ablate.errors import Place, Problem, UserError, did_you_mean, printable
from ablate.yamlevents import FILE_LIMIT, SCALAR_LIMIT, Origin, line_and_column, quoting, read_events

NUMBER_LIMIT = 1000
"""Characters of one number: Python refuses to print whole numbers of more than 4300 digits."""


class Mapping(dict[str, Any]):
    """A mapping that knows where its keys and values stand. Entries that are added later have no place."""

    def __init__(
        self,
        items: abc.Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
        keys_at: abc.Mapping[str, Place] | None = None,
        values_at: abc.Mapping[str, Place] | None = None,
    ) -> None:
        super().__init__(items)
        self.keys_at: dict[str, Place] = dict(keys_at or {})
        self.values_at: dict[str, Place] = dict(values_at or {})

    def __deepcopy__(self, memo: dict[int, Any]) -> Mapping:
        items = {key: deepcopy(value, memo) for key, value in self.items()}
        return Mapping(items, self.keys_at, self.values_at)


class Sequence(list[Any]):
    """A list that knows where its items stand."""

    def __init__(self, items: Iterable[Any] = (), values_at: Iterable[Place] = ()) -> None:
        super().__init__(items)
        self.values_at: list[Place] = list(values_at)

    def __deepcopy__(self, memo: dict[int, Any]) -> Sequence:
        return Sequence((deepcopy(item, memo) for item in self), self.values_at)


def load(path: Path) -> Mapping:
    """The mapping in a file; ``UserError`` with every problem where it cannot be read or is not as it should be."""
    return loads(_decoded(_read(path), str(path)), str(path))


def loads(text: str, file: str) -> Mapping:
    """The mapping that a text holds; ``file`` is the name that places and errors carry."""
    origin = Origin(file)
    found, value = _parsed(text, origin)
    if not found:
        raise UserError(Problem("the file is empty; a mapping of keys was expected", place=origin.place()))
    if not isinstance(value, Mapping):
        hint = "put a space after the ':'" if isinstance(value, str) and ":" in value else ""
        message = f"the top level is {_kind(value)}; a mapping ('key: value') was expected"
        raise UserError(Problem(message, place=origin.place(), hint=hint))
    return value


def parse_value(text: str, file: str = "--set") -> Any:
    """One value, as in ``--set a.b=VALUE``: a scalar or any YAML; no text at all is null."""
    return _parsed(text, Origin(file, layer="--set"))[1]


def place_of(tree: Any, path: abc.Sequence[str | int], *, key: bool = True) -> Place | None:
    """Where the key (or the value) at ``path`` stands, or else the deepest part of the path that has a place.

    The start of the file where no part has one; ``None`` for a tree that was not read from a file.
    """
    place = next((Place(at.file, 1, 1, at.layer) for at in getattr(tree, "keys_at", {}).values()), None)
    for part in path:
        if isinstance(tree, dict) and part in tree:
            if isinstance(tree, Mapping):
                place = (tree.keys_at if key else tree.values_at).get(str(part), place)
            tree = tree[part]
        elif isinstance(tree, list) and isinstance(part, int) and 0 <= part < len(tree):
            if isinstance(tree, Sequence) and part < len(tree.values_at):
                place = tree.values_at[part]
            tree = tree[part]
        else:
            break
    return place


def dump(data: Any) -> str:
    """Block style YAML that ``loads`` reads back to equal data, in the same order.

    ``TypeError`` for what YAML cannot say (a key that is not text, an object), ``ValueError`` for text and numbers that
    ``loads`` would refuse. Tuples are written as lists.
    """
    text: str = yaml.dump(
        _plain(data), Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=math.inf
    )
    return text.removesuffix("...\n") if text.endswith("\n...\n") else text  # the mark behind a lone scalar


def is_number(text: str) -> bool:
    """Whether a scalar of this text is a number when it is not quoted."""
    return _tag(text) in (_INT, _FLOAT)


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise UserError(f"{path}: is a folder; a YAML file was expected")
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path}: is not a regular file")
        if status.st_size > FILE_LIMIT:
            raise UserError(f"{path}: {status.st_size:,} bytes; a file may have {FILE_LIMIT:,}")
        with path.open("rb") as stream:
            return stream.read(FILE_LIMIT + 1)  # one more than is allowed: the file may have grown since
    except FileNotFoundError:
        raise UserError(Problem(f"{path}: no such file", hint=_sibling(path))) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError:
        raise UserError(f"{str(path)!r} is not the name of a file") from None


def _sibling(path: Path) -> str:
    """A hint where a YAML file beside it has nearly the same name. It never lists a folder."""
    try:
        names = [other.name for other in path.parent.iterdir() if other.suffix in (".yaml", ".yml")]
    except OSError:
        return ""
    hint = did_you_mean(path.name, names)
    return hint if hint.startswith("did") else ""


def _decoded(data: bytes, file: str) -> str:
    if b"\0" in data:
        raise UserError(f"{file}: is a binary file, not YAML text")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = Origin(file).place(*line_and_column(data[: error.start].decode("utf-8")))
        raise UserError(Problem("the file is not UTF-8 text", place=place)) from None


def _parsed(text: str, origin: Origin) -> tuple[bool, Any]:
    """Whether the text holds anything, and what."""
    events, problems = read_events(text.removeprefix("\ufeff"), origin)
    reader = _Reader(iter(events), origin)
    found, value = reader.document()
    problems = [*reader.problems, *problems]
    if problems:
        raise UserError(sorted(problems, key=lambda p: (p.place.line, p.place.column) if p.place else (0, 0)))
    return found, value


_TAGS = "tag:yaml.org,2002:"
_NULL, _BOOL, _INT, _FLOAT, _TEXT = (_TAGS + name for name in ("null", "bool", "int", "float", "str"))
_AMBIGUOUS, _MERGE = "!ambiguous", _TAGS + "merge"

_PLAIN_SCALARS: tuple[tuple[str, str], ...] = (
    (_NULL, r"null|Null|NULL|~|"),
    (_BOOL, r"true|True|TRUE|false|False|FALSE"),
    (_INT, r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    (_FLOAT, r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"),
    (_AMBIGUOUS, r"(?i:yes|no|on|off)"),
    (_MERGE, r"<<"),
)
_RESOLVERS = tuple((tag, re.compile(rf"(?:{pattern})\Z")) for tag, pattern in _PLAIN_SCALARS)
_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")


def _tag(text: str) -> str:
    """What a plain (unquoted) scalar is."""
    return next((tag for tag, pattern in _RESOLVERS if pattern.match(text)), _TEXT)


def _float(text: str) -> float:
    """``ValueError`` where a number in decimal would silently become infinite or 0."""
    if text.lower().endswith((".inf", ".nan")):
        return float(text.replace(".", ""))
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:40]} is too large for a number; infinity is written .inf")
    if value == 0 and re.search("[1-9]", re.split("[eE]", text)[0]):
        raise ValueError(f"{text[:40]} is too near to 0 for a number")
    return value


_READERS: dict[str, Callable[[str], Any]] = {
    _NULL: lambda text: None,
    _BOOL: lambda text: text.lower() == "true",
    _INT: lambda text: int(text, {"0o": 8, "0x": 16}.get(text[:2], 10)),
    _FLOAT: _float,
}


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", bool: "true or false", int: "a number", float: "a number"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "null" if value is None else "text")


_OPEN = object()
"""Stands for an anchored collection that has not ended: an alias to it would contain itself."""


class _Reader:
    """Builds the data, and collects every problem that does not end the text.

    It reads on after a problem: what it returns then is never handed out. Events that end early raise
    ``StopIteration``, which only ``document`` catches.
    """

    def __init__(self, events: Iterator[ev.Event], origin: Origin) -> None:
        self.events = events
        self.origin = origin
        self.problems: list[Problem] = []
        self.anchors: dict[str, Any] = {}

    def document(self) -> tuple[bool, Any]:
        try:
            for event in self.events:
                if isinstance(event, ev.NodeEvent):
                    return not _is_absent(event), self.value(event)
        except StopIteration:
            pass
        return False, None

    def value(self, event: Any) -> Any:
        if isinstance(event, ev.AliasEvent):
            return self.alias(event)
        self.check_properties(event)
        if isinstance(event, ev.ScalarEvent):
            value: Any = self.scalar(event)
        elif isinstance(event, ev.SequenceStartEvent):
            value = self.sequence()
        else:
            value = self.mapping()
        if event.anchor is not None:
            self.anchors[event.anchor] = value
        return value

    def check_properties(self, event: Any) -> None:
        """A node's tag and anchor."""
        if event.tag is not None:
            tag = event.tag.replace(_TAGS, "!!")[:40]
            self.refuse(f"tags are not allowed: {tag}", event, "quote text that begins with !")
        if event.anchor is not None:
            if event.anchor in self.anchors:
                self.refuse(f"the anchor &{event.anchor[:40]} is given twice", event)
            self.anchors[event.anchor] = _OPEN

    def alias(self, event: Any) -> Any:
        """A copy, so that no patch of one place changes another."""
        name = event.anchor
        if name not in self.anchors:
            message = f"the alias *{name[:40]} has no anchor &{name[:40]} before it"
            self.refuse(message, event, quoting(f"*{name}"))
            return None
        if self.anchors[name] is _OPEN:
            self.refuse(f"the alias *{name[:40]} stands within its own anchor", event)
            return None
        return deepcopy(self.anchors[name])

    def scalar(self, event: ev.ScalarEvent) -> Any:
        text: str = event.value
        tag = _tag(text) if _is_plain(event) else _TEXT
        if _UNWRITABLE.search(text):
            self.refuse("text may not hold the character U+0000 or half a surrogate pair", event)
        elif tag == _AMBIGUOUS:
            meant = "true" if text.lower() in ("yes", "on") else "false"
            self.refuse(f"'{text}' may mean {meant} or the word", event, f"write {meant}, or quote it: '{text}'")
        elif tag in (_INT, _FLOAT) and len(text) > NUMBER_LIMIT:
            self.refuse(f"a number of {len(text):,} characters; it may have {NUMBER_LIMIT:,}", event)
        elif tag in _READERS:
            try:
                return _READERS[tag](text)
            except ValueError as error:
                self.refuse(str(error), event)
        return text

    def sequence(self) -> Sequence:
        items = Sequence()
        while not isinstance(event := next(self.events), ev.SequenceEndEvent):
            items.values_at.append(self.place(event))
            items.append(self.value(event))
        return items

    def mapping(self) -> Mapping:
        entries = Mapping()
        while not isinstance(event := next(self.events), ev.MappingEndEvent):
            key, key_at = self.key(event), self.place(event)
            event = next(self.events)
            value_at, value = self.place(event), self.value(event)
            if key is None:
                continue
            if key in entries:
                first = entries.keys_at[key].line
                message = f"the key '{key[:40]}' is given twice, first in line {first}"
                self.problems.append(Problem(printable(message), place=key_at))
                continue
            entries.keys_at[key], entries.values_at[key], entries[key] = key_at, value_at, value
        return entries

    def key(self, event: Any) -> str | None:
        """The text of a key; ``None`` where there is none, and the problem is noted."""
        if not isinstance(event, ev.ScalarEvent):
            self.value(event)
            self.refuse("a key must be plain text, not a list, a mapping or an alias", event)
            return None
        self.check_properties(event)
        text: str = event.value
        if event.anchor is not None:
            self.anchors[event.anchor] = text
        tag = _tag(text) if _is_plain(event) else _TEXT
        if _is_absent(event):
            self.refuse("a key is missing before the ':'", event)
        elif tag == _MERGE:
            self.refuse("merge keys (<<) are not allowed", event, "write the keys out, or use extends")
        elif tag == _AMBIGUOUS:
            self.refuse(f"the key '{text}' may mean true, false or the word", event, f"quote it: '{text}'")
        elif _UNWRITABLE.search(text):
            self.refuse("a key may not hold the character U+0000 or half a surrogate pair", event)
        else:
            return text
        return None

    def place(self, event: ev.Event) -> Place:
        return self.origin.at(event.start_mark)

    def refuse(self, message: str, event: ev.Event, hint: str = "") -> None:
        self.problems.append(Problem(printable(message), place=self.place(event), hint=hint))


def _is_plain(event: Any) -> bool:
    return not event.style


def _is_absent(event: Any) -> bool:
    return isinstance(event, ev.ScalarEvent) and _is_plain(event) and not event.value


class _Dumper(yaml.SafeDumper):
    """Quotes whatever ``_tag`` would not read as text."""

    yaml_implicit_resolvers: dict[Any, Any] = {None: list(_RESOLVERS)}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(_TEXT, text, style=None if text.isprintable() else '"')


_Dumper.add_representer(str, _represent_text)


def _plain(data: Any) -> Any:
    """The data in builtin types only."""
    if data is None or isinstance(data, bool):
        return data
    if isinstance(data, str):
        return _writable(str(data))
    if isinstance(data, int):
        return _short(int(data))
    if isinstance(data, float):
        return float(data)
    if isinstance(data, abc.Mapping):
        return {_key(key): _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(item) for item in data]
    raise TypeError(f"YAML cannot say a {type(data).__name__}: {data!r}")


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key must be text: {key!r}")
    return _writable(str(key))


def _writable(text: str) -> str:
    if _UNWRITABLE.search(text):
        raise ValueError(f"YAML text may not hold U+0000 or half a surrogate pair: {text[:40]!r}")
    if len(text) > SCALAR_LIMIT:
        raise ValueError(f"a text of {len(text):,} characters; it may have {SCALAR_LIMIT:,}")
    return text


def _short(number: int) -> int:
    if abs(number) >= 10 ** (NUMBER_LIMIT - 1):
        raise ValueError(f"a number may have {NUMBER_LIMIT:,} characters")
    return number
