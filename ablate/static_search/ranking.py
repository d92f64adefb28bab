"""Which networks are the best: the order of the table, and the front."""

from __future__ import annotations

from collections.abc import Mapping

from ablate.static_search.values import Found

Key = tuple[float, ...]
"""A network's objectives, each so that less is better."""


def ranked(kept: list[Found], objectives: Mapping[str, str]) -> list[Found]:
    """The best first: of one objective in its order, of several first those on the front. Ties stay in order.

    Sorted by the objectives in turn, whatever is better than a network in all respects stands before it.
    """
    if not objectives:
        return kept

    def key(each: Found) -> Key:
        return tuple(each[m] if way == "minimize" else -each[m] for m, way in objectives.items())

    ordered = sorted(kept, key=key)
    front = _Front()
    for each in ordered:
        each.on_front = front.takes(key(each))
    return sorted(ordered, key=lambda each: not each.on_front)


class _Front:
    """What nothing so far is better than, of what comes sorted."""

    def __init__(self) -> None:
        self._members: list[Key] = []

    def takes(self, own: Key) -> bool:
        last = self._members[-1:]
        if last == [own]:
            return True
        # Of two objectives, the last of the front is the best so far in the second.
        beaten = any(_dominates(other, own) for other in (last if len(own) < 3 else self._members))
        if not beaten:
            self._members.append(own)
        return not beaten


def _dominates(one: Key, other: Key) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
