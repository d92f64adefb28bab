"""The winner as a plain spec, that trains by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ablate import yamlfile
from ablate.findings.values import Findings, Trial, on_test
from ablate.labels import clean
from ablate.quantities import format_value, unit_of

SEEDS, FEWEST = 3, 2
"""How many seeds it is trained with, and how few of the spec's own are enough."""
NAME = "best"
LEFT_OUT = ("ablation", "extends", "numerics", "paper", "profile", "profiles", "search", "tune")
"""What is of the study that searched, and not of what it found."""


def best_spec(tree: Mapping[str, Any], found: Findings, trial: Trial, name: str | None = None) -> str:
    """The text of a spec of one variant. ``tree``: the resolved spec, with the trial's values applied.

    Its seeds are others than the search's, on which the trial was chosen: the spec's own, or three. Relative paths in
    it are as they are in ``tree``. ``name`` is the spec's, if not ``SPEC-best``.
    """
    kept = {key: value for key, value in tree.items() if key not in LEFT_OUT}
    ablation = {"seeds": _other_seeds(tree, found), "design": "variants", "variants": {NAME: {}}}
    body = yamlfile.dump({**kept, "name": name or f"{found.spec}-{NAME}", "ablation": ablation})
    # one line each: what a name or a label holds is never read as YAML
    head = "".join(f"# {clean(line)}\n" for line in _origin(found, trial))
    return head + body


def _other_seeds(tree: Mapping[str, Any], found: Findings) -> list[int]:
    """Those that ``tree`` has without the search's; where these are too few, the first three from 0 up without it."""
    searched = found.search.get("seed", 0)
    written = (tree.get("ablation") or {}).get("seeds")
    own = range(written) if isinstance(written, int) else written if isinstance(written, list) else []
    others = [seed for seed in own if seed != searched]
    return others if len(others) >= FEWEST else [seed for seed in range(SEEDS + 1) if seed != searched][:SEEDS]


def _origin(found: Findings, trial: Trial) -> list[str]:
    objectives = found.objectives
    values = ", ".join(_value(trial, metric, way) for metric, way in objectives.items())
    lines = [
        _place(found, trial),
        f"{values}, with one seed ({found.search.get('seed', 0)}): the best of many is partly luck. These are other "
        "seeds than the search's, and tell.",
        *(f"Chosen on the test split: {metric}." for metric in on_test(list(objectives))),
    ]
    return lines + [f"  {path} = {label}" for path, label in trial.labels.items()]


def _place(found: Findings, trial: Trial) -> str:
    """Its rank, so that nothing is called the best that was picked by its number."""
    where = f"of {found.spec} over {found.search.get('file')}"
    names = [each.name for each in found.ranked]
    if trial.name not in names:
        return f"Number {trial.name} ({trial.status}), in no ranking, of the {_trials(len(found.trials))} {where}."
    rank = names.index(trial.name) + 1
    said = "Best" if rank == 1 else f"Rank {rank:,}"
    if len(found.objectives) > 1 and trial in found.front:
        said = "On the front"
    return f"{said} of {_trials(len(names), 'finished ')} {where}: number {trial.name}."


def _trials(count: int, kind: str = "") -> str:
    return f"{count:,} {kind}{'trial' if count == 1 else 'trials'}"


def _value(trial: Trial, metric: str, way: str) -> str:
    value = trial.value(metric)
    unit = f" {unit_of(metric)}" if unit_of(metric) else ""
    return f"{metric} ({way}) " + ("not measured" if value is None else f"{format_value(metric, value)}{unit}")
