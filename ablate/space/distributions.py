"""What a path of a space may be: one of several values, some of several, a number of a range, a text of parts.

A distribution is told by its key, ``choice``, ``subset``, ``int``, ``float`` or ``text``. Each is one class here, and
says how many values it has and which: a new one is a new class, entered in ``KINDS``.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from itertools import combinations, product
from math import comb, prod
from typing import Any

from pydantic import Field, ValidationError, model_validator

from ablate import yamlfile
from ablate.collect import Collector, Path
from ablate.design.levels import label_of
from ablate.diagnose import problems, shown
from ablate.errors import Place, did_you_mean
from ablate.recipe import Section

_NAME = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")
EACH = "each"
"""``$each`` stands for a name that the pattern of ``each`` matches."""
MOST_STEPS = 10**15
"""Of a range: so many are further apart than the doubles between which they lie."""


@dataclass(frozen=True)
class Option:
    """One value of a path; ``value`` ``None`` removes what is at the path, as in a level."""

    label: str
    value: Any
    place: Place | None = None


class Distribution(Section):
    """The values of one path."""

    when: dict[str, Any] | None = Field(
        None, min_length=1, description="path → value, or list of values: the path varies only where all of these hold"
    )
    each: str | None = Field(
        None, min_length=1, description="a pattern: a path for every name it matches; $each stands for the name"
    )

    @property
    @abstractmethod
    def count(self) -> int | None:
        """How many values there are; ``None`` for a range without steps."""

    @abstractmethod
    def options(self) -> Iterator[Option]:
        """The values, in order. Only for those that can be counted."""


class Choice(Distribution):
    """One of these values."""

    choice: list[Any] = Field(min_length=1, description="any values; null removes what is at the path")

    @property
    def count(self) -> int:
        return len(self.choice)

    def options(self) -> Iterator[Option]:
        short = [_name(item) or _label(item) for item in self.choice]
        labels = [
            name if short.count(name) == 1 else _label(item) for name, item in zip(short, self.choice, strict=True)
        ]
        return (Option(label, item) for label, item in zip(labels, self.choice, strict=True))


class Subset(Distribution):
    """Some of these values, as a list in their order: the smaller lists first."""

    subset: list[Any] = Field(min_length=1, max_length=64, description="the values to take some of")
    at_least: int = Field(1, ge=0, description="the fewest that are taken")
    at_most: int | None = Field(None, ge=0, description="the most that are taken; without it all")

    @model_validator(mode="after")
    def _possible(self) -> Subset:
        if self.at_least > self.most:
            raise ValueError(f"no subset has at least {self.at_least} and at most {self.most} of {len(self.subset)}")
        return self

    @property
    def most(self) -> int:
        return len(self.subset) if self.at_most is None else min(self.at_most, len(self.subset))

    @property
    def count(self) -> int:
        return sum(comb(len(self.subset), size) for size in range(self.at_least, self.most + 1))

    def options(self) -> Iterator[Option]:
        places = getattr(self.subset, "values_at", [])
        for size in range(self.at_least, self.most + 1):
            for indices in combinations(range(len(self.subset)), size):
                items = [self.subset[index] for index in indices]
                value = yamlfile.Sequence(items, [places[index] for index in indices] if places else [])
                yield Option(", ".join(map(_label, items)) or "none of them", value)


class _Range(Distribution):
    """Numbers from one bound to the other, both included."""

    log: bool = Field(False, description="a sampler draws the logarithm evenly; without step")

    def _check(self, low: float, high: float, step: float | None) -> None:
        if low > high:
            raise ValueError(f"[{shown(low)}, {shown(high)}] is an empty range: the lower bound comes first")
        if self.log and low <= 0:
            raise ValueError(f"{shown(low)} has no logarithm: the bounds of a range with log are more than 0")
        if self.log and step is not None:
            raise ValueError("log and step exclude each other: equal steps are not equal in the logarithm")
        if step is not None and (_exact(high) - _exact(low)) / _exact(step) > MOST_STEPS:
            raise ValueError(f"steps of {shown(step)} from {shown(low)} to {shown(high)} are too many to tell apart")
        if step is not None and (_exact(high) - _exact(low)) % _exact(step):
            last = _exact(low) + (_exact(high) - _exact(low)) // _exact(step) * _exact(step)
            raise ValueError(f"steps of {shown(step)} from {shown(low)} end at {last}, and not at {shown(high)}")


class Whole(_Range):
    """A whole number."""

    bounds: list[int] = Field(alias="int", min_length=2, max_length=2, description="[lowest, highest], both included")
    step: int | None = Field(None, ge=1, description="the distance of the values; 1 if not given")

    @model_validator(mode="after")
    def _possible(self) -> Whole:
        self._check(self.bounds[0], self.bounds[1], self.step)
        return self

    @property
    def count(self) -> int:
        return (self.bounds[1] - self.bounds[0]) // (self.step or 1) + 1

    def options(self) -> Iterator[Option]:
        return (Option(str(n), n) for n in range(self.bounds[0], self.bounds[1] + 1, self.step or 1))


class Real(_Range):
    """A number."""

    bounds: list[float] = Field(
        alias="float", min_length=2, max_length=2, description="[lowest, highest], both included"
    )
    step: float | None = Field(None, gt=0, description="the distance of the values; without it any number between")

    @model_validator(mode="after")
    def _possible(self) -> Real:
        self._check(self.bounds[0], self.bounds[1], self.step)
        return self

    @property
    def count(self) -> int | None:
        low, high = map(_exact, self.bounds)
        return None if self.step is None else int((high - low) / _exact(self.step)) + 1

    def options(self) -> Iterator[Option]:
        low, step = _exact(self.bounds[0]), _exact(self.step or 0.0)
        values = (float(low + index * step) for index in range(self.count or 0))
        return (Option(label_of(value), value) for value in values)


class Text(Distribution):
    """A text with ``$name`` or ``${name}`` where a part varies: ``before stage$n.*.conv1``, ``n: {subset: [1, 2, 3]}``.

    Several of a subset are written as a pattern's alternatives: ``before stage(1|3).*.conv1``.
    """

    text: str = Field(min_length=1, max_length=1_000, description="the text; $name or ${name} stands for a part")
    parts: dict[str, Any] = Field(alias="with", min_length=1, description="name of the part → its values")

    @property
    def count(self) -> int | None:
        counts = [part.count for part in self.parts.values()]
        return None if None in counts else prod(counts)

    def options(self) -> Iterator[Option]:
        for values in product(*(part.options() for part in self.parts.values())):
            filled = dict(zip(self.parts, (_piece(option.value) for option in values), strict=True))
            text = _NAME.sub(partial(_filled, filled), self.text)
            yield Option(text, text)

    def names(self) -> list[str]:
        """The parts that the text has, each once."""
        found = dict.fromkeys(match[1] or match[2] for match in _NAME.finditer(self.text))
        return [name for name in found if name != EACH or self.each is None]


def _filled(values: dict[str, str], match: re.Match[str]) -> str:
    return values[match[1] or match[2]]


KINDS: dict[str, type[Distribution]] = {
    "choice": Choice,
    "subset": Subset,
    "int": Whole,
    "float": Real,
    "text": Text,
}


def read_distribution(value: Any, collector: Collector, path: Path, kinds: dict[str, Any] = KINDS) -> Any:
    """The distribution that a mapping says, or ``None`` with what is wrong in ``collector``."""
    if not isinstance(value, dict):
        hint = f"write {{choice: {_listing(value)}}}" if isinstance(value, str | int | float | list) else ""
        collector.add(path, f"{shown(value)} is not a distribution; a mapping with {_either(kinds)}", hint, key=False)
        return None
    named = [key for key in value if key in kinds]
    if len(named) != 1:
        message = f"{' and '.join(named)} exclude each other" if named else f"which values? {_either(kinds)}"
        near = [hint for key in value if (hint := did_you_mean(key, kinds)).startswith("did")]
        collector.add(path, message, "" if named else next(iter(near), ""))
        return None
    model = kinds[named[0]]
    try:
        read: Distribution = model.model_validate(dict(value))
    except ValidationError as error:
        collector.extend(problems(error, collector.tree, path, model=model))
        return None
    read = read.model_copy(update={name: value[key] for key, name in _AS_WRITTEN.items() if key in value})
    return _with_parts(read, collector, path) if isinstance(read, Text) else _without_repeats(read, collector, path)


_AS_WRITTEN = {"choice": "choice", "subset": "subset", "when": "when"}
"""Key → field of what keeps its places: pydantic's copies have none."""
PARTS = {key: KINDS[key] for key in ("choice", "subset", "int")}


def _with_parts(text: Text, collector: Collector, path: Path) -> Text | None:
    """A text with its parts read; each is used, and each ``$name`` is one."""
    before = len(collector.problems)
    used = text.names()
    parts = {}
    for name, value in text.parts.items():
        here = (*path, "with", name)
        if name not in used and not (text.each is not None and name == EACH):
            collector.add(here, f"unused: the text has no ${name}", did_you_mean(name, used))
        part = read_distribution(value, collector, here, PARTS)
        parts[name] = part
        if text.each is not None and name == EACH:
            collector.add(here, "$each stands for the name that each: gives", "give the part another name")
        if part is not None and part.when is not None:
            collector.add((*here, "when"), "a part of a text always varies", "put when beside text")
        elif part is not None and part.each is not None:
            collector.add((*here, "each"), "a part of a text has no names of its own", "put each beside text")
        elif part is not None and any(not isinstance(item, str | int) or item is True for item in _items(part)):
            collector.add(here, "a part of a text is text or a whole number", key=False)
    for name in used:
        if name not in text.parts:
            collector.add((*path, "text"), f"${name} is no part", did_you_mean(name, text.parts), key=False)
    return text.model_copy(update={"parts": parts}) if len(collector.problems) == before else None


def _without_repeats(read: Distribution, collector: Collector, path: Path) -> Distribution | None:
    labels: list[str] = []
    key = "choice" if isinstance(read, Choice) else "subset"
    for index, item in enumerate(_items(read)):
        if label_of(item) in labels:
            collector.add((*path, key, index), f"{shown(item)} is given twice", key=False)
            return None
        labels.append(label_of(item))
    return read


def _items(read: Distribution) -> list[Any]:
    return read.choice if isinstance(read, Choice) else read.subset if isinstance(read, Subset) else []


def _label(value: Any) -> str:
    """Shorter than JSON: ``{block: se, reduction: 8}``."""
    return label_of(value).replace('"', "") if isinstance(value, dict | list) else label_of(value)


def _name(value: Any) -> str | None:
    """What a mapping is called in a table, where no other is called so: its block, or the name of its optimiser."""
    named = [value.get(key) for key in ("block", "name")] if isinstance(value, dict) else []
    return next((name for name in named if isinstance(name, str)), None)


def _exact(number: float) -> Decimal:
    """The number as it was written: 0.1 is a tenth."""
    return Decimal(repr(number))


def _piece(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    return str(value[0]) if len(value) == 1 else f"({'|'.join(map(str, value))})"


def _either(kinds: dict[str, Any]) -> str:
    *others, last = kinds
    return f"{', '.join(others)} or {last}"


def _listing(value: Any) -> str:
    return "[…]" if isinstance(value, list) else f"[{value if isinstance(value, str) else label_of(value)}]"
