"""What a static search found, as a table of values and as a record for machines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ablate.labels import short_names
from ablate.report.tables import Cell, Column, Table
from ablate.space import SCORES, STATIC_METRICS
from ablate.static_search.drawing import IN_ONE_GO
from ablate.static_search.values import Found, Sample, StaticSearch, TargetResult

MOST_REASONS = 5
_HEADERS = {"flops": ("FLOPs", ""), "memory": ("memory", "bytes"), "latency": ("latency", "ms")}
"""Metric → how its column is called, and its unit."""
_UNITS = (("G", 1e9), ("M", 1e6), ("k", 1e3))


def networks_table(search: StaticSearch, top: int | None = None) -> Table:
    """A row per network that keeps the constraints, the best first; all of them, or the first ``top``."""
    varying = _varying(search)
    names = dict(zip(varying, short_names(varying), strict=True))
    metrics = _metrics(search)
    several = len(search.objectives) > 1
    columns = (
        *(Column(name) for name in names.values()),
        *(Column(*_HEADERS.get(metric, (metric, "")), "right", "number") for metric in metrics),
        *([Column("front")] if several else []),
        Column("points", "", "right", "number"),
    )
    shown = search.kept[:top]
    rows = [
        (
            *(Cell(found.labels.get(path, "—")) for path in varying),
            *(_cell(found, metric) for metric in metrics),
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
        "sample": _sample_record(search.sample),
        "impossible": dict(search.impossible),
        "networks": len(search.networks),
        "duplicates": search.duplicates,
        "rejected": dict(search.rejected),
        "unmeasured": dict(search.unmeasured),
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
        **found.scores,
        "uncounted": list(found.totals.uncounted),
        "fingerprint": found.fingerprint,
        "on_front": found.on_front,
        "same": [dict(labels) for labels in found.same],
    }


def _sample_record(sample: Sample | None) -> dict[str, Any] | None:
    if sample is None:
        return None
    return {"of": sample.of, "sampler": sample.sampler, "seed": sample.seed, "asked": sample.asked}


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


def _caption(search: StaticSearch) -> str:
    points = _counted(search.points, "point")
    said = [f"{f'A sample of {points}' if search.sample else points}: {_counted(len(search.networks), 'network')}"]
    if search.impossible:
        said.append(f"{search.impossible.total():,} can't be built")
    if search.duplicates:
        said.append(f"{search.duplicates:,} are the same as an earlier one")
    broken = [f"{count:,} break the constraint on {metric}" for metric, count in search.rejected.items()]
    ways = " and ".join(f"{metric} ({way})" for metric, way in search.objectives.items())
    broken += [f"{search.unmeasured.total():,} can't be measured"] if search.unmeasured else []
    order = f"Ranked by {ways}." if ways else "In the order of the space."
    return (
        f"{'; '.join([*said, *broken])}. {order} Nothing was trained. FLOPs are multiply-accumulates for one example."
    )


def _notes(search: StaticSearch) -> Iterable[str]:
    if search.sample is not None:
        yield _sampled(search.sample, search.points)
    yield from (target_in_words(result, _varying(search)) for result in search.targets)
    if len(search.targets) > 1 and all(result.reached for result in search.targets):
        count = len(search.on_target)
        verb = "comes" if count < 2 else "come"
        yield f"{_counted(count, 'network') if count else 'No network'} {verb} to all of these numbers at once."
    reasons = search.impossible.most_common()
    yield from (f"{_counted(count, 'point')} can't be built: {reason}" for reason, count in reasons[:MOST_REASONS])
    unmeasured = search.unmeasured.most_common(MOST_REASONS)
    yield from (f"{_counted(count, 'network')} can't be measured: {reason}" for reason, count in unmeasured)
    if reasons[MOST_REASONS:]:
        rest = reasons[MOST_REASONS:]
        yield f"{sum(count for _, count in rest):,} more points can't be built, for {len(rest)} other reasons."
    yield from (f"{path} changes no network: no two of its values differ in what they make." for path in search.alike)
    if search.left_out:
        yield f"As the spec has them, since no cost depends on them: {', '.join(search.left_out)}."
    if search.unknown_objectives:
        yield f"Known after training only, and so no part of this ranking: {', '.join(search.unknown_objectives)}."
    if "latency" in _metrics(search):
        yield "latency: of a pass of 64 images in evaluation, measured here on one thread of the CPU."
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


def _sampled(sample: Sample, points: int) -> str:
    """How many of how many were built, and which."""
    of = "of a space without end" if sample.of is None else f"of {sample.of:,}"
    how = "drawn at random" if sample.sampler in IN_ONE_GO else f"proposed by {sample.sampler}"
    said = f"A sample: {_counted(points, 'point')} {of}, {how} (seed {sample.seed}); what was not built may be better."
    if points < sample.asked:
        said += f" {sample.asked:,} were asked for, and no new ones were found."
    return said


def _cell(found: Found, metric: str) -> Cell:
    """A count whole; a latency in milliseconds; a score in four digits. Nothing where it was not built for that."""
    if metric not in found.scores and metric not in STATIC_METRICS:
        return Cell()
    value = 1e3 * found[metric] if metric == "latency" else found[metric]
    text = f"{value:.2f}" if metric == "latency" else f"{value:.4g}" if metric in SCORES else f"{value:,.0f}"
    return Cell(text, value)


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
    said = ", ".join(f"{name}: {found.labels[path]}" for name, path in zip(short_names(chosen), chosen, strict=True))
    return f" ({said})" if said else ""
