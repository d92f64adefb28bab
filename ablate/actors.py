"""A trial whose batches several devices share, through Ray: an actor for each device, in the trial's placement group.

``processes`` says how they work together; here they may be on several machines. An actor that dies with its node fails
the trial, which is then repeated; all of them end with the worker that started them.
"""

from __future__ import annotations

import platform
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.util import get_current_placement_group, get_node_ip_address
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ablate.checkpoints import Checkpoints
from ablate.errors import Problem
from ablate.nodes import unfit
from ablate.parallel import meeting_place
from ablate.placing import Placement
from ablate.processes import SILENCE, Member, Message, together
from ablate.train import Outcome, Row, Trial


def bundles(placement: Placement) -> tune.PlacementGroupFactory:
    """What a trial holds, by its devices. The first bundle is the watching worker's."""
    held = {"CPU": placement.cpus, "GPU": placement.gpus, "memory": placement.memory}
    each = {resource: amount / placement.devices for resource, amount in held.items() if amount}
    return tune.PlacementGroupFactory([{}, *[each] * placement.devices])


class MemberThere(Member):
    """One rank of a trial, on a node that may not be fit for it."""

    def __init__(self, folder: Path, code: str, rank: int, trial: Trial, *given: Any, **more: Any) -> None:
        self._unfit = unfit(trial.numerics, folder, code)
        super().__init__(rank, trial, *given, **more)

    def next(self) -> Message:
        return [Problem(f"{platform.node()} can't run this study: {self._unfit}")] if self._unfit else super().next()


def epochs_by_actors(trial: Trial, data: Any, cores: int, checkpoints: Checkpoints) -> Generator[Row, None, Outcome]:
    """As ``train.epochs``, by an actor for each bundle of this worker's placement group.

    ``data``: a reference; ``cores``: what the trial may use, by all of its actors.
    """
    numerics, group = trial.numerics, get_current_placement_group()
    assert group is not None, "the trial asked for bundles"
    store, address = meeting_place(get_node_ip_address())  # type: ignore[no-untyped-call]
    kind: Any = ray.remote(num_cpus=numerics.threads, num_gpus=1 if numerics.device == "cuda" else 0)(MemberThere)
    members: list[Any] = []
    try:
        for rank in range(numerics.devices):
            place = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank)
            member = kind.options(scheduling_strategy=place)
            about = (checkpoints.folder, checkpoints.code, rank, trial, data, address, cores)
            members.append(member.remote(*about, checkpoints=checkpoints))
        return (yield from together(_messages(members)))
    finally:
        for member in members:
            ray.kill(member)
        del store


def _messages(members: list[Any]) -> Iterator[tuple[int, Message] | None]:
    pending = {member.next.remote(): rank for rank, member in enumerate(members)}
    while True:
        done, _ = ray.wait(list(pending), timeout=SILENCE) if pending else ([], [])
        if not done:
            yield None
        for reference in done:
            rank, said = pending.pop(reference), ray.get(reference)
            if isinstance(said, dict):  # an epoch's row: there is more to come
                pending[members[rank].next.remote()] = rank
            yield rank, said
