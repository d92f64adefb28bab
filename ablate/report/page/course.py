"""When a study ran, and what its training took."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ablate.analysis.arms import Arm
from ablate.report.captions import counted
from ablate.store import Study

HOUR = 3600.0


def course(study: Study, arms: Sequence[Arm]) -> list[tuple[str, str]]:
    """Its first sweep, the end of its last trial, and the time of all its trials: what of it is on record."""
    results = {arm.record["trials"][seed]: result for arm in arms for seed, result in arm.results.items()}
    began, ended = _dates(_events(study))
    return [(term, text) for term, text in (("Began", began), ("Last trial ended", ended), _compute(results)) if text]


def _events(study: Study) -> Iterator[Mapping[str, Any]]:
    offset, after = 0, -1
    while offset != after:
        after = offset
        events, offset = study.events(offset)
        yield from events


def _dates(events: Iterable[Mapping[str, Any]]) -> tuple[str, str]:
    """Of the first event, and of the last one that ended a trial; empty where none is on record."""
    first, ended = "", ""
    for event in events:
        time = event.get("time")
        if isinstance(time, str):
            first = first or time
            ended = time if event.get("event") == "ended" else ended
    return _minute(first), _minute(ended)


def _minute(time: str) -> str:
    """``2026-11-22T20:19:25.860+00:00`` as far as its minute; of another form, as it is."""
    return f"{time[:10]} {time[11:16]} UTC" if time[10:11] == "T" and time.endswith("+00:00") else time


def _compute(results: Mapping[str, Mapping[str, Any] | None]) -> tuple[str, str]:
    seconds = [result["seconds"] for result in results.values() if result and _is_number(result.get("seconds"))]
    if not seconds:
        return "Compute", ""
    total = sum(seconds)
    amount = f"{total / HOUR:,.2f} hours" if total >= HOUR / 10 else f"{total:,.1f} seconds"
    return "Compute", f"{amount}: the seconds of {len(seconds):,} of {counted(f'{len(results):,}', 'trial')}, added up"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
