"""Names beside points, none over another, over a point or over a line; what finds no room is not named.

Greedy: the first point takes the nearest free place around it, then the second, and so on. On a figure that is laid
out, as the extent of each text is measured where it will stand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from ablate.figures.canvas import BLACK, GREY
from ablate.labels import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = 6
RADIUS, GAP = 2.5, 0.6
"""Points: of what is kept free around a marker, and around a name."""
DISTANCES = (3.0, 9.0, 17.0, 27.0)
"""Points from the middle of a marker to the nearest of its name; from the second on a thin line joins them."""
LEADER = {"arrowstyle": "-", "color": GREY, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 2}
Direction = tuple[int, int]
Box = tuple[float, float, float, float]
Point = tuple[float, float]
_AROUND: tuple[Direction, ...] = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))


def name_points(
    axes: Axes,
    named: Sequence[tuple[str, float, float]],
    others: Sequence[Sequence[float]] = (),
    line: Sequence[Point] = (),
    first: Direction = (1, 1),
    bars: Sequence[tuple[Point, Point]] = (),
    far: int | None = None,
) -> list[str]:
    """Name these (name, x, y), those that matter most first; the names that found no room are returned.

    ``others`` are points without names, ``line`` the corners of a staircase; ``first`` is the side to try first,
    ``bars`` are thin lines that a name is written over where there is no other place. So many names may stand ``far``
    from their points, joined by a line; None: all.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = axes.get_figure(root=True)
    assert figure is not None
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    point = figure.dpi / 72
    frame = axes.get_window_extent(renderer)
    places = _pixels(axes, [(x, y) for _, x, y in named])
    taken = _Taken(
        (frame.x0, frame.y0, frame.x1, frame.y1),
        [_box(place, RADIUS * point) for place in (*places, *_pixels(axes, others))] + _segments(_pixels(axes, line)),
        [box for bar in bars for box in _segments(_pixels(axes, bar))],
    )
    directions = sorted(_AROUND, key=lambda way: -_alike(way, first))
    measured = axes.text(0, 0, "", fontsize=SIZE)
    left_out = []
    for index, ((name, x, y), (at_x, at_y)) in enumerate(zip(named, places, strict=True)):
        distances = DISTANCES if far is None or index < far else DISTANCES[:1]
        measured.set_text(clean(name))
        extent = measured.get_window_extent(renderer)
        width, height = extent.width + 2 * GAP * point, extent.height + 2 * GAP * point
        found = taken.best(at_x, at_y, width, height, [each * point for each in distances], directions)
        if found is None:
            left_out.append(name)
            continue
        box, joined = found
        axes.annotate(
            clean(name),
            (x, y),
            ((box[0] - at_x) / point + GAP, (box[1] - at_y) / point + GAP),
            textcoords="offset points",
            ha="left",
            va="bottom",
            fontsize=SIZE,
            color=BLACK,
            arrowprops=LEADER if joined else None,
        )
    measured.remove()
    return left_out


class _Taken:
    """What is taken of the frame, in pixels: for good, or by bars that a name may cover."""

    def __init__(self, frame: Box, boxes: Sequence[Box], bars: Sequence[Box]) -> None:
        self.frame = frame
        self.boxes = np.array(boxes, dtype=float).reshape(-1, 4)
        self.bars = np.array(bars, dtype=float).reshape(-1, 4)

    def best(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        distances: Sequence[float],
        directions: Sequence[Direction],
    ) -> tuple[Box, bool] | None:
        """The first free box of this size around a point, taken from now on, and whether it is not right beside it."""
        places = [
            (_beside(x, y, width, height, distance, way), distance > distances[0])
            for distance in distances
            for way in directions
        ]
        free = [place for place in places if self._is_inside(place[0]) and _is_apart(place[0], self.boxes)]
        if not free:
            return None
        found = next((place for place in free if _is_apart(place[0], self.bars)), free[0])
        self.boxes = np.vstack([self.boxes, found[0]])
        return found

    def _is_inside(self, box: Box) -> bool:
        left, below, right, above = self.frame
        return box[0] >= left and box[1] >= below and box[2] <= right and box[3] <= above


def _is_apart(box: Box, others: np.ndarray) -> bool:
    low_x, low_y, high_x, high_y = box
    apart = (others[:, 2] <= low_x) | (others[:, 0] >= high_x) | (others[:, 3] <= low_y) | (others[:, 1] >= high_y)
    return bool(apart.all())


def _beside(x: float, y: float, width: float, height: float, distance: float, way: Direction) -> Box:
    low_x = x + way[0] * distance - {1: 0, 0: 0.5, -1: 1}[way[0]] * width
    low_y = y + way[1] * distance - {1: 0, 0: 0.5, -1: 1}[way[1]] * height
    return low_x, low_y, low_x + width, low_y + height


def _alike(a: Direction, b: Direction) -> float:
    return (a[0] * b[0] + a[1] * b[1]) / math.hypot(*a) / math.hypot(*b)


def _pixels(axes: Axes, points: Sequence[Sequence[float]]) -> list[Point]:
    if not points:
        return []
    return [(float(x), float(y)) for x, y in axes.transData.transform(np.array(points, dtype=float))]


def _box(at: Point, radius: float) -> Box:
    return at[0] - radius, at[1] - radius, at[0] + radius, at[1] + radius


def _segments(corners: Sequence[Point]) -> list[Box]:
    """A staircase's segments run along the axes: each is a box of no width."""
    return [(min(a, c), min(b, d), max(a, c), max(b, d)) for (a, b), (c, d) in pairwise(corners)]
