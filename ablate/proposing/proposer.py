"""Points of a space, one after the other, by ask and tell. Knows no network and no store.

No point is proposed twice. A sampler that draws one again is asked once more, a few times; then the point is drawn at
random among those that are left: an evolution or TPE may have found nothing better than what it knows, and would go on
to say so for ever.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ablate.space import Grid, Point
from ablate.streams import stream_seed

if TYPE_CHECKING:
    from ablate.space import Bound, SamplerSpec

DRAWS = 8
"""Of one proposal by its sampler. Where choices are few, TPE needs them: the best of 60 of the 240 points of
benchmarks/search.py lacks 0.9 points of accuracy with 1 draw, 0.6 with 4, 0.3 with 8 0.6 with 12 (40 seeds)."""
DRAWS_OF = {"gp": 2}
"""What a Gaussian process draws again hardly differs, and takes it a second."""
RANDOM_DRAWS = 100
"""Draws at random after these. If none of them is new, few points are left, and the first of those is taken."""


@dataclass(frozen=True)
class Proposal:
    """A point to train, and its number: 0, 1, 2, …"""

    number: int
    point: Point


class Proposer:
    """Draws what is to be tried next.

    The same sampler, told the same of each proposal before the next is asked for, proposes the same: also if the
    process ended in between, at any time, and another one opened the journal. ``constraints`` are those of the space;
    TPE and GP learn from how far a refused point breaks them.
    """

    def __init__(
        self,
        grid: Grid,
        objectives: Mapping[str, str],
        sampler: SamplerSpec,
        *,
        constraints: Mapping[str, Bound] | None = None,
        journal: Path | None = None,
        name: str = "search",
    ) -> None:
        from optuna.trial import TrialState

        from ablate.errors import UserError
        from ablate.proposing.parameters import Parameters
        from ablate.proposing.samplers import WHOLE, sampler_problems
        from ablate.proposing.trials import Trials

        self.grid = grid
        self.objectives = dict(objectives)
        self.spec = sampler
        self.constraints = dict(constraints or {})
        self._parameters = Parameters(grid)
        if problems := sampler_problems(sampler, self._parameters, objectives):
            raise UserError(problems)
        learns = {"tpe": TrialState.PRUNED, "gp": TrialState.COMPLETE}.get(sampler.name, TrialState.FAIL)
        self._trials = Trials(self._parameters, objectives, journal, name, learns)
        self._order: list[Point] | None = None
        self._whole = sampler.name in WHOLE
        self._open: dict[int, Point] = {}
        self._seen: set[Point] = set()
        self.proposed = 0
        """How many points so far, those of earlier processes included."""
        for number, trial in enumerate(self._trials.recorded):
            self._settled(number, self._parameters.point(trial.params.__getitem__), trial.state.is_finished())

    @property
    def open(self) -> list[Proposal]:
        """What was proposed and has not ended, in order."""
        return [Proposal(number, point) for number, point in self._open.items()]

    def propose(self) -> Proposal | None:
        """The next point; ``None`` when every point of the space was proposed."""
        from ablate.proposing.journal import quiet

        number = self.proposed
        with quiet():
            noted = self._trials.noted()
            found = self._listed(number) if self.spec.name == "grid" else self._drawn(number)
            if found is None:
                return None
            point, values = found
            active = self._parameters.values(point)
            hidden = {name: value for name, value in values.items() if name not in active}
            self._trials.settle(active, hidden if self._whole else {}, noted)
        self._settled(number, point, False)
        return Proposal(number, point)

    def tell(self, number: int, values: Mapping[str, float]) -> None:
        """A trial's objectives; beside them may stand what constraints are on. What has ended is not changed."""
        objectives = [float(values[name]) for name in self.objectives]
        if number not in self._open:
            return
        if not all(map(math.isfinite, objectives)):
            self.fail(number, "an objective is not finite")
            return
        self._trials.tell(number, objectives, self._violations(values))
        del self._open[number]

    def refuse(self, number: int, why: str, known: Mapping[str, float] | None = None) -> None:
        """A point that is never trained: it breaks constraints, makes no network, or was filtered out."""
        from ablate.proposing.trials import POSSIBLE

        if number not in self._open:
            return
        violations = self._violations(known or {})
        if not any(value > 0 for value in violations.values()):
            violations[POSSIBLE] = 1.0
        self._trials.note(number, {"refused": why})
        self._trials.refuse(number, violations, known or {})
        del self._open[number]

    def prune(self, number: int, epoch: int, value: float) -> None:
        """A trial that a pruner ended after ``epoch``, where the metric that it watches was ``value``."""
        if number in self._open:
            self._trials.prune(number, epoch, value)
            del self._open[number]

    def fail(self, number: int, why: str) -> None:
        """A trial that has no result. No sampler learns from it."""
        if number in self._open:
            self._trials.note(number, {"failed": why})
            self._trials.fail(number)
            del self._open[number]

    def note(self, number: int, **attributes: Any) -> None:
        """What else is known of a trial, for the dashboard; JSON data. Before it ends: afterwards nothing is noted."""
        if number in self._open:
            self._trials.note(number, attributes)

    def _settled(self, number: int, point: Point, ended: bool) -> None:
        self._seen.add(point)
        self.proposed = number + 1
        if not ended:
            self._open[number] = point

    def _violations(self, values: Mapping[str, float]) -> dict[str, float]:
        """How far each constraint is broken, as a share of its bound; not more than 0 where it is kept."""
        return {
            metric: violation(bound, values[metric]) if metric in values else 0.0
            for metric, bound in self.constraints.items()
        }

    def _listed(self, number: int) -> tuple[Point, dict[str, Any]] | None:
        """By ``grid``: all points, in an order that the seed shuffles."""
        if self._order is None:
            self._order = list(self.grid)
            random.Random(stream_seed("search", self.spec.seed, "grid")).shuffle(self._order)
        return (self._order[number], {}) if number < len(self._order) else None

    def _drawn(self, number: int) -> tuple[Point, dict[str, Any]] | None:
        """By all others: a point that is new, and the values that were drawn for it."""
        from ablate.proposing.samplers import ASKED, draws, sampler_of

        if self._exhausted():
            return None
        own = self.spec.name, "drawn", DRAWS_OF.get(self.spec.name, DRAWS)
        for name, stream, most in (own, ("random", "left", RANDOM_DRAWS)):
            sampler = sampler_of(name, self.spec, self._parameters, stream, number)
            drawn = draws(sampler, self._trials.study(), self._trials.draft, self._parameters, self._whole)
            for point, values in islice(drawn, most):
                if point not in self._seen:
                    return point, values
            self._trials.forget(ASKED)
        if self.grid.count is None:  # ranges without end, beside choices of which few leave them active
            return point, values
        return next(point for point in self.grid if point not in self._seen), values

    def _exhausted(self) -> bool:
        return self.grid.count is not None and len(self._seen) >= self.grid.count


def violation(bound: Bound, value: float) -> float:
    """How far a value breaks a bound, as a share of the bound; 0 or less where it keeps it."""
    if bound.near is not None and bound.within is not None:
        return (abs(value - bound.near) - bound.within) / (abs(bound.near) or 1.0)
    over = -math.inf if bound.max is None else (value - bound.max) / (abs(bound.max) or 1.0)
    under = -math.inf if bound.min is None else (bound.min - value) / (abs(bound.min) or 1.0)
    return max(over, under)
