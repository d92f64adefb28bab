"""What a study asks, and on what it stands: lines of a term and what is said of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ablate.analysis.arms import Arm
from ablate.errors import listed
from ablate.labels import flow
from ablate.outcomes import STATES
from ablate.report.captions import by_kind, counted, sentences, setting
from ablate.report.page.course import course
from ablate.store import Study

MOST_LEVELS = 12
DESIGNS = {
    "grid": "every combination of levels",
    "one_at_a_time": "each level of each factor alone",
    "leave_one_out": "the full model, and it without each component",
    "add_one_in": "the bare model, and it with each component",
    "ladder": "row by row, each with one component more than the row before",
}
Lines = list[tuple[str, str]]


def question(study: Study, arms: Sequence[Arm]) -> Lines:
    """What varies, against what it is compared, and on what it was trained."""
    section = study.spec.get("ablation") or {}
    search = study.spec.get("search") or {}
    lines = [("Varied", text) for text in _varied(section, search, arms)]
    baselines = list(dict.fromkeys(arm.baseline for arm in arms if arm.baseline is not None))
    if baselines:
        lines.append(("Compared with", listed(baselines, MOST_LEVELS)))
    objectives = [f"{metric} ({way})" for metric, way in (search.get("objectives") or {}).items()]
    if objectives:
        lines.append(("Searched for", ", ".join(objectives)))
    lines.append(("Setting", sentences(setting(study, list(arms)))))
    fates = Counter({hash: fate for arm in arms for hash, fate in _fates(arm)}.values())
    lines.append(("Trials", f"{counted(fates.total(), 'trial')}: {by_kind(fates, STATES)}"))
    return [*lines, *course(study, arms)]


def _fates(arm: Arm) -> Iterable[tuple[str, str]]:
    """Of each trial by its hash: duplicates share theirs."""
    return ((str(arm.record["trials"][seed]), fate) for seed, fate in arm.fates.items())


def _varied(section: Mapping[str, Any], search: Mapping[str, Any], arms: Sequence[Arm]) -> Iterable[str]:
    if search:
        yield f"the space of {search.get('file')}, from {counted(len(search.get('space') or {}), 'path')}"
        return
    design = str(section.get("design") or "grid")
    if design == "variants":
        yield f"{counted(len(arms), 'variant')}, listed by hand"
        return
    yield f"{counted(len(arms), 'variant')}: {DESIGNS.get(design, design)}"
    levels: dict[str, dict[str, None]] = {}
    for arm in arms:
        for factor, level in (arm.record.get("levels") or {}).items():
            levels.setdefault(str(factor), {})
            if level is not None:
                levels[str(factor)][str(level)] = None
    components = isinstance(section.get("components"), Mapping)
    if components:
        yield f"components: {listed(list(levels), MOST_LEVELS)}"
    else:
        yield from (f"{factor}: {listed(list(own), MOST_LEVELS)}" for factor, own in levels.items())


def environment(study: Study) -> Lines:
    """On what the trials ran, by what."""
    lines: Lines = []
    for key, value in study.environment.items():
        if isinstance(value, Mapping):
            lines += [(str(name), flow(version)) for name, version in value.items()]
        else:
            lines.append((str(key).replace("_", " "), "unknown" if value is None else flow(value)))
    held = {str(each["data_hash"]): each.get("data") for each in study.variants if each.get("data_hash")}
    lines += [("data, by content", f"{hash} ({data})") for hash, data in held.items()]
    numerics = study.spec.get("numerics") or {}
    lines += [(f"numerics: {name}", flow(value)) for name, value in numerics.items()]
    return [(term, text) for term, text in lines if text]
