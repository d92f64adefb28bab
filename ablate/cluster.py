"""The nodes of a Ray session as trials see them, and what becomes of workers on them.

Nodes may join and leave in the midst of a sweep. One on which the study's numbers would come out otherwise, or that
does not see its folder, is given no trials.
"""

from __future__ import annotations

import re
import time
from typing import Any

import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ablate.driving import Driver
from ablate.errors import Problem
from ablate.placing import Placement, slots

LOOK = 2.0
"""Seconds between two looks at which nodes there are."""
DEATHS = tuple(
    kind
    for kind in vars(exceptions).values()
    if isinstance(kind, type)
    and issubclass(kind, exceptions.RayError)
    and not issubclass(kind, exceptions.RayTaskError)
    and kind is not exceptions.RayError
)
"""What Ray raises of a worker that is no more; all else is raised by what it ran."""


def died_because(error: BaseException) -> tuple[bool, str]:
    """Whether a worker was ended for want of memory; and what became of it, in words."""
    text = str(error)
    # of other deaths Ray says, too, that the system's OOM killer may have been it
    if isinstance(error, exceptions.OutOfMemoryError) or "NODE_OUT_OF_MEMORY" in text or "low on memory" in text:
        return True, "its node ran low on memory, and Ray ended its worker"
    if any(words in text for words in ("node has died", "node was terminated", "node died", "node is dead")):
        return False, "its node died"
    if isinstance(error, exceptions.RayActorError):
        return False, "its worker died"
    return False, _last_line(text)


def not_begun_because(error: BaseException) -> tuple[str, str] | None:
    """Where a worker could not even begin, as its node's address, and why; None where it had begun."""
    if not getattr(error, "actor_init_failed", False):
        return None
    found = re.search(r"\bip=([0-9A-Fa-f.:]+)", str(error))
    return found[1] if found else "", _last_line(str(error))


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing says why"])[-1][:300]


class Nodes:
    """The nodes of the session. ``stated``: how many trials at once, if somebody said so."""

    def __init__(self, placement: Placement, stated: int | None = None) -> None:
        self._placement, self._stated = placement, stated
        self._excluded: dict[str, Any] = {}
        """By id, with what holds its cores."""
        self._looked = time.monotonic()
        self._alive = self._there()

    def room(self) -> int:
        """How many trials may run, or wait to be placed, at once."""
        return self._stated if self._stated is not None else max(1, slots(self._placement, self._fit()))

    @property
    def cores(self) -> int:
        """What each trial may use where they share a node's cores evenly."""
        held = [(node["Resources"]["CPU"], slots(self._placement, [node])) for node in self._fit()]
        return max(1, min((int(cores) // count for cores, count in held if count), default=1))

    def whole(self, on_gpu: bool) -> dict[str, float]:
        """All that a trial alone on its GPU, or on its node, is given."""
        if on_gpu:
            return {"GPU": 1.0}
        return {"CPU": max((node["Resources"]["CPU"] for node in self._fit()), default=1.0)}

    def look(self, driver: Driver) -> None:
        """Every few seconds: who has joined, who has left."""
        if time.monotonic() - self._looked < LOOK:
            return
        before, self._alive, self._looked = self._alive, self._there(), time.monotonic()
        for id in self._alive.keys() - before.keys():
            driver.tell("node", name=self._alive[id]["NodeManagerHostname"], change="joined", why="")
        for id in before.keys() - self._alive.keys():
            driver.tell("node", name=before[id]["NodeManagerHostname"], change="left", why="")

    def exclude_at(self, address: str, why: str, driver: Driver) -> None:
        """``exclude``, of the node with that address; where there is none, of all, since nothing says which it was."""
        of_it = [id for id, node in self._alive.items() if node["NodeManagerAddress"] == address]
        for id in of_it or list(self._alive):
            self.exclude(id, why, driver)

    def exclude(self, id: str, why: str, driver: Driver) -> None:
        """No more trials for this node: something that does nothing holds its cores for as long as the sweep lasts."""
        if id in self._excluded or id not in self._alive:
            return
        node = self._alive[id]
        self._excluded[id] = _held(id, node["Resources"]["CPU"])
        driver.tell("node", name=node["NodeManagerHostname"], change="unfit", why=why)
        if not slots(self._placement, self._fit()):
            message = f"no node can run this study: {node['NodeManagerHostname']}: {why}"
            hint = "install the same versions on all nodes, or sweep on one kind of them"
            driver.refused([Problem(message, hint=hint)])

    def release(self) -> None:
        """Give back the cores of excluded nodes."""
        for holder in self._excluded.values():
            ray.kill(holder)

    def _fit(self) -> list[dict[str, Any]]:
        return [node for id, node in self._alive.items() if id not in self._excluded]

    def _there(self) -> dict[str, dict[str, Any]]:
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        return {node["NodeID"]: node for node in nodes if node["Alive"] and node["Resources"].get("CPU")}


def _held(id: str, cpus: float) -> Any:
    """An actor that holds so many cores of that node."""
    here = NodeAffinitySchedulingStrategy(node_id=id, soft=False)
    holder: Any = ray.remote(num_cpus=cpus)(_Holder)
    return holder.options(scheduling_strategy=here).remote()


class _Holder:
    """Does nothing, where nothing is to be done."""
