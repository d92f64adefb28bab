"""What every peer is given, and what it prints."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from peers.handwritten import CBAM, ResNet20, SelfAttention

BATCH, LR, MOMENTUM, WEIGHT_DECAY = 128, 0.1, 0.9, 1e-4
"""The recipe of CNNtention's table 1, which is that of He et al., 2016."""
ATTENTION: dict[str, Callable[[int], nn.Module] | None] = {
    "resnet20": None,
    "self_attention": SelfAttention,
    "cbam": CBAM,
}
"""After each of the three stages: self-attention in a weighted residual, CBAM with reduction 16 in a plain one.

In float32 and contiguous memory, torch takes its unfused attention for the views that the block makes: it stores the
map of all pixels, as CNNtention's own code does.
"""

Images = np.ndarray[Any, np.dtype[np.uint8]]
Labels = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Seen:
    """What one process measured. The first epoch, which warms up, is apart from the others."""

    images_per_second: list[float]
    first_seconds: float
    epoch_seconds: float
    """The median of the other epochs."""
    loss: float
    """In training, of the last epoch: a loop that trains nothing would be fast."""
    peak_mib: float
    """The most memory that the process ever held."""
    extra: dict[str, float] = field(default_factory=dict)


def arguments(
    description: str | None, given: Sequence[str] | None = None, **more: dict[str, Any]
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", choices=tuple(ATTENTION), default="resnet20")
    parser.add_argument("--data", required=True, help="an .npz file: train_images (N, H, W, C), train_labels, test_…")
    parser.add_argument("--epochs", type=int, default=3, help="the first of which warms up (3)")
    parser.add_argument("--threads", type=int, default=2)
    for name, options in more.items():
        parser.add_argument(f"--{name}", **options)
    return parser.parse_args(given)


def split(file: str, name: str) -> tuple[Images, Labels]:
    """uint8 (N, C, H, W) and int64 (N,)."""
    with np.load(file) as arrays:
        images = np.ascontiguousarray(arrays[f"{name}_images"].transpose(0, 3, 1, 2))
        return images, arrays[f"{name}_labels"].astype(np.int64).reshape(-1)


def network(model: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return ResNet20(attention=ATTENTION[model])


def seen(seconds: Sequence[float], images: int, loss: float, **extra: float) -> Seen:
    """Of the seconds of each epoch, with ``images`` training images in each."""
    later = sorted(seconds[1:]) or list(seconds)
    median = later[len(later) // 2] if len(later) % 2 else sum(later[len(later) // 2 - 1 : len(later) // 2 + 1]) / 2
    return Seen([images / each for each in seconds[1:]], seconds[0], median, loss, peak_mib(), extra)


def peak_mib() -> float:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def say(measured: Seen) -> None:
    """The line of JSON, the last that the process prints."""
    print(json.dumps(asdict(measured)), flush=True)


class Laps:
    """Seconds from one call to the next, the first from when it was made."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = time.perf_counter()

    def start(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now
