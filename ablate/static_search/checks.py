"""What a space says that no network of it follows: values with which none can be built, paths that act nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from random import Random
from typing import Any

from ablate.block import registry
from ablate.collect import Collector
from ablate.errors import Problem, UserError, did_you_mean
from ablate.space import Chosen, Dimension, Point
from ablate.spec import apply
from ablate.static_search.points import Outcomes

TRIES = 50
"""Points at random with one value, of which none can be built, make the value a mistake where not all are tried."""

Value = tuple[int, Chosen]
"""A dimension's index, and what is chosen for it."""


def check_values(outcomes: Outcomes) -> None:
    """A value with which nothing can be built is a mistake; one with which some can makes the others impossible.

    Each value is tried before all else, at the first points that have it, so that a mistake is said soon.
    """
    grid = outcomes.grid
    untried: set[Value] = {(i, o) for i, dimension in enumerate(grid.dimensions) for o in range(len(dimension.options))}
    refused: dict[Value, tuple[Problem, ...]] = {}
    for point in grid:
        if not untried:
            break
        own = _values(point) & untried
        outcome = outcomes[point] if own else None
        if outcome is not None and outcome.totals is not None:
            untried -= own
        elif outcome is not None:
            refused |= {value: outcome.problems for value in own if value not in refused}
    _raise_for({value: refused[value] for value in untried if value in refused})


def check_some_values(outcomes: Outcomes, random: Random, most: int) -> None:
    """As ``check_values`` where not all points are built: by some that have every value, ``most`` at the most."""
    sound: set[Value] = set()
    refused: dict[Value, tuple[Problem, ...]] = {}
    for point in islice(outcomes.grid.covering(random), most):
        outcome = outcomes[point]
        if outcome.totals is not None:
            sound |= _values(point)
        else:
            refused |= {value: outcome.problems for value in _values(point) if value not in refused}
    for value in sorted(refused.keys() - sound):
        if value not in sound and _is_ever_built(outcomes, value, random, sound):
            del refused[value]
    _raise_for({value: problems for value, problems in refused.items() if value not in sound})


def _is_ever_built(outcomes: Outcomes, value: Value, random: Random, sound: set[Value]) -> bool:
    for _ in range(TRIES):
        point = outcomes.grid.having(*value, random)
        if point is not None and outcomes[point].totals is not None:
            sound |= _values(point)
            return True
    return False


def _values(point: Point) -> set[Value]:
    return {(index, chosen) for index, chosen in enumerate(point) if chosen is not None}


def _raise_for(refused: Mapping[Value, tuple[Problem, ...]]) -> None:
    collector = Collector(None)
    collector.extend(dict.fromkeys(problem for value in sorted(refused) for problem in refused[value]))
    collector.raise_if_any()


def check_paths(outcomes: Outcomes) -> None:
    """A path acts at one point at least: a misspelt parameter would else be dropped, as an orphan is."""
    acting = {
        index
        for point, outcome in outcomes.known.items()
        for index, option in enumerate(point)
        if outcome.totals is not None and option is not None and index not in outcome.idle
    }
    message = "has no effect at any point: what it changes is not there, or does not take it"
    idle = [dimension for index, dimension in enumerate(outcomes.grid.dimensions) if index not in acting]
    if idle:
        raise UserError([Problem(message, each.path, each.place, _meant(outcomes, each)) for each in idle])


def _meant(outcomes: Outcomes, dimension: Dimension) -> str:
    """The parameter that was perhaps meant, of the block that stands beside the path at its first point."""
    index = outcomes.grid.position[dimension.path]
    point = next((point for point in outcomes.known if point[index] is not None), None)
    chosen = point[index] if point is not None else None
    if point is None or chosen is None:
        return ""
    found: Any = apply(outcomes.spec, outcomes.grid.assignments(point)).tree
    *above, last = dimension.assignment(chosen).path
    for part in above:
        found = found.get(part, {}) if isinstance(found, dict) else {}
    block = registry().get(str(found.get("block"))) if isinstance(found, dict) else None
    hint = did_you_mean(last, block.Params.model_fields) if block else ""
    return hint if hint.startswith("did") else ""


def alike(outcomes: Outcomes) -> list[str]:
    """The paths of which no two values make two networks where nothing else differs, and some do make one."""
    return [each.path for index, each in enumerate(outcomes.grid.dimensions) if _is_alike(outcomes, index)]


def _is_alike(outcomes: Outcomes, index: int) -> bool:
    prints: dict[Point, set[str]] = {}
    compared = False
    for point, outcome in outcomes.known.items():
        if outcome.totals is not None and point[index] is not None:
            rest = (*point[:index], *point[index + 1 :])
            compared |= rest in prints
            prints.setdefault(rest, set()).add(outcome.fingerprint)
    return compared and all(len(each) == 1 for each in prints.values())
