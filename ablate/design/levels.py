"""Factors, components and hand-listed variants as a spec writes them: named patches, each a list of assignments."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ablate import yamlfile
from ablate.collect import Collector
from ablate.diagnose import shown
from ablate.errors import Place, Problem
from ablate.grammar import MOST_SEEDS, AblationSpec
from ablate.spec import Assignment, level_path_problem, read_section, split_path

WITH, WITHOUT = "with", "without"
TAKES = {
    "grid": "factors",
    "one_at_a_time": "factors",
    "leave_one_out": "components",
    "add_one_in": "components",
    "ladder": "components",
    "variants": "variants",
}
"""Design → the mapping that it combines."""
FREE = ("factors", "components", "variants")
"""Sections whose keys are the user's own names."""
VARIANT = "variant"
"""What the one factor is called whose levels are the variants that are listed by hand."""

Factors = dict[str, list["Level"]]
"""Factor → its levels; none for a factor that is written wrongly. Of a component: the one level that its patch is."""


@dataclass(frozen=True)
class Level:
    """One value of a factor: what it assigns."""

    factor: str
    name: str
    assignments: tuple[Assignment, ...]

    @property
    def layer(self) -> str:
        """Who wrote what this level assigns: ``placement=none``."""
        return f"{self.factor}={self.name}"


def read_ablation(tree: yamlfile.Mapping, collector: Collector) -> AblationSpec | None:
    """The ``ablation`` section; the patches in it are read by ``read_factors``."""
    section = tree.get("ablation", {"seeds": 1})
    if set(section) - {"until"} == {"seeds"}:  # nothing varies: one variant, the spec as written
        section = {**section, "design": "variants", "variants": {str(tree.get("name", "spec")): {}}}
    free = {key: section[key] for key in FREE if key in section}
    for key, value in free.items():
        if not isinstance(value, dict) or not value:
            collector.add(("ablation", key), f"not a mapping of {key}, with at least one", key=False)
    plain = {key: value for key, value in section.items() if key not in FREE}
    ablation: AblationSpec | None = read_section(AblationSpec, plain, collector, ("ablation",))
    if ablation is None:
        return None
    _check_taken(ablation, section, collector)
    return ablation.model_copy(update={key: value for key, value in free.items() if isinstance(value, dict)})


def _check_taken(ablation: AblationSpec, section: Mapping[str, Any], collector: Collector) -> None:
    """A section that the design does not combine would be dropped."""
    design, wanted = ablation.design, TAKES[ablation.design]
    if wanted not in section:
        collector.add(("ablation", wanted), f"missing: design '{design}' needs {wanted}")
    for key in FREE:
        if key in section and key != wanted:
            fitting = ", ".join(name for name, takes in TAKES.items() if takes == key)
            hint = f"{key} are for design: {fitting}"
            collector.add(("ablation", key), f"unused: design '{design}' takes {wanted}", hint)
    for key in ("zip", "exclude"):
        if key in section and wanted != "factors":
            collector.add(("ablation", key), f"unused: design '{design}' has no factors")
    if "reference" in section and design != "one_at_a_time":
        hint = "baseline names what others are compared with"
        collector.add(("ablation", "reference"), f"unused: design '{design}' has no reference", hint)


def read_seeds(ablation: AblationSpec, collector: Collector) -> list[int]:
    """Those that the study begins with."""
    if ablation.seeds == "auto":
        if ablation.until is not None:
            return more_seeds([], ablation.until.first)
        hint = "ablation.until: {metric: val.accuracy, half_width: 0.5}"
        collector.add(("ablation", "seeds"), "'auto' needs ablation.until: how narrow which intervals are to be", hint)
        return []
    if ablation.until is not None:
        hint = "seeds: auto; or ablation.until: null, where another layer has it"
        collector.add(("ablation", "until"), "unused: it is for seeds: auto, and here they are stated", hint)
    count = ablation.seeds if isinstance(ablation.seeds, int) else len(ablation.seeds)
    if not 1 <= count <= MOST_SEEDS:
        collector.add(("ablation", "seeds"), f"{shown(count)} seeds; from 1 to {MOST_SEEDS:,}", key=False)
        return []
    seeds = list(range(count)) if isinstance(ablation.seeds, int) else list(ablation.seeds)
    if len(set(seeds)) < len(seeds):
        collector.add(("ablation", "seeds"), "a seed is given twice", key=False)
    elif min(seeds) < 0:
        collector.add(("ablation", "seeds"), "a seed is negative", "seeds count from 0", key=False)
    return seeds


def more_seeds(seeds: Iterable[int], count: int) -> list[int]:
    """These and, as far as they are fewer than ``count``, the smallest from 0 up that are not among them."""
    known = list(seeds)
    others = (seed for seed in itertools.count() if seed not in known)
    return known + list(itertools.islice(others, max(0, count - len(known))))


def read_factors(ablation: AblationSpec, collector: Collector) -> Factors:
    """The levels of each factor, or each component's patch as its one level."""
    takes = TAKES[ablation.design]
    if takes == "factors":
        return {name: _factor(name, value, collector) for name, value in (ablation.factors or {}).items()}
    path = ("ablation", takes)
    if takes == "variants":
        patches = (ablation.variants or {}).items()
        return {VARIANT: [_level(VARIANT, name, patch, collector, (*path, name), name) for name, patch in patches]}
    does = WITHOUT if ablation.design == "leave_one_out" else WITH
    return {
        name: [_component(name, does, patch, collector, (*path, name))]
        for name, patch in (ablation.components or {}).items()
    }


def _factor(name: str, value: Any, collector: Collector) -> list[Level]:
    path = ("ablation", "factors", name)
    if name_problem := _label_problem(name, "a factor"):
        collector.add(path, name_problem)
    if not isinstance(value, dict) or not value:
        collector.add(path, "not a mapping of levels to patches", "{path: …, levels: […]} or {level: {path: value}}")
        return []
    if set(value) != {"path", "levels"}:
        if isinstance(value.get("path"), str):
            collector.add(path, "a factor of one path is written {path: …, levels: […]}")
            return []
        return [_level(name, level, patch, collector, (*path, level), level) for level, patch in value.items()]
    if not isinstance(value["path"], str) or not isinstance(value["levels"], yamlfile.Sequence) or not value["levels"]:
        collector.add(path, "'path' is one dotted path and 'levels' a list of at least one value")
        return []
    if problem := level_path_problem(value["path"]):
        collector.add((*path, "path"), problem[0], problem[1], key=False)
        return []
    return _levels_of_path(name, value["path"], value["levels"], collector, (*path, "levels"))


def _levels_of_path(
    name: str, varied: str, items: yamlfile.Sequence, collector: Collector, path: tuple[str, ...]
) -> list[Level]:
    levels: dict[str, Level] = {}
    for index, item in enumerate(items):
        place, label = items.values_at[index], label_of(item)
        if label in levels:
            collector.add((*path, index), f"level {shown(label)} is given twice", key=False)
            continue
        if wrong := _label_problem(label):
            collector.add((*path, index), wrong, "name the levels: {level: {path: value}}", key=False)
        levels[label] = _checked_level(name, label, {varied: (item, place, place)}, collector)
    return list(levels.values())


def label_of(value: Any) -> str:
    """The name of the level that a value is: ``8``, ``true``, ``after stage*``."""
    return value if isinstance(value, str) else json.dumps(value)


def _label_problem(label: str, what: str = "a level") -> str | None:
    if not label or len(label) > 200 or not label.isprintable() or "/" in label or "=" in label:
        return f"{shown(label)} can't name {what}: 1 to 200 printable characters without / and ="
    return None


def _component(name: str, does: str, patch: Any, collector: Collector, path: tuple[str, ...]) -> Level:
    if isinstance(patch, dict) and not patch:
        collector.add(path, "an empty patch: a component is what its patch adds or removes")
    return _level(name, does, patch, collector, path, name, "a component")


def _level(
    factor: str,
    name: str,
    patch: Any,
    collector: Collector,
    path: tuple[str, ...],
    written: str,
    what: str = "a level",
) -> Level:
    """``written`` is the name that the user gave, of a level or of a component."""
    if problem := _label_problem(written, what):
        collector.add(path, problem)
    if patch is None or not isinstance(patch, dict):
        collector.add(path, f"{shown(patch)} is not a patch; a mapping of dotted path to value", "{} changes nothing")
        patch = yamlfile.Mapping()
    items = {key: (value, patch.keys_at[key], patch.values_at[key]) for key, value in patch.items()}
    return _checked_level(factor, name, items, collector)


def _checked_level(
    factor: str, name: str, patch: Mapping[str, tuple[Any, Place, Place]], collector: Collector
) -> Level:
    assignments = []
    for path, (value, at, value_at) in patch.items():
        problem = level_path_problem(path, value)
        if problem:
            collector.extend([Problem(problem[0], path, at, problem[1])])
        else:
            assignments.append(Assignment(split_path(path), value, at, f"{factor}={name}", value_at))
    return Level(factor, name, tuple(assignments))
