"""Blocks and data sets of a user's own files, beside a spec that names them: ``use: [my_block.py]``.

Such a file is run, and so it takes ``--trust`` on the command line. It becomes a module that is called as the file is,
and what it registers is known to everything by its name, as what an installed package brings is. Its folder stays at
the end of ``sys.path``, so that processes that are started here find it; others are sent the code itself.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

from ablate.errors import Problem, UserError, printable

_brought: dict[str, tuple[Path, bytes]] = {}
"""Module → its file, and what that held when it was run."""


def bring(file: Path) -> ModuleType:
    """Run a file, once for each content that it has. ``UserError`` says why that can't be."""
    name = file.stem
    problem = _problem(file)
    if problem is not None:
        raise UserError(problem)
    content = file.read_bytes()
    known = _brought.get(name)
    if known == (file, content) and name in sys.modules and not _helpers_changed(file.parent):
        return sys.modules[name]
    if known is None and _exists_elsewhere(name, file.parent):
        message = f"'{file.name}' can't be called so: there is a module '{name}' already"
        raise UserError(Problem(message, hint="choose another name for the file"))
    if known is not None and known[0] != file:
        message = f"'{file}' and '{known[0]}' have one name, and this process has run the other"
        raise UserError(Problem(message, hint="choose another name for one of them"))
    _forget(file.parent)
    return _run(file, content)


def _problem(file: Path) -> Problem | None:
    if not file.is_file():
        return Problem(f"no file '{file.name}'", hint=f"looked in {file.parent}")
    if file.suffix != ".py" or not file.stem.isidentifier():
        return Problem(f"'{file.name}' is no name of a module", hint="letters, digits and _, and .py behind")
    return None


def is_taken(name: str) -> bool:
    """Whether a file of that name would hide a module that is there already, or be hidden by it."""
    return _exists_elsewhere(name, Path())


def _exists_elsewhere(name: str, folder: Path) -> bool:
    """Whether the name means another module, which the file would hide, or be hidden by."""
    if name in sys.modules or name in sys.stdlib_module_names:
        return True
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return found is not None and (found.origin is None or Path(found.origin).resolve().parent != folder)


_helpers: dict[str, tuple[Path, bytes]] = {}
"""Modules that such files have imported from their folders → file, and what it held."""


def _helpers_changed(folder: Path) -> bool:
    return any(
        file.parent == folder and (not file.is_file() or file.read_bytes() != content)
        for file, content in _helpers.values()
    )


def _forget(folder: Path) -> None:
    """Of the modules that have come from this folder, so that they are read anew."""
    for held in (_brought, _helpers):
        for name in [name for name, (file, _) in held.items() if file.parent == folder]:
            sys.modules.pop(name, None)
            del held[name]
    importlib.invalidate_caches()


def _run(file: Path, content: bytes) -> ModuleType:
    name, folder = file.stem, str(file.parent)
    if folder not in sys.path:
        sys.path.append(folder)
    before, writes = set(sys.modules), sys.dont_write_bytecode
    # Beside a spec nothing is written; and a file that changed within a second would be read from there.
    sys.dont_write_bytecode = True
    try:
        with redirect_stdout(sys.stderr):  # what it prints is none of our results
            module = importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a user's own code: whatever it raises
        said = printable(str(error).strip().split("\n", 1)[0])[:300]
        raise UserError(Problem(f"'{file.name}' can't be run: {type(error).__name__}: {said}")) from None
    finally:
        sys.dont_write_bytecode = writes
        _remember_helpers(set(sys.modules) - before - {name}, file.parent)
    _brought[name] = (file, content)
    return module


def _remember_helpers(names: set[str], folder: Path) -> None:
    for name in names:
        source = Path(str(getattr(sys.modules[name], "__file__", "") or ""))
        if source.parent == folder and source.is_file():
            _helpers[name] = (source, source.read_bytes())


def sent_whole() -> list[ModuleType]:
    """The modules that other processes can't be told of by name: these files, and what they import from beside them."""
    return [sys.modules[name] for name in (*_brought, *_helpers) if name in sys.modules]
