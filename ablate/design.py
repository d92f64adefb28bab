"""Factors and levels → variants → trials, and what makes two variants one.

Order: design → build → merge duplicates. A variant's name is its levels joined by ``/``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from math import prod
from typing import Any

from ablate import yamlfile
from ablate.block import Shape, registry
from ablate.collect import Collector, Orphan
from ablate.dataset import DataSpec, shape_of
from ablate.diagnose import shown
from ablate.errors import Place, Problem, UserError, did_you_mean
from ablate.grammar import AblationSpec, ExecutionSpec, PaperClaim, ReportSpec, TrainSpec
from ablate.network import INSERTION_KEYS, NODE_KEYS, Network, check_parameters_used, read_network
from ablate.spec import (
    MOST_SEEDS,
    Assignment,
    Spec,
    apply,
    level_path_problem,
    read_data,
    read_paper,
    read_section,
    read_train,
)

MOST_VARIANTS = 10_000
MOST_TRIALS = 100_000
IDENTITY_FORMAT = 1
"""Raised when the meaning of an identity changes, so that no stored result is taken for another."""


@dataclass(frozen=True)
class Level:
    """One value of a factor: what it assigns."""

    factor: str
    name: str
    assignments: tuple[Assignment, ...]
    place: Place | None


@dataclass
class Variant:
    """One network with one training recipe."""

    name: str
    levels: dict[str, str]
    network: Network
    data: DataSpec
    train: TrainSpec
    shape: Shape
    classes: int
    orphans: tuple[Orphan, ...] = ()
    assigned: tuple[Assignment, ...] = ()
    """The assignments of its levels that took effect."""
    inactive: tuple[Assignment, ...] = ()
    """Those that did not: what they were to change is not in this variant."""
    patched: tuple[Level, ...] = ()
    baseline: str | None = None
    """The variant that this one is compared with; ``None`` for a baseline and where there is none."""
    duplicate_of: str | None = None
    tree: yamlfile.Mapping = field(default_factory=yamlfile.Mapping, repr=False)

    @cached_property
    def identity_parts(self) -> dict[str, Any]:
        """What the variant is, but for names: network, initialisation, recipe, data."""
        return {
            "format": IDENTITY_FORMAT,
            "network": self.network.graph.canonical,
            "init": self.network.init.model_dump(mode="json"),
            "train": self.train.model_dump(mode="json"),
            "data": self.data.model_dump(mode="json", exclude={"root", "download", "title"}),
        }

    @cached_property
    def identity(self) -> str:
        """128 bits of SHA-256, hexadecimal."""
        return digest(self.identity_parts)

    def inactive_factors(self) -> frozenset[str]:
        """The factors whose level changes nothing here because what it changes is not in this variant."""
        acting = {assignment.layer for assignment in self.assigned}
        idle = {assignment.layer for assignment in self.inactive} | {orphan.layer for orphan in self.orphans}
        return frozenset(
            level.factor for level in self.patched if layer_of(level) in idle and layer_of(level) not in acting
        )


@dataclass
class StudyPlan:
    """Everything that a study is, before anything is trained."""

    spec: Spec
    tree: yamlfile.Mapping
    """The spec with ``--set``, without any level."""
    variants: list[Variant]
    seeds: list[int]
    execution: ExecutionSpec
    report: ReportSpec
    paper: list[PaperClaim]

    def variant(self, name: str) -> Variant:
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise UserError(
            Problem(f"no variant '{name}'", hint=did_you_mean(name, [variant.name for variant in self.variants]))
        )

    @property
    def distinct(self) -> list[Variant]:
        """The variants that are trained: duplicates share another's trials."""
        return [variant for variant in self.variants if variant.duplicate_of is None]


def digest(parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def layer_of(level: Level) -> str:
    return f"{level.factor}={level.name}"


def as_written(spec: Spec) -> Variant:
    """The spec as written, with ``--set``, without any level."""
    collector = Collector(spec.tree)
    variant = _variant(spec, spec.name, (), collector)
    collector.raise_if_any()
    assert variant is not None
    _check_activity(spec, [variant], [])
    return variant


def study_plan(spec: Spec) -> StudyPlan:
    """All variants of a spec, validated and compared. ``UserError`` carries everything that is wrong."""
    tree = apply(spec, ()).tree
    collector = Collector(tree)
    if not isinstance(tree.get("name"), str):
        collector.add(("name",), "missing: a study needs a name")
    execution = read_section(ExecutionSpec, tree.get("execution", {}), collector, ("execution",))
    report = read_section(ReportSpec, tree.get("report", {}), collector, ("report",))
    paper = read_paper(tree, collector)
    ablation = _read_ablation(tree, collector)
    written = _variant(spec, str(spec.tree.get("name", "spec")), (), collector)
    factors = _factors(ablation, collector)
    _check_count(factors, collector)
    _check_paths(factors, spec, collector)
    seeds = _seeds(ablation, collector) if ablation else []
    trials = len(seeds) * prod(len(levels) for levels in factors)
    if trials > MOST_TRIALS:
        collector.add(("ablation",), f"{trials:,} trials; at most {MOST_TRIALS:,}")
    if ablation is not None:
        _check_baseline(ablation, factors, collector)
    variants = _variants(spec, factors, written, collector)
    collector.raise_if_any()
    assert ablation is not None
    _check_activity(spec, variants, factors)
    _set_baselines(variants, ablation)
    _merge_duplicates(variants)
    _refuse_no_ops(variants, collector)
    for index, claim in enumerate(paper):
        for name in claim.values:
            if name not in {variant.name for variant in variants}:
                hint = did_you_mean(name, [variant.name for variant in variants])
                collector.add(("paper", index, "values", name), f"no variant '{name}'", hint)
    collector.raise_if_any()
    return StudyPlan(spec, tree, variants, seeds, execution, report, paper)


def trial_hash(variant: Variant, seed: int, content_hash: str, numerics: Mapping[str, Any]) -> str:
    """What a trial is: its variant's identity, the names that seed it, the data's content, the seed, the numerics.

    128 bits of SHA-256. Equal hashes mean equal results, bit for bit, on one kind of machine.
    """
    return digest([variant.identity, variant.network.graph.seeding_names, content_hash, seed, dict(numerics)])


def _read_ablation(tree: yamlfile.Mapping, collector: Collector) -> AblationSpec | None:
    section = tree.get("ablation")
    if section is None:
        return AblationSpec(seeds=1, design="variants", variants={str(tree.get("name", "spec")): {}})
    plain = {key: value for key, value in section.items() if key not in ("factors", "variants")}
    free = {key: section[key] for key in ("factors", "variants") if key in section}
    for key, value in free.items():
        if not isinstance(value, dict) or not value:
            collector.add(("ablation", key), f"not a mapping of {key}, with at least one", key=False)
    ablation: AblationSpec | None = read_section(AblationSpec, plain, collector, ("ablation",))
    if ablation is None:
        return None
    wanted = "variants" if ablation.design == "variants" else "factors"
    other = "factors" if wanted == "variants" else "variants"
    if wanted not in section:
        collector.add(("ablation", wanted), f"missing: design '{ablation.design}' needs {wanted}")
    if other in section:
        collector.add(("ablation", other), f"unused: design '{ablation.design}' takes {wanted}")
    return ablation.model_copy(update={key: value for key, value in free.items() if isinstance(value, dict)})


def _seeds(ablation: AblationSpec, collector: Collector) -> list[int]:
    count = ablation.seeds if isinstance(ablation.seeds, int) else len(ablation.seeds)
    if not 1 <= count <= MOST_SEEDS:
        collector.add(("ablation", "seeds"), f"{shown(count)} seeds; from 1 to {MOST_SEEDS:,}", key=False)
        return []
    seeds = list(range(count)) if isinstance(ablation.seeds, int) else list(ablation.seeds)
    if len(set(seeds)) < len(seeds):
        collector.add(("ablation", "seeds"), "a seed is given twice", key=False)
    elif min(seeds) < 0:
        collector.add(("ablation", "seeds"), "a seed is negative", "seeds count from 0", key=False)
    return seeds


def _factors(ablation: AblationSpec | None, collector: Collector) -> list[list[Level]]:
    """The levels of each factor; hand-listed variants are the levels of one factor called ``variant``."""
    if ablation is None:
        return []
    if ablation.design == "variants":
        patches = ablation.variants or {}
        path = ("ablation", "variants")
        return [[_level("variant", name, patch, collector, (*path, name)) for name, patch in patches.items()]]
    return [_factor(name, value, collector) for name, value in (ablation.factors or {}).items()]


def _factor(name: str, value: Any, collector: Collector) -> list[Level]:
    path = ("ablation", "factors", name)
    if name_problem := _label_problem(name):
        collector.add(path, name_problem)
    if not isinstance(value, dict) or not value:
        collector.add(path, "not a mapping of levels to patches", "{path: …, levels: […]} or {level: {path: value}}")
        return []
    if set(value) != {"path", "levels"}:
        if isinstance(value.get("path"), str):
            collector.add(path, "a factor of one path is written {path: …, levels: […]}")
            return []
        return [_level(name, level, patch, collector, (*path, level)) for level, patch in value.items()]
    if not isinstance(value["path"], str) or not isinstance(value["levels"], yamlfile.Sequence) or not value["levels"]:
        collector.add(path, "'path' is one dotted path and 'levels' a list of at least one value")
        return []
    if problem := level_path_problem(value["path"]):
        collector.add((*path, "path"), problem[0], problem[1], key=False)
        return []
    levels: dict[str, Level] = {}
    items: yamlfile.Sequence = value["levels"]
    for index, item in enumerate(items):
        place = items.values_at[index]
        label = _label(item)
        if label in levels:
            collector.add((*path, "levels", index), f"level {shown(label)} is given twice", key=False)
            continue
        if wrong := _label_problem(label):
            collector.add((*path, "levels", index), wrong, "name the levels: {level: {path: value}}", key=False)
        levels[label] = _checked_level(name, label, {value["path"]: (item, place, place)}, place, collector)
    return list(levels.values())


def _label(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _label_problem(label: str) -> str | None:
    if not label or len(label) > 200 or not label.isprintable() or "/" in label or "=" in label:
        return f"{shown(label)} can't name a level: 1 to 200 printable characters without / and ="
    return None


def _level(factor: str, name: str, patch: Any, collector: Collector, path: tuple[str, ...]) -> Level:
    problem = _label_problem(name)
    if problem:
        collector.add(path, problem)
    if patch is None or not isinstance(patch, dict):
        collector.add(path, f"{shown(patch)} is not a patch; a mapping of dotted path to value", "{} changes nothing")
        patch = yamlfile.Mapping()
    items = {key: (value, patch.keys_at[key], patch.values_at[key]) for key, value in patch.items()}
    places = getattr(collector.tree, "keys_at", {})
    place = next((place for _, place, _ in items.values()), places.get("ablation"))
    return _checked_level(factor, name, items, place, collector)


def _checked_level(
    factor: str, name: str, patch: Mapping[str, tuple[Any, Place, Place]], place: Place | None, collector: Collector
) -> Level:
    layer = f"{factor}={name}"
    assignments = []
    for path, (value, at, value_at) in patch.items():
        problem = level_path_problem(path)
        if problem:
            collector.extend([Problem(problem[0], path, at, problem[1])])
        else:
            assignments.append(Assignment(tuple(path.split(".")), value, at, layer, value_at))
    return Level(factor, name, tuple(assignments), place)


def _check_paths(factors: list[list[Level]], spec: Spec, collector: Collector) -> None:
    """Two factors on one path, or ``--set`` on a path that a factor varies, would leave one without effect."""
    owners: dict[tuple[str, ...], str] = {}
    for level in (level for levels in factors for level in levels):
        for assignment in level.assignments:
            owner = owners.setdefault(assignment.path, level.factor)
            if owner != level.factor:
                message = f"factors '{owner}' and '{level.factor}' both set this path"
                collector.extend([Problem(message, assignment.dotted, assignment.place, "join them in one factor")])
    for assignment in spec.sets:
        for path, factor in owners.items():
            if path[: len(assignment.path)] == assignment.path:
                message = f"--set {assignment.dotted}: factor '{factor}' varies {'.'.join(path)}"
                collector.extend([Problem(message, hint="change the factor's levels")])
                break


def _check_count(factors: list[list[Level]], collector: Collector) -> None:
    """Raised at once: nothing is expanded for a study of a million variants."""
    count = prod(len(levels) for levels in factors)
    if count > MOST_VARIANTS:
        collector.add(("ablation",), f"{count:,} variants; at most {MOST_VARIANTS:,}")
        collector.raise_if_any()


def _variants(spec: Spec, factors: list[list[Level]], written: Variant | None, collector: Collector) -> list[Variant]:
    combinations = product(*factors)
    if written is None:
        # The spec itself is wrong: each level is still looked at once, for mistakes of its own.
        combinations = iter([(level,) for levels in factors for level in levels])  # type: ignore[assignment]
    variants: list[Variant] = []
    for levels in combinations:
        variant = _variant(spec, "/".join(level.name for level in levels), levels, collector)
        if variant is not None:
            variants.append(variant)
    return variants


def _variant(spec: Spec, name: str, levels: Iterable[Level], collector: Collector) -> Variant | None:
    """One variant, or ``None`` with its problems in ``collector``."""
    levels = tuple(levels)
    try:
        applied = apply(spec, [assignment for level in levels for assignment in level.assignments])
    except UserError as error:
        collector.extend(error.problems)
        return None
    own = Collector(applied.tree)
    data = read_data(applied.tree, own)
    train = read_train(applied.tree, own)
    network = None
    shape: Shape = ()
    classes = 0
    if data is not None:
        try:
            shape, classes = shape_of(data, base=spec.folder, trusted_root=root_is_trusted(spec))
        except UserError as error:
            own.extend(_at_data(error, applied.tree))
    section = applied.tree.get("network")
    if section is None:
        own.add(("network",), "missing: which network?", "extends: a model, or give network.graph")
    elif shape:
        network = read_network(section, shape, classes, own, applied.removed_nodes)
    else:
        read_network(section, (3, 32, 32), 10, own, applied.removed_nodes)
    if not levels:
        check_parameters_used(applied.tree, own)
    if network is not None:
        _check_output(network, classes, own)
    if train is not None and data is not None:
        _check_protocol(train, data, own)
    collector.extend(own.problems)
    if own.problems or data is None or train is None or network is None:
        return None
    dropped = {(orphan.path, orphan.layer) for orphan in own.orphans}
    wanted = [*(assignment for level in levels for assignment in level.assignments), *spec.sets]
    idle = [a for a in wanted if a in applied.inactive or (a.dotted, a.layer) in dropped]
    return Variant(
        name,
        {level.factor: level.name for level in levels},
        network,
        data,
        train,
        shape,
        classes,
        tuple(own.orphans),
        tuple(a for a in wanted if a not in idle),
        tuple(idle),
        levels,
        tree=applied.tree,
    )


def root_is_trusted(spec: Spec) -> bool:
    return any(assignment.path == ("data", "root") for assignment in spec.sets)


def _at_data(error: UserError, tree: yamlfile.Mapping) -> list[Problem]:
    """The problems of a data set, at the place of the ``data`` section where they have none."""
    place = yamlfile.place_of(tree, ("data", "name"))
    return [
        problem if problem.place else Problem(problem.message, problem.path or "data", place, problem.hint)
        for problem in error.problems
    ]


def _check_output(network: Network, classes: int, collector: Collector) -> None:
    """The loss would take scores of more classes than there are, and say nothing."""
    graph = network.graph
    shape = graph.shape(graph.output)
    if shape != (classes,):
        message = f"the output of the network, '{graph.output}', has shape {shape}; the data have {classes} classes"
        collector.add(("network", "graph"), f"{message}, so ({classes},) was expected", "block: classifier gives that")


def _check_protocol(train: TrainSpec, data: DataSpec, collector: Collector) -> None:
    stopping = train.early_stopping
    if data.val is None and train.select == "best":
        message = "'best' is chosen on validation, and data.val is missing"
        collector.add(("train", "select"), message, "add data.val", key=False)
    if data.val is None and stopping is not None and stopping.monitor.startswith("val."):
        path = ("train", "early_stopping", "monitor")
        collector.add(path, f"'{stopping.monitor}' needs a validation split", "add data.val", key=False)
    if train.select == "ema" and train.ema is None:
        collector.add(("train", "select"), "'ema' needs an average", "add train.ema: {decay: 0.999}", key=False)
    if train.ema is not None and train.select != "ema":
        collector.add(("train", "ema"), "unused: select is not ema", "select: ema")


def _check_activity(spec: Spec, variants: list[Variant], factors: list[list[Level]]) -> None:
    """Every path that a factor or ``--set`` assigns must act in at least one variant."""
    acting = {(assignment.path, assignment.layer) for variant in variants for assignment in variant.assigned}
    acting_paths = {(path, layer.partition("=")[0]) for path, layer in acting}
    wanted = [assignment for levels in factors for level in levels for assignment in level.assignments]
    never: dict[tuple[str, str], Problem] = {}
    for assignment in [*wanted, *spec.sets]:
        owner = assignment.layer.partition("=")[0]
        if (assignment.path, owner) not in acting_paths:
            message = "has no effect in any variant: what it changes is not there, or does not take it"
            hint = next((hint for variant in variants if (hint := _meant(variant, assignment))), "")
            problem = Problem(message, assignment.dotted, assignment.place, hint)
            if owner == "--set":
                problem = Problem(f"--set {assignment.dotted} {message}", hint=hint)
            never.setdefault((assignment.dotted, owner), problem)
    if never:
        raise UserError(never.values())


def _meant(variant: Variant, assignment: Assignment) -> str:
    """A hint with the parameter that an orphan of this variant was perhaps meant to be."""
    if all((orphan.path, orphan.layer) != (assignment.dotted, assignment.layer) for orphan in variant.orphans):
        return ""
    beside: Any = variant.tree
    for part in assignment.path[:-1]:
        beside = beside[part]
    block = registry().get(str(beside.get("block")))
    known = [*block.Params.model_fields, *NODE_KEYS, *INSERTION_KEYS] if block else []
    hint = did_you_mean(assignment.path[-1], known)
    return hint if hint.startswith("did") else ""


def _check_baseline(ablation: AblationSpec, factors: list[list[Level]], collector: Collector) -> None:
    baseline = ablation.baseline
    path = ("ablation", "baseline")
    if isinstance(baseline, str):
        names = ["/".join(level.name for level in levels) for levels in product(*factors)]
        if baseline not in names:
            collector.add(path, f"no variant '{baseline}'", did_you_mean(baseline, names), key=False)
        return
    levels = {group[0].factor: [level.name for level in group] for group in factors if group}
    for factor, value in (baseline or {}).items():
        level = _label(value)
        if factor not in levels:
            collector.add((*path, factor), f"no factor '{factor}'", did_you_mean(factor, levels))
        elif level not in levels[factor]:
            hint = did_you_mean(level, levels[factor])
            collector.add((*path, factor), f"factor '{factor}' has no level '{level}'", hint, key=False)


def _set_baselines(variants: list[Variant], ablation: AblationSpec) -> None:
    """Each variant's baseline: the variant of that name, or the one that shares its other levels."""
    baseline = ablation.baseline
    if baseline is None:
        return
    by_levels = {tuple(variant.levels.items()): variant.name for variant in variants}
    for variant in variants:
        name = baseline
        if not isinstance(name, str):
            wanted = {factor: _label(value) for factor, value in name.items()}
            name = by_levels[tuple({**variant.levels, **wanted}.items())]
        variant.baseline = None if name == variant.name else name


def _merge_duplicates(variants: list[Variant]) -> None:
    first: dict[tuple[str, str | None], str] = {}
    for variant in variants:
        # The identity leaves out where the data lie, since a trial's hash has their content. Nothing is read here yet.
        known = first.setdefault((variant.identity, variant.data.root), variant.name)
        variant.duplicate_of = None if known == variant.name else known


def _refuse_no_ops(variants: list[Variant], collector: Collector) -> None:
    """A variant that equals its baseline although an active patch was to change it."""
    by_name = {variant.name: variant for variant in variants}
    for variant in variants:
        baseline = by_name.get(variant.baseline or "")
        same = baseline is not None and (variant.identity, variant.data.root) == (baseline.identity, baseline.data.root)
        if baseline is None or not same:
            continue
        differing = {factor for factor, level in variant.levels.items() if baseline.levels[factor] != level}
        acting = [
            assignment
            for side in (variant, baseline)
            for assignment in side.assigned
            if assignment.layer.partition("=")[0] in differing
        ]
        if acting:
            what = ", ".join(dict.fromkeys(assignment.dotted for assignment in acting))
            message = f"variant '{variant.name}' is the baseline '{baseline.name}': setting {what} changes nothing"
            notes = [note for node in variant.network.graph.nodes for note in node.notes]
            hint = f"effective sizes: {'; '.join(dict.fromkeys(notes))}" if notes else ""
            collector.extend([Problem(message, "ablation", acting[0].place, hint)])
