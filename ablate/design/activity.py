"""Whether what a spec assigns acts: every path, and every key of a mapping, must in at least one variant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ablate.block import registry
from ablate.design.conflicts import Keys, leaves
from ablate.design.levels import Level
from ablate.design.variant import Variant
from ablate.errors import Problem, UserError, did_you_mean
from ablate.expression import names_in
from ablate.network import INSERTION_KEYS, NODE_KEYS
from ablate.spec import Assignment, Spec
from ablate.yamlfile import place_of


def check_activity(spec: Spec, variants: list[Variant], levels: Iterable[Level]) -> None:
    """Every path that a factor, the profile or ``--set`` assigns must act in at least one variant.

    So must each key of a mapping that is assigned. Of a profile's only the defaults: what a level or ``--set`` orphans
    of the others, by choosing another block or name, is dropped and listed.
    """
    acting = {(assignment.path, owner(assignment)) for variant in variants for assignment in variant.assigned}
    keys = {(path, owner(a)) for variant in variants for a in variant.assigned for path in _acting_keys(variant, a)}
    made = [assignment for level in levels for assignment in level.assignments]
    found: dict[tuple[str, str], Problem] = {}
    for assignment in [*spec.profiled, *made, *spec.sets]:
        who = owner(assignment)
        if _is_set_over(assignment, spec) or _is_gone_already(assignment, spec):
            continue
        if (assignment.path, who) not in acting:
            found.setdefault((assignment.dotted, who), _without_effect(assignment, spec, variants))
            continue
        for path in leaves(assignment.path, assignment.value):
            counts = assignment not in spec.profiled or path[:2] == ("network", "defaults")
            if counts and (path, who) not in keys:
                found.setdefault((".".join(path), who), _key_without_effect(path, assignment))
    if found:
        raise UserError(found.values())


def _acting_keys(variant: Variant, assignment: Assignment) -> Iterator[Keys]:
    """The paths within what an assignment states that are no orphans of this variant, and no unread parameters."""
    orphans = tuple(f"{orphan.path}." for orphan in variant.orphans if orphan.layer == assignment.layer)
    for path in leaves(assignment.path, assignment.value):
        orphaned = f"{'.'.join(path)}.".startswith(orphans) if orphans else False
        unread = path[:2] == ("network", "params") and assignment.value is not None and not _is_read(path, variant)
        if not orphaned and not unread:
            yield path


def _is_read(path: Keys, variant: Variant) -> bool:
    """Whether an expression of the network reads the parameter. Composites see their own parameters alone."""
    section = variant.tree.get("network", {})
    return path[2:3] == () or path[2] in names_in({key: item for key, item in section.items() if key != "blocks"})


def _key_without_effect(path: Keys, assignment: Assignment) -> Problem:
    inner = path[len(assignment.path) :]
    place = place_of(assignment.value, inner) if inner else assignment.place
    message = "has no effect in any variant: what it changes is not there, or does not take it"
    if path[:2] == ("network", "params"):
        message = f"unused: no expression reads ${path[2]} in a variant that has it"
    if owner(assignment) == "--set":
        return Problem(f"--set {'.'.join(path)}: {message}")
    return Problem(message, ".".join(path), place or assignment.place)


def _without_effect(assignment: Assignment, spec: Spec, variants: list[Variant]) -> Problem:
    message = "has no effect in any variant: what it changes is not there, or does not take it"
    if assignment in spec.profiled and not any(_is_idle(variant, assignment) for variant in variants):
        message = "has no effect in any variant: a level of each sets this path"
    hint = next((hint for variant in variants if (hint := _meant(variant, assignment))), "")
    if owner(assignment) == "--set":
        return Problem(f"--set {assignment.dotted} {message}", hint=hint)
    return Problem(message, assignment.dotted, assignment.place, hint)


def owner(assignment: Assignment) -> str:
    """The factor, the profile or ``--set`` that made an assignment."""
    return assignment.layer.partition("=")[0]


def _is_set_over(assignment: Assignment, spec: Spec) -> bool:
    """Whether ``--set`` takes the place of what the profile assigns."""
    over = any(assignment.path[: len(later.path)] == later.path for later in spec.sets)
    return over and assignment in spec.profiled


def _is_gone_already(assignment: Assignment, spec: Spec) -> bool:
    """Whether a level or ``--set`` removes what the profile has removed: without the profile it acts."""
    gone = [each.path for each in spec.profiled if each.value is None and each is not assignment]
    return assignment.value is None and any(assignment.path[: len(path)] == path for path in gone)


def _is_idle(variant: Variant, assignment: Assignment) -> bool:
    return assignment in variant.inactive


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
