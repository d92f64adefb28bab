"""From a file or a mapping to a spec: ``extends`` merged, nulls resolved, the profile and ``--set`` read.

A spec stays a tree of data with places until it is asked for what it means: profile, levels and ``--set`` are
assignments into that tree, and only the result is validated as a whole.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ablate import yamlfile
from ablate.collect import Collector
from ablate.diagnose import shown
from ablate.errors import Place, Problem, UserError, did_you_mean
from ablate.own_code import bring
from ablate.spec import profiles
from ablate.spec.assignments import Assignment, Spec, leave_joins, relayered
from ablate.spec.rules import (
    MAPPINGS,
    SECTIONS,
    is_open,
    null_problem,
    nulls_within,
    path_problem,
    removed_node,
    section_problem,
    selector,
    split_path,
    study_name_problem,
)

MOST_EXTENDS = 10


def load(
    source: str | Path | Mapping[str, Any],
    *,
    sets: Mapping[str, Any] | Iterable[str] = (),
    profile: str | None = None,
    trust: bool = False,
) -> Spec:
    """Read a spec from a file or a mapping. ``sets`` are ``path=value`` texts, or a mapping of path → value.

    ``profile`` chooses one of the spec's profiles; ``trust`` lets ``network.import`` name any code. The tree's outline
    is checked here; networks, levels and variants by ``design.study_plan``.
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
    _use(tree, trust)
    known = profiles.read_profiles(tree)
    entries = profiles.chosen(known, profile) if profile is not None else ()
    profiled = tuple(_profiled(entry, f"--profile {profile}") for entry in entries)
    return Spec(tree, file, folder, _read_sets(sets), frozenset(removed), profile, profiled, trust)


def _profiled(entry: profiles.Entry, layer: str) -> Assignment:
    return Assignment(split_path(entry.path), entry.value, entry.place, layer, entry.value_place)


def _extended(
    tree: yamlfile.Mapping, folder: Path, top: Path, seen: tuple[Path, ...], removed: set[str]
) -> yamlfile.Mapping:
    """``tree`` merged over what it extends, which stays beneath ``top``. ``removed`` gets the nodes removed."""
    tree = _with_networks(_with_own_files(tree, folder), folder, top, seen)
    collector = Collector(tree)
    parent_name = tree.get("extends")
    if parent_name is None:
        merged = copy.deepcopy(tree)
        _drop_nulls(merged, None, collector, (), removed)
        collector.raise_if_any()
        return merged
    parent_file = file_beside(folder, parent_name)
    if parent_file is None:
        collector.add(("extends",), f"{shown(parent_name)} is not a file's name", key=False)
        raise UserError(collector.problems)
    if not parent_file.is_relative_to(top):
        collector.add(("extends",), f"'{parent_name}' is outside {as_typed(top)}", "keep it beneath", key=False)
    elif not parent_file.is_file():
        collector.add(("extends",), f"no file '{parent_name}'", f"looked for {as_typed(parent_file)}", key=False)
    elif parent_file in seen:
        collector.add(("extends",), f"'{parent_name}' extends itself", key=False)
    elif len(seen) > MOST_EXTENDS:
        collector.add(("extends",), f"more than {MOST_EXTENDS} files extend one another", key=False)
    collector.raise_if_any()
    parent = yamlfile.load(as_typed(parent_file))
    parent = _extended(parent, parent_file.parent, top, (*seen, parent_file), removed)
    child = copy.deepcopy(tree)
    del child["extends"]
    _drop_nulls(child, parent, collector, (), removed)
    _check_added(parent, child, collector)
    collector.raise_if_any()
    return _merged(parent, child, ())


def _with_networks(tree: yamlfile.Mapping, folder: Path, top: Path, seen: tuple[Path, ...]) -> yamlfile.Mapping:
    """``tree`` with the networks that its levels take from other files: ``network: {extends: FILE, …}``.

    The file is seen from this one and stays beneath ``top``; what stands beside ``extends`` changes that network.
    """
    whole = copy.deepcopy(tree)
    for patch in _patches(whole.get("ablation")):
        network = patch.get("network")
        if not isinstance(network, yamlfile.Mapping) or "extends" not in network:
            continue
        child = copy.deepcopy(network)
        own = {"extends": child.pop("extends"), **({"network": child} if child else {})}
        places = {"extends": network.keys_at["extends"], "network": patch.keys_at["network"]}
        stub = yamlfile.Mapping(own, places, {**places, "extends": network.values_at["extends"]})
        gone: set[str] = set()  # what this file removes is there in all other networks
        found = _extended(stub, folder, top, seen, gone).get("network")
        if not isinstance(found, yamlfile.Mapping):
            collector = Collector(stub)
            collector.add(("extends",), f"'{own['extends']}' has no network", key=False)
            raise UserError(collector.problems)
        leave_joins(found, gone)
        patch["network"] = found
    return whole


def _patches(ablation: Any) -> Iterable[yamlfile.Mapping]:
    """What may be a patch in an ablation: of a variant, of a component, of a factor's level."""
    section = ablation if isinstance(ablation, dict) else {}
    groups = [section.get("variants"), section.get("components")]
    factors = section.get("factors")
    groups += factors.values() if isinstance(factors, dict) else ()
    for group in groups:
        if isinstance(group, dict):
            yield from (patch for patch in group.values() if isinstance(patch, yamlfile.Mapping))


def _with_own_files(tree: yamlfile.Mapping, folder: Path) -> yamlfile.Mapping:
    """``tree`` with the files that it uses as seen from anywhere: a child of it may lie elsewhere."""
    written = tree.get("use")
    if written is None:
        return tree
    collector = Collector(tree)
    names = written if isinstance(written, list) else []
    if not names:
        collector.add(("use",), "a list of files was expected", "such as [my_block.py]", key=False)
    for index, name in enumerate(names):
        path: tuple[str | int, ...] = ("use", index)
        if file_beside(folder, name) is None or not str(name).endswith(".py"):
            collector.add(path, f"{shown(name)} is no Python file's name", "such as my_block.py", key=False)
        elif names.index(name) != index:
            collector.add(path, f"'{name}' is given twice", key=False)
    collector.raise_if_any()
    whole = copy.deepcopy(tree)
    whole["use"][:] = [str(file_beside(folder, name)) for name in names]
    return whole


def _use(tree: yamlfile.Mapping, trust: bool) -> None:
    """Run the files whose blocks and data sets the spec uses; without trust they are refused."""
    collector = Collector(tree)
    for index, file in enumerate(tree.get("use") or ()):
        path: tuple[str | int, ...] = ("use", index)
        if not trust:
            message = f"'{Path(file).name}' is refused: without --trust a spec runs no code"
            collector.add(path, message, "read it, then add --trust", key=False)
    collector.raise_if_any()
    for index, problems in bring([Path(file) for file in tree.get("use") or ()]).items():
        for problem in problems:
            collector.add(("use", index), problem.message, problem.hint, key=False)
    collector.raise_if_any()


def _check_added(parent: yamlfile.Mapping, child: yamlfile.Mapping, collector: Collector) -> None:
    """The first node that a child adds stands after the parent's last: to read that would be an accident."""

    def graphs(tree: Any, path: tuple[str, ...]) -> Iterable[tuple[tuple[str, ...], Any]]:
        network = tree.get("network")
        yield (*path, "graph"), network.get("graph") if isinstance(network, dict) else None
        blocks = network.get("blocks") if isinstance(network, dict) else None
        for name, block in blocks.items() if isinstance(blocks, dict) else ():
            yield (*path, "blocks", name, "graph"), block.get("graph") if isinstance(block, dict) else None

    known = dict(graphs(parent, ("network",)))
    for path, graph in graphs(child, ("network",)):
        before = known.get(path)
        if not isinstance(graph, dict) or not isinstance(before, dict) or not before:
            continue
        name = next((name for name in graph if name not in before), None)
        if name is not None and isinstance(graph[name], dict) and "from" not in graph[name]:
            message = f"a node that is added to the graph of '{_file_of(before)}' must say what it reads"
            collector.add((*path, name), message, "add from: NAME")


def _file_of(graph: Any) -> str:
    """The file that the first node of a graph stands in."""
    return next((place.file for place in getattr(graph, "keys_at", {}).values()), "another file")


def file_beside(folder: Path, name: object) -> Path | None:
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


def as_typed(path: Path) -> Path:
    """The path as a user would type it from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _drop_nulls(
    tree: yamlfile.Mapping, parent: Any, collector: Collector, path: tuple[str, ...], removed: set[str]
) -> None:
    """Take nulls out of ``tree``, and what they remove out of ``parent``."""
    patches = (("ablation", "factors"), ("ablation", "variants"), ("ablation", "components"))
    if path in patches or (path[:1] == ("profiles",) and len(path) > 1):
        return  # The null of a level or a profile's entry is an assignment, made when the level is.
    for key in list(tree):
        value = tree[key]
        here = (*path, key)
        if isinstance(value, yamlfile.Mapping):
            below = parent.get(key) if isinstance(parent, dict) else None
            _drop_nulls(value, below if isinstance(below, dict) else None, collector, here, removed)
        elif isinstance(value, list):
            for inner in nulls_within(value):
                collector.add((*here, *inner), "null is no value within a list", "leave it out", key=False)
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
    kind = selector(path)
    changes_kind = kind is not None and kind in child and kind in parent and child[kind] != parent[kind]
    # Factors are replaced and not merged, and so is what a profile assigns to a path.
    if changes_kind or (path[:1] == ("ablation",) and len(path) > 1) or (path[:1] == ("profiles",) and len(path) > 2):
        return child
    merged = copy.deepcopy(parent)
    if path[:1] == ("profiles",) and len(path) == 2:
        _drop_overwritten(merged, child)
    for key, value in child.items():
        below = merged.get(key)
        if isinstance(below, yamlfile.Mapping) and isinstance(value, yamlfile.Mapping):
            value = _merged(below, value, (*path, key))
        merged[key] = value
        merged.keys_at[key] = child.keys_at[key]
        merged.values_at[key] = child.values_at[key]
    return merged


def _drop_overwritten(profile: yamlfile.Mapping, child: yamlfile.Mapping) -> None:
    """Take out of a profile what the child's of that name assigns as a whole: else the longer path would win."""
    for key in list(profile):
        if any(f"{key}.".startswith(f"{path}.") for path in child):
            del profile[key]


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
        problem = path_problem(path) or section_problem(path, value)
        if path in seen:
            problem = "given twice", ""
        seen.add(path)
        if problem:
            problems_found.append(Problem(f"--set {path}: {problem[0]}", hint=problem[1]))
        else:
            place = Place("--set", 1, 1, "--set")
            if isinstance(value, str):
                value = _from_here(path, value)
            found.append(Assignment(split_path(path), relayered(value, "--set"), place, "--set"))
    if problems_found:
        raise UserError(problems_found)
    return tuple(found)


def _from_here(path: str, value: str) -> str:
    """A path on the command line starts where the user is."""
    kind, colon, rest = value.partition(":")
    if path == "network.init.from" and colon and kind in ("study", "torchvision"):
        return f"study:{_from_here('data.root', rest)}" if kind == "study" else value
    return (
        str(Path(value).expanduser().absolute()) if path in ("data.root", "network.init.from", "tune.space") else value
    )


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
