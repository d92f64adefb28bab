"""What a search found, as tables of values and as a record for machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from ablate.analysis.arms import arms_of
from ablate.findings import Findings, Importance, Trial, correlations, findings_of, importances
from ablate.findings.importance import LEAST
from ablate.findings.scales import Scale, columns_of, scale_of
from ablate.labels import short_names
from ablate.quantities import COSTS, format_value, unit_of
from ablate.report.captions import counted
from ablate.report.search_captions import caption, footnotes
from ablate.report.values import Cell, Column, Table
from ablate.store import Study

TOP = 20
INACTIVE = "—"
Part = tuple[Column, Callable[[Trial], Cell]]


def search_table(study: Study, top: int | None = TOP, found: Findings | None = None) -> Table:
    """A row per trial that is ranked, the best first: all, or the first ``top``. ``found``: what is known already."""
    found = found or findings_of(study)
    shown = found.ranked[:top]
    parts = _parts(found)
    title = f"{found.spec} over {found.search.get('file')}: {counted(f'{len(found.ranked):,}', 'trial')} ranked"
    if len(shown) < len(found.ranked):
        title += f", the first {len(shown):,}"
    arms = arms_of(study)
    return Table(
        title,
        tuple(column for column, _ in parts),
        tuple(tuple(cell(trial) for _, cell in parts) for trial in shown),
        caption(study, found, arms),
        tuple(footnotes(study, found, arms, correlations(found))),
    )


def _parts(found: Findings) -> list[Part]:
    """The columns in order, each with what makes its cell."""
    known = [name for name in COSTS if name not in found.objectives and any(name in t.metrics for t in found.ranked)]
    parts: list[Part] = [(Column("number", "", "right"), lambda trial: Cell(trial.name))]
    parts += [_paths_part(found, name, paths) for name, paths in columns_of(found).items()]
    parts += [_metric_part(metric) for metric in (*found.objectives, *known)]
    parts.append((Column("epochs", "", "right", "number"), lambda trial: Cell(f"{trial.epochs:,}", trial.epochs)))
    if len(found.objectives) > 1:
        front = {trial.name for trial in found.front}
        parts.append((Column("front"), lambda trial: Cell("yes" if trial.name in front else "")))
    return parts


def _paths_part(found: Findings, name: str, paths: Sequence[str]) -> Part:
    if len(paths) > 1:
        scales = [scale_of(found, path) for path in paths]
        return Column(name), lambda trial: Cell(", ".join(_short(scale, trial) for scale in scales))
    scale = scale_of(found, paths[0])
    values = [trial.values.get(scale.path) for trial in found.ranked if scale.path in trial.labels]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return Column(name, "", "right", "number"), lambda trial: _number(trial, scale.path)
    return Column(name), lambda trial: Cell(_short(scale, trial))


def _short(scale: Scale, trial: Trial) -> str:
    label = trial.labels.get(scale.path)
    return INACTIVE if label is None else scale.categories.get(label, label)


def _number(trial: Trial, path: str) -> Cell:
    if path not in trial.labels:
        return Cell(INACTIVE)
    value = trial.values[path]
    return Cell(str(value) if isinstance(value, int) else f"{value:.4g}", value)


def _metric_part(metric: str) -> Part:
    def cell(trial: Trial) -> Cell:
        value = trial.value(metric)
        return Cell() if value is None else Cell(format_value(metric, value), value)

    return Column(metric, unit_of(metric), "right", "number"), cell


def importance_table(found: Findings, by_path: Sequence[Importance] | None = None) -> Table:
    """A row per path that varies, that which matters most to the first objective first."""
    by_path = importances(found) if by_path is None else by_path
    first = next(iter(found.objectives), "")
    own = {(each.path, each.objective): each for each in by_path}
    paths = sorted(found.varying if by_path else [], key=lambda path: -(own[path, first].fanova or 0.0))
    names = dict(zip(found.varying, short_names(found.varying), strict=True))
    columns = [Column("path")]
    for metric in found.objectives:
        columns += [Column(f"{metric}: {by}", "%", "right", "number") for by in ("fANOVA", "PED-ANOVA")]
    rows = []
    for path in paths:
        cells = [Cell(names[path])]
        for metric in found.objectives:
            cells += [_share(own[path, metric].fanova), _share(own[path, metric].ped_anova)]
        rows.append((*cells, Cell(f"{own[path, first].n:,}", own[path, first].n)))
    table = (*columns, Column("trials", "", "right", "number"))
    return Table(f"{found.spec}: what mattered", table, tuple(rows), *_about_importance(found, by_path))


def _share(part: float | None) -> Cell:
    return Cell(INACTIVE) if part is None else Cell(f"{100 * part:.1f}", 100 * part)


def _about_importance(found: Findings, by_path: Sequence[Importance]) -> tuple[str, tuple[str, ...]]:
    count = len(found.ranked)
    if not by_path:
        why = f"fewer than {LEAST}" if count < LEAST else "in which no path varies"
        why = "of several searches at once" if found.tuned else why
        return f"Nothing is said: {counted(count, 'ranked trial')}, {why}.", ()
    text = (
        f"Over {counted(f'{count:,}', 'ranked trial')}. fANOVA: the share of the objective's variance over the space "
        "that a path explains by itself, as a random forest sees it; what is missing from 100% are interactions and "
        "paths that are not active everywhere. PED-ANOVA: how differently a path is spread among the best trials, a "
        "tenth and five at least, than among all, as a share of the sum."
    )
    conditional = [each for each in by_path if each.n < count and each.objective == by_path[0].objective]
    notes = []
    if conditional:
        names = dict(zip(found.varying, short_names(found.varying), strict=True))
        said = ", ".join(f"{names[each.path]} {each.n:,}" for each in conditional)
        notes.append(
            f"Active in some trials only, and by fANOVA measured among these, with the other paths that are active in "
            f"all of them: {said}."
        )
    return text, tuple(notes)


def record(found: Findings, by_path: Sequence[Importance]) -> dict[str, Any]:
    """All of it, as JSON data."""
    ranks = {trial.name: place for place, trial in enumerate(found.ranked, 1)}
    front = {trial.name for trial in found.front}
    return {
        "spec": found.spec,
        "space": found.search.get("file"),
        "objectives": found.objectives,
        "constraints": dict(found.search.get("constraints") or {}),
        "sampler": dict(found.search.get("sampler") or {}),
        "paths": list(found.paths),
        "proposed": found.proposed,
        "outcomes": dict(found.outcomes),
        "rejected": dict(found.broken),
        "out_of_reach": dict(found.out_of_reach),
        "reasons": {outcome: dict(reasons) for outcome, reasons in found.reasons.items()},
        "fates": dict(found.fates),
        "epochs": found.epochs,
        "epochs_saved": found.epochs_saved,
        "trials": [_trial_record(trial, ranks.get(trial.name), trial.name in front) for trial in found.trials],
        "correlations": [asdict(each) for each in correlations(found)],
        "importance": [asdict(each) for each in by_path],
    }


def _trial_record(trial: Trial, rank: int | None, on_front: bool) -> dict[str, Any]:
    return {
        "number": trial.number,
        "name": trial.name,
        "trial": trial.hash,
        "status": trial.status,
        "rank": rank,
        "front": on_front,
        "values": dict(trial.values),
        "metrics": {name: trial.value(name) for name in trial.metrics},
        "epochs": trial.epochs,
        "planned": trial.planned,
    }
