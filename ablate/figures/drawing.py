"""Draws the numbers of a search, each figure by one function; every one sets the height that it needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from ablate.figures.canvas import BLACK, BLUE, GREY, VERMILION, explain, label, name_axis, panels, settle
from ablate.figures.names import Direction, name_points
from ablate.findings.curves import Front, History, Panel
from ablate.findings.importance import Importance
from ablate.labels import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GOLDEN = (math.sqrt(5) - 1) / 2


def history(figure: Figure, runs: Sequence[History]) -> None:
    """A panel for each objective: each trial by its number, and the best so far."""
    for axes, run in zip(panels(figure, len(runs), 2, 2.3), runs, strict=True):
        axes.scatter(*_columns(run.finished), s=9, color=BLUE, alpha=0.6, linewidths=0, label="finished")
        if run.pruned:
            axes.scatter(
                *_columns(run.pruned), s=11, marker="x", color=GREY, linewidths=0.7, label="pruned, at its end"
            )
        if run.best:
            last = max(number for number, _ in (*run.finished, *run.pruned))
            numbers, values = _columns((*run.best, (last, run.best[-1][1])))
            axes.step(numbers, values, where="post", color=VERMILION, linewidth=1.2, label="best so far")
        axes.set_xlabel("number of the proposal")
        name_axis(axes.yaxis, run.objective, run.way)
        axes.grid(axis="y")
    explain(figure)


def front(figure: Figure, pairs: Sequence[Front]) -> None:
    """A panel for each pair of objectives; the front as a staircase, with the trials' numbers."""
    each_axes = panels(figure, len(pairs), 2, 2.9)
    for axes, pair in zip(each_axes, pairs, strict=True):
        axes.scatter(*_columns([each[1:] for each in pair.others]), s=9, color=GREY, alpha=0.7, linewidths=0)
        if pair.steps:
            axes.plot(*_columns(pair.steps), color=VERMILION, linewidth=1.0)
        axes.scatter(*_columns([each[1:] for each in pair.front]), s=16, marker="D", color=VERMILION, linewidths=0)
        name_axis(axes.xaxis, pair.x, pair.ways[0])
        name_axis(axes.yaxis, pair.y, pair.ways[1])
        axes.margins(0.1)
        axes.grid()
    settle(figure)
    for axes, pair in zip(each_axes, pairs, strict=True):
        others = [each[1:] for each in pair.others]
        name_points(axes, pair.front, others, pair.steps, _beyond(pair.ways))


def _beyond(ways: tuple[str, str]) -> Direction:
    """To the side of the front where no trial is."""
    return -1 if ways[0] == "minimize" else 1, -1 if ways[1] == "minimize" else 1


def slices(figure: Figure, rows: Sequence[Sequence[Panel]], names: Mapping[str, str], best: Collection[str]) -> None:
    """A panel for each path and objective; the best trials, or those on the front, stand out."""
    objectives = len(rows[0])
    across = objectives if objectives > 1 else 3
    every = [panel for row in rows for panel in row]
    for axes, panel in zip(panels(figure, len(every), across, 1.75), every, strict=True):
        _slice(axes, panel, best)
        active = len(panel.points)
        some = f", active in {active} of {active + panel.inactive}" if panel.inactive else ""
        axes.set_xlabel(clean(names[panel.scale.path]) + some)
        name_axis(axes.yaxis, panel.objective)
        axes.grid(axis="y")


def _slice(axes: Axes, panel: Panel, best: Collection[str]) -> None:
    scale = panel.scale
    place = {category: position for position, category in enumerate(scale.categories)}
    xs = [
        place[where] + 0.5 * (index * GOLDEN % 1 - 0.5) if isinstance(where, str) else where
        for index, (_, where, _) in enumerate(panel.points)
    ]
    ys = [value for *_, value in panel.points]
    chosen = [name in best for name, *_ in panel.points]
    axes.scatter(*_where(xs, ys, chosen, False), s=7, color=BLUE, alpha=0.5, linewidths=0)
    axes.scatter(*_where(xs, ys, chosen, True), s=14, marker="D", color=VERMILION, linewidths=0, zorder=3)
    if scale.categories:
        for category, position in place.items():
            middle = median(value for _, where, value in panel.points if where == category)
            axes.plot([position - 0.3, position + 0.3], [middle, middle], color=BLACK, linewidth=1.2)
        _name_categories(axes, list(scale.categories.values()))
    else:
        _number_axis(axes, scale.log, scale.low, scale.high)


def _name_categories(axes: Axes, categories: Sequence[str]) -> None:
    labels = [label(text) for text in categories]
    room = 26 / max(1, len(labels))
    slanted = max(map(len, labels)) > room
    axes.set_xticks(range(len(labels)), labels, rotation=35 if slanted else 0, ha="right" if slanted else "center")
    axes.set_xlim(-0.6, len(labels) - 0.4)


def _number_axis(axes: Axes, log: bool, low: float, high: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low >= 100 else (1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(low / (high / low) ** 0.04, high * (high / low) ** 0.04)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}".replace("-", "−")))


def importance(figure: Figure, bars: Sequence[Importance], names: Mapping[str, str]) -> None:
    """A panel for each objective, with two bars for each path: that which matters most to the first comes first."""
    objectives = list(dict.fromkeys(each.objective for each in bars))
    first = [each for each in bars if each.objective == objectives[0]]
    paths = [each.path for each in sorted(first, key=lambda each: -(each.fanova or 0.0))]
    across = min(3, len(objectives))
    height = 0.75 + 0.27 * len(paths)
    kinds: list[tuple[str, Callable[[Importance], float | None], dict[str, Any]]] = [
        ("fANOVA", lambda each: each.fanova, {"color": BLUE}),
        ("PED-ANOVA", lambda each: each.ped_anova, {"color": "white", "edgecolor": VERMILION, "hatch": "////"}),
    ]
    for axes, objective in zip(panels(figure, len(objectives), across, height), objectives, strict=True):
        own = {each.path: each for each in bars if each.objective == objective}
        for kind, (name, share, look) in enumerate(kinds):
            lengths = [100 * (share(own[path]) or 0.0) for path in paths]
            rows = [row + 0.36 * kind - 0.18 for row in range(len(paths))]
            axes.barh(rows, lengths, height=0.32, label=name, **look)
            for row, path in zip(rows, paths, strict=True):
                if share(own[path]) is None:
                    axes.text(1, row, "not told", fontsize=6, color=GREY, va="center")
        axes.set_yticks(range(len(paths)), [label(names[path]) for path in paths])
        axes.invert_yaxis()
        axes.set_xlim(0, 100)
        axes.set_xlabel(clean(f"{objective}: importance (%)"))
        axes.grid(axis="x")
    explain(figure)


def say(figure: Figure, text: str) -> None:
    """A line above the panels."""
    figure.suptitle(clean(text), fontsize=7, color=BLACK)


def _columns(points: Sequence[Sequence[Any]]) -> tuple[list[Any], list[Any]]:
    return [point[0] for point in points], [point[1] for point in points]


def _where(xs: Sequence[float], ys: Sequence[float], chosen: Sequence[bool], wanted: bool) -> tuple[Any, Any]:
    kept = [(x, y) for x, y, is_chosen in zip(xs, ys, chosen, strict=True) if is_chosen == wanted]
    return _columns(kept)
