"""What a sampler has to know of a path's values beside their list: that they are numbers, or parts of a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ablate.design.levels import label_of
from ablate.space.distributions import Distribution, Option, Real, Text, Whole


@dataclass(frozen=True)
class Span:
    """A range without steps: any number from ``low`` to ``high``, both included."""

    low: float
    high: float
    log: bool


@dataclass(frozen=True)
class Numbers:
    """Numbers in equal steps: option i is ``low + i * step``."""

    low: float
    high: float
    step: float
    whole: bool
    log: bool


@dataclass(frozen=True)
class Part:
    """A part of a text, and its values. The options of the text are their product: the last part varies fastest."""

    name: str
    labels: tuple[str, ...]


def span_of(distribution: Distribution) -> Span | None:
    if not isinstance(distribution, Real) or distribution.step is not None:
        return None
    low, high = distribution.bounds
    return Span(low, high, distribution.log)


def numbers_of(distribution: Distribution) -> Numbers | None:
    if not isinstance(distribution, Whole | Real) or distribution.count is None:
        return None
    low, high = distribution.bounds
    return Numbers(low, high, distribution.step or 1, isinstance(distribution, Whole), distribution.log)


def parts_of(distribution: Distribution) -> tuple[Part, ...]:
    if not isinstance(distribution, Text):
        return ()
    return tuple(
        Part(name, tuple(option.label for option in distinct(part.options())))
        for name, part in distribution.parts.items()
    )


def distinct(options: Iterable[Option]) -> list[Option]:
    """The options, those whose labels are alike with the values as JSON: ``{k: 8}`` and ``{k: '8'}``."""
    listed = list(options)
    counts = Counter(option.label for option in listed)
    return [replace(option, label=label_of(option.value)) if counts[option.label] > 1 else option for option in listed]
