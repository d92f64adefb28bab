"""The winner as a plain spec, that trains by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate import yamlfile
from ablate.findings.values import Findings, Trial, on_test
from ablate.labels import clean
from ablate.quantities import format_value, unit_of

SEEDS = 3
NAME = "best"
LEFT_OUT = ("ablation", "extends", "numerics", "paper", "profile", "profiles", "search", "tune")
"""What is of the study that searched, and not of what it found."""


def best_spec(tree: Mapping[str, Any], found: Findings, trial: Trial, name: str | None = None) -> str:
    """The text of a spec of one variant and three seeds. ``tree``: the resolved spec, with the trial's values applied.

    Relative paths in it are as they are in ``tree``. ``name`` is the spec's, if not ``SPEC-best``.
    """
    kept = {key: value for key, value in tree.items() if key not in LEFT_OUT}
    ablation = {"seeds": SEEDS, "design": "variants", "variants": {NAME: {}}}
    body = yamlfile.dump({**kept, "name": name or f"{found.spec}-{NAME}", "ablation": ablation})
    # one line each: what a name or a label holds is never read as YAML
    head = "".join(f"# {clean(line)}\n" for line in _origin(found, trial))
    return head + body


def _origin(found: Findings, trial: Trial) -> list[str]:
    objectives = found.objectives
    others = len(found.ranked) - 1
    place = "Best of" if len(objectives) == 1 else "On the front of" if trial in found.front else "One of"
    values = ", ".join(_value(trial, metric, way) for metric, way in objectives.items())
    lines = [
        f"{place} {others + 1:,} finished {'trial' if others == 0 else 'trials'} of {found.spec} over "
        f"{found.search.get('file')}: number {trial.name}.",
        f"{values}, with one seed ({found.search.get('seed', 0)}): the best of many is partly luck, and these seeds "
        "tell.",
        *(f"Chosen on the test split: {metric}." for metric in on_test(list(objectives))),
    ]
    return lines + [f"  {path} = {label}" for path, label in trial.labels.items()]


def _value(trial: Trial, metric: str, way: str) -> str:
    value = trial.value(metric)
    unit = f" {unit_of(metric)}" if unit_of(metric) else ""
    return f"{metric} ({way}) " + ("not measured" if value is None else f"{format_value(metric, value)}{unit}")
