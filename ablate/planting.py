"""The faults that are planted in a replayed sweep, drawn at random from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from ablate.driving import Attempt
from ablate.streams import stream_seed

UNHEARD = 0.25
"""The share of deaths and hangs that come between an epoch's row in the folder and the driver's hearing of it."""


@dataclass(frozen=True)
class Fault:
    """What ends an attempt before its result."""

    kind: Literal["death", "out_of_memory", "hang"]
    moment: float
    """In epochs since the attempt began; a whole number: after the row was written, before it is told."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong. Shares are of the attempts; one attempt has one of the three at most, at any of its moments.

    The same seed gives an attempt the same fault, whatever else there is and wherever it runs. After a kill, go on with
    another seed, or it comes again.
    """

    seed: int = 0
    death: float = 0.0
    """The share whose worker dies."""
    out_of_memory: float = 0.0
    """The share that does not fit beside others. An attempt that is alone fits."""
    hang: float = 0.0
    """The share that says nothing more until its time is over; ``ValueError`` without ``trial_timeout``."""
    nodes: int = 1
    """So many nodes share the slots evenly."""
    node_every: float | None = None
    """The mean time between the deaths of two nodes, in virtual seconds; None: they live."""
    node_back: float = 0.0
    """How long a node is gone, in virtual seconds."""
    kill_after: int | None = None
    """The driver is killed before it hears what comes after so many steps; its workers die with it."""

    def of(self, attempt: Attempt, left: int) -> Fault | None:
        """What becomes of the attempt, which has so many epochs left; what follows the last one counts as one more."""
        draws = random.Random(stream_seed("replay", "attempt", self.seed, attempt.trial.hash, attempt.number))
        kind, moment, unheard = draws.random(), draws.random() * (left + 1), draws.random() < UNHEARD
        if kind < self.death + self.hang:
            return Fault("death" if kind < self.death else "hang", int(moment) + 1 if unheard else moment)
        if kind < self.death + self.hang + self.out_of_memory and not attempt.alone:
            return Fault("out_of_memory", moment)
        return None

    def node_draws(self) -> random.Random:
        """The stream of the nodes' deaths."""
        return random.Random(stream_seed("replay", "nodes", self.seed))
