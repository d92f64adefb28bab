"""What is trained, and how: ``train.freeze``, ``train.only`` and ``train.groups`` → modules and parameters.

Their patterns see the finished graph, insertions included: a node, or a scope and with it all its nodes;
``insert.NAME`` means an insertion's own nodes, its residual weight among them. An insertion that a level took away,
or that has no parameters here, leaves its ``insert.NAME`` without use, which is listed and no error.

A frozen parameter never changes, and a frozen norm with running statistics stays in evaluation mode. Nothing else
does: dropout and stochastic depth in a frozen scope act as they do in training.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import nn

from ablate.block import Block, BlockParams, Shape
from ablate.collect import Collector, Orphan, Path, dotted
from ablate.errors import did_you_mean
from ablate.graph import INPUT, Graph, Node
from ablate.pattern import Pattern
from ablate.recipe import Group, TrainSpec
from ablate.yamlfile import place_of

INSERTION = "insert."
KINDS = ("norm", "bias")
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


class Setting(NamedTuple):
    """A parameter that a group gives a learning rate or weight decay of its own."""

    module: str
    parameter: str
    """Its name in the module; the full name has the module's in front."""
    lr: float
    weight_decay: float


@dataclass(frozen=True)
class Trainable:
    """What training changes, and how fast. Plain data, part of a trial."""

    frozen: tuple[str, ...] = ()
    """Modules with parameters or running statistics that stay as they start, in graph order."""
    settings: tuple[Setting, ...] = ()
    """Of the parameters that have others than the optimiser's."""

    def identity(self, graph: Graph) -> dict[str, Any]:
        """Its part of a variant's identity, by canonical numbers of modules; empty where nothing was asked for."""
        numbers = {name: number for number, name in enumerate(dict.fromkeys(graph.seeding_names))}
        frozen = sorted(numbers[module] for module in self.frozen if module in numbers)
        settings = sorted(
            [numbers[module], parameter, lr, decay]
            for module, parameter, lr, decay in self.settings
            if module in numbers
        )
        return ({"frozen": frozen} if frozen else {}) | ({"groups": settings} if settings else {})


def freeze(network: nn.Module, trainable: Trainable) -> None:
    """Frozen parameters take no gradient from here on."""
    for name in trainable.frozen:
        network.get_submodule(name).requires_grad_(False)


def training_mode(network: nn.Module, trainable: Trainable) -> None:
    """``network.train()``, but for frozen norms: they keep their running statistics, and normalise by them."""
    network.train()
    for name in trainable.frozen:
        for module in network.get_submodule(name).modules():
            if getattr(module, "running_mean", None) is not None:
                module.eval()


def resolve(train: TrainSpec, graph: Graph, collector: Collector, tree: Mapping[str, Any]) -> Trainable:
    """What the recipe trains of a network. What is wrong, and what is without use here, goes to ``collector``.

    ``tree`` is the spec as written: other variants may have insertions that this one has not.
    """
    if not (train.freeze or train.only is not None or train.groups):
        return Trainable()
    if train.freeze and train.only is not None:
        message = "'freeze' and 'only' are both given: one says what is frozen, the other what is not"
        collector.add(("train", "only"), message, "leave one out")
        return Trainable()
    selector = _Selector(graph, insertion_names(tree), collector)
    frozen = _frozen(train, selector)
    return Trainable(tuple(frozen), _settings(train, selector, frozen))


def insertion_names(tree: Mapping[str, Any]) -> frozenset[str]:
    """Every insertion that a spec speaks of: those of its network, and those that levels or profiles add or remove."""
    found = set(_keys(_at(_at(tree, "network"), "insert")))
    for mapping in (*_mappings(tree.get("ablation")), *_mappings(tree.get("profiles"))):
        for key, value in mapping.items():
            parts = (value if key == "path" and isinstance(value, str) else str(key)).split(".")
            if parts == ["network"]:
                found.update(_keys(_at(value, "insert")))
            elif parts == ["network", "insert"]:
                found.update(_keys(value))
            elif parts[:2] == ["network", "insert"]:
                found.add(parts[2])
    return frozenset(found)


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        yield value
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _mappings(item)


def _at(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def _keys(value: Any) -> list[str]:
    return [str(key) for key in value] if isinstance(value, Mapping) else []


class _Parameter(NamedTuple):
    """A parameter of a node's module, by its name there, and the kinds that it is of."""

    name: str
    kinds: frozenset[str]


class _Contents(NamedTuple):
    parameters: tuple[_Parameter, ...]
    has_statistics: bool


def _contents(node: Node) -> _Contents:
    # mypy takes the module's __hash__ for the class's
    return _contents_of(node.block, node.params.model_dump_json(), node.shapes)  # type: ignore[arg-type]


@lru_cache(maxsize=65_536)
def _contents_of(block: type[Block], params_json: str, shapes: tuple[Shape, ...]) -> _Contents:
    params: BlockParams = block.Params.model_validate_json(params_json)
    with torch.device("meta"):
        module = block.make(params, *shapes)
    parameters: list[_Parameter] = []
    for prefix, part in module.named_modules():
        is_norm = isinstance(part, NORMS) or (not prefix and block.name.endswith("norm"))
        for name, parameter in part.named_parameters(prefix, recurse=False):
            kinds = {"norm"} if is_norm else set()
            kinds |= {"bias"} if name.endswith((".bias", "_bias")) or name == "bias" else set()
            if parameter.numel():
                parameters.append(_Parameter(name, frozenset(kinds)))
    statistics = any(getattr(part, "running_mean", None) is not None for part in module.modules())
    return _Contents(tuple(parameters), statistics)


class _Selector:
    """Finds what the texts of ``freeze``, ``only`` and ``groups`` mean in one graph."""

    def __init__(self, graph: Graph, known: frozenset[str], collector: Collector) -> None:
        self.graph, self.collector = graph, collector
        self.present = list(dict.fromkeys(node.insertion for node in graph.nodes if node.insertion))
        self.known = sorted({*known, *self.present})
        self.contents = {node.module: _contents(node) for node in graph.nodes}
        """By module, in graph order."""

    def modules(self, text: str, path: Path) -> list[str]:
        """The modules that ``text`` selects and that have something to train or to freeze; [] with the reason noted."""
        if text.startswith(INSERTION):
            return self._of_insertions(text, path)
        places = [name for name in self.graph.places if name != INPUT]
        try:
            names = Pattern(text).select(places, self.graph.repeats)
        except ValueError as error:
            self.collector.add(path, str(error), key=False)
            return []
        if not names:
            hint = f"an insertion's nodes are {INSERTION}{text}" if text in self.known else ""
            message = f"pattern '{text}' matches nothing; {self.graph.why_nothing(Pattern(text))}"
            self.collector.add(path, message, hint, key=False)
            return []
        found = self.filled(node for name in names for node in self.graph.in_scope(name))
        if not found:
            self.collector.add(path, f"there are no parameters in {', '.join(names[:3])}", key=False)
        return found

    def _of_insertions(self, text: str, path: Path) -> list[str]:
        try:
            pattern = Pattern(text.removeprefix(INSERTION))
        except ValueError as error:
            self.collector.add(path, str(error), key=False)
            return []
        names = pattern.select(self.known, {})
        if not names:
            hint = did_you_mean(pattern.text, self.known) or "the network has none"
            self.collector.add(path, f"there is no insertion '{pattern.text}'", hint, key=False)
        found = self.filled(node for name in names for node in self.graph.insertion_nodes(name))
        if names and not found:
            self.without_use(text, path)
        return found

    def filled(self, nodes: Iterable[Node]) -> list[str]:
        """The modules of these nodes that have something to train or to freeze, in graph order."""
        chosen = {node.module for node in nodes}
        return [
            name for name, its in self.contents.items() if name in chosen and (its.parameters or its.has_statistics)
        ]

    def without_use(self, value: Any, path: Path) -> None:
        """List what stands at ``path`` of this spec as having no use in this variant."""
        path = path[:-1] if path[-1] == "of" else path  # of a group: all of it
        place = place_of(self.collector.tree, path, key=False)
        self.collector.orphans.append(Orphan(dotted(path), value, place.layer if place else "spec"))

    def said_once(self, key: str, count: int, before: int) -> None:
        """Where all entries of a list are without use the list is: a level that wrote it then counts as inactive."""
        own = self.collector.orphans[before:]
        if own and len(own) == count:
            del self.collector.orphans[before:]
            self.without_use([orphan.value for orphan in own], ("train", key))

    def parameters(self, text: str, path: Path) -> list[tuple[str, str]]:
        """(module, parameter) of everything that a group's ``of`` selects; [] with the reason noted."""
        words = text.split("|")
        if not set(words) & set(KINDS):
            found = self.modules(text, path)
            own = [(module, parameter.name) for module in found for parameter in self.contents[module].parameters]
            if found and not own:
                self.collector.add(path, f"there are no parameters in {', '.join(found[:3])}", key=False)
            return own
        if unknown := [word for word in words if word not in KINDS]:
            self.collector.add(
                path, f"'{unknown[0]}' is no kind of parameter", did_you_mean(unknown[0], KINDS), key=False
            )
            return []
        selected = [
            (module, parameter.name)
            for module, contents in self.contents.items()
            for parameter in contents.parameters
            if parameter.kinds & set(words)
        ]
        if not selected:
            self.collector.add(path, f"no parameter of this network is a {' or '.join(words)}", key=False)
        return selected


def _frozen(train: TrainSpec, selector: _Selector) -> list[str]:
    key, texts = ("freeze", train.freeze) if train.only is None else ("only", train.only)
    collector = selector.collector
    problems, orphans = len(collector.problems), len(collector.orphans)
    selected: set[str] = set()
    for index, text in enumerate(texts):
        selected.update(selector.modules(text, ("train", key, index)))
    selector.said_once(key, len(texts), orphans)
    filled = selector.filled(selector.graph.nodes)
    frozen = [name for name in filled if (name in selected) == (key == "freeze")]
    trained = [name for name in filled if name not in frozen and selector.contents[name].parameters]
    if frozen and not trained and len(collector.problems) == problems:
        collector.add(("train", key), "everything is frozen: there is nothing to train")
    return frozen


def _settings(train: TrainSpec, selector: _Selector, frozen: list[str]) -> tuple[Setting, ...]:
    base = train.optimizer
    taken: dict[tuple[str, str], Setting] = {}
    orphans = len(selector.collector.orphans)
    for index, group in enumerate(train.groups):
        path: Path = ("train", "groups", index)
        _check_group(group, path, selector.collector)
        chosen = selector.parameters(group.of, (*path, "of"))
        left = [key for key in chosen if key[0] not in frozen and key not in taken]
        if chosen and not left:
            message = f"'{group.of}' has no parameter left: each is frozen or in a group before"
            selector.collector.add((*path, "of"), message, key=False)
        lr = base.lr * group.lr_factor if group.lr_factor is not None else group.lr
        for module, parameter in left:
            decay = base.weight_decay if group.weight_decay is None else group.weight_decay
            taken[module, parameter] = Setting(module, parameter, base.lr if lr is None else lr, decay)
    selector.said_once("groups", len(train.groups), orphans)
    return tuple(each for each in taken.values() if (each.lr, each.weight_decay) != (base.lr, base.weight_decay))


def _check_group(group: Group, path: Path, collector: Collector) -> None:
    if group.lr is not None and group.lr_factor is not None:
        collector.add((*path, "lr_factor"), "'lr' and 'lr_factor' are both given", "leave one out")
    if group.lr is None and group.lr_factor is None and group.weight_decay is None:
        message = "the group changes nothing"
        collector.add(path, message, "give it lr, lr_factor or weight_decay", key=False)
