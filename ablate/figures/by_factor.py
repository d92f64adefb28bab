"""Draws a grid's effects: the marginal mean of each level, and the means of two factors' levels together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ablate import stats
from ablate.analysis.effects import Effect, Interaction
from ablate.figures.canvas import BLUE, GREY, LONGEST, explain, label, name_axis, note, panels, points
from ablate.figures.looks import LOOKS
from ablate.labels import clean
from ablate.quantities import less_is_better

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOM = 24
"""Characters of all levels together beneath a panel, beside each other."""
Identify = Callable[[int, int, int], str]
"""Panel, line and place → the id of the point."""


def effects(
    figure: Figure, metric: str, factors: Sequence[Sequence[Effect]], identify: Identify, notes: Sequence[str]
) -> None:
    """A panel for each factor, the mean over the grid as a line."""
    height = 2.5 + _slanting([each.level for levels in factors for each in levels])
    each_axes = panels(figure, len(factors), 3, height, sharey=True)
    for panel, (axes, levels) in enumerate(zip(each_axes, factors, strict=True)):
        for place, each in enumerate(levels):
            _bar(axes, place, each.mean, each.difference, BLUE)
        ids = [identify(panel, 0, place) for place in range(len(levels))]
        means = [each.mean for each in levels]
        points(axes, range(len(levels)), means, ids, marker="o", markersize=4, color=BLUE, zorder=3)
        middle = _without(levels[0].mean, levels[0].difference)
        axes.axhline(middle, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0, label="mean over the grid")
        _name_levels(axes, levels[0].factor, [each.level for each in levels])
        _name_metric(axes, metric, panel % 3 == 0)
    explain(figure)
    note(figure, notes)


def interactions(
    figure: Figure, metric: str, pairs: Sequence[Sequence[Interaction]], identify: Identify, notes: Sequence[str]
) -> None:
    """A panel for each two factors: the one with fewer levels as lines, the other along the axis."""
    height = 2.7 + _slanting([level for cells in pairs for each in cells for level in each.levels])
    each_axes = panels(figure, len(pairs), 2, height, sharey=True)
    for panel, (axes, cells) in enumerate(zip(each_axes, pairs, strict=True)):
        _draw_pair(axes, panel, cells, identify)
        _name_metric(axes, metric, panel % 2 == 0)
    note(figure, notes)


def places_of(panel: int, cells: Sequence[Interaction]) -> list[tuple[tuple[int, int, int], Interaction]]:
    """Where each is drawn: panel, line, and place along the axis."""
    line, along = _sides(cells)
    lines, places = ([*dict.fromkeys(each.levels[side] for each in cells)] for side in (line, along))
    return [((panel, lines.index(each.levels[line]), places.index(each.levels[along])), each) for each in cells]


def _sides(cells: Sequence[Interaction]) -> tuple[int, int]:
    """Which of the two factors is drawn as lines, and which along the axis."""
    counts = [len({each.levels[side] for each in cells}) for side in (0, 1)]
    return (0, 1) if counts[0] < counts[1] else (1, 0)


def _draw_pair(axes: Axes, panel: int, cells: Sequence[Interaction], identify: Identify) -> None:
    line, along = _sides(cells)
    names, levels = (list(dict.fromkeys(each.levels[side] for each in cells)) for side in (line, along))
    placed = places_of(panel, cells)
    for index, name in enumerate(names):
        look = LOOKS[index % len(LOOKS)]
        # beside each other, or the intervals of one place could not be told apart
        aside = 0.28 * ((index + 0.5) / len(names) - 0.5)
        own = [(at[2] + aside, at, each) for at, each in placed if at[1] == index]
        axes.plot([x for x, *_ in own], [each.mean for *_, each in own], **{**look.line(), "marker": ""})
        means, ids = [each.mean for *_, each in own], [identify(*at) for _, at, _ in own]
        points(axes, [x for x, *_ in own], means, ids, **{**look.line(), "linestyle": ""}, zorder=3)
        for x, _, each in own:
            _bar(axes, x, each.mean, each.difference, look.color)
            additive = _without(each.mean, each.difference)
            axes.plot([x - 0.05, x + 0.05], [additive, additive], color=look.color, linewidth=1.2)
        axes.plot([], [], **look.line(), label=label(name))
    axes.legend(title=clean(cells[0].factors[line]), title_fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _name_levels(axes, cells[0].factors[along], levels)


def _bar(axes: Axes, x: float, mean: float, difference: stats.Difference, color: str) -> None:
    """The interval of the difference, drawn around the mean."""
    if difference.interval is None:
        return
    middle = _without(mean, difference)
    low, high = difference.interval
    axes.plot([x, x], [middle + low, middle + high], color=color, linewidth=0.9, alpha=0.8)


def _without(mean: float, difference: stats.Difference) -> float:
    """What the mean is compared with."""
    return mean - (difference.mean or 0.0)


def _slanting(levels: Sequence[str]) -> float:
    """Inches more that a figure needs for levels that are slanted."""
    longest = min(LONGEST, max(map(len, levels)))
    return 0.04 * longest if 2 * longest > ROOM / 2 else 0.0


def _name_levels(axes: Axes, factor: str, levels: Sequence[str]) -> None:
    labels = [label(level) for level in levels]
    slanted = len(labels) * max(map(len, labels)) > ROOM
    look: dict[str, Any] = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
    axes.set_xticks(range(len(labels)), labels, **look)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_xlabel(clean(factor))
    axes.grid(axis="y")


def _name_metric(axes: Axes, metric: str, leftmost: bool) -> None:
    if leftmost:
        name_axis(axes.yaxis, metric, "minimize" if less_is_better(metric) else "maximize")
