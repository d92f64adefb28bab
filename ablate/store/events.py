"""The log of a study's sweeps: a line each time that something happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ablate.store.records import parse_lines, regular

MOST = 8 * 1024 * 1024
"""Bytes that are read at once. No event is that long."""


def read_events(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """The complete lines from that byte on, and the byte at which to go on. What is no event is left out.

    Of a long log these are not all: who wants all reads on for as long as that byte is another one.
    A log that is shorter than that is another one, and read from its beginning.
    """
    try:
        with open(path, "rb", opener=regular) as file:
            if file.seek(0, 2) < offset:
                offset = 0
            file.seek(offset)
            content = file.read(MOST)
    except OSError:  # none there, or no file
        return [], 0
    end = content.rfind(b"\n") + 1
    if end or len(content) < MOST:
        content = content[:end]
    return parse_lines(content)[0], offset + len(content)
