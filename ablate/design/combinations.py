"""Designs: levels and components → combinations, each of which becomes a variant.

========================  ==================================================================================
``grid``                  every combination, in the order of the factors; a name is the levels joined by ``/``
``one_at_a_time``         ``reference``, and ``factor=level`` for each other level of each factor alone
``leave_one_out``         ``full``, and ``without_NAME`` for each component: its patch removes it
``add_one_in``            ``bare``, and ``+NAME`` for each component: its patch adds it
``ladder``                ``bare``, and ``+NAME``: row k has the patches of the first k, one after another
``variants``              those listed by hand, by their own names
========================  ==================================================================================

Order: zip → design → exclude. All of it is done before anything is built.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

from ablate.collect import Collector, Path
from ablate.design.levels import TAKES, WITH, WITHOUT, Factors, Level, label_of
from ablate.errors import did_you_mean, listed
from ablate.grammar import AblationSpec

MOST_VARIANTS = 10_000
AS_WRITTEN = "as written"
"""The level, in a reference, of a factor of which no level is what the spec says."""
REFERENCE, FULL, BARE = "reference", "full", "bare"
DEFAULT_BASELINES = {"one_at_a_time": REFERENCE, "leave_one_out": FULL, "add_one_in": BARE, "ladder": BARE}

Row = tuple[Level, ...]
Axis = list[Row]
"""What moves together: a factor's levels, or the levels of zipped factors, row by row."""


@dataclass(frozen=True)
class Combination:
    """What one variant is made of."""

    name: str
    levels: dict[str, str]
    """Factor → level, component → ``with`` or ``without``."""
    patches: Row = ()
    """The levels whose assignments are made, in this order."""
    phases: bool = False
    """Whether each patch is applied after the one before it, so that it may set a path again."""
    row_before: str | None = None
    """In a ladder, the row that this one adds to."""


@dataclass
class Combined:
    """The combinations of a design, those that ``exclude`` left out, and each one's baseline."""

    kept: list[Combination] = field(default_factory=list)
    excluded: list[Combination] = field(default_factory=list)
    baselines: dict[str, str] = field(default_factory=dict)
    """Name → its baseline's; a baseline, and whatever is compared with nothing, is not in it."""


def combine(ablation: AblationSpec, factors: Factors, collector: Collector) -> Combined:
    """The combinations of a spec's design. What is wrong goes to ``collector``.

    Raised at once: more than ``MOST_VARIANTS``, of which nothing is expanded.
    """
    before = len(collector.problems)
    axes = _axes(ablation, factors, collector)
    _check_count(ablation, axes, collector)
    _check_named_levels(ablation, factors, collector)
    if not all(factors.values()) or len(collector.problems) > before:
        return Combined()
    references = _reference(ablation, axes, collector) if ablation.design == "one_at_a_time" else []
    if len(collector.problems) > before:
        return Combined()
    made = _made(ablation, axes, references)
    combined = _without_excluded(made, ablation, collector)
    if len(collector.problems) == before:
        combined.baselines = _baselines(combined, ablation, axes, collector)
    return combined


def _made(ablation: AblationSpec, axes: list[Axis], references: list[Row | None]) -> list[Combination]:
    if ablation.design == "one_at_a_time":
        return _one_at_a_time(axes, references)
    if TAKES[ablation.design] == "components":
        return _of_components(ablation.design, [axis[0][0] for axis in axes])
    return [_grid_point(rows) for rows in product(*axes)]


def _axes(ablation: AblationSpec, factors: Factors, collector: Collector) -> list[Axis]:
    """Each factor for itself, and a zipped group in the place of the factor that it names first."""
    groups = _zipped_groups(ablation, factors, collector)
    axes: list[Axis] = []
    for name in factors:
        group = groups.get(name, [name])
        if name == group[0]:
            axes.append(list(zip(*(factors[member] for member in group), strict=False)))
    return axes


def _zipped_groups(ablation: AblationSpec, factors: Factors, collector: Collector) -> dict[str, list[str]]:
    """Factor → the factors of its group, in the order in which ``zip`` has them, for those that are sound."""
    groups: dict[str, list[str]] = {}
    for index, group in enumerate(ablation.zip or []):
        path: Path = ("ablation", "zip", index)
        before = len(collector.problems)
        if len(set(group)) < 2:
            collector.add(path, "fewer than two factors: nothing moves together")
        for position, name in enumerate(group):
            if name not in factors:
                collector.add((*path, position), f"no factor '{name}'", did_you_mean(name, factors))
            elif name in groups or group.index(name) < position:
                collector.add((*path, position), f"factor '{name}' is zipped twice")
        counts = {name: len(factors[name]) for name in group if factors.get(name)}
        if len(set(counts.values())) > 1:
            said = ", ".join(f"'{name}' has {count}" for name, count in counts.items())
            collector.add(path, f"zipped factors have equally many levels, and {said}")
        if len(collector.problems) == before:
            groups |= dict.fromkeys(group, group)
    return groups


def _check_count(ablation: AblationSpec, axes: list[Axis], collector: Collector) -> None:
    """Raised at once: nothing is expanded for a study of a million variants, though ``exclude`` might leave few."""
    sizes = [len(axis) for axis in axes]
    count = prod(sizes) if ablation.design in ("grid", "variants") else 1 + sum(sizes)
    if count > MOST_VARIANTS:
        collector.add(("ablation",), f"{count:,} variants; at most {MOST_VARIANTS:,}")
        collector.raise_if_any()


def _grid_point(rows: Iterable[Row]) -> Combination:
    levels = tuple(level for row in rows for level in row)
    return Combination("/".join(level.name for level in levels), {level.factor: level.name for level in levels}, levels)


def _of_components(design: str, components: Row | list[Level]) -> list[Combination]:
    """The model without any patch, and a row for each component."""
    others = {WITH: WITHOUT, WITHOUT: WITH}
    levels = {component.factor: others[component.name] for component in components}
    first = Combination(FULL if design == "leave_one_out" else BARE, levels)
    made = [first]
    for index, component in enumerate(components):
        name = component.factor
        if design == "ladder":
            patches = tuple(components[: index + 1])
            changed = {patch.factor: patch.name for patch in patches}
            made.append(Combination(f"+{name}", levels | changed, patches, phases=True, row_before=made[-1].name))
        else:
            called = f"without_{name}" if design == "leave_one_out" else f"+{name}"
            made.append(Combination(called, levels | {name: component.name}, (component,)))
    return made


def _one_at_a_time(axes: list[Axis], references: list[Row | None]) -> list[Combination]:
    """The reference, and each other row of each axis with the reference's rows of the others."""
    given = [row for row in references if row is not None]
    levels: dict[str, str] = {}
    for axis, reference in zip(axes, references, strict=True):
        # A level that is the spec as written has nothing to assign.
        names = {level.factor: AS_WRITTEN for level in axis[0]} if reference is None else {}
        levels |= names or {level.factor: level.name for level in reference or ()}
    made = [Combination(REFERENCE, levels, tuple(level for row in given for level in row))]
    for axis, reference in zip(axes, references, strict=True):
        others = [level for row in given if row is not reference for level in row]
        for row in axis:
            if row is not reference:
                name = "/".join(f"{level.factor}={level.name}" for level in row)
                changed = levels | {level.factor: level.name for level in row}
                made.append(Combination(name, changed, (*others, *row)))
    return made


def _reference(ablation: AblationSpec, axes: list[Axis], collector: Collector) -> list[Row | None]:
    """Each axis's row in the reference: the one that is named, or that the spec as written is; ``None`` for neither."""
    wanted = _labels(ablation.reference)
    found: list[Row | None] = []
    for axis in axes:
        here = sorted({level.factor for level in axis[0]} & wanted.keys())
        fits = _fitting(axis, wanted, ("ablation", "reference"), collector)
        if not here:
            fits = [row for row in axis if all(_is_written(collector.tree, level) for level in row)]
        found.append(next(iter(fits), None))
    return found


def _fitting(axis: Axis, wanted: Mapping[str, str], path: Path, collector: Collector) -> list[Row]:
    """The rows of an axis that have the wanted levels. It is a mistake if none has."""
    fits = [row for row in axis if all(wanted.get(level.factor, level.name) == level.name for level in row)]
    if not fits:
        here = sorted({level.factor for level in axis[0]} & wanted.keys())
        collector.add(path, f"{listed(here)} are zipped, and these levels don't stand side by side")
    return fits


def _is_written(tree: Any, level: Level) -> bool:
    """Whether the level assigns what the spec has at each of its paths."""
    for assignment in level.assignments:
        here: Any = tree
        for part in assignment.path:
            here = here.get(part) if isinstance(here, dict) else None
        if json.dumps(here, sort_keys=True) != json.dumps(assignment.value, sort_keys=True):
            return False
    return True


def _labels(written: Mapping[str, Any] | None) -> dict[str, str]:
    return {factor: label_of(value) for factor, value in (written or {}).items()}


def _check_named_levels(ablation: AblationSpec, factors: Factors, collector: Collector) -> None:
    """The factors and levels that ``baseline``, ``reference`` and ``exclude`` name are there."""
    takes = TAKES[ablation.design]
    known = {factor: [level.name for level in levels] for factor, levels in factors.items()}
    if takes == "components":
        known = {name: [WITH, WITHOUT] for name in factors}
    what = {"components": "component"}.get(takes, "factor")
    partial: list[tuple[Path, Mapping[str, Any]]] = [
        (("ablation", "exclude", index), entry) for index, entry in enumerate(ablation.exclude or [])
    ]
    partial.append((("ablation", "reference"), ablation.reference or {}))
    if isinstance(ablation.baseline, dict):
        partial.append((("ablation", "baseline"), ablation.baseline))
        if not ablation.baseline:
            hint = f"name levels: {{{what}: level}}"
            collector.add(("ablation", "baseline"), "an empty combination", hint, key=False)
    for path, entry in partial:
        for factor, level in _labels(entry).items():
            if factor not in known:
                collector.add((*path, factor), f"no {what} '{factor}'", did_you_mean(factor, known))
            elif known[factor] and level not in known[factor]:  # of a factor that is wrong no level is known
                hint = did_you_mean(level, known[factor])
                collector.add((*path, factor), f"{what} '{factor}' has no level '{level}'", hint, key=False)


def _has(combination: Combination, wanted: Mapping[str, str]) -> bool:
    return all(combination.levels[factor] == level for factor, level in wanted.items())


def _without_excluded(made: list[Combination], ablation: AblationSpec, collector: Collector) -> Combined:
    gone: dict[str, Combination] = {}
    for index, entry in enumerate(ablation.exclude or []):
        path: Path = ("ablation", "exclude", index)
        wanted = _labels(entry)
        matched = [combination for combination in made if _has(combination, wanted)] if wanted else []
        if not matched:
            message = f"excludes nothing: no combination has {_shown(wanted)}" if wanted else "an empty combination"
            collector.add(path, message, "name levels: {factor: level}" if not wanted else "")
        gone |= {combination.name: combination for combination in matched}
    if made and len(gone) == len(made):
        collector.add(("ablation", "exclude"), "leaves no variant")
    return Combined([each for each in made if each.name not in gone], list(gone.values()))


def _shown(levels: Mapping[str, str]) -> str:
    return ", ".join(f"{factor}={level}" for factor, level in levels.items())


def _baselines(combined: Combined, ablation: AblationSpec, axes: list[Axis], collector: Collector) -> dict[str, str]:
    """Each variant's baseline.

    A partial one pairs, in a grid, each variant with the one that shares its other levels. In a design that varies one
    thing at a time it names one variant, whose other levels are the reference's, and all are compared with that.
    """
    baseline = ablation.baseline
    default = DEFAULT_BASELINES.get(ablation.design)
    names = {combination.name for combination in combined.kept}
    if baseline is None and default is None:
        return {}
    if baseline is None or isinstance(baseline, str):
        name = _named(str(baseline or default), combined, collector)
        return dict.fromkeys(names - {name}, name) if name else {}
    before = len(collector.problems)
    for axis in (axis for axis in axes if len(axis[0]) > 1):
        _fitting(axis, _labels(baseline), ("ablation", "baseline"), collector)
    if len(collector.problems) > before:
        return {}
    everything = [*combined.kept, *combined.excluded]
    wanted = _with_zipped(_labels(baseline), axes)
    if default is None:
        return _partners(combined, wanted, collector)
    base = next((each.levels for each in everything if each.name == default), {})
    only = next((each.name for each in everything if each.levels == {**base, **wanted}), None)
    if only is None:
        message = f"design '{ablation.design}' has no variant with {_shown(wanted)} alone"
        collector.add(("ablation", "baseline"), message)
        return {}
    name = _named(only, combined, collector)
    return dict.fromkeys(names - {name}, name) if name else {}


def _named(name: str, combined: Combined, collector: Collector) -> str | None:
    names = [combination.name for combination in combined.kept]
    if name in names:
        return name
    if any(combination.name == name for combination in combined.excluded):
        collector.add(("ablation", "baseline"), f"the baseline '{name}' is excluded", key=False)
    else:
        collector.add(("ablation", "baseline"), f"no variant '{name}'", did_you_mean(name, names), key=False)
    return None


def _with_zipped(wanted: dict[str, str], axes: list[Axis]) -> dict[str, str]:
    """``wanted`` with the levels that stand beside it in a zipped row."""
    found = dict(wanted)
    for axis in axes:
        row = next((row for row in axis if any(wanted.get(level.factor) == level.name for level in row)), ())
        if len(row) > 1:
            found = {level.factor: level.name for level in row} | found
    return found


def _partners(combined: Combined, wanted: Mapping[str, str], collector: Collector) -> dict[str, str]:
    by_levels = {frozenset(each.levels.items()): each.name for each in combined.kept}
    found: dict[str, str] = {}
    alone: list[str] = []
    for combination in combined.kept:
        partner = by_levels.get(frozenset({**combination.levels, **wanted}.items()))
        if partner is None:
            alone.append(combination.name)
        elif partner != combination.name:
            found[combination.name] = partner
    if alone:
        message = f"excluded for {listed(alone)}: there is no variant with {_shown(wanted)} and the same other levels"
        collector.add(("ablation", "baseline"), message, "exclude those too, or name one variant", key=False)
    return found
