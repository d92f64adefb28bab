"""Figures of a study and of a search: numbers first, then drawn by matplotlib as SVG and PNG.

``import ablate.figures`` is cheap: matplotlib is imported when something is drawn.
"""

from ablate.figures.figure import Figure
from ablate.figures.search import search_figures
from ablate.figures.study import study_figures

__all__ = ["Figure", "search_figures", "study_figures"]
