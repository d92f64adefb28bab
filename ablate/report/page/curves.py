"""How each trial of a variant went, epoch by epoch: a small picture, drawn here, in the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ablate.quantities import format_value, unit_of

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH, HEIGHT = 420, 150
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 24
MOST_POINTS = 120
"""Of one line: more would not be told apart."""
SPLITS = ("train", "val", "test")
KINDS = ("error", "accuracy", "loss")
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Curves:
    """The picture, what it shows in words, and the splits that are in it."""

    picture: Markup
    text: str
    splits: tuple[str, ...]


def curves(rows_by_seed: Mapping[str, Rows], *, hidden: bool) -> Curves | None:
    """Of each seed's epochs; None where no metric has two of them. ``hidden``: test is not shown."""
    from markupsafe import Markup

    splits = [split for split in SPLITS if not (hidden and split == "test")]
    kind, lines = next(((kind, found) for kind in KINDS if (found := _lines(rows_by_seed, splits, kind))), ("", []))
    if not lines:
        return None
    points = [point for _, _, line in lines for point in line]
    epochs, values = [x for x, _ in points], [y for _, y in points]
    box = (min(epochs), max(epochs), min(values), max(values))
    if box[0] == box[1]:
        return None
    shown = list(dict.fromkeys(split for split, _, _ in lines))
    seeds = len({seed for _, seed, _ in lines})
    ends = [f"{split} {_end(lines, split, kind)}" for split in shown]
    unit = unit_of(f"val.{kind}")
    name = f"{kind} ({unit})" if unit else kind
    said = f"{name} by epoch of {seeds} {'seed' if seeds == 1 else 'seeds'}; at the end {', '.join(ends)}"
    return Curves(Markup(_svg(lines, box, kind)), said, tuple(shown))


def _lines(
    rows_by_seed: Mapping[str, Rows], splits: Iterable[str], kind: str
) -> list[tuple[str, str, list[tuple[float, float]]]]:
    """Split, seed, and the points; of those that were measured in two epochs or more."""
    found = []
    for split in splits:
        for seed, rows in rows_by_seed.items():
            line = [(_number(row.get("epoch")), _number(row.get(f"{split}.{kind}"))) for row in rows]
            points = [(x, y) for x, y in line if x is not None and y is not None]
            if len(points) > 1:
                found.append((split, seed, points))
    return found


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _end(lines: Sequence[tuple[str, str, list[tuple[float, float]]]], split: str, kind: str) -> str:
    last = [line[-1][1] for own, _, line in lines if own == split]
    low, high = format_value(f"{split}.{kind}", min(last)), format_value(f"{split}.{kind}", max(last))
    return low if low == high else f"{low} to {high}"


def _svg(
    lines: Sequence[tuple[str, str, list[tuple[float, float]]]],
    box: tuple[float, float, float, float],
    kind: str,
) -> str:
    first, last, low, high = box
    high = high if high > low else low + 1

    def place(x: float, y: float) -> str:
        across = LEFT + (WIDTH - LEFT - RIGHT) * (x - first) / (last - first)
        down = TOP + (HEIGHT - TOP - BOTTOM) * (high - y) / (high - low)
        return f"{across:.1f},{down:.1f}"

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" class="curves" role="img" '
        f'aria-label="{kind} by epoch, a line per seed and split">',
        f'<path class="axis" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>',
    ]
    for y, value in ((TOP + 8, high), (HEIGHT - BOTTOM, low)):
        parts.append(f'<text x="{LEFT - 5}" y="{y}" text-anchor="end">{format_value(f"val.{kind}", value)}</text>')
    for x, anchor, text in ((LEFT, "start", f"epoch {first:g}"), (WIDTH - RIGHT, "end", f"{last:g}")):
        parts.append(f'<text x="{x}" y="{HEIGHT - 8}" text-anchor="{anchor}">{text}</text>')
    for split, _, line in lines:
        points = " ".join(place(x, y) for x, y in _thinned(line))
        parts.append(f'<polyline class="{split}" points="{points}"/>')
    return "".join([*parts, "</svg>"])


def _thinned(line: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Every so manieth point, and the last."""
    step = -(-len(line) // MOST_POINTS)
    return [*line[:-1:step], line[-1]]
