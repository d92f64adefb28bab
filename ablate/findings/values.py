"""A search as values: its trials with what became of them, and the best first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ablate.outcomes import DONE, FAILED, RESULTS, STATES

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Trial:
    """A proposal that is trained, with one seed.

    ``labels`` and ``values`` are of the paths that are active in it, by path. ``status`` is one of ``outcomes.STATES``.
    ``metrics`` are all numbers known of it: those before training, and of a result its own and ``seconds``; of a trial
    that was pruned those of its last epoch, so that only a finished one is ranked by them.
    """

    number: int
    name: str
    hash: str
    labels: Mapping[str, str]
    values: Mapping[str, Any]
    status: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    epochs: int = 0
    """Those that are done."""
    planned: int = 0
    """Those that it has if nothing ends it."""

    def value(self, metric: str) -> float | None:
        """Its number, if it has one that is finite."""
        value = self.metrics.get(metric)
        return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class Findings:
    """What a search's folder says.

    ``ranked`` are the finished trials that have a finite value of every objective, the best first; of several
    objectives those on the front come first, which are the first ``on_front`` of them.
    """

    spec: str
    search: Mapping[str, Any]
    """The section of the study's spec: file, space, objectives, constraints, sampler, …"""
    paths: tuple[str, ...]
    """Those that vary, in the order of the space."""
    trials: tuple[Trial, ...]
    """By number."""
    ranked: tuple[Trial, ...]
    on_front: int
    outcomes: Mapping[str, int]
    """How many proposals became what, by ``outcomes.PROPOSED``."""
    broken: Mapping[str, int]
    """How many of the rejected broke the constraint on this metric; one may break several."""
    reasons: Mapping[str, Mapping[str, int]]
    """Why proposals were impossible, uncertified or filtered: outcome → reason → how many."""
    out_of_reach: Mapping[str, float] = field(default_factory=dict)
    """The metrics whose constraint no proposal keeps, each with the nearest value that was seen."""

    @property
    def objectives(self) -> dict[str, str]:
        """Metric → ``minimize`` or ``maximize``."""
        return dict(self.search.get("objectives") or {})

    @property
    def tuned(self) -> dict[str, int]:
        """Of a tuning, which is a search for each of several variants: variant → how many trials; else nothing."""
        return Counter(trial.name.rpartition("/")[0] for trial in self.trials if "/" in trial.name)

    @property
    def proposed(self) -> int:
        return sum(self.outcomes.values())

    @property
    def front(self) -> tuple[Trial, ...]:
        """Of several objectives, the trials that none beats in one without being worse in another; of one, the best."""
        return self.ranked[: self.on_front]

    @property
    def fates(self) -> Counter[str]:
        """How many trials are in which state, in the order of ``outcomes.STATES``."""
        counts = Counter(trial.status for trial in self.trials)
        return Counter({status: counts[status] for status in STATES if counts[status]})

    @property
    def pruned(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.status == "pruned"]

    @property
    def epochs_saved(self) -> int:
        """Those that pruned trials would have had."""
        return sum(max(0, trial.planned - trial.epochs) for trial in self.pruned)

    @property
    def epochs(self) -> int:
        """Trained in all."""
        return sum(trial.epochs for trial in self.trials)

    @property
    def unmeasured(self) -> list[Trial]:
        """Finished, and without a finite value of some objective: in no ranking."""
        ranked = {trial.name for trial in self.ranked}
        return [trial for trial in self.trials if trial.status == "finished" and trial.name not in ranked]

    @property
    def failed(self) -> int:
        return sum(trial.status in FAILED for trial in self.trials)

    @property
    def missing(self) -> int:
        """Without a result."""
        return sum(trial.status not in RESULTS for trial in self.trials)

    @property
    def done(self) -> int:
        return sum(trial.status in DONE for trial in self.trials)

    @property
    def varying(self) -> list[str]:
        """The paths that tell ranked trials apart: one with a single value in all of them says nothing of any."""
        return [path for path in self.paths if len({trial.labels.get(path) for trial in self.ranked}) > 1]


def is_trained(metric: str) -> bool:
    """Whether only training tells it."""
    return metric == "seconds" or metric.partition(".")[0] in SPLITS


def on_test(metrics: Sequence[str]) -> list[str]:
    """Those that are read off the test split."""
    return [metric for metric in metrics if metric.startswith("test.")]
