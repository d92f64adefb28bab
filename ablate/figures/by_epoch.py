"""Draws learning curves: a panel for each split, a line and a band for each variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.analysis.curves import Curve
from ablate.figures.canvas import explain, name_axis, note, panels, row_labels
from ablate.figures.looks import Look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST_NAME = 30
MARKS = 6
"""Along each line."""
FIRST = 0.25
"""Of the epochs, which may go beyond the axis."""


def curves(
    figure: Figure,
    found: Sequence[Curve],
    looks: Mapping[str, Look],
    ids: Mapping[tuple[str, str], str],
    notes: Sequence[str],
) -> None:
    """One panel for each metric; ``ids`` are those of the lines, by metric and variant."""
    variants = list(dict.fromkeys(curve.variant for curve in found))
    names = dict(zip(variants, row_labels(variants, LONGEST_NAME), strict=True))
    metrics = list(dict.fromkeys(curve.metric for curve in found))
    for axes, metric in zip(panels(figure, len(metrics), 3, 2.8, sharey=True), metrics, strict=True):
        own = [curve for curve in found if curve.metric == metric]
        for index, curve in enumerate(own):
            _draw(axes, index, curve, looks[curve.variant], names[curve.variant], ids[metric, curve.variant])
        axes.set_xlabel("epoch")
        name_axis(axes.yaxis, metric)
        axes.tick_params(axis="y", labelleft=True)
        axes.grid()
    cut = _bound(figure.axes[0], found)
    explain(figure)
    note(figure, [*notes, *(["The first epochs go beyond the axis."] if cut else [])])


def _draw(axes: Axes, index: int, curve: Curve, look: Look, name: str, id: str) -> None:
    every = max(1, len(curve.epochs) // MARKS)
    style: dict[str, Any] = {**look.line(), "markevery": (index * every // 8 % every, every)}
    axes.plot(curve.epochs, curve.mean, label=name, gid=id, zorder=3, **style)
    if curve.band:
        low, high = (np.array(side, dtype=float) for side in (curve.low, curve.high))
        axes.fill_between(curve.epochs, low, high, color=look.color, alpha=0.15, linewidth=0)


def _bound(axes: Axes, found: Sequence[Curve]) -> bool:
    """By the means after the first epochs, which are many times as high as what tells variants apart; whether cut.

    The band of an epoch can be wider than all means are apart, too.
    """
    last = max(curve.epochs[-1] for curve in found)
    every = [(epoch, mean) for curve in found for epoch, mean in zip(curve.epochs, curve.mean, strict=True)]
    later = [mean for epoch, mean in every if epoch > FIRST * last]
    low, high = min(later), max(later)
    cut = max(mean for _, mean in every) > high + (high - low)
    if not cut:
        low, high = min(mean for _, mean in every), max(mean for _, mean in every)
    room = 0.08 * ((high - low) or 1.0)
    lows = [side for curve in found for side in curve.low if side is not None]
    highs = [side for curve in found for side in curve.high if side is not None]
    axes.set_ylim(max(low - 2 * room, min([low, *lows])) - room, min(high + 2 * room, max([high, *highs])) + room)
    return cut
