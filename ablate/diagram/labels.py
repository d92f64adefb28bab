"""What boxes and frames say, line by line."""

from __future__ import annotations

from ablate.diagram.folding import Box, Frame

LONGEST = 46
"""Characters of a line in a box; a longer one is cut, and whole in the box's tooltip."""


def shortened(text: str, most: int = LONGEST) -> str:
    """The beginning and the end of a long text."""
    if len(text) <= most:
        return text
    head = (most - 1) * 2 // 3
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def texts(box: Box) -> list[str]:
    """What a box says, its title first."""
    marks = {"added": "+ ", "removed": "− ", "changed": "≠ ", "same": ""}
    times = f"  ×{box.times}" if box.times > 1 else ""
    title = shortened(box.title, LONGEST - 6)
    return [f"{marks[box.state]}{title}{times}", *(shortened(line) for line in box.lines)]


def frame_title(frame: Frame) -> str:
    return shortened(frame.title) + (f"  ×{frame.times}" if frame.times > 1 else "")
