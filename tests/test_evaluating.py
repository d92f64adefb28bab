"""Evaluation: what it says does not depend on how it is cut into batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ablate import evaluating
from ablate.collect import Collector
from ablate.data.dataset import DataSpec, ImageData
from ablate.data.dataset import load as load_data
from ablate.evaluating import CPU_BYTES, LARGEST_BATCH, evaluate, largest_batch
from ablate.graph import Graph
from ablate.network import read_network
from ablate.numerics import Numerics

HEAD = {"block": "classifier"}


def data(test: int = 13) -> ImageData:
    section = {"name": "fake", "shape": [3, 9, 11], "classes": 5, "count": {"train": 31, "test": test}}
    return load_data(DataSpec.model_validate(section), base=Path())


def graph(shape: tuple[int, int, int], **nodes: Any) -> Graph:
    section = {"graph": {**nodes, "head": HEAD}}
    collector = Collector(section)
    network = read_network(section, shape, 5, collector)
    assert network is not None, collector.problems
    return network.graph


class Means(nn.Module):
    """Scores that anybody can compute: the mean of each of five columns of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.inference: list[bool] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(x))
        self.inference.append(torch.is_inference_mode_enabled() and not self.training)
        return x.mean((1, 2))[:, :5] * 7


@pytest.mark.parametrize("batch_size", [1, 2, 5, 13, 64])
def test_the_metrics_are_those_of_all_images_at_once(batch_size: int) -> None:
    given, network = data(), Means()
    assert given.test is not None
    found = evaluate(network, given.test, given, Numerics(), "fp32", batch_size)
    images = given.test.batch(np.arange(13)).astype(np.float64) / 255
    mean, std = (np.array(values)[:, None, None] for values in (given.mean, given.std))
    scores = ((images - mean) / std).mean((1, 2))[:, :5] * 7
    losses = np.log(np.exp(scores).sum(1)) - scores[np.arange(13), given.test.labels]
    assert found.losses == pytest.approx(losses, abs=1e-5)
    assert found.loss == pytest.approx(losses.mean(), abs=1e-5)
    assert list(found.predicted) == list(scores.argmax(1))
    assert found.accuracy == pytest.approx(100 * (scores.argmax(1) == given.test.labels).mean())
    assert max(network.batches) == min(batch_size, 13)
    assert all(network.inference)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_a_batch_that_does_not_fit_is_halved_until_it_does(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    given, network, tried = data(), Means(), []
    assert given.test is not None
    whole = evaluating._evaluated

    def crowded(*arguments: Any) -> Any:
        tried.append(arguments[-1])
        if arguments[-1] > 3:
            raise error
        return whole(*arguments)

    wanted = evaluate(network, given.test, given, Numerics(), "fp32", 3).losses
    monkeypatch.setattr(evaluating, "_evaluated", crowded)
    assert evaluate(network, given.test, given, Numerics(), "fp32", 13).losses == pytest.approx(wanted)
    assert tried == [13, 6, 3]


@pytest.mark.parametrize(("error", "tries"), [(torch.OutOfMemoryError, 3), (RuntimeError, 1)])
def test_one_image_that_does_not_fit_is_an_error_and_so_is_a_bug_at_once(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception], tries: int
) -> None:
    tried = []

    def crowded(*arguments: Any) -> Any:
        tried.append(arguments[-1])
        raise error

    monkeypatch.setattr(evaluating, "_evaluated", crowded)
    given = data()
    assert given.test is not None
    with pytest.raises(error):
        evaluate(Means(), given.test, given, Numerics(), "fp32", 4)
    assert tried == [4, 2, 1][:tries]


def test_the_largest_batch_is_what_fits_at_the_widest_place() -> None:
    # At conv: its input of 8 × 512 × 512 values and its output of as many, four bytes each, are alive together.
    stem = {"block": "conv_bn_act", "width": 8, "kernel": 3}
    wide, small = graph((8, 512, 512), stem=stem), graph((8, 16, 16), stem=stem)
    both = 2 * 4 * 8 * 512 * 512
    assert largest_batch(wide, "cpu") == CPU_BYTES // both == 64
    assert largest_batch(small, "cpu") == LARGEST_BATCH["cpu"]


def test_what_is_read_later_counts_and_what_was_read_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = graph((3, 16, 16), **{f"c{i}": {"block": "conv_bn_act", "width": 3, "kernel": 3} for i in range(5)})
    skip = graph(
        (3, 16, 16),
        a={"block": "conv_bn_act", "width": 3, "kernel": 3},
        b={"block": "conv_bn_act", "width": 3, "kernel": 3},
        c={"block": "conv_bn_act", "width": 3, "kernel": 3},
        sum={"block": "add", "from": ["a", "c"]},
    )
    image = 4 * 3 * 16 * 16
    assert evaluating._bytes_alive(chain) == 2 * image
    assert evaluating._bytes_alive(skip) == 3 * image
    monkeypatch.setattr(evaluating, "CPU_BYTES", 7 * image)
    assert (largest_batch(chain, "cpu"), largest_batch(skip, "cpu")) == (2, 2)
    monkeypatch.setattr(evaluating, "CPU_BYTES", 5 * image)
    assert (largest_batch(chain, "cpu"), largest_batch(skip, "cpu")) == (2, 1)
    monkeypatch.setattr(evaluating, "CPU_BYTES", 1)
    assert largest_batch(chain, "cpu") == 1


def test_evaluation_leaves_the_layout_to_the_profile() -> None:
    seen: list[bool] = []

    class Look(Means):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.is_contiguous())
            return super().forward(x)

    given = data()
    assert given.test is not None
    for channels_last in (True, False):
        evaluate(Look(), given.test, given, replace(Numerics(), channels_last=channels_last), "fp32", 13)
    assert seen == [False, True]
