"""``network.blocks``: composites that a spec declares, with parameters of their own.

    my_block:
      params: {width: 16, stride: {default: 1, repeat: first}, norm: batch_norm, groups: {}}
      graph: {…}

A parameter's type is that of its default; ``{}`` has none and must be given. In the graph, ``$width`` is a parameter,
``$in`` the channels that arrive at the composite, ``$classes`` the data's classes, ``$input`` the value that arrives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import Field, create_model

from ablate.block import BlockParams, BlockType, Composite, Scope, Value, registry
from ablate.collect import Collector, Path
from ablate.diagnose import shown
from ablate.errors import did_you_mean
from ablate.expression import names_in
from ablate.graph import Reported, ScopeAt
from ablate.network.entries import CHANNELS, CLASSES, RESERVED, Reading, mapping, output_of, place_entries, read_entries
from ablate.pattern import name_problem

KEYS = ("params", "graph", "description")
PARAMETER_KEYS = ("default", "repeat", "description")
_ANY = int | float | str | bool


@dataclass(frozen=True)
class _Declared:
    """What a spec says of one composite."""

    name: str
    section: Mapping[str, Any]
    path: Path
    reading: Reading
    """Without names: these come with each call."""

    def entries(self, names: Mapping[str, Any], collector: Collector, unknown: frozenset[str] = frozenset()) -> Any:
        reading = replace(self.reading, names=names, collector=collector, unknown=unknown)
        return read_entries(self.section.get("graph"), reading, (*self.path, "graph"))


def declare(section: object, reading: Reading, path: Path) -> dict[str, BlockType]:
    """The composites by name; each may use the others, and none itself."""
    blocks: dict[str, BlockType] = {}
    found: list[_Declared] = []
    for name, value in mapping(section, "block names to composites", reading.collector, path).items():
        here = (*path, name)
        fields = _fields(name, value, reading.collector, here)
        if fields is None:
            continue
        gone = frozenset(each.partition("/")[2] for each in reading.removed if each.startswith(f"{name}/"))
        declared = _Declared(name, value, here, replace(reading, blocks=blocks, removed=gone))
        blocks[name] = _composite(declared, fields)
        found.append(declared)
    for declared in found:
        _check(declared, blocks[declared.name].Params, reading.collector)
    return blocks


def _fields(name: str, value: object, collector: Collector, path: Path) -> dict[str, Any] | None:
    """The parameters, as pydantic takes them; ``None`` where the declaration has no sound outline."""
    before = len(collector.problems)
    if wrong := name_problem(name):
        collector.add(path, wrong)
    elif name in registry():
        collector.add(path, f"'{name}' is a built-in block", "choose another name")
    if not isinstance(value, dict):
        collector.add(path, f"{shown(value)} is not a composite; write {{params: {{…}}, graph: {{…}}}}", key=False)
        return None
    for key in value:
        if key not in KEYS:
            collector.add((*path, key), "unknown key", did_you_mean(key, KEYS))
    if not isinstance(value.get("description", ""), str):
        collector.add((*path, "description"), f"{shown(value['description'])} is not text", key=False)
    params = mapping(value.get("params", {}), "parameter names to defaults", collector, (*path, "params"))
    fields = {key: _field(key, item, collector, (*path, "params", key)) for key, item in params.items()}
    return fields if len(collector.problems) == before else None


def _field(name: str, value: Any, collector: Collector, path: Path) -> Any:
    if wrong := name_problem(name):
        collector.add(path, wrong)
    elif name in RESERVED:
        collector.add(path, f"${name} has a meaning of its own", "choose another name")
    elif name in ("block", "from", "repeat", "at", "residual", "rank"):
        collector.add(path, f"'{name}' is a key of nodes and insertions", "choose another name")
    form = value if isinstance(value, dict) else {"default": value}
    for key in form:
        if key not in PARAMETER_KEYS:
            collector.add((*path, key), "unknown key", did_you_mean(key, PARAMETER_KEYS))
    if form.get("repeat", "first") != "first":
        collector.add((*path, "repeat"), f"{shown(form['repeat'])} is not 'first'", "leave it out: acts on all")
    if "repeat" in form and "default" not in form:
        collector.add(path, "acts on the first of a repeat and needs a default for the others", "add default:")
    default = form.get("default", ...)
    if default is not ... and not isinstance(default, _ANY):
        collector.add(path, f"{shown(default)} is not a number, text, true or false", key=False)
    kind = _ANY if default is ... else (int | float if isinstance(default, float) else type(default))
    extra: Any = {"repeat": "first"} if "repeat" in form else None
    description = str(form.get("description", f"a parameter of the composite, ${name} in its graph"))
    return kind, Field(default, json_schema_extra=extra, description=description)


def _composite(declared: _Declared, fields: Mapping[str, Any]) -> type[Composite]:
    model = create_model(declared.name, __base__=BlockParams, **fields)
    main = declared.reading.collector

    class Declared(Composite):
        Params = model

        @classmethod
        def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
            assert isinstance(scope, ScopeAt)
            (source,) = inputs
            shape = scope.shape(source)
            own = Collector(main.tree)
            entries = declared.entries({**dict(params), CHANNELS: shape[0], CLASSES: scope.classes}, own)
            value = None
            if entries and not own.problems:
                value = place_entries(
                    entries,
                    output_of(declared.section["graph"], entries),
                    scope.builder,
                    own,
                    source=source,
                    prefix=f"{scope.prefix}.",
                    insertion=scope.insertion,
                )
            main.problems += [problem for problem in own.problems if problem not in main.problems]
            main.orphans += [orphan for orphan in own.orphans if orphan not in main.orphans]
            if value is None:
                raise Reported(f"node '{scope.prefix}' ({declared.name})")
            return value

    Declared.name = declared.name
    Declared.__doc__ = str(declared.section.get("description", "A composite that the spec declares."))
    return Declared


def _check(declared: _Declared, params: type[BlockParams], collector: Collector) -> None:
    """What can be said before the composite is used: names, keys, wiring, and whatever reads known values only."""
    known = {name: info.default for name, info in params.model_fields.items() if not info.is_required()}
    unknown = frozenset({*params.model_fields, CHANNELS, CLASSES} - known.keys())
    declared.entries(known, collector, unknown)


def check_composites_used(section: object, collector: Collector, path: Path) -> None:
    """Of the spec as written: a parameter of a composite that its graph does not read changes nothing."""
    for name, declared in section.items() if isinstance(section, dict) else ():
        params = declared.get("params") if isinstance(declared, dict) else None
        used = names_in(declared.get("graph")) if isinstance(declared, dict) else set()
        for parameter in params if isinstance(params, dict) else ():
            if parameter not in used:
                here = (*path, name, "params", parameter)
                collector.add(here, f"unused: no expression reads ${parameter}")
