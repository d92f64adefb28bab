"""Whether what is known before training tells what training will: rank correlations over the trials that finished."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ablate import stats
from ablate.findings.values import Findings, Trial, is_trained


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho and Kendall's tau (b: ties are taken into account) of two metrics over ``n`` trials.

    None where there are fewer than three, or one of the two does not vary.
    """

    known: str
    objective: str
    spearman: float | None
    kendall: float | None
    n: int


def correlations(found: Findings) -> list[Correlation]:
    """Of every metric that is known before training, with every objective that is not.

    The trials are those that were trained: of what a filter or a constraint kept from it, the objective is unknown.
    None of a tuning: over several searches at once they would tell the variants apart.
    """
    if found.tuned:
        return []
    known = dict.fromkeys(name for trial in found.trials for name in trial.metrics if not is_trained(name))
    objectives = [metric for metric in found.objectives if is_trained(metric)]
    return [_correlation(found.trials, name, objective) for objective in objectives for name in known]


def _correlation(trials: Sequence[Trial], known: str, objective: str) -> Correlation:
    finished = [(trial.value(known), trial.value(objective)) for trial in trials if trial.status == "finished"]
    pairs = [(a, b) for a, b in finished if a is not None and b is not None]
    ranks = stats.rank_correlation([a for a, _ in pairs], [b for _, b in pairs])
    return Correlation(known, objective, ranks.spearman, ranks.kendall, len(pairs))
