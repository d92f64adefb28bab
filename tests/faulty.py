"""Blocks with a fault, in a module of their own, which workers can import."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from torch import Tensor

from ablate.block import Block, BlockParams, Shape


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
