"""A search's figures: the numbers of ``findings``, drawn by matplotlib as SVG and PNG.

``import ablate.figures`` is cheap: matplotlib is imported when something is drawn.
"""

from ablate.figures.search import Figure, search_figures

__all__ = ["Figure", "search_figures"]
