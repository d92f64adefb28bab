"""What papers claim, as a table of its own and in words: their order of models, and what these trials contradict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ablate.analysis.arms import Arm, arms_of
from ablate.analysis.order import Ordered, orders_of
from ablate.analysis.papers import Judged, judged, other_budget, published_in
from ablate.analysis.widths import is_complete
from ablate.errors import listed
from ablate.quantities import format_value, unit_of
from ablate.report.values import Cell, Column, Table, format_published
from ablate.store import Study

Claim = TypeVar("Claim", Judged, Ordered)
Part = tuple[Column, Callable[[Ordered], Cell]]

ORDER_VERDICTS = (
    "Order: borne out, or differs (the other way round), where the paired t-test over seeds, two-sided, has p ≤ 0.05 "
    "after Holm over the pairs of one table; else it cannot be told. The interval is of each pair alone."
)
DETECTABLE = (
    "Could have been found: the true difference that so many seeds, with the spread measured here, find with 80% power "
    "at the level that Holm leaves to the first of the pairs; to find the paper's own difference so, it takes as many "
    "seeds as the last column says."
)
SIGN_FLIPS = (
    "The t-test takes the differences between paired runs to be normal, which so few can't show; the exact sign-flip "
    "test, which does not, has no p below {least:.2g} at {n} seeds."
)


UNJUDGED = ("inconclusive", "not run", "cannot be told")


def verdicts(study: Study, arms: Sequence[Arm]) -> list[Judged]:
    """The verdict on each published value; by a metric of the test split only once the study is complete."""
    return _shown(study, arms, judged(published_in(study), arms))


def orders(study: Study, arms: Sequence[Arm]) -> list[Ordered]:
    """What the papers' order comes to; by a metric of the test split only once the study is complete."""
    return _shown(study, arms, orders_of(published_in(study), arms))


def order_table(study: Study, arms: Sequence[Arm]) -> Table | None:
    """A row for each pair of models that a paper sets apart; None where there is none that may be shown."""
    found = orders(study, arms)
    if not found:
        return None
    parts = _parts(found)
    return Table(
        f"{study.spec.get('name') or study.folder.name}: the order of models",
        tuple(column for column, _ in parts),
        tuple(tuple(cell(each) for _, cell in parts) for each in found),
        order_text(study, found),
        tuple(_footnotes(found)),
    )


def order_text(study: Study, found: Sequence[Ordered]) -> str:
    """``Of 6 pairs that the paper sets apart, 1 is borne out and 5 cannot be told.`` And on which budget."""
    kinds = ("borne out", "differs", "cannot be told", "not run")
    counts = {kind: sum(each.verdict == kind for each in found) for kind in kinds}
    parts = [f"{count} {_VERBS[kind][count > 1]}" for kind, count in counts.items() if count]
    pairs = "1 pair that the paper sets" if len(found) == 1 else f"{len(found)} pairs that the paper sets"
    budget = other_budget(study)
    on = f" On another budget than the paper's ({budget}): what holds there need not hold here." if budget else ""
    return f"Of {pairs} apart, {listed(parts)}.{on}"


def broken_claims(study: Study) -> list[str]:
    """In words, what papers claim and these trials contradict: values first, then order."""
    arms, budget = arms_of(study), other_budget(study)
    on = f" ({budget}: another budget)" if budget else ""
    said = [
        f"{claim.paper}: {claim.metric} of {claim.variant} is {format_published(claim.metric, claim.published)} there "
        f"and {format_value(claim.metric, claim.measured or 0.0)} here"
        for claim in verdicts(study, arms)
        if claim.broken
    ]
    said += [
        f"{each.paper}: {each.above} has the higher {each.metric} there; here {each.below} has it, by "
        f"{format_value(each.metric, -(each.difference.mean or 0.0))}{on}"
        for each in orders(study, arms)
        if each.broken
    ]
    return said


def unjudged_text(study: Study) -> str:
    """``not judged: 3 of 8 values (2 inconclusive, 1 not run); 4 of 6 pairs in order (…)``; "" where all are."""
    arms, papers = arms_of(study), published_in(study)
    of_values = _unjudged("values", judged(papers, arms), verdicts(study, arms))
    of_order = _unjudged("pairs in order", orders_of(papers, arms), orders(study, arms))
    parts = [text for text in (of_values, of_order) if text]
    return f"not judged: {'; '.join(parts)}" if parts else ""


def _unjudged(what: str, claims: Sequence[Claim], shown: Sequence[Claim]) -> str:
    counts = Counter[str](claim.verdict for claim in shown if claim.verdict in UNJUDGED)
    counts["hidden until the study is complete"] = len(claims) - len(shown)
    whys = ", ".join(f"{count} {why}" for why, count in counts.items() if count)
    return f"{counts.total()} of {len(claims)} {what} ({whys})" if whys else ""


_VERBS = {
    "borne out": ("is borne out", "are borne out"),
    "differs": ("is the other way round", "are the other way round"),
    "cannot be told": ("cannot be told", "cannot be told"),
    "not run": ("was not run", "were not run"),
}


def _shown(study: Study, arms: Sequence[Arm], claims: Sequence[Claim]) -> list[Claim]:
    hidden = not is_complete(study, arms)
    return [claim for claim in claims if not (hidden and claim.metric.startswith("test."))]


def _parts(found: Sequence[Ordered]) -> list[Part]:
    units = dict.fromkeys("points" if unit_of(each.metric) == "%" else unit_of(each.metric) for each in found)
    unit = next(iter(units)) if len(units) == 1 else ""
    several = len({(each.paper, each.metric) for each in found}) > 1
    of: list[Part] = [(Column("claim"), lambda each: Cell(f"{each.paper}, {each.metric}"))] if several else []
    return [
        *of,
        (Column("higher in the paper"), lambda each: Cell(each.above)),
        (Column("than"), lambda each: Cell(each.below)),
        (Column("published Δ", unit, "right", "number"), lambda each: _number(each, each.published)),
        (Column("measured Δ", unit, "right", "estimate"), _measured),
        (Column("p (Holm)", "", "right", "number"), _p),
        (Column("order"), lambda each: Cell(each.verdict, note=each.why)),
        (Column("could have been found", unit, "right", "number"), lambda each: _number(each, each.detectable)),
        (Column("seeds for the published", "", "right", "number"), _seeds),
    ]


def _number(each: Ordered, value: float | None) -> Cell:
    return Cell() if value is None else Cell(format_value(each.metric, value), value)


def _measured(each: Ordered) -> Cell:
    found = each.difference
    if found.mean is None:
        return Cell()
    text = format_value(each.metric, found.mean, sign=True)
    if found.interval is None:
        return Cell(text, found.mean, None, found.n)
    low, high = (format_value(each.metric, bound, sign=True) for bound in found.interval)
    return Cell(f"{text} [{low}, {high}]", found.mean, found.interval, found.n)


def _p(each: Ordered) -> Cell:
    if each.p_holm is None:
        return Cell()
    return Cell("< 0.001" if each.p_holm < 0.001 else f"{each.p_holm:.3f}", each.p_holm)


def _seeds(each: Ordered) -> Cell:
    if each.detectable is None or each.published is None:
        return Cell()
    return Cell("> 10,000") if each.seeds is None else Cell(f"{each.seeds:,}", each.seeds)


def _footnotes(found: Sequence[Ordered]) -> Iterable[str]:
    yield ORDER_VERDICTS
    if any(each.detectable is not None for each in found):
        yield DETECTABLE
        n = max(each.difference.n for each in found)
        if n <= 10:
            yield SIGN_FLIPS.format(least=2.0 ** (1 - n), n=n)
