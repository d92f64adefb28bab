"""The ``network`` section of a spec → the graph with its insertions.

Order: the graph as written, each node with ``defaults`` and ``set`` → insertions, whose patterns see the graph as
written → ``init.set``, whose patterns see the finished graph. Every mistake in the section is collected, with its
place, before the first error is raised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import fx

from ablate.block import INIT_RECIPES, Shape, Start
from ablate.collect import Collector, Orphan, Path, dotted
from ablate.diagnose import problems, shown
from ablate.errors import did_you_mean, listed
from ablate.expression import names_in, substitute
from ablate.graph import Graph, GraphBuilder, GraphError, Reported, takes_start
from ablate.importing.graph import Import
from ablate.insert import Insertion, InsertionError, insert
from ablate.network.composites import check_composites_used, declare
from ablate.network.edits import Edits
from ablate.network.entries import (
    CHANNELS,
    CLASSES,
    RESERVED,
    Entry,
    Reading,
    mapping,
    output_of,
    place_entries,
    read_entries,
)
from ablate.network.imports import NOTHING_TRUSTED, Permission, read_import
from ablate.network.insertions import check_places, read_insertions, report_insertion
from ablate.pattern import Pattern
from ablate.weights import Weights, read_weights, started
from ablate.yamlfile import place_of

OF_WEIGHTS = ("rename", "strict", "download")
NETWORK_KEYS = ("params", "blocks", "graph", "import", "args", "set", "defaults", "insert", "init")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class NormalStart(_Model):
    """Weights from a normal distribution, biases 0."""

    normal: float = Field(gt=0, description="standard deviation of the weights")


class TruncatedNormalStart(_Model):
    """Weights from a normal distribution cut at two standard deviations, biases 0."""

    trunc_normal: float = Field(gt=0, description="standard deviation of the weights before the cut")


class ConstantStart(_Model):
    """All weights the same, biases 0."""

    constant: float = Field(description="the value of every weight")


Recipe = Literal["kaiming_fan_out", "kaiming_fan_in", "torch_default", "trunc_normal"]
StartSpec = Annotated[
    Literal["zero"] | Recipe | NormalStart | TruncatedNormalStart | ConstantStart,
    Field(description="zero (weights and biases), a recipe's name, {normal: std}, {trunc_normal: std}, {constant: c}"),
]


NewName = Annotated[
    str | list[str],
    Field(description="the name here, \\1 a group; a list of names: cut along the first axis into as many"),
]


class InitSpec(_Model):
    """How parameters start."""

    recipe: Recipe = Field(
        "kaiming_fan_out",
        description="weights of convolutions and linear layers; biases are uniform in ±1/sqrt(fan_in), or 0 with "
        "trunc_normal (standard deviation 0.02)",
    )
    # Left out of dumps: what it comes to stands in the graph's nodes, and so in the identity.
    set: dict[str, StartSpec] = Field(
        default_factory=dict, exclude=True, description="pattern on the finished graph → how those nodes start"
    )
    # So are these: what is loaded has its own part of the identity, by content.
    from_: str | None = Field(
        None,
        alias="from",
        exclude=True,
        description="weights to start from: a file (.safetensors, .pt, .pth), study:FOLDER/VARIANT, torchvision:NAME",
    )
    rename: dict[str, NewName] = Field(
        default_factory=dict,
        exclude=True,
        description="regular expression on the file's names → ours, \\1 a group; the first that matches the whole acts",
    )
    strict: bool = Field(
        True, exclude=True, description="false loads what matches and lists the rest; true refuses any rest"
    )
    download: bool = Field(
        False, exclude=True, description="fetch the weights of torchvision:NAME if they are not in torch's cache"
    )


@dataclass(frozen=True)
class Network:
    """A network's graph, as written and with its insertions, and how its parameters start."""

    written: Graph
    graph: Graph
    insertions: tuple[Insertion, ...]
    init: InitSpec
    weights: Weights | None = None
    """What ``init.from`` names, held against the graph."""
    source: Import | None = None
    """Of an imported network: where it comes from."""

    def built(self, seed: int, weights_of: int | None = None) -> fx.GraphModule:
        """The module as the training of a seed starts: initialised by name, with the weights that it starts from.

        ``weights_of`` names the seed whose trial's weights are taken, where they are a study's (``seed`` otherwise).
        """
        loading = self.weights.loading(seed if weights_of is None else weights_of) if self.weights else None
        return started(self.graph, seed=seed, recipe=self.init.recipe, loading=loading)


def with_weights(network: Network, collector: Collector, *, base: FilePath, trusted: bool = False) -> Network:
    """The network with what its ``init.from`` names; what is wrong with that goes to ``collector``.

    A file or a study lies beneath ``base``, the spec's folder, unless the command line names it (``trusted``).
    """
    init = network.init
    if init.from_ is None:
        return network
    weights = read_weights(
        init.from_,
        init.rename,
        network.graph,
        collector,
        base=base,
        strict=init.strict,
        trusted=trusted,
        download=init.download,
    )
    return replace(network, weights=weights)


def read_network(
    section: Mapping[str, Any],
    input_shape: Shape,
    classes: int,
    collector: Collector,
    removed: frozenset[str] = frozenset(),
    permission: Permission = NOTHING_TRUSTED,
) -> Network | None:
    """The network of a spec. What is wrong goes to ``collector``, and the answer is then ``None``.

    ``removed`` names the nodes of ``network.graph`` that a patch took away (``block/node`` for those of a composite):
    they may still stand in a ``from``, and disappear from it.
    """
    path: Path = ("network",)
    before = len(collector.problems)
    for key in section:
        if key not in NETWORK_KEYS:
            collector.add((*path, key), "unknown key", did_you_mean(key, NETWORK_KEYS))
    init = _init(section.get("init", {}), collector, (*path, "init"))
    names = _parameters(section.get("params", {}), collector, (*path, "params")) | {CLASSES: classes}
    reading = Reading(names, collector, removed=removed)
    reading = replace(reading, blocks=declare(section.get("blocks", {}), reading, (*path, "blocks")))
    edits = Edits(section, reading)
    reading = replace(reading, open_defaults=edits.open_defaults())
    inner = replace(reading, names={**names, CHANNELS: input_shape[0]})
    source: Import | None = None
    entries: list[Entry] | None = None
    if "import" not in section:
        entries = read_entries(section.get("graph"), inner, (*path, "graph"))
    # What is wrong with an insertion does not keep the graph from being built, and its patterns from being tried.
    sound = not any(_concerns_graph(problem.path) for problem in collector.problems[before:])
    insertions, places = read_insertions(section.get("insert", {}), reading)
    written: Graph | None = None
    if "import" in section:
        found = read_import(section, names, input_shape, classes, collector, permission)
        written, source = found or (None, None)
    elif "args" in section:
        collector.add((*path, "args"), "arguments of no import", "network.import names a model")
    if sound and entries:
        written = _written(section["graph"], entries, input_shape, classes, edits)
    if written is not None:
        check_places(written, places, section, collector)
    if len(collector.problems) > before or init is None or written is None:
        return None
    graph = _inserted(written, insertions, edits, section, collector)
    if graph is None:
        return None
    edits.report_unused([*written.by_name, *written.scopes])
    starts = _starts(init, graph, collector)
    if len(collector.problems) > before:
        return None
    return Network(written, graph.with_starts(starts), tuple(insertions), init, source=source)


def _concerns_graph(path: str) -> bool:
    return path.startswith(("network.graph", "network.blocks", "network.set", "network.defaults", "network.params"))


def _written(
    section: Mapping[str, Any], entries: list[Entry], input_shape: Shape, classes: int, edits: Edits
) -> Graph | None:
    collector = edits.reading.collector
    if not edits.sets and not edits.defaults:
        wanted = _Wanted(entries, output_of(section, entries), input_shape, classes)
        if (known := _unedited(wanted)) is not None:
            return known
    edits.leaves_spreads = edits.spreads
    builder = GraphBuilder(input_shape, classes, edits)
    output = place_entries(entries, output_of(section, entries), builder, collector)
    if output is not None and edits.spreads:
        # Only now is it known between how many places a value is to be spread.
        edits.again()
        builder = GraphBuilder(input_shape, classes, edits)
        output = place_entries(entries, output_of(section, entries), builder, collector)
    return None if output is None else builder.finish(output)


class _Wanted:
    """Entries that no ``set`` and no ``defaults`` change: equal ones make one graph, which a search makes once."""

    def __init__(self, entries: list[Entry], output: str, input_shape: Shape, classes: int) -> None:
        self.entries, self.output, self.input_shape, self.classes = entries, output, input_shape, classes
        rows = [(e.name, e.block, e.params.model_dump_json(), e.sources, e.repeat, e.bypassed) for e in entries]
        self.key = (tuple(rows), output, input_shape, classes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Wanted) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@lru_cache(maxsize=8)
def _unedited(wanted: _Wanted) -> Graph | None:
    """The graph, which nothing ever changes; ``None`` where it can't be, which is then said to who asks."""
    builder = GraphBuilder(wanted.input_shape, wanted.classes)
    output = place_entries(wanted.entries, wanted.output, builder, Collector(None))
    return None if output is None else builder.finish(output)


def _inserted(
    written: Graph, insertions: list[Insertion], edits: Edits, section: Mapping[str, Any], collector: Collector
) -> Graph | None:
    try:
        return insert(written, insertions, edits.fill)
    except InsertionError as error:
        report_insertion(error, section, collector)
    except Reported:
        pass
    except GraphError as error:
        collector.add(("network", "insert"), str(error))
    return None


def check_parameters_used(tree: Mapping[str, Any], collector: Collector) -> None:
    """Of the spec as written: a parameter that nothing reads, or a default that nothing takes, changes nothing."""
    section = tree.get("network")
    names = section.get("params") if isinstance(section, dict) else None
    if isinstance(section, dict) and isinstance(names, dict):
        read = {key: value for key, value in section.items() if key != "blocks"}
        used = names_in(read) | names_in(tree.get("ablation")) | names_in(tree.get("profiles"))
        for name in names:
            if name not in used:
                collector.add(("network", "params", name), f"unused: no expression reads ${name}")
    if isinstance(section, dict):
        check_composites_used(section.get("blocks"), collector, ("network", "blocks"))
    for orphan in collector.orphans:
        if orphan.path.startswith("network.defaults.") and orphan.layer == "spec":
            message = "has no effect: every node that has this parameter states it, or none has it"
            collector.add(tuple(orphan.path.split(".")), message)


def _init(section: object, collector: Collector, path: Path) -> InitSpec | None:
    try:
        init = InitSpec.model_validate(section)
    except ValidationError as error:
        collector.extend(problems(error, collector.tree, path, model=InitSpec))
        return None
    for key in OF_WEIGHTS if init.from_ is None else ():
        if key in mapping(section, "keys to values", collector, path):
            _without_weights(key, getattr(init, key), collector, (*path, key))
    return init


def _without_weights(key: str, value: Any, collector: Collector, path: Path) -> None:
    """What says how weights are loaded, without any: a mistake, but where it is a level that brings them."""
    ablation = collector.tree.get("ablation")
    if not any(path.startswith("network.init") for path in _level_paths(ablation)):
        collector.add(path, "has no use without init.from", "give from, or leave it out")
        return
    place = place_of(collector.tree, path)
    collector.orphans.append(Orphan(dotted(path), value, place.layer if place else "spec"))


def _level_paths(value: Any) -> Iterator[str]:
    """Every key of the ablation, and what stands under ``path``: the dotted paths of levels are among them."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield str(item if key == "path" else key)
            yield from _level_paths(item)
    elif isinstance(value, list):
        for item in value:
            yield from _level_paths(item)


def _parameters(section: object, collector: Collector, path: Path) -> dict[str, int | float]:
    names: dict[str, Any] = {}
    for name, value in mapping(section, "names to numbers", collector, path).items():
        if name in RESERVED:
            collector.add((*path, name), f"${name} has a meaning of its own", "choose another name")
            continue
        try:
            number = substitute(value, names)
        except ValueError as error:
            collector.add((*path, name), str(error), key=False)
            continue
        if isinstance(number, bool) or not isinstance(number, int | float):
            collector.add((*path, name), f"{shown(number)} is not a number", key=False)
        else:
            names[name] = number
    return names


def _starts(init: InitSpec, graph: Graph, collector: Collector) -> dict[str, Start]:
    """How the nodes start that ``init.set`` names: nodes, or every node of a scope."""
    starts: dict[str, Start] = {}
    owners: dict[str, str] = {}
    for text, spec in init.set.items():
        path: Path = ("network", "init", "set", text)
        try:
            places = Pattern(text).select(graph.places, graph.repeats)
        except ValueError as error:
            collector.add(path, str(error))
            continue
        if not places:
            collector.add(path, f"pattern '{text}' matches nothing", graph.why_nothing(Pattern(text)))
        for node in dict.fromkeys(node.name for place in places for node in graph.in_scope(place)):
            if owners.setdefault(node, text) != text:
                message = f"'{owners[node]}' sets the start of '{node}' already"
                collector.add(path, message, "let only one of the patterns match it")
                break
            starts[node] = _start(spec)
        owned = [node for node in starts if owners[node] == text]
        takers = [node for node in owned if takes_start(graph.by_name[node], starts[node])]
        if owned and not takers:
            what = "weights that a recipe fills" if starts[owned[0]].kind in INIT_RECIPES else "parameters"
            collector.add(path, f"has no effect: {listed(owned)} {'has' if len(owned) == 1 else 'have'} no {what}")
        for node in owned:
            # A scope has nodes without parameters; and the network's own recipe is no start of its own.
            # With weights it is one: the node starts anew, and is not loaded.
            if node not in takers or (starts[node].kind == init.recipe and init.from_ is None):
                del starts[node]
    return starts


def _start(spec: Any) -> Start:
    match spec:
        case NormalStart():
            return Start("normal", spec.normal)
        case TruncatedNormalStart():
            return Start("truncated_normal", spec.trunc_normal)
        case ConstantStart():
            return Start("constant", spec.constant)
    return Start("constant", 0.0) if spec == "zero" else Start(str(spec))
