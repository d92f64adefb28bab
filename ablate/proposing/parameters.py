"""The dimensions of a grid as Optuna's parameters, and back.

A choice is a categorical parameter of its labels, so that the journal can be read; numbers are numbers; each part of a
text is a parameter of its own, ``network.insert.attention.at$stages``, so that what is learnt of one holds for all
texts that have it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from ablate.space import Chosen, Dimension, Grid, Point


class Parameters:
    """Names and distributions. What is drawn of a parameter is its external value: a label or a number."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.of = {dimension.path: _distributions(dimension) for dimension in grid.dimensions}
        self.all = {name: found for each in self.of.values() for name, found in each.items()}

    @property
    def ranges(self) -> dict[str, BaseDistribution]:
        """The numbers among them that vary at every point."""
        always = {dimension.path for dimension in self.grid.dimensions if not dimension.conditions}
        return {
            name: found
            for name, found in self.all.items()
            if name in always and not isinstance(found, CategoricalDistribution) and not found.single()
        }

    def point(self, value: Callable[[str], Any]) -> Point:
        """The point where the parameters, asked for by name and only those that are active, have these values."""
        return self.grid.settled(lambda dimension: self._chosen(dimension, value))

    def values(self, point: Point) -> dict[str, Any]:
        """The values of the parameters that are active at a point."""
        found: dict[str, Any] = {}
        for dimension, chosen in zip(self.grid.dimensions, point, strict=True):
            if chosen is not None:
                found |= _values(dimension, chosen)
        return found

    def _chosen(self, dimension: Dimension, value: Callable[[str], Any]) -> Chosen:
        if dimension.span is not None:
            return float(value(dimension.path))
        if dimension.numbers is not None:
            steps: float = (value(dimension.path) - dimension.numbers.low) / dimension.numbers.step
            return round(steps)
        chosen = 0
        for name, found in self.of[dimension.path].items():
            assert isinstance(found, CategoricalDistribution)
            chosen = chosen * len(found.choices) + found.choices.index(value(name))
        return chosen


def only(distribution: BaseDistribution) -> Any:
    """The one value of a distribution that has no other."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return distribution.low


def _distributions(dimension: Dimension) -> dict[str, BaseDistribution]:
    path, span, numbers = dimension.path, dimension.span, dimension.numbers
    if span is not None:
        return {path: FloatDistribution(span.low, span.high, log=span.log)}
    if numbers is not None and numbers.whole:
        low, high, step = int(numbers.low), int(numbers.high), int(numbers.step)
        return {path: IntDistribution(low, high, log=numbers.log, step=step)}
    if numbers is not None:
        return {path: FloatDistribution(numbers.low, numbers.high, step=numbers.step)}
    if dimension.parts:
        return {f"{path}${part.name}": CategoricalDistribution(part.labels) for part in dimension.parts}
    return {path: CategoricalDistribution([option.label for option in dimension.options])}


def _values(dimension: Dimension, chosen: Chosen) -> dict[str, Any]:
    if dimension.span is not None or dimension.numbers is not None:
        return {dimension.path: dimension.option(chosen).value}
    if not dimension.parts:
        return {dimension.path: dimension.options[int(chosen)].label}
    found = {}
    rest = int(chosen)
    for index, part in enumerate(dimension.parts):
        below = prod(len(later.labels) for later in dimension.parts[index + 1 :])
        found[f"{dimension.path}${part.name}"] = part.labels[rest // below]
        rest %= below
    return found


def differing(written: Mapping[str, BaseDistribution], parameters: Parameters) -> list[str]:
    """The parameters of a recorded trial that this space has otherwise, or not at all."""
    return [name for name, found in written.items() if parameters.all.get(name) != found]
