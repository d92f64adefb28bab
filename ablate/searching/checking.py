"""A space's values, tried on the spec before anything is trained: what no point can have is a mistake in the file.

A value that can be built beside some others and not beside all is none: such points are counted when they come up.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from ablate.design import StudyPlan, Variant, variant_at
from ablate.errors import Problem, UserError
from ablate.searching.candidates import level_of
from ablate.space import Grid, Point

TRIES = 5
"""Points at random that are tried with a value that could not be built: more, and it is said to be impossible."""
MOST = 400
"""Points that are tried in all. Of a space with more values than that the first are tried."""

Pair = tuple[int, float]
"""A dimension of a grid, and what is chosen in it."""


def check_values(plan: StudyPlan, grid: Grid) -> None:
    """``UserError`` with every value with which nothing can be built, and every path that acts nowhere.

    ``plan`` is of the spec as written.
    """
    tried = _Tried(plan, grid)
    draws = random.Random(0)
    for point in grid.covering(draws):
        if tried.count >= MOST:
            return
        tried.build(point)
    for index, chosen in sorted(tried.refused):
        for _ in range(TRIES):
            again = grid.having(index, chosen, draws) if (index, chosen) in tried.refused else None
            if again is None or tried.count >= MOST:
                break
            tried.build(again)
    problems = [*dict.fromkeys(problem for found in tried.refused.values() for problem in found), *tried.idle()]
    if problems:
        raise UserError(problems)


class _Tried:
    """What points that were built say of their values."""

    def __init__(self, plan: StudyPlan, grid: Grid) -> None:
        self.plan, self.grid = plan, grid
        self.count = 0
        self.refused: dict[Pair, tuple[Problem, ...]] = {}
        """Values that no point so far could be built with, and why the first could not."""
        self._sound: set[Pair] = set()
        self._acting: set[int] = set()

    def build(self, point: Point) -> None:
        self.count += 1
        pairs = [(index, chosen) for index, chosen in enumerate(point) if chosen is not None]
        try:
            levels = [level_of(assignment) for assignment in self.grid.assignments(point)]
            variant = variant_at(self.plan.spec, "point", levels)
        except UserError as error:
            own = self._blamed(pairs, error.problems)
            self.refused |= {
                pair: tuple(error.problems) for pair in own if pair not in self._sound and pair not in self.refused
            }
            return
        self._sound.update(pairs)
        self.refused = {pair: problems for pair, problems in self.refused.items() if pair not in self._sound}
        self._acting.update(self._acts(variant, pairs))

    def _blamed(self, pairs: list[Pair], problems: Iterable[Problem]) -> list[Pair]:
        """The values at whose place the problems stand; all, where they stand elsewhere."""
        at = {str(problem.place) for problem in problems if problem.place is not None}
        own = [
            (index, chosen)
            for index, chosen in pairs
            if at.intersection(self.grid.dimensions[index].assignment(chosen).places)
        ]
        return own or pairs

    def _acts(self, variant: Variant, pairs: list[Pair]) -> Iterable[int]:
        acting = {assignment.layer for assignment in variant.assigned}
        return [i for i, chosen in pairs if self.grid.dimensions[i].assignment(chosen).layer in acting]

    def idle(self) -> list[Problem]:
        """Paths that did nothing wherever they could be built: a misspelt parameter would else be dropped."""
        message = "has no effect at any point: what it changes is not there, or does not take it"
        built = {index for index, _ in self._sound}
        return [
            Problem(message, dimension.path, dimension.place)
            for index, dimension in enumerate(self.grid.dimensions)
            if index in built - self._acting
        ]
