"""What the nodes of a cluster hold, or the one machine that there is; what their GPUs are; and which can't be used."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ablate.code import code_digest
from ablate.compiling import why_not
from ablate.errors import UserError
from ablate.numerics import Numerics, fastest_precision
from ablate.store import is_study

NodeList = Sequence[Mapping[str, Any]]
"""As ``ray.nodes()`` gives them: ``Alive``, and ``Resources`` with CPU, GPU and memory (bytes) where there are some."""
UNIT = 10_000
"""Ray counts resources in whole steps of so many to one: a sixth of a GPU is 1,666 of them."""
SHARES = 100
"""How many trials may share a GPU."""
PATIENCE = 300.0
"""Seconds until a GPU of the cluster must have answered: a worker may have to start, and an image to be fetched."""


def alive(nodes: NodeList) -> list[Mapping[str, float]]:
    """The resources of the nodes that are there."""
    return [node["Resources"] for node in nodes if node["Alive"]]


def total(nodes: NodeList, resource: str) -> int:
    """How much of a resource all nodes have together."""
    return sum(int(there.get(resource, 0)) for there in alive(nodes))


def room(nodes: NodeList, cpus: float, gpus: float = 0.0, memory: int = 0, devices: int = 1) -> int:
    """How many trials that hold so much fit onto the nodes at once.

    What one device of a trial holds is on one node, and a share of a GPU is of one GPU.
    """
    need = {"CPU": cpus / devices, "GPU": gpus / devices, "memory": memory / devices}
    return sum(_fitting(need, there) for there in alive(nodes)) // devices


def _fitting(need: Mapping[str, float], there: Mapping[str, float]) -> int:
    counts = []
    for name, amount in need.items():
        each, has = int(amount * UNIT + 1e-6), int(there.get(name, 0) * UNIT + 1e-6)
        if name == "GPU" and 0 < each < UNIT:
            counts.append(has // UNIT * (UNIT // each))
        elif each:
            counts.append(has // each)
    return min(counts, default=0)


def memory_here() -> int:
    """Bytes of main memory that this process may use: the machine's, or its container's. 0 where that is not known."""
    if sys.platform == "win32":
        return 0
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory/memory.limit_in_bytes"))
    return min([machine, *(int(limit) for path in limits if (limit := _read(path)).isdigit())])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


@dataclass(frozen=True)
class Gpu:
    """What the GPU that trials run on is: its name, the precision that it is fastest in, and why it can't compile."""

    name: str
    precision: str
    why_not: str | None


def gpu_here() -> Gpu | None:
    """This machine's GPU; None where torch sees none."""
    if not torch.cuda.is_available():
        return None
    return Gpu(torch.cuda.get_device_name(), fastest_precision("cuda"), why_not("cuda"))


def gpu_of_the_cluster() -> Gpu | None:
    """A GPU of the Ray cluster that this process has joined and that has one: the head itself often has none."""
    import ray

    answer = ray.remote(num_cpus=0, num_gpus=1 / SHARES, max_retries=3)(gpu_here).remote()
    try:
        found: Gpu | None = ray.get(answer, timeout=PATIENCE)
    except (ray.exceptions.RayError, TimeoutError) as error:
        ray.cancel(answer)
        raise UserError(f"no GPU of the cluster could be asked what it is: {type(error).__name__}: {error}") from None
    return found


def unfit(numerics: Numerics, folder: Path, code: str) -> str | None:
    """Why this process can't run the study's trials as another would; None where it can."""
    if torch.__version__ != numerics.torch:
        return f"it has torch {torch.__version__}, and the study runs with {numerics.torch}"
    if code_digest() != code:
        return "it has another version of ablate"
    if numerics.device == "cuda":
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device"
        if name != numerics.device_name:
            return f"it has {name}, and the study runs on {numerics.device_name}"
    elif numerics.precision == "bf16" and fastest_precision("cpu") != "bf16":
        return "its processor has no bf16, in which the study runs"
    if not is_study(folder):
        return f"it does not see the study's folder, {folder}: it must be shared"
    return None
