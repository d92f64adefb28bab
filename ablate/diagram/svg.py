"""A picture as SVG: one file without scripts, links or fonts of its own. Every text is escaped."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from itertools import pairwise

from ablate.diagram.drawing import State
from ablate.diagram.folding import Box, Frame, Picture
from ablate.diagram.labels import frame_title, texts
from ablate.diagram.layout import HEAD, LINE, Layout, Placed, Point, layout

MARGIN = 24.0
ABOVE = 74.0
"""For the title and the legend."""
FONT = "DejaVu Sans Mono, Menlo, Consolas, Liberation Mono, monospace"
FILL: dict[State, str] = {"same": "#f3f4f6", "added": "#dafbe1", "removed": "#ffebe9", "changed": "#fff3c4"}
EDGE: dict[State, str] = {"same": "#6e7781", "added": "#1a7f37", "removed": "#cf222e", "changed": "#9a6700"}
SAID: dict[State, str] = {"added": "+ added", "removed": "− removed", "changed": "≠ changed", "same": "unchanged"}
TEXT = "#1f2328"


def svg(picture: Picture) -> str:
    """The picture as the text of an SVG file. Colours are told apart by signs and dashes too."""
    plan = layout(picture)
    legend = _legend(picture)
    width = max(plan.width, len(picture.title) * 9.3, _legend_width(picture)) + 2 * MARGIN
    height = plan.height + ABOVE + 2 * MARGIN
    return (
        "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
                f'width="{width:.0f}" height="{height:.0f}" font-family="{FONT}" font-size="12" fill="{TEXT}">',
                f"<title>{_text(picture.title)}</title>",
                "<defs>",
                *(_marker(state) for state in EDGE),
                "</defs>",
                '<rect width="100%" height="100%" fill="#ffffff"/>',
                f'<text x="{MARGIN:.0f}" y="{MARGIN + 8:.0f}" font-size="15" font-weight="bold">'
                f"{_text(picture.title)}</text>",
                *legend,
                f'<g transform="translate({MARGIN + (width - 2 * MARGIN - plan.width) / 2:.1f} {ABOVE + MARGIN:.1f})">',
                *_shapes(plan),
                "</g>",
                "</svg>",
            ]
        )
        + "\n"
    )


def _shapes(plan: Layout) -> Iterable[str]:
    frames = [each for each in plan.placed if isinstance(each.unit, Frame)]
    yield from (_frame(each) for each in frames)
    ordered = sorted(plan.lines, key=lambda line: line[0].state != "same")
    yield from (_line(points, link.state) for link, points in ordered)
    yield from (_box(each) for each in plan.placed if isinstance(each.unit, Box))


def _marker(state: State) -> str:
    return (
        f'<marker id="arrow-{state}" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="9" markerHeight="9" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0.5L8 4L0 7.5z" fill="{EDGE[state]}"/></marker>'
    )


def _frame(each: Placed) -> str:
    assert isinstance(each.unit, Frame)
    times = ' stroke-width="1.6"' if each.unit.times > 1 else ""
    return (
        f'<rect x="{each.x:.1f}" y="{each.y:.1f}" width="{each.width:.1f}" height="{each.height:.1f}" rx="7" '
        f'fill="#57606a" fill-opacity="0.035" stroke="#afb8c1"{times}/>'
        f'<text x="{each.x + 8:.1f}" y="{each.y + HEAD - 5:.1f}" font-weight="bold" fill="#424a53">'
        f"{_text(frame_title(each.unit))}</text>"
    )


def _box(each: Placed) -> str:
    box = each.unit
    assert isinstance(box, Box)
    dashes = ' stroke-dasharray="5 3"' if box.state == "removed" else ""
    thick = 2.2 if box.inserted or box.state != "same" else 1.0
    lines = []
    for index, text in enumerate(texts(box)):
        bold = ' font-weight="bold"' if index == 0 else ' fill="#424a53"'
        x, y = each.x + each.width / 2, each.y + 16 + index * LINE
        lines.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle"{bold}>{_text(text)}</text>')
    whole = "; ".join([", ".join(item.name for item in box.items), *box.lines])
    return (
        f'<g><title>{_text(whole)}</title><rect x="{each.x:.1f}" y="{each.y:.1f}" width="{each.width:.1f}" '
        f'height="{each.height:.1f}" rx="4" fill="{FILL[box.state]}" stroke="{EDGE[box.state]}" '
        f'stroke-width="{thick}"{dashes}/>{"".join(lines)}</g>'
    )


def _line(points: list[Point], state: State) -> str:
    path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x0, y0), (x1, y1) in pairwise(points):
        if abs(x0 - x1) < 0.5 or y1 <= y0:
            path += f"L{x1:.1f} {y1:.1f}"
        else:
            middle = (y0 + y1) / 2
            path += f"C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}"
    dashes = ' stroke-dasharray="5 3"' if state == "removed" else ""
    width = 1.2 if state == "same" else 2.0
    return (
        f'<path d="{path}" fill="none" stroke="{EDGE[state]}" stroke-width="{width}"{dashes} '
        f'marker-end="url(#arrow-{state})"/>'
    )


def _legend_entries(picture: Picture) -> list[tuple[State, str]]:
    counts = picture.counts
    if not any(counts[state] for state in ("added", "removed", "changed")):
        return []
    return [(state, f"{SAID[state]} {counts[state]}") for state in SAID if counts[state]]


def _legend_width(picture: Picture) -> float:
    return sum(len(text) * 7.3 + 44 for _, text in _legend_entries(picture))


def _legend(picture: Picture) -> Iterable[str]:
    x, y = MARGIN, MARGIN + 24
    for state, text in _legend_entries(picture):
        dashes = ' stroke-dasharray="5 3"' if state == "removed" else ""
        yield (
            f'<rect x="{x:.0f}" y="{y:.0f}" width="18" height="13" rx="3" fill="{FILL[state]}" '
            f'stroke="{EDGE[state]}" stroke-width="1.6"{dashes}/>'
            f'<text x="{x + 24:.0f}" y="{y + 11:.0f}">{_text(text)}</text>'
        )
        x += len(text) * 7.3 + 44


def _text(text: str) -> str:
    """Escaped for XML. Control characters and those that turn text round become U+FFFD."""
    plain = "".join(
        "\ufffd" if unicodedata.category(character) in ("Cc", "Cf", "Cs") else character for character in text
    )
    for character, entity in {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"}.items():
        plain = plain.replace(character, entity)
    return plain
