"""A figure as it is handed on: its numbers, the sentences that say what it shows, and its images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ablate.figures.canvas import Images


@dataclass(frozen=True)
class Figure:
    """``numbers`` are JSON data, of all that is drawn and, where that would not fit, of more.

    ``text`` says in a few sentences what is to be seen, for captions and for who can't see it. Where elements of the
    SVG have ids of their own, ``numbers["hover"]`` has for each id what that element stands for.
    """

    name: str
    numbers: Any
    images: Images
    text: str
