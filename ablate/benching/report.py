"""Everything that ``ablate bench`` measures, as values."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from ablate.benching.options import Change, Subject, allocators, changes
from ablate.benching.readings import (
    LEAST,
    Reading,
    Spread,
    Timing,
    Training,
    evaluation_of,
    in_turn,
    peak,
    spread,
    stages_of,
)
from ablate.benching.recommending import Cost, Effect, Recommendation, recommended, winners
from ablate.compiling import estimate
from ablate.costing import cost_of
from ablate.data.dataset import DataSpec, ImageData
from ablate.data.loading import cores_given
from ablate.design import StudyPlan, Variant
from ablate.measuring import NotMeasuredError, Side, at_once, sides
from ablate.numerics import process_settings
from ablate.placing import Measured, Placement, available_cpus, candidates, measured, nodes_for_trials
from ablate.prepare import folder_of, loader
from ablate.resolving import Resolved, resolved
from ablate.train import Trial, trial_of

CUDA_BURST = 10
"""Steps in a reading on CUDA, where training never waits for the device between two of them."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    """A part of training: seconds for ``images`` images, and the FLOPs of that (a multiply-accumulate is two)."""

    name: str
    seconds: Spread
    images: int
    flops: float | None = None

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds.median

    @property
    def flops_per_second(self) -> float | None:
        return None if self.flops is None else self.flops / self.seconds.median


@dataclass(frozen=True)
class Report:
    """What was measured of one variant of a study, and what follows from it."""

    study: str
    variant: str
    settings: Mapping[str, Any]
    """The numerics profile, and what ``train.precision`` comes to."""
    batch_size: int
    cores: int
    load: float | None
    """Processes that wanted a core, in the minute before; None where the system does not say."""
    stages: tuple[Stage, ...]
    """Of a step, the step as a whole, and evaluation."""
    peak: Mapping[str, float]
    """FLOP/s of a matrix product, by precision."""
    effects: tuple[Effect, ...]
    placement: Placement
    """The study's own."""
    placements: tuple[Measured, ...]
    recommendation: Recommendation
    notes: tuple[str, ...] = ()

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    def as_dict(self) -> dict[str, Any]:
        """JSON, with what follows from the readings beside them."""
        values = asdict(self)
        for stage, found in zip(values["stages"], self.stages, strict=True):
            stage |= {"images_per_second": found.images_per_second, "flops_per_second": found.flops_per_second}
        for effect, kept in zip(values["effects"], self.effects, strict=True):
            change = effect.pop("change")
            effect |= {key: change[key] for key in ("option", "now", "instead", "path", "value", "environment")}
            effect["verdict"] = kept.verdict
        values["recommendation"] |= {"seconds": self.recommendation.seconds, "yaml": self.recommendation.yaml}
        return values


def bench(
    plan: StudyPlan,
    variant: Variant | None = None,
    *,
    timing: Timing | None = None,
    compile: bool = False,
    quick: bool = False,
    say: Say = lambda text: None,
) -> Report:
    """Measure ``variant`` (default: the one whose step costs most), by ``timing``.

    ``compile``: try ``torch.compile`` too, which takes minutes; ``quick``: leave out what needs other processes, the
    allocator and trials at once. ``say`` is told what is being measured. ``UserError`` as for ``prepare``.
    """
    timing = timing or Timing()
    variant = variant or max(plan.distinct, key=_work_of_a_step)
    data_of = loader(plan)
    say("resolving what is auto")
    settled = resolved(plan, data_of, folder=folder_of(plan), measure=not quick)
    numerics = replace(settled.numerics, compile=settled.numerics.compile and compile, devices=1)
    cores = max(1, available_cpus() // (settled.placement.concurrent * settled.numerics.devices))
    subject = Subject(trial_of(variant, plan.seeds[0], numerics), data_of(variant.data), cores)
    load = _load()
    with process_settings(numerics), cores_given(cores):
        say(f"the stages of a step of {variant.name}")
        training = _training(subject, timing)
        stages = _stages(training, timing)
        say("the peak of this machine")
        peaks = {
            precision: peak(precision, numerics.device, timing.clock)
            for precision in dict.fromkeys((subject.trial.precision, "fp32"))
        }
        found = _changes(plan, subject, compile, quick)
        effects = [_effect(change, subject, training, timing, say) for change in found]
        trials, placements = len(plan.distinct) * len(plan.seeds), tuple[Measured, ...]()
        if not quick:
            say("trials at once")
            placements = _placements(subject, settled, trials)
        seconds = _seconds(plan, variant, stages, settled.placement, placements, data_of)
        now = Cost(trials, seconds, _compiling(plan, settled, subject.trial.precision, seconds))
        best = winners(effects, now)
        together = _together(best, subject, training, timing, say)
        current = (settled.placement.threads, settled.placement.concurrent)
        recommendation = recommended(best, together, current, placements, now)
    return Report(
        study=str(plan.tree["name"]),
        variant=variant.name,
        settings=numerics.as_dict() | {"precision": subject.trial.precision},
        batch_size=variant.train.batch_size,
        cores=available_cpus(),
        load=load,
        stages=tuple(stages.values()),
        peak=peaks,
        effects=tuple(effects),
        placement=settled.placement,
        placements=placements,
        recommendation=recommendation,
        notes=tuple(_notes(settled, subject, compile)),
    )


def _work_of_a_step(variant: Variant) -> int:
    return cost_of(variant.network.graph).flops * variant.train.batch_size


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # not on Windows; not everywhere else
        return None


def _training(subject: Subject, timing: Timing, burst: int = 1) -> Training:
    burst = CUDA_BURST if subject.trial.numerics.device == "cuda" else burst
    return Training(subject.trial, subject.data, timing.clock, burst)


def _stages(training: Training, timing: Timing) -> dict[str, Stage]:
    readings, size = stages_of(training, timing), training.batch_size
    flops = _flops(training.trial)
    found = {
        name: Stage(name, spread(seconds), size, flops[name] * size if name in flops else None)
        for name, seconds in readings.items()
    }
    seconds, images = evaluation_of(training, timing)
    evaluated = Stage("evaluation", spread(seconds), images, flops["forward"] * images)
    return found | {"evaluation": evaluated}


def _flops(trial: Trial) -> dict[str, float]:
    """For one example, by stage. A backward pass is two forward passes, where nothing is frozen."""
    forward = 2.0 * cost_of(trial.graph).flops
    if trial.trainable.frozen:
        return {"forward": forward}
    return {"forward": forward, "backward": 2 * forward, "step": 3 * forward}


def _changes(plan: StudyPlan, subject: Subject, compile: bool, quick: bool) -> Iterable[Change]:
    alike = len({variant.train.precision for variant in plan.distinct}) == 1
    yield from changes(subject, compile=compile, stated_alike=alike)
    if not quick:
        yield from allocators(subject.trial)


def _effect(change: Change, subject: Subject, training: Training, timing: Timing, say: Say) -> Effect:
    """The study as it stands, in its ``training`` where steps are read one at a time, and with the change, by turns."""
    say(f"{change.option}: {change.now} or {change.instead}")
    try:
        if change.environment:
            return Effect(change, _between_processes(subject, change.environment, timing))
        now = training if change.burst == 1 else _training(subject, timing, change.burst)
        instead = _training(change.of(subject), timing, change.burst)
        return Effect(change, _compared(now.step, instead.step, timing))
    except (RuntimeError, NotMeasuredError) as error:  # too little memory for it, no kernel, a compiler that fails
        return Effect(change, None, str(error).strip().partition("\n")[0] or type(error).__name__)


def _between_processes(subject: Subject, environment: Mapping[str, str], timing: Timing) -> Spread:
    """By turns in two processes, such as those of a sweep, of which one starts with that environment."""
    with ExitStack() as stack:
        (now,) = stack.enter_context(sides(subject.trial, subject.data, 1))
        with _environment(environment):
            (instead,) = stack.enter_context(sides(subject.trial, subject.data, 1))
        ours, others = (partial(_seconds_in, side, subject, timing) for side in (now, instead))
        return _compared(ours, others, timing)


def _seconds_in(side: Side, subject: Subject, timing: Timing) -> float:
    """Seconds an image, over a few steps of that process."""
    (reply,) = at_once([side], subject.trial.numerics.threads, subject.cores, timing.seconds / (2 * LEAST))
    return 1 / reply.images_per_second


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Of processes that start meanwhile."""
    kept = {key: os.environ.pop(key) for key in variables if key in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for key in variables:
            del os.environ[key]
        os.environ.update(kept)


def _compared(now: Reading, instead: Reading, timing: Timing) -> Spread:
    """How many times as fast the second is, pair by pair."""
    return spread([one / other for one, other in zip(*in_turn(now, instead, timing), strict=True)])


def _placements(subject: Subject, settled: Resolved, trials: int) -> tuple[Measured, ...]:
    """The ways to fill the cores and the study's own, where it is another; none where they can't be timed."""
    trial, own = replace(subject.trial, numerics=settled.numerics), settled.placement
    devices, gpus = trial.numerics.devices, torch.cuda.device_count() if trial.numerics.device == "cuda" else 0
    filling = candidates(nodes_for_trials(), trials, devices, cuda=gpus > 0)
    ways = list(dict.fromkeys([*filling, (own.threads, own.concurrent)]))
    try:
        return tuple(measured(trial, subject.data, ways, gpus)) if len(ways) > 1 else ()
    except NotMeasuredError:
        return ()


def _compiling(plan: StudyPlan, settled: Resolved, precision: str, seconds: float) -> float:
    """Seconds that compiling would add to a study that takes so many."""
    graphs = {variant.network.graph.fingerprint: variant.network.graph for variant in plan.distinct}
    return estimate(
        device=settled.numerics.device,
        deterministic=settled.numerics.deterministic,
        nodes=[len(graph.nodes) for graph in graphs.values()],
        precision=precision,
        trials=len(plan.distinct) * len(plan.seeds),
        concurrent=settled.placement.concurrent,
        seconds=seconds,
    ).costs


def _together(best: Sequence[Effect], subject: Subject, training: Training, timing: Timing, say: Say) -> Effect | None:
    """What all that a spec can say of them does at once, where that is more than one."""
    chosen = [effect.change for effect in best if effect.change.path]
    return _effect(_all(chosen), subject, training, timing, say) if len(chosen) > 1 else None


def _all(chosen: list[Change]) -> Change:
    def of(subject: Subject) -> Subject:
        for change in chosen:
            subject = change.of(subject)
        return subject

    words = ", ".join(f"{change.option} {change.instead}" for change in chosen)
    return Change("together", "as it stands", words, of, burst=max(change.burst for change in chosen))


def _seconds(
    plan: StudyPlan,
    timed: Variant,
    stages: Mapping[str, Stage],
    placement: Placement,
    placements: tuple[Measured, ...],
    data_of: Callable[[DataSpec], ImageData],
) -> float:
    """Of the whole study: other variants take longer or shorter by their FLOPs, trials at once as was measured."""
    alone = 0.0
    for variant in plan.distinct:
        data, epochs = data_of(variant.data), variant.train.epochs
        evaluated = variant.train.evaluations * (len(data.val) if data.val is not None else 0)
        evaluated += len(data.test) if data.test is not None else 0
        share = max(cost_of(variant.network.graph).flops, 1) / max(cost_of(timed.network.graph).flops, 1)
        trained = epochs * len(data.train) / stages["step"].images_per_second
        alone += share * (trained + evaluated / stages["evaluation"].images_per_second)
    at_once, one = placement.concurrent, stages["step"].images_per_second
    by_pair = {(each.threads, each.concurrent): each for each in placements}
    assumed = Measured(placement.threads, at_once, at_once * one)
    together = by_pair.get((placement.threads, at_once), assumed).over(len(plan.distinct) * len(plan.seeds))
    return alone * len(plan.seeds) * one / together


def _notes(settled: Resolved, subject: Subject, compile: bool) -> Iterable[str]:
    numerics = settled.numerics
    if numerics.compile and not compile:
        yield "The study compiles its steps; these are eager. --compile measures it."
    if numerics.devices > 1:
        yield f"The study shares a batch between {numerics.devices} devices; this is the whole batch on one."
    if subject.trial.trainable.frozen:
        yield "Some of the network is frozen: what its backward pass costs is not counted."
    for node, operations in cost_of(subject.trial.graph).uncounted.items():
        yield f"{node}: not counted in FLOPs: {', '.join(operations)}"
