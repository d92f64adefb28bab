"""How figures look, and how they become files: the same bytes for the same numbers.

No pyplot: nothing is left behind in the process, and no display is asked for. Labels are plain text, whatever is in
them; in the SVG they stay text, in DejaVu Sans or what the viewer has instead.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from ablate.labels import clean
from ablate.quantities import PREFIXES, unit_of

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

WIDTH = 6.75
"""Inches: the text of a paper of two columns."""
DPI = 200
BLUE, VERMILION, GREY, BLACK = "#0072B2", "#D55E00", "#8c8c8c", "#222222"
"""Of Okabe and Ito's palette, which the colour-blind tell apart; marks and hatches say the same."""
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
        # laid out once, and not again for each format
        layout = figure.get_layout_engine()
        assert layout is not None
        layout.execute(figure)
        figure.set_layout_engine("none")
        return Images(
            _saved(figure, "svg", {"Date": None, "Creator": None, "Title": clean(title)}),
            _saved(figure, "png", {"Software": None}),
        )


def _saved(figure: Figure, format: str, metadata: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=format, metadata=metadata, dpi=DPI)
    return buffer.getvalue()


def label(text: str) -> str:
    """One line that fits an axis."""
    text = clean(text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def explain(figure: Figure) -> None:
    """A legend above all panels, of what any of them has; in no panel is it in the way."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        found |= {text: handle for text, handle in zip(labels, handles, strict=True) if text not in found}
    figure.legend(list(found.values()), list(found), loc="outside upper left", ncols=len(found))


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
    digits = next((n for n in range(9) if all(abs(round(value, n) - value) < 1e-3 * least for value in values)), 9)
    return [f"{value:z.{digits if least else 0}f}{unit}".replace("-", "−") for value in values]
