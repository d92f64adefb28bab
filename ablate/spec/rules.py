"""What may stand where in a spec: sections, open mappings, what null removes, which paths may be assigned."""

from __future__ import annotations

from typing import Any

from ablate.diagnose import shown
from ablate.errors import did_you_mean

MAPPINGS = ("network", "data", "train", "tune", "ablation", "report", "execution", "numerics")


SECTIONS = (
    "name",
    "extends",
    "use",
    "profiles",
    "network",
    "data",
    "train",
    "tune",
    "ablation",
    "report",
    "paper",
    "execution",
    "numerics",
    "profile",
)
"""``numerics`` and ``profile`` are records in a study's own spec."""


UNSETTABLE = ("extends", "profiles", "profile", "use")


OPTIONAL_SECTIONS = frozenset(
    {
        ("use",),
        ("profiles",),
        ("tune",),
        ("ablation",),
        ("report",),
        ("paper",),
        ("execution",),
        ("network", "insert"),
        ("network", "init"),
        ("network", "params"),
        ("network", "blocks"),
        ("network", "set"),
        ("network", "defaults"),
        ("network", "graph"),
        ("network", "import"),
        ("network", "args"),
        ("network", "init", "set"),
        ("network", "init", "from"),
        ("network", "init", "rename"),
        ("data", "val"),
        ("data", "limit"),
        ("data", "augment"),
        ("data", "mix"),
        ("data", "size"),
        ("train", "early_stopping"),
        ("train", "clip_norm"),
        ("train", "micro_batch"),
        ("train", "ema"),
        ("train", "schedule"),
        ("train", "loss"),
        ("train", "groups"),
        ("train", "freeze"),
        ("train", "only"),
        ("ablation", "until"),
        ("ablation", "baseline"),
        ("ablation", "factors"),
        ("ablation", "variants"),
        ("ablation", "components"),
        ("ablation", "reference"),
        ("ablation", "zip"),
        ("ablation", "exclude"),
        ("ablation", "controls"),
    }
)


def selector(path: tuple[str, ...]) -> str | None:
    """The key at ``path`` that decides what the others beside it may be. (A node may be called ``block``.)"""
    if len(path) == 3 and path[:2] in (("network", "graph"), ("network", "insert")):
        return "block"
    if len(path) == 5 and path[:2] == ("network", "blocks") and path[3] == "graph":
        return "block"
    return "name" if path in (("data",), ("data", "mix")) or (len(path) == 2 and path[0] == "train") else None


def is_open(path: tuple[str, ...]) -> bool:
    """Whether ``path`` is an entry of an open mapping: a node, an insertion, a composite, an edit, a profile."""
    if path[:1] != ("network",):
        return path[:1] == ("profiles",) and len(path) == 2
    if path[1:2] == ("blocks",):
        return len(path) == 3 or (len(path) == 5 and path[3] in ("graph", "params"))
    if len(path) == 3:
        return path[1] in ("graph", "insert", "params", "set", "defaults", "args")
    return len(path) == 4 and path[1:3] in (("init", "set"), ("init", "rename"))


def null_problem(path: tuple[str, ...]) -> tuple[str, str] | None:
    """Why null can't stand at ``path``: it removes entries of open mappings and sections, never a parameter."""
    if is_open(path) or path in OPTIONAL_SECTIONS:
        return None
    return "null removes a node, an insertion or a section, and this is a parameter", "state a value (none is one)"


def nulls_within(value: Any) -> list[tuple[str | int, ...]]:
    """The paths at which nulls stand in a mapping or a list."""
    if not isinstance(value, dict | list):
        return []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = [[(key,)] if item is None else [(key, *path) for path in nulls_within(item)] for key, item in items]
    return [path for paths in found for path in paths]


def study_name_problem(name: object) -> str | None:
    """Why ``name`` can't name a study's folder."""
    if not isinstance(name, str):
        return f"{shown(name)} is not text; a study's name becomes a folder"
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
    if not name or len(name) > 100 or not set(name) <= allowed or name[0] in ".-":
        return f"{shown(name)} can't name a folder: letters, digits, _, - and . (not first), at most 100"
    return None


def split_path(path: str) -> tuple[str, ...]:
    """The keys that a dotted path goes through."""
    return tuple(path.split("."))


def path_problem(path: str) -> tuple[str, str] | None:
    """Why a patch can't assign ``path``."""
    head = path.split(".")[0]
    if head not in SECTIONS or head in UNSETTABLE:
        hint = "choose one by --profile" if head in ("profiles", "profile") else did_you_mean(head, SECTIONS)
        return f"{shown(path)} is not a path of a spec", hint
    if any(not part for part in path.split(".")):
        return f"{shown(path)} has an empty part", "a dot joins two names"
    return None


def section_problem(path: str, value: Any) -> tuple[str, str] | None:
    """Why a whole section, or the study's name, can't be ``value``. (Null says for itself what it may remove.)"""
    if path in MAPPINGS and value is not None and not isinstance(value, dict):
        return f"{shown(value)} is not a mapping", ""
    wrong = study_name_problem(value) if path == "name" else None
    return (wrong, "") if wrong else None


def level_path_problem(path: str, value: Any = None) -> tuple[str, str] | None:
    """Why a level can't assign ``path``: a level changes the network, the data or the recipe.

    It may put another network in the place of the spec's: a whole one, with a graph or an import.
    """
    head, may_change = path.split(".")[0], ("network", "data", "train")
    if head not in may_change:
        return f"{shown(path)} is not a path that a level may change", did_you_mean(head, may_change)
    if path == "network" and isinstance(value, dict) and not {"graph", "import"}.isdisjoint(value):
        return None
    if len(path.split(".")) < 2:
        whole = ", or take a whole one: network: {extends: FILE}" if path == "network" else ""
        return f"{shown(path)} is a whole section", f"name a path within it{whole}"
    return path_problem(path)


def removed_node(path: tuple[str, ...]) -> str | None:
    """The node that null at ``path`` removes: its name, or ``block/node`` for a node of a declared composite."""
    if len(path) == 3 and path[:2] == ("network", "graph"):
        return path[2]
    if len(path) == 5 and path[:2] == ("network", "blocks") and path[3] == "graph":
        return f"{path[2]}/{path[4]}"
    return None
