"""The facts about one variant, as plain data: what was asked, what came of it, what it is beside its baseline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from ablate.certify import Certificate, effective_sizes
from ablate.collect import Orphan
from ablate.costing import Cost, cost_of
from ablate.design import StudyPlan
from ablate.design.variant import Variant
from ablate.difference import difference, recipe_difference
from ablate.graph import Graph
from ablate.spec import Assignment, split_path


@dataclass
class Explanation:
    """The facts about one variant, as plain data."""

    variant: str
    study: str
    design: str
    profile: str | None
    baseline: str | None
    is_baseline_of: list[str]
    asked: list[dict[str, Any]]
    """Each level, and the profile and ``--set``: what it assigns, and where it says so."""
    insertions: list[dict[str, Any]]
    cost: dict[str, int]
    difference: dict[str, Any] | None
    recipe: list[dict[str, Any]] = field(default_factory=list)
    """What of train, data and init differs from the baseline: path, here, there."""
    inactive: list[dict[str, Any]] = field(default_factory=list)
    effective: dict[str, list[str]] = field(default_factory=dict)
    """Where a size was rounded or clamped: what was, and at which nodes."""
    duplicate_of: str | None = None
    duplicates: list[str] = field(default_factory=list)
    control: dict[str, Any] | None = None
    """Of a control: of which variant, and how its cost was matched."""
    controls: list[str] = field(default_factory=list)
    """The controls of this variant."""
    frozen: list[str] = field(default_factory=list)
    certificate: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def explain(plan: StudyPlan, variant: Variant, certificate: Certificate | None = None) -> Explanation:
    """The facts about one variant of a study; without a certificate, what is known before any pass."""
    cost = cost_of(variant.network.graph)
    baseline = plan.variant(variant.baseline) if variant.baseline else None
    return Explanation(
        variant=variant.name,
        study=str(plan.tree["name"]),
        design=plan.design,
        profile=plan.spec.profile,
        baseline=variant.baseline,
        is_baseline_of=[each.name for each in plan.variants if each.baseline == variant.name],
        asked=_asked(plan, variant),
        insertions=_insertions(variant, baseline, cost),
        cost={"params": cost.params, "flops": cost.flops},
        difference=difference(variant.network.graph, baseline.network.graph, cost) if baseline else None,
        recipe=recipe_difference(variant, baseline) if baseline else [],
        inactive=[*_inactive(plan, variant), *(_orphan(variant, orphan) for orphan in variant.orphans)],
        effective=_effective(variant.network.graph),
        duplicate_of=variant.duplicate_of,
        duplicates=[each.name for each in plan.variants if each.duplicate_of == variant.name],
        control=asdict(variant.control) if variant.control else None,
        controls=[each.name for each in plan.variants if each.control and each.control.of == variant.name],
        frozen=list(variant.trainable.frozen),
        certificate=certificate.as_dict() if certificate else None,
    )


def _asked(plan: StudyPlan, variant: Variant) -> list[dict[str, Any]]:
    by_layer = {level.layer: level for level in variant.patched}
    asked: list[dict[str, Any]] = []
    groups: list[tuple[str, str | None, tuple[Assignment, ...]]] = [
        (factor, name, by_layer[f"{factor}={name}"].assignments if f"{factor}={name}" in by_layer else ())
        for factor, name in variant.levels.items()
    ]
    if variant.control:
        solved = tuple(a for level in variant.patched if level.factor == variant.control.by for a in level.assignments)
        groups.append((f"{variant.control.match} of {variant.control.of}", None, solved))
    if plan.spec.profiled:
        groups.append((f"--profile {plan.spec.profile}", None, plan.spec.profiled))
    if plan.spec.sets:
        groups.append(("--set", None, plan.spec.sets))
    for factor, name, assignments in groups:
        assigns = [_assignment(each, _replaced_by(plan, variant, each)) for each in assignments]
        asked.append({"factor": factor, "level": name, "assigns": assigns})
    return asked


def _replaced_by(plan: StudyPlan, variant: Variant, assignment: Assignment) -> str | None:
    """Who assigned the same path, or one above it, afterwards: a row of a ladder, a level over a profile, ``--set``."""
    rows = [level.assignments for level in variant.patched]
    phases = rows if plan.design == "ladder" else [tuple(each for row in rows for each in row)]
    order = [plan.spec.profiled, *phases, plan.spec.sets]
    mine = next((number for number, phase in enumerate(order) if assignment in phase), len(order))
    later = [each for phase in order[mine + 1 :] for each in phase]
    return next((each.layer for each in later if each.path == assignment.path[: len(each.path)]), None)


def _assignment(assignment: Assignment, replaced_by: str | None) -> dict[str, Any]:
    place = assignment.place
    at = f"{place.file}:{place.line}" if place.file != "--set" else ""
    return {"path": assignment.dotted, "value": assignment.value, "place": at, "replaced_by": replaced_by}


def _insertions(variant: Variant, baseline: Variant | None, cost: Cost) -> list[dict[str, Any]]:
    """What each insertion is, where it stands and what it costs; those of the baseline that are not here too."""
    own = cost.by_insertion()
    base = cost_of(baseline.network.graph).by_insertion() if baseline else {}
    found = []
    for insertion in variant.network.insertions:
        params, flops = own.get(insertion.name, (0, 0))
        entry = {
            "name": insertion.name,
            "block": insertion.block.name,
            "at": [str(at) for at in insertion.at],
            "residual": insertion.residual.kind,
            "places": _places(variant.network.graph, insertion.name),
            "nodes": [node.name for node in variant.network.graph.insertion_nodes(insertion.name)],
            "params": params,
            "flops": flops,
        }
        there = base.get(insertion.name, (0, 0))
        found.append(entry | ({"baseline": list(there)} if baseline else {}))
    here = {insertion.name for insertion in variant.network.insertions}
    gone = [each for each in (baseline.network.insertions if baseline else ()) if each.name not in here]
    return found + [
        {
            "name": each.name,
            "block": each.block.name,
            "places": [],
            "nodes": [],
            "baseline": list(base.get(each.name, (0, 0))),
        }
        for each in gone
    ]


def _places(graph: Graph, insertion: str) -> list[str]:
    """The names of what was inserted, a place each: ``stage1_attention``."""
    found: dict[str, None] = {}
    for node in graph.insertion_nodes(insertion):
        parts = node.name.split(".")
        depth = next((i for i, part in enumerate(parts, 1) if part.endswith(f"_{insertion}")), 0)
        if depth:
            found[".".join(parts[:depth])] = None
    return list(found)


def _inactive(plan: StudyPlan, variant: Variant) -> Iterable[dict[str, Any]]:
    orphaned = {(orphan.path, orphan.layer) for orphan in variant.orphans}
    levels = [a for level in variant.patched for a in level.assignments]
    made = [*plan.spec.profiled, *levels, *plan.spec.sets]
    for assignment in variant.inactive:
        if (assignment.dotted, assignment.layer) in orphaned:
            continue
        gone = next((a for a in made if a.value is None and _is_below(assignment, a)), None)
        over = next((a for a in levels if len(a.path) < len(assignment.path) and _is_below(assignment, a)), None)
        why = f"{over.layer} puts another {over.dotted} in its place" if over else "what it changes is not there"
        why = f"{gone.dotted} is removed by {gone.layer}" if gone else why
        yield {"path": assignment.dotted, "value": assignment.value, "layer": assignment.layer, "why": why}


def _is_below(assignment: Assignment, other: Assignment) -> bool:
    return assignment.path[: len(other.path)] == other.path


def _orphan(variant: Variant, orphan: Orphan) -> dict[str, Any]:
    """A key that a later layer left without use, and what that layer chose."""
    beside: Any = variant.tree
    *parents, key = split_path(orphan.path)
    for part in parents:
        beside = beside.get(part) if isinstance(beside, dict) else None
    selector = next((each for each in ("block", "name") if isinstance(beside, dict) and each in beside), None)
    why = "nothing here has a use for it"
    if selector and isinstance(beside, dict):
        places = getattr(beside, "values_at", {})
        by = f", chosen by {places[selector].layer}" if selector in places else ""
        why = f"'{beside[selector]}'{by}, takes no '{key}'"
    return {"path": orphan.path, "value": orphan.value, "layer": orphan.layer, "why": why}


def _effective(graph: Graph) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in effective_sizes(graph):
        name, _, note = text.partition(": ")
        found.setdefault(note, []).append(name)
    return found
