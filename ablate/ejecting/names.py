"""Names of classes, from names in a spec."""

from __future__ import annotations


def camel(name: str, known: str = "") -> str:
    """A class's name: the Python class's own where that is the block's, else the words of the name."""
    if known.replace("_", "").lower() == name.replace("_", "").lower():
        return known.lstrip("_")
    words = [word for word in name.replace("#", "_").split("_") if word]
    joined = "".join(word[0].upper() + word[1:] for word in words).rstrip("0123456789")
    return joined if joined.isidentifier() and joined.isascii() else "Scope"
