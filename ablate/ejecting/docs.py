"""Docstrings of the classes that are written: what a block's own says, less what is not true of the code here.

A block's docstring speaks of its options; of those the file has one choice each. So a docstring is its first sentence
and its source; the source alone, where that sentence speaks of a choice, or of a part that this class has not; and the
formula only where no branch of the code was left out.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection

from ablate.block import Block

_CHOICES = re.compile(r"\b(or|if|unless|optional|optionally|may|those on)\b|``|:func:")
_CLAIMS = {
    "dropout": {"dropout"},
    "normalis": {"batch_norm", "layer_norm", "group_norm", "instance_norm"},
    "norm first": {"batch_norm", "layer_norm", "group_norm", "instance_norm"},
    "activation": {"act"},
    "squeeze-and-excitation": {"se"},
}
"""Words of a composite's docstring, and the blocks of which it must hold one for them to be true."""


def of_class(kind: type, folded: bool) -> str:
    """The docstring of a module's class, or of a block's file; ``folded``: branches of its code were left out."""
    of_file = getattr(inspect.getmodule(kind), "__doc__", None) if issubclass(kind, Block) else None
    for text in (kind.__dict__.get("__doc__"), of_file):
        if text:
            first, *rest = inspect.cleandoc(text).split("\n\n")
            formula = rest[:1] if rest and rest[0].startswith(" ") and "``" not in rest[0] and not folded else []
            return "\n\n".join([line for line in [_honest(first)] if line] + formula)
    return ""


def of_composite(summary: str, blocks: Collection[str]) -> str:
    """The docstring of a composite that holds these blocks."""
    return _honest(
        summary,
        *(word for word, needed in _CLAIMS.items() if needed.isdisjoint(blocks)),
    )


def _honest(text: str, *untrue: str) -> str:
    said, source = _parts(text)
    if _CHOICES.search(said) or any(word in said.lower() for word in untrue):
        return f"After {source}." if source else ""
    return f"{said}: {source}." if source else f"{said}."


def _parts(text: str) -> tuple[str, str]:
    """A docstring's first sentence without its source, and the source: authors, year, and number of the paper."""
    first = re.split(r"(?<=[^\s.])[.;]\s+(?=[A-Z])|;\s", text.strip())[0].rstrip(".")
    said, colon, source = first.rpartition(": ")
    return (said, source) if colon and re.search(r"\b(19|20)\d\d\b", source) else (first, "")


def with_shapes(doc: str, shapes: Collection[str]) -> str:
    """A docstring with lines that say what goes in and comes out."""
    return "\n\n".join(part for part in (doc, "\n".join(shapes)) if part)
