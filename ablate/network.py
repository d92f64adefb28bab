"""The ``network`` section of a spec → the graph with its insertions.

Every mistake in the section is collected, with its place, before the first error is raised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ablate.block import BlockParams, BlockType, Shape, Value, find
from ablate.collect import Collector, Path
from ablate.diagnose import problems, shown
from ablate.errors import did_you_mean
from ablate.expression import is_expression, names_in, substitute
from ablate.graph import INPUT, Graph, GraphBuilder, GraphError, module_attribute_clash
from ablate.insert import At, Insertion, InsertionError, Residual, insert, selected
from ablate.pattern import name_problem

MOST_REPEATS = 1_000
MOST_ENTRIES = 2_000
NODE_KEYS = ("block", "from", "repeat")
INSERTION_KEYS = ("block", "at", "residual", "rank")
NETWORK_KEYS = ("params", "graph", "insert", "init")
_M = TypeVar("_M", bound=BaseModel)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class InitSpec(_Model):
    """How parameters start."""

    recipe: Literal["kaiming_fan_out", "kaiming_fan_in", "torch_default"] = Field(
        "kaiming_fan_out",
        description="weights of convolutions and linear layers; biases are uniform in ±1/sqrt(fan_in)",
    )


class ResidualSpec(_Model):
    """How an insertion F joins."""

    kind: Literal["none", "plain", "weighted"] = Field(description="F(x); F(x) + x; w·F(x) + x with w learnt")
    init: float = Field(0.0, allow_inf_nan=False, description="the first value of w (weighted only)")
    per: Literal["scalar", "channel"] = Field("scalar", description="one w, or one per channel (weighted only)")


@dataclass(frozen=True)
class Network:
    """A network's graph, as written and with its insertions, and how its parameters start."""

    written: Graph
    graph: Graph
    insertions: tuple[Insertion, ...]
    init: InitSpec


@dataclass(frozen=True)
class _Entry:
    """One entry of ``network.graph``, validated; its inputs are names still."""

    name: str
    block: BlockType
    params: BlockParams
    sources: tuple[str, ...]
    repeat: int | None
    path: Path
    bypassed: bool = False


def read_network(
    section: Mapping[str, Any],
    input_shape: Shape,
    classes: int,
    collector: Collector,
    removed: frozenset[str] = frozenset(),
) -> Network | None:
    """The network of a spec. What is wrong goes to ``collector``, and the answer is then ``None``.

    ``removed`` names the nodes of ``network.graph`` that a patch took away: they may still stand in a
    ``from``, and disappear from it.
    """
    path: Path = ("network",)
    before = len(collector.problems)
    for key in section:
        if key not in NETWORK_KEYS:
            collector.add((*path, key), "unknown key", did_you_mean(key, NETWORK_KEYS))
    init = _model(InitSpec, section.get("init", {}), collector, (*path, "init"))
    names = _parameters(section.get("params", {}), collector, (*path, "params"))
    entries = _entries(section.get("graph"), names, removed, collector, (*path, "graph"))
    sound_graph = len(collector.problems) == before or not any(
        problem.path.startswith("network.graph") for problem in collector.problems[before:]
    )
    insertions, places = _insertions(section.get("insert", {}), names, collector, (*path, "insert"))
    written = None
    if sound_graph and entries:
        written = _written(entries, input_shape, classes, collector, _output(section["graph"], entries))
    if written is not None:
        _check_places(written, places, section, collector)
    if len(collector.problems) > before or init is None or written is None:
        return None
    try:
        return Network(written, insert(written, insertions), tuple(insertions), init)
    except InsertionError as error:
        _report_insertion(error, section, collector)
    except GraphError as error:
        collector.add((*path, "insert"), str(error))
    return None


def check_parameters_used(tree: Mapping[str, Any], collector: Collector) -> None:
    """A parameter of the network that nothing reads changes nothing, and whoever sets it would not know."""
    section = tree.get("network")
    names = section.get("params") if isinstance(section, dict) else None
    if isinstance(section, dict) and isinstance(names, dict):
        used = names_in(section) | names_in(tree.get("ablation"))
        for name in names:
            if name not in used:
                collector.add(("network", "params", name), f"unused: no expression reads ${name}")


def _check_places(
    written: Graph, places: Mapping[str, tuple[At, ...]], section: Mapping[str, Any], collector: Collector
) -> None:
    """Say of every insertion, sound otherwise or not, where its patterns match nothing."""
    for name, at in places.items():
        for index, item in enumerate(at):
            try:
                selected(written, item)
            except ValueError as error:
                _report_insertion(InsertionError(str(error), name, index), section, collector)


def _report_insertion(error: InsertionError, section: Mapping[str, Any], collector: Collector) -> None:
    path: Path = ("network", "insert", error.insertion, "at")
    value = section["insert"][error.insertion]["at"]
    if isinstance(value, list) and error.at is not None:
        path, value = (*path, error.at), value[error.at]
    # The column is that of the pattern within the text, where the text is plain.
    columns = len(value) - len(value.split()[-1]) if isinstance(value, str) and value.split() else 0
    message, _, hint = str(error).partition("; ")
    collector.add(path, message, hint, key=False, columns=columns)


def _model(model: type[_M], value: object, collector: Collector, path: Path) -> _M | None:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        collector.extend(problems(error, collector.tree, path, model=model))
        return None


def _mapping(value: object, what: str, collector: Collector, path: Path) -> Mapping[str, Any]:
    if isinstance(value, dict):
        if len(value) > MOST_ENTRIES:
            collector.add(path, f"{len(value):,} entries; at most {MOST_ENTRIES:,}")
            return {}
        return value
    collector.add(path, "missing" if value is None else f"{value!r} is not a mapping of {what}")
    return {}


def _parameters(section: object, collector: Collector, path: Path) -> dict[str, int | float]:
    names: dict[str, Any] = {}
    for name, value in _mapping(section, "names to numbers", collector, path).items():
        try:
            number = substitute(value, names)
        except ValueError as error:
            collector.add((*path, name), str(error), key=False)
            continue
        if isinstance(number, bool) or not isinstance(number, int | float):
            collector.add((*path, name), f"{number!r} is not a number", key=False)
        else:
            names[name] = number
    return names


def _entries(
    section: object, names: Mapping[str, Any], removed: frozenset[str], collector: Collector, path: Path
) -> list[_Entry]:
    graph = _mapping(section, "node names to nodes", collector, path)
    if section is not None and isinstance(section, dict) and not section:
        collector.add(path, "an empty graph; give at least one node")
    entries: list[_Entry] = []
    removed = removed - graph.keys()
    previous = INPUT
    for name, node in graph.items():
        entry = _entry(name, node, previous, names, removed, graph, collector, (*path, name))
        if entry is not None:
            entries.append(entry)
        if not _added(graph, name):
            previous = name
    return entries


def _entry(
    name: str,
    node: object,
    previous: str,
    names: Mapping[str, Any],
    removed: frozenset[str],
    graph: Mapping[str, Any],
    collector: Collector,
    path: Path,
) -> _Entry | None:
    wrong = name_problem(name)
    if wrong is None and module_attribute_clash(name):
        wrong = f"'{name}' is the name of an attribute of a PyTorch module; choose another name"
    if wrong:
        collector.add(path, wrong)
    if not isinstance(node, dict):
        collector.add(path, f"{node!r} is not a node; write {{block: NAME, …}}", key=False)
        return None
    block = _block(node, collector, path)
    repeat = _repeat(node, names, collector, path)
    if "from" not in node and _added(graph, name):
        collector.add(path, "a node that a patch adds must say what it reads", "add from: NAME")
    sources = _sources(node.get("from", previous), graph, removed, collector, (*path, "from"))
    if block is None or sources is None:
        return None
    params = validated_params(block, node, NODE_KEYS, names, collector, path)
    if params is None:
        return None
    kept = tuple(source for source in sources if source.split(".")[0] not in removed)
    bypassed = block.variadic and len(kept) == 1 < len(sources)
    if len(kept) < len(sources) and not block.variadic:
        gone = next(source for source in sources if source not in kept)
        collector.add((*path, "from"), f"'{gone}' was removed and '{name}' reads it", "say from: again", key=False)
    elif not kept:
        collector.add((*path, "from"), f"everything that '{name}' reads was removed", "remove it too", key=False)
    return _Entry(name, block, params, kept, repeat, path, bypassed)


def _added(graph: Mapping[str, Any], name: str) -> bool:
    """Whether another layer than the graph's own added the node."""
    keys_at = getattr(graph, "keys_at", None)
    if not keys_at or name not in keys_at:
        return False
    first = next(iter(keys_at.values()))
    return bool(keys_at[name].layer != first.layer)


def _block(node: Mapping[str, Any], collector: Collector, path: Path) -> BlockType | None:
    name = node.get("block")
    if not isinstance(name, str):
        message = "missing: which block?" if name is None else f"{name!r} is not a block's name"
        collector.add((*path, "block"), message, key=False)
        return None
    try:
        return find(name)
    except KeyError as error:
        collector.add((*path, "block"), f"unknown block '{name}'", str(error.args[0]), key=False)
        return None


def _repeat(node: Mapping[str, Any], names: Mapping[str, Any], collector: Collector, path: Path) -> int | None:
    if "repeat" not in node:
        return None
    try:
        value = substitute(node["repeat"], names)
    except ValueError as error:
        collector.add((*path, "repeat"), str(error), key=False)
        return 1
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_REPEATS:
        collector.add((*path, "repeat"), f"{shown(value)} is not a whole number from 1 to {MOST_REPEATS}", key=False)
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


def validated_params(
    block: BlockType,
    node: Mapping[str, Any],
    own_keys: tuple[str, ...],
    names: Mapping[str, Any],
    collector: Collector,
    path: Path,
) -> BlockParams | None:
    """The block's parameters among the keys of ``node``: expressions evaluated, strictly validated."""
    given = {key: value for key, value in node.items() if key not in own_keys}
    fields = block.Params.model_fields
    evaluated: dict[str, Any] = {}
    sound = True
    for key, value in given.items():
        if key not in fields:
            if not collector.drop_if_orphaned(node, key, "block", (*path, key)):
                collector.add(
                    (*path, key), f"unknown parameter of block '{block.name}'", did_you_mean(key, [*fields, *own_keys])
                )
                sound = False
            continue
        if value is None:
            collector.add((*path, key), "a parameter never takes null", "state a value, as act: none does", key=False)
            sound = False
            continue
        try:
            evaluated[key] = substitute(value, names)
        except ValueError as error:
            collector.add((*path, key), str(error), key=False)
            sound = False
            continue
        if is_expression(value) and isinstance(evaluated[key], float) and _wants_int(fields[key].annotation):
            message = f"'{value}' is {evaluated[key]:g}, not a whole number"
            collector.add((*path, key), message, f"write round({value})", key=False)
            sound = False
    if not sound:
        return None
    try:
        return block.Params.model_validate(evaluated)
    except ValidationError as error:
        collector.extend(problems(error, collector.tree, path, model=block.Params))
        return None


def _wants_int(annotation: object) -> bool:
    return annotation is int or int in getattr(annotation, "__args__", ())


def _insertions(
    section: object, names: Mapping[str, Any], collector: Collector, path: Path
) -> tuple[list[Insertion], dict[str, tuple[At, ...]]]:
    """The insertions, and the places of all of them: of those with other mistakes too."""
    insertions: list[Insertion] = []
    places: dict[str, tuple[At, ...]] = {}
    for name, value in _mapping(section, "insertion names to insertions", collector, path).items():
        if not isinstance(value, dict):
            message = f"{value!r} is not an insertion; write {{block: NAME, at: after PATTERN}}"
            collector.add((*path, name), message, key=False)
            continue
        places[name] = _at(value.get("at"), collector, (*path, name, "at"))
        insertion = _insertion(name, value, places[name], names, collector, (*path, name))
        if insertion is not None:
            insertions.append(insertion)
    return insertions, places


def _insertion(
    name: str, value: Mapping[str, Any], at: tuple[At, ...], names: Mapping[str, Any], collector: Collector, path: Path
) -> Insertion | None:
    wrong = name_problem(name)
    if wrong:
        collector.add(path, wrong)
    block = _block(value, collector, path)
    residual = _residual(value.get("residual", "none"), collector, (*path, "residual"))
    rank = value.get("rank", 0)
    ranked = isinstance(rank, int) and not isinstance(rank, bool)
    if not ranked:
        collector.add((*path, "rank"), f"{shown(rank)} is not a whole number", key=False)
    params = validated_params(block, value, INSERTION_KEYS, names, collector, path) if block else None
    if block is not None and len(block.ports) != 1:
        collector.add((*path, "block"), f"'{block.name}' joins several inputs and can't be inserted at one", key=False)
        return None
    if wrong or block is None or params is None or not at or residual is None or not ranked:
        return None
    return Insertion(name, block, params, at, residual, rank)


def _at(value: object, collector: Collector, path: Path) -> tuple[At, ...]:
    if value is None:
        collector.add(path, "missing: where?", "at: after PATTERN, or at: before PATTERN")
        return ()
    items = value if isinstance(value, list) else [value]
    found: list[At] = []
    for index, item in enumerate(items):
        place: Path = (*path, index) if isinstance(value, list) else path
        try:
            if not isinstance(item, str):
                raise ValueError(f"{item!r} is no place; write 'after PATTERN' or 'before PATTERN'")
            found.append(At.parse(item))
        except ValueError as error:
            collector.add(place, str(error), key=False)
    if not items:
        collector.add(path, "an empty list; name at least one place", key=False)
    return tuple(found) if len(found) == len(items) else ()


def _residual(value: object, collector: Collector, path: Path) -> Residual | None:
    spec = _model(ResidualSpec, {"kind": value} if isinstance(value, str) else value, collector, path)
    if spec is None:
        return None
    if spec.kind != "weighted" and spec.model_fields_set - {"kind"}:
        unused = sorted(spec.model_fields_set - {"kind"})[0]
        collector.add((*path, unused), f"a {spec.kind} residual has no weight", "kind: weighted has")
        return None
    return Residual(spec.kind, spec.init, spec.per)


def _output(section: Mapping[str, Any], entries: list[_Entry]) -> str:
    """The last node as written: one that a patch adds never becomes the output by standing last."""
    written = [entry.name for entry in entries if not _added(section, entry.name)]
    return written[-1] if written else entries[-1].name


def _written(
    entries: list[_Entry], input_shape: Shape, classes: int, collector: Collector, output: str
) -> Graph | None:
    ordered = _in_order(entries, collector)
    if ordered is None:
        return None
    builder = GraphBuilder(input_shape, classes)
    values: dict[str, Value] = {INPUT: INPUT}
    for entry in ordered:
        try:
            inputs = tuple(_value(source, values, builder) for source in entry.sources)
            if entry.bypassed:
                values[entry.name] = inputs[0]
            elif entry.repeat is None:
                values[entry.name] = builder.place(entry.name, entry.block, entry.params, inputs)
            else:
                values[entry.name] = builder.repeat(entry.name, entry.block, entry.params, inputs, entry.repeat)
        except GraphError as error:
            collector.add(entry.path, str(error))
            return None
    return builder.finish(values[output])


def _value(source: str, values: Mapping[str, Value], builder: GraphBuilder) -> Value:
    if source in values:
        return values[source]
    if source in builder.scopes:
        return builder.scopes[source]
    if source in builder.nodes:
        return source
    within = [name for name in [*builder.nodes, *builder.scopes] if name.startswith(source.split(".")[0] + ".")]
    hint = did_you_mean(source, within)
    raise GraphError(f"no node '{source}'" + (f"; {hint}" if hint else ""))


def _in_order(entries: list[_Entry], collector: Collector) -> list[_Entry] | None:
    """Entries so that each follows what it reads, otherwise as written; a cycle is an error that names it."""
    missing = [{source.split(".")[0] for source in entry.sources} - {INPUT} for entry in entries]
    readers: dict[str, list[int]] = {}
    for index, names in enumerate(missing):
        for name in names:
            readers.setdefault(name, []).append(index)
    ready = [index for index, names in enumerate(missing) if not names]
    heapify(ready)
    ordered: list[_Entry] = []
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


def _cycle(waiting: Mapping[str, _Entry], start: _Entry) -> str:
    seen: list[str] = []
    name = start.name
    while name not in seen:
        seen.append(name)
        name = next(s.split(".")[0] for s in waiting[name].sources if s.split(".")[0] in waiting)
    return " → ".join([*seen[seen.index(name) :], name][::-1])
