"""``each: stage*.*``: a path for every name of the network, node or scope, that the pattern matches.

``$each`` is that name: in values as it is; in paths, and in those of conditions, with ``_`` for its dots, since a dot
leads further down. Where it is a whole part of a path it is the name of what is there, and so must have no dots; in
the patterns of ``network.set`` and ``network.init.set`` it may.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ablate import yamlfile
from ablate.collect import Collector
from ablate.data.dataset import shape_of
from ablate.design import root_is_trusted
from ablate.graph import INPUT, Graph
from ablate.network import Permission, read_network
from ablate.pattern import Pattern
from ablate.space.distributions import Choice, Distribution, Subset, Text
from ablate.space.grammar import Space
from ablate.spec import Spec, apply, read_data

MOST = 1_000
"""Paths that the patterns of a space may make in all."""
_EACH = re.compile(r"\$(?:each(?![A-Za-z0-9_])|\{each\})")
_PATTERNS = re.compile(r"network\.(init\.)?(set|rename)\.")


@dataclass(frozen=True)
class Varied:
    """A path that varies on a spec, and how the file writes it."""

    path: str
    distribution: Distribution
    written: str
    keys: Mapping[str, str] = field(default_factory=dict)
    """Its conditions' paths → as the file writes them."""


def varied_paths(space: Space, network: Callable[[], Graph], collector: Collector) -> dict[str, Varied]:
    """The paths of a space on a spec, in the order written; ``network`` is asked for where a pattern needs names."""
    found: dict[str, Varied] = {}
    for written, distribution in space.distributions.items():
        names = [None] if distribution.each is None else _names(distribution.each, network(), collector, written)
        if len(found) + len(names) > MOST:
            message = f"matches {len(names):,} names; a space has at most {MOST:,} paths"
            collector.add(("space", written, "each"), message, key=False)
            continue
        for name in names:
            varied = _varied(written, distribution, name, collector)
            if varied is None:
                break
            if varied.path in found:
                other = found[varied.path].written
                message = f"'{other}' varies '{varied.path}' too" if other != written else f"two of '{varied.path}'"
                collector.add(("space", written), message, "a path varies once")
                break
            found[varied.path] = varied
    return found


def written_network(spec: Spec) -> Graph:
    """The network of a spec without its insertions; ``UserError`` where the spec itself is wrong."""
    applied = apply(spec)
    collector = Collector(applied.tree)
    data = read_data(applied.tree, collector)
    network = None
    if "network" not in applied.tree:
        collector.add(("network",), "missing: which network?", "extends: a model, or give network.graph")
    elif data is not None:
        shape, classes = shape_of(data, base=spec.folder, trusted_root=root_is_trusted(spec))
        permission = Permission(spec.folder, spec.trusted)
        section, removed = applied.tree["network"], applied.removed_nodes
        network = read_network(section, shape, classes, collector, removed, permission)
    collector.raise_if_any()
    assert network is not None
    return network.written


def _names(pattern: str, graph: Graph, collector: Collector, written: str) -> list[str | None]:
    read = Pattern(pattern)
    names = read.select([name for name in graph.places if name != INPUT], graph.repeats)
    if not names:
        message = f"pattern '{pattern}' matches nothing"
        collector.add(("space", written, "each"), message, graph.why_nothing(read), key=False)
    return list(names)


def _varied(written: str, distribution: Distribution, name: str | None, collector: Collector) -> Varied | None:
    if name is None:
        return Varied(written, distribution, written, {key: key for key in distribution.when or ()})
    try:
        path = path_for(written, name)
    except ValueError as error:
        collector.add(("space", written), str(error), "a pattern of names without dots, or $each beside other letters")
        return None
    keys = {}
    for key in distribution.when or ():
        try:
            keys[path_for(key, name)] = key
        except ValueError as error:
            collector.add(("space", written, "when", key), str(error))
            return None
    return Varied(path, _distribution_for(distribution, keys, name), written, keys)


def path_for(written: str, name: str) -> str:
    """The path with the name in it. ``ValueError`` for a name with dots that would have to be a part of it."""
    if _PATTERNS.match(written):
        return _EACH.sub(name, written)
    if "." in name and any(_EACH.fullmatch(part) for part in written.split(".")):
        raise ValueError(f"'{name}' has a dot, and so can't be a part of the path")
    return _EACH.sub(name.replace(".", "_"), written)


def _distribution_for(distribution: Distribution, keys: Mapping[str, str], name: str) -> Distribution:
    changed: dict[str, Any] = {"each": None}
    if distribution.when is not None:
        changed["when"] = {path: _filled(distribution.when[key], name) for path, key in keys.items()}
    if isinstance(distribution, Choice):
        changed["choice"] = _filled(distribution.choice, name)
    if isinstance(distribution, Subset):
        changed["subset"] = _filled(distribution.subset, name)
    if isinstance(distribution, Text):
        changed["text"] = _EACH.sub(name, distribution.text)
        changed["parts"] = {key: _distribution_for(part, {}, name) for key, part in distribution.parts.items()}
    return distribution.model_copy(update=changed)


def _filled(value: Any, name: str) -> Any:
    """A value with the name in all of its texts; what knows its places keeps them."""
    if isinstance(value, str):
        return _EACH.sub(name, value)
    if isinstance(value, yamlfile.Mapping):
        items = {key: _filled(item, name) for key, item in value.items()}
        return yamlfile.Mapping(items, value.keys_at, value.values_at)
    if isinstance(value, yamlfile.Sequence):
        return yamlfile.Sequence([_filled(item, name) for item in value], value.values_at)
    return value
