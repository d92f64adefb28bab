"""Some points of a space that has too many to build all: drawn at random, or proposed by a sampler."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from random import Random

from ablate.errors import UserError
from ablate.proposing import Proposer
from ablate.space import Bound, Grid, Point, SamplerSpec
from ablate.streams import stream_seed

IN_ONE_GO = ("random", "grid")
"""Samplers that learn nothing. No point comes twice here, and so they are one."""
MOST_REPEATS = 1_000
"""Draws in a row of which none is new end a sample: what is left is all but never drawn."""

Tried = Callable[[Point], tuple[Mapping[str, float], str]]
"""What a point comes to: its metrics, and why it is out of the question; empty where it is not."""


def drawn(grid: Grid, trials: int, seed: int) -> list[Point]:
    """So many points at random, all different; fewer where no more are found."""
    random = Random(stream_seed("static search", seed))
    if grid.count is not None and grid.count <= 2 * trials:
        return random.sample(list(grid), min(trials, grid.count))
    found: dict[Point, None] = {}
    repeats = 0
    while len(found) < trials and repeats < MOST_REPEATS:
        point = grid.settled(lambda dimension: dimension.drawn(random))
        repeats = repeats + 1 if point in found else 0
        found[point] = None
    return list(found)


def proposed(
    grid: Grid,
    trials: int,
    sampler: SamplerSpec,
    objectives: Mapping[str, str],
    constraints: Mapping[str, Bound],
    tried: Tried,
) -> Iterator[Point]:
    """So many points, each proposed by what the earlier ones came to. It is ``tried`` before the next is asked for."""
    if not objectives:
        message = f"{sampler.name} goes by objectives, and the space has none that is known without training"
        raise UserError(message)
    proposer = Proposer(grid, objectives, sampler, constraints=constraints)
    for _ in range(trials):
        proposal = proposer.propose()
        if proposal is None:
            return
        metrics, why = tried(proposal.point)
        if why:
            proposer.refuse(proposal.number, why, metrics)
        else:
            proposer.tell(proposal.number, metrics)
        yield proposal.point
