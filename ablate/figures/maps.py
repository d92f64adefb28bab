"""Draws what networks look at: maps over images, matrices, gates, learnt weights. Arrays in, each figure by a function.

A map over an image is blended with it here, at the picture's own resolution, so that SVG and PNG show the same pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.figures.canvas import BLACK, GREY_TEXT, VERMILION, WIDTH, note, panels, row_labels
from ablate.figures.looks import LOOKS
from ablate.labels import clean

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]
SIDE = 112
"""Pixels of the longer side of a picture, at least: small images are enlarged by whole factors."""
WIDEST_CELL, NARROWEST = 1.15, 0.6 * WIDTH
"""Inches: of a picture, and of a figure, whose letters a page would otherwise enlarge."""
_TEXT, _BOLD = 0.54, 0.66
"""Of a character's width to its size."""
MOST_POINTS = 128
"""Of a variant's gates in a panel: of more, so many quantiles."""
MOST_ACROSS = 8
"""Columns of a figure, the images' own not counted."""
GREEN = "#007a55"
COLORS = "inferno"


@dataclass(frozen=True)
class Picture:
    """An image, uint8 (H, W, 1 or 3), and the lines beneath it."""

    pixels: Array
    under: tuple[str, ...] = ()
    mark: tuple[float, float] | None = None
    """Row and column of the pixel that is asked about, as parts of the sides."""


@dataclass(frozen=True)
class Map:
    """Values (h, w) over an image, and the lines beneath; ``right``: in which colour the first line is."""

    values: Array
    under: tuple[str, ...] = ()
    right: bool | None = None
    mark: tuple[float, float] | None = None


def maps_over_images(
    figure: Figure,
    pictures: Sequence[Picture],
    columns: Sequence[str],
    cells: Sequence[Sequence[Map | None]],
    *,
    limits: tuple[float, float] | None = None,
    heading: str = "image",
) -> None:
    """A row for each picture: it, and a map in each column. ``limits``: one scale for all; else each has its own."""
    across = len(columns) + 1
    cell = min(WIDEST_CELL, WIDTH / across)
    height, width = pictures[0].pixels.shape[:2]
    lines = [max([len(p.under), *(len(m.under) for m in row if m)]) for p, row in zip(pictures, cells, strict=True)]
    rows = [cell * 0.94 * height / width + 0.04 + 0.125 * count for count in lines]
    longest = int(cell * 72 / (_TEXT * 6.5))
    titles = _headings([heading, *columns], int(cell * 72 / (_BOLD * 6.5)))
    top = 0.08 + 0.13 * max(title.count("\n") + 1 for title in titles)
    bar = 0.32 if limits is not None else 0.04
    figure.set_layout_engine("none")
    wide = max(cell * across, NARROWEST)
    figure.set_size_inches(wide, sum(rows) + top + bar)
    whole = sum(rows) + top + bar
    at = whole - top
    for row, (picture, maps, tall) in enumerate(zip(pictures, cells, rows, strict=True)):
        for column in range(across):
            shown = cell * 0.94 * height / width
            left = (wide - cell * across) / 2 + cell * (column + 0.03)
            axes = figure.add_axes((left / wide, (at - shown) / whole, 0.94 * cell / wide, shown / whole))
            content = picture if column == 0 else maps[column - 1]
            _cell(axes, picture, content, limits, longest)
            if row == 0:
                axes.set_title(titles[column], fontsize=6.5, pad=3, fontweight="bold" if column else "normal")
        at -= tall
    if limits is not None:
        _color_bar(figure, limits, whole)


def _headings(texts: Sequence[str], longest: int) -> list[str]:
    """``variant\\nnode``: each line cut in its middle, so that ends stay."""
    cut = [[row_labels([line], longest)[0] for line in text.split("\n")] for text in texts]
    return ["\n".join(lines) for lines in cut]


def _cell(
    axes: Axes, picture: Picture, content: Picture | Map | None, limits: tuple[float, float] | None, longest: int
) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if content is None:
        axes.text(0.5, 0.5, "–", transform=axes.transAxes, ha="center", va="center", color=GREY_TEXT)
        return
    large = enlarged(picture.pixels)
    shown = large if isinstance(content, Picture) else blended(large, content.values, limits)
    axes.imshow(shown, interpolation="none", aspect="auto")
    if content.mark is not None:
        y, x = content.mark[0] * large.shape[0] - 0.5, content.mark[1] * large.shape[1] - 0.5
        axes.plot(
            [x], [y], marker="s", markersize=4, markerfacecolor="none", markeredgecolor="white", markeredgewidth=2
        )
        axes.plot([x], [y], marker="s", markersize=4, markerfacecolor="none", markeredgecolor=VERMILION)
    right = content.right if isinstance(content, Map) else None
    for number, line in enumerate(content.under):
        color = BLACK if number or right is None else GREEN if right else VERMILION
        axes.annotate(
            row_labels([clean(line)], longest)[0],
            (0.5, 0),
            (0, -2 - 9 * number),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=6.5 if number == 0 else 6,
            color=color if number == 0 else GREY_TEXT,
        )


def _color_bar(figure: Figure, limits: tuple[float, float], whole: float) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    width = min(2.0 / figure.get_figwidth(), 0.6)
    axes = figure.add_axes((0.98 - width, 0.2 / whole, width, 0.07 / whole))
    bar = figure.colorbar(ScalarMappable(Normalize(*limits), COLORS), cax=axes, orientation="horizontal")
    bar.ax.tick_params(labelsize=6, length=2, pad=1)
    bar.outline.set_visible(False)


def enlarged(pixels: Array) -> Array:
    """uint8 (H, W, 3), each pixel repeated as often as makes the longer side ``SIDE`` pixels or more."""
    times = max(1, -(-SIDE // max(pixels.shape[:2])))
    large: Array = np.repeat(np.repeat(pixels, times, 0), times, 1)
    return np.repeat(large, 3, 2) if large.shape[2] == 1 else large


def blended(pixels: Array, values: Array, limits: tuple[float, float] | None) -> Array:
    """The map, enlarged bilinearly, in colours over the image in grey; by ``limits`` in colours alone, as a bar."""
    from matplotlib import colormaps

    low, high = limits if limits is not None else (float(values.min()), float(values.max()))
    level = (values.astype(np.float64) - low) / (high - low) if high > low else np.zeros(values.shape)
    colors: Array = colormaps[COLORS](resized(np.clip(np.nan_to_num(level), 0, 1), pixels.shape[0], pixels.shape[1]))[
        ..., :3
    ]
    if limits is not None:
        return np.asarray(np.round(255 * colors), dtype=np.uint8)
    grey = (pixels.astype(np.float64) / 255) @ np.array([0.299, 0.587, 0.114])
    return np.asarray(np.round(255 * (0.62 * colors + 0.38 * grey[..., None])), dtype=np.uint8)


def resized(values: Array, height: int, width: int) -> Array:
    """Bilinearly, pixels being areas; beyond the outer middles their own value."""
    for axis, size in ((0, height), (1, width)):
        count = values.shape[axis]
        at = (np.arange(size) + 0.5) * count / size - 0.5
        at = np.clip(at, 0, count - 1)
        below = np.floor(at).astype(int)
        above = np.minimum(below + 1, count - 1)
        share = (at - below).reshape((-1, 1) if axis == 0 else (1, -1))
        values = (1 - share) * values.take(below, axis) + share * values.take(above, axis)
    return np.asarray(values)


def matrices(figure: Figure, titles: Sequence[str], shown: Sequence[Array]) -> None:
    """Attention matrices, each on its own scale: a query in each row, a key in each column."""
    for axes, title, matrix in zip(panels(figure, len(shown), 4, 1.95), titles, shown, strict=True):
        axes.imshow(matrix, cmap=COLORS, interpolation="none", vmin=0)
        axes.set_title("\n".join(row_labels([line], 28)[0] for line in title.split("\n")), fontsize=6.5)
        axes.set_xlabel(f"key (0 to {matrix.shape[1] - 1})", fontsize=6)
        axes.set_ylabel(f"query (0 to {matrix.shape[0] - 1})", fontsize=6)
        axes.set_xticks([])
        axes.set_yticks([])


def channel_gates(figure: Figure, titles: Sequence[str], shown: Sequence[Array], rows: Sequence[str]) -> None:
    """Of each node, images × channels: what a channel is multiplied by, on one scale from 0 to 1 or to the largest."""
    high = max(1.0, *(float(gates.max()) for gates in shown))
    low = min(0.0, *(float(gates.min()) for gates in shown))
    axes_of = panels(figure, len(shown), 2, 0.62 + 0.13 * len(rows))
    for axes, title, gates in zip(axes_of, titles, shown, strict=True):
        image = axes.imshow(gates, cmap=COLORS, interpolation="none", aspect="auto", vmin=low, vmax=high)
        axes.set_title(row_labels([title], 52)[0], fontsize=6.5, loc="left")
        axes.set_yticks(range(len(rows)), row_labels(list(rows), 22), fontsize=6)
        axes.set_xticks([0, gates.shape[1] - 1] if gates.shape[1] > 1 else [0])
        axes.tick_params(length=2, labelsize=6)
        axes.set_xlabel("channel", fontsize=6, labelpad=-4)
    figure.colorbar(image, ax=axes_of, shrink=0.8, aspect=30, pad=0.01).ax.tick_params(labelsize=6)


@dataclass(frozen=True)
class GateSpread:
    """Of one node in one variant: its gates' mean over images, one a channel (or a pixel)."""

    variant: str
    reduction: int
    hidden: int | None
    gates: Array


def reductions(figure: Figure, by_node: Mapping[str, Sequence[GateSpread]]) -> None:
    """A panel for each node: the gate of every channel, by reduction, and their quartiles."""
    for axes, (node, spreads) in zip(panels(figure, len(by_node), 3, 1.9), by_node.items(), strict=True):
        ordered = sorted(spreads, key=lambda each: (each.reduction, each.variant))
        for place, spread in enumerate(ordered):
            values = np.sort(spread.gates.ravel())
            drawn = values[np.linspace(0, len(values) - 1, min(len(values), MOST_POINTS)).round().astype(int)]
            offsets = 0.5 * ((np.arange(len(drawn)) * 0.618) % 1 - 0.5)
            axes.plot(place + offsets, drawn, ".", markersize=2.5, color=LOOKS[1].color, alpha=0.5, markeredgewidth=0)
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
            axes.plot([place - 0.3, place + 0.3], [middle, middle], color=BLACK, linewidth=1.2)
            axes.plot([place, place], [low, high], color=BLACK, linewidth=1.0)
        labels = [f"{each.reduction}" + (f"\n({each.hidden})" if each.hidden is not None else "") for each in ordered]
        axes.set_xticks(range(len(ordered)), labels)
        axes.set_xlim(-0.6, len(ordered) - 0.4)
        axes.set_title(row_labels([node], 36)[0], fontsize=7)
        axes.set_xlabel("reduction (hidden width)")
        axes.set_ylabel("mean gate")
        axes.grid(axis="y")


Points = Sequence[tuple[int, float]]
"""Epoch and weight; epoch 0 is before training."""


def joins(figure: Figure, by_variant: Mapping[str, Mapping[str, Sequence[Points]]], sentences: Sequence[str]) -> None:
    """A panel for each variant: the learnt weight of each node by epoch, a line a seed."""
    from matplotlib.ticker import MaxNLocator

    for axes, (variant, nodes) in zip(panels(figure, len(by_variant), 2, 2.3), by_variant.items(), strict=True):
        names = row_labels(list(nodes), 30)
        for index, (name, seeds) in enumerate(zip(names, nodes.values(), strict=True)):
            look = LOOKS[index % len(LOOKS)]
            for number, points in enumerate(seeds):
                dashed = len(points) == 2 and points[1][0] > 1
                line: Any = {**look.line(), "marker": look.marker if len(points) < 25 else ""}
                line |= {"linestyle": ":", "markersize": 4.0} if dashed else {"markersize": 2.5}
                epochs, values = zip(*points, strict=True)
                axes.plot(epochs, values, label=name if number == 0 else "_", **line)
        axes.axhline(0, color="#bbbbbb", linewidth=0.6, zorder=0)
        axes.set_title(row_labels([variant], 44)[0])
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlabel("epoch (0: before training)")
        axes.set_ylabel("learnt weight of the branch")
        axes.grid(axis="y")
        if len(nodes) <= len(LOOKS):
            axes.legend(fontsize=6)
    note(figure, sentences)
