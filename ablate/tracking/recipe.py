"""A variant's recipe under dotted names, from what a study's records say of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ablate.labels import flow

SECTIONS = ("train", "data", "numerics")


def recipe_of(spec: Mapping[str, Any], record: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Numbers, texts and truths by dotted name; what a list holds is one text.

    ``record`` is a variant's: its levels are in place, and stand under ``levels.FACTOR`` too, and what they change of
    the network under ``network.PATH``. Without one, the recipe is the spec's.
    """
    tree = {name: copy.deepcopy(spec[name]) for name in SECTIONS if name in spec}
    changed: dict[str, Any] = {}
    for path, value in (record or {}).get("patch") or []:
        if path.split(".")[0] in SECTIONS:
            _assign(tree, path.split("."), value)
        else:
            changed[path] = flow(value) if isinstance(value, dict | list | None) else value
    certificate = (record or {}).get("certificate") or {}
    for orphan in (certificate.get("keys") or {}).get("orphans") or []:
        path = str(orphan["path"]).split(".")
        if path[0] in SECTIONS:
            _assign(tree, path, None)
    levels = {f"levels.{factor}": "—" if level is None else level for factor, level in _levels(record).items()}
    return flat(tree) | changed | levels


def _levels(record: Mapping[str, Any] | None) -> Mapping[str, Any]:
    levels = (record or {}).get("levels")
    return levels if isinstance(levels, dict) else {}


def _assign(tree: dict[str, Any], path: list[str], value: Any) -> None:
    """Null removes."""
    for part in path[:-1]:
        below = tree.get(part)
        if not isinstance(below, dict):
            if value is None:
                return
            below = tree[part] = {}
        tree = below
    if value is None:
        tree.pop(path[-1], None)
    else:
        tree[path[-1]] = copy.deepcopy(value)


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Its leaves by dotted path: numbers, texts and truths as they are, anything else as one writes it in YAML."""
    if isinstance(tree, dict):
        below = {key: f"{path}.{key}" if path else str(key) for key in tree}
        return {name: leaf for key, value in tree.items() for name, leaf in flat(value, below[key]).items()}
    return {path: tree if isinstance(tree, bool | int | float | str) else flow(tree)}
