"""What a training has come to after an epoch, as plain data; and a training that goes on from there.

With it a trial that was interrupted ends as one that was not, to the last bit on a CPU. Of random numbers nothing is
kept: every stream, those of the whole process included, is seeded anew for each epoch and step by what it is for.
"""

from __future__ import annotations

import hashlib
import pickle
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from ablate.checkpoints import State

if TYPE_CHECKING:
    from ablate.train import Run

_OF_EVERY_MODULE = frozenset(vars(nn.Module())) | {"noise_seed", "noise_calls"}
"""Attributes that are no memory of the module's own: torch's, and what each step sets."""


def state_of(run: Run) -> State | None:
    """The state of a run between two epochs; None where a module remembers something else, which can't be kept."""
    if run.memory is None or memory_of(run.network) != run.memory:
        return None
    average, stopping, best = run.average, run.stopping, run.best
    return {
        "network": tensors_of(run.network),
        "average": None if average is None else tensors_of(average),
        "optimizer": run.optimizer.state_dict(),
        "schedule": moving(run.schedule.state_dict()),
        "scaler": run.scaler.state_dict(),
        "stopping": None if stopping is None else stopping.state(),
        "best": None if best is None else best.state(),
        "rows": run.rows,
        "step": run.step,
        "lr": run.lr,
        "test_readings": run.test_readings,
        "train_seconds": run.train_seconds,
        "seconds": run.seconds,
    }


def restore(run: Run, state: State) -> None:
    """Put a run that has just been made where ``state`` was taken."""
    put_tensors(run.network, state["network"])
    if run.average is not None:
        put_tensors(run.average, state["average"])
    run.optimizer.load_state_dict(state["optimizer"])  # after the schedule was made, which sets the first rate
    run.schedule.load_state_dict(state["schedule"])
    run.scaler.load_state_dict(state["scaler"])
    if run.stopping is not None:
        run.stopping.restore(state["stopping"])
    if run.best is not None:
        run.best.restore(state["best"])
    run.rows, run.step, run.lr = state["rows"], state["step"], state["lr"]
    run.test_readings, run.train_seconds = state["test_readings"], state["train_seconds"]
    run.began = time.monotonic() - state["seconds"]


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, those included that a ``state_dict`` leaves out."""
    return {name: tensor.detach() for name, tensor in (*network.named_parameters(), *network.named_buffers())}


def put_tensors(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy them to where they were."""
    own = tensors_of(network)
    for name, tensor in tensors.items():
        own[name].copy_(tensor)


def memory_of(network: nn.Module) -> str | None:
    """A digest of what modules hold besides the values of their tensors: a count of steps, a generator of their own.

    Where it has changed in training, no checkpoint would have everything. None where that can't be told, since a
    module holds what no pickle can: a generator function that was begun, a function of a function, a lock.
    """
    digest = hashlib.sha256()
    for name, tensor in tensors_of(network).items():
        digest.update(f"{name}: {tuple(tensor.shape)}".encode())
    for name, module in network.named_modules():
        if not isinstance(module, fx.GraphModule):
            for key, value in vars(module).items():
                if key not in _OF_EVERY_MODULE:
                    content = _as_bytes(value)
                    if content is None:
                        return None
                    digest.update(f"{name}.{key}: ".encode() + content)
    return digest.hexdigest()


def _as_bytes(value: Any) -> bytes | None:
    if isinstance(value, torch.Generator):
        value = value.get_state()
    try:
        return pickle.dumps(value)
    except Exception:  # whatever it holds
        return None


def moving(schedule: dict[str, Any]) -> dict[str, Any]:
    """The state of a schedule, or of several behind one another, but for the milestones, which the recipe states."""
    own = {key: value for key, value in schedule.items() if not isinstance(value, Counter)}
    parts = {"_schedulers": [moving(each) for each in own["_schedulers"]]} if "_schedulers" in own else {}
    return own | parts
