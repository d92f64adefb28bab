"""Which figures a search has, each with its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ablate.figures import drawing
from ablate.figures.canvas import draw
from ablate.figures.figure import Figure
from ablate.figures.search_sentences import front_text, history_text, importance_text, slices_text
from ablate.findings import Findings, Importance, fronts, histories, slices
from ablate.labels import short_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

MOST_PANELS, MOST_BARS = 12, 20
"""What fits a page: of the paths that matter most to the first objective. The numbers have all."""


def search_figures(found: Findings, by_path: Sequence[Importance]) -> Iterator[Figure]:
    """``history``, ``front`` (of several objectives), ``slices`` and ``importance``, as far as they say anything."""
    title = f"{found.spec} over {found.search.get('file')}"

    def figure(name: str, numbers: Any, text: str, act: Callable[[Canvas], None], most: int = 0) -> Figure:
        some = f"The {most} of {len(found.varying)} paths that matter most." if 0 < most < len(found.varying) else ""

        def said(canvas: Canvas) -> None:
            act(canvas)
            if some:
                drawing.say(canvas, some)

        return Figure(name, numbers, draw(f"{title}: {name}", said), f"{text} {some}".strip())

    if not found.ranked:
        return
    runs = histories(found)
    history = [asdict(each) for each in runs]
    yield figure("history", history, history_text(runs), lambda canvas: drawing.history(canvas, runs))
    if pairs := fronts(found):
        points = [asdict(each) for each in pairs]
        yield figure("front", points, front_text(pairs), lambda canvas: drawing.front(canvas, pairs))
    if not found.varying:
        return
    names = dict(zip(found.varying, short_names(found.varying), strict=True))
    best = {trial.name for trial in found.front}
    order = _most_important_first(found, by_path)
    rows = slices(found, order)
    most = max(1, MOST_PANELS // len(found.objectives))
    panels = [[asdict(panel) for panel in row] for row in rows]
    text = slices_text(found, order[:most], names)
    yield figure("slices", panels, text, lambda canvas: drawing.slices(canvas, rows[:most], names, best), most)
    if by_path:
        shares, bars = [asdict(each) for each in by_path], [each for each in by_path if each.path in order[:MOST_BARS]]
        text = importance_text(bars, names)
        yield figure("importance", shares, text, lambda canvas: drawing.importance(canvas, bars, names), MOST_BARS)


def _most_important_first(found: Findings, by_path: Sequence[Importance]) -> list[str]:
    """As the space has them, where nothing is known of their importance."""
    first = next(iter(found.objectives))
    shares = {each.path: each.fanova or 0.0 for each in by_path if each.objective == first}
    return sorted(found.varying, key=lambda path: -shares.get(path, 0.0))
