"""Many trials read at once: their results, what is damaged, and what the index can learn from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablate.store.index import BEGUN, Entry
from ablate.store.layout import TRIALS
from ablate.store.stamps import Stamp, checked_result
from ablate.store.states import TrialState, of_begun, of_result
from ablate.store.trial import TrialFolder


@dataclass
class Survey:
    """By hash: sound results, and why others are damaged; and the rows that the index has otherwise."""

    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)
    learnt: list[Entry] = field(default_factory=list)


def survey(study: Path, hashes: Iterable[str], rows: Mapping[str, Entry]) -> Survey:
    """Read the results of these trials, and those of their files whose stamps are not those of the ``rows``."""
    found = Survey()
    for hash in hashes:
        folder, row = study / TRIALS / hash, rows.get(hash)
        known = row.stamps if row else {}
        seen: dict[str, Stamp] = {}
        try:
            result = checked_result(folder, hash, known, seen)
        except (OSError, ValueError) as error:
            found.damaged[hash] = str(error)
            if row is None or row.state.status != "damaged":
                found.learnt.append(Entry(TrialState(hash, "damaged", error=str(error))))
            continue
        if result is not None:
            found.results[hash] = result
            if row is None or seen != known:
                found.learnt.append(entry_of(hash, result, seen))
        elif row is None:
            state = of_begun(TrialFolder(folder, hash), BEGUN, 0)
            found.learnt += [Entry(state)] if state.status == BEGUN else []
    return found


def entry_of(hash: str, result: Mapping[str, Any], stamps: dict[str, Stamp]) -> Entry:
    """The row of a trial with this result."""
    metrics = result.get("metrics")
    numbers = {name: value for name, value in (metrics or {}).items() if isinstance(value, int | float)}
    return Entry(of_result(hash, result), stamps, numbers)
