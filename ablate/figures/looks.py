"""What tells variants apart in a figure: colour, dashes and marks, so that two of them do where the third is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ablate.figures.canvas import BLACK, BLUE, VERMILION


@dataclass(frozen=True)
class Look:
    """One of eight, of which none looks like another in grey or to the colour-blind."""

    color: str
    dashes: Any
    marker: str

    def line(self) -> dict[str, Any]:
        """As matplotlib takes it."""
        return {
            "color": self.color,
            "linestyle": self.dashes,
            "marker": self.marker,
            "markersize": 3.2,
            "markerfacecolor": "white",
            "markeredgewidth": 0.8,
            "linewidth": 1.1,
        }


LOOKS = (
    Look(BLACK, "-", "o"),
    Look(BLUE, (0, (5, 1.5)), "s"),
    Look(VERMILION, (0, (3, 1, 1, 1)), "^"),
    Look("#009E73", (0, (1, 1)), "D"),
    Look("#CC79A7", (0, (8, 2)), "v"),
    Look("#E69F00", (0, (5, 1, 1, 1, 1, 1)), "P"),
    Look("#56B4E9", (0, (2, 2)), "X"),
    Look("#8c8c8c", (0, (1, 3)), "*"),
)
"""The first is the baseline's, where there is one."""


def looks_of(names: Sequence[str], baseline: str | None) -> dict[str, Look]:
    """For as many names as there are looks."""
    ordered = sorted(names, key=lambda name: name != baseline)
    return dict(zip(ordered, LOOKS, strict=False))
