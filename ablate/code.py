"""What code a result is owed to, as digests of source: our own package's, and that of what others bring to a spec.

Our own sources are no part of a trial's hash, so that an update does not disown a study; they are recorded beside each
trial, and what is taken over from elsewhere (a checkpoint, the cache) must have been made by the same. A block, a data
set or an augmentation from outside this package has nothing but its name in a spec: its source enters the hash of
every trial that uses it.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

PACKAGE = Path(__file__).parent
READERS = frozenset(
    [
        *("__main__.py", "cli", "api.py", "scaffold.py", "exporting.py", "ejecting", "words.py", "facts.py"),
        *("beside.py", "benching", "blocks_page.py", "cost_tables.py", "describe.py", "static_search", "schema"),
        *("progress.py", "report", "stats.py", "diagram"),
    ]
)
"""What reads, draws or explains results and makes none: an edit there disowns nothing."""
_PINNED = ("ablate", "torch", "torchvision", "pydantic", "numpy", "abc", "typing", "builtins")
"""Packages whose classes need no digest as the bases of another: they have versions, or are ours."""


@cache
def code_digest() -> str:
    """Of this package's sources, but for ``READERS``: 128 bits of SHA-256 in hexadecimal, as everywhere here."""
    sources = {path.relative_to(PACKAGE): path for path in PACKAGE.rglob("*.py")}
    return _digest(
        (name.as_posix(), path.read_bytes()) for name, path in sorted(sources.items()) if name.parts[0] not in READERS
    )


@cache
def outside_digest(kind: type) -> str | None:
    """Of the source of a class from outside this package, and of its bases from outside; None for one of ours.

    The source is the class's file, with every file that it imports from its own package or, of a file in no package,
    from its folder. A class that has no file (it was typed at a prompt, or in a notebook) is known by its own source
    where Python remembers it, and else by its compiled methods and plain attributes.

    It is read when it is first asked for, and then kept: the class in memory does not change with its file.
    """
    if _is_ours(kind):
        return None
    parts: dict[str, bytes] = {}
    for each in kind.__mro__:
        if each.__module__.partition(".")[0] not in _PINNED:
            parts |= _source_of(each)
    return _digest(sorted(parts.items()))


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "ablate"


def _digest(parts: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for name, content in parts:
        digest.update(f"{len(name)} {name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:32]


def _source_of(kind: type) -> dict[str, bytes]:
    """Name → content. Names are those of modules, not of folders: where the code lies changes nothing."""
    try:
        file = inspect.getsourcefile(kind)
    except (TypeError, OSError):  # its module has no file
        file = None
    if file is not None and Path(file).is_file():
        return _files(Path(file), kind.__module__)
    try:
        return {kind.__qualname__: inspect.getsource(kind).encode()}
    except (TypeError, OSError):
        return {kind.__qualname__: "\n".join(_compiled(kind)).encode()}


def _files(file: Path, module: str) -> dict[str, bytes]:
    """The module's file, and every file that it imports, directly or not, from its package or its folder."""
    inside = module.split(".") + (["__init__"] if file.name == "__init__.py" else [])
    packaged = len(inside) > 1 and file.with_suffix("").parts[-len(inside) :] == tuple(inside)
    root = file.parents[len(inside) - 1] if packaged else file.parent
    alone = not packaged and bool({"site-packages", "dist-packages"} & set(root.parts))
    found: dict[str, bytes] = {}
    waiting = [(module if packaged else file.stem, file)]
    while waiting:
        name, source = waiting.pop()
        if name in found:
            continue
        found[name] = source.read_bytes()
        package = name if source.name == "__init__.py" else name.rpartition(".")[0]
        for wanted in () if alone else _imports(found[name], package):
            first = wanted.partition(".")[0]
            if first == inside[0] or (first != "ablate" and not packaged):
                waiting += [(wanted, path) for path in _modules_at(root, wanted)]
    return found


def _modules_at(root: Path, name: str) -> list[Path]:
    place = root.joinpath(*name.split("."))
    return [path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()]


def _imports(source: bytes, package: str) -> Iterator[str]:
    """The full names of all that a source imports, as if all were modules; what is relative is so to ``package``."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join(part for part in [*above, node.module or ""] if part)
            for alias in node.names:
                yield from _with_parents(f"{base}.{alias.name}" if base else alias.name)


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _compiled(kind: type) -> Iterator[str]:
    """What a class without source is, in lines: its methods' code, its plain attributes, its classes within."""
    for name, value in sorted(vars(kind).items()):
        for function in _functions(value):
            yield f"{name} {_plain(function.__defaults__)} {_plain(function.__kwdefaults__)} {_code(function.__code__)}"
        if isinstance(value, type) and value.__module__ == kind.__module__:
            yield f"{name}:"
            yield from _compiled(value)
        elif not name.startswith("__"):
            yield f"{name} {_plain(value)}"


def _functions(value: Any) -> list[FunctionType]:
    parts = [value.fget, value.fset] if isinstance(value, property) else [getattr(value, "__func__", value)]
    return [part for part in parts if isinstance(part, FunctionType)]


def _code(code: CodeType) -> str:
    """Without file names and line numbers: where it was typed changes nothing."""
    constants = [_code(each) if isinstance(each, CodeType) else _plain(each) for each in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars} [{', '.join(constants)}]"


def _plain(value: Any) -> str:
    """In words that are the same in every process; of what has none, its type."""
    if isinstance(value, tuple | list):
        return f"{type(value).__name__}({', '.join(map(_plain, value))})"
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}({', '.join(sorted(map(_plain, value)))})"
    if isinstance(value, dict):
        return f"dict({', '.join(f'{_plain(key)}: {_plain(each)}' for key, each in value.items())})"
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)
    return type(value).__qualname__
