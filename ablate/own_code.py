"""Blocks and data sets of a user's own files, beside a spec that names them: ``use: [my_block.py]``.

Such a file is run, and so it takes ``--trust`` on the command line. What it registers is known to everything by its
name, as what an installed package brings is.

A trial is known by what such a file and its imports from beside it hold, so that, and nothing else, must be what runs,
whenever it is imported and in whatever process. So all these files are read at once, when the spec is, and make up a
package whose name is a digest of them: ``ablate_own_0123….my_block``. Python imports it from what was read, and never
from the folder, which is not on ``sys.path``; import statements that mean a file beside it are turned to that package.
An edited file is another package, helpers of one name in two folders never meet, and other processes get the package
with the trial.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import cached_property
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from ablate.errors import Problem, UserError, printable
from ablate.sources import Source, is_installed, sources, with_parents

PREFIX = "ablate_own_"


@dataclass(frozen=True)
class Package:
    """Files that are used together, and all that they import from beside them.

    ``made_of``: the module of each file, in the order of the spec → all that it is made of, itself among it, by module.
    """

    made_of: Mapping[str, Mapping[str, Source]]

    @cached_property
    def name(self) -> str:
        """What it is imported as. Where its files lie changes nothing."""
        digest = hashlib.sha256()
        for file, parts in self.made_of.items():
            for module, source in sorted(parts.items()):
                about = file, module, source.path.name, len(source.content)
                digest.update(repr(about).encode() + source.content)
        return PREFIX + digest.hexdigest()[:32]

    @cached_property
    def modules(self) -> dict[str, Source]:
        return {module: source for parts in self.made_of.values() for module, source in parts.items()}

    @cached_property
    def names(self) -> frozenset[str]:
        """Of its modules, and of the packages that these lie in."""
        return frozenset(name for module in self.modules for name in with_parents(module))

    def made_with(self, module: str) -> dict[str, Source]:
        """All that the files are made of which have to do with a module."""
        files = [parts for parts in self.made_of.values() if module in parts]
        return {name: source for parts in files for name, source in parts.items()}


@dataclass(frozen=True)
class Sent:
    """Packages for another process, which can import them as soon as it has unpickled this."""

    packages: tuple[Package, ...] = ()

    def __reduce__(self) -> tuple[Callable[[tuple[Package, ...]], Sent], tuple[tuple[Package, ...]]]:
        return _received, (self.packages,)


def _received(packages: tuple[Package, ...]) -> Sent:
    for package in packages:
        _install(package)
    return Sent(packages)


@dataclass
class _Registered:
    """A class that a package has put into a registry, under its name."""

    registry: dict[str, Any]
    kind: Any
    file: Path
    """That of the class, or the one that was run when it was registered."""
    made_of: dict[str, Source]

    def put(self) -> None:
        self.registry[self.kind.name] = self.kind

    def take(self) -> bool:
        there = self.registry.get(self.kind.name) is self.kind
        if there:
            del self.registry[self.kind.name]
        return there


@dataclass
class _Process:
    """What this process has of such packages."""

    packages: dict[str, Package] = field(default_factory=dict)
    registered: dict[str, list[_Registered]] = field(default_factory=dict)
    """By package."""
    brought: set[str] = field(default_factory=set)
    """Packages all files of which were run here."""
    running: tuple[Package, Path] | None = None


_here = _Process()
_lock = threading.RLock()


def sent() -> Sent:
    """All packages of this process."""
    return Sent(tuple(_here.packages.values()))


def made_of(kind: type) -> dict[str, Source]:
    """What a class is made of that such files have brought; nothing for others."""
    package, _, module = kind.__module__.partition(".")
    if package in _here.packages:
        return _here.packages[package].made_with(module)
    found = (each for every in _here.registered.values() for each in every if each.kind is kind)
    return {name: source for each in found for name, source in each.made_of.items()}


def home(kind: type) -> str:
    """Where a class is defined, for an error's message: its file, of one of these, or its module."""
    package, _, module = kind.__module__.partition(".")
    return str(_here.packages[package].modules[module].path) if package in _here.packages else kind.__module__


def note(registry: dict[str, Any], kind: type) -> None:
    """That a class is put into a registry: by such a file perhaps."""
    name, _, module = kind.__module__.partition(".")
    if name in _here.packages:
        made_of, file = _here.packages[name].made_with(module), _here.packages[name].modules[module].path
    elif _here.running is not None:  # made by a function of somebody else's
        package, file = _here.running
        name, made_of = package.name, dict(package.made_of[file.stem])
    else:
        return
    _here.registered.setdefault(name, []).append(_Registered(registry, kind, file, made_of))


def bring(files: Sequence[Path]) -> dict[int, list[Problem]]:
    """Run files together, once for each content that they and their imports have; what they define is registered.

    Returns what is wrong, by the place among ``files``; nothing where all is well. What was registered before is then
    as it was.
    """
    with _lock:
        problems = {at: found for at, file in enumerate(files) if (found := _problems(file))}
        if problems or not files:
            return problems
        package = Package({file.stem: sources(file, file.stem, beside=True) for file in files})
        problems = {at: found for at, file in enumerate(files) if (found := _clashes(package, file, files[:at]))}
        if problems:
            return problems
        taken = _take_others(package)
        problems = _register_again(package) if package.name in _here.brought else _run_all(package, files)
        for entry in taken if problems else ():
            entry.put()
        return problems


def module_of(file: Path) -> ModuleType:
    """A file by itself as a module, with what it imports from beside it. ``UserError``, or whatever it raises."""
    package = Package({file.stem: sources(file, file.stem, beside=True)})
    problems = _clashes(package, file, ())
    if problems:
        raise UserError(problems)
    _install(package)
    return importlib.import_module(f"{package.name}.{file.stem}")


def is_taken(name: str) -> bool:
    """Whether a file of that name would hide a module that is there already, or be hidden by it."""
    return name in sys.modules or name in sys.stdlib_module_names or _found(name) is not None


def _problems(file: Path) -> list[Problem]:
    if not file.is_file():
        return [Problem(f"no file '{file.name}'", hint=f"looked in {file.parent}")]
    if file.suffix != ".py" or not file.stem.isidentifier():
        return [Problem(f"'{file.name}' is no name of a module", hint="letters, digits and _, and .py behind")]
    return []


def _clashes(package: Package, file: Path, before: Sequence[Path]) -> list[Problem]:
    """Names that mean two things: to whom reads the file, or to Python."""
    if any(other.stem == file.stem for other in before):
        return [Problem(f"another file is called '{file.name}'", hint="choose another name for one of them")]
    problems = []
    hint = "choose another name"
    for name, source in package.made_of[file.stem].items():
        what = f"'{file.name}' can't be called so" if source.path == file else f"'{file.name}' imports '{name}'"
        others = [each.stem for each in before if package.made_of[each.stem].get(name, source) != source]
        if others:
            problems.append(Problem(f"{what} from beside it, and '{others[0]}.py' another of that name", hint=hint))
        if _is_installed(name):
            problems.append(Problem(f"{what}: there is a module '{name}' already", hint=hint))
    return problems


def _is_installed(name: str) -> bool:
    """Whether an import of it means Python's own, this package or an installed one, for whoever reads it."""
    found = None if "." in name else _found(name)
    return name == "ablate" or name in sys.stdlib_module_names or (found is not None and is_installed(found.origin))


def _found(name: str) -> ModuleSpec | None:
    """What Python imports by a name without a dot."""
    try:
        return importlib.util.find_spec(name)
    except ValueError:  # a module that says nothing of where it is from
        return None


def _take_others(package: Package) -> list[_Registered]:
    """Take out what other packages have registered from these files, or from files that are no more."""
    files = {source.path for source in package.modules.values()}
    others = [entry for name, every in _here.registered.items() if name != package.name for entry in every]
    return [entry for entry in others if (entry.file in files or not entry.file.is_file()) and entry.take()]


def _register_again(package: Package) -> dict[int, list[Problem]]:
    entries = _here.registered.get(package.name, ())
    for entry in entries:
        there = entry.registry.get(entry.kind.name, entry.kind)
        if there is not entry.kind:
            message = f"'{entry.kind.name}' is defined in {home(there)} and in {home(entry.kind)}"
            return {0: [Problem(message, hint="choose another name for one of them")]}
    for entry in entries:
        entry.put()
    return {}


def _run_all(package: Package, files: Sequence[Path]) -> dict[int, list[Problem]]:
    _install(package)
    for at, file in enumerate(files):
        try:
            _run(package, file)
        except UserError as error:
            _forget(package)
            return {at: error.problems}
    _here.brought.add(package.name)
    return {}


def _run(package: Package, file: Path) -> None:
    before = set(sys.modules)
    _here.running = package, file
    try:
        with redirect_stdout(sys.stderr):  # what it prints is none of our results
            importlib.import_module(f"{package.name}.{file.stem}")
    except (Exception, SystemExit) as error:  # a user's own code: whatever it raises
        said = printable(str(error).strip().split("\n", 1)[0])[:300].replace(f"{package.name}.", "")
        missing = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        beside = bool(missing) and any(path.name.partition(".")[0] == missing for path in file.parent.iterdir())
        hint = _STATEMENTS if beside else ""
        raise UserError(Problem(f"'{file.name}' can't be run: {type(error).__name__}: {said}", hint=hint)) from None
    finally:
        _here.running = None
    _check_seen(file, set(sys.modules) - before)


_STATEMENTS = "from beside it are imported Python files that an import statement names: these say what a trial ran"


def _check_seen(file: Path, imported: set[str]) -> None:
    """What came from beside it over ``sys.path``, by no statement of a Python file, has no part in any digest."""
    unseen = sorted(name for name in imported if _is_beside(file, name))
    for name in unseen:
        del sys.modules[name]
    if unseen:
        message = f"'{file.name}' imports '{unseen[0]}' from beside it by no statement of a Python file"
        raise UserError(Problem(message, hint=_STATEMENTS))


def _is_beside(file: Path, name: str) -> bool:
    """Whether a module was found in the file's folder itself, and not in an environment that lies in there."""
    first, folder = name.partition(".")[0], file.parent.resolve()
    path = Path(str(getattr(sys.modules[name], "__file__", None) or "")).resolve()
    if first == "ablate" or first in _here.packages or not path.is_relative_to(folder):
        return False
    return path.relative_to(folder).parts[0].partition(".")[0] == first


def _forget(package: Package) -> None:
    for entry in _here.registered.pop(package.name, ()):
        entry.take()
    _here.packages.pop(package.name, None)
    for name in list(sys.modules):
        if name == package.name or name.startswith(f"{package.name}."):
            del sys.modules[name]


def _install(package: Package) -> None:
    _here.packages.setdefault(package.name, package)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds the packages of this process, and nothing else."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        first, _, module = name.partition(".")
        package = _here.packages.get(first)
        if package is None or (module and module not in package.names):
            return None
        source = package.modules.get(module)
        if source is None:
            return ModuleSpec(name, None, is_package=True)
        is_package = source.path.name == "__init__.py"
        spec = ModuleSpec(name, _Loader(package), origin=str(source.path), is_package=is_package)
        spec.has_location = True  # so that the module has a __file__
        return spec


class _Loader(InspectLoader):
    """Makes modules from what was read of their files, whatever these hold by now."""

    def __init__(self, package: Package) -> None:
        self._package = package

    def is_package(self, fullname: str) -> bool:
        return self._source(fullname).path.name == "__init__.py"

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self._source(fullname).content)

    def get_code(self, fullname: str) -> CodeType:
        source = self._source(fullname)
        tree = _Turned(self._package).visit(ast.parse(source.content, str(source.path)))
        code: CodeType = compile(ast.fix_missing_locations(tree), str(source.path), "exec", dont_inherit=True)
        return code

    def _source(self, fullname: str) -> Source:
        return self._package.modules[fullname.partition(".")[2]]


class _Turned(ast.NodeTransformer):
    """Turns the imports of what lies beside a file to the package that it is in. What they bind stays the same."""

    def __init__(self, package: Package) -> None:
        self._package = package

    def visit_Import(self, node: ast.Import) -> list[ast.stmt]:
        turned: list[ast.stmt] = []
        for alias in node.names:
            names, first = [alias], alias.name.partition(".")[0]
            if alias.name in self._package.names:
                whole = f"{self._package.name}.{alias.name}"
                names = [ast.alias(whole, alias.asname)]
                if alias.asname is None:
                    names += [ast.alias(f"{self._package.name}.{first}", first)]
            turned.append(ast.copy_location(ast.Import(names), node))
        return turned

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        if not node.level and node.module in self._package.names:
            node.module = f"{self._package.name}.{node.module}"
        return node
