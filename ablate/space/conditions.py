"""Conditions of a space, ``when``, held against a spec and against the other paths of the space."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ablate import yamlfile
from ablate.collect import Collector
from ablate.diagnose import shown
from ablate.errors import did_you_mean
from ablate.space.distributions import Option
from ablate.space.each import Varied
from ablate.space.grid import Condition, Dimension
from ablate.spec import split_path

NOWHERE = "state it in the spec, or let it vary"


class Conditions:
    """Of all paths that vary; what is wrong with one goes to ``collector``."""

    def __init__(
        self,
        varied: Mapping[str, Varied],
        dimensions: Mapping[str, Dimension],
        written: yamlfile.Mapping,
        collector: Collector,
    ) -> None:
        self.varied = varied
        self.dimensions = dimensions
        self.written = written
        self.collector = collector

    def of(self, path: str) -> tuple[Condition, ...]:
        found = [
            _present(other)
            for name, other in self.dimensions.items()
            if path.startswith(f"{name}.") and (other.new or any(option.value is None for option in other.options))
        ]
        for about, wanted in (self.varied[path].distribution.when or {}).items():
            values = wanted if isinstance(wanted, list) else [wanted]
            over = [self.dimensions[each] for each in above(about, self.dimensions)]
            if about in self.dimensions:
                found += self._on_path(path, values, self.dimensions[about])
            elif over:
                found += self._below(path, about, values, over[-1])
                found += [_present(other) for other in over[:-1]]
            else:
                self._check_written(path, about, values)
        return tuple(found)

    def _on_path(self, of: str, values: list[Any], about: Dimension) -> list[Condition]:
        """A condition on what another path of the space is set to: each of its values must be possible there."""
        if about.span is not None:
            message = f"'{about.path}' is a range without steps: none of its values is ever met exactly"
            self._add(of, "when", about.path, message=message, hint="add step there, or make it a choice")
            return []
        by_value = {_meaning(option.value): index for index, option in enumerate(about.options)}
        missing = [value for value in values if _meaning(value) not in by_value]
        if about.options and missing:
            message = f"{shown(missing[0])} is no value of '{about.path}' in this space"
            self._add(of, "when", about.path, message=message, hint=_nearest(missing[0], about.options), key=False)
            return []
        met = frozenset(by_value[_meaning(value)] for value in values if about.options)
        return [Condition(about.path, met, False)]

    def _below(self, of: str, path: str, values: list[Any], over: Dimension) -> list[Condition]:
        """A condition on a part of what another path is set to as a whole, which leaves nothing of the spec's there."""
        inner = split_path(path)[len(split_path(over.path)) :]
        there = [at(option.value, inner) for option in over.options]
        written = at(self.written, split_path(path))
        known = {_meaning(value) for value in (*there, written) if value is not None}
        missing = [value for value in values if _meaning(value) not in known]
        if over.options and missing:
            message = f"{shown(missing[0])} is what no value of '{over.path}' in this space has there"
            self._add(of, "when", path, message=message, key=False)
            return []
        wanted = {_meaning(value) for value in values}
        holds = frozenset(index for index, value in enumerate(there) if value is not None and _meaning(value) in wanted)
        return [Condition(over.path, holds, written is not None and _meaning(written) in wanted)]

    def _check_written(self, of: str, path: str, values: list[Any]) -> None:
        """A condition on what the spec says: it holds everywhere, or nowhere, which makes it a mistake."""
        found: Any = self.written
        parts = split_path(path)
        for part in parts:
            if not isinstance(found, dict) or part not in found:
                hint = self._meant(parts)
                self._add(of, "when", path, message="neither varies nor stands in the spec", hint=hint)
                return
            found = found[part]
        if _meaning(found) not in map(_meaning, values):
            self._add(of, "when", path, message=f"never holds: the spec says {shown(found)}", key=False)

    def _meant(self, parts: tuple[str, ...]) -> str:
        """What to do about a path that is nowhere: the name that is near to the first part that is not there."""
        found: Any = self.written
        for depth, part in enumerate(parts):
            keys = [split_path(other) for other in self.varied]
            varied = {other[depth] for other in keys if len(other) > depth and other[:depth] == parts[:depth]}
            beside = {*(found if isinstance(found, dict) else ()), *varied}
            if part not in beside:
                hint = did_you_mean(part, beside)
                return hint if hint.startswith("did") else NOWHERE
            found = at(found, [part])
        return NOWHERE

    def _add(self, path: str, *rest: str, message: str, hint: str = "", key: bool = True) -> None:
        varied = self.varied[path]
        as_written = [varied.keys.get(part, part) for part in rest]
        self.collector.add(("space", varied.written, *as_written), message, hint, key=key)


def above(path: str, paths: Iterable[str]) -> list[str]:
    """Those of ``paths`` that ``path`` is, or is below: the shortest first."""
    return sorted((other for other in paths if f"{path}.".startswith(f"{other}.")), key=len)


def at(value: Any, parts: Iterable[str]) -> Any:
    """What stands at a path within a value; ``None`` where nothing does."""
    for part in parts:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _present(over: Dimension) -> Condition:
    """Holds unless null removes what is at the path, or nothing is there where that path does not vary."""
    there = frozenset(index for index, option in enumerate(over.options) if option.value is not None)
    return Condition(over.path, there, not over.new)


def _meaning(value: Any) -> str:
    """Equal for equal values: ``8`` is not ``'8'``."""
    return json.dumps(value, sort_keys=True)


def _nearest(value: Any, options: tuple[Option, ...]) -> str:
    return did_you_mean(value if isinstance(value, str) else json.dumps(value), Counter(o.label for o in options))
