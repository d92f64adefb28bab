"""What ``ablate cost`` says, as tables of values: a row per variant beside what a paper prints, per node, per group."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ablate.analysis.papers import place_of
from ablate.costing import Bench, Cost, Latency, Memory, cost_of, memory_of, timed, waiter
from ablate.design import StudyPlan, Variant, resized_by
from ablate.grammar import PaperClaim
from ablate.numerics import Numerics, process_settings
from ablate.report.tables import (
    COST_VERDICTS,
    COSTS,
    Cell,
    Column,
    Table,
    format_published,
    format_value,
    verdict_on_cost,
)
from ablate.spec import Spec

MIB = 2**20
NAMES = {"params": "params", "flops": "FLOPs"}
CONVENTION = "FLOPs are multiply-accumulates of convolutions, matrix products and attention for one example."


@dataclass(frozen=True)
class Priced:
    """A variant with what was counted and measured about it; what was not asked for is ``None``."""

    variant: Variant
    cost: Cost
    memory: Memory | None = None
    forward: Latency | None = None
    step: Latency | None = None
    nodes: Mapping[str, Latency] = field(default_factory=dict)
    """Forward latency by node."""

    @property
    def name(self) -> str:
        return self.variant.name


def priced(
    variants: Iterable[Variant], *, memory_batch: int | None = None, memory: bool = False, channels_last: bool = True
) -> list[Priced]:
    """Counted, and with ``memory`` for a batch of ``memory_batch`` examples, else for as many as the recipe has there.

    These are ``train.micro_batch``, or ``train.batch_size``.
    """
    found = []
    for variant in variants:
        recipe = variant.train
        graph, batch = variant.network.graph, memory_batch or recipe.micro_batch or recipe.batch_size
        frozen = variant.trainable.frozen
        used = memory_of(graph, batch, frozen=frozen, channels_last=channels_last) if memory else None
        found.append(Priced(variant, cost_of(graph), used))
    return found


def with_latency(prices: Sequence[Priced], batch: int, numerics: Numerics, *, by_node: bool = False) -> list[Priced]:
    """The same with what was measured here: every network in turn, forward passes first, then training steps.

    Equal variants share their numbers. ``by_node`` measures each node as well.
    """
    done = waiter(numerics.device)
    with process_settings(numerics):
        benches = {
            each.variant.identity: Bench(
                each.variant.network.built(0), each.variant.shape, batch, numerics.device, numerics.channels_last
            )
            for each in prices
        }
        forward = timed({name: bench.forward for name, bench in benches.items()}, done=done)
        nodes = {name: bench.by_node(done=done) for name, bench in benches.items()} if by_node else {}
        step = timed({name: bench.step for name, bench in benches.items()}, done=done)
    return [
        replace(each, forward=forward[key], step=step[key], nodes=nodes.get(key, {}))
        for each in prices
        for key in [each.variant.identity]
    ]


Part = tuple[Column, Callable[[Priced], Cell]]


def variant_table(plan: StudyPlan, prices: Sequence[Priced], said: str = "") -> Table:
    """A row per variant: cost, difference from its baseline, what the paper prints and whether that is so."""
    by_name = {each.name: each for each in prices}
    claims = [claim for claim in plan.paper if claim.metric in COSTS]
    changed = changed_size(plan.spec) if claims else ""
    parts: list[Part] = [(Column("variant"), lambda each: Cell(each.name))]
    for metric in COSTS:
        parts += _count_parts(metric, by_name)
        shown = [claim for claim in claims if claim.metric == metric and not changed]
        parts += [part for claim in shown for part in _claim_parts(claim, plan)]
    if any(each.cost.by_insertion() for each in prices):
        parts.append((Column("insertions: params, FLOPs"), lambda each: Cell(_insertions(each.cost))))
    parts += _measured_parts(prices)
    rows = tuple(tuple(cell(each) for _, cell in parts) for each in prices)
    notes = [COST_VERDICTS] if claims and not changed else []
    texts = (_inputs(prices), CONVENTION, changed, _memory_text(prices), said)
    caption = " ".join(text for text in texts if text)
    title = f"{plan.tree['name']}: cost"
    return Table(title, tuple(column for column, _ in parts), rows, caption, (*notes, *_uncounted(prices)))


def changed_size(spec: Spec) -> str:
    """Where a profile or ``--set`` changes the networks or the images' size: that no paper's counts are about these."""
    layers = resized_by(spec)
    return f"The paper's counts are not shown: {layers} changes what they are about." if layers else ""


def _count_parts(metric: str, by_name: Mapping[str, Priced]) -> list[Part]:
    def value(each: Priced) -> int:
        found: int = getattr(each.cost, metric)
        return found

    def difference(each: Priced) -> Cell:
        baseline = by_name.get(each.variant.baseline or "")
        if baseline is None:
            names = {other.variant.baseline for other in by_name.values()}
            return Cell("baseline" if each.name in names else "")
        return _signed(metric, value(each) - value(baseline))

    parts: list[Part] = [(_numbers(NAMES[metric]), lambda each: _count(metric, value(each)))]
    if any(each.variant.baseline in by_name for each in by_name.values()):
        parts.append((_numbers(f"Δ {NAMES[metric]}"), difference))
    return parts


def _claim_parts(claim: PaperClaim, plan: StudyPlan) -> list[Part]:
    metric = claim.metric
    several = sum(other.metric == metric for other in plan.paper) > 1
    source = f"{claim.title}{f' {place_of(claim.table)}' if claim.table is not None else ''}"
    what = f"{NAMES[metric]} in {source}"

    def published(each: Priced) -> Cell:
        value = claim.values.get(each.name)
        return Cell() if value is None else Cell(format_published(metric, value, claim.printed_to), value)

    def verdict(each: Priced) -> Cell:
        value = claim.values.get(each.name)
        if value is None:
            return Cell()
        return verdict_of(claim, each.name, getattr(each.cost, metric))

    return [
        (_numbers(what), published),
        (Column(f"verdict on {what}" if several else f"verdict on {NAMES[metric]}"), verdict),
    ]


def verdict_of(claim: PaperClaim, variant: str, measured: int) -> Cell:
    """The verdict on what a paper prints about a variant's parameters or FLOPs; how far off it is, where it is."""
    published = claim.values[variant]
    reason = claim.not_reproducible.get(variant)
    cell = verdict_on_cost(measured, published, 0.0, claim.printed_to, reason)
    if cell.text == "reproduced":
        return cell
    off = measured - published
    share = f", {_share(off / published)}" if published and off else ""
    return replace(cell, text=f"{cell.text} ({_signed(claim.metric, off).text}{share})")


def _share(part: float) -> str:
    """With one decimal, or as many as show that it is not 0: ``+0.3%``, ``−0.004%``."""
    decimals = max(1, math.ceil(-math.log10(abs(part))) - 2)
    return f"{part:+.{decimals}%}".replace("-", "−")


def _insertions(cost: Cost) -> str:
    return "; ".join(
        f"{name}: {params:,}, {format_value('flops', flops)}" for name, (params, flops) in cost.by_insertion().items()
    )


def _measured_parts(prices: Sequence[Priced]) -> list[Part]:
    parts: list[Part] = []
    if any(each.memory for each in prices):
        parts.append(
            (_numbers("kept for backward", "MiB"), lambda each: _mib(each.memory.saved if each.memory else None))
        )
        parts.append(
            (_numbers("peak in evaluation", "MiB"), lambda each: _mib(each.memory.peak if each.memory else None))
        )
    if any(each.forward for each in prices):
        parts.append((_numbers("forward", "ms"), lambda each: _milliseconds(each.forward)))
        parts.append((_numbers("training step", "ms"), lambda each: _milliseconds(each.step)))
    return parts


def node_table(each: Priced, said: str = "") -> Table:
    """A row per node, and the total."""
    columns = [Column("node"), Column("block"), Column("output"), _numbers("params"), _numbers("FLOPs")]
    columns.append(Column("insertion"))
    columns += [_numbers("kept for backward", "MiB"), _numbers("alive", "MiB")] if each.memory else []
    columns += [_numbers("forward", "ms")] if each.nodes else []
    memory = {row.name: row for row in each.memory.rows} if each.memory else {}
    rows = []
    for row in each.cost.rows:
        cells = [Cell(row.name), Cell(row.block), Cell("×".join(map(str, row.shape)))]
        cells += [_count("params", row.params), _count("flops", row.flops), Cell(row.insertion or "")]
        cells += [_mib(memory[row.name].saved), _mib(memory[row.name].live)] if memory else []
        cells += [_milliseconds(each.nodes.get(row.name))] if each.nodes else []
        rows.append(tuple(cells))
    total = [
        Cell("total"),
        Cell(),
        Cell(),
        _count("params", each.cost.params),
        _count("flops", each.cost.flops),
        Cell(),
    ]
    total += [_mib(each.memory.saved), _mib(each.memory.peak)] if each.memory else []
    total += [_milliseconds(each.forward)] if each.nodes else []
    return _of_one("nodes", each, columns, [*rows, tuple(total)], said)


def group_table(by: str, prices: Sequence[Priced], said: str = "") -> Table:
    """A row per ``stage`` or ``insertion`` of each variant, and for stages the total."""
    several = len(prices) > 1
    with_memory = any(each.memory for each in prices)
    columns = [*([Column("variant")] if several else []), Column(by), _numbers("params"), _numbers("FLOPs")]
    columns += [_numbers("kept for backward", "MiB")] if with_memory else []
    rows = []
    for each in prices:
        groups = each.cost.by_stage() if by == "stage" else each.cost.by_insertion()
        kept = _kept(by, each)
        entries = [(name, *counts, kept.get(name)) for name, counts in groups.items()]
        if by == "stage":
            saved = each.memory.saved if each.memory else None
            entries.append(("total", each.cost.params, each.cost.flops, saved))
        for name, params, flops, saved in entries:
            cells = [Cell(each.name)] if several else []
            cells += [Cell(name), _count("params", params), _count("flops", flops)]
            rows.append((*cells, _mib(saved)) if with_memory else tuple(cells))
    if several:
        caption = " ".join(text for text in (_inputs(prices), CONVENTION, _memory_text(prices), said) if text)
        return Table(f"cost by {by}", tuple(columns), tuple(rows), caption, _uncounted(prices))
    return _of_one(f"by {by}", prices[0], columns, rows, said)


def _kept(by: str, each: Priced) -> Mapping[str, int]:
    if each.memory is None:
        return {}
    return each.memory.saved_by_stage() if by == "stage" else each.memory.saved_by_insertion()


def _of_one(what: str, each: Priced, columns: list[Column], rows: list[tuple[Cell, ...]], said: str) -> Table:
    caption = " ".join(text for text in (_inputs([each]), CONVENTION, _memory_text([each]), said) if text)
    return Table(f"{each.name}: {what}", tuple(columns), tuple(rows), caption, _uncounted([each]))


def _inputs(prices: Sequence[Priced]) -> str:
    said = dict.fromkeys(
        f"{'×'.join(map(str, each.cost.input_shape))}, {each.variant.classes} classes" for each in prices
    )
    return f"Input {'; '.join(said)}."


def _memory_text(prices: Sequence[Priced]) -> str:
    batches = dict.fromkeys(
        f"{each.memory.batch}{' (train.micro_batch)' if each.memory.batch == each.variant.train.micro_batch else ''}"
        for each in prices
        if each.memory
    )
    if not batches:
        return ""
    return (
        f"Memory for a batch of {', '.join(batches)} in fp32, parameters left out: kept for backward is what autograd "
        "keeps in training; the peak is of what is alive between nodes in evaluation."
    )


def latency_text(prices: Sequence[Priced], batch: int, numerics: Numerics) -> str:
    """How the latency was measured."""
    runs = sorted({latency.runs for each in prices for latency in (each.forward, each.step) if latency})
    counted = str(runs[0]) if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    device = numerics.device_name or numerics.device
    return (
        f"Latency: median [quartiles] of {counted} runs after 3 to warm up, the networks in turn; batch {batch}, fp32, "
        f"{numerics.threads} thread{'s' if numerics.threads > 1 else ''}, {device}; a training step is forward, "
        "cross-entropy, backward and plain SGD."
    )


def _uncounted(prices: Sequence[Priced]) -> tuple[str, ...]:
    said: dict[str, list[str]] = {}
    for each in prices:
        for node, operations in each.cost.uncounted.items():
            said.setdefault(f"{node}: not counted in FLOPs: {', '.join(operations)}", []).append(each.name)
    several = len(prices) > 1
    return tuple(f"{text} ({', '.join(names)})" if several else text for text, names in said.items())


def _numbers(name: str, unit: str = "") -> Column:
    return Column(name, unit, "right", "number")


def _count(metric: str, value: int) -> Cell:
    return Cell(f"{value:,}" if metric == "params" else format_value("flops", value), value)


def _signed(metric: str, value: float) -> Cell:
    text = f"{value:+,.0f}" if metric == "params" else f"{'+' if value > 0 else ''}{format_value('flops', value)}"
    return Cell(text.replace("-", "−"), value)


def _mib(size: int | None) -> Cell:
    return Cell() if size is None else Cell(f"{size / MIB:,.2f}", size / MIB)


def _milliseconds(latency: Latency | None) -> Cell:
    if latency is None:
        return Cell()
    low, median, high = (1e3 * seconds for seconds in (latency.low, latency.median, latency.high))
    digits = 1 if median >= 10 else 3
    return Cell(f"{median:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]", median)
