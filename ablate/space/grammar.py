"""The grammar of ``search_spaces/``: which paths vary, what is wanted of the networks, and what a paper claims.

A space applies to any spec that has its paths. What it says is checked here as far as the file alone can tell;
against a spec by ``points``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from ablate import yamlfile
from ablate.collect import Collector
from ablate.diagnose import problems, shown
from ablate.errors import did_you_mean
from ablate.grammar import REPORT_COLUMNS
from ablate.pattern import Pattern
from ablate.recipe import Section
from ablate.space.distributions import EACH, Distribution, read_distribution
from ablate.space.sampling import SCORES, BudgetSpec, FilterSpec, PrunerSpec, SamplerSpec
from ablate.spec import level_path_problem

STATIC_METRICS = ("params", "flops", "activations")
"""What is known of a network from its graph: for one example."""
KNOWN_METRICS = (*STATIC_METRICS, "memory", "latency", *SCORES)
"""What is known of a network before it is trained: all but the first three once it is built and has seen a batch."""
METRICS = tuple(dict.fromkeys((*KNOWN_METRICS, *REPORT_COLUMNS)))
EPOCH_METRICS = tuple(metric for metric in REPORT_COLUMNS if metric.startswith(("train.", "val.")))
"""What a trial tells after an epoch; of the test split it tells at the end alone."""
MOST_PATHS = 200
_VARIABLE = re.compile(r"\$(?:\{(\w*)\}?|(\w*))")

StaticMetric = Literal["params", "flops", "activations"]


class Bound(Section):
    """What a metric may be: ``{min, max}``, either or both, or ``{near, within}``."""

    min: float | None = Field(None, description="the least")
    max: float | None = Field(None, description="the most")
    near: float | None = Field(None, description="the value to be near to")
    within: float | None = Field(None, gt=0, description="how far from it, either way")

    @model_validator(mode="after")
    def _one_kind(self) -> Bound:
        near, limits = (self.near, self.within), (self.min, self.max)
        if (self.near is None) != (self.within is None):
            raise ValueError("near and within come together: {near: 27.5e6, within: 0.05e6}")
        if (near == (None, None)) == (limits == (None, None)):
            raise ValueError("either min, max or both, or near and within")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"nothing is at least {self.min:,.15g} and at most {self.max:,.15g}")
        return self

    def allows(self, value: float) -> bool:
        if self.near is not None and self.within is not None:
            return abs(value - self.near) <= self.within
        return (self.min is None or value >= self.min) and (self.max is None or value <= self.max)


class Target(Section):
    """A published number: what a network of the space would have to come to."""

    title: str = Field(min_length=1, max_length=200, description="the paper")
    table: int | str | None = Field(None, description="table or figure of the paper")
    metric: StaticMetric = Field(description="what the number is")
    near: float = Field(description="the number")
    within: float = Field(gt=0, description="how far from it still rounds to it")

    def reached_by(self, value: float) -> bool:
        return abs(value - self.near) <= self.within


class SearchSpace(Section):
    """A search space: applies to any spec that has its paths."""

    space: dict[str, Any] = Field(
        min_length=1, max_length=MOST_PATHS, description="dotted path → the values that it takes"
    )
    objectives: dict[str, Literal["minimize", "maximize"]] = Field(
        default_factory=dict, description="what makes one network better than another: metric → minimize or maximize"
    )
    constraints: dict[str, Bound] = Field(
        default_factory=dict, description="what every network has to keep; checked before anything is trained"
    )
    targets: list[Target] = Field(
        default_factory=list, description="published numbers: which of them a network of the space reaches"
    )
    sampler: SamplerSpec | None = Field(None, description="what proposes the points")
    pruner: PrunerSpec | None = Field(None, description="what ends trials early; without it nothing does")
    budget: BudgetSpec = Field(default_factory=BudgetSpec, description="how much the search may spend")
    filter: FilterSpec | None = Field(None, description="which points are trained at all; without it all are")

    @property
    def chosen_sampler(self) -> SamplerSpec:
        """The one that is stated; else NSGA-II for several objectives, and TPE."""
        return self.sampler or SamplerSpec(name="nsga2" if len(self.objectives) > 1 else "tpe")

    @property
    def pruned_on(self) -> str | None:
        """The objective that a trial tells epoch by epoch, if one alone is: what a pruner goes by."""
        told = [metric for metric in self.objectives if metric in EPOCH_METRICS]
        return told[0] if len(told) == 1 else None


@dataclass(frozen=True)
class Space:
    """A space as read, with the text's places in ``tree``."""

    file: str
    tree: yamlfile.Mapping
    distributions: dict[str, Distribution]
    """By path, in the order written."""
    model: SearchSpace


def load_space(path: str | Path) -> Space:
    """The space in a file; ``UserError`` with everything that is wrong with it."""
    return read_space(yamlfile.load(Path(path)), str(path))


def read_space(tree: yamlfile.Mapping, file: str) -> Space:
    collector = Collector(tree)
    model = None
    try:
        model = SearchSpace.model_validate(tree)
    except ValidationError as error:
        collector.extend(problems(error, tree, model=SearchSpace))
    _check_metrics(tree, collector)
    written = tree.get("space")
    read = {
        path: _distribution(path, value, collector)
        for path, value in (written.items() if isinstance(written, dict) else ())
    }
    if model is not None:
        _check_search(model, collector)
    collector.raise_if_any()
    assert model is not None
    return Space(file, tree, read, model)


def _check_metrics(tree: yamlfile.Mapping, collector: Collector) -> None:
    """Objectives and constraints are on metrics; a constraint on one that is known before training."""
    for section in ("objectives", "constraints"):
        written = tree.get(section)
        for metric in written if isinstance(written, dict) else ():
            if metric not in METRICS:
                known = METRICS if section == "objectives" else KNOWN_METRICS
                collector.add((section, metric), f"unknown metric {shown(metric)}", did_you_mean(metric, known))
            elif section == "constraints" and metric not in KNOWN_METRICS:
                message = "only training tells, and constraints are checked before it"
                collector.add((section, metric), message, f"one of: {', '.join(KNOWN_METRICS)}")


def _check_search(model: SearchSpace, collector: Collector) -> None:
    """What samplers and pruners ask of the objectives."""
    objectives = list(model.objectives)
    if model.sampler is not None and model.sampler.name == "cmaes" and len(objectives) > 1:
        message = f"cmaes has one objective, and here are {len(objectives)}: {', '.join(objectives)}"
        collector.add(("sampler", "name"), message, "nsga2 has several", key=False)
    if model.pruner is not None and model.pruned_on is None:
        told = [metric for metric in objectives if metric in EPOCH_METRICS]
        message = f"a pruner goes by one objective that is told epoch by epoch, and here are {len(told)}"
        hint = f"leave one of them: {', '.join(told)}" if told else "such as val.accuracy: maximize"
        collector.add(("pruner",), message, hint)


def _distribution(path: str, value: Any, collector: Collector) -> Any:
    where = ("space", path)
    read = read_distribution(value, collector, where)
    each = read.each if read is not None else None
    for condition in (read.when or ()) if read is not None else ():
        if condition == path:
            collector.add((*where, "when", condition), "a path can't be its own condition")
        elif problem := _path_problem(condition, each):
            collector.add((*where, "when", condition), problem[0], problem[1])
    if problem := _path_problem(path, each) if read is not None else _section_problem(path):
        collector.add(where, problem[0], problem[1])
    if each is not None and not _VARIABLE.search(path):
        message = "all the names that 'each' matches would have this one path"
        collector.add((*where, "each"), message, f"write $each in it, where the name belongs: {path}_$each")
    if each is not None:
        try:
            Pattern(each)
        except ValueError as error:
            collector.add((*where, "each"), str(error), key=False)
    return read


def _path_problem(path: str, each: str | None) -> tuple[str, str] | None:
    for match in _VARIABLE.finditer(path):
        if (match[1] or match[2]) != EACH:
            return (
                f"'{match[0]}' in a path: $each alone stands for something there",
                "write ${each} where a letter follows",
            )
        if each is None:
            return f"'{match[0]}' in a path, and no pattern says for which names", "add each: stage*.*"
    return _section_problem(path)


def _section_problem(path: str) -> tuple[str, str] | None:
    """Why no point can set ``path``: it sets what a level may, a value within the network, the data or the recipe."""
    if path in ("network", "data", "train"):
        return f"{shown(path)} is a whole section", "name a path within it"
    problem = level_path_problem(path)
    return (problem[0].replace("that a level may change", "of a space"), problem[1]) if problem else None
