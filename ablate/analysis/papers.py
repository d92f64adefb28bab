"""What papers claim of a study's variants: published values beside the measured ones, each with its verdict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ablate import stats
from ablate.analysis.arms import Arm
from ablate.quantities import COSTS
from ablate.store import Study

THE_PAPERS = "paper"
"""The profile by that name has the budget that the paper has."""
MOST_SEEDS = 1_000


@dataclass(frozen=True)
class Published:
    """One entry of the spec's ``paper`` section."""

    label: str
    metric: str
    values: Mapping[str, tuple[float, float]]
    """variant → (value, plus_minus)"""
    printed_to: float | None = None
    not_reproducible: Mapping[str, str] = field(default_factory=dict)
    order: Sequence[Sequence[str]] = ()
    """Variants from the highest value of the metric down, where the paper says so without numbers."""
    budget: str = ""
    """By what the study was trained on another budget than the paper's; "" where it was not."""

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Published:
        label = str(entry.get("title", "paper"))
        if entry.get("table") is not None:
            label += f" {place_of(entry['table'])}"
        own = entry.get("plus_minus") or {}
        values = {name: _published(value, own.get(name)) for name, value in (entry.get("values") or {}).items()}
        reasons = entry.get("not_reproducible") or {}
        return cls(label, str(entry["metric"]), values, entry.get("printed_to"), reasons, entry.get("order") or ())

    @property
    def of_costs(self) -> bool:
        return self.metric in COSTS


@dataclass(frozen=True)
class Judged:
    """A published value with what was measured, and the verdict. Values are in the metric's unit.

    ``interval`` is the 95% prediction interval for one more run, widened by the paper's own ``plus_minus``; None for
    costs, and for fewer than two seeds. ``off`` is measured − published; ``beyond`` how far outside the interval the
    published value lies, where it does. ``seeds``: how many it takes, should mean and spread stay, until the interval
    leaves the published value out; None where no number does, or the spread is not known. ``why`` gives a verdict's
    reason that no number gives.
    """

    paper: str
    metric: str
    variant: str
    published: float
    plus_minus: float
    verdict: stats.Verdict
    measured: float | None = None
    n: int = 0
    interval: stats.Interval | None = None
    seeds: int | None = None
    why: str = ""

    @property
    def off(self) -> float | None:
        return None if self.measured is None else self.measured - self.published

    @property
    def beyond(self) -> float | None:
        if self.interval is None or self.interval.low <= self.published <= self.interval.high:
            return None
        return max(self.interval.low - self.published, self.published - self.interval.high)

    @property
    def broken(self) -> bool:
        return self.verdict == "differs"


def published_in(study: Study) -> list[Published]:
    """The entries of the spec's ``paper`` section; two for one table of a paper have labels of their own."""
    papers = [Published.read(entry) for entry in study.spec.get("paper") or []]
    labels, budget = Counter(paper.label for paper in papers), other_budget(study)
    return [
        replace(paper, label=f"{paper.label} {paper.metric}" if labels[paper.label] > 1 else paper.label, budget=budget)
        for paper in papers
    ]


def place_of(table: Any) -> str:
    """``Table 3``; what is no number says for itself what it is: ``figure 6``."""
    text = str(table)
    return f"Table {text}" if text[:1].isdigit() else text


def other_budget(study: Study) -> str:
    """By what a study was trained on another budget than the one its spec states, such as ``profile cpu``; or "".

    A profile states a budget of its own, unless it is called ``paper``; and ``--set`` may have changed it.
    """
    profile = study.spec.get("profile")
    by = [f"profile {profile}"] if profile not in (None, THE_PAPERS) else []
    by += dict.fromkeys(f"--set {path}" for record in study.variants for path in record.get("budget_set") or ())
    return ", ".join(by)


def judged(papers: Sequence[Published], arms: Sequence[Arm]) -> list[Judged]:
    """Every published value with its verdict, in the order of the spec."""
    by_name = {arm.name: arm for arm in arms}
    return [judge(paper, by_name.get(name, Arm(name))) for paper in papers for name in paper.values]


def judge(paper: Published, arm: Arm) -> Judged:
    """What a paper publishes of one variant. ``KeyError`` where that is nothing.

    A trained metric is judged on the paper's budget alone; costs no budget changes.
    """
    published, plus_minus = paper.values[arm.name]
    claim = Judged(paper.label, paper.metric, arm.name, published, plus_minus, "not run")
    return _of_cost(claim, paper, arm) if paper.of_costs else _of_runs(claim, arm, paper.budget)


def _of_cost(claim: Judged, paper: Published, arm: Arm) -> Judged:
    value, reason = arm.cost(paper.metric), paper.not_reproducible.get(arm.name)
    if resized := arm.record.get("resized_by"):
        return replace(claim, why=f"{resized} changes what it is about")
    verdict = stats.verdict_exact(
        value, claim.published, claim.plus_minus, printed_to=paper.printed_to, impossible=reason is not None
    )
    why = reason or "" if verdict == "not reproducible" else ""
    return replace(claim, measured=value, verdict=verdict, why=why, n=value is not None)


def _of_runs(claim: Judged, arm: Arm, budget: str) -> Judged:
    values = list(arm.values(claim.metric).values())
    if not values:
        return claim
    found = stats.summary(values)
    claim = replace(claim, measured=found.mean, n=found.n)
    if budget:
        return replace(claim, why=f"{budget}: another budget")
    interval = stats.prediction_interval(values)
    if interval is not None:
        interval = stats.Interval(interval.low - claim.plus_minus, interval.high + claim.plus_minus)
    return replace(
        claim,
        verdict=stats.verdict(values, claim.published, claim.plus_minus),
        interval=interval,
        seeds=None if found.sd is None else seeds_to_tell(found.sd, found.mean - claim.published, claim.plus_minus),
        why="every seed gave the same value" if found.sd == 0 else "",
    )


def seeds_to_tell(sd: float, off: float, plus_minus: float = 0.0) -> int | None:
    """At how many seeds, at least 3, the 95% prediction interval is narrower on either side than ``off``.

    ``sd`` is that of single runs. None where it does not vary, and where the interval never is: it does not become
    narrower than 1.96 sd.
    """
    apart = abs(off) - plus_minus

    def tells(n: int) -> bool:
        return stats.t_quantile(n - 1) * sd * math.sqrt(1 + 1 / n) < apart

    if sd <= 0 or not tells(MOST_SEEDS):
        return None
    few, many = 3, MOST_SEEDS
    while few < many:
        middle = (few + many) // 2
        few, many = (few, middle) if tells(middle) else (middle + 1, many)
    return few


def _published(value: Any, plus_minus: float | None) -> tuple[float, float]:
    if isinstance(value, Mapping):
        return float(value["value"]), float(value.get("plus_minus") or 0.0)
    return float(value), float(plus_minus or 0.0)
