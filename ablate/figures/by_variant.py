"""Draws what is known of each variant: its seeds in a row, and what it costs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ablate.analysis.costs import Trade
from ablate.analysis.seeds import Spread
from ablate.figures.canvas import (
    BLACK,
    BLUE,
    GREY,
    GREY_TEXT,
    VERMILION,
    WIDTH,
    explain,
    name_axis,
    note,
    panels,
    points,
    row_labels,
    settle,
    tick_labels,
)
from ablate.figures.names import name_points
from ablate.quantities import less_is_better

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST_NAME = 36
LONGEST_BESIDE = 26
"""Characters of a name, in a row of its own and beside a point."""
BEYOND = 1.5
"""Times the extent of all values: an interval that goes on farther is cut off there, or no dot could be told apart."""
GOLDEN = 0.618
Identify = Callable[[int, str], str]
"""Row and seed → the id of the point."""


def seeds(
    figure: Figure, metric: str, rows: Sequence[Spread], baseline: str | None, identify: Identify, notes: Sequence[str]
) -> None:
    """A row for each variant: a dot per seed, mean, interval, what papers published; the baseline's mean as a line."""
    figure.set_size_inches(WIDTH, 1.0 + 0.24 * len(rows))
    axes = figure.subplots()
    _draw_dots(axes, rows, identify)
    _draw_means(axes, rows, identify)
    papers = [
        (value, index, identify(index, published_key(number)))
        for index, row in enumerate(rows)
        for number, value in enumerate(row.published.values())
    ]
    if papers:
        look: dict[str, Any] = {"marker": "D", "markersize": 5, "markerfacecolor": "none", "markeredgewidth": 1.0}
        points(axes, *zip(*papers, strict=True), color=VERMILION, label="published", **look)
    own = next((row for row in rows if row.variant == baseline), None)
    if own and own.mean is not None:
        axes.axvline(own.mean, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=0, label="baseline's mean")
    cut = _bound(axes, rows)
    _name_rows(axes, rows)
    name_axis(axes.xaxis, metric, "minimize" if less_is_better(metric) else "maximize")
    axes.grid(axis="x")
    explain(figure)
    note(figure, [*notes, *(["An arrow: the interval goes on beyond the figure."] if cut else [])])


def published_key(number: int) -> str:
    """Of a row's published values, in the place of a seed."""
    return f"published{number}"


def _draw_dots(axes: Axes, rows: Sequence[Spread], identify: Identify) -> None:
    dots = [(value, i, identify(i, seed)) for i, row in enumerate(rows) for seed, value in row.values.items()]
    # spread over the row, so that seeds that are equal, or nearly so, are seen to be several
    places = [index + 0.36 * (number * GOLDEN % 1 - 0.5) for number, (_, index, _) in enumerate(dots)]
    values, ids = [value for value, *_ in dots], [id for *_, id in dots]
    points(axes, values, places, ids, color=BLUE, alpha=0.65, marker="o", markersize=3.6, zorder=3, label="a seed")


def _draw_means(axes: Axes, rows: Sequence[Spread], identify: Identify) -> None:
    means = [(row.mean, index, identify(index, "mean")) for index, row in enumerate(rows) if row.mean is not None]
    bars = [(index, *row.interval) for index, row in enumerate(rows) if row.interval is not None]
    if bars:
        axes.hlines(*zip(*bars, strict=True), color=BLACK, linewidth=0.9, label="95% interval")
    look: dict[str, Any] = {"marker": "|", "markersize": 9, "markeredgewidth": 1.6, "zorder": 4}
    points(axes, *zip(*means, strict=True), color=BLACK, label="mean", **look)
    for index in (index for index, row in enumerate(rows) if row.mean is None):
        where = axes.get_yaxis_transform()
        axes.text(0.01, index, "no value", fontsize=6, color=GREY_TEXT, va="center", transform=where)


def _bound(axes: Axes, rows: Sequence[Spread]) -> bool:
    """Keep the dots apart where an interval, as of two seeds, is many times as wide; whether one is cut off."""
    shown = [value for row in rows for value in (*row.values.values(), *row.published.values())]
    ends = [end for row in rows for end in row.interval or ()]
    if not shown or not ends:
        axes.margins(x=0.06)
        return False
    low, high = min(shown), max(shown)
    extent = (high - low) or (max(ends) - min(ends)) or 1.0
    left, right = max(min([low, *ends]), low - BEYOND * extent), min(max([high, *ends]), high + BEYOND * extent)
    room = 0.05 * (right - left) or 0.5
    axes.set_xlim(left - room, right + room)
    cut = False
    for index, row in enumerate(rows):
        for end, marker in zip(row.interval or (), "<>", strict=False):
            if not left - room <= end <= right + room:
                at = left - room if marker == "<" else right + room
                axes.plot([at], [index], marker=marker, markersize=3, color=BLACK, clip_on=False)
                cut = True
    return cut


def _name_rows(axes: Axes, rows: Sequence[Spread]) -> None:
    names = row_labels([row.variant for row in rows], LONGEST_NAME)
    counts = [f" ({len(row.values)} of {row.trials})" if len(row.values) < row.trials else "" for row in rows]
    labels = [name + count for name, count in zip(names, counts, strict=True)]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def costs(
    figure: Figure, trades: Sequence[Trade], identify: Callable[[str, str], str], notes: Sequence[str]
) -> Mapping[str, list[str]]:
    """A panel for each cost, the front as a staircase. By cost, the variants whose names found no room are returned."""
    metric = trades[0].metric
    way = "minimize" if less_is_better(metric) else "maximize"
    each_axes = panels(figure, len(trades), 3, 2.9, sharey=True)
    for index, (axes, trade) in enumerate(zip(each_axes, trades, strict=True)):
        _draw_trade(axes, trade, identify)
        _price_axis(axes, trade)
        if index == 0:
            name_axis(axes.yaxis, metric, way)
        axes.grid()
    explain(figure)
    note(figure, notes)
    settle(figure)
    return {trade.cost: _name(axes, trade, way) for axes, trade in zip(each_axes, trades, strict=True)}


def _draw_trade(axes: Axes, trade: Trade, identify: Callable[[str, str], str]) -> None:
    bars = [(point.cost, *point.interval) for point in trade.points if point.interval is not None]
    if bars:
        axes.vlines(*zip(*bars, strict=True), color=GREY, linewidth=0.7, alpha=0.7, zorder=1)
    if len(trade.steps) > 1:
        axes.plot(*zip(*trade.steps, strict=True), color=VERMILION, linewidth=1.0, zorder=2, label="Pareto front")
    kinds: list[tuple[bool, str, dict[str, Any]]] = [
        (False, "a variant's mean", {"color": BLUE, "marker": "o", "markersize": 3.6}),
        (True, "on the Pareto front", {"color": VERMILION, "marker": "D", "markersize": 4}),
    ]
    for on_front, text, look in kinds:
        chosen = [point for point in trade.points if (point.variant in trade.front) == on_front]
        if chosen:
            placed = [(each.cost, each.mean, identify(trade.cost, each.variant)) for each in chosen]
            points(axes, *zip(*placed, strict=True), label=text, zorder=3, **look)


def _price_axis(axes: Axes, trade: Trade) -> None:
    costs = [point.cost for point in trade.points]
    means = [point.mean for point in trade.points]
    ends = [end for point in trade.points for end in point.interval or ()]
    low, high = min(means), max(means)
    extent = (high - low) or 1.0
    # names need room, and wide intervals must not press the means together
    axes.set_ylim(
        max(min([low, *ends]), low - BEYOND * extent) - 0.1 * extent,
        min(max([high, *ends]), high + BEYOND * extent) + 0.1 * extent,
    )
    axes.margins(x=0.15)
    way = "minimize"
    if min(costs) > 0 and max(costs) / min(costs) > 30:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        axes.set_xscale("log")
        name_axis(axes.xaxis, trade.cost, way)
        axes.xaxis.set_major_locator(LogLocator(numticks=5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: tick_labels(trade.cost, [x])[0]))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        name_axis(axes.xaxis, trade.cost, way)


def _name(axes: Axes, trade: Trade, way: str) -> list[str]:
    """Those on the front first, and as far away as a thin line goes; the others only right beside their points."""
    sign = 1 if way == "minimize" else -1
    ordered = sorted(trade.points, key=lambda each: (each.variant not in trade.front, sign * each.mean))
    names = row_labels([each.variant for each in ordered], LONGEST_BESIDE)
    named = [(name, each.cost, each.mean) for name, each in zip(names, ordered, strict=True)]
    bars = [((each.cost, each.interval.low), (each.cost, each.interval.high)) for each in ordered if each.interval]
    first = (-1, -1 if way == "minimize" else 1)
    left_out = {*name_points(axes, named, (), trade.steps, first, bars, far=len(trade.front))}
    return [each.variant for name, each in zip(names, ordered, strict=True) if name in left_out]
