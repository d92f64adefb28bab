"""What stands beneath a search's table: out of how many, what became of the others, and what the best is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ablate.errors import listed
from ablate.findings.correlating import Correlation
from ablate.findings.scales import columns_of
from ablate.findings.values import Findings, on_test
from ablate.labels import short_names
from ablate.outcomes import FAILED, PROPOSED, RESULTS
from ablate.report.arms import Arm
from ablate.report.captions import by_kind, counted, provenance, sentences, setting
from ablate.store import Study

MOST_REASONS = 5
MOST_NAMES = 40


def caption(study: Study, found: Findings, arms: list[Arm]) -> str:
    sampler = (found.search.get("sampler") or {}).get("name")
    by = f" by {sampler}" if sampler else ""
    kinds = _plurals(found.outcomes)
    said = [f"{counted(f'{found.proposed:,}', 'proposal')}{by}: {kinds}"]
    said.append(f"Of the trained, {by_kind(found.fates, list(found.fates))}" if found.trials else "")
    said.append(_order(found))
    if tested := on_test(list(found.objectives)):
        said.append(f"Chosen on the test split: {', '.join(tested)} is no estimate of how the best does on new images")
    return sentences([*said, *setting(study, arms)])


def _plurals(outcomes: Mapping[str, int]) -> str:
    """``30 trained, 2 duplicates``."""
    said = {kind: f"{outcomes[kind]:,} {kind}" for kind in PROPOSED if outcomes.get(kind)}
    if outcomes.get("duplicate", 0) > 1:
        said["duplicate"] += "s"
    return ", ".join(said.values()) or "none yet"


def _order(found: Findings) -> str:
    ways = [f"{metric} ({way})" for metric, way in found.objectives.items()]
    if len(ways) < 2:
        return f"Ranked by {''.join(ways)}" if ways else ""
    front = counted(f"{found.on_front:,}", "trial")
    return (
        f"Ranked by {' and '.join(ways)}: first the front, {front} that no other beats in one objective without being "
        "worse in another"
    )


def footnotes(study: Study, found: Findings, arms: list[Arm], ranks: Sequence[Correlation]) -> Iterable[str]:
    if found.missing:
        waiting = by_kind(found.fates, [state for state in found.fates if state not in RESULTS])
        yield f"Not complete: {counted(found.missing, 'trial')} of {len(found.trials)} without a result: {waiting}."
    if len(found.ranked) > 1:
        yield (
            f"Each trial has one seed, and the best of {len(found.ranked):,} is partly luck: before it is compared "
            "with anything, it is trained over several."
        )
    for name, paths in columns_of(found).items():
        if len(paths) > 1:
            yield f"{name}: of {listed(short_names(paths), MOST_NAMES)}, in this order."
    if found.broken:
        by_metric = ", ".join(f"{count:,} by {metric}" for metric, count in _most(found.broken))
        yield f"Rejected before training: {by_metric}."
    yield from _filtered(found)
    for outcome in ("impossible", "uncertified"):
        yield from _reasons(outcome, found.reasons.get(outcome) or {})
    if found.pruned:
        pruner = (found.search.get("pruner") or {}).get("name")
        by = f" by {pruner}" if pruner else ""
        planned = sum(trial.planned for trial in found.pruned)
        yield (
            f"Pruned{by}, and in no ranking: {counted(f'{len(found.pruned):,}', 'trial')}, "
            f"which saved {found.epochs_saved:,} of their {planned:,} epochs; {found.epochs:,} were trained in all."
        )
    if failed := by_kind(found.fates, FAILED):
        yield f"In no ranking, since they did not finish: {failed}."
    if found.unmeasured:
        yield f"In no ranking, since an objective is missing or not finite: {len(found.unmeasured):,} finished."
    yield from _correlations(found, ranks)
    yield from provenance(study, arms)


def _most(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return Counter(counts).most_common()


def _filtered(found: Findings) -> Iterable[str]:
    if count := found.outcomes.get("filtered"):
        rule = found.search.get("filter") or {}
        part = f"the best {100 * float(rule.get('keep', 0.5)):.0f}%"
        yield f"Filtered: {count:,} not trained, whose {rule.get('by')} was not among {part} of those scored so far."


def _reasons(outcome: str, reasons: Mapping[str, int]) -> Iterable[str]:
    ordered = _most(reasons)
    for reason, count in ordered[:MOST_REASONS]:
        yield f"{count:,} {outcome}: {reason.rstrip('.') or 'no reason on record'}."
    if rest := ordered[MOST_REASONS:]:
        yield f"{sum(count for _, count in rest):,} more {outcome}, for {len(rest)} other reasons."


def _correlations(found: Findings, ranks: Sequence[Correlation]) -> Iterable[str]:
    """A sentence for each objective: what is known before training, that which tells most of it first."""
    for objective in dict.fromkeys(each.objective for each in ranks):
        own = [each for each in ranks if each.objective == objective and each.spearman is not None]
        own.sort(key=lambda each: -abs(each.spearman or 0.0))
        said = [f"{each.known} {_signed(each.spearman)} / {_signed(each.kendall)} (n = {each.n:,})" for each in own]
        if said:
            cut = "; of those that were filtered it is not known" if found.outcomes.get("filtered") else ""
            yield f"Rank correlation with {objective} (Spearman / Kendall): {', '.join(said)}{cut}."


def _signed(value: float | None) -> str:
    return "—" if value is None else f"{value:+.2f}".replace("-", "−")
