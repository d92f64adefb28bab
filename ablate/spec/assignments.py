"""Levels, profiles and ``--set`` as assignments into the tree of a spec."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ablate import yamlfile
from ablate.collect import dotted
from ablate.diagnose import shown
from ablate.errors import Place, Problem, UserError, did_you_mean
from ablate.spec.rules import is_open, null_problem, nulls_within, removed_node

EDITS = (("network", "set"), ("network", "defaults"))
"""What is below them need not be there to be set: patterns and blocks, which are checked as those of a spec."""


@dataclass(frozen=True)
class Assignment:
    """One path that a patch, a profile or ``--set`` sets. ``None`` removes."""

    path: tuple[str, ...]
    value: Any
    place: Place
    layer: str
    """``spec``, ``--set``, ``--profile tiny`` or the level, ``placement=none``."""
    value_place: Place | None = None
    """Where the value stands, if apart from its path."""
    if_there: bool = False
    """Whether null removes what there may be, and is content where nothing is."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", keys_of(self.path, self.value))

    @property
    def dotted(self) -> str:
        return ".".join(self.path)

    @cached_property
    def laid(self) -> Any:
        """Its value as its layer writes it: to be copied, never to be changed."""
        return relayered(_copy(self.value), self.layer)

    @property
    def places(self) -> tuple[str, ...]:
        """Where its path and its value stand: ``file:line:column``."""
        return (str(self.place), str(self.value_place or self.place))


def keys_of(parts: tuple[str, ...], value: Any) -> tuple[str, ...]:
    """The keys that a dotted path means: patterns, which have dots of their own, stay whole.

    ``network.set.stage*.*.conv2.kernel`` sets a parameter, the last part; with a mapping or null as its value the path
    ends in the pattern. What comes after ``network.init.set`` or ``.rename`` is a pattern.
    """
    if parts[:3] in (("network", "init", "set"), ("network", "init", "rename")) and len(parts) > 3:
        return (*parts[:3], ".".join(parts[3:]))
    if parts[:2] != ("network", "set") or len(parts) < 4:
        return parts
    if value is None or (isinstance(value, dict) and set(value) != {"linear"}):
        return (*parts[:2], ".".join(parts[2:]))
    return (*parts[:2], ".".join(parts[2:-1]), parts[-1])


@dataclass(frozen=True)
class Spec:
    """A spec as read: its tree (``extends`` merged, nulls resolved), where it stands, what ``--set`` assigns."""

    tree: yamlfile.Mapping
    file: str
    folder: Path
    sets: tuple[Assignment, ...] = ()
    removed_nodes: frozenset[str] = frozenset()
    """Nodes of what it extends that a null took away: they may still stand in a ``from``."""
    profile: str | None = None
    """The name of the profile that was chosen."""
    profiled: tuple[Assignment, ...] = ()
    """What that profile assigns."""
    trusted: bool = False
    """Whether the command line lets it import any code (``--trust``)."""

    @property
    def name(self) -> str:
        """The study's name, or ``spec`` for a file without one, which others extend."""
        return str(self.tree.get("name", "spec"))


@dataclass
class Applied:
    """A tree after assignments: what they came to."""

    tree: yamlfile.Mapping
    removed_nodes: frozenset[str] = frozenset()
    inactive: list[Assignment] = field(default_factory=list)
    """Assignments below something that another one removed."""


def apply(spec: Spec, *phases: Iterable[Assignment]) -> Applied:
    """The spec's tree with the assignments of its profile, after them those of each phase, at last those of ``--set``.

    A phase is the levels of a variant; in a ladder each row's patch is a phase of its own. Within a phase shorter paths
    come first, so that a level can replace an insertion and another set a parameter of it.
    ``UserError`` for a null that removes nothing, and for a path that leads through a plain value.
    """
    ordered = [a for phase in (spec.profiled, *phases, spec.sets) for a in sorted(phase, key=lambda a: len(a.path))]
    applied = Applied(_copied(spec.tree, ordered))
    applied.tree.pop("profiles", None)
    if spec.profile is not None:
        applied.tree["profile"] = spec.profile
    removed: list[tuple[str, ...]] = []
    found: list[Problem] = []
    for assignment in ordered:
        path = assignment.path
        if any(path[: len(gone)] == gone and (len(path) > len(gone) or assignment.value is None) for gone in removed):
            applied.inactive.append(assignment)
            continue
        problem = _assign(applied.tree, assignment)
        if problem is not None:
            found.append(problem)
            continue
        # What a later phase puts there is there again, and with it what is below.
        removed = [gone for gone in removed if gone[: len(path)] != path]
        if assignment.value is None:
            removed.append(path)
    if found:
        raise UserError(found)
    replaced = any(assignment.path == ("network",) for assignment in ordered)
    before = frozenset[str]() if replaced else spec.removed_nodes  # of the network that was there
    nodes = {node for path in removed if (node := removed_node(path))} | before
    applied.removed_nodes = frozenset(nodes).difference(_nodes(applied.tree))
    leave_joins(applied.tree.get("network"), applied.removed_nodes)
    return applied


def leave_joins(network: Any, removed: Iterable[str]) -> None:
    """Take removed nodes out of what the joins of a network read, so that its tree is whole without knowing of them.

    Whoever else reads one must say ``from:`` anew, and so keeps the name; so does a join that would be left with none.
    """
    gone = frozenset(removed)
    if not gone or not isinstance(network, dict):
        return
    _leave(network.get("graph"), gone)
    blocks = network.get("blocks")
    for name, block in blocks.items() if isinstance(blocks, dict) else ():
        inner = frozenset(each.partition("/")[2] for each in gone if each.startswith(f"{name}/"))
        _leave(block.get("graph") if isinstance(block, dict) else None, inner)


def _leave(graph: Any, gone: frozenset[str]) -> None:
    from ablate.block import registry  # not at the top: whoever only reads files needs no torch

    nodes = [node for node in graph.values() if isinstance(node, dict)] if isinstance(graph, dict) else []
    for node in nodes:
        sources = node.get("from")
        if not isinstance(sources, list) or not getattr(registry().get(str(node.get("block"))), "variadic", False):
            continue
        kept = [i for i, each in enumerate(sources) if str(each).split(".")[0] not in gone.difference(graph)]
        if 0 < len(kept) < len(sources):
            places = getattr(sources, "values_at", [])
            node["from"] = yamlfile.Sequence([sources[i] for i in kept], [places[i] for i in kept] if places else [])


def _copied(tree: yamlfile.Mapping, assignments: list[Assignment]) -> yamlfile.Mapping:
    """A copy to be changed. The levels of a large study are most of its tree: they are shared, unless one changes."""
    ablation = tree.get("ablation")
    levels = ablation.values() if isinstance(ablation, dict) else ()
    shared = frozenset(id(value) for value in levels if isinstance(value, dict))
    copied: yamlfile.Mapping = _copy(
        tree, frozenset() if any(assignment.path[0] == "ablation" for assignment in assignments) else shared
    )
    return copied


def _copy(value: Any, shared: frozenset[int] = frozenset()) -> Any:
    """``copy.deepcopy`` of what YAML can say, in a fraction of its time; ``shared`` are the ids of what stays."""
    if not isinstance(value, dict | list) or id(value) in shared:
        return value
    if isinstance(value, yamlfile.Mapping):
        items = {key: _copy(item, shared) for key, item in value.items()}
        return yamlfile.Mapping(items, value.keys_at, value.values_at)
    if isinstance(value, yamlfile.Sequence):
        return yamlfile.Sequence([_copy(item, shared) for item in value], value.values_at)
    return copy.deepcopy(value)


def _nodes(tree: Mapping[str, Any]) -> Iterable[str]:
    """The nodes that are there, named as by ``removed_node``."""

    def graph_of(section: Any) -> Iterable[str]:
        graph = section.get("graph") if isinstance(section, dict) else None
        return graph if isinstance(graph, dict) else ()

    network = tree.get("network")
    yield from graph_of(network)
    blocks = network.get("blocks") if isinstance(network, dict) else None
    for name, block in blocks.items() if isinstance(blocks, dict) else ():
        yield from (f"{name}/{node}" for node in graph_of(block))


def _assign(tree: yamlfile.Mapping, assignment: Assignment) -> Problem | None:
    parent: Any = tree
    for depth, part in enumerate(assignment.path[:-1]):
        if not isinstance(parent, dict):
            where = ".".join(assignment.path[:depth])
            return Problem(f"'{where}' is {shown(parent)} and holds no '{part}'", assignment.dotted, assignment.place)
        if part not in parent:
            edits = assignment.path[:2] in EDITS
            if edits and assignment.value is None and (problem := null_problem(assignment.path)):
                return Problem(problem[0], assignment.dotted, assignment.place, problem[1])
            if assignment.value is None and assignment.if_there:
                return None
            if assignment.value is None or (is_open(assignment.path[: depth + 1]) and not edits):
                return _nothing_there(parent, part, assignment)
            _put(parent, part, yamlfile.Mapping(), assignment)
        parent = parent[part]
    if not isinstance(parent, dict):
        where = ".".join(assignment.path[:-1])
        return Problem(f"'{where}' is {shown(parent)} and has no keys", assignment.dotted, assignment.place)
    last = assignment.path[-1]
    nulls = nulls_within(assignment.value) if assignment.path[0] != "ablation" else []
    if nulls:
        message = f"null at '{dotted(nulls[0])}' removes nothing: the whole is assigned"
        return Problem(message, assignment.dotted, assignment.place, "leave it out")
    if assignment.value is not None:
        _put(parent, last, _copy(assignment.laid), assignment)
        return None
    problem = null_problem(assignment.path)
    if problem:
        return Problem(problem[0], assignment.dotted, assignment.place, problem[1])
    if last not in parent and is_open(assignment.path) and not assignment.if_there:
        return _nothing_there(parent, last, assignment)
    parent.pop(last, None)
    return None


def _nothing_there(parent: Mapping[str, Any], part: str, assignment: Assignment) -> Problem:
    verb = "remove" if assignment.value is None else "change"
    if verb == "remove" and assignment.path[:2] == ("network", "set") and part.rpartition(".")[0] in parent:
        problem = null_problem((*assignment.path, part))
        return Problem(problem[0] if problem else "", assignment.dotted, assignment.place, "state a value")
    hint = did_you_mean(part, parent)
    return Problem(f"there is no '{part}' to {verb}", assignment.dotted, assignment.place, hint)


def _put(parent: Any, key: str, value: Any, assignment: Assignment) -> None:
    known = key in parent
    parent[key] = value
    place = replace(assignment.place, layer=assignment.layer)
    if not known:
        parent.keys_at[key] = place
    parent.values_at[key] = replace(assignment.value_place or place, layer=assignment.layer)


def relayered(value: Any, layer: str) -> Any:
    """``value`` with ``layer`` as the writer of everything in it."""

    def moved(place: Place) -> Place:
        return replace(place, layer=layer)

    if isinstance(value, yamlfile.Mapping):
        value.keys_at = {key: moved(place) for key, place in value.keys_at.items()}
        value.values_at = {key: moved(place) for key, place in value.values_at.items()}
        for item in value.values():
            relayered(item, layer)
    elif isinstance(value, yamlfile.Sequence):
        value.values_at = [moved(place) for place in value.values_at]
        for item in value:
            relayered(item, layer)
    return value
