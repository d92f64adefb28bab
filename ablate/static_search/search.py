"""Enumerate, merge, keep, rank, and hold against what was published.

Points that can't be built are counted by their reason. Points that are one network count once, by the fingerprint of
the graph. Networks that keep the constraints are ranked by the objectives that are known without training. A published
number is held against *all* networks, so that it can be said which none of them reaches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from ablate.collect import Collector
from ablate.costing import cost_of
from ablate.errors import Problem, UserError
from ablate.space import STATIC_METRICS, Grid, Space, Target, grid_on
from ablate.spec import Spec, apply
from ablate.static_search.points import Networks, Outcomes
from ablate.static_search.values import Found, StaticSearch, TargetResult, Totals
from ablate.yamlfile import place_of

LIMIT = 10_000
"""Points that are built where no more are asked for."""

Progress = Callable[[int, int], None]
"""Told how many points are done, and of how many; first of all with none done."""


def static_search(space: Space, spec: Spec, *, limit: int = LIMIT, progress: Progress | None = None) -> StaticSearch:
    """Every point of ``space`` on ``spec``, built and counted.

    ``UserError`` for a space that does not fit the spec, for a value with which nothing can be built, for a path that
    acts nowhere, and for more than ``limit`` points, of which none is built then.
    """
    plain = spec_without_insertions(spec)
    grid = grid_on(space, spec)
    if not grid.dimensions:
        raise UserError(Problem("no cost depends on a path of this space", "space", place_of(space.tree, ("space",))))
    total = _checked_count(grid, limit)
    outcomes = Outcomes(grid, Networks(spec))
    report = progress or (lambda done, of: None)
    report(0, total)
    outcomes.check_values()
    for done, point in enumerate(grid, 1):
        _ = outcomes[point]
        report(done, total)
    outcomes.check_paths()
    return _result(space, spec, outcomes, plain)


def spec_without_insertions(spec: Spec) -> Totals:
    """The cost of the spec's own network without its insertions; ``UserError`` where the spec itself is wrong."""
    applied = apply(spec)
    collector = Collector(applied.tree)
    network = Networks(spec).read(applied.tree, applied.removed_nodes, collector)
    collector.raise_if_any()
    assert network is not None
    return Totals.of(cost_of(network.written))


def _checked_count(grid: Grid, limit: int) -> int:
    total = grid.count
    if total > limit:
        sizes = ", ".join(f"{len(d.options):,} of {d.path}" for d in grid.dimensions if len(d.options) > 1)
        message = f"{total:,} points, and at most {limit:,} are built ({sizes})"
        hint = f"leave values out, take larger steps, or say --limit {total}"
        raise UserError(Problem(message, "space", grid.dimensions[0].place, hint))
    return total


def _result(space: Space, spec: Spec, outcomes: Outcomes, plain: Totals) -> StaticSearch:
    networks, impossible = _merged(outcomes)
    if not networks:
        raise UserError("no point of the space can be built")
    constraints = space.model.constraints
    broken = {
        id(each): [metric for metric, bound in constraints.items() if not bound.allows(each.totals[metric])]
        for each in networks
    }
    objectives = {metric: way for metric, way in space.model.objectives.items() if metric in STATIC_METRICS}
    kept = _ranked([each for each in networks if not broken[id(each)]], objectives)
    targets = space.model.targets
    return StaticSearch(
        spec=spec.name,
        space=space.file,
        paths=tuple(dimension.path for dimension in outcomes.grid.dimensions),
        left_out=outcomes.grid.left_out,
        points=len(outcomes.known),
        impossible=impossible,
        networks=tuple(networks),
        kept=tuple(kept),
        rejected=Counter(metric for metrics in broken.values() for metric in metrics),
        objectives=objectives,
        unknown_objectives=tuple(metric for metric in space.model.objectives if metric not in objectives),
        targets=tuple(_against(target, networks, plain) for target in targets),
        on_target=tuple(each for each in networks if all(t.reached_by(each.totals[t.metric]) for t in targets)),
        alike=tuple(outcomes.alike()),
    )


def _merged(outcomes: Outcomes) -> tuple[list[Found], Counter[str]]:
    """The distinct networks in the order of their points, and why the other points are none."""
    networks: dict[str, Found] = {}
    impossible: Counter[str] = Counter()
    for point in outcomes.grid:
        outcome = outcomes[point]
        if outcome.totals is None:
            impossible[_reason(outcome.problems[0])] += 1
            continue
        chosen = {
            dimension.path: dimension.options[option]
            for index, (dimension, option) in enumerate(zip(outcomes.grid.dimensions, point, strict=True))
            if option is not None and index not in outcome.idle
        }
        labels = {path: option.label for path, option in chosen.items()}
        known = networks.get(outcome.fingerprint)
        if known is not None:
            known.same.append(labels)
            continue
        values = {path: option.value for path, option in chosen.items()}
        networks[outcome.fingerprint] = Found(values, labels, outcome.totals, outcome.fingerprint)
    return list(networks.values()), impossible


def _reason(problem: Problem) -> str:
    return str(replace(problem, place=None, hint=""))


def _ranked(kept: list[Found], objectives: Mapping[str, str]) -> list[Found]:
    """The best first: of one objective in its order, of several first those on the front. Ties stay in order.

    Sorted by the objectives in turn, whatever is better than a network in all respects stands before it.
    """
    if not objectives:
        return kept

    def key(each: Found) -> tuple[int, ...]:
        return tuple(each.totals[m] if way == "minimize" else -each.totals[m] for m, way in objectives.items())

    front: list[tuple[int, ...]] = []
    ordered = sorted(kept, key=key)
    for each in ordered:
        own = key(each)
        each.on_front = not any(_dominates(other, own) for other in front)
        if each.on_front and own not in front[-1:]:
            front.append(own)
    return sorted(ordered, key=lambda each: not each.on_front)


def _dominates(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _against(target: Target, networks: list[Found], plain: Totals) -> TargetResult:
    metric = target.metric
    values = [each.totals[metric] for each in networks]
    nearest = min(networks, key=lambda each: abs(each.totals[metric] - target.near))
    reached = sum(map(target.reached_by, values))
    return TargetResult(target, reached, nearest, min(values), max(values), plain[metric])
