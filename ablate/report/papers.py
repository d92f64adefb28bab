"""What papers published, beside what was measured, and the verdict."""

from __future__ import annotations

from ablate import stats
from ablate.analysis.arms import Arm
from ablate.analysis.papers import Judged, Published, judge, published_in
from ablate.quantities import COSTS, format_value, unit_of
from ablate.report.arms import Part
from ablate.report.values import Cell, Column, format_published

__all__ = [
    "COST_VERDICTS",
    "Published",
    "only_published",
    "paper_parts",
    "published_in",
    "verdict_note",
    "verdict_on_cost",
    "verdict_text",
]

COST_VERDICTS = "Verdict on a cost: reproduced if it rounds to the published number, to the digits that were printed."


def only_published(arms: list[Arm], papers: list[Published]) -> list[Arm]:
    names = dict.fromkeys(name for paper in papers for name in paper.values)
    return [Arm(name) for name in names if name not in {arm.name for arm in arms}]


def paper_parts(paper: Published, alone: bool) -> list[Part]:
    """The columns of an entry that gives values: published, and the verdict. ``alone``: it is the spec's only one."""
    metric = paper.metric
    uncertain = any(plus_minus for _, plus_minus in paper.values.values())

    def published(arm: Arm) -> Cell:
        if arm.name not in paper.values:
            return Cell()
        value, plus_minus = paper.values[arm.name]
        text = format_published(metric, value, paper.printed_to)
        if not plus_minus:
            return Cell(text, value)
        interval = stats.Interval(value - plus_minus, value + plus_minus)
        return Cell(f"{text} ± {format_value(metric, plus_minus)}", value, interval)

    def verdict(arm: Arm) -> Cell:
        if arm.name not in paper.values:
            return Cell()
        claim = judge(paper, arm)
        return Cell(verdict_text(claim), note=verdict_note(claim))

    if not paper.values:
        return []
    return [
        (Column(paper.label, unit_of(metric), "right", "estimate" if uncertain else "number"), published),
        (Column("verdict" if alone else f"verdict on {paper.label}"), verdict),
    ]


def verdict_text(claim: Judged) -> str:
    """``reproduced``, or ``differs (−2.28)``: measured minus published."""
    if claim.verdict != "differs" or claim.off is None:
        return claim.verdict
    return f"differs ({format_value(claim.metric, claim.off, sign=claim.metric not in COSTS)})"


def verdict_note(claim: Judged) -> str:
    """What a verdict rests on, as a footnote."""
    if claim.why or claim.metric in COSTS or claim.verdict == "not run":
        return claim.why
    if claim.interval is None:
        return "one seed has no spread: a verdict takes 3"
    low, high = (format_value(claim.metric, bound) for bound in claim.interval)
    said = [f"95% prediction interval {low} to {high}"]
    if claim.beyond is not None:
        where = "below" if claim.published < claim.interval.low else "above"
        said.append(f"the published value is {format_value(claim.metric, claim.beyond)} {where} it")
    elif claim.seeds is not None:
        said.append(f"should mean and spread stay, {claim.seeds} seeds would tell the published value apart")
    else:
        said.append(
            "the published value is as near as single runs are to one another, and no number would tell it apart"
        )
    if claim.n < 3 and claim.verdict == "inconclusive":
        said.append("a verdict takes 3")
    return "; ".join(said)


def verdict_on_cost(
    value: float | None, published: float, plus_minus: float, printed_to: float | None, reason: str | None
) -> Cell:
    """The verdict on parameters or FLOPs; with a ``reason`` why none could have it, that as a footnote."""
    found = stats.verdict_exact(value, published, plus_minus, printed_to=printed_to, impossible=reason is not None)
    return Cell(found, note=reason or "" if found == "not reproducible" else "")
