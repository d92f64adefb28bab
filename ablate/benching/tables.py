"""What ``ablate bench`` says: its report as tables of values, and the recommendation in words."""

from __future__ import annotations

from ablate.benching.readings import LEAST, WARM_UP, Spread
from ablate.benching.recommending import Effect
from ablate.benching.report import Report, Stage
from ablate.progress import duration
from ablate.report.tables import Cell, Column, Table

BUSY = 0.5
"""Processes at work for each core, above which what is measured is said to be of a busy machine."""


def tables(report: Report) -> list[Table]:
    """The stages of a step, what each option changes, and the placements of trials, as far as each was measured."""
    found = [_stages(report)]
    if report.effects:
        found.append(_options(report))
    if report.placements:
        found.append(_placements(report))
    return found


def said(report: Report) -> str:
    """The recommendation: what to paste into the spec, what it gains, and how long the study takes."""
    advice, now = report.recommendation, report.recommendation.now
    trials = f"The study: {now.trials} trial{'s' if now.trials > 1 else ''}"
    if advice.is_empty:
        return f"Nothing that can be set is clearly faster. {trials}, about {duration(now.seconds)}."
    lines = ["Recommended:"]
    lines += [f"  {line}" for line in advice.yaml.splitlines()]
    if advice.environment:
        words = " ".join(f"{key}={value}" for key, value in advice.environment.items())
        lines.append(f"  {words} ablate sweep …")
    gain = f"about {advice.gain:.1f} times as fast"
    return "\n".join([*lines, f"{trials}, {gain}: {duration(advice.seconds)} instead of {duration(now.seconds)}."])


def _stages(report: Report) -> Table:
    columns = (
        Column("stage"),
        _numbers("time", "ms"),
        _numbers("99% interval", "", "text"),
        _numbers("images/s"),
        _numbers("of step", "%"),
        _numbers("GFLOP/s"),
        _numbers("of peak", "%"),
    )
    rows = tuple(_stage(stage, report) for stage in report.stages)
    return Table(f"{report.study}: stages of a step of {report.variant}", columns, rows, _about(report), _notes(report))


def _stage(stage: Stage, report: Report) -> tuple[Cell, ...]:
    peak = report.peak[report.settings["precision"]]
    rate, step = stage.flops_per_second, report.stage("step").seconds.median
    return (
        Cell(stage.name),
        _milliseconds(stage.seconds.median),
        Cell(f"{_digits(1e3 * stage.seconds.low)} – {_digits(1e3 * stage.seconds.high)}"),
        Cell(f"{stage.images_per_second:,.0f}", stage.images_per_second),
        Cell() if stage.name == "evaluation" else _percent(stage.seconds.median / step),
        Cell() if rate is None else Cell(_digits(rate / 1e9), rate / 1e9),
        Cell() if rate is None else _percent(rate / peak),
    )


def _about(report: Report) -> str:
    settings = report.settings
    threads = f"{settings['threads']} thread{'s' if settings['threads'] > 1 else ''} of {report.cores} cores"
    on = settings["device_name"] or threads
    layout = "channels-last" if settings["channels_last"] else "contiguous"
    step, evaluation = report.stage("step"), report.stage("evaluation")
    peaks = ", ".join(f"{value / 1e9:,.0f} GFLOP/s in {precision}" for precision, value in report.peak.items())
    return (
        f"Batch {step.images} in {settings['precision']}, {layout}, {'compiled' if settings['compile'] else 'eager'}, "
        f"{on}; evaluation of {evaluation.images} images. Medians of {step.seconds.count} readings after {WARM_UP} to "
        f"warm up. Peak: {peaks}, a product of square matrices; a multiply-accumulate is two FLOPs."
    )


def _notes(report: Report) -> tuple[str, ...]:
    if report.load is not None and report.load > BUSY * report.cores:
        busy = (
            f"Other processes were at work (load {report.load:.1f} on {report.cores} cores): alone, this machine is "
            "faster than this."
        )
        return (busy, *report.notes)
    return report.notes


def _options(report: Report) -> Table:
    columns = (
        Column("option"),
        Column("now"),
        Column("instead"),
        _numbers("times as fast"),
        _numbers("99% interval", "", "text"),
        Column("which is"),
    )
    caption = (
        "Whole steps, now and instead by turns: the median of the ratios of all pairs of readings. It is faster or "
        f"slower where all of the interval is, by more than 2%, and of {LEAST} readings or more."
    )
    rows = tuple(_option(effect, report) for effect in report.effects)
    return Table("what each option changes", columns, rows, caption)


def _option(effect: Effect, report: Report) -> tuple[Cell, ...]:
    change = effect.change
    what = (Cell(change.option), Cell(change.now), Cell(change.instead))
    if effect.ratio is None:
        return (*what, Cell("—", note=f"could not be measured: {effect.failed}"), Cell(), Cell())
    costs = report.recommendation.now.compiling
    note = f"compiling adds about {duration(costs)} to the study" if effect.compiles else ""
    return (
        *what,
        Cell(f"{effect.ratio.median:.2f}", effect.ratio.median, note=note),
        Cell(_range(effect.ratio)),
        Cell(effect.verdict or "no clear difference"),
    )


def _placements(report: Report) -> Table:
    columns = (
        _numbers("trials at once"),
        _numbers("threads each"),
        _numbers("images/s in all"),
        _numbers("times as fast"),
        Column(""),
    )
    current = (report.placement.threads, report.placement.concurrent)
    trials = report.recommendation.now.trials
    rates = {(each.threads, each.concurrent): each.over(trials) for each in report.placements}
    rows = tuple(
        (
            Cell(str(concurrent), concurrent),
            Cell(str(threads), threads),
            Cell(f"{rate:,.0f}", rate),
            Cell(f"{rate / rates[current]:.2f}", rate / rates[current]) if current in rates else Cell(),
            Cell("the study's" if (threads, concurrent) == current else ""),
        )
        for (threads, concurrent), rate in rates.items()
    )
    caption = f"Images a second of all trials together, until {trials} are done. The study's: {report.placement.why}."
    return Table("trials at once", columns, rows, caption)


def _numbers(name: str, unit: str = "", kind: str = "number") -> Column:
    return Column(name, unit, "right", "text" if kind == "text" else "number")


def _milliseconds(seconds: float) -> Cell:
    return Cell(_digits(1e3 * seconds), 1e3 * seconds)


def _percent(share: float) -> Cell:
    return Cell(f"{100 * share:.1f}", 100 * share)


def _range(found: Spread) -> str:
    return f"{found.low:.2f} – {found.high:.2f}"


def _digits(value: float) -> str:
    """Three of them."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
