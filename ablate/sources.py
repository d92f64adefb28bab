"""The files that a module is made of: its own, and those that it imports from its package or from beside it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_INSTALLED = frozenset({"site-packages", "dist-packages"})
"""Folders in which one file has nothing to do with another."""


class Source(NamedTuple):
    """A file of Python, and what it held when it was read."""

    path: Path
    content: bytes


def is_installed(place: str | Path | None) -> bool:
    """Whether a file lies among those that were installed."""
    return place is not None and bool(_INSTALLED & set(Path(place).parts))


def sources(file: Path, module: str, *, beside: bool = False) -> dict[str, Source]:
    """Module → source, of the file and of every file that it imports, directly or not, from its package or its folder.

    ``module``: what the file is imported as; the names are seen from where that starts. A single file among installed
    ones has nothing to do with the others, but where ``beside`` says that it has. Whatever stands in an
    import statement counts, within a function too. What is imported without a statement (``importlib``) is not seen.
    """
    inside = module.split(".") + (["__init__"] if file.name == "__init__.py" else [])
    packaged = len(inside) > 1 and file.with_suffix("").parts[-len(inside) :] == tuple(inside)
    root = file.parents[len(inside) - 1] if packaged else file.parent
    alone = not (packaged or beside) and is_installed(root)
    found: dict[str, Source] = {}
    waiting = [(module if packaged else file.stem, file)]
    while waiting:
        name, path = waiting.pop()
        if name in found:
            continue
        found[name] = Source(path, path.read_bytes())
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for wanted in () if alone else _imports(found[name].content, package):
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
                yield from with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join(part for part in [*above, node.module or ""] if part)
            for alias in node.names:
                yield from with_parents(f"{base}.{alias.name}" if base else alias.name)


def with_parents(name: str) -> list[str]:
    """``a.b.c`` → ``a``, ``a.b``, ``a.b.c``."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
