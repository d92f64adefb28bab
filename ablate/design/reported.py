"""Whether what a spec says of its report can be: claims of papers, columns, intervals, until when seeds are added."""

from __future__ import annotations

from ablate.collect import Collector
from ablate.design.variant import Variant
from ablate.diagnose import shown
from ablate.errors import did_you_mean
from ablate.grammar import PaperClaim, ReportSpec, UntilSpec

COUNTS = ("params", "flops")
FEWEST_RESAMPLED = 10
"""Seeds, as in ``stats``: over three a percentile bootstrap covers 75% of the time and not 95%."""


def check_published(paper: list[PaperClaim], variants: list[Variant], collector: Collector) -> None:
    """Claims about variants that there are, each said once and in keys that its metric takes."""
    names = [variant.name for variant in variants]
    first: dict[tuple[str, str, str], int] = {}
    for index, claim in enumerate(paper):
        before = first.setdefault((claim.title, str(claim.table), claim.metric), index)
        if before != index:
            of = "" if claim.table is None else f" of table {claim.table}"
            message = f"'{claim.metric}'{of} of '{claim.title}' is given twice, first in entry {before + 1}"
            collector.add(("paper", index), message, "put the values together, or say the table", key=False)
        for name in claim.values:
            if name not in names:
                collector.add(("paper", index, "values", name), f"no variant '{name}'", did_you_mean(name, names))
        _check_order(claim, index, names, collector)
        for name in claim.plus_minus:
            if name not in claim.values:
                message = f"nothing is published for '{name}'"
                collector.add(("paper", index, "plus_minus", name), message, did_you_mean(name, claim.values))
            elif not claim.plus_minus[name] > 0:
                collector.add(("paper", index, "plus_minus", name), "a ± is above 0", "leave it out", key=False)
        for name in claim.not_reproducible:
            if name not in claim.values:
                message = f"nothing is published for '{name}'"
                collector.add(("paper", index, "not_reproducible", name), message, did_you_mean(name, claim.values))
        for key in ("printed_to", "not_reproducible"):
            if key in claim.model_fields_set and claim.metric not in COUNTS:
                message = f"is about counts, and '{claim.metric}' is measured with an error"
                collector.add(("paper", index, key), message, "metric: params, or flops")
        if claim.metric in COUNTS:
            _check_counts(claim, index, collector)


def _check_order(claim: PaperClaim, index: int, names: list[str], collector: Collector) -> None:
    """A claim is about something; a ranking is of two models at least, each once, by what is measured with an error."""
    if not claim.values and not claim.order:
        message = "says nothing: neither values nor an order of models"
        collector.add(("paper", index), message, "values: {VARIANT: 90.96}, or order: [[HIGHER, LOWER]]", key=False)
    if claim.order and claim.metric in COUNTS:
        message = f"ranks models by '{claim.metric}', which no run changes"
        collector.add(("paper", index, "order"), message, "values: the counts themselves")
    for number, ranking in enumerate(claim.order):
        path = ("paper", index, "order", number)
        if len(ranking) < 2 or len({*ranking}) < len(ranking):
            collector.add(path, f"[{', '.join(ranking)}] is no ranking of two variants or more, each once", key=False)
        for name in ranking:
            if name not in names:
                collector.add(path, f"no variant '{name}'", did_you_mean(name, names), key=False)


def _check_counts(claim: PaperClaim, index: int, collector: Collector) -> None:
    """Published counts are none below 0, and whole multiples of what a unit of their last digit is worth."""
    for name, value in claim.values.items():
        units = abs(value) / (claim.printed_to or 1.0)
        if value < 0:
            collector.add(("paper", index, "values", name), f"{shown(value)}: no count is less than 0", key=False)
        elif claim.printed_to is not None and abs(units - round(units)) > min(1e-6 * max(units, 1.0), 0.01):
            message = (
                f"{shown(claim.printed_to)} is no unit of the last digit of {shown(value)}, published for '{name}'"
            )
            collector.add(("paper", index, "printed_to"), message, "1.0e+5 for 28.0e+6, printed as 28.0 M", key=False)


def check_columns(report: ReportSpec, variants: list[Variant], collector: Collector) -> None:
    """A column that is asked for twice, or that no trial can fill."""
    has_val = any(variant.data.val is not None for variant in variants)
    for index, column in enumerate(report.columns if "columns" in report.model_fields_set else ()):
        if column in report.columns[:index]:
            collector.add(("report", "columns", index), f"'{column}' is given twice", key=False)
        elif column.startswith("val.") and not has_val:
            message = f"'{column}' needs a validation split, and no variant has one"
            collector.add(("report", "columns", index), message, "add data.val", key=False)
    if report.metric and report.metric.startswith("val.") and not has_val:
        message = f"'{report.metric}' needs a validation split, and no variant has one"
        collector.add(("report", "metric"), message, "add data.val", key=False)


def check_until(until: UntilSpec, variants: list[Variant], collector: Collector) -> None:
    """A variant without the metric would never have an interval."""
    without = [variant.name for variant in variants if variant.data.val is None]
    if until.metric.startswith("val.") and without:
        of = "" if len(without) == len(variants) else f", which variant '{without[0]}' has not"
        message = f"'{until.metric}' needs a validation split{of}"
        collector.add(("ablation", "until", "metric"), message, "add data.val", key=False)


def check_interval(report: ReportSpec, seeds: int, collector: Collector) -> None:
    """Few seeds can't be resampled."""
    if report.interval == "bootstrap" and seeds < FEWEST_RESAMPLED:
        message = f"a bootstrap over {seeds} seeds is far too narrow; at least {FEWEST_RESAMPLED} are needed"
        collector.add(("report", "interval"), message, "interval: t, or more seeds", key=False)


def check_auto_interval(report: ReportSpec, collector: Collector) -> None:
    """Seeds are added by one kind of interval, and it is that one that is shown."""
    if report.interval == "bootstrap":
        message = "seeds: auto goes by the width of t-intervals, and the table would show others"
        collector.add(("report", "interval"), message, "interval: t, or state the seeds", key=False)
