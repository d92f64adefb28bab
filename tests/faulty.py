"""Blocks with a fault, in a module of their own, which workers can import."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from ablate.block import Block, BlockParams, Shape
from ablate.data import loading


class Fatal(Block):
    """Kills its worker's process once; ``marker`` is the file that remembers."""

    name = "fatal"

    class Params(BlockParams):
        marker: str

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        self.marker = Path(params.marker)

    def forward(self, x: Tensor) -> Tensor:
        if "default_worker" in sys.argv[0] and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return x * 1


class Faulty(Block):
    """Goes wrong in training, each time, in the way that is asked for; ``log`` gets a line each time."""

    name = "faulty"

    class Params(BlockParams):
        how: Literal["raises", "explodes", "fills", "hangs", "dies"]
        log: str

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        self.how, self.log = params.how, Path(params.log)

    def forward(self, x: Tensor) -> Tensor:
        if not _in_a_trial():
            return x * 1
        with self.log.open("a") as file:
            file.write(f"{self.how}\n")
        if self.how == "raises":
            raise RuntimeError("a block's own bug")
        if self.how == "fills":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if self.how == "hangs":
            threading.Event().wait()
        if self.how == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        return x * torch.inf


def _in_a_trial() -> bool:
    """Whether a trial trains here; the certificate's passes are none."""
    frame = sys._getframe()
    while frame := frame.f_back:
        if frame.f_code.co_name == "_train_epoch":
            return True
    return False


class SecondFails(Block):
    """On the second of the processes that share a trial: raises in training, or is killed."""

    name = "second_fails"

    class Params(BlockParams):
        killed: bool = False

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        self.killed = params.killed

    def forward(self, x: Tensor) -> Tensor:
        if self.training and dist.is_initialized() and dist.get_rank() == 1:
            if self.killed:
                os.kill(os.getpid(), signal.SIGKILL)
            raise RuntimeError("a bug on the second device")
        return x * 1


class Witness(Block):
    """Writes once what the process that trains it was given: its environment, threads, cores; whether it flushes."""

    name = "witness"

    class Params(BlockParams):
        file: str

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        self.file = Path(params.file)

    def forward(self, x: Tensor) -> Tensor:
        if "default_worker" in sys.argv[0] and not self.file.exists():
            tiny = torch.full((1 << 20,), 1e-40)  # large enough for every thread to have a part of it
            seen = {
                "environment": dict(os.environ),
                "threads": torch.get_num_threads(),
                "cores": loading._cores,
                "flushed": not bool((tiny * 1.0).any()),
            }
            self.file.write_text(json.dumps(seen))
        return x * 1


class Stubborn(Block):
    """Refuses to be trained in any process but the one that made it up."""

    name = "stubborn"

    class Params(BlockParams):
        process: int

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        self.process = params.process

    def forward(self, x: Tensor) -> Tensor:
        if os.getpid() != self.process:
            raise RuntimeError("not in this process")
        return x * 1
