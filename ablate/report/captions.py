"""What stands beneath the ablation table: what its numbers stand on, and what they are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from ablate.analysis.arms import Arm
from ablate.analysis.comparisons import best_of
from ablate.analysis.widths import Until, is_complete, look
from ablate.errors import listed
from ablate.outcomes import FAILED, RESULTS, STATES
from ablate.quantities import COSTS
from ablate.report.papers import COST_VERDICTS, Published
from ablate.report.seeding import coverage_text, look_text, rule_text
from ablate.store import EXPOSURES, Study

BEST = "its paired differences to all others exclude 0, at 95% for all of them together"
INTERVALS = {"t": "t-interval", "bootstrap": "bootstrap interval (BCa)"}


def caption(study: Study, arms: list[Arm], shown: list[str], compared: str | None) -> str:
    said = setting(study, arms)
    kind = INTERVALS[(study.spec.get("report") or {}).get("interval", "t")]
    if any(name not in COSTS for name in shown):
        about = "± is half the" if kind == INTERVALS["t"] else "In brackets the"
        said.append(f"{about} 95% {kind} over seeds (n: how many, where not all); the sampling of images is not in it")
    if compared and any(arm.baseline is not None for arm in arms):
        said.append(f"Δ is variant minus baseline, paired by seed, with its 95% {kind}, not corrected for their number")
    if compared and any(arm.control_of is not None for arm in arms):
        said.append("Δ at equal cost is variant minus the baseline that is as expensive (its control), in the same way")
    best = best_of(compared, arms) if compared else None
    if best is not None:
        said.append(f"In bold the best {compared}, {best.name}: {BEST}")
    return sentences([*said, seeds_text(study, arms)])


def seeds_text(study: Study, arms: list[Arm]) -> str:
    """By which rule the seeds came where the spec leaves their number open, and whether the rule was content."""
    until = Until.of(study.spec)
    if until is None:
        return ""
    seen = look(until, arms)
    compared = any(arm.baseline is not None for arm in arms)
    so_far = "" if is_complete(study, arms) else ", so far"
    rule = "; ".join(filter(None, [rule_text(until, compared=compared), coverage_text(until)]))
    return f"{rule}. {look_text(seen)}{so_far}"


def setting(study: Study, arms: list[Arm]) -> list[str]:
    """On what was trained, and how."""
    said = [_profile_text(study), _data_text(study, arms), _budget_text(study), _training_text(study, arms)]
    return [*said, _numerics_text(study, arms)]


def sentences(said: Iterable[str]) -> str:
    """Each with its full stop; those that say nothing are left out."""
    return " ".join(f"{sentence.rstrip('.')}." for sentence in said if sentence)


def _profile_text(study: Study) -> str:
    return f"Profile {study.spec['profile']}" if study.spec.get("profile") else ""


def _data_text(study: Study, arms: list[Arm]) -> str:
    """What each variant's record says of its data: once, where all say the same."""
    said: dict[str, list[str]] = {}
    for arm in arms:
        if arm.record.get("data"):
            said.setdefault(str(arm.record["data"]), []).append(arm.name)
    if not said:
        return str((study.spec.get("data") or {}).get("name") or "")
    return "; ".join(text if len(said) == 1 else f"{text} ({listed(names)})" for text, names in said.items())


def _budget_text(study: Study) -> str:
    limit = (study.spec.get("data") or {}).get("limit") or {}
    parts = [f"{size:,} {split}" for split, size in limit.items() if size is not None]
    return f"Reduced budget: limit of {', '.join(parts)} images" if parts else ""


def _numerics_text(study: Study, arms: list[Arm]) -> str:
    """In which precision was trained, on what, and what else of the numerics could move a number."""
    numerics = study.spec.get("numerics") or {}
    said: dict[str, list[str]] = {}
    for arm in arms:
        if arm.record.get("precision"):
            said.setdefault(arm.record["precision"], []).append(arm.name)
    if not said or "compile" not in numerics:
        return ""
    precisions = [text if len(said) == 1 else f"{text} ({listed(names)})" for text, names in said.items()]
    return ", ".join(
        [
            f"Trained in {', '.join(precisions)} on {numerics['device']}",
            *(["compiled"] if numerics["compile"] else []),
            *(["deterministic"] if numerics["deterministic"] else []),
            *([f"each batch shared by {numerics['devices']} devices"] if numerics["devices"] > 1 else []),
        ]
    )


def _training_text(study: Study, arms: list[Arm]) -> str:
    train = study.spec.get("train") or {}
    trained = [
        result["epochs"] for arm in arms for result in arm.finished().values() if result.get("epochs") is not None
    ]
    planned = [arm.record.get("epochs", train.get("epochs")) for arm in arms]
    planned = [epochs for epochs in planned if epochs is not None]
    parts = [counted(_range(planned), "epoch")] if planned else []
    if trained and {*trained} != {*planned}:
        parts.append(f"finished trials took {_range(trained)}")
    parts.append(counted(_range([len(arm.results) for arm in arms]), "seed"))
    select = train.get("select", "last")
    chosen = {
        "last": "weights of the last epoch",
        "best": "weights of the best epoch on val",
        "ema": "averaged weights (ema)",
    }
    return "; ".join([*parts, chosen.get(str(select), f"weights: {select}")])


def footnotes(study: Study, arms: list[Arm], hidden: list[str], missing: int, papers: list[Published]) -> Iterable[str]:
    fates = Counter(fate for arm in arms for fate in arm.fates.values())
    if missing:
        of = f"{counted(missing, 'trial')} of {fates.total()} without a result"
        yield f"Not complete: {of}: {by_kind(fates, [state for state in STATES if state not in RESULTS])}."
    if failed := by_kind(fates, ("pruned", *FAILED)):
        yield f"In no mean, since they did not finish: {failed}."
    if hidden:
        when = "every trial has a result" if missing else "no more seeds are asked for"
        yield f"Hidden until {when}: {', '.join(hidden)}."
    yield from provenance(study, arms)
    if any(paper.metric not in COSTS for paper in papers):
        yield (
            "Verdict: reproduced if the published value lies in the 95% prediction interval for one more run (three "
            "seeds or more), differs if outside, inconclusive where the seeds are too few or do not vary."
        )
    if any(paper.metric in COSTS for paper in papers):
        yield COST_VERDICTS


def provenance(study: Study, arms: list[Arm]) -> Iterable[str]:
    """By which code, by which protocol, and how often the test split was read."""
    yield from _versions(arms)
    yield from _protocol(arms)
    yield _readings(study, arms)


def by_kind(fates: Counter[str], kinds: Sequence[str]) -> str:
    return ", ".join(f"{fates[kind]} {kind}" for kind in kinds if fates[kind])


def _versions(arms: list[Arm]) -> Iterable[str]:
    """Where the shown means are of trials by several versions; of older trials none is on record."""
    by_hash = {arm.record["trials"][seed]: result for arm in arms for seed, result in arm.finished().items()}
    codes: Counter[Any] = Counter(result.get("code") for result in by_hash.values())
    unknown = codes.pop(None, 0)
    if len(codes) > 1:
        parts = [f"{count} by {code[:7]}" for code, count in codes.most_common()]
        parts += [f"{unknown} by one that is not on record"] if unknown else []
        trials = counted(codes.total() + unknown, "trial")
        yield f"Trained by {len(codes)} versions of ablate: {trials}, {', '.join(parts)}."


def _protocol(arms: list[Arm]) -> Iterable[str]:
    """What the certificates say of the protocol; a sentence that is not about all variants names those it is about."""
    said: dict[str, list[str]] = {}
    for arm in arms:
        for sentence in (arm.record.get("certificate") or {}).get("protocol") or []:
            said.setdefault(str(sentence), []).append(arm.name)
    for sentence, names in said.items():
        yield sentence if len(names) == len(arms) else f"{sentence.rstrip('.')} ({listed(names)})."


def _readings(study: Study, arms: list[Arm]) -> str:
    results = {arm.record["trials"][seed]: result for arm in arms for seed, result in arm.results.items()}
    within = sum(int(result.get("test_readings") or 0) for result in results.values() if result is not None)
    exposures = len(study.exposures())
    least = "at least " if EXPOSURES in study.damaged else ""
    recorded = f"{least}{counted(exposures, 'reading')} on record"
    return f"Test split: read {counted(within, 'time')} by these trials; {recorded}."


def _range(numbers: Sequence[int]) -> str:
    if not numbers:
        return "0"
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def counted(count: Any, noun: str) -> str:
    return f"{count} {noun}" if str(count) == "1" else f"{count} {noun}s"
