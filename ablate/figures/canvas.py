"""How figures look, and how they become files: the same bytes for the same numbers.

No pyplot: nothing is left behind in the process, and no display is asked for. Labels are plain text, whatever is in
them; in the SVG they stay text, in DejaVu Sans or what the viewer has instead.
"""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ablate.labels import clean
from ablate.quantities import HUGE, PREFIXES, unit_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH = 6.75
"""Inches: the text of a paper of two columns."""
DPI = 200
BLUE, VERMILION, GREY, BLACK = "#0072B2", "#D55E00", "#8c8c8c", "#222222"
"""Of Okabe and Ito's palette, which the colour-blind tell apart; marks and hatches say the same."""
GREY_TEXT = "#555555"
LONGEST = 22
"""Characters of a label on an axis."""
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.5,
    "text.parse_math": False,
    "text.usetex": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "ablate",
}


@dataclass(frozen=True)
class Images:
    """One figure in both formats."""

    svg: bytes
    png: bytes


def draw(title: str, act: Callable[[Figure], None]) -> Images:
    """Have ``act`` draw on an empty figure; ``title`` is the SVG's, and not drawn."""
    from matplotlib import style
    from matplotlib.figure import Figure

    # "default" first: nothing of the user's own matplotlibrc is in a study's figures
    with style.context(["default", _STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the viewer of an SVG may have it
        figure = Figure(figsize=(WIDTH, WIDTH / 2), layout="constrained")
        act(figure)
        settle(figure)
        return Images(_svg(figure, clean(title)), _png(figure))


def settle(figure: Figure) -> None:
    """Lay it out: once, and not again for each format. What is placed by where things are comes after this."""
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.execute(figure)
        figure.set_layout_engine("none")


def panels(figure: Figure, count: int, across: int, height: float, *, sharey: bool = False) -> list[Axes]:
    """So many axes, ``across`` of them beside each other, ``height`` inches each; a single one is not so wide."""
    across = min(count, across)
    down = math.ceil(count / across)
    figure.set_size_inches(WIDTH if across > 1 else 0.7 * WIDTH, down * height)
    grid = figure.subplots(down, across, squeeze=False, sharey=sharey)
    axes = list(grid.flat)
    for empty in axes[count:]:
        empty.set_axis_off()
    return axes[:count]


def points(axes: Axes, xs: Sequence[float], ys: Sequence[float], ids: Sequence[str] = (), **look: Any) -> None:
    """Marks alone, as ``axes.plot`` draws them; each has its id in the SVG. Ids are of letters, digits and ``:.-``.

    In one piece, since each artist takes a millisecond: ``_svg`` gives the ids to the pieces.
    """
    gid = f"{_MARKED}{' '.join(ids)}" if ids else None
    axes.plot(xs, ys, **{"linestyle": "", "markeredgewidth": 0, **look}, gid=gid)


_MARKED = "ids "


def _svg(figure: Figure, title: str) -> bytes:
    """By the canvas itself: ``savefig`` would draw twice, for a layout that is settled already."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(  # type: ignore[no-untyped-call]
        buffer, metadata={"Date": None, "Creator": None, "Title": title}
    )
    return _with_ids(buffer.getvalue())


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    figure.set_dpi(DPI)
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return buffer.getvalue()


def _with_ids(svg: bytes) -> bytes:
    """The ids of ``points`` at the marks, which follow each other in their order."""
    first, *groups = svg.split(f'<g id="{_MARKED}'.encode())
    found = [first]
    for group in groups:
        ids, _, rest = group.partition(b'">')
        before, *marks = rest.split(b"<use ", len(ids.split()))
        marked = [b'<use id="%b" %b' % pair for pair in zip(ids.split(), marks, strict=True)]
        found.append(b"<g>" + before + b"".join(marked))
    return b"".join(found)


def label(text: str, longest: int = LONGEST) -> str:
    """One line that fits an axis."""
    text = clean(text)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def row_labels(texts: Sequence[str], longest: int) -> list[str]:
    """One line each, cut in its middle, since names of variants begin and end alike; never two that look the same."""
    cleaned = [clean(text) for text in texts]
    head = longest // 2
    cut = [text if len(text) <= longest else f"{text[:head]}…{text[head + 1 - longest :]}" for text in cleaned]
    return [
        short if cut.count(short) == 1 else f"{short} ({cut[:index].count(short) + 1})"
        for index, short in enumerate(cut)
    ]


def explain(figure: Figure) -> None:
    """A legend above all panels, of what any of them has; in no panel is it in the way."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found |= {text: handle for text, handle in zip(labels, handles, strict=True) if text not in found}
    widest = max(map(len, found), default=0)
    # a handle takes the room of some seven characters
    columns = max(1, min(len(found), int(_characters(figure, 7) // (widest + 7))))
    figure.legend(list(found.values()), list(found), loc="outside upper left", ncols=columns)


def note(figure: Figure, sentences: Sequence[str]) -> None:
    """Beneath the panels, where there is anything to say."""
    if sentences:
        lines = textwrap.wrap(clean(" ".join(sentences)), int(_characters(figure, 6)))
        figure.supxlabel("\n".join(lines), fontsize=6, color=GREY_TEXT, x=0.01, ha="left")


def _characters(figure: Figure, size: float) -> float:
    """How many of this size, in points, fit beside each other."""
    return float(figure.get_figwidth()) * 72 / (0.54 * size)


def name_axis(axis: Axis, metric: str, way: str = "") -> None:
    """Its label with the unit, and what is better; ticks with prefixes."""
    from matplotlib.ticker import MaxNLocator

    unit = unit_of(metric)
    better = {"maximize": ", more is better", "minimize": ", less is better"}.get(way, "")
    axis.set_label_text(clean(f"{metric}{f' ({unit})' if unit else ''}{better}"))
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(_formatter(metric))


def _formatter(metric: str) -> Any:
    from matplotlib.ticker import Formatter

    class Quantity(Formatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return tick_labels(metric, [x])[0]

        def format_ticks(self, values: Sequence[float]) -> list[str]:
            return tick_labels(metric, values)

    return Quantity()


def tick_labels(metric: str, ticks: Sequence[float]) -> list[str]:
    """With the prefix of the largest, and as many decimals as tell them apart."""
    if metric == "latency":
        return _decimals([1e3 * tick for tick in ticks], "")
    if metric == "memory":
        return _decimals([tick / 2**20 for tick in ticks], " MiB")
    largest = max(map(abs, ticks), default=0.0)
    size, prefix = next(((size, f" {prefix}") for size, prefix in PREFIXES if largest >= size), (1.0, ""))
    return _decimals([tick / size for tick in ticks], prefix)


def _decimals(values: Sequence[float], unit: str) -> list[str]:
    """As many for all as none needs more: a tick at 2.5 is not labelled 2."""
    least = min((b - a for a, b in pairwise(sorted(set(values)))), default=0.0) or max(map(abs, values), default=0.0)
    if not max(map(abs, values), default=0.0) < HUGE:
        return [f"{value:.4g}".replace("-", "−") + unit for value in values]
    digits = next((n for n in range(9) if all(abs(round(value, n) - value) < 1e-3 * least for value in values)), 9)
    return [f"{value:z.{digits if least else 0}f}{unit}".replace("-", "−") for value in values]
