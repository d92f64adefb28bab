"""The variants of a study: its combinations, each read, built and compared with the others.

Order: zip → design → exclude (``combinations``) → build → merge duplicates → controls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ablate import yamlfile
from ablate.block import Shape
from ablate.collect import Collector
from ablate.data.dataset import DataSpec, shape_of
from ablate.design.activity import check_activity, owner
from ablate.design.combinations import AS_WRITTEN, Combination, Combined, combine
from ablate.design.conflicts import check_paths
from ablate.design.controls import Near, add_controls, check_controls
from ablate.design.levels import Factors, Level, more_seeds, read_ablation, read_factors, read_seeds
from ablate.design.own_keys import own_key_problems, without_repeats
from ablate.design.reported import check_auto_interval, check_columns, check_interval, check_published, check_until
from ablate.design.variant import Variant
from ablate.errors import Problem, UserError, did_you_mean
from ablate.grammar import AblationSpec, ExecutionSpec, PaperClaim, ReportSpec, TrainSpec
from ablate.network import Network, Permission, check_parameters_used, read_network, with_weights
from ablate.recipe import check_recipe
from ablate.spec import Assignment, Spec, apply, read_data, read_paper, read_section, read_train
from ablate.trainable import resolve

MOST_TRIALS = 100_000


@dataclass
class StudyPlan:
    """Everything that a study is, before anything is trained."""

    spec: Spec
    tree: yamlfile.Mapping
    """The spec with its profile and ``--set``, without any level."""
    variants: list[Variant]
    seeds: list[int]
    execution: ExecutionSpec
    report: ReportSpec
    paper: list[PaperClaim]
    design: str = "variants"
    expected: int | None = None
    """How many trials there will be, where they are not all listed: of a search."""
    near: tuple[Near, ...] = ()
    """The variants that need no control."""
    most_seeds: int | None = None
    """How many seeds there may come to be, where they are not all stated: with ``seeds: auto``."""

    def variant(self, name: str) -> Variant:
        for variant in self.variants:
            if variant.name == name:
                return variant
        raise UserError(
            Problem(f"no variant '{name}'", hint=did_you_mean(name, [variant.name for variant in self.variants]))
        )

    @property
    def possible_seeds(self) -> list[int]:
        """The seeds, and those that may be added as the study goes."""
        return more_seeds(self.seeds, self.most_seeds or 0)

    @property
    def distinct(self) -> list[Variant]:
        """The variants that are trained: duplicates share another's trials."""
        return [variant for variant in self.variants if variant.duplicate_of is None]


def as_written(spec: Spec) -> Variant:
    """The spec as written, with its profile and ``--set``, without any level."""
    collector = Collector(spec.tree)
    variant = _variant(spec, spec.name, (), collector)
    collector.problems = without_repeats(collector.problems, own_key_problems(spec, ()))
    collector.raise_if_any()
    assert variant is not None
    check_activity(spec, [variant], [])
    return variant


def variant_at(spec: Spec, name: str, levels: Iterable[Level], *, phases: bool = False) -> Variant:
    """The spec with these levels, as a variant of that name; ``UserError`` with everything that is wrong with it.

    What a level changes may be absent here (``Variant.inactive``). With ``phases`` each acts after the last, as those
    of a ladder do.
    """
    collector = Collector(spec.tree)
    variant = _variant(spec, name, levels, collector, phases=phases)
    collector.raise_if_any()
    assert variant is not None
    return variant


def search_plan(spec: Spec, section: Mapping[str, Any], trials: int) -> StudyPlan:
    """What a search of so many trials is planned by: the spec as written, with the first of its seeds.

    ``section`` is what the plan's tree is to say of the search.
    """
    tree = apply(spec).tree
    collector = Collector(tree)
    if not isinstance(tree.get("name"), str):
        collector.add(("name",), "missing: a study needs a name")
    execution = read_section(ExecutionSpec, tree.get("execution", {}), collector, ("execution",))
    ablation = read_section(AblationSpec, _seeds_of(tree), collector, ("ablation",))
    seeds = read_seeds(ablation, collector) if ablation else []
    collector.raise_if_any()
    assert execution is not None
    tree.pop("tune", None)
    tree["search"] = yamlfile.Mapping({**section, "seed": seeds[0]})
    return StudyPlan(spec, tree, [as_written(spec)], seeds[:1], execution, ReportSpec(), [], "search", trials)


def _seeds_of(tree: yamlfile.Mapping) -> dict[str, Any]:
    """What ``ablation`` says of seeds."""
    section = tree.get("ablation")
    said = section if isinstance(section, dict) else {}
    return {"seeds": 1} | {key: said[key] for key in ("seeds", "until") if key in said}


def study_plan(spec: Spec) -> StudyPlan:
    """All variants of a spec, validated and compared. ``UserError`` carries everything that is wrong."""
    tree = apply(spec).tree
    collector = Collector(tree)
    if not isinstance(tree.get("name"), str):
        collector.add(("name",), "missing: a study needs a name")
    execution = read_section(ExecutionSpec, tree.get("execution", {}), collector, ("execution",))
    report = read_section(ReportSpec, tree.get("report", {}), collector, ("report",))
    paper = read_paper(tree, collector)
    written = _variant(spec, spec.name, (), collector)
    ablation = read_ablation(tree, collector)
    factors = read_factors(ablation, collector) if ablation else {}
    combined = combine(ablation, factors, collector) if ablation else Combined()
    if ablation:
        check_paths(ablation.design, factors, spec.sets, collector)
        check_controls(ablation, factors, spec.sets, collector)
    seeds = read_seeds(ablation, collector) if ablation else []
    until = ablation.until if ablation else None
    possible = more_seeds(seeds, until.most if until else 0)
    _check_trials(len(possible) * len(combined.kept), collector)
    sound = written is not None and bool(combined.kept)
    wanted = combined.kept if sound else _once_each(combined, factors, ablation)
    variants = _variants(spec, wanted, collector, named=sound)
    levels = [level for levels in factors.values() for level in levels]
    assigned = [assignment for level in levels for assignment in level.assignments]
    collector.problems = without_repeats(collector.problems, own_key_problems(spec, assigned))
    collector.raise_if_any()
    assert ablation is not None
    check_activity(spec, variants, levels)
    for variant in variants:
        variant.baseline = combined.baselines.get(variant.name)
    _merge_duplicates(variants)
    _refuse_no_ops(variants, combined.kept, collector)
    near = _controlled(spec, ablation, variants, collector)
    _check_trials(len(possible) * len(variants), collector)
    check_published(paper, variants, collector)
    check_columns(report, variants, collector)
    if until is None:
        check_interval(report, len(seeds), collector)
    _check_seeds_of_weights(variants, possible, collector)
    if until is not None:
        check_until(until, variants, collector)
        check_auto_interval(report, collector)
    collector.raise_if_any()
    if until is not None:  # with its defaults, so that a study says by which rule its seeds came
        tree["ablation"] = yamlfile.Mapping({**tree["ablation"], "until": until.model_dump()})
    most = until.most if until else None
    return StudyPlan(spec, tree, variants, seeds, execution, report, paper, ablation.design, near=near, most_seeds=most)


def _check_trials(count: int, collector: Collector) -> None:
    if count > MOST_TRIALS:
        collector.add(("ablation",), f"{count:,} trials; at most {MOST_TRIALS:,}")


def _controlled(spec: Spec, ablation: AblationSpec, variants: list[Variant], collector: Collector) -> tuple[Near, ...]:
    """Adds the controls to the variants; those of them that need none."""

    def made(baseline: Variant, name: str, level: Level, own: Collector) -> Variant | None:
        return _variant(spec, name, (*baseline.patched, level), own, phases=ablation.design == "ladder")

    controls, near = add_controls(ablation, variants, made, collector)
    variants += controls
    _merge_duplicates(variants)
    return tuple(near)


def _once_each(combined: Combined, factors: Factors, ablation: AblationSpec | None) -> list[Combination]:
    """Where the spec itself is wrong, each level is still looked at once, for mistakes of its own."""
    if ablation is None or ablation.design == "ladder":  # a patch may need those before it
        return combined.kept
    return [
        Combination(level.layer, {level.factor: level.name}, (level,))
        for levels in factors.values()
        for level in levels
    ]


def _variants(spec: Spec, combinations: list[Combination], collector: Collector, *, named: bool) -> list[Variant]:
    """Those that are sound. With ``named``, a problem that not every variant with a level has names those that do."""
    variants: list[Variant] = []
    found: dict[Problem, list[str]] = {}
    for each in combinations:
        own = Collector(collector.tree)
        variant = _variant(spec, each.name, each.patches, own, phases=each.phases)
        for problem in own.problems:
            found.setdefault(problem, []).append(each.name)
        if variant is not None:
            variant.levels = dict(each.levels)
            variants.append(variant)
    uses = Counter(level.layer for each in combinations for level in each.patches)
    layers = {
        at: a.layer for each in combinations for level in each.patches for a in level.assignments for at in a.places
    }
    for problem, names in found.items():
        layer = layers.get(str(problem.place), problem.place.layer if problem.place else "")
        collector.extend([problem if uses[layer] == len(names) or not named else _in_variants(problem, names)])
    return variants


def _in_variants(problem: Problem, names: list[str]) -> Problem:
    others = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return replace(problem, message=f"in variant '{names[0]}'{others}: {problem.message}")


def _variant(
    spec: Spec, name: str, levels: Iterable[Level], collector: Collector, *, phases: bool = False
) -> Variant | None:
    """One variant, or ``None`` with its problems in ``collector``. With ``phases``, each level acts after the last."""
    levels = tuple(levels)
    # By the factors' names: in which order they are written does not decide which of two insertions comes first.
    in_order = [
        list(level.assignments) for level in (levels if phases else sorted(levels, key=lambda level: level.factor))
    ]
    try:
        applied = apply(spec, *(in_order if phases else [[a for assignments in in_order for a in assignments]]))
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
        permission = Permission(spec.folder, spec.trusted)
        network = read_network(section, shape, classes, own, applied.removed_nodes, permission)
    else:
        read_network(section, (3, 32, 32), 10, own, applied.removed_nodes)
    if not levels:
        check_parameters_used(applied.tree, own)
    if network is not None:
        network = with_weights(network, own, base=spec.folder, trusted=weights_are_trusted(spec))
        check_output(network, classes, own)
    if train is not None and data is not None:
        _check_protocol(train, data, own)
        if shape:
            check_recipe(train, classes, data.mix is not None, own)
    trainable = resolve(train, network.graph, own, spec.tree) if train is not None and network is not None else None
    collector.extend(own.problems)
    if own.problems or data is None or train is None or network is None or trainable is None:
        return None
    dropped = {(orphan.path, orphan.layer) for orphan in own.orphans}
    made = [assignment for level in levels for assignment in level.assignments]
    overridden = [a for a in spec.profiled if any(a.path[: len(level.path)] == level.path for level in made)]
    wanted = [*(a for a in spec.profiled if a not in overridden), *made, *spec.sets]
    idle = [a for a in wanted if a in applied.inactive or (a.dotted, a.layer) in dropped]
    idle += [a for a in overridden if any(_is_replaced(a, level) for level in made)]
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
        trainable=trainable,
        tree=applied.tree,
    )


def _is_replaced(profiled: Assignment, level: Assignment) -> bool:
    """Whether a level puts a mapping, and none that says this, over what a profile assigns; a network says it all."""
    depth = len(level.path)
    if not (profiled.path[:depth] == level.path and len(profiled.path) > depth and isinstance(level.value, dict)):
        return False
    stated: Any = level.value
    for part in profiled.path[depth:]:
        stated = stated.get(part) if isinstance(stated, dict) else None
    return level.path == ("network",) or stated is None


def root_is_trusted(spec: Spec) -> bool:
    return any(assignment.path == ("data", "root") for assignment in spec.sets)


def weights_are_trusted(spec: Spec) -> bool:
    return any(assignment.path == ("network", "init", "from") for assignment in spec.sets)


def _check_seeds_of_weights(variants: list[Variant], seeds: list[int], collector: Collector) -> None:
    """Each trial starts from the weights of its own seed's trial: the study that it starts from has to have one."""
    for variant in variants:
        weights = variant.network.weights
        known = weights.source.seeds if weights is not None else None
        missing = [str(seed) for seed in seeds if known is not None and seed not in known]
        if missing:
            has = ", ".join(map(str, known or ()))
            place = yamlfile.place_of(variant.tree, ("network", "init", "from"), key=False)
            message = f"there are no weights of seed {', '.join(missing)}: the study's seeds are {has}"
            collector.extend([Problem(message, "network.init.from", place, "give ablation.seeds some of these")])


def _at_data(error: UserError, tree: yamlfile.Mapping) -> list[Problem]:
    """The problems of a data set, at the place of the ``data`` section where they have none."""
    place = yamlfile.place_of(tree, ("data", "name"))
    return [
        problem if problem.place else Problem(problem.message, problem.path or "data", place, problem.hint)
        for problem in error.problems
    ]


def check_output(network: Network, classes: int, collector: Collector) -> None:
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
    if data.val is None and data.limit is not None and data.limit.val is not None:
        collector.add(("data", "limit", "val"), "there is no val split to limit", "add data.val")
    if train.evaluate is not None and data.val is None and not train.evaluates_test:
        collector.add(("train", "evaluate"), "there is no val split to evaluate", "add data.val")
    if train.evaluate is not None and train.evaluate.every > train.epochs:
        message = f"{train.evaluate.every} epochs are more than the {train.epochs} that are trained"
        collector.add(("train", "evaluate", "every"), message, "leave it out: the last is evaluated", key=False)
    if train.select == "ema" and train.ema is None:
        collector.add(("train", "select"), "'ema' needs an average", "add train.ema: {decay: 0.999}", key=False)
    if train.ema is not None and train.select != "ema":
        collector.add(("train", "ema"), "unused: select is not ema", "select: ema")


def _merge_duplicates(variants: list[Variant]) -> None:
    first: dict[tuple[str | None, ...], str] = {}
    for variant in variants:
        known = first.setdefault(variant.sameness, variant.name)
        variant.duplicate_of = None if known == variant.name else known


def _refuse_no_ops(variants: list[Variant], combinations: list[Combination], collector: Collector) -> None:
    """A variant that equals its baseline, or the row before it, although an active patch was to change it."""
    by_name = {variant.name: variant for variant in variants}
    before = {combination.name: combination.row_before for combination in combinations}
    for variant in variants:
        others = {before.get(variant.name): "the row before it,", variant.baseline: "the baseline"}
        for name, what in others.items():
            if name is not None and variant.sameness == by_name[name].sameness:
                _refuse_no_op(variant, by_name[name], what, collector)


def _refuse_no_op(variant: Variant, other: Variant, what: str, collector: Collector) -> None:
    differing = {factor for factor, level in variant.levels.items() if other.levels[factor] != level}
    acting = [a for side in (variant, other) for a in side.assigned if owner(a) in differing]
    if not acting:
        return
    paths = ", ".join(dict.fromkeys(assignment.dotted for assignment in acting))
    message = f"variant '{variant.name}' is {what} '{other.name}': setting {paths} changes nothing"
    notes = [note for node in variant.network.graph.nodes for note in node.notes]
    hint = f"effective sizes: {'; '.join(dict.fromkeys(notes))}" if notes else ""
    unnamed = [factor for factor in differing if other.levels[factor] == AS_WRITTEN]
    if unnamed and not notes:
        hint = f"if that is what the spec says, name it: reference: {{{unnamed[0]}: {variant.levels[unnamed[0]]}}}"
    collector.extend([Problem(message, "ablation", acting[0].place, hint)])
