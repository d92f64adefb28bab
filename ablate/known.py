"""What is known of a variant before it is trained: counted on its graph, measured here, or told by a zero-cost score.

``params``, ``flops`` and ``activations`` are counted for one example, and need no network. ``memory``: bytes of
activations that a training step of the recipe keeps. ``latency``: seconds of a forward pass of ``BATCH`` images in
evaluation, the median of a second of them, in fp32, on the study's device. ``synflow``, ``grad_norm``, ``naswot``: the
scores of ``zero_cost``, of the network as the trial's seed starts it, with what the recipe freezes frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch
from torch import Tensor, fx

from ablate.costing import Bench, cost_of, memory_of, timed, waiter
from ablate.data.dataset import DataSpec, ImageData
from ablate.design.variant import Variant
from ablate.errors import Problem, UserError
from ablate.numerics import Numerics, process_settings
from ablate.space import STATIC_METRICS
from ablate.streams import generator
from ablate.trainable import freeze
from ablate.zero_cost import grad_norm, naswot, synflow

BATCH = 64
"""Images that latency and scores are taken on: enough for ``naswot`` to tell networks apart, in a part of a second."""


class Known:
    """The metrics of variants that no training is needed for.

    ``data_of`` loads the examples of a data section, and is asked for those scores alone that look at images.
    ``numerics``: the study's device, layout and threads; all is in fp32 whatever it trains in. ``seed`` is the trial's.
    """

    def __init__(self, data_of: Callable[[DataSpec], ImageData], numerics: Numerics, seed: int = 0) -> None:
        self.data_of, self.numerics, self.seed = data_of, numerics, seed
        self._batches: dict[tuple[object, ...], tuple[Tensor, Tensor]] = {}
        self._of_a_network: dict[str, Callable[[fx.GraphModule, Variant], float]] = {
            "synflow": lambda network, variant: synflow(network, self._blank(variant)),
            "grad_norm": lambda network, variant: grad_norm(network, *self._batch(variant)),
            "naswot": lambda network, variant: naswot(network, self._batch(variant)[0]),
            "latency": self._latency,  # the last: it is made for training, and changes the network
        }

    def values(self, variant: Variant, metrics: Collection[str]) -> dict[str, float]:
        """Those metrics by name. ``UserError`` says of each that can't be had why, and what to take instead."""
        found: dict[str, float] = {}
        graph, recipe = variant.network.graph, variant.train
        if any(metric in STATIC_METRICS for metric in metrics):
            cost = cost_of(graph)
            found |= {metric: getattr(cost, metric) for metric in STATIC_METRICS}
        if "memory" in metrics:
            batch, frozen = recipe.micro_batch or recipe.batch_size, variant.trainable.frozen
            found["memory"] = memory_of(graph, batch, frozen=frozen, channels_last=self.numerics.channels_last).saved
        if wanted := [metric for metric in self._of_a_network if metric in metrics]:
            with process_settings(self.numerics):
                found |= self._tried(variant, wanted)
        return {metric: found[metric] for metric in metrics}

    def _tried(self, variant: Variant, metrics: list[str]) -> dict[str, float]:
        found: dict[str, float] = {}
        problems: list[Problem] = []
        network = variant.network.built(self.seed)
        freeze(network, variant.trainable)
        network.to(self.numerics.device, memory_format=self._layout)  # type: ignore[call-overload]
        for metric in metrics:
            try:
                found[metric] = self._of_a_network[metric](network, variant)
            except UserError as error:
                problems += error.problems
            except Exception as error:  # whatever a block raises: that is this network's fault, and no other's
                problems.append(Problem(f"{metric} can't be had: a pass raises {type(error).__name__}: {error}"))
        if problems:
            raise UserError(problems)
        return found

    def _latency(self, network: fx.GraphModule, variant: Variant) -> float:
        bench = Bench(network, variant.shape, BATCH, self.numerics.device, self.numerics.channels_last)
        return timed({"": bench.forward}, done=waiter(self.numerics.device))[""].median

    @property
    def _layout(self) -> torch.memory_format:
        return torch.channels_last if self.numerics.channels_last else torch.contiguous_format

    def _blank(self, variant: Variant) -> Tensor:
        return torch.zeros(1, *variant.shape, device=self.numerics.device)

    def _batch(self, variant: Variant) -> tuple[Tensor, Tensor]:
        """Training images and labels: the same for all variants on the same data, since two batches do not compare.

        They are drawn, since images often come sorted by class, and are neither augmented nor mixed.
        """
        data = self.data_of(variant.data)
        key = (data.content_hash, data.mean, data.std)
        if key not in self._batches:
            rows = torch.randperm(len(data.train), generator=generator("known", "batch"))[:BATCH].numpy()
            images = torch.from_numpy(data.train.batch(rows)).float() / 255
            mean, std = (torch.tensor(values)[:, None, None] for values in (data.mean, data.std))
            images = ((images - mean) / std).to(self.numerics.device, memory_format=self._layout)
            self._batches[key] = images, torch.from_numpy(data.train.labels[rows]).to(self.numerics.device)
        return self._batches[key]
