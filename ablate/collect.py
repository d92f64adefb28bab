"""Collects what is wrong, with its place, so that everything is said at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ablate.errors import Problem, UserError
from ablate.yamlfile import place_of

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Orphan:
    """A key that was valid where it was written and that a later change of ``block`` or ``name`` left without use."""

    path: str
    value: Any
    layer: str


class Collector:
    """Problems found in one tree of spec data, and the keys that became orphans."""

    def __init__(self, tree: Any) -> None:
        self.tree = tree
        self.problems: list[Problem] = []
        self.orphans: list[Orphan] = []

    def add(self, path: Path, message: str, hint: str = "", *, key: bool = True, columns: int = 0) -> None:
        """Note a problem at ``path``; its place is that of the key, or of the value with ``key=False``."""
        place = place_of(self.tree, path, key=key)
        if place is not None and columns:
            place = place.shifted(columns)
        self.problems.append(Problem(message, dotted(path), place, hint))

    def drop_if_orphaned(self, mapping: Mapping[str, Any], key: str, selector: str, path: Path) -> bool:
        """List ``key`` as an orphan if another layer wrote it than the one that chose ``selector``'s value.

        A key must be valid in the layer that wrote it: one that the same layer wrote beside the selector is a
        mistake, and the answer is then False.
        """
        values_at = getattr(mapping, "values_at", {})
        if key not in values_at or selector not in values_at or values_at[key].layer == values_at[selector].layer:
            return False
        orphan = Orphan(dotted(path), mapping[key], values_at[key].layer)
        if orphan not in self.orphans:
            self.orphans.append(orphan)
        return True

    def extend(self, problems: Iterable[Problem]) -> None:
        self.problems.extend(problems)

    def raise_if_any(self) -> None:
        if self.problems:
            raise UserError(sorted(self.problems, key=_order))


def dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)


def _order(problem: Problem) -> tuple[str, int, int]:
    place = problem.place
    return (place.file, place.line, place.column) if place else ("", 0, 0)
