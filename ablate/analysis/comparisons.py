"""Every variant against what it is to be compared with: its baseline, its control, in a ladder the row before it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ablate import stats
from ablate.analysis.arms import Arm
from ablate.analysis.widths import is_complete
from ablate.quantities import is_rate, less_is_better
from ablate.store import Study

Kind = Literal["baseline", "control", "step"]
KINDS: tuple[Kind, ...] = ("baseline", "control", "step")
DEFAULT_COLUMNS = ("params", "flops", "val.accuracy", "test.accuracy")


@dataclass(frozen=True)
class Comparison:
    """``variant`` minus ``baseline``, in the metric's unit. None: nothing can be said, as of intervals for one seed.

    A ``step`` compares a ladder's row with the row before it, a ``control`` a variant with the baseline that was
    widened to its cost.
    """

    variant: str
    baseline: str
    metric: str
    kind: Kind
    paired: stats.Difference
    unpaired: stats.Difference
    """Welch's, of all values of both sides."""
    g: float | None
    """Hedges' g of the two sides, in their pooled standard deviations."""
    p: float | None
    """Two-sided, by flips of the paired differences' signs."""
    p_holm: float | None
    """The same after Holm's correction over the comparisons of this kind, each pair of trials once."""
    among: int
    """Over how many that is."""
    smallest_p: float | None
    """The smallest that ``p_holm`` could be with so many seeds, were it the smallest of all."""
    correlation: float | None
    """Pearson's, of the two sides over the seeds that both have."""
    pairing: float | None
    """Half-width of the paired t-interval over that of the unpaired one: below 1 pairing saved, above it cost."""
    examples: stats.Interval | None
    """95% example-level bootstrap of the difference: what the sampling of test images alone would do."""
    detectable: float | None
    """The true difference that so many seeds find with 80% power, at the spread that they have."""


def compared_metric(study: Study, arms: Sequence[Arm]) -> str | None:
    """What variants are compared by: ``report.metric``, else the first rate of the columns that may be shown."""
    report = study.spec.get("report") or {}
    hidden = not is_complete(study, arms)
    names = [report["metric"]] if report.get("metric") else list(report.get("columns") or DEFAULT_COLUMNS)
    rates = [name for name in names if is_rate(name) or report.get("metric")]
    return next((name for name in rates if not (hidden and name.startswith("test."))), None)


def comparisons_of(study: Study, metric: str, arms: Sequence[Arm]) -> list[Comparison]:
    """In the order of the table, those with the baseline first. Who shares all trials with the other is left out."""
    correct = _Correct(study, metric)
    found: list[Comparison] = []
    for kind in KINDS:
        pairs = _pairs(study, kind, arms)
        tests = [(tuple(arm.record["trials"].values()), tuple(other.record["trials"].values())) for arm, other in pairs]
        found += _corrected([_compared(kind, metric, *sides, correct) for sides in pairs], tests)
    return found


def best_of(metric: str, arms: Iterable[Arm]) -> Arm | None:
    """The arm with the best mean, if the intervals support it: its paired difference to every other excludes 0.

    At 95% for all of these differences together (Bonferroni), since which arm is compared with the others is chosen by
    looking. None where they don't, or there is no other.
    """
    shown = [arm for arm in arms if arm.values(metric)]
    sign = -1 if less_is_better(metric) else 1
    best = max(shown, key=lambda arm: sign * sum(arm.values(metric).values()) / len(arm.values(metric)), default=None)
    others = [arm for arm in shown if best and arm.record["trials"] != best.record["trials"]]
    if best is None or not others:
        return None
    level = 1 - (1 - stats.LEVEL) / len(others)
    intervals = [best.minus(other, metric, level).interval for other in others]
    # an interval of no width says how coarse the metric is, and not that a difference is certain
    clear = [bool(each and each.half_width > 0 and min(sign * each.low, sign * each.high) > 0) for each in intervals]
    return best if all(clear) else None


def _pairs(study: Study, kind: Kind, arms: Sequence[Arm]) -> list[tuple[Arm, Arm]]:
    by_name = {arm.name: arm for arm in arms}
    if kind == "baseline":
        pairs = [(arm, by_name[arm.baseline]) for arm in arms if arm.baseline in by_name]
    elif kind == "control":
        pairs = [(by_name[arm.control_of], arm) for arm in arms if arm.control_of in by_name]
    else:
        ladder = (study.spec.get("ablation") or {}).get("design") == "ladder"
        rows = [arm for arm in arms if arm.control_of is None] if ladder else []
        pairs = list(zip(rows[1:], rows, strict=False))
    # a difference of 0 ± 0 would look like a measurement
    return [(arm, other) for arm, other in pairs if arm.record["trials"] != other.record["trials"]]


def _compared(kind: Kind, metric: str, arm: Arm, other: Arm, correct: _Correct) -> Comparison:
    a, b = arm.values(metric), other.values(metric)
    paired, unpaired = arm.minus(other, metric), stats.unpaired_difference(a.values(), b.values())
    differences = [a[seed] - b[seed] for seed in paired.seeds]
    pairing = None
    by_t = stats.paired_difference(a, b).interval  # as Welch's is, whatever the spec asks for
    if by_t and unpaired.interval and unpaired.interval.half_width > 0:
        pairing = by_t.half_width / unpaired.interval.half_width
    return Comparison(
        arm.name,
        other.name,
        metric,
        kind,
        paired,
        unpaired,
        stats.hedges_g(a.values(), b.values()),
        stats.sign_flip_p(differences) if len(differences) >= 2 else None,
        None,
        0,
        None,
        stats.correlation([a[seed] for seed in paired.seeds], [b[seed] for seed in paired.seeds]),
        pairing,
        correct.interval(arm, other, [str(seed) for seed in paired.seeds]),
        stats.detectable_difference(paired.sd, paired.n) if paired.sd else None,
    )


def _corrected(comparisons: list[Comparison], tests: Sequence[Hashable]) -> list[Comparison]:
    """``tests``: by which trials each is tested; names that share them are one test.

    What was to be tested counts, whether or not it could be: no failure makes the correction milder.
    """
    ps = {test: 1.0 if each.p is None else each.p for each, test in zip(comparisons, tests, strict=True)}
    adjusted, among = dict(zip(ps, stats.holm(list(ps.values())), strict=True)), len(ps)
    return [
        replace(each, among=among)
        if each.p is None
        else replace(each, p_holm=adjusted[test], among=among, smallest_p=stats.smallest_p(each.paired.n, among))
        for each, test in zip(comparisons, tests, strict=True)
    ]


class _Correct:
    """Which test images a trial classified rightly; the predictions of each are read once."""

    def __init__(self, study: Study, metric: str) -> None:
        self.study = study
        self.sign = {"test.accuracy": 100.0, "test.error": -100.0}.get(metric)
        self._known: dict[str, np.ndarray | None] = {}
        self._labels: np.ndarray | None = None

    def interval(self, arm: Arm, other: Arm, seeds: Sequence[str]) -> stats.Interval | None:
        """None where predictions are missing or of other images, or the metric is no rate of the test split."""
        if self.sign is None or not seeds:
            return None
        rows = [row for each in (arm, other) for seed in seeds if (row := self._of(each, seed)) is not None]
        if len(rows) < 2 * len(seeds) or len({row.shape for row in rows}) > 1:
            return None
        correct = np.array(rows, dtype=np.float64)
        per_image = correct[: len(seeds)].mean(axis=0) - correct[len(seeds) :].mean(axis=0)
        return stats.example_interval(self.sign * per_image)

    def _of(self, arm: Arm, seed: str) -> np.ndarray | None:
        hash, result = arm.record["trials"][seed], arm.results[seed]
        if hash not in self._known:
            found = self.study.predictions(hash, result)
            self._known[hash] = self._correct(found.get("predicted"), found.get("label"))
        return self._known[hash]

    def _correct(self, predicted: np.ndarray | None, labels: np.ndarray | None) -> np.ndarray | None:
        """None for other images than those of the first trial: they can't be resampled together."""
        if predicted is None or labels is None or predicted.shape != labels.shape or labels.ndim != 1:
            return None
        self._labels = labels if self._labels is None else self._labels
        return predicted == labels if np.array_equal(labels, self._labels) else None
