"""Data parallel: what a process knows of the others that share each batch of a trial with it.

Each of them builds the same network, takes its share of each batch, and moves the weights by the gradient of the whole
batch's loss. So it is the recipe of one process, within rounding, but for what looks at a batch as a whole: batch norm
sees a share, and keeps the running statistics of rank 0; noise is drawn by each on its own.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from ablate.data.batches import share_of

Made = TypeVar("Made")
Address = tuple[str, int]
"""Host and port of the store at which the ranks of a trial meet."""

PATIENCE = timedelta(hours=2)
"""How long a rank waits for another, which may be evaluating. Those that crash or die are seen at once, by who started
them: this ends none but what really hangs."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that share a trial's batches: ``rank`` of ``count``. By itself it is the only one.

    What is done together is done by all of them, in the same order, or they wait for one another.
    """

    rank: int = 0
    count: int = 1

    def share(self, examples: int) -> slice:
        """Which of a batch's examples are this process's."""
        return share_of(examples, self.rank, self.count)

    @property
    def stream(self) -> tuple[int, ...]:
        """What the names of its streams of noise end in. Rank 0 draws what a single process would."""
        return (self.rank,) if self.rank else ()

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network, whose backward pass gives each parameter the mean of its gradients over the ranks."""
        if self.count == 1:
            return network
        on_cuda = next(network.parameters()).is_cuda
        return nn.parallel.DistributedDataParallel(
            network, device_ids=[torch.cuda.current_device()] if on_cuda else None
        )

    def add_up(self, *tensors: Tensor) -> None:
        """Each tensor becomes its sum over the ranks, the same bits on all."""
        if self.count > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def first(self, make: Callable[[], Made]) -> Made:
        """What rank 0 makes; the others wait, and are given the same: so all decide alike."""
        if self.count == 1:
            return make()
        made = [make() if self.rank == 0 else None]
        dist.broadcast_object_list(made, src=0)
        return made[0]  # type: ignore[return-value]


ALONE = Ranks()


def gathering(network: nn.Module, *, last: bool) -> AbstractContextManager[None]:
    """For each of several passes over parts of a batch: gradients add up, and ranks share them in the ``last`` one."""
    if last or not isinstance(network, nn.parallel.DistributedDataParallel):
        return nullcontext()
    return network.no_sync()


def join(rank: int, count: int, address: Address, device: str) -> Ranks:
    """Meet the other ranks at a store: by gloo on CPUs, by nccl on CUDA devices, of which the current one is ours."""
    host, port = address
    if host == "127.0.0.1":
        _stay_on_loopback()
    store = TCPStore(host, port, count, is_master=False)
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo",
        store=store,
        rank=rank,
        world_size=count,
        timeout=PATIENCE,
        device_id=torch.device("cuda", torch.cuda.current_device()) if device == "cuda" else None,
    )
    return Ranks(rank, count)


def meeting_place(host: str) -> tuple[TCPStore, Address]:
    """A store on this machine, at a free port of that address alone. It lasts as long as it is held."""
    server = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    port = server.getsockname()[1]
    store = TCPStore(host, port, is_master=True, wait_for_workers=False, master_listen_fd=server.detach())
    return store, (host, port)


def _stay_on_loopback() -> None:
    """gloo listens where the machine's own name leads, which on a machine without a network may be nowhere."""
    names = {name for _, name in socket.if_nameindex()}
    for loopback in ("lo", "lo0"):
        if loopback in names:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
            return
