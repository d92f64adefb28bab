"""Tables of differences: each variant against its baseline, its control, the row before it; effects of a grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ablate import stats
from ablate.analysis.comparisons import KINDS, Comparison
from ablate.analysis.effects import Effects
from ablate.quantities import format_value
from ablate.report.tables import difference_unit, interval_text, why_no_interval
from ablate.report.values import Cell, Column, Table
from ablate.store import Study

TITLES = {
    "baseline": "against the baseline",
    "control": "against the baseline at equal cost",
    "step": "each step against the row before it",
}
Part = tuple[Column, Callable[[Comparison], Cell]]
NOTES = (
    "g: Hedges' g, the difference in pooled standard deviations of the two sides, over all values of each.",
    "p: two-sided sign-flip test of the paired differences, exact up to {exact} seeds; Holm: corrected for the "
    "number of rows, of which those with the same trials count once.",
    "correlation: of the two sides over the seeds. pairing: half-width of the paired interval over that of the "
    "unpaired one; below 1 pairing by seed saved, above it cost.",
    "detectable: the true difference that so many seeds find with 80% power at the 5% level, at the spread seen.",
)
EXAMPLES = (
    "images: 95% bootstrap interval over the test images, with these seeds as they are. It leaves out what other seeds "
    "would do, as the intervals over seeds leave out what other images would."
)


def comparison_tables(study: Study, comparisons: Sequence[Comparison]) -> dict[str, Table]:
    """By file name (``comparisons``, ``controls``, ``steps``), those that there are: a row per comparison."""
    names = {"baseline": "comparisons", "control": "controls", "step": "steps"}
    found = {kind: [each for each in comparisons if each.kind == kind] for kind in KINDS}
    return {names[kind]: _table(study, kind, rows) for kind, rows in found.items() if rows}


def _table(study: Study, kind: str, rows: Sequence[Comparison]) -> Table:
    metric = rows[0].metric
    parts = _parts(metric, rows)
    cells = tuple(tuple(cell(each) for _, cell in parts) for each in rows)
    title = f"{study.spec.get('name') or study.folder.name}: {metric} {TITLES[kind]}"
    examples = (EXAMPLES,) if any(each.examples for each in rows) else ()
    notes = [note.format(exact=stats.MOST_EXACT) for note in NOTES]
    return Table(title, tuple(column for column, _ in parts), cells, _caption(rows), (*notes, *examples))


def _parts(metric: str, rows: Sequence[Comparison]) -> list[Part]:
    unit = difference_unit(metric)

    def estimate(name: str, of: Callable[[Comparison], stats.Difference]) -> Part:
        return Column(name, unit, "right", "estimate"), lambda each: _difference(metric, of(each))

    def number(name: str, of: Callable[[Comparison], float | None], digits: int, in_unit: str = "") -> Part:
        return Column(name, in_unit, "right", "number"), lambda each: _number(of(each), digits)

    parts: list[Part] = [
        (Column("variant"), lambda each: Cell(each.variant)),
        (Column("against"), lambda each: Cell(each.baseline)),
        estimate("Δ paired", lambda each: each.paired),
        estimate("Δ unpaired", lambda each: each.unpaired),
        number("g", lambda each: each.g, 2),
        (Column("p", "", "right", "number"), lambda each: _p(each.p)),
        (Column("p (Holm)", "", "right", "number"), lambda each: _p(each.p_holm)),
        number("correlation", lambda each: each.correlation, 2),
        number("pairing", lambda each: each.pairing, 2),
    ]
    if any(each.examples for each in rows):
        parts.append((Column("images", unit, "right", "estimate"), lambda each: _images(metric, each)))
    return [
        *parts,
        (Column("detectable", unit, "right", "number"), lambda each: _size(metric, each.detectable)),
        (Column("seeds", "", "right", "number"), lambda each: Cell(str(each.paired.n), each.paired.n)),
    ]


def _caption(rows: Sequence[Comparison]) -> str:
    least = [each.smallest_p for each in rows if each.smallest_p is not None]
    if not least:
        return "No row has a test: that takes two seeds that both sides have."
    untested = f", {len(least)} of {len(rows)} rows tested" if len(least) < len(rows) else ""
    return (
        f"Paired: 95% interval of the mean difference over the seeds that both have; unpaired: Welch's. The smallest p "
        f"that these seeds could give is {min(least):.2g} after Holm's correction over {rows[0].among}{untested}."
    )


def _difference(metric: str, found: stats.Difference) -> Cell:
    if found.mean is None:
        return Cell()
    text = format_value(metric, found.mean, sign=True)
    text += f" ({why_no_interval(found.n)})" if found.interval is None else interval_text(metric, found.interval)
    return Cell(text, found.mean, found.interval, found.n)


def _images(metric: str, each: Comparison) -> Cell:
    if each.examples is None:
        return Cell()
    return Cell(interval_text(metric, each.examples).strip(), each.paired.mean, each.examples, each.paired.n)


def _size(metric: str, value: float | None) -> Cell:
    return Cell() if value is None else Cell(format_value(metric, value), value)


def _p(value: float | None) -> Cell:
    return Cell("< 0.001", value) if value is not None and value < 0.001 else _number(value, 3)


def _number(value: float | None, digits: int) -> Cell:
    return Cell() if value is None else Cell(f"{value:.{digits}f}".replace("-", "−"), value)


def effects_tables(study: Study, effects: Effects | None) -> dict[str, Table]:
    """``effects`` and ``interactions``, by file name; none of what is no grid of several factors."""
    if effects is None:
        return {}
    title = f"{study.spec.get('name') or study.folder.name}: {effects.metric}"
    unit, metric = difference_unit(effects.metric), effects.metric
    mean = Column(f"mean {metric}", "%" if unit == "points" else unit, "right", "number")
    difference = Column("effect", unit, "right", "estimate")
    if effects.why_not:
        caption = f"No effects are told: {effects.why_not}."
        return {
            "effects": Table(
                f"{title}, main effects", (Column("factor"), Column("level"), mean, difference), (), caption
            )
        }
    seeds = f"{len(effects.seeds)} {'seed' if len(effects.seeds) == 1 else 'seeds'}, those that every cell has"
    main = Table(
        f"{title}, main effects",
        (Column("factor"), Column("level"), mean, difference),
        tuple(
            (Cell(e.factor), Cell(e.level), _size(metric, e.mean), _difference(metric, e.difference))
            for e in effects.main
        ),
        "Effect: the mean over all variants with this level minus the mean over the grid, paired by seed, with its 95% "
        f"t-interval ({seeds}), not corrected for their number.",
    )
    both = Table(
        f"{title}, interactions",
        (Column("factors"), Column("levels"), mean, Column("interaction", unit, "right", "estimate")),
        tuple(
            (
                Cell(" × ".join(e.factors)),
                Cell(" / ".join(e.levels)),
                _size(metric, e.mean),
                _difference(metric, e.difference),
            )
            for e in effects.interactions
        ),
        "Interaction: how far the mean of two levels together is from what their main effects add up to, paired by "
        f"seed, with its 95% t-interval ({seeds}), not corrected for their number.",
    )
    return {"effects": main, "interactions": both}
