"""The ablation table of a study, as values.

What a table says of a study's trials it says of all of them. A trial that did not finish, for whatever reason, is
counted in its row by that reason and enters no mean; an interval is given for two seeds or more; a difference is over
the seeds that both sides have, and says how many; what was read of the test split stays hidden until every trial has a
result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ablate import stats
from ablate.errors import Problem, UserError, did_you_mean
from ablate.quantities import COSTS, format_value, is_rate, unit_of
from ablate.report.arms import MEASURES, Arm, Part, arms_of, trials_cell
from ablate.report.captions import caption, footnotes
from ablate.report.papers import COST_VERDICTS, Published, only_published, paper_parts, told_apart, verdict_on_cost
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

DEFAULT_COLUMNS = ("params", "flops", "val.accuracy", "test.accuracy")
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


def ablation_table(study: Study, columns: Sequence[str] | None = None) -> Table:
    """A row per variant, in the order of the design; ``columns`` are costs, metrics and measures, else the spec's own.

    Errors (UserError): a column that is neither known nor measured.
    """
    arms = arms_of(study)
    papers = told_apart([Published.read(entry) for entry in study.spec.get("paper") or []])
    names = list(columns or (study.spec.get("report") or {}).get("columns") or DEFAULT_COLUMNS)
    names += [metric for metric in dict.fromkeys(p.metric for p in papers) if metric not in names]
    _check_columns(names, arms)
    missing = sum(result is None for arm in arms for result in arm.results.values())
    hidden = [name for name in names if name.startswith("test.")] if missing else []
    shown = [name for name in names if name not in hidden]
    papers_shown = [paper for paper in papers if paper.metric not in hidden]
    rows = arms + only_published(arms, papers_shown)
    parts = _parts(rows, shown, papers_shown)
    return Table(
        title=str(study.spec.get("name") or study.folder.name),
        columns=tuple(column for column, _ in parts),
        rows=tuple(tuple(cell(arm) for _, cell in parts) for arm in rows),
        caption=caption(study, arms, shown),
        footnotes=tuple(footnotes(study, arms, hidden, missing, papers_shown)),
    )


def _check_columns(names: Sequence[str], arms: list[Arm]) -> None:
    known = {*COSTS, *MEASURES, *METRICS}
    for arm in arms:
        for result in arm.finished().values():
            known.update(result.get("metrics") or {})
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            Problem(f"unknown column {name!r}", path="report.columns", hint=did_you_mean(name, known))
            for name in unknown
        )


def _parts(arms: list[Arm], names: list[str], papers: list[Published]) -> list[Part]:
    """The columns in order, each with what makes its cell."""
    parts: list[Part] = [(Column("variant"), _name_cell), *_factor_parts(arms)]
    for name in names:
        parts.append(_cost_part(name) if name in COSTS else _metric_part(name))
        for paper in papers:
            if paper.metric == name:
                parts += paper_parts(paper, alone=len(papers) == 1)
    compared = next((name for name in names if is_rate(name)), None)
    if compared and any(arm.record.get("baseline") is not None for arm in arms):
        parts += _difference_parts(compared, arms)
    return [*parts, (Column("trials"), trials_cell)]


def _name_cell(arm: Arm) -> Cell:
    duplicate = arm.record.get("duplicate_of")
    return Cell(arm.name, note=f"= {duplicate} (one network, one recipe; trained once)" if duplicate else "")


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


def _metric_part(metric: str) -> Part:
    def cell(arm: Arm) -> Cell:
        values = arm.values(metric)
        if not values:
            return Cell(_why_no_value(arm))
        found = stats.summary(values.values())
        left_out = [seed for seed in arm.finished() if seed not in values]
        note = f"not measured or not finite at seed {', '.join(left_out)}: left out" if left_out else ""
        text = format_value(metric, found.mean) + _spread(metric, found, len(arm.results))
        return Cell(text, found.mean, found.interval, found.n, note)

    return Column(metric, unit_of(metric), "right", "estimate"), cell


def _why_no_value(arm: Arm) -> str:
    if not any(result is not None for result in arm.results.values()):
        return ""
    return "not measured" if arm.finished() else "none finished"


def _spread(metric: str, found: stats.Summary, seeds: int) -> str:
    if found.interval is None:
        return f" ({ONE_SEED})"
    return f" ± {format_value(metric, found.interval.half_width)}{_count(found.n, seeds)}"


def _count(n: int, seeds: int) -> str:
    """How many values there were, where that is not every seed."""
    return "" if n == seeds else f" (n={n})"


def _difference_parts(metric: str, arms: list[Arm]) -> list[Part]:
    by_name = {arm.name: arm for arm in arms}
    baselines = list(dict.fromkeys(arm.record["baseline"] for arm in arms if arm.record.get("baseline") is not None))

    def cell(arm: Arm) -> Cell:
        name = arm.record.get("baseline")
        if name is None:
            return Cell("baseline" if arm.name in baselines else "")
        return _difference_cell(metric, arm, by_name[name])

    unit = "points" if unit_of(metric) == "%" else unit_of(metric)
    if len(baselines) == 1:
        return [(Column(f"Δ {metric} to {baselines[0]}", unit, "right", "estimate"), cell)]
    named: Part = (Column("baseline"), lambda arm: Cell(arm.record.get("baseline") or ""))
    return [named, (Column(f"Δ {metric} to baseline", unit, "right", "estimate"), cell)]


def _difference_cell(metric: str, arm: Arm, baseline: Arm) -> Cell:
    if arm.record["trials"] == baseline.record["trials"]:
        return Cell("same trials")  # a difference of 0 ± 0 would look like a measurement
    found = stats.paired_difference(arm.values(metric), baseline.values(metric))
    if found.mean is None:
        return Cell("no common seed" if arm.values(metric) else "")
    text = format_value(metric, found.mean, sign=True)
    if found.interval is None:
        return Cell(f"{text} ({ONE_SEED})", found.mean, None, found.n)
    low, high = (format_value(metric, bound, sign=True) for bound in found.interval)
    return Cell(f"{text} [{low}, {high}]{_count(found.n, len(arm.results))}", found.mean, found.interval, found.n)
