"""What ``auto`` comes to: the numerics profile of a study, and how its trials are placed, on this machine or a cluster.

A study that was begun keeps the profile that it was begun with: what is frozen in its folder stands in for ``auto``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ablate.compiling import Estimate, estimate, why_not, why_not_captured
from ablate.costing import cost_of
from ablate.data.dataset import DataSpec, ImageData
from ablate.design import StudyPlan
from ablate.design.variant import Variant
from ablate.errors import Problem, UserError
from ablate.fitting import not_fitting, not_fitting_at_once
from ablate.nodes import Gpu, NodeList, gpu_here, gpu_of_the_cluster, total
from ablate.numerics import Numerics, autocast, fastest_precision, process_settings
from ablate.placing import Placement, Stated, joined, nodes_for_trials, place
from ablate.store import begun_with
from ablate.train import Trial, time_steps, trial_of
from ablate.yamlfile import place_of

SLOW, LONG = 5e10, 600.0
"""Multiply-accumulates a second that a fast core trains; seconds. What is over sooner at that rate needs no measuring:
it would be over before that has paid, and its numerics do not hang on a stopwatch."""


@dataclass(frozen=True)
class Resolved:
    """A study's numerics profile, how its trials are placed, and what compiling would cost and save."""

    numerics: Numerics
    placement: Placement
    compiling: Estimate


def resolved(
    plan: StudyPlan,
    data_of: Callable[[DataSpec], ImageData],
    *,
    folder: Path | None = None,
    measure: bool = True,
    concurrent: int | None = None,
) -> Resolved:
    """What ``auto`` comes to for a study. ``UserError`` where this machine can't do what the spec states.

    ``folder`` is the study's, begun or not; ``measure``: time training steps where that pays; ``concurrent``: trials
    at once, over what the spec says.
    """
    frozen = plan.tree.get("numerics") or (begun_with(folder, plan.tree) if folder else None)
    numerics = on_this_machine(plan, frozen)
    execution = plan.execution
    open_threads = frozen is None and execution.threads == execution.cpus == "auto" and not numerics.deterministic
    stated = Stated(
        threads=None if open_threads else numerics.threads,
        concurrent=concurrent or _stated(execution.max_concurrent),
        cpus=_stated(execution.cpus),
        gpus=_stated(execution.gpus),
        memory=_stated(execution.memory) or 0,
    )
    too_many = not_fitting_at_once(plan, numerics, stated)
    if too_many:
        raise UserError(too_many)
    load = _load_of(plan, data_of)
    timed = measure and not numerics.deterministic and load.total / SLOW > LONG and _trains_here(numerics)
    trial = trial_of(load.largest, plan.seeds[0], numerics)
    data = data_of(load.largest.data)
    placement = place(trial, data, trials=load.trials, stated=stated, measure=timed)
    numerics = replace(numerics, threads=placement.threads)
    if plan.expected is not None and execution.compile == "auto":
        return Resolved(replace(numerics, compile=False), placement, Estimate(False, "each network is trained once"))
    if execution.compile != "auto" or frozen is not None:
        why = "stated" if execution.compile != "auto" else "as the study was begun"
        return Resolved(numerics, placement, Estimate(False, why))
    seconds: float | str = "not timed" if not measure else "the study is short"
    if timed:
        seconds = _seconds(replace(trial, numerics=numerics), data, load, placement)
    compiling = estimate(
        device=numerics.device,
        deterministic=numerics.deterministic,
        nodes=load.nodes,
        precision=trial.precision,
        trials=load.trials,
        concurrent=placement.concurrent,
        seconds=seconds,
    )
    refused = _uncapturable(plan, numerics) if compiling.worth else None
    if refused:
        compiling = replace(compiling, worth=False, why=refused)
    return Resolved(replace(numerics, compile=compiling.worth), placement, compiling)


def _stated(value: Any) -> Any:
    """None for what is left open."""
    return None if value == "auto" else value


def _trains_here(numerics: Numerics) -> bool:
    """Whether this machine has the device that trials run on: the head of a cluster may have none."""
    return numerics.device == "cpu" or torch.cuda.is_available()


def _uncapturable(plan: StudyPlan, numerics: Numerics) -> str | None:
    """Which of the study's networks can't be compiled, and why: a profile is one for all of them."""
    seen: set[str] = set()
    for variant in plan.distinct:
        graph = variant.network.graph
        if graph.fingerprint in seen:
            continue
        seen.add(graph.fingerprint)
        network = variant.network.built(plan.seeds[0]).train()
        with process_settings(numerics), autocast("cpu", numerics.stated(variant.train.precision)):
            why = why_not_captured(network, torch.zeros(2, *graph.input_shape))
        if why:
            return f"{variant.name}: {why}"
    return None


@dataclass(frozen=True)
class _Load:
    """What a study has to train: multiply-accumulates in all and in a trial of its largest variant, and how many."""

    total: float
    largest: Variant
    of_largest: float
    trials: int
    nodes: list[int]
    """Of each distinct network."""


def _load_of(plan: StudyPlan, data_of: Callable[[DataSpec], ImageData]) -> _Load:
    # a backward pass is two forward passes
    works = {
        variant.name: 3.0
        * max(cost_of(variant.network.graph).flops, 1)
        * len(data_of(variant.data).train)
        * variant.train.epochs
        for variant in plan.distinct
    }
    largest = max(plan.distinct, key=lambda variant: works[variant.name])
    graphs = {variant.network.graph.fingerprint: variant.network.graph for variant in plan.distinct}
    trials = plan.expected or len(plan.distinct) * len(plan.seeds)
    return _Load(
        total=sum(works.values()) / len(works) * trials,
        largest=largest,
        of_largest=works[largest.name],
        trials=trials,
        nodes=[len(graph.nodes) for graph in graphs.values()],
    )


def _seconds(trial: Trial, data: ImageData, load: _Load, placement: Placement) -> float | str:
    """How long the study trains, as it is placed; or why that is not known."""
    chosen = [
        way for way in placement.measured if (way.threads, way.concurrent) == (placement.threads, placement.concurrent)
    ]
    if chosen:
        images = len(data.train) * trial.train.epochs * load.total / load.of_largest
        return images / chosen[0].images_per_second
    if placement.failed:
        return "its steps could not be timed"
    try:
        with process_settings(trial.numerics):
            return time_steps(trial, data, 3) * load.total / load.of_largest / placement.concurrent
    except Exception as error:  # a block's bug: the certificate says it better
        return f"its steps could not be timed: {type(error).__name__}"


def on_this_machine(plan: StudyPlan, frozen: Mapping[str, Any] | None = None) -> Numerics:
    """The profile before anything is measured: a thread for each trial, eager. ``frozen`` stands in for ``auto``."""
    execution = plan.execution
    device, nodes = execution.device, nodes_for_trials()
    if device == "auto":
        device = "cuda" if (total(nodes, "GPU") if joined() else torch.cuda.is_available()) else "cpu"
    gpu = _gpu(nodes) if device == "cuda" else None
    precisions = {variant.train.precision for variant in plan.distinct}
    automatic = "auto" in precisions and not execution.deterministic
    threads = execution.threads
    if threads == "auto":
        threads = 1 if execution.cpus == "auto" else execution.cpus // execution.devices
    here = Numerics(
        threads=threads,
        channels_last=execution.channels_last,
        device=device,
        device_name=gpu.name if gpu else "",
        devices=execution.devices,
        precision=(gpu.precision if gpu else fastest_precision(device)) if automatic else "fp32",
        compile=execution.compile is True,
        deterministic=execution.deterministic,
    )
    left_open = {
        "threads": execution.threads == "auto",
        "compile": execution.compile == "auto" and not execution.deterministic,
        "precision": automatic,
    }
    kept = {key: frozen[key] for key, is_open in left_open.items() if is_open and frozen and key in frozen}
    here = replace(here, **kept)
    _check(plan, here, gpu, begun="threads" in kept)
    _check_frozen(plan, here)
    return here


def _gpu(nodes: NodeList) -> Gpu | None:
    """The GPU that trials run on: this machine's, or one of the cluster that it has joined."""
    if not joined():
        return gpu_here()
    return gpu_of_the_cluster() if total(nodes, "GPU") else None


def _check(plan: StudyPlan, numerics: Numerics, gpu: Gpu | None, begun: bool = False) -> None:
    """Everything that the spec states and the machine, or the cluster, can't do, or that contradicts itself."""
    execution, found = plan.execution, []

    def add(key: str, message: str, hint: str) -> None:
        found.append(Problem(message, f"execution.{key}", place_of(plan.tree, ("execution", key), key=False), hint))

    found += not_fitting(plan, numerics, begun=begun, has_gpu=gpu is not None)
    precisions = {variant.train.precision for variant in plan.distinct}
    if "auto" in precisions and numerics.precision in precisions:
        message = f"train.precision: auto comes to {numerics.precision} here, which another variant states"
        found.append(Problem(message, "train.precision", hint="state it in both: they are one recipe"))
    smallest = min(variant.train.batch_size for variant in plan.distinct)
    if smallest < 2 * numerics.devices > 2:
        add("devices", f"{numerics.devices} devices share batches of {smallest} images: at least 2 each", "fewer")
    missing = (gpu.why_not if gpu else why_not(numerics.device)) if numerics.compile else None
    if missing:
        add("compile", missing, "compile: false")
    if execution.deterministic and execution.compile is True:
        add("compile", "compiled is not deterministic: true, which is fp32 and eager", "leave one out")
    if execution.deterministic:
        stated = sorted({variant.train.precision for variant in plan.distinct} - {"auto", "fp32"})
        for precision in stated:
            add("deterministic", f"deterministic: true is fp32, and train.precision is {precision}", "leave one out")
    if found:
        raise UserError(found)


def _check_frozen(plan: StudyPlan, numerics: Numerics) -> None:
    """A study's own ``spec.yaml`` states the numerics that its trials were computed with; others would not compare."""
    frozen = plan.tree.get("numerics")
    if frozen is None:
        return
    here = numerics.as_dict()
    keys = dict.fromkeys([*frozen, *here])
    found = [
        Problem(
            f"the spec was frozen with {frozen.get(key)!r}, and here it is {here.get(key)!r}",
            f"numerics.{key}",
            place_of(plan.tree, ("numerics", key), key=False),
            "without numerics: it is resolved anew",
        )
        for key in keys
        if frozen.get(key) != here.get(key)
    ]
    if found:
        raise UserError(found)
