"""A parameter of a network at which the network costs as much as wanted.

Widths are whole numbers, so that a network's cost rises in steps as its multiplier does. Which values of the parameter
make one network, a *step*, is known by what the network's expressions come to; only what a step costs takes a network.
Where widths round (``round(16*$k)``) every value is sound, and those of four decimals are looked at; where they don't
(``16*$k``) only some are, such as the sixteenths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ablate.expression import evaluate, is_expression, names_in

DECIMALS = 10_000
MOST_PARTS = 1024
"""Of a unit of the parameter, where not every value is sound."""
FARTHEST = 64
"""How many times the value as written, or what part of it, is still looked at."""
MOST_UNSOUND = 64
"""Steps in a row that can't be built before a search gives up: heads that have to divide a width leave gaps."""

Number = int | float
Reading = tuple[Any, ...]
CostAt = Callable[[Number], int | None]
"""A value of the parameter → what the network costs with it; ``None`` where there is no such network."""


class UnchangedError(ValueError):
    """The cost does not hang on the parameter."""


@dataclass(frozen=True)
class Match:
    """A value of the parameter, and what the network costs with it."""

    value: Number
    cost: int


def off_by(reached: int, wanted: int) -> str:
    """How far a count is from the one that was wanted: ``+0.099%``, ``−2.4%``, ``exactly``."""
    return f"{100 * (reached / wanted - 1):+.2g}%".replace("-", "−") if reached != wanted else "exactly"


class Steps:
    """The values of one parameter of a network's section, by index: neighbours that make one network are one step.

    ``section`` has ``params`` with ``name`` among them; ``known`` are the names that are there without being declared.
    """

    def __init__(self, section: Mapping[str, Any], name: str, known: Mapping[str, Number]) -> None:
        self._name = name
        self._params = {**known, **section["params"]}
        self.written: Number = self._evaluated()[name]
        self._texts = self._hanging(section)
        reading = self._reading(self.written) or ()
        self._readings: dict[int, Reading | None] = {}
        self._whole = [isinstance(value, int) for value in reading]
        self.parts = next((parts for parts in (DECIMALS, *range(MOST_PARTS, 0, -1)) if self._is_sound(parts)), 0)
        """Of a unit; values are whole multiples of one part. 0 where none but the value as written is sound."""
        self.start = max(1, round(self.written * self.parts))

    def value(self, index: int) -> Number:
        return index // self.parts if index % self.parts == 0 else index / self.parts

    def at(self, index: int) -> Reading | None:
        """What the expressions come to; ``None`` where one is not whole that should be, or can't be evaluated."""
        if index not in self._readings:
            self._readings[index] = self._sound_reading(self.value(index))
        return self._readings[index]

    def span(self, index: int) -> tuple[int, int]:
        """The first and the last index of a step."""
        return self._edge(index, -1), self._edge(index, 1)

    def plainest(self, index: int) -> int:
        """Of a step's values the one with the fewest decimals, and of these the one nearest to its middle."""
        first, last = self.span(index)
        middle = (first + last) / 2
        unit = self.parts if self.parts == DECIMALS else 1
        while unit > 1 and -(-first // unit) * unit > last:
            unit //= 10
        found = round(middle / unit) * unit
        return found if first <= found <= last else -(-first // unit) * unit

    def _edge(self, index: int, way: int) -> int:
        here, inside, gap = self.at(index), index, 1
        most = max(index, self.start) * 2
        while 1 <= inside + way * gap <= most and self.at(inside + way * gap) == here:
            inside, gap = inside + way * gap, gap * 2
        while gap > 1:
            gap //= 2
            if 1 <= inside + way * gap <= most and self.at(inside + way * gap) == here:
                inside += way * gap
        return inside

    def _is_sound(self, parts: int) -> bool:
        first = math.floor(self.written * parts) + 1
        return all(self._sound_reading(index / parts) is not None for index in (first, first + 1))

    def _sound_reading(self, value: Number) -> Reading | None:
        """What is whole as written has to be whole."""
        reading = self._reading(value)
        if reading is None or any(self._whole[place] and not isinstance(v, int) for place, v in enumerate(reading)):
            return None
        return reading

    def _hanging(self, section: Mapping[str, Any]) -> list[tuple[str, bool]]:
        """The expressions that hang on this parameter, those of others aside, and whether all that they read is known.

        A composite sees none but its own parameters.
        """
        hanging = {self._name}
        for name, value in section["params"].items():
            if names_in(value) & hanging:
                hanging.add(name)
        rest = {key: value for key, value in section.items() if key not in ("params", "blocks")}
        texts = dict.fromkeys(text for text in _expressions(rest) if names_in(text) & hanging)
        return [(text, names_in(text) <= self._params.keys()) for text in texts]

    def _evaluated(self, value: Number | None = None) -> dict[str, Any]:
        """Every name's value, with another value of this one if it is given."""
        found: dict[str, Any] = {}
        for name, written in self._params.items():
            if name == self._name and value is not None:
                found[name] = value
            else:
                found[name] = evaluate(written, found) if is_expression(written) else written
        return found

    def _reading(self, value: Number) -> Reading | None:
        """One that also reads what only a place knows (``$in``) may differ between any two values of the parameter."""
        try:
            names = self._evaluated(value)
            return tuple(evaluate(text, names) if known else float(value) for text, known in self._texts)
        except ValueError:
            return None


def _expressions(value: Any) -> Iterator[str]:
    if is_expression(value):
        yield value
    items: Iterable[Any] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        yield from _expressions(item)


def nearest(steps: Steps, cost_at: CostAt, wanted: int) -> list[Match]:
    """The steps next to what is wanted, the nearest first: one below and one above it, or one where there is no other.

    Cost is taken to rise all the way with the parameter, or to fall. ``UnchangedError`` where it does neither; no match
    at all where no network can be built with another value.
    """
    search = _Search(steps, cost_at, wanted)
    low, high = search.around()
    if low is not None and high is not None:
        low, high = search.closed(low, high)
    found = [Match(steps.value(index), search.cost(index)) for index in dict.fromkeys((low, high)) if index is not None]
    return sorted(found, key=lambda match: (abs(match.cost - wanted), match.cost))


class _Search:
    """Looks for the two steps, by their indices, between which the wanted cost lies."""

    def __init__(self, steps: Steps, cost_at: CostAt, wanted: int) -> None:
        self.steps, self.cost_at, self.wanted = steps, cost_at, wanted
        self._known: dict[int, int | None] = {}
        self.sign = 1

    def around(self) -> tuple[int | None, int | None]:
        """An index below what is wanted and one above it, each ``None`` where there is none within reach."""
        start = self._sound(self.steps.start, 1) if self.steps.parts else None
        self.sign = 0 if start is None else self._sign(start)
        if start is None or self.sign == 0:
            return None, None
        return self._above(start) if self._gap(start) < 0 else self._below(start)

    def _above(self, start: int) -> tuple[int, int | None]:
        low = start
        while (high := self._sound(low * 2, 1)) is not None and high <= start * FARTHEST:
            if self._gap(high) >= 0:
                return low, high
            low = high
        return low, None

    def _below(self, start: int) -> tuple[int | None, int]:
        high = start
        while self._gap(high) > 0:
            half = max(high // 2, 1)
            low = self._sound(half, -1) or self._sound(half, 1)
            if low is None or low >= high or low < start / FARTHEST:
                return None, high
            if self._gap(low) <= 0:
                return low, high
            high = low
        return high, high

    def closed(self, low: int, high: int) -> tuple[int, int]:
        """The two without a sound step between them: by what a power law between both says, and by halves at times."""
        turn = 0
        while low != high:
            first, last = self.steps.span(low)[1] + 1, self.steps.span(high)[0] - 1
            turn += 1
            guess = (first + last) // 2 if turn % 3 == 0 else self._guess(low, high)
            middle = self._between(min(max(guess, first), last), first, last) if first <= last else None
            if middle is None:
                break
            if self._gap(middle) == 0:
                return middle, middle
            low, high = (middle, high) if self._gap(middle) < 0 else (low, middle)
        return low, high

    def cost(self, index: int) -> int:
        found = self._cost(index)
        assert found is not None
        return found

    def _cost(self, index: int) -> int | None:
        if index not in self._known:
            self._known[index] = None if self.steps.at(index) is None else self.cost_at(self.steps.value(index))
        return self._known[index]

    def _gap(self, index: int) -> int:
        return self.sign * (self.cost(index) - self.wanted)

    def _sign(self, start: int) -> int:
        """1 where the cost rises with the parameter, -1 where it falls, 0 where there is no other network."""
        others = [self._sound(start * 2, 1), self._sound(start // 2, -1)]
        for other in others:
            if other is not None and self.cost(other) != self.cost(start):
                return 1 if (self.cost(other) > self.cost(start)) == (other > start) else -1
        if others == [None, None]:
            return 0
        raise UnchangedError(f"{self.cost(start):,} whatever the value")

    def _guess(self, low: int, high: int) -> int:
        below, above = self.cost(low), self.cost(high)
        if min(below, above, self.wanted) <= 0 or below == above:
            return (low + high) // 2
        share = math.log(self.wanted / below) / math.log(above / below)
        return round(math.exp(math.log(low) + share * math.log(high / low)))

    def _sound(self, index: int, way: int) -> int | None:
        """The first step from ``index`` on, that way, of which there is a network."""
        for _ in range(MOST_UNSOUND):
            if index < 1:
                return None
            plainest = self.steps.plainest(index)
            if self._cost(plainest) is not None:
                return plainest
            index = self.steps.span(index)[way > 0] + way
        return None

    def _between(self, guess: int, first: int, last: int) -> int | None:
        """The sound step nearest to a guess, of those from ``first`` to ``last``."""
        below, above = guess, self.steps.span(guess)[1] + 1
        for _ in range(MOST_UNSOUND):
            for index in (below, above):
                if first <= index <= last and self._cost(plainest := self.steps.plainest(index)) is not None:
                    return plainest
            below = self.steps.span(below)[0] - 1 if below >= first else below
            above = self.steps.span(above)[1] + 1 if above <= last else above
        return None
