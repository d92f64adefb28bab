"""A contract as rules: each says what is broken, in sentences, and all that is broken is said at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Case = TypeVar("Case")
Rule = Callable[[Case], Iterable[str]]
"""Given a case, the sentences that say what of it is broken."""


class ContractError(AssertionError):
    """``broken``: what does not hold, a sentence each."""

    def __init__(self, what: str, broken: Iterable[str]) -> None:
        self.broken = list(dict.fromkeys(broken))
        super().__init__("\n  ".join([f"{what} breaks its contract:", *self.broken]))


def broken_of(rules: Iterable[Rule[Case]], case: Case) -> Iterator[str]:
    """What the rules say of a case; a rule that raises says that it did."""
    for rule in rules:
        try:
            yield from rule(case)
        except Exception as error:  # whatever a stranger's code raises
            first = str(error).strip().split("\n", 1)[0]
            yield f"{rule.__name__.strip('_').replace('_', ' ')}: raises {type(error).__name__}: {first}"
