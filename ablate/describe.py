"""What ``show``, ``plan`` and ``blocks`` say, as tables of values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate import stats
from ablate.analysis.widths import Until
from ablate.block import Block, BlockType, registry, unusable
from ablate.certify import Certificate
from ablate.costing import Cost, cost_of
from ablate.design import StudyPlan, Variant
from ablate.design.matching import off_by
from ablate.errors import did_you_mean, listed
from ablate.prepare import Prepared
from ablate.progress import duration
from ablate.report.seeding import rule_text
from ablate.report.tables import Cell, Column, Table
from ablate.resolving import Resolved


def _number(value: int | float | None) -> Cell:
    return Cell() if value is None else Cell(f"{value:,}", value)


def _text(value: object) -> Cell:
    return Cell(str(value))


def layers(variant: Variant) -> Table:
    """A row per node: name, block, what it puts out, parameters, FLOPs."""
    cost = cost_of(variant.network.graph)
    columns = (
        Column("node"),
        Column("block"),
        Column("output"),
        Column("params", "", "right", "number"),
        Column("FLOPs", "", "right", "number"),
        Column("insertion"),
    )
    rows = [
        (
            _text(row.name),
            _text(row.block),
            _text("×".join(map(str, row.shape))),
            _number(row.params),
            _number(row.flops),
            _text(row.insertion or ""),
        )
        for row in cost.rows
    ]
    total = (_text("total"), Cell(), Cell(), _number(cost.params), _number(cost.flops), Cell())
    caption = (
        f"Input {'×'.join(map(str, cost.input_shape))}, {variant.classes} classes. FLOPs are multiply-accumulates of "
        "convolutions, matrix products and attention for one example."
    )
    return Table(f"{variant.name}: layers", columns, (*rows, total), caption, _uncounted(cost))


def _uncounted(cost: Cost) -> tuple[str, ...]:
    return tuple(f"{name}: not counted: {', '.join(operations)}" for name, operations in cost.uncounted.items())


def plan(prepared: Prepared, seconds: Mapping[str, float] | None = None) -> Table:
    """A row per variant: cost, difference from the baseline, trials, estimated time, certificate."""
    columns = (
        Column("variant"),
        Column("params", "", "right", "number"),
        Column("Δ params", "", "right", "number"),
        Column("FLOPs", "", "right", "number"),
        Column("Δ FLOPs", "", "right", "number"),
        Column("nodes +/−/≠", "", "right"),
        Column("trials", "", "right", "number"),
        Column("time a trial", "", "right"),
        Column("gradients", "", "right"),
        Column("shared equal", "", "right"),
        Column("certificate"),
    )
    rows = tuple(_plan_row(prepared, variant, seconds or {}) for variant in prepared.plan.variants)
    return Table(
        f"{prepared.plan.tree['name']}: plan",
        columns,
        rows,
        _plan_caption(prepared),
        _plan_notes(prepared, seconds),
    )


def _plan_row(prepared: Prepared, variant: Variant, seconds: Mapping[str, float]) -> tuple[Cell, ...]:
    certificate = prepared.certificates[variant.name]
    change = certificate.difference
    own_trials = 0 if variant.duplicate_of else len(prepared.plan.seeds)
    counted = f"{len(change['added'])}/{len(change['removed'])}/{len(change['changed'])}" if change else ""
    return (
        _text(variant.name),
        _number(certificate.cost["params"]),
        _signed(change["params"]) if change else Cell("baseline" if _is_baseline(prepared, variant) else ""),
        _number(certificate.cost["flops"]),
        _signed(change["flops"]) if change else Cell(),
        _text(counted),
        _number(own_trials),
        _text(duration(seconds[variant.name]) if variant.name in seconds else ""),
        _text(_gradients(certificate)),
        _text(_starting_equal(certificate.shared)),
        _verdict(certificate, variant),
    )


def _starting_equal(shared: Mapping[str, Any] | None) -> str:
    """Parameters and buffers that start as the baseline's, of those that it has in the same shape."""
    return f"{shared['equal']}/{shared['shared'] - shared.get('of_another_shape', 0)}" if shared else ""


def _gradients(certificate: Certificate) -> str:
    """Parameters with a gradient, of how many that can have one."""
    found = certificate.passes.get("gradients")
    if found is None:
        return ""
    exempt = len(found["invariant"]) + len(found["cancelled_by_batch_norm"])
    return f"{found['with_gradient']}/{found['parameters'] - exempt}"


def _is_baseline(prepared: Prepared, variant: Variant) -> bool:
    return any(other.baseline == variant.name for other in prepared.plan.variants)


def _signed(value: int) -> Cell:
    return Cell(f"{value:+,}".replace("-", "−"), value)


def _verdict(certificate: Certificate, variant: Variant) -> Cell:
    if certificate.failures:
        return Cell(f"FAILED ({len(certificate.failures)})")
    if variant.duplicate_of:
        return Cell("certified", note=f"the same network and recipe as {variant.duplicate_of}: trained once")
    return Cell("certified")


def _plan_caption(prepared: Prepared) -> str:
    data = dict.fromkeys(prepared.data_of(variant.name).description for variant in prepared.plan.variants)
    protocols = {tuple(certificate.protocol) for certificate in prepared.certificates.values()}
    shared = " ".join(next(iter(protocols))) if len(protocols) == 1 else "The variants differ in protocol: see below."
    profile = prepared.plan.tree.get("profile")
    return f"{f'Profile {profile}. ' if profile else ''}Data: {'; '.join(data)}. {shared}"


def _plan_notes(prepared: Prepared, seconds: Mapping[str, float] | None) -> tuple[str, ...]:
    """What a reader must know before paying: failures, what the seeds can show, how long it takes."""
    notes = [f"not certified: {failure}" for failure in prepared.failures]
    for name, certificate in prepared.certificates.items():
        notes += [f"{name}: {note}" for note in certificate.effective]
        notes += [
            f"{name}: unused here: {orphan['path']} ({orphan['layer']})" for orphan in certificate.keys["orphans"]
        ]
        silent = certificate.passes.get("silent_at_first", [])
        if silent:
            seed = prepared.plan.seeds[0]
            notes.append(
                f"{name}: with seed {seed} a ReLU is silent at the start, and these do not move: {listed(silent)}"
            )
        notes += [f"{name}: not counted in FLOPs: {node} {ops}" for node, ops in certificate.cost["uncounted"].items()]
    protocols = {tuple(certificate.protocol) for certificate in prepared.certificates.values()}
    if len(protocols) > 1:
        notes += [f"{name}: {' '.join(certificate.protocol)}" for name, certificate in prepared.certificates.items()]
    notes.append(
        "nodes +/−/≠: added, removed, changed against the baseline. gradients: trainable parameters that receive one, "
        "with all parameters random. shared equal: parameters and buffers that start bit-equal to the baseline's, of "
        "those that it has in the same shape."
    )
    notes += _controls(prepared.plan)
    notes += _tuning(prepared.plan)
    notes += _seeds(prepared)
    notes.append(_power(prepared))
    notes.append(numerics(prepared.plan, prepared.settled))
    if seconds is not None:
        total = sum(value * len(prepared.plan.seeds) for value in seconds.values())
        at_once = prepared.settled.placement.concurrent
        most = len(prepared.plan.possible_seeds) / len(prepared.plan.seeds)
        longest = f"; with the most seeds about {duration(total * most / at_once)}" if most > 1 else ""
        notes.append(
            f"Estimated time: {duration(total)} of training in {len(prepared.trials)} trials; about "
            f"{duration(total / at_once)} with {at_once} at once{longest} (from a few timed steps of each variant)."
        )
    return tuple(notes)


def _seeds(prepared: Prepared) -> list[str]:
    """By which rule seeds are added, and how many trials that may come to."""
    plan = prepared.plan
    until = Until.of(plan.tree)
    if until is None:
        return []
    rule = rule_text(until, compared=any(variant.baseline for variant in plan.variants))
    first, most = (
        f"{len(plan.distinct) * len(seeds):,} trials of {len(seeds)} seeds"
        for seeds in (plan.seeds, plan.possible_seeds)
    )
    return [f"{rule}. That is {first} to begin with, and at most {most}."]


def numerics(plan: StudyPlan, settled: Resolved) -> str:
    """What ``auto`` came to: precision, placement, compiling."""
    profile = settled.numerics
    asked = {variant.train.precision for variant in plan.distinct}
    precisions = listed(sorted({profile.stated(each) for each in asked}))
    compiling = "compiled" if profile.compile else "not compiled"
    why = f" ({settled.compiling.why})" if settled.compiling.why else ""
    return f"Trained in {precisions} on {profile.device}. {settled.placement.text}. {compiling.capitalize()}{why}."


def _controls(plan: StudyPlan) -> list[str]:
    """Which variants are set beside a baseline that is as expensive, and which need none."""
    words = {"flops": "FLOPs", "params": "parameters"}
    notes = []
    for variant in plan.variants:
        if control := variant.control:
            notes.append(
                f"{variant.name}: a control, '{variant.baseline}' with {control.by} = {control.value}: "
                f"{control.reached:,} {words[control.match]} for the {control.wanted:,} of '{control.of}' "
                f"({off_by(control.reached, control.wanted)})"
            )
    for near in plan.near:
        within = f"within {100 * near.tolerance:g}% of those of '{near.baseline}'"
        notes.append(f"{near.variant}: no control: its {words[near.match]} are {within}")
    return notes


def _tuning(plan: StudyPlan) -> list[str]:
    """How many trials come before those that are listed."""
    waiting = [variant for variant in plan.distinct if variant.tuning is None]
    if "tune" not in plan.tree or not waiting:
        return []
    trials, space = plan.tree["tune"]["trials"], plan.tree["tune"]["space"]
    which = "each variant" if len(waiting) == len(plan.distinct) else "each of " + listed([v.name for v in waiting])
    return [
        f"First {which} will be tuned by {trials:,} trials over {space}: {len(waiting) * trials:,} trials more. "
        "Recipes, and what hangs on them, are here as the spec has them."
    ]


def _power(prepared: Prepared) -> str:
    plan = prepared.plan
    if len(plan.possible_seeds) > len(plan.seeds):
        return " With the most, ".join(_power_of(prepared, len(seeds)) for seeds in (plan.seeds, plan.possible_seeds))
    return _power_of(prepared, len(plan.seeds))


def _tests(plan: StudyPlan) -> set[tuple[str, str]]:
    """The comparisons with a baseline: what shares its trials is one variant."""
    same = {variant.name: variant.duplicate_of or variant.name for variant in plan.variants}
    pairs = {(same[variant.name], same[variant.baseline]) for variant in plan.variants if variant.baseline}
    return {(name, baseline) for name, baseline in pairs if name != baseline}


def _power_of(prepared: Prepared, seeds: int) -> str:
    compared = len(_tests(prepared.plan))
    if seeds < 2:
        return "One seed: no interval, and no difference can be told from noise."
    smallest = stats.smallest_p(seeds, 1)
    text = f"{seeds} seeds: the smallest p of one paired sign-flip test is {smallest:.3g}"
    if compared > 1:
        text += f", and {stats.smallest_p(seeds, compared):.3g} after Holm's correction over {compared} comparisons"
    detectable = stats.detectable_difference(1.0, seeds)
    if detectable is not None:
        text += (
            f"; a difference of {detectable:.1f} standard deviations of the paired differences is found with 80% power"
        )
    return text + "."


def blocks() -> Table:
    """A row per block."""
    columns = (Column("block"), Column("kind"), Column("parameters"), Column("what it is"))
    rows = tuple(
        (
            _text(name),
            _text("leaf" if issubclass(block, Block) else "composite"),
            _text(", ".join(_parameter(field, info) for field, info in block.Params.model_fields.items())),
            _text(block.summary()),
        )
        for name, block in registry().items()
    )
    return Table("blocks", columns, rows, "Parameters with their defaults; ! marks one that must be given.")


def block(name: str) -> Table:
    """One block's parameters. ``KeyError`` with a hint where there is none of that name."""
    known = registry()
    if name not in known:
        raise KeyError(unusable(name) or did_you_mean(name, known))
    kind: BlockType = known[name]
    columns = (Column("parameter"), Column("type"), Column("default"), Column("description"))
    schema = kind.Params.model_json_schema()
    rows = tuple(
        (
            _text(field),
            _text(_type(schema["properties"][field])),
            _text("required" if info.is_required() else info.default),
            _text(info.description or ""),
        )
        for field, info in kind.Params.model_fields.items()
    )
    return Table(name, columns, rows, kind.summary())


def _parameter(name: str, info: Any) -> str:
    return f"{name}!" if info.is_required() else f"{name}={info.default}"


def _type(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if "anyOf" in schema:
        return " | ".join(_type(option) for option in schema["anyOf"])
    return str(schema.get("type", ""))
