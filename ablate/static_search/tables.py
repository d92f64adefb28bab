"""What a static search found, as a table of values and as a record for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from ablate.report.tables import Cell, Column, Table
from ablate.static_search.values import Found, StaticSearch, TargetResult

MOST_REASONS = 5
_UNITS = (("G", 1e9), ("M", 1e6), ("k", 1e3))


def networks_table(search: StaticSearch, top: int | None = None) -> Table:
    """A row per network that keeps the constraints, the best first; all of them, or the first ``top``."""
    varying = _varying(search)
    names = dict(zip(varying, _short(varying), strict=True))
    metrics = _metrics(search)
    several = len(search.objectives) > 1
    columns = (
        *(Column(name) for name in names.values()),
        *(Column("FLOPs" if metric == "flops" else metric, "", "right", "number") for metric in metrics),
        *([Column("front")] if several else []),
        Column("points", "", "right", "number"),
    )
    shown = search.kept[:top]
    rows = [
        (
            *(Cell(found.labels.get(path, "—")) for path in varying),
            *(Cell(f"{found.totals[metric]:,}", found.totals[metric]) for metric in metrics),
            *([Cell("yes" if found.on_front else "")] if several else []),
            Cell(f"{1 + len(found.same):,}", 1 + len(found.same)),
        )
        for found in shown
    ]
    title = f"{search.spec} over {search.space}: {_counted(len(search.kept), 'network')}"
    if len(shown) < len(search.kept):
        title += f", the first {len(shown):,}"
    return Table(title, columns, tuple(rows), _caption(search), tuple(_notes(search)))


def record(search: StaticSearch) -> dict[str, Any]:
    """All of it, as JSON data."""
    return {
        "spec": search.spec,
        "space": search.space,
        "paths": list(search.paths),
        "left_out": list(search.left_out),
        "points": search.points,
        "impossible": dict(search.impossible),
        "networks": len(search.networks),
        "duplicates": search.duplicates,
        "rejected": dict(search.rejected),
        "objectives": dict(search.objectives),
        "unknown_objectives": list(search.unknown_objectives),
        "alike": list(search.alike),
        "kept": [_found_record(found) for found in search.kept],
        "targets": [_target_record(result, _varying(search)) for result in search.targets],
        "on_target": [found.fingerprint for found in search.on_target],
    }


def _found_record(found: Found) -> dict[str, Any]:
    return {
        "point": dict(found.point),
        "params": found.totals.params,
        "flops": found.totals.flops,
        "activations": found.totals.activations,
        "uncounted": list(found.totals.uncounted),
        "fingerprint": found.fingerprint,
        "on_front": found.on_front,
        "same": [dict(labels) for labels in found.same],
    }


def _target_record(result: TargetResult, varying: list[str]) -> dict[str, Any]:
    return {
        **result.target.model_dump(),
        "reached": result.reached,
        "nearest": _found_record(result.nearest),
        "misses_by": result.misses_by,
        "lowest": result.lowest,
        "highest": result.highest,
        "without_insertions": result.plain,
        "said": target_in_words(result, varying),
    }


def _metrics(search: StaticSearch) -> list[str]:
    """Parameters and FLOPs, and whatever else is asked about."""
    asked = [*search.objectives, *search.rejected, *(result.target.metric for result in search.targets)]
    return list(dict.fromkeys(["params", "flops", *asked]))


def _varying(search: StaticSearch) -> list[str]:
    """The paths that tell networks apart: one that has a single value everywhere says nothing of any."""
    return [path for path in search.paths if len({found.labels.get(path) for found in search.networks}) > 1]


def _short(paths: list[str]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    parts = [path.split(".") for path in paths]
    depths = [1] * len(paths)
    while True:
        names = [".".join(words[-depth:]) for words, depth in zip(parts, depths, strict=True)]
        twice = {name for name, count in Counter(names).items() if count > 1}
        if not twice:
            return names
        depths = [depth + (name in twice) for depth, name in zip(depths, names, strict=True)]


def _caption(search: StaticSearch) -> str:
    said = [f"{_counted(search.points, 'point')}: {_counted(len(search.networks), 'network')}"]
    if search.impossible:
        said.append(f"{search.impossible.total():,} can't be built")
    if search.duplicates:
        said.append(f"{search.duplicates:,} are the same as an earlier one")
    broken = [f"{count:,} break the constraint on {metric}" for metric, count in search.rejected.items()]
    ways = " and ".join(f"{metric} ({way})" for metric, way in search.objectives.items())
    order = f"Ranked by {ways}." if ways else "In the order of the space."
    return (
        f"{'; '.join([*said, *broken])}. {order} Nothing was trained. FLOPs are multiply-accumulates for one example."
    )


def _notes(search: StaticSearch) -> Iterable[str]:
    yield from (target_in_words(result, _varying(search)) for result in search.targets)
    if len(search.targets) > 1 and all(result.reached for result in search.targets):
        count = len(search.on_target)
        verb = "comes" if count < 2 else "come"
        yield f"{_counted(count, 'network') if count else 'No network'} {verb} to all of these numbers at once."
    reasons = search.impossible.most_common()
    yield from (f"{_counted(count, 'point')} can't be built: {reason}" for reason, count in reasons[:MOST_REASONS])
    if reasons[MOST_REASONS:]:
        rest = reasons[MOST_REASONS:]
        yield f"{sum(count for _, count in rest):,} more points can't be built, for {len(rest)} other reasons."
    yield from (f"{path} changes no network: no two of its values differ in what they make." for path in search.alike)
    if search.left_out:
        yield f"As the spec has them, since no cost depends on them: {', '.join(search.left_out)}."
    if search.unknown_objectives:
        yield f"Known after training only, and so no part of this ranking: {', '.join(search.unknown_objectives)}."
    unknown = sorted({operation for found in search.networks for operation in found.totals.uncounted})
    if unknown:
        yield f"Not counted as FLOPs: {', '.join(unknown)}."


def target_in_words(result: TargetResult, varying: list[str]) -> str:
    """Whether any network comes to a published number, and by how much the nearest misses it."""
    target, nearest = result.target, result.nearest
    what = "FLOPs" if target.metric == "flops" else target.metric
    table = f", {_table(target.table)}" if target.table is not None else ""
    claim = f"{target.title}{table}: {_amount(target.near)} ± {_amount(target.within)} {what}: "
    value = nearest.totals[target.metric]
    if result.reached:
        count = _counted(result.reached, "network")
        verb = "comes" if result.reached == 1 else "come"
        return f"{claim}{count} {verb} to it; the nearest has {value:,}{_where(nearest, varying)}."
    side = "smallest" if value == result.lowest else "largest" if value == result.highest else "nearest"
    said = f"no network comes to it. The {side} of all has {value:,}, {_amount(result.misses_by)} "
    said += f"{'more' if value > target.near else 'less'}{_where(nearest, varying)}"
    if result.plain > target.near + target.within and result.lowest >= result.plain:
        said += f"; without any insertion it is {result.plain:,} already, and no network here has less"
    return f"{claim}{said}."


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _table(table: int | str) -> str:
    return f"Table {table}" if isinstance(table, int) else table


def _amount(number: float) -> str:
    """Four digits, with a unit: 27.5 M."""
    unit, size = next(((unit, size) for unit, size in _UNITS if abs(number) >= size), ("", 1.0))
    return f"{number / size:.4g} {unit}".rstrip()


def _where(found: Found, varying: list[str]) -> str:
    """Which network that is, in brackets; nothing where nothing varies."""
    chosen = [path for path in varying if path in found.labels]
    said = ", ".join(f"{name}: {found.labels[path]}" for name, path in zip(_short(chosen), chosen, strict=True))
    return f" ({said})" if said else ""
