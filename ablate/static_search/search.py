"""Enumerate or sample, merge, keep, rank, and hold against what was published.

Points that can't be built are counted by their reason. Points that are one network count once, by the fingerprint of
the graph. Networks that keep the constraints are ranked by the objectives that are known without training. A published
number is held against *all* networks, so that it can be said which none of them reaches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from random import Random

from ablate.collect import Collector
from ablate.costing import cost_of
from ablate.errors import Problem, UserError, did_you_mean
from ablate.placing import available_cpus
from ablate.space import KNOWN_METRICS, STATIC_METRICS, Bound, Grid, Point, SamplerSpec, Space, Target, grid_on
from ablate.space.sampling import TAKES
from ablate.spec import Spec, apply
from ablate.static_search.checks import alike, check_paths, check_some_values, check_values
from ablate.static_search.drawing import IN_ONE_GO, drawn, proposed
from ablate.static_search.points import Networks, Outcomes
from ablate.static_search.processes import outside_modules
from ablate.static_search.ranking import ranked
from ablate.static_search.scores import Scores
from ablate.static_search.values import Found, Sample, StaticSearch, TargetResult, Totals
from ablate.yamlfile import place_of

LIMIT = 10_000
"""Points that are built where no more are asked for."""
WORTH_PROCESSES = 5_000
"""Points from which on several processes are done sooner: to start takes each as long as to build some 1,500 points."""

Progress = Callable[[int, int], None]
"""Told how many points are done, and of how many; first of all with none done."""


def static_search(
    space: Space,
    spec: Spec,
    *,
    limit: int = LIMIT,
    trials: int | None = None,
    sampler: str | None = None,
    seed: int | None = None,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> StaticSearch:
    """Every point of ``space`` on ``spec``, or with ``trials`` so many of them, built and counted.

    ``sampler`` proposes them, by the objectives that are known without training; without one they are drawn at random.
    ``seed`` is its own, and without one that of the space's sampler.
    ``jobs``: processes that share the points; without a number all CPUs, where there are points enough. The result does
    not depend on it. A sampler that learns from what it proposed, and metrics that networks are built for, have one.

    ``UserError`` for a space that does not fit the spec, for a value with which nothing can be built, for a path that
    acts nowhere, and without ``trials`` for more than ``limit`` points, of which none is built then.
    """
    plain = spec_without_insertions(spec)
    grid = grid_on(space, spec, spans=trials is not None)
    if not grid.dimensions:
        raise UserError(Problem("no cost depends on a path of this space", "space", place_of(space.tree, ("space",))))
    wanted = _checked_count(grid, limit) if trials is None else trials
    search = _Search(space, spec, grid, progress or (lambda done, of: None))
    if grid.count is not None and grid.count <= wanted:
        return search.result(search.all(grid.count, jobs), plain)
    by = _sampler(space, sampler, seed)
    points = search.some(wanted, by, jobs)
    return search.result(points, plain, Sample(grid.count, by.name, by.seed, wanted))


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
    assert total is not None, "a range without steps"
    if total > limit:
        sizes = ", ".join(f"{len(d.options):,} of {d.path}" for d in grid.dimensions if len(d.options) > 1)
        message = f"{total:,} points, and at most {limit:,} are built ({sizes})"
        hint = f"leave values out, take larger steps, say --limit {total}, or --trials {limit} for a sample"
        raise UserError(Problem(message, "space", grid.dimensions[0].place, hint))
    return total


def _sampler(space: Space, name: str | None, seed: int | None) -> SamplerSpec:
    """By that name; with the other keys of the space's own sampler, if it is that one."""
    name, stated = name or "random", space.model.sampler
    if name not in TAKES:
        raise UserError(Problem(f"unknown sampler '{name}'", hint=did_you_mean(name, TAKES)))
    own = stated if stated is not None and stated.name == name else SamplerSpec.model_validate({"name": name})
    kept = stated.seed if stated is not None else 0
    return own.model_copy(update={"seed": kept if seed is None else seed})


class _Search:
    """What one search finds out."""

    def __init__(self, space: Space, spec: Spec, grid: Grid, progress: Progress) -> None:
        self.space = space
        self.spec = spec
        self.grid = grid
        self.progress = progress
        self.outcomes = Outcomes(grid, spec)
        model = space.model
        self.constraints = model.constraints
        self.objectives = {metric: way for metric, way in model.objectives.items() if metric in KNOWN_METRICS}
        self.scores = Scores(grid, spec, [*self.objectives, *self.constraints])

    def all(self, total: int, jobs: int | None) -> Iterable[Point]:
        """Every point of the space is built."""
        self.progress(0, total)
        check_values(self.outcomes)
        self._build(self.grid, total, jobs)
        check_paths(self.outcomes)
        return self.grid

    def some(self, trials: int, sampler: SamplerSpec, jobs: int | None) -> Iterable[Point]:
        """So many points are built."""
        self.progress(0, trials)
        random = Random(sampler.seed)
        check_some_values(self.outcomes, random, most=trials)
        if sampler.name in IN_ONE_GO:
            points = drawn(self.grid, trials, sampler.seed)
            self._build(points, len(points), jobs)
        else:
            points = []
            asked = (self.objectives, self.constraints, self._tried)
            for point in proposed(self.grid, trials, sampler, *asked):
                points.append(point)
                self.progress(len(points), trials)
        check_paths(self.outcomes)
        return points

    def _build(self, points: Iterable[Point], total: int, jobs: int | None) -> None:
        done = 0

        def told() -> None:
            nonlocal done
            done += 1
            self.progress(done, total)

        self.outcomes.build(points, _processes(jobs, total), told)

    def _tried(self, point: Point) -> tuple[Mapping[str, float], str]:
        """A point's metrics, and why it is out of the question."""
        outcome = self.outcomes[point]
        if outcome.totals is None:
            return {}, _reason(outcome.problems[0])
        found = Found({}, {}, outcome.totals, outcome.fingerprint)
        broken, why = self._measured(found, point)
        metrics = {metric: found.totals[metric] for metric in STATIC_METRICS} | dict(found.scores)
        return metrics, why or ", ".join(f"breaks the constraint on {metric}" for metric in broken)

    def _measured(self, found: Found, point: Point) -> tuple[list[str], str]:
        """The constraints that a network breaks, and why it has no scores.

        It is built for these only where it keeps the constraints that its graph tells of.
        """
        broken = _broken(found, {metric: b for metric, b in self.constraints.items() if metric in STATIC_METRICS})
        if broken:
            return broken, ""
        scores = self.scores.of(point, found.fingerprint)
        if isinstance(scores, Problem):
            return [], _reason(scores)
        found.scores = scores
        return _broken(found, self.constraints), ""

    def result(self, points: Iterable[Point], plain: Totals, sample: Sample | None = None) -> StaticSearch:
        merged, impossible, built = _merged(self.outcomes, points)
        if not merged:
            raise UserError("no point of the space can be built" if sample is None else "no point can be built")
        rejected, unmeasured = Counter[str](), Counter[str]()
        kept: list[Found] = []
        for found, point in merged:
            broken, why = self._measured(found, point)
            rejected.update(broken)
            unmeasured.update([why] if why else [])
            kept += [] if broken or why else [found]
        model = self.space.model
        networks = [found for found, _ in merged]
        reached = [each for each in networks if all(t.reached_by(each.totals[t.metric]) for t in model.targets)]
        return StaticSearch(
            spec=self.spec.name,
            space=self.space.file,
            paths=tuple(dimension.path for dimension in self.grid.dimensions),
            left_out=self.grid.left_out,
            points=built,
            impossible=impossible,
            networks=tuple(networks),
            kept=tuple(ranked(kept, self.objectives)),
            rejected=rejected,
            objectives=self.objectives,
            unknown_objectives=tuple(metric for metric in model.objectives if metric not in self.objectives),
            targets=tuple(_against(target, networks, plain) for target in model.targets),
            on_target=tuple(reached),
            alike=tuple(alike(self.outcomes)) if sample is None else (),
            sample=sample,
            unmeasured=unmeasured,
        )


def _processes(jobs: int | None, points: int) -> int:
    if outside_modules() is None:  # a block that this process alone knows
        return 1
    if jobs is None:
        return available_cpus() if points >= WORTH_PROCESSES else 1
    return min(jobs, points)


def _broken(found: Found, constraints: Mapping[str, Bound]) -> list[str]:
    return [metric for metric, bound in constraints.items() if not bound.allows(found[metric])]


def _merged(outcomes: Outcomes, points: Iterable[Point]) -> tuple[list[tuple[Found, Point]], Counter[str], int]:
    """The distinct networks, each with its first point; why other points are none; how many points there are."""
    networks: dict[str, tuple[Found, Point]] = {}
    impossible: Counter[str] = Counter()
    count = 0
    for point in points:
        count += 1
        outcome = outcomes[point]
        if outcome.totals is None:
            impossible[_reason(outcome.problems[0])] += 1
            continue
        chosen = {
            dimension.path: dimension.option(option)
            for index, (dimension, option) in enumerate(zip(outcomes.grid.dimensions, point, strict=True))
            if option is not None and index not in outcome.idle
        }
        labels = {path: option.label for path, option in chosen.items()}
        known = networks.get(outcome.fingerprint)
        if known is not None:
            known[0].same.append(labels)
            continue
        values = {path: option.value for path, option in chosen.items()}
        networks[outcome.fingerprint] = Found(values, labels, outcome.totals, outcome.fingerprint), point
    return list(networks.values()), impossible, count


def _reason(problem: Problem) -> str:
    return str(replace(problem, place=None, hint=""))


def _against(target: Target, networks: list[Found], plain: Totals) -> TargetResult:
    metric = target.metric
    values = [each.totals[metric] for each in networks]
    nearest = min(networks, key=lambda each: abs(each.totals[metric] - target.near))
    reached = sum(map(target.reached_by, values))
    return TargetResult(target, reached, nearest, min(values), max(values), plain[metric])
