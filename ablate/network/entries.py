"""A ``graph`` mapping, of the network or of a composite → validated entries → nodes of the graph.

Every mistake is collected with its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from heapq import heapify, heappop, heappush
from typing import Any

from pydantic import ValidationError

from ablate.block import BlockParams, BlockType, Value, find, is_registered, registry, unusable
from ablate.collect import Collector, Path
from ablate.diagnose import problems, shown
from ablate.errors import did_you_mean
from ablate.expression import is_expression, names_in, substitute
from ablate.graph import INPUT, GraphBuilder, GraphError, Reported, module_attribute_clash
from ablate.pattern import name_problem

MOST_REPEATS = 1_000
MOST_ENTRIES = 2_000
NODE_KEYS = ("block", "from", "repeat")
CHANNELS = "in"
"""``$in``: the channels that arrive where an expression is read: at a composite, an insertion, the network."""
CLASSES = "classes"
RESERVED = (CHANNELS, CLASSES, INPUT)


@dataclass(frozen=True)
class Reading:
    """What the entries of one graph may refer to, and who hears of mistakes."""

    names: Mapping[str, Any]
    """The values of expressions' names."""
    collector: Collector
    blocks: Mapping[str, BlockType] = field(default_factory=dict)
    """The composites that the spec declares."""
    open_defaults: Mapping[str, Any] = field(default_factory=dict)
    """``network.defaults``, for required parameters that an entry leaves open."""
    removed: frozenset[str] = frozenset()
    """Nodes that a patch took away: they may still stand in a ``from``, and disappear from it."""
    unknown: frozenset[str] = frozenset()
    """Names whose values are not known yet; what reads them is checked later."""

    @cached_property
    def key(self) -> str | None:
        """Equal for readings by which equal sections mean the same; ``None`` where a spec's own composites are known.

        These are made anew with each section that declares them, and know its collector.
        """
        if self.blocks:
            return None
        return repr([self.names, self.open_defaults, sorted(self.removed), sorted(self.unknown)])

    def silent(self) -> Reading:
        """The same, with a collector of its own, which nobody asks: what is remembered of a reading keeps no tree."""
        return replace(self, collector=Collector(None))

    @property
    def untroubled(self) -> bool:
        """Whether nothing was reported yet, no orphan either."""
        return not self.collector.problems and not self.collector.orphans


@dataclass(frozen=True)
class Entry:
    """One entry of a graph, validated; its inputs are names still."""

    name: str
    block: BlockType
    params: BlockParams
    sources: tuple[str, ...]
    repeat: int | None
    path: Path
    bypassed: bool = False


def mapping(value: object, what: str, collector: Collector, path: Path) -> Mapping[str, Any]:
    """``value`` as a mapping of not too many entries; an empty one where it is none."""
    if isinstance(value, dict):
        if len(value) > MOST_ENTRIES:
            collector.add(path, f"{len(value):,} entries; at most {MOST_ENTRIES:,}")
            return {}
        return value
    collector.add(path, "missing" if value is None else f"{shown(value)} is not a mapping of {what}")
    return {}


def read_entries(section: object, reading: Reading, path: Path) -> list[Entry]:
    """The entries in the order written."""
    if reading.key is not None and isinstance(section, dict):
        known = _untroubled_entries(_Asked(section, reading, path))
        if known is not None and all(is_registered(entry.block) for entry in known):
            return list(known)
    return _read_entries(section, reading, path)


class _Asked:
    """A graph's section and how it is read. Equal ones have equal entries, which a search reads once.

    Of who wrote what only the nodes' own layers count: others matter to mistakes and to orphans.
    """

    def __init__(self, section: Mapping[str, Any], reading: Reading, path: Path) -> None:
        self.section, self.reading, self.path = section, reading, path
        layers = [place.layer for place in getattr(section, "keys_at", {}).values()]
        self.key = (repr(section), reading.key, path, *layers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Asked) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@lru_cache(maxsize=256)
def _untroubled_entries(asked: _Asked) -> tuple[Entry, ...] | None:
    """The entries; ``None`` where there is something to report, which is then said to who asks."""
    reading = asked.reading = asked.reading.silent()
    entries = _read_entries(asked.section, reading, asked.path)
    return tuple(entries) if reading.untroubled else None


def _read_entries(section: object, reading: Reading, path: Path) -> list[Entry]:
    graph = mapping(section, "node names to nodes", reading.collector, path)
    if isinstance(section, dict) and not section:
        reading.collector.add(path, "an empty graph; give at least one node")
    entries: list[Entry] = []
    previous = INPUT
    for name, node in graph.items():
        entry = _entry(name, node, previous, graph, reading, (*path, name))
        if entry is not None:
            entries.append(entry)
        if not _added(graph, name):
            previous = name
    return entries


def _entry(
    name: str, node: object, previous: str, graph: Mapping[str, Any], reading: Reading, path: Path
) -> Entry | None:
    collector = reading.collector
    wrong = name_problem(name)
    if wrong is None and module_attribute_clash(name):
        wrong = f"'{name}' is the name of an attribute of a PyTorch module; choose another name"
    if wrong:
        collector.add(path, wrong)
    if not isinstance(node, dict):
        collector.add(path, f"{shown(node)} is not a node; write {{block: NAME, …}}", key=False)
        return None
    block = read_block(node, reading, path)
    repeat = _repeat(node, reading, path)
    if "from" not in node and _added(graph, name):
        collector.add(path, "a node that a patch adds must say what it reads", "add from: NAME")
    removed = reading.removed - graph.keys()
    sources = _sources(node.get("from", previous), graph, removed, collector, (*path, "from"))
    if block is None or sources is None:
        return None
    params = read_params(block, node, NODE_KEYS, reading, path)
    if params is None:
        return None
    kept = tuple(source for source in sources if source.split(".")[0] not in removed)
    # In a resolved spec, a list of one is what is left of a join.
    alone = isinstance(node.get("from"), list) and block.fewest > 1
    bypassed = block.variadic and len(kept) == 1 and (alone or len(sources) > 1)
    if len(kept) < len(sources) and not block.variadic:
        gone = next(source for source in sources if source not in kept)
        collector.add((*path, "from"), f"'{gone}' was removed and '{name}' reads it", "say from: again", key=False)
    elif not kept:
        collector.add((*path, "from"), f"everything that '{name}' reads was removed", "remove it too", key=False)
    return Entry(name, block, params, kept, repeat, path, bypassed)


def _added(graph: Mapping[str, Any], name: str) -> bool:
    """Whether another layer than the graph's own added the node."""
    keys_at = getattr(graph, "keys_at", None)
    if not keys_at or name not in keys_at:
        return False
    first = next(iter(keys_at.values()))
    return bool(keys_at[name].layer != first.layer)


def read_block(node: Mapping[str, Any], reading: Reading, path: Path) -> BlockType | None:
    """The block that a node or an insertion names, by an expression perhaps (``block: $norm``)."""
    name = node.get("block")
    if is_expression(name):
        try:
            name = None if reads_unknown(name, reading) else substitute(name, reading.names)
        except ValueError as error:
            reading.collector.add((*path, "block"), str(error), key=False)
            return None
        if name is None:
            return None
    if not isinstance(name, str):
        message = "missing: which block?" if name is None else f"{shown(name)} is not a block's name"
        reading.collector.add((*path, "block"), message, key=False)
        return None
    if name in reading.blocks:
        return reading.blocks[name]
    try:
        return find(name)
    except KeyError:
        hint = did_you_mean(name, {**registry(), **reading.blocks})
        why = unusable(name)
        message, hint = (why, "") if why else (f"unknown block '{name}'", hint)
        reading.collector.add((*path, "block"), message, hint, key=False)
        return None


def reads_unknown(value: Any, reading: Reading) -> bool:
    """Whether an expression in ``value`` reads a name whose value is not known yet."""
    return bool(names_in(value) & reading.unknown)


def _repeat(node: Mapping[str, Any], reading: Reading, path: Path) -> int | None:
    if "repeat" not in node:
        return None
    if reads_unknown(node["repeat"], reading):
        return 1
    try:
        value = substitute(node["repeat"], reading.names)
    except ValueError as error:
        reading.collector.add((*path, "repeat"), str(error), key=False)
        return 1
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_REPEATS:
        message = f"{shown(value)} is not a whole number from 1 to {MOST_REPEATS}"
        reading.collector.add((*path, "repeat"), message, key=False)
        return 1
    return value


def _sources(
    value: object, graph: Mapping[str, Any], removed: frozenset[str], collector: Collector, path: Path
) -> tuple[str, ...] | None:
    items = value if isinstance(value, list) else [value]
    known = [INPUT, *graph, *removed]
    sources: list[str] = []
    for item in items:
        name = INPUT if item == "$input" else item
        if not isinstance(name, str) or name.split(".")[0] not in known:
            collector.add(path, f"no node '{item}'", did_you_mean(str(item), known), key=False)
            return None
        sources.append(name)
    if not sources:
        collector.add(path, "an empty list; name what the node reads", key=False)
        return None
    return tuple(sources)


def read_params(
    block: BlockType,
    node: Mapping[str, Any],
    own_keys: tuple[str, ...],
    reading: Reading,
    path: Path,
    taken_over: Mapping[str, Any] | None = None,
) -> BlockParams | None:
    """The block's parameters among the keys of ``node``: expressions evaluated, strictly validated.

    ``taken_over`` are values for parameters that the node leaves open. Where a value reads a name that is not known
    yet only the keys are checked, and the answer is ``None``.
    """
    evaluated = known_keys(block, node, own_keys, reading, path)
    if evaluated is None:
        return None
    given = {key: value for key, value in node.items() if key in evaluated}
    if reads_unknown(dict(given), reading):
        return None
    if not _evaluate(block, evaluated, reading, path):
        return None
    for key, info in block.Params.model_fields.items():
        if key not in evaluated and taken_over and key in taken_over:
            evaluated[key] = taken_over[key]
        elif key not in evaluated and info.is_required() and key in reading.open_defaults:
            evaluated[key] = reading.open_defaults[key]
    try:
        return block.Params.model_validate(evaluated)
    except ValidationError as error:
        reading.collector.extend(problems(error, reading.collector.tree, path, model=block.Params))
        return None


def known_keys(
    block: BlockType, node: Mapping[str, Any], own_keys: tuple[str, ...], reading: Reading, path: Path
) -> dict[str, Any] | None:
    """The block's keys of ``node``, unevaluated; ``None`` where one is unknown or null."""
    collector = reading.collector
    fields = block.Params.model_fields
    taken: dict[str, Any] = {}
    sound = True
    for key, value in node.items():
        if key in own_keys:
            continue
        if key not in fields:
            if not collector.drop_if_orphaned(node, key, "block", (*path, key)):
                hint = did_you_mean(key, [*fields, *own_keys])
                collector.add((*path, key), f"unknown parameter of block '{block.name}'", hint)
                sound = False
        elif value is None:
            collector.add((*path, key), "a parameter never takes null", "state a value, as act: none does", key=False)
            sound = False
        else:
            taken[key] = value
    return taken if sound else None


def _evaluate(block: BlockType, values: dict[str, Any], reading: Reading, path: Path) -> bool:
    """Evaluate the expressions among ``values`` in place; whether all of them could be."""
    sound = True
    for key, value in values.items():
        try:
            values[key] = evaluated(block, key, value, reading.names)
        except ValueError as error:
            message, _, hint = str(error).partition("; ")
            reading.collector.add((*path, key), message, hint, key=False)
            sound = False
    return sound


def evaluated(block: BlockType, key: str, value: Any, names: Mapping[str, Any]) -> Any:
    """The value of a parameter; ``ValueError`` where an expression gives a fraction to a whole number."""
    if is_linear(value):
        raise ValueError("linear spreads a value over places; it belongs to an insertion or to network.set")
    result = substitute(value, names)
    if is_expression(value) and isinstance(result, float) and wants_int(block.Params.model_fields[key].annotation):
        raise ValueError(f"'{value}' is {result:g}, not a whole number; write round({value})")
    return result


def is_linear(value: Any) -> bool:
    return isinstance(value, dict) and "linear" in value


def wants_int(annotation: object) -> bool:
    kinds = getattr(annotation, "__args__", (annotation,))
    return int in kinds and float not in kinds


def output_of(section: Mapping[str, Any], entries: list[Entry]) -> str:
    """The last node as written: one that a patch adds never becomes the output by standing last."""
    written = [entry.name for entry in entries if not _added(section, entry.name)]
    return written[-1] if written else entries[-1].name


def place_entries(
    entries: list[Entry],
    output: str,
    builder: GraphBuilder,
    collector: Collector,
    *,
    source: Value = INPUT,
    prefix: str = "",
    insertion: str | None = None,
) -> Value | None:
    """Place the entries, their names after ``prefix``, and return the value of ``output``; ``None`` where one can't be.

    ``source`` is the value that the entries call ``input``.
    """
    ordered = _in_order(entries, collector)
    if ordered is None:
        return None
    values: dict[str, Value] = {INPUT: source}
    for entry in ordered:
        name = prefix + entry.name
        try:
            inputs = tuple(_value(wanted, values, builder, prefix) for wanted in entry.sources)
            if entry.bypassed:
                values[entry.name] = inputs[0]
            elif entry.repeat is None:
                values[entry.name] = builder.place(name, entry.block, entry.params, inputs, insertion)
            else:
                values[entry.name] = builder.repeat(name, entry.block, entry.params, inputs, entry.repeat, insertion)
        except Reported:
            return None
        except GraphError as error:
            collector.add(entry.path, str(error))
            return None
    return values[output]


def _value(source: str, values: Mapping[str, Value], builder: GraphBuilder, prefix: str) -> Value:
    if source in values:
        return values[source]
    full = prefix + source
    if full in builder.scopes:
        return builder.scopes[full]
    if full in builder.nodes:
        return full
    within = [name for name in [*builder.nodes, *builder.scopes] if name.startswith(full.rpartition(".")[0] + ".")]
    hint = did_you_mean(full, within)
    raise GraphError(f"no node '{source}'" + (f"; {hint}" if hint else ""))


def _in_order(entries: list[Entry], collector: Collector) -> list[Entry] | None:
    """Entries so that each follows what it reads, otherwise as written; a cycle is an error that names it."""
    missing = [{source.split(".")[0] for source in entry.sources} - {INPUT} for entry in entries]
    readers: dict[str, list[int]] = {}
    for index, names in enumerate(missing):
        for name in names:
            readers.setdefault(name, []).append(index)
    ready = [index for index, names in enumerate(missing) if not names]
    heapify(ready)
    ordered: list[Entry] = []
    while ready:
        ordered.append(entries[heappop(ready)])
        done = ordered[-1].name
        for index in readers.get(done, ()):
            missing[index].discard(done)
            if not missing[index]:
                heappush(ready, index)
    waiting = {entry.name: entry for entry, names in zip(entries, missing, strict=True) if names}
    if waiting:
        first = next(iter(waiting.values()))
        collector.add((*first.path, "from"), f"a cycle: {_cycle(waiting, first)}", key=False)
        return None
    return ordered


def _cycle(waiting: Mapping[str, Entry], start: Entry) -> str:
    seen: list[str] = []
    name = start.name
    while name not in seen:
        seen.append(name)
        name = next(s.split(".")[0] for s in waiting[name].sources if s.split(".")[0] in waiting)
    return " → ".join([*seen[seen.index(name) :], name][::-1])
