"""A key must be valid in the layer that wrote it: beside the ``block`` or ``name`` that this layer chose.

A later layer that chooses another drops what it orphans. It must not drop a misspelt key with it: so each mapping is
held here against its own choice, the spec's before any profile, level or ``--set``, and what those assign as written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ablate import yamlfile
from ablate.block import registry
from ablate.collect import Collector
from ablate.errors import Problem, did_you_mean
from ablate.expression import is_expression
from ablate.network import INSERTION_KEYS, NODE_KEYS
from ablate.spec import Assignment, Spec, selector, unknown_keys

Keys = tuple[str, ...]


def own_key_problems(spec: Spec, levels: Iterable[Assignment]) -> list[Problem]:
    """Every key that is unknown beside the ``block`` or ``name`` that its own layer wrote."""
    assigned = [*spec.profiled, *levels, *spec.sets]
    declared = _declared(spec.tree, assigned)
    found: list[Problem] = []
    trees = [((), spec.tree), *((each.path, each.value) for each in assigned)]
    for path, value in trees:
        for where, mapping in _choosing(path, value):
            found += _unknown(where, mapping, declared)
    return list(dict.fromkeys(found))


def without_repeats(problems: Iterable[Problem], said: Iterable[Problem]) -> list[Problem]:
    """``problems`` but for those at a place of which ``said`` tells already, and ``said`` itself."""
    said = list(said)
    told = {(problem.path, str(problem.place)) for problem in said}
    return [*(problem for problem in problems if (problem.path, str(problem.place)) not in told), *said]


def _choosing(path: Keys, value: Any) -> Iterator[tuple[Keys, yamlfile.Mapping]]:
    """The mappings in ``value`` that choose a block, or a kind by its name."""
    if not isinstance(value, yamlfile.Mapping) or len(path) > 5 or path[:1] in (("ablation",), ("profiles",)):
        return
    kind = selector(path)
    if kind is not None and isinstance(value.get(kind), str):
        yield path, value
    for key, item in value.items():
        yield from _choosing((*path, key), item)


def _unknown(path: Keys, mapping: yamlfile.Mapping, declared: Mapping[str, Iterable[str] | None]) -> list[Problem]:
    collector = Collector(_rooted(path, mapping))
    if path[0] != "network":
        return unknown_keys(path, mapping, collector)
    name = mapping["block"]
    block = registry().get(name)
    fields = block.Params.model_fields if block else declared.get(name)
    if fields is None or is_expression(name):
        return []
    own = INSERTION_KEYS if path[1] == "insert" else NODE_KEYS
    for key in mapping:
        if key not in fields and key not in own:
            hint = did_you_mean(key, [*fields, *own])
            collector.add((*path, key), f"unknown parameter of block '{name}'", hint)
    return collector.problems


def _rooted(path: Keys, value: Any) -> Any:
    """A tree in which ``value`` stands at ``path``."""
    for key in reversed(path):
        value = yamlfile.Mapping({key: value})
    return value


def _declared(tree: Mapping[str, Any], assigned: Iterable[Assignment]) -> dict[str, Iterable[str] | None]:
    """The parameters of the composites that the spec declares; ``None`` where an assignment may change them."""
    network = tree.get("network")
    blocks = network.get("blocks") if isinstance(network, dict) else None
    found: dict[str, Iterable[str] | None] = {}
    for name, block in blocks.items() if isinstance(blocks, dict) else ():
        params = block.get("params", {}) if isinstance(block, dict) else None
        changed = any(_changes_parameters(each.path, name) for each in assigned)
        found[name] = list(params) if isinstance(params, dict) and not changed else None
    return found


def _changes_parameters(path: Keys, name: str) -> bool:
    wanted = ("network", "blocks", name, "params")
    return path[: len(wanted)] == wanted[: len(path)]
