"""Whether what a spec states of a trial fits: onto this machine, or onto the cluster that was joined."""

from __future__ import annotations

from ablate.design import StudyPlan
from ablate.errors import Problem
from ablate.nodes import NodeList, alive, room, total
from ablate.numerics import Numerics
from ablate.placing import Stated, joined, nodes_for_trials
from ablate.units import size_text
from ablate.yamlfile import place_of


def not_fitting(plan: StudyPlan, numerics: Numerics, *, begun: bool, has_gpu: bool) -> list[Problem]:
    """Why not even one trial fits; each of its devices must, onto one node.

    ``begun``: its threads are those that the study was begun with; ``has_gpu``: torch sees one where trials run.
    """
    execution, nodes, devices = plan.execution, nodes_for_trials(), numerics.devices
    needed, cpu, found = numerics.threads * devices, numerics.device == "cpu", []
    here = "on a node of the cluster" if joined() else "here"

    def add(key: str, message: str, hint: str = "auto") -> None:
        found.append(_problem(plan, key, message, hint))

    if not cpu and (not has_gpu or room(nodes, 0, devices, devices=devices) < 1):
        there, where = total(nodes, "GPU") if has_gpu else 0, "in the cluster" if joined() else "here"
        message = f"{there} CUDA devices {where}" if there else f"no CUDA device {where}"
        add("devices" if there else "device", message, "device: auto, or cpu")
    if cpu and execution.gpus != "auto":
        add("gpus", f"no CUDA device {here}, and so no share of one")
    if cpu and room(nodes, needed, devices=devices) < 1:
        taken = f"{numerics.threads} threads" + (f" on {devices} devices" if devices > 1 else "")
        hint = "the study was begun with them: another --out begins anew" if begun else "auto"
        from_cpus = execution.threads == "auto" and execution.cpus != "auto" and not begun
        message = f"{taken} a trial are more than {_most('CPU', nodes)} {here}: that is many times slower"
        add("cpus" if from_cpus else "threads", message, hint)
    elif execution.cpus != "auto" and execution.cpus < needed:
        add("cpus", f"{execution.cpus} CPUs are fewer than the {needed} threads of a trial of this study")
    elif execution.cpus != "auto" and room(nodes, execution.cpus, devices=devices) < 1:
        add("cpus", f"{execution.cpus} CPUs a trial are more than {_most('CPU', nodes)} {here}")
    if execution.memory != "auto" and room(nodes, 0, 0, execution.memory, devices) < 1:
        add("memory", f"{size_text(execution.memory)} a trial are more than {_most('memory', nodes)} {here}")
    return found


def not_fitting_at_once(plan: StudyPlan, numerics: Numerics, stated: Stated) -> list[Problem]:
    """Why there is no room for as many trials at once as are stated. In a cluster there may be later: it may grow."""
    if stated.concurrent is None or joined():
        return []
    nodes, devices = nodes_for_trials(), numerics.devices
    cpus, limits = stated.cpus or numerics.threads * devices, []
    if numerics.device == "cpu" and room(nodes, cpus, devices=devices) < stated.concurrent:
        each = f"{cpus} {'CPU' if stated.cpus else 'thread'}{'s' if cpus > 1 else ''} each"
        limits.append(f"{each}, are more than {_most('CPU', nodes)} here: that is many times slower")
    if stated.gpus and room(nodes, 0, stated.gpus, devices=devices) < stated.concurrent:
        limits.append(f"{stated.gpus:g} GPUs each, are more than the {total(nodes, 'GPU')} GPUs here")
    if stated.memory and room(nodes, 0, 0, stated.memory, devices) < stated.concurrent:
        limits.append(f"{size_text(stated.memory)} each, are more than {_most('memory', nodes)} here")
    return [
        _problem(plan, "max_concurrent", f"{stated.concurrent} trials at once, {limit}", "auto") for limit in limits
    ]


def _problem(plan: StudyPlan, key: str, message: str, hint: str) -> Problem:
    return Problem(message, f"execution.{key}", place_of(plan.tree, ("execution", key), key=False), hint)


def _most(resource: str, nodes: NodeList) -> str:
    """``the 5 cores``: of the node that has most of them."""
    there = max((node.get(resource, 0) for node in alive(nodes)), default=0)
    return f"the {there:g} cores" if resource == "CPU" else f"the {size_text(there)} that trials may take"
