"""What a search's figures show, in sentences with their numbers: for captions, and for who can't see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ablate.errors import listed
from ablate.figures.sentences import counted, quantity
from ablate.findings import Findings, Front, History, Importance
from ablate.findings.scales import scale_of

MOST = 5
"""Paths that are named."""


def history_text(runs: Sequence[History]) -> str:
    """How good the first was, and how good and which the best."""
    said = []
    for run in runs:
        pruned = f" and {len(run.pruned):,} that were pruned" if run.pruned else ""
        said.append(f"{run.objective} of {counted(len(run.finished), 'finished trial')}{pruned}, by their number.")
        if run.best:
            (first, start), (best, end) = run.best[0], run.best[-1]
            said.append(
                f"The best so far goes from {quantity(run.objective, start)} (trial {first}) to "
                f"{quantity(run.objective, end)} (trial {best})."
            )
    return " ".join(said)


def front_text(pairs: Sequence[Front]) -> str:
    """How many are on the front, and from where to where it goes."""
    said = []
    for pair in pairs:
        ends = [f"{name} ({quantity(pair.x, x)}, {quantity(pair.y, y)})" for name, x, y in pair.front]
        ranked = len(pair.front) + len(pair.others)
        said.append(
            f"{pair.y} against {pair.x}: {len(pair.front)} of {counted(ranked, 'trial')} on the Pareto front, "
            f"{' to '.join(dict.fromkeys((ends[0], ends[-1])))}."
        )
    return " ".join([*said, "A number that would stand over another is left out."])


def slices_text(found: Findings, paths: Sequence[str], names: Mapping[str, str]) -> str:
    """Where the best trial is on each path."""
    best = found.ranked[0]
    where = []
    for path in paths[:MOST]:
        scale, own = scale_of(found, path), best.labels.get(path)
        where.append(f"{names[path]} {'not active' if own is None else scale.categories.get(own, own)}")
    values = [f"{metric} {quantity(metric, best.metrics[metric])}" for metric in found.objectives]
    return (
        f"{listed(list(found.objectives))} along {counted(len(paths), 'path')}, a point for each of "
        f"{counted(len(found.ranked), 'ranked trial')}. Trial {best.name} ({', '.join(values)}) has {'; '.join(where)}."
    )


def importance_text(bars: Sequence[Importance], names: Mapping[str, str]) -> str:
    """The paths that matter most to each objective, by fANOVA."""
    said = ["How much each path explains of an objective: by fANOVA and by PED-ANOVA."]
    for objective in dict.fromkeys(each.objective for each in bars):
        own = [(each.fanova, each.path) for each in bars if each.objective == objective and each.fanova is not None]
        most = sorted(own, reverse=True)[:MOST]
        if most:
            shares = "; ".join(f"{names[path]} {100 * share:.1f}%" for share, path in most)
            said.append(f"Of {objective}, by fANOVA: {shares}.")
    return " ".join(said)
