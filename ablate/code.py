"""What code a result is owed to, as digests of source: our own package's, and that of what others bring to a spec.

Our own sources are no part of a trial's hash, so that an update does not disown a study; they are recorded beside each
trial, and what is taken over from elsewhere (a checkpoint, the cache) must have been made by the same. A block, a data
set or an augmentation from outside this package has nothing but its name in a spec: its source enters the hash of
every trial that uses it.
"""

from __future__ import annotations

import copyreg
import dis
import hashlib
import inspect
import secrets
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any

from ablate.own_code import PREFIX, made_of
from ablate.sources import sources

PACKAGE = Path(__file__).parent
READERS = frozenset(
    [
        *(
            "__main__.py",
            "cli",
            "api.py",
            "opened.py",
            "grafting.py",
            "testing",
            "scaffold.py",
            "exporting.py",
            "explaining",
            "ejecting",
            "words.py",
            "facts.py",
        ),
        *("beside.py", "benching", "blocks_page.py", "cost_tables.py", "describe.py", "static_search", "schema"),
        *("progress.py", "report", "figures", "findings", "quantities.py", "labels.py", "stats", "diagram", "analysis"),
        *("tuning", "searching", "proposing", "known.py", "zero_cost.py", "space"),  # which trials there are
        *("tracking", "status.py", "watching.py"),
    ]
)
"""What reads, draws or explains results and makes none: an edit there disowns nothing."""
_PINNED = sys.stdlib_module_names | {"ablate", "torch", "torchvision", "pydantic", "pydantic_core", "numpy"}
"""Packages whose code needs no digest where others use it: they have versions, or are ours."""
_PROCESS = secrets.token_hex(16)
"""Stands for what can't be put into words: what is known by it is nothing that another process has made."""


@cache
def code_digest() -> str:
    """Of this package's sources, but for ``READERS``: 128 bits of SHA-256 in hexadecimal, as everywhere here.

    They are read when this module is imported, early in whatever trains: what is edited later is not what runs.
    """
    files = {path.relative_to(PACKAGE): path for path in PACKAGE.rglob("*.py")}
    return _digest(
        (name.as_posix(), path.read_bytes()) for name, path in sorted(files.items()) if name.parts[0] not in READERS
    )


def outside_digest(kind: type) -> str | None:
    """Of the source of a class from outside this package, and of its bases from outside; None for one of ours.

    The source is the class's file, with every file that it imports from its own package or, of a file in no package,
    from its folder. It is read once, when the class is registered: the class in memory does not change with its file.

    A class that has no file (it was typed at a prompt, or in a notebook) is known by its compiled methods and its
    attributes, and by the functions, classes and values that these use, as they are now. What of them no pickle could
    hold (a lock, a generator) has a digest in this process only: nobody else's trial is taken for one with it, from
    the cache or from a study, nor one with it for somebody else's.
    """
    if kind.__module__.partition(".")[0] == "ablate":
        return None
    return _file_digest(kind) or _digest([(kind.__qualname__, _told(kind).encode())])


def outside_digests(kinds: Iterable[type]) -> dict[str, str]:
    """Name → digest of the classes from outside this package that every process imports by itself, from a file.

    A process whose digest of one of these names is another has other code for it. Left out is what is sent to other
    processes as it is: what was typed, or belongs to the script that runs.
    """
    importable = {kind: _file_digest(kind) for kind in kinds if not _is_pinned(kind.__module__)}
    return {
        f"{kind.__module__}.{kind.__qualname__}": digest
        for kind, digest in importable.items()
        if digest is not None and kind.__module__ != "__main__"
    }


def remember(kind: type) -> None:
    """Read the source of a class that is being registered, before somebody edits it."""
    outside_digest(kind)


def _is_pinned(module: str | None) -> bool:
    return (module or "builtins").partition(".")[0] in _PINNED


def _digest(parts: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for name, content in parts:
        digest.update(f"{len(name)} {name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:32]


@cache
def _file_digest(kind: type) -> str | None:
    """Of the files that a class and its bases are made of; None where one of them was typed."""
    parts: dict[str, bytes] = {}
    for each in kind.__mro__:
        if not _is_pinned(each.__module__):
            files = {} if each.__module__.startswith(PREFIX) else _files_of(each)
            if files is None:
                return None
            parts |= files | {name: source.content for name, source in made_of(each).items()}
    return _digest(sorted(parts.items()))


@cache
def _files_of(kind: type) -> dict[str, bytes] | None:
    """Name → content, of the files that a class is made of; None where it was typed."""
    module = sys.modules.get(kind.__module__)
    files = None if module is None else _read(module)
    if module is None or kind.__module__ != "__main__":
        return files
    # a script's own module may go on at a prompt
    own = {Path(each.__code__.co_filename) for value in vars(kind).values() for each in _functions(value)}
    script = Path(str(module.__file__)).name
    return files if all(path.name == script or path.is_file() for path in own) else None


_have_read: dict[int, tuple[Any, dict[str, bytes] | None]] = {}
"""By what there is a new one of each time that a module is imported: the files that it had then."""


def _read(module: ModuleType) -> dict[str, bytes] | None:
    """Name → content. Names are those of modules, not of folders: where the code lies changes nothing."""
    loaded = getattr(module, "__spec__", None) or module
    if id(loaded) not in _have_read:
        try:
            file = inspect.getsourcefile(module)
        except TypeError:
            file = None
        found = None
        if file is not None and Path(file).is_file():
            found = {name: source.content for name, source in sources(Path(file), module.__name__).items()}
        _have_read[id(loaded)] = (loaded, found)
    return _have_read[id(loaded)][1]


def _functions(value: Any) -> list[FunctionType]:
    parts = [value.fget, value.fset] if isinstance(value, property) else [getattr(value, "__func__", value)]
    return [part for part in parts if isinstance(part, FunctionType)]


class _Typed:
    """Puts what was typed into words, which are the same in every process that has the same version of Python."""

    def __init__(self) -> None:
        self._seen: dict[int, Any] = {}
        """What was said already, or is being said, by where it is; kept, so that nothing else comes to be there."""

    def tell(self, value: Any) -> str:
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return f"{type(value).__name__} {value!r}"
        if id(value) in self._seen:
            return f"number {list(self._seen).index(id(value))}"
        if not isinstance(value, tuple | frozenset):  # of which Python makes one or two as it likes
            self._seen[id(value)] = value
        if isinstance(value, type | FunctionType | ModuleType):
            return self._defined(value)
        if isinstance(value, BuiltinFunctionType):
            return f"{value.__qualname__} of {self.tell(value.__self__)}"
        if isinstance(value, classmethod | staticmethod):
            return f"{type(value).__name__} {self.tell(value.__func__)}"
        if isinstance(value, property):
            return f"property {[self.tell(each) for each in (value.fget, value.fset, value.fdel)]}"
        return self._object(value)

    def _class(self, kind: type) -> str:
        """Its methods' code, its attributes, its classes within, its bases."""
        attributes = {
            name: value
            for name, value in vars(kind).items()
            if name == "__pydantic_fields__" or not (name.startswith("__") or name == "_abc_impl") or _functions(value)
        }
        told = [f"{name} {self.tell(value)}" for name, value in sorted(attributes.items())]
        return f"class {kind.__qualname__}({', '.join(map(self.tell, kind.__bases__))}):\n" + "\n".join(told)

    def _defined(self, value: Any) -> str:
        """A class, a function or a module: what has a version by name, what has a file by that, else by itself."""
        name = f"{getattr(value, '__module__', '')} {getattr(value, '__qualname__', value.__name__)}"
        module = value if isinstance(value, ModuleType) else sys.modules.get(value.__module__ or "builtins")
        if _is_pinned(value.__name__ if isinstance(value, ModuleType) else value.__module__):
            return name
        files = _files_of(value) if isinstance(value, type) else module and _read(module)
        if files is not None and not (
            isinstance(value, FunctionType) and not Path(value.__code__.co_filename).is_file()
        ):
            return f"{name} {_digest(sorted(files.items()))}"
        if isinstance(value, type):
            return self._class(value)
        return self._function(value) if isinstance(value, FunctionType) else _unspeakable(value)

    def _function(self, function: FunctionType) -> str:
        there = function.__globals__
        used = {name: there[name] for name in _globals(function.__code__) if name in there}
        cells = [cell.cell_contents for cell in function.__closure__ or () if cell != CellType()]
        parts = (function.__defaults__, function.__kwdefaults__, cells, used, vars(function))
        return f"{self._code(function.__code__)} {[self.tell(each) for each in parts]}"

    def _code(self, code: CodeType) -> str:
        """Without file names and line numbers: where it was typed changes nothing."""
        constants = [self._code(each) if isinstance(each, CodeType) else self.tell(each) for each in code.co_consts]
        return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars} {constants}"

    def _object(self, value: Any) -> str:
        """By its items, its numbers, or by what a pickle of it would hold."""
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        if kind in (tuple, list):
            return f"{name} {[self.tell(each) for each in value]}"
        if kind in (set, frozenset):
            return f"{name} {sorted(_Typed().tell(each) for each in value)}"
        if kind is dict:
            return f"{name} {[(self.tell(key), self.tell(each)) for key, each in value.items()]}"
        try:
            if _is_pinned(kind.__module__) and hasattr(value, "tolist") and str(value.dtype) != "object":
                return f"{name} {value.dtype} {value.tolist()}"
            reduce = copyreg.dispatch_table.get(kind)
            reduced: Any = reduce(value) if reduce else value.__reduce_ex__(4)
        except Exception:  # whatever it holds
            return _unspeakable(value)
        if isinstance(reduced, str):
            return f"{self.tell(kind)} {reduced}"
        # of a list's or a dict's items there are iterators
        return self.tell([list(part) if hasattr(part, "__next__") else part for part in reduced])


_unknown: dict[int, Any] = {}
"""What could not be put into words: kept, so that nothing else comes to be where it is."""


def _unspeakable(value: Any) -> str:
    _unknown[id(value)] = value
    return f"{_PROCESS} {id(value)}"


def _told(kind: type) -> str:
    try:
        return _Typed().tell(kind)
    except Exception:  # something without an end, or that has more digits than Python writes
        return _unspeakable(kind)


def _globals(code: CodeType) -> list[str]:
    """The names that it looks up in its module, and those that the functions within it look up."""
    own = {each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    within = (name for each in code.co_consts if isinstance(each, CodeType) for name in _globals(each))
    return sorted(own.union(within))


code_digest()
