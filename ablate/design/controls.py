"""Controls: for each variant its baseline, widened or narrowed until it is as expensive as the variant.

What a variant gains over its baseline may come from what it costs more, and not from how it spends that. A control
spends as much on width: one parameter of the baseline's network is solved for (``matching``), all else is its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from ablate.collect import Collector, Path
from ablate.costing import cost_of
from ablate.design.combinations import DEFAULT_BASELINES
from ablate.design.conflicts import leaves
from ablate.design.levels import Factors, Level, label_of
from ablate.design.matching import DECIMALS, Match, Number, Steps, UnchangedError, nearest, off_by
from ablate.design.variant import Control, Variant
from ablate.diagnose import shown
from ablate.errors import Place, Problem, did_you_mean
from ablate.expression import names_in
from ablate.grammar import AblationSpec, ControlSpec
from ablate.spec import Assignment, split_path
from ablate.yamlfile import place_of

PARAMS = ("network", "params")

Make = Callable[[Variant, str, Level, Collector], Variant | None]
"""A baseline, a name and a level → the baseline with that level, or ``None`` with its problems in the collector."""


@dataclass(frozen=True)
class Near:
    """A variant that needs no control: it costs what its baseline does, within the tolerance."""

    variant: str
    baseline: str
    match: str
    tolerance: float


def check_controls(ablation: AblationSpec, factors: Factors, sets: Iterable[Assignment], collector: Collector) -> None:
    """What is wrong with ``controls`` before anything is built."""
    if ablation.controls and ablation.baseline is None and ablation.design not in DEFAULT_BASELINES:
        message = "no variant is compared with a baseline that could be widened"
        collector.add(("ablation", "controls"), message, "name one: ablation.baseline")
    varied = {path: level.factor for levels in factors.values() for level in levels for path in _stated(level)}
    assigned = {each.path for each in sets}
    for index, control in enumerate(ablation.controls or ()):
        path: Path = ("ablation", "controls", index)
        keys = split_path(control.by)
        if len(keys) != 3 or keys[:2] != PARAMS:
            message = f"{shown(control.by)} is no parameter of a network"
            collector.add((*path, "by"), message, "network.params.NAME, such as a width multiplier", key=False)
        if keys in varied:
            message = f"'{varied[keys]}' varies {control.by}, which a control is solved for by"
            collector.add((*path, "by"), message, "leave it to one of them", key=False)
        if keys in assigned:
            hint = "change the spec, or --set ablation.controls=null as well"
            collector.extend([Problem(f"--set {control.by}: controls are solved for by it", hint=hint)])
        if control.match in [other.match for other in (ablation.controls or ())[:index]]:
            collector.add((*path, "match"), f"'{control.match}' is matched twice", "one control for each", key=False)


def _stated(level: Level) -> Iterator[tuple[str, ...]]:
    """The paths that a level assigns; a whole network is another one, and states nothing about this one."""
    for assignment in level.assignments:
        if assignment.path != ("network",):
            yield from leaves(assignment.path, assignment.value)


def add_controls(
    ablation: AblationSpec, variants: list[Variant], make: Make, collector: Collector
) -> tuple[list[Variant], list[Near]]:
    """The controls of all variants that have a baseline and are not the same as it, and those that need none."""
    by_name = {variant.name: variant for variant in variants}
    made: list[Variant] = []
    near: list[Near] = []
    for index, spec in enumerate(ablation.controls or ()):
        solver = _Solver(spec, index, make, collector)
        for variant in variants:
            baseline = by_name.get(variant.baseline or "")
            if baseline is None or baseline.sameness == variant.sameness:
                continue
            if solver.within(_cost(baseline, spec.match), _cost(variant, spec.match)):
                near.append(Near(variant.name, baseline.name, spec.match, spec.tolerance))
            elif (control := solver.control(variant, baseline)) is not None:
                if control.name in by_name:
                    message = f"'{control.name}' is the name of a control, and of a variant"
                    collector.add(("ablation", "controls", index), message, "rename the variant", key=False)
                made.append(control)
    return made, near


class _Solver:
    """Finds the controls of one entry. What baselines cost with other values is computed once a network."""

    def __init__(self, spec: ControlSpec, index: int, make: Make, collector: Collector) -> None:
        self.spec, self.make, self.collector = spec, make, collector
        self.path: Path = ("ablation", "controls", index)
        self.name = split_path(spec.by)[-1]
        self._steps: dict[str, Steps | None] = {}
        self._costs: dict[tuple[str, Number], int | None] = {}
        self._problems: dict[str, Problem] = {}
        """Of each baseline's network, what is first found wrong with it at another value."""

    def within(self, cost: int, wanted: int) -> bool:
        return abs(cost - wanted) <= self.spec.tolerance * wanted

    def control(self, variant: Variant, baseline: Variant) -> Variant | None:
        """The baseline that is as expensive as the variant; ``None`` where there is none, which is then said."""
        steps = self._steps_of(baseline)
        if steps is None:
            return None
        wanted = _cost(variant, self.spec.match)
        try:
            found = nearest(steps, lambda value: self._cost_at(baseline, value), wanted)
        except UnchangedError as error:
            message = f"has no effect on the {self.spec.match} of '{baseline.name}': {error}"
            self._once("by", message, "another parameter, such as a width multiplier")
            return None
        if not found:
            self._unbuildable(baseline)
        elif not self.within(found[0].cost, wanted):
            self._missed(variant, baseline, found, wanted, steps)
        else:
            return self._made(variant, baseline, found[0], wanted)
        return None

    def _made(self, variant: Variant, baseline: Variant, match: Match, wanted: int) -> Variant | None:
        name = f"{baseline.name} at the {self.spec.match} of {variant.name}"
        own = Collector(self.collector.tree)
        control = self.make(baseline, name, self._level(match.value), own)
        self.collector.extend(replace(each, message=f"in control '{name}': {each.message}") for each in own.problems)
        if control is not None:
            control.levels, control.baseline = dict(baseline.levels), baseline.name
            of = Control(variant.name, self.spec.match, self.spec.by, match.value, wanted, match.cost)
            control.control = of
        return control

    def _level(self, value: Number) -> Level:
        place = place_of(self.collector.tree, (*self.path, "by"), key=False) or Place("--set", 1, 1)
        layer = f"{self.spec.by}={label_of(value)}"
        return Level(self.spec.by, label_of(value), (Assignment((*PARAMS, self.name), value, place, layer),))

    def _steps_of(self, baseline: Variant) -> Steps | None:
        key = _key(baseline)
        if key not in self._steps:
            self._steps[key] = self._read(baseline)
        return self._steps[key]

    def _read(self, baseline: Variant) -> Steps | None:
        """The values of the parameter in this baseline's network; ``None`` where it has none, which is then said."""
        section = baseline.tree["network"]
        params = section.get("params", {})
        if self.name not in params:
            message = f"the network of the baseline '{baseline.name}' has no parameter '{self.name}'"
            self._once("by", message, did_you_mean(self.name, params))
            return None
        if self.name not in names_in({key: value for key, value in section.items() if key != "blocks"}):
            self._once("by", f"no expression in the network of the baseline '{baseline.name}' reads ${self.name}")
            return None
        steps = Steps(section, self.name, {"classes": baseline.classes})
        if not steps.written > 0:
            self._once("by", f"${self.name} is {shown(steps.written)} as written; only a number above 0 is scaled")
            return None
        return steps

    def _cost_at(self, baseline: Variant, value: Number) -> int | None:
        key = _key(baseline)
        if (key, value) not in self._costs:
            own = Collector(self.collector.tree)
            found = self.make(baseline, baseline.name, self._level(value), own)
            self._costs[key, value] = None if found is None else _cost(found, self.spec.match)
            if found is None and own.problems:
                self._problems.setdefault(key, own.problems[0])
        return self._costs[key, value]

    def _unbuildable(self, baseline: Variant) -> None:
        first = self._problems.get(_key(baseline))
        why = f", with which: {first.path}: {first.message}" if first else ""
        message = f"'{baseline.name}' is no sound network with another {self.spec.by} than its own{why}"
        self._once("by", message, f"sizes that round, such as round(16*${self.name})" if first is None else first.hint)

    def _missed(self, variant: Variant, baseline: Variant, found: list[Match], wanted: int, steps: Steps) -> None:
        spec = self.spec
        values = " and ".join(
            f"{match.value} gives {match.cost:,} ({off_by(match.cost, wanted)})"
            for match in sorted(found, key=lambda match: match.value)
        )
        message = (
            f"no {spec.by} gives '{baseline.name}' the {spec.match} of '{variant.name}', {wanted:,}, within "
            f"{100 * spec.tolerance:g}%: {values}"
        )
        hint = "a larger tolerance"
        if steps.parts != DECIMALS and len(found) > 1:
            hint = f"sizes that round, such as round(16*${self.name}), have values between; or a larger tolerance"
        self.collector.add((*self.path, "tolerance"), message, hint, key=False)

    def _once(self, key: str, message: str, hint: str = "") -> None:
        """Note a problem of this entry; what concerns several variants is said once."""
        if all(each.message != message for each in self.collector.problems):
            self.collector.add((*self.path, key), message, hint, key=False)


def _key(baseline: Variant) -> str:
    """Equal for baselines that are one network on images of one shape, however they are trained."""
    return json.dumps([baseline.tree["network"], baseline.shape, baseline.classes], sort_keys=True)


def _cost(variant: Variant, match: str) -> int:
    cost = cost_of(variant.network.graph)
    return cost.params if match == "params" else cost.flops
