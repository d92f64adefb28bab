"""What stands beneath a search's table: out of how many, what became of the others, and what the best is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from ablate.analysis.arms import Arm
from ablate.errors import listed
from ablate.findings.correlating import Correlation
from ablate.findings.scales import columns_of
from ablate.findings.values import Findings, on_test
from ablate.labels import short_names
from ablate.outcomes import FAILED, PROPOSED, RESULTS
from ablate.quantities import format_value, unit_of
from ablate.report.captions import by_kind, counted, provenance, sentences, setting
from ablate.store import Study

MOST_REASONS = 5
MOST_NAMES = 40
MOST_TIED = 8
IN_SECONDS_OR_BYTES = ("latency", "memory")
READ_ONCE = "The test split is read once, after training, and decides nothing"
READ_ONCE_A_TRIAL = (
    "The test split is read once a trial, after training, and decides nothing; it is no ground to prefer one of these "
    "trials to another: look at it for the one that is chosen, trained again over other seeds"
)
READ_AND_RANKED = "The test split is read once a trial, after training, and decides the ranking"
NO_TEST, LEFT_UNREAD = "There is no test split", "The test split is left unread"


def caption(study: Study, found: Findings, arms: list[Arm]) -> str:
    sampler = (found.search.get("sampler") or {}).get("name")
    by = f" by {sampler}" if sampler else ""
    kinds = _plurals(found.outcomes)
    said = [f"{counted(f'{found.proposed:,}', 'proposal')}{by}: {kinds}"]
    said.append(f"Of the trained, {by_kind(found.fates, list(found.fates))}" if found.trials else "")
    said += [*_asked(found), _order(found), *_beyond_reach(found)]
    if not found.trials:  # of no data, seed or epoch is there anything to say
        return sentences(said)
    if tested := on_test(list(found.objectives)):
        said.append(f"Chosen on the test split: {', '.join(tested)} is no estimate of how the best does on new images")
    return sentences([*said, *setting(study, arms)])


def _plurals(outcomes: Mapping[str, int]) -> str:
    """``30 trained, 2 duplicates``."""
    said = {kind: f"{outcomes[kind]:,} {kind}" for kind in PROPOSED if outcomes.get(kind)}
    if outcomes.get("duplicate", 0) > 1:
        said["duplicate"] += "s"
    return ", ".join(said.values()) or "none yet"


def _asked(found: Findings) -> Iterable[str]:
    """What the proposals had to keep, and what their numbers were drawn from."""
    bounds = [_bound(metric, bound) for metric, bound in (found.search.get("constraints") or {}).items()]
    rule = found.search.get("filter") or {}
    parts = [f"Subject to {' and '.join(bounds)}"] if bounds else []
    if rule:
        best = (
            f"{rule.get('by')} among the best {_part(rule)} of those scored so far, once there are {rule.get('after')}"
        )
        parts.append(f"filtered: {best}" if bounds else f"Filtered: {best}")
    yield "; ".join(parts)
    sampler = found.search.get("sampler") or {}
    drawn = [f"Every trial with seed {found.search.get('seed', 0)}"] if found.trials else []
    drawn += [f"{sampler['name']} with seed {sampler.get('seed', 0)}"] if sampler.get("name") else []
    yield "; ".join(drawn)


def _bound(metric: str, bound: Mapping[str, float]) -> str:
    """``params ≤ 3,000``."""
    if "near" in bound:
        return f"{metric} within {_quantity(metric, bound['within'])} of {_quantity(metric, bound['near'])}"
    low = f"{_quantity(metric, bound['min'])} ≤ " if "min" in bound else ""
    return f"{low}{metric}" + (f" ≤ {_quantity(metric, bound['max'])}" if "max" in bound else "")


def _quantity(metric: str, value: float) -> str:
    """As it was written, but for seconds and bytes, which have no size that one can read."""
    if metric in IN_SECONDS_OR_BYTES:
        return " ".join([format_value(metric, value), unit_of(metric)]).strip()
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.15g}"


def _beyond_reach(found: Findings) -> Iterable[str]:
    constraints = found.search.get("constraints") or {}
    for metric, nearest in found.out_of_reach.items():
        yield f"No proposal keeps {_bound(metric, constraints[metric])}: the nearest has {_quantity(metric, nearest)}"
    if found.proposed and found.outcomes.get("rejected") == found.proposed and not found.out_of_reach:
        yield "Each constraint is kept by some proposals, and all of them by none"


def _order(found: Findings) -> str:
    ways = [f"{metric} ({way})" for metric, way in found.objectives.items()]
    if not found.trials:
        return ""
    if len(ways) < 2:
        return f"Ranked by {''.join(ways)}{_tied(found)}" if ways else ""
    front = counted(f"{found.on_front:,}", "trial")
    return (
        f"Ranked by {' and '.join(ways)}: first the front, {front} that no other beats in one objective without being "
        "worse in another"
    )


def _tied(found: Findings) -> str:
    """Of one objective, whether its best value is shared; those that share it are not a finding of the search."""
    if found.on_front < 2 or found.tuned:
        return ""
    first, *others = [trial.name for trial in found.front]
    shown = others[:MOST_TIED]
    if rest := len(others) - len(shown):
        shown.append(f"{rest:,} more")
    names = " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
    return f": {first} is tied with {names}, of which those of fewer FLOPs, then of fewer parameters, come first"


def footnotes(study: Study, found: Findings, arms: list[Arm], ranks: Sequence[Correlation]) -> Iterable[str]:
    if found.missing:
        waiting = by_kind(found.fates, [state for state in found.fates if state not in RESULTS])
        yield f"Not complete: {counted(found.missing, 'trial')} of {len(found.trials)} without a result: {waiting}."
    if found.tuned:
        count, variants = (found.search.get("budget") or {}).get("trials"), len(found.tuned)
        each = counted(count, "trial") if count is not None else "trials"
        yield f"Tuning: {each} for each of {counted(variants, 'variant')}; ranked together here only to be looked at."
    elif len(found.ranked) > 1:
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
    if found.trials:
        yield from _of_the_trials(study, found, arms)


def _of_the_trials(study: Study, found: Findings, arms: list[Arm]) -> Iterable[str]:
    """Their protocol, where the certificate of one trial would not say what becomes of many."""
    decided = READ_AND_RANKED if on_test(list(found.objectives)) else READ_ONCE_A_TRIAL
    for said in provenance(study, arms):
        if not found.tuned:
            yield said.replace(READ_ONCE, decided)
        elif not said.startswith("Test split: read 0 times"):
            yield said.replace(NO_TEST, LEFT_UNREAD)


def _most(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return Counter(counts).most_common()


def _filtered(found: Findings) -> Iterable[str]:
    if count := found.outcomes.get("filtered"):
        rule = found.search.get("filter") or {}
        part = f"the best {_part(rule)}"
        yield f"Filtered: {count:,} not trained, whose {rule.get('by')} was not among {part} of those scored so far."


def _part(rule: Mapping[str, float]) -> str:
    return f"{100 * float(rule.get('keep', 0.5)):.0f}%"


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
