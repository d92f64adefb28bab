"""Measured latency: seconds of a forward pass, of a training step, of each node.

What is measured depends on the machine, and on what else it does. So: a few runs to warm up, which do not count; then
the median and the quartiles of at least ``LEAST_RUNS`` runs and ``LEAST_SECONDS`` seconds; several networks in turn,
run by run, so that a machine that slows down slows all of them; on a GPU the clock is read when the GPU is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional as F

from ablate.builder import seed_noise

WARM_UP = 3
LEAST_RUNS = 11
LEAST_SECONDS = 1.0
MOST_RUNS = 1_000

Clock = Callable[[], float]
"""Seconds, of which only differences matter."""


@dataclass(frozen=True)
class Latency:
    """Seconds a call: the median of ``runs`` calls, and the quartiles (``high - low`` is the interquartile range)."""

    median: float
    low: float
    high: float
    runs: int


def summary(seconds: Sequence[float]) -> Latency:
    """Median and quartiles, by linear interpolation between the sorted values. ``ValueError`` for none."""
    if not seconds:
        raise ValueError("no run was timed")
    ordered = sorted(seconds)
    low, median, high = (_quantile(ordered, share) for share in (0.25, 0.5, 0.75))
    return Latency(median, low, high, len(ordered))


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def timed(
    calls: Mapping[str, Callable[[], object]],
    *,
    clock: Clock = time.perf_counter,
    done: Callable[[], None] = lambda: None,
    least_runs: int = LEAST_RUNS,
    least_seconds: float = LEAST_SECONDS,
) -> dict[str, Latency]:
    """The latency of each call, by name; they take turns. ``done`` waits for the device before the clock is read.

    It ends when every call has been made ``least_runs`` times and for ``least_seconds``, or ``MOST_RUNS`` times.
    """

    def once(call: Callable[[], object]) -> float:
        done()
        began = clock()
        call()
        done()
        return clock() - began

    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    while any(_wanting(each, least_runs, least_seconds) for each in seconds.values()):
        for name, call in calls.items():
            seconds[name].append(once(call))
    return {name: summary(each) for name, each in seconds.items()}


def _wanting(seconds: Sequence[float], least_runs: int, least_seconds: float) -> bool:
    return len(seconds) < MOST_RUNS and (len(seconds) < least_runs or sum(seconds) < least_seconds)


def waiter(device: str) -> Callable[[], None]:
    """What waits for the device: a GPU's calls return before it has done what they ask for."""
    return torch.cuda.synchronize if device == "cuda" else lambda: None


class Bench:
    """A network and a batch of random images on a device, for ``timed``.

    Images are (batch, C, H, W) in fp32. The network's weights and running statistics change as it trains.
    """

    def __init__(
        self,
        network: fx.GraphModule,
        input_shape: tuple[int, ...],
        batch: int,
        device: str = "cpu",
        channels_last: bool = True,
    ) -> None:
        self.network = network.to(device)
        noise = torch.Generator().manual_seed(0)
        self.images = torch.rand(batch, *input_shape, generator=noise).to(device)
        if channels_last and self.images.ndim == 4:
            self.network.to(memory_format=torch.channels_last)
            self.images = self.images.contiguous(memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD([*self.network.parameters()], lr=1e-3)

    def forward(self) -> None:
        """A forward pass in evaluation mode."""
        self.network.eval()
        with torch.inference_mode():
            self.network(self.images)

    def step(self) -> None:
        """A training step: forward, cross-entropy, backward, and plain SGD."""
        self.network.train()
        seed_noise(self.network, 0, 0)
        self.optimizer.zero_grad()
        scores = self.network(self.images)
        loss: Tensor = F.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long, device=scores.device))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def by_node(
        self, *, clock: Clock = time.perf_counter, done: Callable[[], None] = lambda: None
    ) -> dict[str, Latency]:
        """The latency of each node in a forward pass. Their sum is more than the network's: each is waited for."""
        self.network.eval()
        seconds: dict[str, list[float]] = {}
        with torch.inference_mode():
            for run in range(WARM_UP + LEAST_RUNS):
                _Stopwatch(self.network, seconds if run >= WARM_UP else {}, clock, done).run(self.images)
        return {name: summary(each) for name, each in seconds.items()}


class _Stopwatch(fx.Interpreter):
    """Runs a network call by call and writes down how long each took, under its node's name."""

    def __init__(
        self, network: fx.GraphModule, seconds: dict[str, list[float]], clock: Clock, done: Callable[[], None]
    ) -> None:
        super().__init__(network)
        self.names = network.meta.get("nodes", {})
        self.seconds, self.clock, self.done = seconds, clock, done

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.done()
        began = self.clock()
        output = super().call_module(target, args, kwargs)
        self.done()
        self.took = self.clock() - began
        return output

    def run_node(self, n: fx.Node) -> Any:
        output = super().run_node(n)
        if n.op == "call_module":
            self.seconds.setdefault(self.names.get(n.name, str(n.target)), []).append(self.took)
        return output
