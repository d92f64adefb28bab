"""What a study asks, on what it stands, and how it is repeated: lines of a term and what is said of it."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ablate.analysis.arms import Arm
from ablate.errors import listed
from ablate.labels import flow
from ablate.outcomes import STATES
from ablate.report.captions import by_kind, counted, sentences, setting
from ablate.store import SPEC, Study

MOST_LEVELS = 12
DESIGNS = {
    "grid": "every combination of levels",
    "one_at_a_time": "each level of each factor alone",
    "leave_one_out": "the full model, and it without each component",
    "add_one_in": "the bare model, and it with each component",
    "ladder": "row by row, each with one component more than the row before",
    "variants": "variants listed by hand",
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
    return [*lines, ("Trials", f"{counted(fates.total(), 'trial')}: {by_kind(fates, STATES)}")]


def _fates(arm: Arm) -> Iterable[tuple[str, str]]:
    """Of each trial by its hash: duplicates share theirs."""
    return ((str(arm.record["trials"][seed]), fate) for seed, fate in arm.fates.items())


def _varied(section: Mapping[str, Any], search: Mapping[str, Any], arms: Sequence[Arm]) -> Iterable[str]:
    if search:
        yield f"the space of {search.get('file')}, from {counted(len(search.get('space') or {}), 'path')}"
        return
    design = str(section.get("design") or "grid")
    yield f"{counted(len(arms), 'variant')}: {DESIGNS.get(design, design)}"
    if design == "variants":
        return
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
    numerics = study.spec.get("numerics") or {}
    lines += [(f"numerics: {name}", flow(value)) for name, value in numerics.items()]
    return [(term, text) for term, text in lines if text]


def command(study: Study) -> tuple[str, str]:
    """What repeats the study into another folder, and what has to be known for it."""
    root = (study.spec.get("data") or {}).get("root")
    # a path that leaves the spec's folder is taken from the command line alone
    said = ["--set", f"data.root={root}"] if root else []
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", study.folder.resolve().name) or "study"
    more = ["--out", f"runs/{name}-again", *said]
    notes = [f"The data are read from {root}, or wherever they lie now."] if root else []
    if names := _imports(study.spec.get("network")):
        notes.append(f"It imports {listed(names)}: what is no model of torchvision's or timm's needs --trust, too.")
    if search := study.spec.get("search"):
        notes.insert(0, "SPEC is the file of the spec that was searched; the folder holds no copy of it.")
        return shlex.join(["ablate", "search", "SPEC", "--space", str(search.get("file")), *more]), " ".join(notes)
    return shlex.join(["ablate", "sweep", str(study.folder / SPEC), *more]), " ".join(notes)


def _imports(spec: Any) -> list[str]:
    """The code that a network is imported from."""
    if isinstance(spec, Mapping):
        own = [spec["import"]] if isinstance(spec.get("import"), str) else []
        return list(dict.fromkeys([*own, *(name for value in spec.values() for name in _imports(value))]))
    return []
