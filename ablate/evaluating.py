"""A network on a split it is not trained on: in inference mode, in the largest batches that fit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ablate.data.batches import evaluation_batches
from ablate.data.dataset import Examples, ImageData
from ablate.data.on_device import OnDevice
from ablate.faults import out_of_memory
from ablate.graph import INPUT, Graph
from ablate.numerics import Numerics, autocast

LARGEST_BATCH = {"cpu": 512, "cuda": 4096}
"""Larger ones gain nothing: every unit has long been busy."""
CPU_BYTES = 1 << 30
"""What activations may take on a CPU, in bytes: trials share its memory. On a CUDA device it is an eighth of it all."""


@dataclass
class Evaluation:
    """Plain cross-entropy in nats, its mean and per example; the predicted classes; accuracy in percent."""

    loss: float
    accuracy: float
    predicted: np.ndarray[Any, Any]
    losses: np.ndarray[Any, Any]

    def metrics(self, split: str) -> dict[str, float]:
        return {
            f"{split}.loss": self.loss,
            f"{split}.accuracy": self.accuracy,
            f"{split}.error": 100.0 - self.accuracy,
        }


def evaluate(
    network: nn.Module, split: Examples | OnDevice, data: ImageData, numerics: Numerics, precision: str, batch_size: int
) -> Evaluation:
    """The whole split, in its own order; ``OnDevice`` where it is evaluated more than once.

    The batch is halved where it does not fit after all.
    """
    try:
        return _evaluated(network, split, data, numerics, precision, batch_size)
    except Exception as error:
        if batch_size == 1 or not out_of_memory(error):
            raise
    torch.cuda.empty_cache()
    return evaluate(network, split, data, numerics, precision, batch_size // 2)


@torch.inference_mode()
def _evaluated(
    network: nn.Module, split: Examples | OnDevice, data: ImageData, numerics: Numerics, precision: str, batch_size: int
) -> Evaluation:
    network.eval()
    layout = torch.channels_last if numerics.channels_last else torch.contiguous_format
    predicted, losses = [], []
    for x, y in evaluation_batches(split, data, batch_size, numerics.device):
        with autocast(numerics.device, precision):
            scores = network(x.to(memory_format=layout)).float()
        predicted.append(scores.argmax(1))
        losses.append(F.cross_entropy(scores, y, reduction="none"))
    guesses, nats = torch.cat(predicted).cpu().numpy(), torch.cat(losses).cpu().numpy()
    accuracy = 100.0 * float(np.mean(guesses == split.labels))
    return Evaluation(float(nats.astype(np.float64).mean()), accuracy, guesses, nats)


def largest_batch(graph: Graph, device: str) -> int:
    """The largest power of two of examples whose activations fit, by the graph and the device alone."""
    room = CPU_BYTES
    if device == "cuda":
        room = torch.cuda.get_device_properties(torch.device(device)).total_memory // 8
    fits = max(1, min(LARGEST_BATCH[device], room // _bytes_alive(graph)))
    return 1 << (fits.bit_length() - 1)


def _bytes_alive(graph: Graph) -> int:
    """The most that values between nodes take at once in evaluation, in bytes for one example in fp32."""
    calls = graph.in_execution_order
    readers = Counter(source for node in calls for source in node.inputs) + Counter([graph.output])
    size = {INPUT: 4 * prod(graph.input_shape), **{node.name: 4 * prod(node.shape) for node in calls}}
    alive = most = size[INPUT]
    for node in calls:
        alive += size[node.name]
        most = max(most, alive)
        for source in node.inputs:
            readers[source] -= 1
            alive -= size[source] if readers[source] == 0 else 0
    return most
