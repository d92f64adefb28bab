"""What validation decides in a training: when it stops, and the weights of which epoch are reported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ablate.recipe import EarlyStopping
from ablate.training_state import put_tensors, tensors_of


class Stopping:
    """Early stopping: ``patience`` epochs without an improvement beyond ``threshold``, looked at ``every`` so many."""

    def __init__(self, spec: EarlyStopping, every: int = 1) -> None:
        self.spec, self.every = spec, every
        self.sign = -1.0 if spec.monitor.endswith("accuracy") else 1.0
        self.best = math.inf
        self.waited = 0

    def done(self, row: Mapping[str, float]) -> bool:
        """Whether training ends after the epoch of this row; one without the metric decides nothing."""
        if self.spec.monitor not in row:
            return False
        value = self.sign * row[self.spec.monitor]
        margin = self.spec.threshold * (abs(self.best) if self.spec.mode == "relative" else 1.0)
        if math.isfinite(value) and (math.isinf(self.best) or value < self.best - margin):
            self.best, self.waited = value, 0
        else:
            self.waited += self.every
        return self.waited >= self.spec.patience

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]


class Best:
    """The weights of the epoch with the highest validation accuracy, the first of equals."""

    def __init__(self) -> None:
        self.accuracy = -math.inf
        self.epoch = 0
        """0 where no epoch had an accuracy."""
        self.weights: dict[str, Tensor] = {}

    def look(self, row: Mapping[str, float], network: nn.Module) -> None:
        """Remember the network's weights if they are the best so far."""
        accuracy = row.get("val.accuracy", -math.inf)
        if accuracy > self.accuracy:
            self.accuracy, self.epoch = accuracy, int(row["epoch"])
            self.weights = {name: tensor.clone() for name, tensor in tensors_of(network).items()}

    def put(self, network: nn.Module) -> None:
        put_tensors(network, self.weights)

    def state(self) -> dict[str, Any]:
        return {"accuracy": self.accuracy, "epoch": self.epoch, "weights": self.weights}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.accuracy, self.epoch, self.weights = state["accuracy"], state["epoch"], state["weights"]
