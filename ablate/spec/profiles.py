"""Profiles: named sets of assignments of a spec, of which a command chooses one: ``--profile tiny``.

A profile says how the same study is run on a smaller machine, or on other data. Precedence: ``extends`` < spec <
profile < level < ``--set``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ablate import yamlfile
from ablate.collect import Collector
from ablate.diagnose import shown
from ablate.errors import Place, Problem, UserError, did_you_mean

WHOLE = ("data", "train", "tune", "execution", "report", "paper")
"""Sections that a profile may assign as a whole, as well as paths within them."""
SEEDS, UNTIL = "ablation.seeds", "ablation.until"
"""Of ``ablation``, what a profile may change: how many seeds, and until when some are added."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
"""It becomes part of the study's folder: ``runs/NAME-PROFILE``."""


@dataclass(frozen=True)
class Entry:
    """One dotted path of a profile, what it is set to (``None`` removes), and where both stand."""

    path: str
    value: Any
    place: Place
    value_place: Place


def read_profiles(tree: yamlfile.Mapping) -> dict[str, tuple[Entry, ...]]:
    """Every profile of a spec. ``UserError`` with every path that none may assign, in the profiles not chosen too."""
    collector = Collector(tree)
    section = tree.get("profiles", yamlfile.Mapping())
    if not isinstance(section, yamlfile.Mapping):
        collector.add(("profiles",), f"{shown(section)} is not a mapping of names to profiles", key=False)
        collector.raise_if_any()
    if "profile" in tree and ("profiles" in tree or "numerics" not in tree or not isinstance(tree["profile"], str)):
        message = "is a record in a study's own spec; a profile is chosen on the command line"
        collector.add(("profile",), message, f"--profile {tree['profile']}")
    found = {name: _entries(name, profile, collector) for name, profile in section.items()}
    collector.raise_if_any()
    return found


def chosen(profiles: dict[str, tuple[Entry, ...]], name: str) -> tuple[Entry, ...]:
    """The profile of that name. ``UserError`` where there is none."""
    if name not in profiles:
        hint = did_you_mean(name, profiles) if profiles else "the spec has no profiles"
        raise UserError(Problem(f"--profile {name}: no profile '{name}'", hint=hint))
    return profiles[name]


def _entries(name: str, profile: object, collector: Collector) -> tuple[Entry, ...]:
    path = ("profiles", name)
    if not _NAME.fullmatch(name):
        collector.add(path, f"{shown(name)} can't name a profile: letters, digits, _ and -, at most 40")
    if not isinstance(profile, yamlfile.Mapping):
        collector.add(path, f"{shown(profile)} is not a profile; a mapping of dotted path to value", key=False)
        return ()
    for key, value in profile.items():
        problem = path_problem(key) or _whole_problem(key, value)
        if problem:
            collector.add((*path, key), problem[0], problem[1])
    return tuple(Entry(key, value, profile.keys_at[key], profile.values_at[key]) for key, value in profile.items())


def path_problem(path: str) -> tuple[str, str] | None:
    """Why a profile can't assign ``path``, and a hint."""
    head, *rest = path.split(".")
    if head == "ablation":
        hint = "what varies is a study of its own: write another spec that extends this one"
        message = f"a profile changes nothing of 'ablation' but {SEEDS} and {UNTIL}"
        return None if path in (SEEDS, UNTIL) or path.startswith(f"{UNTIL}.") else (message, hint)
    if head not in ("network", *WHOLE):
        return f"{shown(path)} is not a path that a profile may change", did_you_mean(
            head, ("network", *WHOLE, SEEDS, UNTIL)
        )
    if head == "network" and not rest:
        return f"{shown(path)} is the whole network", "name a path within it"
    if any(not part for part in path.split(".")):
        return f"{shown(path)} has an empty part", "a dot joins two names"
    return None


def _whole_problem(path: str, value: object) -> tuple[str, str] | None:
    """Why a whole section can't be ``value``; null says for itself what it may remove."""
    if path in WHOLE and path != "paper" and value is not None and not isinstance(value, dict):
        return f"{shown(value)} is not a mapping", ""
    return None
