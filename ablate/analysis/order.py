"""The order in which a paper has its models: for each pair that it sets apart, whether these runs bear that out.

Absolute values are those of a budget; an order may hold on another, and is asked on every one. The test is the paired
t-test over seeds, two-sided at 5%, corrected by Holm over the pairs of one table. It takes the differences to be
normal. The exact sign-flip test does not, and has no p of 5% below six seeds, or more where there are more pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from ablate import stats
from ablate.analysis.arms import Arm
from ablate.analysis.papers import Published

OrderVerdict = Literal["borne out", "differs", "cannot be told", "not run"]
ALPHA = stats.ALPHA


@dataclass(frozen=True)
class Ordered:
    """A pair that a paper sets apart: it has ``above`` higher in the metric than ``below``.

    ``published`` is by how much, in the metric's unit; None where it gives no number. ``difference`` is above − below
    of the seeds that both have, with its 95% interval, which knows nothing of the other pairs; ``p_holm`` does.
    ``detectable`` is the true difference that these seeds find with 80% power, ``seeds`` how many it takes to find the
    published one so; both at the level that Holm leaves to the first of the pairs.
    """

    paper: str
    metric: str
    above: str
    below: str
    published: float | None
    verdict: OrderVerdict
    difference: stats.Difference
    pairs: int = 1
    p: float | None = None
    p_holm: float | None = None
    detectable: float | None = None
    seeds: int | None = None
    why: str = ""

    @property
    def broken(self) -> bool:
        return self.verdict == "differs"


def orders_of(papers: Sequence[Published], arms: Sequence[Arm]) -> list[Ordered]:
    """Every pair that a paper sets apart by a metric that is trained for, table by table; costs have no error."""
    by_name = {arm.name: arm for arm in arms}
    found: list[Ordered] = []
    for paper in papers:
        if not paper.of_costs:
            found += _with_verdicts([_compared(paper, *pair, by_name) for pair in pairs_of(paper)])
    return found


def pairs_of(paper: Published) -> list[tuple[str, str, float | None]]:
    """(above, below, by how much), in the order of the spec. Values as near as the paper's own ± are no claim."""
    pairs: dict[tuple[str, str], float | None] = {}
    for first, second in combinations(paper.values, 2):
        (a, more), (b, less) = paper.values[first], paper.values[second]
        if abs(a - b) > math.hypot(more, less):
            pairs[(first, second) if a > b else (second, first)] = abs(a - b)
    for ranking in paper.order:
        for pair in combinations(ranking, 2):
            pairs.setdefault(pair, None)
    return [(above, below, published) for (above, below), published in pairs.items()]


def _compared(paper: Published, above: str, below: str, published: float | None, arms: Mapping[str, Arm]) -> Ordered:
    upper, lower = arms.get(above, Arm(above)), arms.get(below, Arm(below))
    difference = stats.paired_difference(upper.values(paper.metric), lower.values(paper.metric))
    verdict: OrderVerdict = "cannot be told" if difference.mean is not None else "not run"
    return Ordered(paper.label, paper.metric, above, below, published, verdict, difference, p=paired_t_p(difference))


def _with_verdicts(found: Sequence[Ordered]) -> Iterable[Ordered]:
    """Those of one table, whose number is what Holm corrects for, whether or not all could be tested."""
    adjusted = stats.holm([1.0 if each.p is None else each.p for each in found])
    for each, p_holm in zip(found, adjusted, strict=True):
        if each.p is None:
            yield replace(each, why=_why_no_test(each), pairs=len(found))
            continue
        sd, mean = each.difference.sd, each.difference.mean
        assert sd is not None
        assert mean is not None
        alpha = ALPHA / len(found)
        verdict: OrderVerdict = "cannot be told"
        if p_holm <= ALPHA:
            verdict = "borne out" if mean > 0 else "differs"
        yield replace(
            each,
            pairs=len(found),
            p_holm=p_holm,
            verdict=verdict,
            detectable=stats.detectable_difference(sd, each.difference.n, alpha),
            seeds=None if each.published is None else stats.seeds_to_detect(sd, each.published, alpha),
        )


def _why_no_test(each: Ordered) -> str:
    if each.verdict == "not run":
        return "no seed that both have"
    return "one seed" if each.difference.n < 2 else "every seed gave the same difference"


def paired_t_p(difference: stats.Difference) -> float | None:
    """Two-sided p of the paired t-test; None below two pairs, and where all have one difference."""
    if difference.mean is None or not difference.sd:
        return None
    from scipy.special import stdtr

    return float(2 * stdtr(difference.n - 1, -abs(difference.mean) / difference.sd * math.sqrt(difference.n)))
