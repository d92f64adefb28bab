"""Blocks and data sets of a user's own files, beside a spec that names them: ``use: [my_block.py]``.

Such a file is run, and so it takes ``--trust`` on the command line. It becomes a module that is called as the file is,
and what it registers is known to everything by its name, as what an installed package brings is. Its folder stays at
the end of ``sys.path``; other processes are sent the code itself, with what uses it.

A trial is known by what such a file and its imports from beside it hold, so that and nothing else must be what runs:
what has changed is run anew, with all that may use it, and a file is refused whose imports would come from elsewhere.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from ablate.errors import Problem, UserError, printable
from ablate.sources import Source, sources, with_parents

_brought: dict[str, dict[str, Source]] = {}
"""Module of a file that was run → all that it is made of: module → source, itself among them."""
_as_run: dict[str, Source] = {}
"""Each of all these modules → what it was when it was run."""


def bring(file: Path) -> ModuleType:
    """Run a file, once for each content that it and its imports have. ``UserError`` says why that can't be."""
    problem = _problem(file)
    if problem is not None:
        raise UserError(problem)
    importlib.invalidate_caches()
    name, made_of = file.stem, sources(file, file.stem)
    changed = {part for part, source in made_of.items() if _as_run.get(part) != source}
    changed |= _brought.get(name, made_of).keys() ^ made_of.keys()
    if changed or name not in sys.modules:
        changed.add(name)
        _forget(other for other, parts in _brought.items() if parts.keys() & changed and _is_of(file.parent, other))
        _go_through(file, made_of)
        _run(file, made_of)
    _brought[name] = made_of
    return sys.modules[name]


def is_taken(name: str) -> bool:
    """Whether a file of that name would hide a module that is there already, or be hidden by it."""
    return name in sys.modules or name in sys.stdlib_module_names or _found(name) is not None


def sent_whole() -> list[ModuleType]:
    """The modules that other processes can't be told of by name: these files, and what they import from beside them."""
    names = {name for part in sent().modules for name in with_parents(part)}
    return [sys.modules[name] for name in sorted(names) if name in sys.modules]


@dataclass(frozen=True)
class Sent:
    """Modules for other processes: one that unpickles this imports them as they were run here, from no file."""

    modules: Mapping[str, Source]

    def __reduce__(self) -> tuple[Callable[[Mapping[str, Source]], Sent], tuple[Mapping[str, Source]]]:
        return _received, (self.modules,)


def sent() -> Sent:
    """All modules of the files that were run."""
    return Sent({name: source for made_of in _brought.values() for name, source in made_of.items()})


class _Receiver(MetaPathFinder, SourceLoader):  # type: ignore[misc]
    """Imports what was sent. It is asked first: what else has such a name here is none of the study's."""

    def __init__(self, modules: Mapping[str, Source]) -> None:
        self.modules = modules

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        if name in self.modules:
            is_package = self.modules[name].path.name == "__init__.py"
            return importlib.util.spec_from_loader(name, self, is_package=is_package)
        holds = any(module.startswith(f"{name}.") for module in self.modules)
        return ModuleSpec(name, None, is_package=True) if holds and not PathFinder.find_spec(name, path) else None

    def get_filename(self, name: str) -> str:
        return str(self.modules[name].path)

    def get_data(self, path: str | bytes) -> bytes:
        contents = {str(source.path): source.content for source in self.modules.values()}
        if path not in contents:
            raise OSError(f"no module {path!r} was sent")
        return contents[str(path)]


def _received(modules: Mapping[str, Source]) -> Sent:
    if modules and not _brought:  # who has run files itself has them
        known = next((finder for finder in sys.meta_path if isinstance(finder, _Receiver)), None)
        if known is None:
            sys.meta_path.insert(0, _Receiver(modules))
        elif known.modules != modules:
            _drop(known.modules)
            known.modules = modules
    return Sent(modules)


def _problem(file: Path) -> Problem | None:
    if not file.is_file():
        return Problem(f"no file '{file.name}'", hint=f"looked in {file.parent}")
    if file.suffix != ".py" or not file.stem.isidentifier():
        return Problem(f"'{file.name}' is no name of a module", hint="letters, digits and _, and .py behind")
    return None


def _is_of(folder: Path, brought: str) -> bool:
    return _brought[brought][brought].path.parent == folder


def _forget(brought: Iterable[str]) -> None:
    """Files that were run, with all that they are made of, so that these are read anew."""
    for name in list(brought):
        made_of = _brought.pop(name)
        _drop(made_of)
        for part in made_of:
            _as_run.pop(part, None)


def _drop(modules: Iterable[str]) -> None:
    for name in modules:
        for part in with_parents(name):
            sys.modules.pop(part, None)


def _go_through(file: Path, made_of: dict[str, Source]) -> None:
    """Put the file's folder on the path. ``UserError`` where one of the modules would come from anywhere else."""
    folder = str(file.parent)
    added = folder not in sys.path
    if added:
        sys.path.append(folder)
    problems = [problem for name, source in made_of.items() if (problem := _taken(file, name, source.path))]
    if problems:
        if added:
            sys.path.remove(folder)
        raise UserError(problems)


def _taken(file: Path, name: str, path: Path) -> Problem | None:
    """That the name means another module than the one at ``path``."""
    found = _found(name)
    if found is None or Path(found.origin or "").resolve() == path.resolve():
        return None
    what = f"'{file.name}' can't be called so" if path == file else f"'{file.name}' imports '{name}' from beside it"
    where = f", {found.origin}" if found.has_location else ""
    hint = "choose another name for one of them"
    if name in _as_run:
        hint += ", or use them in two processes"
    return Problem(f"{what}: there is a module '{name}' already{where}", hint=hint)


def _found(name: str) -> ModuleSpec | None:
    """What Python imports by that name. Nothing is run, as ``find_spec`` would run the packages that it lies in."""
    first, *others = with_parents(name)
    try:
        found = importlib.util.find_spec(first)
    except ValueError:  # a module that says nothing of where it is from
        return ModuleSpec(name, None)
    for part in others:
        if found is None or found.submodule_search_locations is None:
            return None
        found = PathFinder.find_spec(part, found.submodule_search_locations)
    return found


def _run(file: Path, made_of: dict[str, Source]) -> None:
    anew = made_of.keys() - _as_run.keys()
    _drop(anew)  # somebody's imports, of who knows when
    try:
        before = set(sys.modules)
        _import(file)
        _check_seen(file, set(sys.modules) - before - anew)
    except UserError:
        _drop(anew)
        raise
    _as_run.update(made_of)


def _import(file: Path) -> None:
    # Beside a spec nothing is written; and a file that changed within a second would be read from there.
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        with redirect_stdout(sys.stderr):  # what it prints is none of our results
            importlib.import_module(file.stem)
    except (Exception, SystemExit) as error:  # a user's own code: whatever it raises
        said = printable(str(error).strip().split("\n", 1)[0])[:300]
        raise UserError(Problem(f"'{file.name}' can't be run: {type(error).__name__}: {said}")) from None
    finally:
        sys.dont_write_bytecode = writes


def _check_seen(file: Path, others: set[str]) -> None:
    """What was imported from beside it by no statement, or is compiled, has no part in the digest of the code."""
    for name in sorted(others):
        path = Path(str(getattr(sys.modules[name], "__file__", None) or ""))
        if not path.is_relative_to(file.parent) or name.startswith("ablate."):
            continue
        if path.relative_to(file.parent).parts[0].partition(".")[0] != name.partition(".")[0]:
            continue  # of an environment that lies in this folder
        message = f"'{file.name}' imports '{name}' from beside it, and no import statement says so"
        hint = f"write 'import {name}': by its statements it is known what a trial ran"
        if path.suffix != ".py":
            message = f"'{file.name}' imports '{name}' from beside it, which is compiled: nobody can tell what it does"
            hint = "a package may bring it, with its version; see docs/extending.md"
        raise UserError(Problem(message, hint=hint))
