"""What installed packages add: blocks, data sets, loggers and columns of tables, by their entry points.

    [project.entry-points."ablate.blocks"]
    swirl = "acme.swirl:Swirl"

An installed package is trusted as every import of it is. One that can't be imported takes nothing else with it: it is
warned of once, and named where what it was to bring is asked for. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from types import MappingProxyType
from typing import Any, TypeVar

from ablate.errors import Problem, UserError, did_you_mean, printable

BLOCKS, DATA_SETS, LOGGERS, COLUMNS = "ablate.blocks", "ablate.datasets", "ablate.loggers", "ablate.columns"
GROUPS = {BLOCKS: "block", DATA_SETS: "data set", LOGGERS: "logger", COLUMNS: "column"}
"""Group of entry points → what one of it is called."""
OWN = "ablate-harness"
"""This package's own distribution, whose parts need no entry points."""


Kind = TypeVar("Kind", bound=type)


class PluginError(UserError):
    """What an installed package was to bring can't be used."""


@dataclass(frozen=True)
class Plugin:
    """One entry point: ``name`` in its group, ``value`` as ``module:attribute``, and the package that has it."""

    group: str
    name: str
    value: str
    distribution: str
    version: str

    @property
    def package(self) -> str:
        """The import package that ``value`` lies in."""
        return self.value.partition(":")[0].partition(".")[0]

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.value})"

    def load(self) -> Any:
        """What the entry point names; ``PluginError`` where it can't be imported, or is not there."""
        loaded = _load(self)
        if isinstance(loaded, PluginError):
            raise PluginError(loaded.problems)
        return loaded


def plugins(group: str) -> Mapping[str, Plugin]:
    """The plugins of a group by name, sorted, without those whose name two packages claim; none is imported.

    ``group``: one of ``GROUPS``.
    """
    return _single(claimed(group))


def claimed(group: str) -> tuple[Plugin, ...]:
    """All plugins of a group, several of one name among them."""
    return _installed(tuple(sys.path)).get(group, ())


def installed_names(group: str) -> list[str]:
    """What the plugins of a group are called, those that two packages claim among them; none within ``own_alone``."""
    return [] if _alone.get() else list(dict.fromkeys(plugin.name for plugin in claimed(group)))


def why_not(group: str, name: str, builtin: bool, load: Callable[[Plugin], object] = Plugin.load) -> str:
    """Why a name of that group can't be used, though something has it; empty where it can, or nothing has it.

    Two packages, or one and this (``builtin``), claim it; or the one that has it does not ``load``.
    """
    kind, found = GROUPS[group], [plugin for plugin in claimed(group) if plugin.name == name]
    if not found:
        return ""
    if len(found) > 1:
        return f"{kind} '{name}' is claimed by {' and by '.join(map(str, found))}: uninstall one of them"
    plugin = found[0]
    if builtin:
        return f"{kind} '{name}' is one of ablate's own, and is claimed by {plugin}: uninstall that package"
    try:
        load(plugin)
    except PluginError as error:
        return error.problems[0].message
    return ""


def refused(plugin: Plugin, why: str) -> PluginError:
    """That what a plugin brought is not what it should be."""
    return PluginError(Problem(f"{GROUPS.get(plugin.group, 'plugin')} '{plugin.name}' of {plugin} {why}"))


def class_of(plugin: Plugin, kinds: tuple[type, ...], what: str) -> Any:
    """The class that a plugin brings; ``PluginError`` where it is none of ``kinds``, or has another name."""
    found = plugin.load()
    if not (isinstance(found, type) and issubclass(found, kinds)):
        raise refused(plugin, f"is no class of a {what}")
    if getattr(found, "name", None) != plugin.name:
        raise refused(plugin, f"calls itself {getattr(found, 'name', None)!r}: the entry point has another name")
    return found


def unusable_in(group: str, registered: Mapping[str, Any], name: str, load: Callable[[Plugin], object]) -> str:
    """``why_not`` for a registry, whose entries are classes by name."""
    known = registered.get(name)
    return why_not(group, name, known is not None and is_own(known.__module__), load)


def listed_in(group: str, registered: Mapping[str, Kind], load: Callable[[Plugin], object]) -> dict[str, Kind]:
    """A registry by name, sorted, with what plugins bring; one that can't be used is warned of, once."""
    names = dict.fromkeys(plugin.name for plugin in claimed(group))
    warn_once(filter(None, (unusable_in(group, registered, name, load) for name in names)))
    return {name: kind for name, kind in sorted(registered.items()) if not _alone.get() or is_own(kind.__module__)}


def found_in(group: str, registered: Mapping[str, Kind], name: str, load: Callable[[Plugin], object]) -> Kind:
    """The entry of that name; ``KeyError`` with a hint where there is none, or with why it can't be used."""
    if why := unusable_in(group, registered, name, load):
        raise KeyError(why)
    if name not in registered:
        raise KeyError(did_you_mean(name, listed_in(group, registered, load)))
    return registered[name]


def release_of(module: str) -> tuple[str, str] | None:
    """Distribution and version of the package of a plugin that a module belongs to; None where it is of none."""
    package = module.partition(".")[0]
    for group in _installed(tuple(sys.path)).values():
        for plugin in group:
            if plugin.package == package:
                return plugin.distribution, plugin.version
    return None


_warned: set[str] = set()


def warn_once(problems: Iterable[str]) -> None:
    """On stderr, each once in this process."""
    for problem in problems:
        if problem not in _warned:
            _warned.add(problem)
            print(f"warning: {problem}", file=sys.stderr)


_alone: ContextVar[bool] = ContextVar("alone", default=False)


@contextmanager
def own_alone() -> Iterator[None]:
    """Within, the registries have this package's own blocks and data sets and no others."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def is_own(module: str) -> bool:
    return module.partition(".")[0] == "ablate"


def forget() -> None:
    """Look anew at what is installed: of a program that installs packages itself."""
    for each in (_installed, _single, _load):
        each.cache_clear()


@cache
def _installed(path: tuple[str, ...]) -> Mapping[str, tuple[Plugin, ...]]:
    """All plugins by group, as the packages on ``path`` (``sys.path``) declare them."""
    found: dict[str, set[Plugin]] = {}
    for group in GROUPS:
        for entry in metadata.entry_points(group=group):
            package = entry.dist
            name, version = (package.metadata["Name"], package.version) if package is not None else ("?", "?")
            if name != OWN:
                found.setdefault(group, set()).add(Plugin(group, entry.name, entry.value, name, version))
    return {group: tuple(sorted(each, key=lambda plugin: (plugin.name, str(plugin)))) for group, each in found.items()}


@cache
def _single(found: tuple[Plugin, ...]) -> Mapping[str, Plugin]:
    names = [plugin.name for plugin in found]
    return MappingProxyType({plugin.name: plugin for plugin in found if names.count(plugin.name) == 1})


@cache
def _load(plugin: Plugin) -> Any:
    module, _, attribute = plugin.value.partition(":")
    try:
        with redirect_stdout(sys.stderr):  # what it prints is none of our results
            found: Any = importlib.import_module(module.strip())
        for part in attribute.split(".") if attribute else ():
            found = getattr(found, part.strip())
    except (Exception, SystemExit) as error:  # whatever it raises
        said = printable(str(error).strip().split("\n", 1)[0])[:300]
        return refused(plugin, f"can't be imported: {type(error).__name__}: {said}")
    return found
