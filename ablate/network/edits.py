"""``network.set`` and ``network.defaults``: what a spec changes about nodes that exist already.

``set`` maps patterns to parameters of the nodes, composites and repeats that they match, by names as the graph is
written. ``defaults`` fills parameters that a node, or a composite's call of one, leaves open: by the parameter's name,
or by a block's name for that block alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from ablate.block import BlockParams, BlockType, registry
from ablate.collect import Collector, Orphan, Path, dotted
from ablate.diagnose import shown
from ablate.errors import did_you_mean
from ablate.expression import substitute
from ablate.graph import Reported
from ablate.network.entries import Reading, evaluated, is_linear, mapping
from ablate.pattern import Pattern, nearest
from ablate.yamlfile import place_of

LEFT = object()
SET: Path = ("network", "set")
DEFAULTS: Path = ("network", "defaults")


@dataclass
class _Set:
    """One entry of ``network.set`` and what it has matched so far."""

    pattern: Pattern
    values: Mapping[str, Any]
    matched: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return (*SET, self.pattern.text)


class Edits:
    """What the section changes. Called with every node before it is placed; notes what it was used for."""

    def __init__(self, section: Mapping[str, Any], reading: Reading) -> None:
        self.reading = reading
        self.sets = _sets(section.get("set", {}), reading.collector)
        self.defaults = mapping(section.get("defaults", {}), "parameters to values", reading.collector, DEFAULTS)
        self.filled: set[Path] = set()
        self.places: dict[str, list[str]] = {}
        """Pattern → what it matches, once the graph has been gone through."""
        self._owners: dict[tuple[str, str], str] = {}
        self.leaves_spreads = False
        """Whether a value that is spread over places is left as it is, until it is known how many there are."""
        self._check_defaults()

    def fill(self, name: str, block: BlockType, params: BlockParams, repeats: Mapping[str, int]) -> BlockParams:
        """The parameters with the defaults in what is left open."""
        changes: dict[str, Any] = {}
        for key, info in block.Params.model_fields.items():
            if key in params.model_fields_set or _acts_once(info):
                continue
            for path, value in self._defaults_of(block, key):
                changes[key] = value
                self.filled.add(path)
        return self._changed(name, block, params, changes, DEFAULTS) if changes else params

    def __call__(self, name: str, block: BlockType, params: BlockParams, repeats: Mapping[str, int]) -> BlockParams:
        """The parameters with the defaults and, over them, with what ``set`` says of this node."""
        params = self.fill(name, block, params, repeats)
        for entry in self.sets:
            if entry.pattern.matches(name, repeats):
                entry.matched.append(name)
                params = self._set(entry, name, block, params)
        return params

    @property
    def spreads(self) -> bool:
        """Whether a value is spread over places, so that these must be known beforehand."""
        return any(is_linear(value) for entry in self.sets for value in entry.values.values())

    def again(self) -> None:
        """Start over, now that the places of every pattern are known."""
        self.leaves_spreads = False
        self.places = {entry.pattern.text: entry.matched for entry in self.sets}
        for entry in self.sets:
            entry.matched = []
        self._owners.clear()

    def report_unused(self, names: list[str]) -> None:
        """A pattern that matches none of ``names`` is an error; a default that fills nothing is an orphan."""
        collector = self.reading.collector
        for entry in self.sets:
            if not entry.matched:
                hint = f"nearest: {nearest(entry.pattern.text, names)}"
                collector.add(entry.path, f"pattern '{entry.pattern.text}' matches nothing", hint)
        for path in self._default_paths():
            if path not in self.filled:
                place = place_of(collector.tree, path)
                value: Any = self.defaults
                for key in path[len(DEFAULTS) :]:
                    value = value[key]
                collector.orphans.append(Orphan(dotted(path), value, place.layer if place else "spec"))

    def open_defaults(self) -> dict[str, Any]:
        """The defaults by parameter's name, for required parameters of the graph's own entries."""
        return {key: value for key, value in self.defaults.items() if not isinstance(value, dict)}

    def _set(self, entry: _Set, name: str, block: BlockType, params: BlockParams) -> BlockParams:
        collector = self.reading.collector
        changes: dict[str, Any] = {}
        for key, value in entry.values.items():
            path = (*entry.path, key)
            if key not in block.Params.model_fields:
                hint = did_you_mean(key, block.Params.model_fields)
                collector.add(path, f"'{name}' is a '{block.name}', which has no parameter '{key}'", hint)
                raise Reported(name)
            owner = self._owners.setdefault((name, key), entry.pattern.text)
            if owner != entry.pattern.text:
                collector.add(
                    path, f"'{owner}' sets {key} of '{name}' already", "let only one of the patterns match it"
                )
                raise Reported(name)
            try:
                changed = self._value(entry, name, block, key, value)
                changes |= {} if changed is LEFT else {key: changed}
            except ValueError as error:
                message, _, hint = str(error).partition("; ")
                collector.add(path, message, hint, key=False)
                raise Reported(name) from None
        return self._changed(name, block, params, changes, entry.path)

    def _value(self, entry: _Set, name: str, block: BlockType, key: str, value: Any) -> Any:
        if not is_linear(value):
            return evaluated(block, key, value, self.reading.names)
        if self.leaves_spreads:
            spread(substitute(value, self.reading.names), 0, 1)  # for what is wrong with it
            return LEFT
        places = self.places.get(entry.pattern.text, [name])
        return spread(substitute(value, self.reading.names), places.index(name), len(places))

    def _changed(
        self, name: str, block: BlockType, params: BlockParams, changes: Mapping[str, Any], path: Path
    ) -> BlockParams:
        given = {key: getattr(params, key) for key in params.model_fields_set}
        try:
            return block.Params.model_validate({**given, **changes})
        except ValidationError as error:
            for item in error.errors(include_url=False):
                key = str(item["loc"][0]) if item["loc"] else next(iter(changes))
                message = f"{key} of '{name}' ({block.name}): {shown(changes.get(key))}: {item['msg']}"
                where = (*path, block.name, key) if path == DEFAULTS and block.name in self.defaults else (*path, key)
                self.reading.collector.add(where, message, key=False)
            raise Reported(name) from None

    def _defaults_of(self, block: BlockType, key: str) -> list[tuple[Path, Any]]:
        """The default of a parameter: by its own name, and over it by the block's."""
        found: list[tuple[Path, Any]] = []
        if key in self.defaults and not isinstance(self.defaults[key], dict):
            found.append(((*DEFAULTS, key), self.defaults[key]))
        own = self.defaults.get(block.name)
        if isinstance(own, dict) and key in own:
            found.append(((*DEFAULTS, block.name, key), own[key]))
        return found

    def _default_paths(self) -> list[Path]:
        paths: list[Path] = []
        for key, value in self.defaults.items():
            paths += [(*DEFAULTS, key, name) for name in value] if isinstance(value, dict) else [(*DEFAULTS, key)]
        return paths

    def _check_defaults(self) -> None:
        """Names that no block has, blocks that are none, values that can't be evaluated."""
        if not self.defaults:
            return
        collector, checked = self.reading.collector, {}
        blocks = {**registry(), **self.reading.blocks}
        parameters = {key for block in blocks.values() for key in block.Params.model_fields}
        for key, value in self.defaults.items():
            path = (*DEFAULTS, key)
            if isinstance(value, dict):
                if key not in blocks:
                    collector.add(path, f"unknown block '{key}'", did_you_mean(key, blocks))
                    continue
                fields = blocks[key].Params.model_fields
                for name in value.keys() - fields.keys():
                    message = f"unknown parameter of block '{key}'"
                    collector.add((*path, name), message, did_you_mean(name, fields))
            elif key not in parameters:
                hint = did_you_mean(key, parameters)
                collector.add(path, "no block has a parameter of this name", hint if hint.startswith("did") else "")
                continue
            try:
                checked[key] = substitute(value, self.reading.names)
            except ValueError as error:
                collector.add(path, str(error), key=False)
        self.defaults = checked


def _acts_once(info: Any) -> bool:
    return isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("repeat") == "first"


def _sets(section: object, collector: Collector) -> list[_Set]:
    found: list[_Set] = []
    for text, values in mapping(section, "patterns to parameters", collector, SET).items():
        try:
            pattern = Pattern(text)
        except ValueError as error:
            collector.add((*SET, text), str(error))
            continue
        if not isinstance(values, dict) or not values:
            message = f"{shown(values)} is not a mapping of parameters to values"
            collector.add((*SET, text), message, "write {kernel: 7}", key=False)
            continue
        for key, value in values.items():
            if value is None:
                collector.add((*SET, text, key), "a parameter never takes null", "state a value", key=False)
        found.append(_Set(pattern, values))
    return found


def spread(value: Mapping[str, Any], index: int, count: int) -> int | float:
    """The value at place ``index`` of ``count`` of ``{linear: [first, last]}``; the first where there is one place."""
    ends = value["linear"]
    if (
        len(value) != 1
        or not isinstance(ends, list)
        or len(ends) != 2
        or any(isinstance(end, bool) or not isinstance(end, int | float) for end in ends)
    ):
        raise ValueError(
            f"{json.dumps(value, default=str)} is no spread; write {{linear: [first, last]}}, with two numbers"
        )
    first, last = ends
    number = first + (last - first) * (index / (count - 1)) if count > 1 else first
    return int(number) if isinstance(number, float) and number.is_integer() else number
