"""Tables as values: numbers with their intervals, and the text that stands for them; ``render`` draws them.

What a table says of a study's trials it says of all of them. A trial that diverged, crashed, was damaged or never ran
is counted in its row and enters no mean; an interval is given for two seeds or more; a difference is over the seeds
that both sides have, and says how many; what was read of the test split stays hidden until every trial has a result.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ablate import stats
from ablate.errors import Problem, UserError, did_you_mean
from ablate.store import EXPOSURES, Study

DEFAULT_COLUMNS = ("params", "flops", "val.accuracy", "test.accuracy")
COSTS = ("params", "flops")
MEASURES = ("epochs", "seconds", "images_per_second")
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

Align = Literal["left", "right"]
Kind = Literal["text", "number", "estimate"]


@dataclass(frozen=True)
class Column:
    """``kind`` says what CSV writes: the text; the value; or mean, half-width, n, low and high, a column each."""

    name: str
    unit: str = ""
    align: Align = "left"
    kind: Kind = "text"

    @property
    def header(self) -> str:
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True)
class Cell:
    """A value, its interval, the number of values behind it, and the text that is shown; ``note`` is a footnote."""

    text: str = ""
    value: float | None = None
    interval: stats.Interval | None = None
    n: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table of values. ``footnotes`` are about the whole table; those of a cell are the cell's ``note``."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    footnotes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError("a row has as many cells as the table has columns")

    def column(self, name: str) -> list[Cell]:
        """The cells of the column of that name, row by row."""
        index = [column.name for column in self.columns].index(name)
        return [row[index] for row in self.rows]


@dataclass(frozen=True)
class _Arm:
    """A row: a variant with its trials' results by seed (None: there is none), or a name that only a paper has."""

    name: str
    record: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, dict[str, Any] | None] = field(default_factory=dict)
    damaged: frozenset[str] = frozenset()

    @property
    def run(self) -> bool:
        return bool(self.record)

    def finished(self) -> dict[str, dict[str, Any]]:
        return {seed: r for seed, r in self.results.items() if r is not None and r["status"] == "finished"}

    def values(self, metric: str) -> dict[str, float]:
        """Of the trials that finished, by seed; a value that is not finite is none."""
        found = {seed: _measured(result, metric) for seed, result in self.finished().items()}
        return {seed: value for seed, value in found.items() if value is not None and math.isfinite(value)}

    def cost(self, name: str) -> float | None:
        value = (self.record.get("cost") or {}).get(name)
        return None if value is None else value


@dataclass(frozen=True)
class _Published:
    """One entry of the spec's ``paper`` section."""

    label: str
    metric: str
    values: Mapping[str, tuple[float, float]]
    """name → (value, plus_minus)"""
    printed_to: float | None = None
    not_reproducible: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> _Published:
        label = str(entry.get("title", "paper"))
        if entry.get("table") is not None:
            label += f" Table {entry['table']}"
        values = {name: _published(value) for name, value in entry["values"].items()}
        reasons = entry.get("not_reproducible") or {}
        return cls(label, str(entry["metric"]), values, entry.get("printed_to"), reasons)


COST_VERDICTS = "Verdict on a cost: reproduced if it rounds to the published number, to the digits that were printed."
_Part = tuple[Column, Callable[[_Arm], Cell]]


def ablation_table(study: Study, columns: Sequence[str] | None = None) -> Table:
    """A row per variant, in the order of the design; ``columns`` are costs, metrics and measures, else the spec's own.

    Errors (UserError): a column that is neither known nor measured.
    """
    arms = _arms(study)
    papers = _told_apart([_Published.read(entry) for entry in study.spec.get("paper") or []])
    names = list(columns or (study.spec.get("report") or {}).get("columns") or DEFAULT_COLUMNS)
    names += [metric for metric in dict.fromkeys(p.metric for p in papers) if metric not in names]
    _check_columns(names, arms)
    missing = sum(result is None for arm in arms for result in arm.results.values())
    hidden = [name for name in names if name.startswith("test.")] if missing else []
    shown = [name for name in names if name not in hidden]
    papers_shown = [paper for paper in papers if paper.metric not in hidden]
    rows = arms + _only_published(arms, papers_shown)
    parts = _parts(rows, shown, papers_shown)
    return Table(
        title=str(study.spec.get("name") or study.folder.name),
        columns=tuple(column for column, _ in parts),
        rows=tuple(tuple(cell(arm) for _, cell in parts) for arm in rows),
        caption=_caption(study, arms, shown),
        footnotes=tuple(_footnotes(study, arms, hidden, missing, papers_shown)),
    )


def _arms(study: Study) -> list[_Arm]:
    # Each trial once, though duplicates share theirs: to read one is to check its files.
    hashes = dict.fromkeys(hash for variant in study.variants for hash in variant["trials"].values())
    results = {hash: study.result(hash) for hash in hashes}
    return [
        _Arm(
            variant["name"],
            variant,
            {seed: results[hash] for seed, hash in variant["trials"].items()},
            frozenset(seed for seed, hash in variant["trials"].items() if hash in study.damaged),
        )
        for variant in study.variants
    ]


def _told_apart(papers: list[_Published]) -> list[_Published]:
    """Two entries for one table of a paper (two metrics of it) have labels of their own."""
    labels = Counter(paper.label for paper in papers)
    return [replace(p, label=f"{p.label} {p.metric}") if labels[p.label] > 1 else p for p in papers]


def _only_published(arms: list[_Arm], papers: list[_Published]) -> list[_Arm]:
    names = dict.fromkeys(name for paper in papers for name in paper.values)
    return [_Arm(name) for name in names if name not in {arm.name for arm in arms}]


def _check_columns(names: Sequence[str], arms: list[_Arm]) -> None:
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


def _parts(arms: list[_Arm], names: list[str], papers: list[_Published]) -> list[_Part]:
    """The columns in order, each with what makes its cell."""
    parts: list[_Part] = [(Column("variant"), _name_cell), *_factor_parts(arms)]
    for name in names:
        parts.append(_cost_part(name) if name in COSTS else _metric_part(name))
        for paper in papers:
            if paper.metric == name:
                parts += _paper_parts(paper, alone=len(papers) == 1)
    compared = next((name for name in names if _is_rate(name)), None)
    if compared and any(arm.record.get("baseline") is not None for arm in arms):
        parts += _difference_parts(compared, arms)
    return [*parts, (Column("trials"), _trials_cell)]


def _name_cell(arm: _Arm) -> Cell:
    duplicate = arm.record.get("duplicate_of")
    return Cell(arm.name, note=f"= {duplicate} (one network, one recipe; trained once)" if duplicate else "")


def _factor_parts(arms: list[_Arm]) -> list[_Part]:
    """A column per factor where there are several; of a single one the variant's name is the level."""
    factors = list(dict.fromkeys(factor for arm in arms for factor in arm.record.get("levels") or {}))
    if len(factors) < 2:
        return []
    return [(Column(factor), _level_cell(factor)) for factor in factors]


def _level_cell(factor: str) -> Callable[[_Arm], Cell]:
    def cell(arm: _Arm) -> Cell:
        level = (arm.record.get("levels") or {}).get(factor)
        return Cell((INACTIVE if level is None else str(level)) if arm.run else "")

    return cell


def _cost_part(name: str) -> _Part:
    def cell(arm: _Arm) -> Cell:
        value = arm.cost(name)
        return Cell() if value is None else Cell(format_value(name, value), value)

    return Column(name, unit_of(name), "right", "number"), cell


def _metric_part(metric: str) -> _Part:
    def cell(arm: _Arm) -> Cell:
        values = arm.values(metric)
        if not values:
            return Cell(_why_no_value(arm))
        found = stats.summary(values.values())
        left_out = [seed for seed in arm.finished() if seed not in values]
        note = f"not measured or not finite at seed {', '.join(left_out)}: left out" if left_out else ""
        text = format_value(metric, found.mean) + _spread(metric, found, len(arm.results))
        return Cell(text, found.mean, found.interval, found.n, note)

    return Column(metric, unit_of(metric), "right", "estimate"), cell


def _why_no_value(arm: _Arm) -> str:
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


def _difference_parts(metric: str, arms: list[_Arm]) -> list[_Part]:
    by_name = {arm.name: arm for arm in arms}
    baselines = list(dict.fromkeys(arm.record["baseline"] for arm in arms if arm.record.get("baseline") is not None))

    def cell(arm: _Arm) -> Cell:
        name = arm.record.get("baseline")
        if name is None:
            return Cell("baseline" if arm.name in baselines else "")
        return _difference_cell(metric, arm, by_name[name])

    unit = "points" if unit_of(metric) == "%" else unit_of(metric)
    if len(baselines) == 1:
        return [(Column(f"Δ {metric} to {baselines[0]}", unit, "right", "estimate"), cell)]
    named: _Part = (Column("baseline"), lambda arm: Cell(arm.record.get("baseline") or ""))
    return [named, (Column(f"Δ {metric} to baseline", unit, "right", "estimate"), cell)]


def _difference_cell(metric: str, arm: _Arm, baseline: _Arm) -> Cell:
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


def _paper_parts(paper: _Published, alone: bool) -> list[_Part]:
    metric = paper.metric
    uncertain = any(plus_minus for _, plus_minus in paper.values.values())

    def published(arm: _Arm) -> Cell:
        if arm.name not in paper.values:
            return Cell()
        value, plus_minus = paper.values[arm.name]
        text = format_published(metric, value, paper.printed_to)
        if not plus_minus:
            return Cell(text, value)
        interval = stats.Interval(value - plus_minus, value + plus_minus)
        return Cell(f"{text} ± {format_value(metric, plus_minus)}", value, interval)

    def verdict(arm: _Arm) -> Cell:
        if arm.name not in paper.values:
            return Cell()
        if metric in COSTS:
            return verdict_on_cost(
                arm.cost(metric), *paper.values[arm.name], paper.printed_to, paper.not_reproducible.get(arm.name)
            )
        return Cell(stats.verdict(arm.values(metric).values(), *paper.values[arm.name]))

    return [
        (Column(paper.label, unit_of(metric), "right", "estimate" if uncertain else "number"), published),
        (Column("verdict" if alone else f"verdict on {paper.label}"), verdict),
    ]


def verdict_on_cost(
    value: float | None, published: float, plus_minus: float, printed_to: float | None, reason: str | None
) -> Cell:
    """The verdict on parameters or FLOPs; with a ``reason`` why none could have it, that as a footnote."""
    found = stats.verdict_exact(value, published, plus_minus, printed_to=printed_to, impossible=reason is not None)
    return Cell(found, note=reason or "" if found == "not reproducible" else "")


def _trials_cell(arm: _Arm) -> Cell:
    """``2 of 3; 1 diverged``: how many trials finished, and what became of the others."""
    if not arm.run:
        return Cell("not run")
    others = Counter(_fate(arm, seed) for seed in arm.results)
    done = others.pop("finished", 0)
    text = "; ".join([f"{done} of {len(arm.results)}", *(f"{count} {fate}" for fate, count in others.items())])
    return Cell(text, note="; ".join(_errors(arm)))


def _fate(arm: _Arm, seed: str) -> str:
    result = arm.results[seed]
    if result is not None:
        return str(result["status"])
    return "damaged" if seed in arm.damaged else "missing"


def _errors(arm: _Arm) -> Iterable[str]:
    for seed, result in arm.results.items():
        error = (result or {}).get("error")
        if error:
            message = str(error.get("message", ""))
            yield f"seed {seed}: {error.get('type')}: {message[:100]}{'…' if len(message) > 100 else ''}"


def _caption(study: Study, arms: list[_Arm], shown: list[str]) -> str:
    said = [_profile_text(study), _data_text(study, arms), _budget_text(study), _training_text(study, arms)]
    said.append(_numerics_text(study, arms))
    if any(name not in COSTS for name in shown):
        said.append(
            "± is half the 95% t-interval over seeds (n: how many, where not all); the sampling of images is not in it"
        )
    if any(_is_rate(name) for name in shown) and any(arm.record.get("baseline") is not None for arm in arms):
        said.append(
            "Δ is variant minus baseline, paired by seed, with its 95% t-interval, not corrected for their number"
        )
    return " ".join(f"{sentence.rstrip('.')}." for sentence in said if sentence)


def _profile_text(study: Study) -> str:
    return f"Profile {study.spec['profile']}" if study.spec.get("profile") else ""


def _data_text(study: Study, arms: list[_Arm]) -> str:
    """What each variant's record says of its data: once, where all say the same."""
    said: dict[str, list[str]] = {}
    for arm in arms:
        if arm.record.get("data"):
            said.setdefault(str(arm.record["data"]), []).append(arm.name)
    if not said:
        return str((study.spec.get("data") or {}).get("name") or "")
    return "; ".join(text if len(said) == 1 else f"{text} ({', '.join(names)})" for text, names in said.items())


def _budget_text(study: Study) -> str:
    limit = (study.spec.get("data") or {}).get("limit") or {}
    parts = [f"{size:,} {split}" for split, size in limit.items() if size is not None]
    return f"Reduced budget: limit of {', '.join(parts)} images" if parts else ""


def _numerics_text(study: Study, arms: list[_Arm]) -> str:
    """In which precision was trained, on what, and what else of the numerics could move a number."""
    numerics = study.spec.get("numerics") or {}
    said: dict[str, list[str]] = {}
    for arm in arms:
        if arm.record.get("precision"):
            said.setdefault(arm.record["precision"], []).append(arm.name)
    if not said or "compile" not in numerics:
        return ""
    precisions = [text if len(said) == 1 else f"{text} ({', '.join(names)})" for text, names in said.items()]
    return ", ".join(
        [
            f"Trained in {', '.join(precisions)} on {numerics['device']}",
            *(["compiled"] if numerics["compile"] else []),
            *(["deterministic"] if numerics["deterministic"] else []),
            *([f"each batch shared by {numerics['devices']} devices"] if numerics["devices"] > 1 else []),
        ]
    )


def _training_text(study: Study, arms: list[_Arm]) -> str:
    train = study.spec.get("train") or {}
    trained = [
        result["epochs"] for arm in arms for result in arm.finished().values() if result.get("epochs") is not None
    ]
    planned = [arm.record.get("epochs", train.get("epochs")) for arm in arms]
    planned = [epochs for epochs in planned if epochs is not None]
    parts = [_counted(_range(planned), "epoch")] if planned else []
    if trained and {*trained} != {*planned}:
        parts.append(f"finished trials took {_range(trained)}")
    parts.append(_counted(_range([len(arm.results) for arm in arms]), "seed"))
    select = train.get("select", "last")
    chosen = {
        "last": "weights of the last epoch",
        "best": "weights of the best epoch on val",
        "ema": "averaged weights (ema)",
    }
    return "; ".join([*parts, chosen.get(str(select), f"weights: {select}")])


def _footnotes(
    study: Study, arms: list[_Arm], hidden: list[str], missing: int, papers: list[_Published]
) -> Iterable[str]:
    if missing:
        yield f"Not complete: {_counted(missing, 'trial')} of {sum(len(arm.results) for arm in arms)} without a result."
    if hidden:
        yield f"Hidden until every trial has a result: {', '.join(hidden)}."
    yield from _protocol(arms)
    yield _readings(study, arms)
    if any(paper.metric not in COSTS for paper in papers):
        yield (
            "Verdict: reproduced if the published value lies in the 95% prediction interval for one more run (three "
            "seeds or more), differs if outside, inconclusive where the seeds are too few or do not vary."
        )
    if any(paper.metric in COSTS for paper in papers):
        yield COST_VERDICTS


def _protocol(arms: list[_Arm]) -> Iterable[str]:
    """What the certificates say of the protocol; a sentence that is not about all variants names those it is about."""
    said: dict[str, list[str]] = {}
    for arm in arms:
        for sentence in (arm.record.get("certificate") or {}).get("protocol") or []:
            said.setdefault(str(sentence), []).append(arm.name)
    for sentence, names in said.items():
        yield sentence if len(names) == len(arms) else f"{sentence.rstrip('.')} ({', '.join(names)})."


def _readings(study: Study, arms: list[_Arm]) -> str:
    results = {arm.record["trials"][seed]: result for arm in arms for seed, result in arm.results.items()}
    within = sum(int(result.get("test_readings") or 0) for result in results.values() if result is not None)
    exposures = len(study.exposures())
    least = "at least " if EXPOSURES in study.damaged else ""
    recorded = f"{least}{_counted(exposures, 'reading')} on record"
    return f"Test split: read {_counted(within, 'time')} by these trials; {recorded}."


def unit_of(name: str) -> str:
    """The unit that stands in the header. (Of the training loss the recipe's loss decides it.)"""
    if name == "train.loss":
        return ""
    kind = name.rpartition(".")[2]
    units = {"accuracy": "%", "error": "%", "loss": "nats", "seconds": "s", "flops": "MACs", "images_per_second": "1/s"}
    return units.get(kind, "")


def format_value(name: str, value: float, sign: bool = False) -> str:
    """A number as a reader expects it: accuracy with 2 decimals, loss with 4, parameters whole, FLOPs ``40.60 M``."""
    kind = name.rpartition(".")[2]
    if kind == "flops":
        return _with_prefix(value)
    decimals = {"accuracy": 2, "error": 2, "loss": 4, "params": 0, "images_per_second": 0}.get(kind, 1)
    return f"{value:{'+z' if sign else 'z'},.{decimals}f}".replace("-", "−")


def format_published(name: str, value: float, printed_to: float | None = None) -> str:
    """A published number; a count to the digit that decides its verdict: ``28.0 M`` where it is ``printed_to`` 1e5."""
    if name not in COSTS:
        return format_value(name, value)
    printed_to = printed_to or 2 * stats.half_a_digit(value)
    size, prefix = next(((size, prefix) for size, prefix in PREFIXES if abs(value) >= size), (1.0, ""))
    digits = max(0, round(math.log10(size / printed_to)))
    return f"{value / size:,.{digits}f} {prefix}".strip()


PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def _with_prefix(value: float) -> str:
    for size, prefix in PREFIXES:
        # Compared after rounding, so that 999,999 is 1.000 M and not 1000 k.
        if float(f"{abs(value):.4g}") >= size:
            scaled = value / size
            digits = max(0, 3 - math.floor(math.log10(float(f"{abs(scaled):.4g}"))))
            return f"{scaled:.{digits}f} {prefix}".replace("-", "−")
    return f"{value:.0f}".replace("-", "−")


def _is_rate(name: str) -> bool:
    return name.rpartition(".")[2] in ("accuracy", "error")


def _measured(result: Mapping[str, Any], name: str) -> float | None:
    value = result.get(name) if name in MEASURES else (result.get("metrics") or {}).get(name)
    return None if value is None else float(value)


def _published(value: Any) -> tuple[float, float]:
    if isinstance(value, Mapping):
        return float(value["value"]), float(value.get("plus_minus") or 0.0)
    return float(value), 0.0


def _range(numbers: Sequence[int]) -> str:
    if not numbers:
        return "0"
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _counted(count: Any, noun: str) -> str:
    return f"{count} {noun}" if str(count) == "1" else f"{count} {noun}s"
