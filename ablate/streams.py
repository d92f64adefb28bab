"""Random numbers by name: every stream is seeded from what it is for, and from nothing else.

``generator("augment", seed, epoch)`` gives the same numbers whatever was drawn before it, on whatever
machine: inserting a block, or one more worker, shifts no stream but its own.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def stream_seed(*parts: str | int) -> int:
    """A seed in [0, 2⁶³) from the sha256 of the parts, in their order.

    Each part goes in with its type and its length, so that ``("ab", "c")``, ``("a", "bc")``, ``(1,)`` and ``("1",)``
    are four streams. ``TypeError`` for anything but text and whole numbers: the text of a float, or
    of a ``True``, is not a name to rely on.
    """
    if not parts:
        raise TypeError("a stream needs at least one part to its name")
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, str | int):
            raise TypeError(f"a stream is named by text and whole numbers, not by {part!r}")
        encoded = str(part).encode()
        kind = "s" if isinstance(part, str) else "i"
        digest.update(f"{kind}{len(encoded)}:".encode() + encoded)
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def generator(*parts: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A fresh generator for the stream of that name. A device's numbers differ from the CPU's."""
    import torch

    return torch.Generator(device=device).manual_seed(stream_seed(*parts))
