"""What two would set: factors among one another, and ``--set`` over a factor. One of them would act in no variant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ablate.collect import Collector
from ablate.design.levels import TAKES, Factors, Level
from ablate.errors import Problem
from ablate.spec import Assignment

Keys = tuple[str, ...]


def check_paths(design: str, factors: Factors, sets: Iterable[Assignment], collector: Collector) -> None:
    """Two factors on one path, or ``--set`` on a path that a factor varies, would leave one without effect.

    A mapping that a level assigns is every path that it states. Null removes, and what is not there takes nothing:
    a factor may remove an insertion of which another sets a parameter. Two components may set one path: one patch acts
    at a time, or, in a ladder, one after another.
    """
    what = {"components": "component"}.get(TAKES[design], "factor")
    made = [(level, assignment) for levels in factors.values() for level in levels for assignment in level.assignments]
    if what == "factor":
        _check_factors(made, collector)
    varied = _varied(made)
    for assignment in sets:
        if assignment.path in varied:
            path, owner = varied[assignment.path]
            message = f"--set {assignment.dotted}: {what} '{owner}' varies {'.'.join(path)}"
            hint = "change the component's patch" if what == "component" else "change the factor's levels"
            collector.extend([Problem(message, hint=hint)])


def _check_factors(made: list[tuple[Level, Assignment]], collector: Collector) -> None:
    owners: dict[Keys, str] = {}
    stated = _stated(made)
    said: set[tuple[str, str]] = set()
    for level, assignment in made:
        owner = owners.setdefault(assignment.path, level.factor)
        others = {} if assignment.value is None else stated.get(assignment.path, {})
        other = next((name for name in others if name != level.factor), None)
        if owner != level.factor:
            message = f"factors '{owner}' and '{level.factor}' both set this path"
        elif other is not None and others[other].path == ("network",):
            if (other, level.factor) in said:
                continue
            said.add((other, level.factor))
            message = (
                f"factors '{other}' and '{level.factor}' both set this path: a level of '{other}' is a whole network"
            )
        elif other is not None:
            message = f"factors '{other}' and '{level.factor}' both set this path: '{other}' in {others[other].dotted}"
        else:
            continue
        collector.extend([Problem(message, assignment.dotted, assignment.place, "join them in one factor")])


def _stated(made: list[tuple[Level, Assignment]]) -> dict[Keys, dict[str, Assignment]]:
    """Path → factor → the mapping, assigned above that path, which states it or something below it."""
    found: dict[Keys, dict[str, Assignment]] = {}
    for level, assignment in made:
        for leaf in leaves(assignment.path, assignment.value):
            for depth in range(len(assignment.path) + 1, len(leaf) + 1):
                found.setdefault(leaf[:depth], {}).setdefault(level.factor, assignment)
    return found


def _varied(made: list[tuple[Level, Assignment]]) -> dict[Keys, tuple[Keys, str]]:
    """Path → a path that a factor varies, at it or beneath it, and the factor."""
    found: dict[Keys, tuple[Keys, str]] = {}
    for level, assignment in made:
        for leaf in leaves(assignment.path, assignment.value):
            for depth in range(1, len(leaf) + 1):
                path = leaf[:depth] if depth > len(assignment.path) else assignment.path
                found.setdefault(leaf[:depth], (path, level.factor))
    return found


def leaves(path: Keys, value: Any) -> Iterator[Keys]:
    """The paths of the values in an assigned mapping; the path itself of any other value, a spread among them."""
    if not isinstance(value, dict) or not value or "linear" in value:
        yield path
        return
    for key, item in value.items():
        yield from leaves((*path, key), item)
