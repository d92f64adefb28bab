"""From a search's study folder to its findings: proposals and results, each trial once."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ablate.findings.ranking import ranked
from ablate.findings.values import Findings, Trial
from ablate.store import Study


def is_search(study: Study) -> bool:
    """Whether the study's trials were proposed by a search."""
    return isinstance(study.spec.get("search"), dict)


def findings_of(study: Study) -> Findings:
    """What the folder says now of the search; ``ValueError`` where the study is none."""
    if not is_search(study):
        raise ValueError(f"{study.folder} is no search")
    search = study.spec["search"]
    proposals = sorted(study.proposals(), key=lambda record: int(record["number"]))
    trials = _trials(study, [record for record in proposals if record["outcome"] == "trained"])
    best, on_front = ranked(trials, search.get("objectives") or {})
    return Findings(
        spec=str(study.spec.get("name") or study.folder.name),
        search=search,
        paths=tuple(_varying(proposals, search.get("space") or {})),
        trials=tuple(trials),
        ranked=best,
        on_front=on_front,
        outcomes=Counter(record["outcome"] for record in proposals),
        broken=Counter(
            metric
            for record in proposals
            if record["outcome"] == "rejected"
            for metric in dict.fromkeys(record.get("broken") or ["another reason"])
        ),
        reasons={
            outcome: Counter(str(record.get("why") or "") for record in proposals if record["outcome"] == outcome)
            for outcome in ("impossible", "uncertified", "filtered")
        },
        out_of_reach=_out_of_reach(proposals, search.get("constraints") or {}),
    )


def _out_of_reach(proposals: Sequence[Mapping[str, Any]], constraints: Mapping[str, Any]) -> dict[str, float]:
    """The constraints that none keeps, of those that were looked at: metric → the nearest value."""
    found = {}
    for metric, bound in constraints.items():
        told: list[Any] = [(record.get("known") or {}).get(metric) for record in proposals]
        values = [float(value) for value in told if _is_number(value) and math.isfinite(value)]
        nearest = min(values, key=lambda value: _excess(bound, value), default=None)
        if nearest is not None and _excess(bound, nearest) > 0:
            found[metric] = nearest
    return found


def _excess(bound: Mapping[str, float], value: float) -> float:
    """By how much it breaks the bound; at most 0 where it keeps it."""
    if "near" in bound:
        return abs(value - bound["near"]) - bound["within"]
    return max(value - bound.get("max", math.inf), bound.get("min", -math.inf) - value)


def _trials(study: Study, proposals: list[dict[str, Any]]) -> list[Trial]:
    hashes = [record["trial"] for record in proposals]
    results = study.results(hashes)
    fates = {hash: str(result["status"]) for hash, result in results.items()}
    if len(results) < len(set(hashes)):
        # one that ends between these two readings counts as running
        states = study.states()
        fates = {hash: states[hash].status if hash in states else "waiting" for hash in hashes} | fates
        epochs = {hash: state.epochs for hash, state in states.items()}
    else:
        epochs = {}
    planned = (study.spec.get("train") or {}).get("epochs")
    return [_trial(record, results.get(record["trial"]), fates, epochs, planned) for record in proposals]


def _trial(
    record: Mapping[str, Any],
    result: Mapping[str, Any] | None,
    fates: Mapping[str, str],
    epochs: Mapping[str, int],
    planned: int | None,
) -> Trial:
    variant, hash = record["variant"], record["trial"]
    known = {**(variant.get("cost") or {}), **(record.get("known") or {})}
    measured = {**(result.get("metrics") or {}), "seconds": result.get("seconds")} if result is not None else {}
    return Trial(
        number=record["number"],
        name=record["name"],
        hash=hash,
        labels={path: str(label) for path, label in (record.get("levels") or {}).items() if label is not None},
        values=record.get("values") or {},
        status=fates[hash],
        metrics={name: value for name, value in {**measured, **known}.items() if _is_number(value)},
        epochs=(result.get("epochs") if result is not None else epochs.get(hash)) or 0,
        planned=variant.get("epochs") or planned or 0,
    )


def _varying(proposals: Iterable[Mapping[str, Any]], space: Mapping[str, Any]) -> Iterable[str]:
    """All paths that a proposal sets: those that the space names in its order, then the others as they came."""
    found = dict.fromkeys(path for record in proposals for path in record.get("levels") or {})
    return [*(path for path in space if path in found), *(path for path in found if path not in space)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
