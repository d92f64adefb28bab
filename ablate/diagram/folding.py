"""Folds a drawing until it fits a page: equal repeats stand once, with ``×3``; what did not change is one box.

Three rules, from the scopes outwards in: a scope all of which is unchanged, added or removed is one box; neighbours
that are equal but for their number, each reading the one before and nothing else, stand once; boxes of one such
state that form a chain are one box (not at the outermost level, whose names a reader looks for).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ablate.diagram.drawing import Drawing, Item, Link, State

LONGEST_PERIOD = 4
"""Of repeats: a block with three insertions beside it is a group of four."""


@dataclass
class Box:
    """One node, or several in one."""

    key: str
    title: str
    lines: tuple[str, ...]
    state: State
    inserted: bool
    items: list[Item]
    times: int = 1


@dataclass
class Frame:
    """A scope, or equal repeats of one, around what it holds."""

    key: str
    title: str
    children: list[Box | Frame]
    times: int = 1


Unit = Box | Frame


@dataclass
class Picture:
    """Boxes in frames, and links between boxes, by their keys."""

    title: str
    units: list[Unit]
    links: list[Link]
    counts: dict[State, int] = field(default_factory=dict)
    """Nodes of each state, folded ones included."""


def fold(drawing: Drawing, *, unchanged: bool) -> Picture:
    """The drawing with equal repeats standing once; with ``unchanged`` what did not change is folded as well."""
    return _Folding(drawing, unchanged).picture()


def boxes(units: Iterable[Unit]) -> Iterable[Box]:
    """Every box, those in frames included."""
    for unit in units:
        if isinstance(unit, Box):
            yield unit
        else:
            yield from boxes(unit.children)


class _Folding:
    def __init__(self, drawing: Drawing, unchanged: bool) -> None:
        self.drawing = drawing
        self.unchanged = unchanged
        self.readers: dict[str, list[Link]] = {}
        self.sources: dict[str, list[Link]] = {}
        for link in drawing.links:
            self.readers.setdefault(link.source, []).append(link)
            self.sources.setdefault(link.target, []).append(link)
        self.stands_for: dict[str, str] = {}
        """An item of a repeat that is not shown → the item of the shown one."""

    def picture(self) -> Picture:
        items = _in_order(self.drawing)
        units = self._units(items, "")
        owner = {item.name: box.key for box in boxes(units) for item in box.items}

        def shown(name: str) -> str:
            while name in self.stands_for:
                name = self.stands_for[name]
            return owner[name]

        order = {owner[item.name]: index for index, item in reversed(list(enumerate(items))) if item.name in owner}
        found: dict[tuple[str, str], State] = {}
        for link in self.drawing.links:
            ends = shown(link.source), shown(link.target)
            # from a repeat to the next, which the same boxes stand for
            to_next = link.target in self.stands_for and order[ends[0]] > order[ends[1]]
            if ends[0] != ends[1] and not to_next and found.get(ends, "same") == "same":
                found[ends] = link.state
        nodes = [item for item in self.drawing.items if item.signature]
        states: tuple[State, ...] = ("added", "removed", "changed", "same")
        counts = {state: sum(item.state == state for item in nodes) for state in states}
        return Picture(self.drawing.title, units, [Link(*ends, state) for ends, state in found.items()], counts)

    def _units(self, items: Sequence[Item], scope: str) -> list[Unit]:
        """The units of a scope: its own items, and a unit for each scope in it."""
        groups: dict[str, list[Item]] = {}
        for item in items:
            rest = item.name.removeprefix(f"{scope}.") if scope else item.name
            groups.setdefault(rest.split(".", 1)[0], []).append(item)
        names = {segment: f"{scope}.{segment}" if scope else segment for segment in groups}
        units = [self._unit(groups[segment], names[segment], scope) for segment in groups]
        units = self._without_repeats(units)
        return self._chained(units) if self.unchanged and scope else units

    def _unit(self, items: list[Item], name: str, scope: str) -> Unit:
        title = name.removeprefix(f"{scope}.") if scope else name
        if len(items) == 1 and items[0].name != name:  # a scope of one node: no frame for it alone
            return replace(
                _box(items[0], items[0].name.removeprefix(f"{scope}.") if scope else items[0].name), key=name
            )
        if len(items) == 1:
            return _box(items[0], title)
        state = self._common_state(items) if self.unchanged else None
        if state is not None:
            return self._folded(items, name, title, state)
        own = [item for item in items if item.name == name]  # a node of one graph, a scope of the other
        inner = self._units([item for item in items if item.name != name], name)
        return Frame(name, title, [*(_box(item, title) for item in own), *inner])

    def _common_state(self, items: list[Item]) -> State | None:
        """The one state of all items and of the links between them; what changed is shown item by item."""
        own = {item.name for item in items}
        links = (link for item in items for link in self.readers.get(item.name, []) if link.target in own)
        states = {*(item.state for item in items), *(link.state for link in links)}
        return items[0].state if len(states) == 1 and "changed" not in states else None

    def _folded(self, items: list[Item], name: str, title: str, state: State) -> Box:
        kind = self.drawing.kinds.get(name, "")
        shape = items[-1].lines[0].rpartition(" ")[2] if items[-1].lines else ""
        lines = [*([f"{kind} → {shape}"] if kind else [f"→ {shape}"]), _counted(items)]
        return Box(name, title, tuple(lines), state, any(item.inserted for item in items), items)

    def _chained(self, units: list[Unit]) -> list[Unit]:
        """Boxes of one state (unchanged, added, removed), each reading the one before alone, as one box."""
        owner = {item.name: index for index, unit in enumerate(units) for item in _items(unit)}
        found: list[Unit] = []
        for index, unit in enumerate(units):
            before = found[-1] if found else None
            if isinstance(unit, Box) and isinstance(before, Box) and self._continues(units, owner, before, index):
                found[-1] = _joined(before, unit)
            else:
                found.append(unit)
        return found

    def _continues(self, units: list[Unit], owner: dict[str, int], before: Box, index: int) -> bool:
        unit = units[index]
        assert isinstance(unit, Box)
        if before.state != unit.state or unit.state == "changed" or before.times > 1 or unit.times > 1:
            return False
        last = {item.name for item in before.items}
        own = {item.name for item in unit.items}
        into = [link for item in unit.items for link in self.sources.get(item.name, []) if link.source not in own]
        out = [link for item in before.items for link in self.readers.get(item.name, []) if link.target not in last]
        return (
            bool(into)
            and all(link.source in last and link.state == unit.state for link in into)
            and all(link.target in own for link in out)
        )

    def _without_repeats(self, units: list[Unit]) -> list[Unit]:
        found: list[Unit] = []
        start = 0
        while start < len(units):
            period, times = self._repeats(units, start)
            if times > 1:
                groups = [units[start + period * index : start + period * (index + 1)] for index in range(times)]
                for group in groups[1:]:
                    pairs = zip(_items_of(groups[0]), _items_of(group), strict=True)
                    self.stands_for.update({other.name: shown.name for shown, other in pairs})
                found.append(_repeated(groups))
            else:
                found.append(units[start])
            start += period * times
        return found

    def _repeats(self, units: list[Unit], start: int) -> tuple[int, int]:
        """(units in a group, groups) of the equal groups that begin at ``start``; (1, 1) where there are none."""
        for period in range(1, LONGEST_PERIOD + 1):
            first = units[start : start + period]
            if len(first) < period or not _last_segment(first[0]).isdecimal():
                continue
            wanted = self._group_signature(first)
            times = 1
            while wanted and self._group_signature(units[start + period * times : start + period * (times + 1)]) == (
                wanted
            ):
                groups = [units[start + period * (times + step) :][:period] for step in (-1, 0)]
                if not self._follows(*groups):
                    break
                times += 1
            if times > 1:
                return period, times
        return 1, 1

    def _follows(self, group: list[Unit], later: list[Unit]) -> bool:
        """Whether ``later`` reads one value, of ``group``, which nothing but ``later`` reads from outside."""
        own, others = ({item.name for item in _items_of(units)} for units in (group, later))
        into = {link.source for name in others for link in self.sources.get(name, []) if link.source not in others}
        out = [link for name in own for link in self.readers.get(name, []) if link.target not in own]
        return len(into) == 1 and into <= own and all(link.target in others for link in out)

    def _group_signature(self, group: list[Unit]) -> str:
        """Equal for groups that are equal but for the numbers that their names begin with."""
        items = _items_of(group)
        names = {item.name: f"{depth}:{_unnumbered(unit, item)}" for depth, unit, item in _with_units(group)}
        shown = [(names[item.name], item.signature, item.lines, item.state, item.inserted) for item in items]
        links = [
            # what the first of the repeats reads may come by way of something new
            (names.get(link.source, ""), names[link.target], link.state if link.source in names else "")
            for item in items
            for link in self.sources.get(item.name, [])
        ]
        out = sorted(
            {
                names[link.source]
                for item in items
                for link in self.readers.get(item.name, [])
                if link.target not in names
            }
        )
        return repr((shown, links, out)) if items else ""


def _with_units(group: list[Unit]) -> Iterable[tuple[int, Unit, Item]]:
    return ((depth, unit, item) for depth, unit in enumerate(group) for item in _items(unit))


def _last_segment(unit: Unit) -> str:
    return unit.key.rpartition(".")[2]


def _unnumbered(unit: Unit, item: Item) -> str:
    own = re.sub(r"^\d+", "", _last_segment(unit))
    return own + item.name.removeprefix(unit.key)


def _items(unit: Unit) -> list[Item]:
    return unit.items if isinstance(unit, Box) else _items_of(unit.children)


def _items_of(units: Iterable[Unit]) -> list[Item]:
    return [item for unit in units for item in _items(unit)]


def _box(item: Item, title: str) -> Box:
    return Box(item.name, title, item.lines, item.state, item.inserted, [item])


def _joined(one: Box, other: Box) -> Box:
    items = [*one.items, *other.items]
    first = one.title.partition(" … ")[0]
    shape = other.lines[0].rpartition(" ")[2] if other.lines else ""
    lines = (f"→ {shape}", _counted(items))
    return Box(one.key, f"{first} … {other.title}", lines, one.state, one.inserted or other.inserted, items)


def _counted(items: Sequence[Item]) -> str:
    state = items[0].state
    return f"{len(items)} nodes, {'unchanged' if state == 'same' else state}"


def _repeated(groups: list[list[Unit]]) -> Unit:
    first, times = groups[0], len(groups)
    title = f"{first[0].title} … {groups[-1][-1].title}"
    if len(first) == 1:
        first[0].title, first[0].times = title, times
        return first[0]
    return Frame(f"{first[0].key} and on", title, first, times)


def _in_order(drawing: Drawing) -> list[Item]:
    """Topologically, in the order given where that leaves a choice; a cycle (of two graphs in one) is cut."""
    waiting = {item.name: item for item in drawing.items}
    sources: dict[str, set[str]] = {name: set() for name in waiting}
    for link in drawing.links:
        sources[link.target].add(link.source)
    done: list[Item] = []
    while waiting:
        name = next((name for name in waiting if not sources[name] & waiting.keys()), next(iter(waiting)))
        done.append(waiting.pop(name))
    return done
