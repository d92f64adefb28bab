"""Where everything of a picture stands: layers from top to bottom, frame by frame, and then columns of a page.

Each frame is laid out for itself. What it reads enters through a port in its upper edge and what it gives leaves
through one in its lower edge, so that no line crosses a box: a line past several layers takes up room in each of them.
Lengths are in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ablate.diagram.drawing import Link
from ablate.diagram.folding import Box, Frame, Picture, Unit
from ablate.diagram.labels import frame_title, texts

CHARACTER = 7.3
"""The width of a character of the monospaced fonts at 12 pixels: 0.6 em and a little."""
LINE = 15.0
PADDING = 9.0
GAP = 22.0
"""Between layers: room for an arrow."""
BESIDE = 18.0
"""Between boxes of a layer."""
LANE = 8.0
"""The width of a line that passes a layer."""
GUTTER = 40.0
"""Between columns."""
HEAD = 20.0
"""Of a frame: its title."""
PAGE = (760.0, 1060.0)
"""What a picture is to fit: an upright page."""
MOST_COLUMNS = 4

Point = tuple[float, float]


@dataclass
class Placed:
    """A box or a frame with its place: the upper left corner, width and height."""

    unit: Unit
    x: float
    y: float
    width: float
    height: float


@dataclass
class Layout:
    """The picture's size, what stands in it, frames before what they hold, and the lines with their points."""

    width: float = 0.0
    height: float = 0.0
    placed: list[Placed] = field(default_factory=list)
    lines: list[tuple[Link, list[Point]]] = field(default_factory=list)


@dataclass
class _Slot:
    """What takes up room in a layer: a unit, a port of the frame, or a line that passes."""

    name: str
    width: float
    height: float = 0.0
    x: float = 0.0
    """Of its middle."""
    top: float = 0.0
    inner: _Inner | None = None
    unit: Unit | None = None


@dataclass
class _Inner:
    """A frame's own layout, with its upper left corner at (0, 0)."""

    width: float
    height: float
    slots: list[_Slot]
    pieces: dict[tuple[str, str], list[Point]]
    """Of each link, the part within the frame."""
    ports: dict[str, float]
    """``in NAME`` and ``out NAME`` → where the value enters and leaves."""


def layout(picture: Picture) -> Layout:
    """The picture on as many columns as bring it nearest to a page."""
    best = min((_in_columns(picture, count) for count in range(1, MOST_COLUMNS + 1)), key=_misfit)
    return best


def _misfit(found: Layout) -> float:
    return max(found.width / PAGE[0], found.height / PAGE[1])


def _size(unit: Unit) -> tuple[float, float]:
    assert isinstance(unit, Box)
    lines = texts(unit)
    return max(len(line) for line in lines) * CHARACTER + 2 * PADDING, len(lines) * LINE + 10


def _names(unit: Unit) -> set[str]:
    if isinstance(unit, Box):
        return {unit.key}
    return {name for child in unit.children for name in _names(child)}


class _Layers:
    """The slots of one level, layer by layer, and the links as chains of slots."""

    def __init__(self, units: Sequence[Unit], links: Sequence[Link], *, ports: bool) -> None:
        self.slots: dict[str, _Slot] = {}
        self.owner: dict[str, str] = {}
        self.order: dict[str, int] = {}
        for index, unit in enumerate(units):
            key = f"unit {unit.key}"
            self.slots[key] = _slot(unit, key, links)
            self.order[key] = index
            self.owner.update(dict.fromkeys(_names(unit), key))
        self.ends: dict[tuple[str, str], tuple[str, str]] = {}
        for link in links:
            self._end(link, ports)
        self.layer = self._layered()
        self.chains: dict[tuple[str, str], list[str]] = {}
        self.rows: list[list[str]] = [[] for _ in range(max(self.layer.values(), default=-1) + 1)]
        for name, number in self.layer.items():
            self.rows[number].append(name)
        for link_ends, (start, end) in self.ends.items():
            self.chains[link_ends] = self._chain(start, end)
        self._arrange()

    def _end(self, link: Link, ports: bool) -> None:
        start, end = self.owner.get(link.source), self.owner.get(link.target)
        if start == end and start is not None:
            return
        if start is None and end is None:
            return
        if ports:
            start = start or self._port(f"in {link.source}")
            end = end or self._port(f"out {link.source}")
        assert start is not None
        assert end is not None
        self.ends[link.source, link.target] = (start, end)

    def _port(self, name: str) -> str:
        self.slots.setdefault(name, _Slot(name, LANE))
        return name

    def _forward(self) -> list[tuple[str, str]]:
        """The edges between slots, those that go back (two graphs in one picture can have such) turned round."""
        found = []
        for start, end in self.ends.values():
            back = start in self.order and end in self.order and self.order[start] > self.order[end]
            found.append((end, start) if back else (start, end))
        return found

    def _layered(self) -> dict[str, int]:
        edges = self._forward()
        entries = any(name.startswith("in ") for name in self.slots)
        layer = {name: int(entries and not name.startswith("in ")) for name in self.slots}
        ranked = sorted(self.slots, key=lambda name: self.order.get(name, -1 if name.startswith("in ") else 10**9))
        targets: dict[str, list[str]] = {}
        for start, end in edges:
            targets.setdefault(start, []).append(end)
        for name in ranked:
            for end in targets.get(name, []):
                layer[end] = max(layer[end], layer[name] + 1)
        exits = [name for name in self.slots if name.startswith("out ")]
        if exits:
            lowest = max(max(layer[name] for name in exits), 1 + max(n for k, n in layer.items() if k not in exits))
            layer.update(dict.fromkeys(exits, lowest))
        return layer

    def _chain(self, start: str, end: str) -> list[str]:
        """From a slot to another, a slot for each layer between. Lines from one slot share theirs."""
        first, last = self.layer[start], self.layer[end]
        step = 1 if last >= first else -1
        chain = [start]
        for number in range(first + step, last, step):
            name = f"line {start} {number}"
            if name not in self.slots:
                self.slots[name] = _Slot(name, LANE)
                self.rows[number].append(name)
            chain.append(name)
        return [*chain, end]

    def _neighbours(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {name: set() for name in self.slots}
        for chain in self.chains.values():
            for one, other in pairwise(chain):
                found[one].add(other)
                found[other].add(one)
        return found

    def _arrange(self) -> None:
        """Order within the layers by where the neighbours stand, then places as near to theirs as there is room."""
        neighbours = self._neighbours()
        row_of = {name: number for number, row in enumerate(self.rows) for name in row}
        for row in self.rows:
            self._spread(row, [0.0] * len(row))
        for sweep in range(12):
            down = sweep % 2 == 0
            numbers = range(len(self.rows)) if down else reversed(range(len(self.rows)))
            for number in numbers:
                row = self.rows[number]
                wanted = {name: self._wanted(name, neighbours[name], row_of, down, number) for name in row}
                if sweep < 6:
                    row.sort(key=lambda name: (wanted[name], not name.startswith("unit")))
                self._spread(row, [wanted[name] for name in row])

    def _wanted(self, name: str, neighbours: set[str], row_of: Mapping[str, int], down: bool, number: int) -> float:
        near = [self.slots[other].x for other in neighbours if (row_of[other] < number) == down]
        if not near:
            return self.slots[name].x
        return sum(near) / len(near)

    def _spread(self, row: list[str], wanted: list[float]) -> None:
        """Places for a row, in its order and without overlap, as near to those wanted as can be (least squares)."""
        offsets, edge = [], 0.0
        for index, name in enumerate(row):
            width = self.slots[name].width
            edge += width / 2 + (BESIDE if index else 0.0)
            offsets.append(edge)
            edge += width / 2
        blocks: list[tuple[float, int]] = []
        for index in range(len(row)):
            value, size = wanted[index] - offsets[index], 1
            while blocks and blocks[-1][0] > value:
                other, count = blocks.pop()
                value, size = (value * size + other * count) / (size + count), size + count
            blocks.append((value, size))
        shifts = [value for value, size in blocks for _ in range(size)]
        for name, shift, offset in zip(row, shifts, offsets, strict=True):
            self.slots[name].x = shift + offset


def _slot(unit: Unit, key: str, links: Sequence[Link]) -> _Slot:
    if isinstance(unit, Box):
        width, height = _size(unit)
        return _Slot(key, width, height, unit=unit)
    inner = _inner(unit, links)
    return _Slot(key, inner.width, inner.height, inner=inner, unit=unit)


def _inner(frame: Frame, links: Sequence[Link]) -> _Inner:
    names = _names(frame)
    own = [link for link in links if link.source in names or link.target in names]
    layers = _Layers(frame.children, own, ports=True)
    left = min(slot.x - slot.width / 2 for slot in layers.slots.values()) - 12
    right = max(slot.x + slot.width / 2 for slot in layers.slots.values()) + 12
    short = len(frame_title(frame)) * CHARACTER + 2 * PADDING - (right - left)
    left, right = left - max(0.0, short) / 2, right + max(0.0, short) / 2
    for slot in layers.slots.values():
        slot.x -= left
    entries = any(name.startswith("in ") for name in layers.slots)
    exits = any(name.startswith("out ") for name in layers.slots)
    top = 0.0 if entries else HEAD
    for number, row in enumerate(layers.rows):
        for name in row:
            layers.slots[name].top = top
        tall = max((layers.slots[name].height for name in row), default=0.0)
        top += tall + (HEAD + 10 if entries and number == 0 else GAP)
    height = top - GAP + (0.0 if exits else 12)
    ports = {name: slot.x for name, slot in layers.slots.items() if name.startswith(("in ", "out "))}
    return _Inner(right - left, height, list(layers.slots.values()), _pieces(layers), ports)


def _pieces(layers: _Layers) -> dict[tuple[str, str], list[Point]]:
    """The points of each link at this level, with the parts within the frames that it enters and leaves."""
    arriving: dict[str, list[tuple[float, tuple[str, str]]]] = {}
    for ends, chain in layers.chains.items():
        if layers.slots[chain[-1]].inner is None:
            arriving.setdefault(chain[-1], []).append((layers.slots[chain[-2]].x, ends))
    tops = {name: dict(_arrivals(layers, name, into)) for name, into in arriving.items()}
    tall = {name: max(layers.slots[each].height for each in row) for row in layers.rows for name in row}
    return {ends: _points(layers, ends, chain, tops, tall) for ends, chain in layers.chains.items()}


def _arrivals(
    layers: _Layers, name: str, into: list[tuple[float, tuple[str, str]]]
) -> list[tuple[tuple[str, str], float]]:
    """Where the links that end at a box meet its upper edge: side by side, in the order in which they come."""
    slot = layers.slots[name]
    origins = sorted({(x, layers.chains[ends][-2]) for x, ends in into})
    step = min(26.0, (slot.width - 20) / max(1, len(origins))) if slot.unit else 0.0
    spots = {origin: slot.x + (index - (len(origins) - 1) / 2) * step for index, (_, origin) in enumerate(origins)}
    return [(ends, spots[layers.chains[ends][-2]]) for _, ends in into]


def _points(
    layers: _Layers,
    ends: tuple[str, str],
    chain: list[str],
    tops: Mapping[str, Mapping[tuple[str, str], float]],
    tall: Mapping[str, float],
) -> list[Point]:
    points: list[Point] = []
    for index, name in enumerate(chain):
        slot = layers.slots[name]
        left = slot.x - slot.width / 2
        if slot.inner is not None:
            points += [(x + left, y + slot.top) for x, y in slot.inner.pieces[ends]]
        elif index == 0:
            points.append((slot.x, slot.top + slot.height))
        elif index == len(chain) - 1:
            points.append((tops[name][ends], slot.top))
        else:
            points += [(slot.x, slot.top), (slot.x, slot.top + tall[name])]
    return points


def _in_columns(picture: Picture, count: int) -> Layout:
    """The outermost level: its rows broken into columns of about equal height."""
    layers = _Layers(picture.units, picture.links, ports=False)
    heights = [max(layers.slots[name].height for name in row) + GAP for row in layers.rows]
    columns = _broken(heights, count)
    left, found = 0.0, Layout()
    lefts: list[float] = []
    for rows in columns:
        names = [name for row in rows for name in layers.rows[row]]
        first = min(layers.slots[name].x - layers.slots[name].width / 2 for name in names)
        last = max(layers.slots[name].x + layers.slots[name].width / 2 for name in names)
        top = 0.0
        for row in rows:
            for name in layers.rows[row]:
                layers.slots[name].x += left - first
                layers.slots[name].top = top
            top += heights[row]
        found.height = max(found.height, top - GAP)
        found.width = left + last - first
        lefts.append(left)
        left = found.width + GUTTER
    for slot in layers.slots.values():
        _place(found, slot, 0.0, 0.0)
    pieces = _pieces(layers)
    by_ends = {(link.source, link.target): link for link in picture.links}
    found.lines = [(by_ends[ends], points) for ends, points in pieces.items()]
    for slot in layers.slots.values():
        _inner_lines(found, slot, by_ends, {*pieces})
    found.lines = [(link, _through_gutters(points, lefts)) for link, points in found.lines]
    return found


def _inner_lines(
    found: Layout, slot: _Slot, by_ends: Mapping[tuple[str, str], Link], seen: set[tuple[str, str]], at: Point = (0, 0)
) -> None:
    """The links that stay within a frame."""
    if slot.inner is None:
        return
    x, y = at[0] + slot.x - slot.width / 2, at[1] + slot.top
    for ends, points in slot.inner.pieces.items():
        if ends not in seen:
            seen.add(ends)
            found.lines.append((by_ends[ends], [(x + px, y + py) for px, py in points]))
    for inner in slot.inner.slots:
        _inner_lines(found, inner, by_ends, seen, (x, y))


def _broken(heights: Sequence[float], count: int) -> list[list[int]]:
    """The rows in at most ``count`` columns, the highest as low as can be."""
    low, high = max(heights, default=0.0), sum(heights)
    for _ in range(30):
        middle = (low + high) / 2
        if len(_filled(heights, middle)) <= count:
            high = middle
        else:
            low = middle
    return _filled(heights, high + 0.01)


def _filled(heights: Sequence[float], most: float) -> list[list[int]]:
    columns: list[list[int]] = [[]]
    used = 0.0
    for index, height in enumerate(heights):
        if columns[-1] and used + height > most:
            columns.append([])
            used = 0.0
        columns[-1].append(index)
        used += height
    return columns


def _place(found: Layout, slot: _Slot, x: float, y: float) -> None:
    if slot.unit is None:
        return
    left, top = x + slot.x - slot.width / 2, y + slot.top
    found.placed.append(Placed(slot.unit, left, top, slot.width, slot.height))
    if slot.inner is not None:
        for inner in slot.inner.slots:
            _place(found, inner, left, top)


def _through_gutters(points: list[Point], lefts: Sequence[float]) -> list[Point]:
    """A line from the foot of a column to the head of the next goes round: down, across, up between them, and over."""
    found = points[:1]
    for before, after in pairwise(points):
        columns = [max(index for index, left in enumerate(lefts) if x >= left) for x, _ in (before, after)]
        if columns[0] != columns[1]:
            gutter = lefts[columns[1]] - GUTTER / 2
            foot, head = before[1] + 12, after[1] - 14
            found += [(before[0], foot), (gutter, foot), (gutter, head), (after[0], head)]
        found.append(after)
    return found
