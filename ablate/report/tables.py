"""The ablation table of a study, as values.

What a table says of a study's trials it says of all of them. A trial that did not finish, for whatever reason, is
counted in its row by that reason and enters no mean; an interval is given for two seeds or more; a difference is over
the seeds that both sides have, and says how many; what was read of the test split stays hidden until every trial has a
result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ablate import stats
from ablate.analysis.arms import MEASURES, Arm, arms_of
from ablate.analysis.comparisons import DEFAULT_COLUMNS, best_of, compared_metric
from ablate.analysis.widths import is_complete
from ablate.errors import Problem, UserError, did_you_mean
from ablate.quantities import COSTS, format_value, unit_of
from ablate.report.arms import Part, trials_cell
from ablate.report.captions import caption, footnotes
from ablate.report.columns import column_names, column_part, unusable_column
from ablate.report.papers import COST_VERDICTS, Published, only_published, paper_parts, published_in, verdict_on_cost
from ablate.report.values import Cell, Column, Table, format_published
from ablate.store import Study

__all__ = [
    "COSTS",
    "COST_VERDICTS",
    "Cell",
    "Column",
    "Table",
    "ablation_table",
    "format_published",
    "format_value",
    "verdict_on_cost",
]

METRICS = (
    "train.loss",
    "train.accuracy",
    "train.error",
    "val.loss",
    "val.accuracy",
    "val.error",
    "test.loss",
    "test.accuracy",
    "test.error",
)
INACTIVE = "—"
ONE_SEED = "1 seed"
TOO_FEW = "too few for a bootstrap"


def ablation_table(study: Study, columns: Sequence[str] | None = None, arms: Sequence[Arm] | None = None) -> Table:
    """A row per variant, in the order of the design; ``columns`` are costs, metrics and measures, else the spec's own.

    ``arms``: what ``arms_of`` has found already. Errors (UserError): a column that is neither known nor measured.
    """
    arms = arms_of(study) if arms is None else list(arms)
    papers = published_in(study)
    names = list(columns or (study.spec.get("report") or {}).get("columns") or DEFAULT_COLUMNS)
    names += [metric for metric in dict.fromkeys(p.metric for p in papers) if metric not in names]
    _check_columns(names, arms)
    missing = sum(result is None for arm in arms for result in arm.results.values())
    hidden = [name for name in names if name.startswith("test.") and not is_complete(study, arms)]
    shown = [name for name in names if name not in hidden]
    papers_shown = [paper for paper in papers if paper.metric not in hidden]
    rows = arms + only_published(arms, papers_shown)
    compared = compared_metric(study, arms)
    compared = compared if compared in shown else None
    others = {name: column_part(name, rows, hidden=not is_complete(study, arms)) for name in _others(shown, arms)}
    parts = _parts(rows, shown, papers_shown, compared, others)
    return Table(
        title=str(study.spec.get("name") or study.folder.name),
        columns=tuple(column for column, _ in parts),
        rows=tuple(tuple(cell(arm) for _, cell in parts) for arm in rows),
        caption=caption(study, arms, shown, compared),
        footnotes=tuple(footnotes(study, arms, hidden, missing, papers_shown)),
    )


def _check_columns(names: Sequence[str], arms: list[Arm]) -> None:
    known = _own_columns(arms)
    if wrong := [why for name in names if (why := unusable_column(name, name in known))]:
        raise UserError(Problem(why, path="report.columns") for why in wrong)
    known.update(column_names())
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            Problem(f"unknown column {name!r}", path="report.columns", hint=did_you_mean(name, known))
            for name in unknown
        )


def _own_columns(arms: list[Arm]) -> set[str]:
    """The columns that need no plugin: costs, measures, and metrics that were measured."""
    known = {*COSTS, *MEASURES, *METRICS}
    for arm in arms:
        for result in arm.finished().values():
            known.update(result.get("metrics") or {})
    return known


def _others(names: Sequence[str], arms: list[Arm]) -> list[str]:
    """Those that installed packages bring."""
    own = _own_columns(arms)
    return [name for name in names if name not in own]


def _parts(
    arms: list[Arm], names: list[str], papers: list[Published], compared: str | None, others: Mapping[str, Part]
) -> list[Part]:
    """The columns in order, each with what makes its cell; ``others`` are those that packages bring."""
    best = best_of(compared, [arm for arm in arms if arm.run]) if compared else None
    parts: list[Part] = [(Column("variant"), _name_cell), *_factor_parts(arms)]
    for name in names:
        if name in others:
            parts.append(others[name])
            continue
        parts.append(_cost_part(name) if name in COSTS else _metric_part(name, best if name == compared else None))
        for paper in papers:
            if paper.metric == name:
                parts += paper_parts(paper, alone=len(papers) == 1)
    if compared and any(arm.baseline is not None for arm in arms):
        parts += _difference_parts(compared, arms)
    if compared and any(arm.control_of is not None for arm in arms):
        parts += _control_parts(compared, arms)
    return [*parts, (Column("trials"), trials_cell)]


def _name_cell(arm: Arm) -> Cell:
    """With what its certificate says of it that the row alone would hide."""
    duplicate, certificate = arm.record.get("duplicate_of"), arm.record.get("certificate") or {}
    said = [f"= {duplicate} (one network, one recipe; trained once)"] if duplicate else []
    said += (
        [f"effective sizes: {'; '.join(map(str, certificate['effective']))}"] if certificate.get("effective") else []
    )
    said += [_widened(arm.record["control"])] if arm.record.get("control") else []
    return Cell(arm.name, note="; ".join(said))


def _widened(control: Mapping[str, Any]) -> str:
    name = str(control["match"])
    reached, wanted = (format_value(name, control[key]) for key in ("reached", "wanted"))
    return f"control: {control['by']} = {control['value']:g} gives {reached} {name}; {control['of']} has {wanted}"


def _factor_parts(arms: list[Arm]) -> list[Part]:
    """A column per factor where there are several; of a single one the variant's name is the level."""
    factors = list(dict.fromkeys(factor for arm in arms for factor in arm.record.get("levels") or {}))
    if len(factors) < 2:
        return []
    return [(Column(factor), _level_cell(factor)) for factor in factors]


def _level_cell(factor: str) -> Callable[[Arm], Cell]:
    def cell(arm: Arm) -> Cell:
        level = (arm.record.get("levels") or {}).get(factor)
        return Cell((INACTIVE if level is None else str(level)) if arm.run else "")

    return cell


def _cost_part(name: str) -> Part:
    def cell(arm: Arm) -> Cell:
        value = arm.cost(name)
        return Cell() if value is None else Cell(format_value(name, value), value)

    return Column(name, unit_of(name), "right", "number"), cell


def _metric_part(metric: str, best: Arm | None = None) -> Part:
    def cell(arm: Arm) -> Cell:
        values, found = arm.values(metric), arm.summary(metric)
        if found is None:
            return Cell(_why_no_value(arm))
        left_out = [seed for seed in arm.finished() if seed not in values]
        note = f"not measured or not finite at seed {', '.join(left_out)}: left out" if left_out else ""
        text = format_value(metric, found.mean) + _spread(metric, found, len(arm.results), arm.method)
        return Cell(text, found.mean, found.interval, found.n, note, best=_shares(arm, best))

    return Column(metric, unit_of(metric), "right", "estimate"), cell


def _shares(arm: Arm, best: Arm | None) -> bool:
    """Whether it is the best, or the same network under another name."""
    return best is not None and arm.record.get("trials") == best.record["trials"]


def _why_no_value(arm: Arm) -> str:
    if not any(result is not None for result in arm.results.values()):
        return ""
    return "not measured" if arm.finished() else "none finished"


def _spread(metric: str, found: stats.Summary, seeds: int, method: stats.Method) -> str:
    if found.interval is None:
        return f" ({ONE_SEED if found.n == 1 else f'n={found.n}: {TOO_FEW}'})"
    if method == "bootstrap":
        low, high = (format_value(metric, bound) for bound in found.interval)
        return f" [{low}, {high}]{_count(found.n, seeds)}"
    return f" ± {format_value(metric, found.interval.half_width)}{_count(found.n, seeds)}"


def _count(n: int, seeds: int) -> str:
    """How many values there were, where that is not every seed."""
    return "" if n == seeds else f" (n={n})"


def _difference_parts(metric: str, arms: list[Arm]) -> list[Part]:
    by_name = {arm.name: arm for arm in arms}
    baselines = list(dict.fromkeys(arm.baseline for arm in arms if arm.baseline is not None))

    def cell(arm: Arm) -> Cell:
        if arm.baseline is None:
            return Cell("baseline" if arm.name in baselines else "")
        return _difference_cell(metric, arm, by_name[arm.baseline])

    unit = difference_unit(metric)
    if len(baselines) == 1:
        return [(Column(f"Δ {metric} to {baselines[0]}", unit, "right", "estimate"), cell)]
    named: Part = (Column("baseline"), lambda arm: Cell(arm.baseline or ""))
    return [named, (Column(f"Δ {metric} to baseline", unit, "right", "estimate"), cell)]


def _control_parts(metric: str, arms: list[Arm]) -> list[Part]:
    """A column for each cost that controls match: the variant minus the baseline that costs as much."""

    def part(match: str) -> Part:
        controls = {arm.control_of: arm for arm in arms if arm.control_of and arm.record["control"]["match"] == match}

        def cell(arm: Arm) -> Cell:
            if arm.name in controls:
                return _difference_cell(metric, arm, controls[arm.name])
            tolerance = (arm.record.get("near") or {}).get(match)
            if tolerance is None:
                return Cell()
            return Cell(
                "as expensive", note=f"no control: its {match} are within {100 * tolerance:g}% of its baseline's"
            )

        return Column(f"Δ {metric} at equal {match}", difference_unit(metric), "right", "estimate"), cell

    return [part(match) for match in dict.fromkeys(arm.record["control"]["match"] for arm in arms if arm.control_of)]


def difference_unit(metric: str) -> str:
    return "points" if unit_of(metric) == "%" else unit_of(metric)


def _difference_cell(metric: str, arm: Arm, baseline: Arm) -> Cell:
    if arm.record["trials"] == baseline.record["trials"]:
        return Cell("same trials")  # a difference of 0 ± 0 would look like a measurement
    found = arm.minus(baseline, metric)
    if found.mean is None:
        return Cell("no common seed" if arm.values(metric) else "")
    text = format_value(metric, found.mean, sign=True)
    if found.interval is None:
        return Cell(f"{text} ({why_no_interval(found.n)})", found.mean, None, found.n)
    text += interval_text(metric, found.interval) + _count(found.n, len(arm.results))
    return Cell(text, found.mean, found.interval, found.n)


def why_no_interval(n: int) -> str:
    return ONE_SEED if n == 1 else TOO_FEW


def interval_text(metric: str, interval: stats.Interval) -> str:
    low, high = (format_value(metric, bound, sign=True) for bound in interval)
    return f" [{low}, {high}]"
