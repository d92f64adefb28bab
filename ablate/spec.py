"""Specs: ``extends``, levels and ``--set`` as assignments into a tree, and the reading of its sections.

A spec stays a tree of data with places until it is asked for what it means: levels and ``--set`` are
assignments into that tree, and only the result is validated as a whole.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ablate import profiles, yamlfile
from ablate.collect import Collector
from ablate.dataset import DataFields, DataSpec
from ablate.dataset import registry as data_sets
from ablate.diagnose import problems, shown
from ablate.errors import Place, Problem, UserError, did_you_mean
from ablate.grammar import PaperClaim
from ablate.mix import MIXINGS
from ablate.recipe import Loss, Optimizer, Schedule, Section, TrainSpec, by_name

MOST_EXTENDS = 10
MOST_SEEDS = 1_000
MAPPINGS = ("network", "data", "train", "ablation", "report", "execution", "numerics")
SECTIONS = (
    "name",
    "extends",
    "profiles",
    "network",
    "data",
    "train",
    "ablation",
    "report",
    "paper",
    "execution",
    "numerics",
    "profile",
)
"""``numerics`` and ``profile`` are records in a study's own spec."""
UNSETTABLE = ("extends", "profiles", "profile")


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

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", keys_of(self.path, self.value))

    @property
    def dotted(self) -> str:
        return ".".join(self.path)

    @property
    def places(self) -> tuple[str, ...]:
        """Where its path and its value stand: ``file:line:column``."""
        return (str(self.place), str(self.value_place or self.place))


def keys_of(parts: tuple[str, ...], value: Any) -> tuple[str, ...]:
    """The keys that a dotted path means: patterns, which have dots of their own, stay whole.

    ``network.set.stage*.*.conv2.kernel`` sets a parameter, the last part; with a mapping or null as its value the path
    ends in the pattern. What comes after ``network.init.set`` is a pattern.
    """
    if parts[:3] == ("network", "init", "set") and len(parts) > 3:
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


def load(
    source: str | Path | Mapping[str, Any],
    *,
    sets: Mapping[str, Any] | Iterable[str] = (),
    profile: str | None = None,
) -> Spec:
    """Read a spec from a file or a mapping. ``sets`` are ``path=value`` texts, or a mapping of path → value.

    ``profile`` chooses one of the spec's profiles. The tree's outline is checked here; networks, levels and variants by
    ``design.study_plan``.
    """
    removed: set[str] = set()
    if isinstance(source, Mapping):
        file, folder = "<mapping>", Path.cwd()
        tree = yamlfile.loads(_dumped(dict(source), file), file)
        tree = _extended(tree, folder, folder, (), removed)
    else:
        path = Path(source)
        tree, file, folder = yamlfile.load(path), str(path), path.resolve().parent
        tree = _extended(tree, folder, enclosing_specs(folder), (path.resolve(),), removed)
    _check_outline(tree)
    known = profiles.read_profiles(tree)
    entries = profiles.chosen(known, profile) if profile is not None else ()
    profiled = tuple(_profiled(entry, f"--profile {profile}") for entry in entries)
    return Spec(tree, file, folder, _read_sets(sets), frozenset(removed), profile, profiled)


def _profiled(entry: profiles.Entry, layer: str) -> Assignment:
    return Assignment(split_path(entry.path), entry.value, entry.place, layer, entry.value_place)


def _extended(
    tree: yamlfile.Mapping, folder: Path, top: Path, seen: tuple[Path, ...], removed: set[str]
) -> yamlfile.Mapping:
    """``tree`` merged over what it extends, which stays beneath ``top``. ``removed`` gets the nodes removed."""
    collector = Collector(tree)
    parent_name = tree.get("extends")
    if parent_name is None:
        merged = copy.deepcopy(tree)
        _drop_nulls(merged, None, collector, (), removed)
        collector.raise_if_any()
        return merged
    parent_file = _file_beside(folder, parent_name)
    if parent_file is None:
        collector.add(("extends",), f"{shown(parent_name)} is not a file's name", key=False)
        raise UserError(collector.problems)
    if not parent_file.is_relative_to(top):
        collector.add(("extends",), f"'{parent_name}' is outside {_shown(top)}", "keep it beneath", key=False)
    elif not parent_file.is_file():
        collector.add(("extends",), f"no file '{parent_name}'", f"looked for {_shown(parent_file)}", key=False)
    elif parent_file in seen:
        collector.add(("extends",), f"'{parent_name}' extends itself", key=False)
    elif len(seen) > MOST_EXTENDS:
        collector.add(("extends",), f"more than {MOST_EXTENDS} files extend one another", key=False)
    collector.raise_if_any()
    parent = yamlfile.load(_shown(parent_file))
    parent = _extended(parent, parent_file.parent, top, (*seen, parent_file), removed)
    child = copy.deepcopy(tree)
    del child["extends"]
    _drop_nulls(child, parent, collector, (), removed)
    collector.raise_if_any()
    return _merged(parent, child, ())


def _file_beside(folder: Path, name: object) -> Path | None:
    """The file that ``name`` means, seen from ``folder``; ``None`` where it can't be one's name."""
    if not isinstance(name, str) or not name or not name.isprintable():
        return None
    try:
        file = (folder / name).resolve()
        file.is_file()
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, a character that no name has
        return None
    return file


def enclosing_specs(folder: Path) -> Path:
    """What ``extends`` may reach: the nearest folder called ``specs`` that holds the spec, or else its own folder."""
    return next((parent for parent in [folder, *folder.parents] if parent.name == "specs"), folder)


def _shown(path: Path) -> Path:
    """The path as a user would type it from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _drop_nulls(
    tree: yamlfile.Mapping, parent: Any, collector: Collector, path: tuple[str, ...], removed: set[str]
) -> None:
    """Take nulls out of ``tree``, and what they remove out of ``parent``."""
    if path in (("profiles",), ("ablation", "factors"), ("ablation", "variants"), ("ablation", "components")):
        return  # The null of a level or a profile is an assignment, made when the level is.
    for key in list(tree):
        value = tree[key]
        here = (*path, key)
        if isinstance(value, yamlfile.Mapping):
            below = parent.get(key) if isinstance(parent, dict) else None
            _drop_nulls(value, below if isinstance(below, dict) else None, collector, here, removed)
        elif value is None:
            problem = null_problem(here)
            missing = not isinstance(parent, dict) or key not in parent
            if problem:
                collector.add(here, problem[0], problem[1], key=False)
            elif missing and is_open(here):
                hint = did_you_mean(key, parent) if isinstance(parent, dict) else ""
                collector.add(here, "there is nothing to remove", hint)
            elif node := removed_node(here):
                removed.add(node)
            del tree[key]
            if isinstance(parent, yamlfile.Mapping):
                parent.pop(key, None)


def _merged(parent: yamlfile.Mapping, child: yamlfile.Mapping, path: tuple[str, ...]) -> yamlfile.Mapping:
    """Mappings merge; a child that changes ``block`` or ``name`` replaces the whole; lists replace."""
    kind = _selector(path)
    changes_kind = kind is not None and kind in child and kind in parent and child[kind] != parent[kind]
    # Factors are replaced and not merged, and so is what a profile assigns to a path.
    if changes_kind or (path[:1] == ("ablation",) and len(path) > 1) or (path[:1] == ("profiles",) and len(path) > 2):
        return child
    merged = copy.deepcopy(parent)
    for key, value in child.items():
        below = merged.get(key)
        if isinstance(below, yamlfile.Mapping) and isinstance(value, yamlfile.Mapping):
            value = _merged(below, value, (*path, key))
        merged[key] = value
        merged.keys_at[key] = child.keys_at[key]
        merged.values_at[key] = child.values_at[key]
    return merged


def _selector(path: tuple[str, ...]) -> str | None:
    """The key at ``path`` that decides what the others beside it may be. (A node may be called ``block``.)"""
    if len(path) == 3 and path[:2] in (("network", "graph"), ("network", "insert")):
        return "block"
    if len(path) == 5 and path[:2] == ("network", "blocks") and path[3] == "graph":
        return "block"
    return "name" if path in (("data",), ("data", "mix")) or (len(path) == 2 and path[0] == "train") else None


OPTIONAL_SECTIONS = frozenset(
    {
        ("ablation",),
        ("report",),
        ("paper",),
        ("execution",),
        ("network", "insert"),
        ("network", "init"),
        ("network", "params"),
        ("network", "blocks"),
        ("network", "set"),
        ("network", "defaults"),
        ("network", "init", "set"),
        ("data", "val"),
        ("data", "limit"),
        ("data", "augment"),
        ("data", "mix"),
        ("data", "size"),
        ("train", "early_stopping"),
        ("train", "clip_norm"),
        ("train", "ema"),
        ("train", "schedule"),
        ("train", "loss"),
        ("train", "groups"),
        ("train", "freeze"),
        ("train", "only"),
        ("ablation", "baseline"),
        ("ablation", "factors"),
        ("ablation", "variants"),
        ("ablation", "components"),
        ("ablation", "reference"),
        ("ablation", "zip"),
        ("ablation", "exclude"),
    }
)


def is_open(path: tuple[str, ...]) -> bool:
    """Whether ``path`` is an entry of an open mapping: a node, an insertion, a composite, an edit."""
    if path[:1] != ("network",):
        return False
    if path[1:2] == ("blocks",):
        return len(path) == 3 or (len(path) == 5 and path[3] in ("graph", "params"))
    if len(path) == 3:
        return path[1] in ("graph", "insert", "params", "set", "defaults")
    return len(path) == 4 and path[1:3] == ("init", "set")


def null_problem(path: tuple[str, ...]) -> tuple[str, str] | None:
    """Why null can't stand at ``path``: it removes entries of open mappings and sections, never a parameter."""
    if is_open(path) or path in OPTIONAL_SECTIONS:
        return None
    return "null removes a node, an insertion or a section, and this is a parameter", "state a value (none is one)"


def _check_outline(tree: yamlfile.Mapping) -> None:
    collector = Collector(tree)
    for key in tree:
        if key not in SECTIONS:
            collector.add((key,), "unknown key", did_you_mean(key, SECTIONS))
    if "name" in tree:
        problem = study_name_problem(tree["name"])
        if problem:
            collector.add(("name",), problem, key=False)
    for section in MAPPINGS:
        if section in tree and not isinstance(tree[section], dict):
            collector.add((section,), f"{shown(tree[section])} is not a mapping", key=False)
    collector.raise_if_any()


def study_name_problem(name: object) -> str | None:
    """Why ``name`` can't name a study's folder."""
    if not isinstance(name, str):
        return f"{shown(name)} is not text; a study's name becomes a folder"
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
    if not name or len(name) > 100 or not set(name) <= allowed or name[0] in ".-":
        return f"{shown(name)} can't name a folder: letters, digits, _, - and . (not first), at most 100"
    return None


def _read_sets(sets: Mapping[str, Any] | Iterable[str]) -> tuple[Assignment, ...]:
    found: list[Assignment] = []
    problems_found: list[Problem] = []
    seen: set[str] = set()
    for path, read in _set_pairs(sets):
        try:
            value = read()
        except UserError as error:
            problems_found += error.problems
            continue
        problem = path_problem(path) or _section_problem(path, value)
        if path in seen:
            problem = "given twice", ""
        seen.add(path)
        if problem:
            problems_found.append(Problem(f"--set {path}: {problem[0]}", hint=problem[1]))
        else:
            place = Place("--set", 1, 1, "--set")
            if path == "data.root" and isinstance(value, str):
                value = str(Path(value).expanduser().absolute())  # a path on the command line starts where the user is
            found.append(Assignment(split_path(path), _relayered(value, "--set"), place, "--set"))
    if problems_found:
        raise UserError(problems_found)
    return tuple(found)


def _set_pairs(sets: Mapping[str, Any] | Iterable[str]) -> Iterable[tuple[str, Callable[[], Any]]]:
    """Path and value, which is read when it is called for: that may raise ``UserError``."""
    if isinstance(sets, Mapping):
        for path, value in sets.items():
            yield path, partial(_reread, value)
        return
    for text in sets:
        path, equals, value = text.partition("=")
        yield path.strip(), partial(yamlfile.parse_value, value) if equals else partial(_refuse_set, text)


def _refuse_set(text: str) -> Any:
    raise UserError(Problem(f"--set {text}: write --set path=value"))


def _reread(value: Any) -> Any:
    """A plain value as the reader would have read it behind ``--set``, with places."""
    return yamlfile.parse_value(_dumped(value, "--set"))


def _dumped(value: Any, file: str) -> str:
    """YAML text; ``UserError`` for what a spec can't say."""
    try:
        return yamlfile.dump(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{file}: {error}") from None


def split_path(path: str) -> tuple[str, ...]:
    """The keys that a dotted path goes through."""
    return tuple(path.split("."))


def path_problem(path: str) -> tuple[str, str] | None:
    """Why a patch can't assign ``path``."""
    head = path.split(".")[0]
    if head not in SECTIONS or head in UNSETTABLE:
        hint = "choose one by --profile" if head in UNSETTABLE[1:] else did_you_mean(head, SECTIONS)
        return f"{shown(path)} is not a path of a spec", hint
    if any(not part for part in path.split(".")):
        return f"{shown(path)} has an empty part", "a dot joins two names"
    return None


def _section_problem(path: str, value: Any) -> tuple[str, str] | None:
    """Why a whole section, or the study's name, can't be ``value``. (Null says for itself what it may remove.)"""
    if path in MAPPINGS and value is not None and not isinstance(value, dict):
        return f"{shown(value)} is not a mapping", ""
    wrong = study_name_problem(value) if path == "name" else None
    return (wrong, "") if wrong else None


def level_path_problem(path: str) -> tuple[str, str] | None:
    """Why a level can't assign ``path``: a level changes the network, the data or the recipe."""
    head, may_change = path.split(".")[0], ("network", "data", "train")
    if head not in may_change:
        return f"{shown(path)} is not a path that a level may change", did_you_mean(head, may_change)
    if len(path.split(".")) < 2:
        return f"{shown(path)} is a whole section", "name a path within it"
    return path_problem(path)


def apply(spec: Spec, *phases: Iterable[Assignment]) -> Applied:
    """The spec's tree with the assignments of its profile, after them those of each phase, at last those of ``--set``.

    A phase is the levels of a variant; in a ladder each row's patch is a phase of its own. Within a phase shorter paths
    come first, so that a level can replace an insertion and another set a parameter of it.
    ``UserError`` for a null that removes nothing, and for a path that leads through a plain value.
    """
    applied = Applied(copy.deepcopy(spec.tree))
    applied.tree.pop("profiles", None)
    if spec.profile is not None:
        applied.tree["profile"] = spec.profile
    removed: list[tuple[str, ...]] = []
    ordered = [a for phase in (spec.profiled, *phases, spec.sets) for a in sorted(phase, key=lambda a: len(a.path))]
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
    nodes = {node for path in removed if (node := removed_node(path))} | spec.removed_nodes
    applied.removed_nodes = frozenset(nodes).difference(_nodes(applied.tree))
    return applied


def removed_node(path: tuple[str, ...]) -> str | None:
    """The node that null at ``path`` removes: its name, or ``block/node`` for a node of a declared composite."""
    if len(path) == 3 and path[:2] == ("network", "graph"):
        return path[2]
    if len(path) == 5 and path[:2] == ("network", "blocks") and path[3] == "graph":
        return f"{path[2]}/{path[4]}"
    return None


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
            if assignment.value is None or is_open(assignment.path[: depth + 1]):
                return _nothing_there(parent, part, assignment)
            _put(parent, part, yamlfile.Mapping(), assignment)
        parent = parent[part]
    if not isinstance(parent, dict):
        where = ".".join(assignment.path[:-1])
        return Problem(f"'{where}' is {shown(parent)} and has no keys", assignment.dotted, assignment.place)
    last = assignment.path[-1]
    null = _null_within(assignment.value) if assignment.path[0] != "ablation" else None
    if null is not None:
        message = f"null at '{null}' removes nothing: the whole is assigned"
        return Problem(message, assignment.dotted, assignment.place, "leave it out")
    if assignment.value is not None:
        _put(parent, last, _relayered(copy.deepcopy(assignment.value), assignment.layer), assignment)
        return None
    problem = null_problem(assignment.path)
    if problem:
        return Problem(problem[0], assignment.dotted, assignment.place, problem[1])
    if last not in parent and is_open(assignment.path):
        return _nothing_there(parent, last, assignment)
    parent.pop(last, None)
    return None


def _null_within(value: Any) -> str | None:
    """The key, or the keys joined by dots, at which a null stands in an assigned mapping."""
    if not isinstance(value, dict):
        return None
    for key, item in value.items():
        below = _null_within(item)
        if item is None or below is not None:
            return key if item is None else f"{key}.{below}"
    return None


def _nothing_there(parent: Mapping[str, Any], part: str, assignment: Assignment) -> Problem:
    verb = "remove" if assignment.value is None else "change"
    hint = did_you_mean(part, parent)
    return Problem(f"there is no '{part}' to {verb}", assignment.dotted, assignment.place, hint)


def _put(parent: Any, key: str, value: Any, assignment: Assignment) -> None:
    known = key in parent
    parent[key] = value
    place = replace(assignment.place, layer=assignment.layer)
    if not known:
        parent.keys_at[key] = place
    parent.values_at[key] = replace(assignment.value_place or place, layer=assignment.layer)


def _relayered(value: Any, layer: str) -> Any:
    """``value`` with ``layer`` as the writer of everything in it."""

    def moved(place: Place) -> Place:
        return replace(place, layer=layer)

    if isinstance(value, yamlfile.Mapping):
        value.keys_at = {key: moved(place) for key, place in value.keys_at.items()}
        value.values_at = {key: moved(place) for key, place in value.values_at.items()}
        for item in value.values():
            _relayered(item, layer)
    elif isinstance(value, yamlfile.Sequence):
        value.values_at = [moved(place) for place in value.values_at]
        for item in value:
            _relayered(item, layer)
    return value


_NAMED: dict[tuple[str, ...], dict[str, type[Section]]] = {
    ("train", "optimizer"): by_name(Optimizer),
    ("train", "schedule"): by_name(Schedule),
    ("train", "loss"): by_name(Loss),
}


def read_train(tree: yamlfile.Mapping, collector: Collector) -> TrainSpec | None:
    """The recipe; what a later change of an optimiser's or schedule's name orphaned is dropped and listed."""
    section = tree.get("train")
    if section is None:
        collector.add(("train",), "missing: how to train?", "train: {epochs: 5, optimizer: {name: sgd, lr: 0.1}}")
        return None
    pruned = dict(section)
    for path, kinds in _NAMED.items():
        if path[-1] in section:
            pruned[path[-1]] = _without_orphans(section[path[-1]], kinds, path, collector)
    recipe: TrainSpec | None = read_section(TrainSpec, pruned, collector, ("train",))
    return recipe


def _without_orphans(value: Any, kinds: Mapping[str, Any], path: tuple[str, ...], collector: Collector) -> Any:
    """A mapping with a ``name``, without the keys that a later change of it orphaned."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or value["name"] not in kinds:
        return value
    known = kinds[value["name"]].model_fields
    return {
        key: item
        for key, item in value.items()
        if key in known or not collector.drop_if_orphaned(value, key, "name", (*path, key))
    }


def read_section(model: Any, value: Any, collector: Collector, path: tuple[str, ...]) -> Any:
    """``value`` validated by ``model``; problems go to the collector and the answer is then ``None``."""
    nulls = [key for key, item in value.items() if item is None] if isinstance(value, dict) else []
    for key in nulls:
        collector.add((*path, key), "null is no value here", key=False)
    if nulls:
        return None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        collector.extend(problems(error, collector.tree, path))
        return None


def read_data(tree: yamlfile.Mapping, collector: Collector) -> DataSpec | None:
    """The data; keys that a later change of ``data.name`` orphaned are dropped and listed."""
    if "data" not in tree:
        collector.add(("data",), "missing: which data?", "data: {name: mnist5k, val: 0.2}")
        return None
    section = tree["data"]
    taken = _data_keys(section.get("name"))
    kept = {
        key: value
        for key, value in section.items()
        if key in taken or not taken or not collector.drop_if_orphaned(section, key, "name", ("data", key))
    }
    if "mix" in kept:
        kept["mix"] = _without_orphans(kept["mix"], MIXINGS, ("data", "mix"), collector)
    result: DataSpec | None = read_section(DataSpec, kept, collector, ("data",))
    return result


def _data_keys(name: object) -> frozenset[str]:
    """The keys that a data set makes use of; none for one that does not exist."""
    kind = data_sets().get(name) if isinstance(name, str) else None
    if kind is None:
        return frozenset()
    unused = {"root"} if kind.folder == "none" else set()
    unused |= set() if kind.downloads else {"download"}
    return frozenset({*DataFields.model_fields, *kind.Params.model_fields} - unused)


def read_paper(tree: yamlfile.Mapping, collector: Collector) -> list[PaperClaim]:
    value = tree.get("paper", [])
    if not isinstance(value, list):
        collector.add(("paper",), "not a list of {title, table, metric, values}", key=False)
        return []
    claims: list[PaperClaim] = []
    for index, item in enumerate(value):
        try:
            claims.append(PaperClaim.model_validate(item))
        except ValidationError as error:
            collector.extend(problems(error, tree, ("paper", index)))
    return claims
