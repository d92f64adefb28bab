"""Durations and sizes as a person writes them: ``1h30m``, ``4GiB``. Never a bare number, whose unit is a guess."""

from __future__ import annotations

import re

_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_BINARY = {f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", start=1)}
_BYTES = {"B": 1, **{f"{prefix}B": 1000**power for power, prefix in enumerate("kMGT", start=1)}, **_BINARY}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
DURATION = "^(?=.)" + "".join(f"(?:{_NUMBER}{unit})?" for unit in _SECONDS) + "$"
"""What a duration looks like, in a pattern that a JSON Schema takes: each unit once at most, from the longest down."""
SIZE = f"^{_NUMBER}(?:{'|'.join(_BYTES)})$"


def duration(text: str) -> float:
    """``1h30m`` → 5400.0 seconds. ``ValueError`` where it is no duration, or none at all."""
    if re.fullmatch(_NUMBER, text):
        raise ValueError(f"'{text}' has no unit; {text}s, {text}m or {text}h")
    if not re.fullmatch(DURATION, text):
        raise ValueError(f"'{text}' is no duration; such as 45s, 30m, 1h30m or 2d")
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in re.findall(f"({_NUMBER})(.)", text))
    if seconds == 0:
        raise ValueError(f"'{text}' is no time at all")
    return seconds


def size(text: str) -> int:
    """``4GiB`` → 4294967296 bytes. ``ValueError`` where it is no size, or none at all."""
    if re.fullmatch(_NUMBER, text):
        raise ValueError(f"'{text}' has no unit; {text}MiB or {text}GiB")
    if not re.fullmatch(SIZE, text):
        raise ValueError(f"'{text}' is no size; such as 500MB, 4GiB or 1.5GiB")
    ((number, unit),) = re.findall(f"({_NUMBER})(.+)", text)
    count: int = round(float(number) * _BYTES[unit])
    if count == 0:
        raise ValueError(f"'{text}' is nothing at all")
    return count


def duration_text(seconds: float) -> str:
    """5400 → ``1h30m``: to the second, without the units that are 0."""
    left, parts = round(seconds), []
    for unit, worth in _SECONDS.items():
        count, left = divmod(left, worth)
        parts += [f"{count}{unit}"] if count else []
    return "".join(parts) or "0s"


def size_text(count: float) -> str:
    """1610612736 → ``1.5 GiB``: bytes, in the largest binary unit of which there is one."""
    unit, worth = "B", 1
    for larger, bytes_in_it in _BINARY.items():
        if count >= bytes_in_it:
            unit, worth = larger, bytes_in_it
    return f"{count / worth:.1f}".removesuffix(".0") + f" {unit}"
