"""Grids made by hand, and what their points are worth: no spec, no network."""

from __future__ import annotations

from math import log10
from pathlib import Path

from ablate.errors import Place
from ablate.proposing import Proposal, Proposer
from ablate.space import Bound, Dimension, Grid, Numbers, Option, Part, Point, SamplerSpec, Span
from ablate.space.grid import Condition

PLACE = Place("space.yaml", 1, 1)
ONE = {"val.accuracy": "maximize"}
TWO = {"val.accuracy": "maximize", "flops": "minimize"}


def grid_of(*dimensions: Dimension) -> Grid:
    return Grid(dimensions, (), {dimension.path: index for index, dimension in enumerate(dimensions)})


def choice(path: str, *values: object, when: tuple[str, set[int]] | None = None) -> Dimension:
    conditions = () if when is None else (Condition(when[0], frozenset(when[1]), False),)
    return Dimension(path, tuple(Option(str(value), value) for value in values), PLACE, conditions)


def whole(path: str, low: int, high: int, step: int = 1, *, log: bool = False) -> Dimension:
    options = tuple(Option(str(value), value) for value in range(low, high + 1, step))
    return Dimension(path, options, PLACE, numbers=Numbers(low, high, step, True, log))


def span(path: str, low: float, high: float, *, log: bool = False) -> Dimension:
    return Dimension(path, (), PLACE, span=Span(low, high, log))


def text(path: str, **parts: tuple[str, ...]) -> Dimension:
    labels = [""]
    for part in parts.values():
        labels = [f"{label}-{own}" for label in labels for own in part]
    options = tuple(Option(label, label) for label in labels)
    return Dimension(path, options, PLACE, parts=tuple(Part(name, own) for name, own in parts.items()))


BLOCK = choice("block", "se", "cbam", "simam")
REDUCTION = choice("reduction", 2, 4, 8, when=("block", {0, 1}))
AT = text("at", stages=("1", "2", "(1|2)"), convs=("1", "2"))
MIXED = grid_of(BLOCK, REDUCTION, AT, whole("k", 1, 5, 2), span("lr", 1e-3, 1.0, log=True))
LISTED = grid_of(BLOCK, REDUCTION, AT)
RANGES = grid_of(BLOCK, whole("k", 1, 9), span("lr", 1e-3, 1.0, log=True), span("decay", 0.0, 1.0))


def worth(grid: Grid, point: Point) -> dict[str, float]:
    """Both objectives, and params. The best: cbam, reduction 4, k 3 and a rate of 0.1."""
    values = grid.values(point)
    block = {"se": 0.5, "cbam": 1.0, "simam": 0.0}[values["block"]]
    away = abs(values.get("reduction", 8) - 4) / 4 + abs(values.get("k", 3) - 3) / 4
    away += abs(log10(values.get("lr", 0.1)) + 1) + 4 * abs(values.get("decay", 0.5) - 0.5)
    size = 1000.0 * (1 + block) * values.get("k", 1)
    return {"val.accuracy": 90.0 + block - away, "flops": size, "params": size + 8 / values.get("reduction", 8)}


def proposer(
    name: str,
    grid: Grid = MIXED,
    *,
    journal: Path | None = None,
    constraints: dict[str, Bound] | None = None,
    objectives: dict[str, str] = ONE,
    **keys: int,
) -> Proposer:
    return Proposer(grid, objectives, SamplerSpec(name=name, **keys), constraints=constraints, journal=journal)


def answer(given: Proposer, proposal: Proposal) -> None:
    """As a search would: some are refused, one in eleven fails, one in seven is ended early."""
    values = worth(given.grid, proposal.point)
    if any(not bound.allows(values[metric]) for metric, bound in given.constraints.items()):
        given.refuse(proposal.number, "too large", {metric: values[metric] for metric in given.constraints})
    elif proposal.number % 11 == 10:
        given.fail(proposal.number, "a bug")
    elif proposal.number % 7 == 6:
        given.prune(proposal.number, 1, values["val.accuracy"] - 1)
    elif proposal.number % 7 == 5:
        given.refuse(proposal.number, "no such network")
    else:
        given.note(proposal.number, why="as it came")
        given.tell(proposal.number, values)


def searched(given: Proposer, points: int) -> list[Point]:
    """Go on until so many points were proposed in all, what is open first; the points that were proposed by this."""
    for proposal in given.open:
        answer(given, proposal)
    found = []
    while given.proposed < points and (proposal := given.propose()) is not None:
        found.append(proposal.point)
        answer(given, proposal)
    return found
