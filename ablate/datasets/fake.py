"""Made-up images of any shape, for tests, smoke runs and timing: a coarse pattern for each class, and noise.

Deterministic, so that two machines get the same bytes. It says nothing about how good a network is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, PositiveInt

from ablate.data.checks import MAX_CLASSES, MAX_SIDE, Shape, check_size
from ablate.data.kind import DataInfo, DataSet, DataSetParams, RawData
from ablate.data.splits import Split
from ablate.streams import stream_seed

CELLS = 7
"""A pattern is CELLS × CELLS cells of even brightness."""


class FakeCount(DataSetParams):
    train: PositiveInt = Field(512, description="train examples")
    test: PositiveInt = Field(128, description="test examples")


class FakeParams(DataSetParams):
    shape: list[Annotated[int, Field(ge=1, le=MAX_SIDE)]] = Field(
        [3, 224, 224], min_length=3, max_length=3, description="channels, height, width"
    )
    classes: int = Field(1000, ge=1, le=MAX_CLASSES, description="number of classes")
    count: FakeCount = Field(FakeCount(), description="examples in each split")


class Fake(DataSet, name="fake"):
    """Made-up images of any shape: a coarse pattern for each class, and noise."""

    Params = FakeParams

    @classmethod
    def info(cls, params: FakeParams, root: Path | None) -> DataInfo:
        return DataInfo(_shape(params), params.classes)

    @classmethod
    def load(cls, params: FakeParams, root: Path | None, download: bool) -> RawData:
        names = tuple(str(label) for label in range(params.classes))
        train, test = (_split(params, name, count) for name, count in params.count.model_dump().items())
        return RawData(train, test, names, "made-up images")


def _shape(params: FakeParams) -> Shape:
    channels, height, width = params.shape
    return channels, height, width


def _split(params: FakeParams, name: str, count: int) -> Split:
    """Example i is of class i modulo the number of classes: its pattern in 64 … 191, plus noise in -32 … 31."""
    channels, height, width = shape = _shape(params)
    check_size(count, shape, f"fake, {name}")
    labels = np.arange(count, dtype=np.int64) % params.classes
    cells = _numbers("patterns").randint(64, 192, (min(params.classes, count), channels, CELLS, CELLS), dtype=np.uint8)
    rows, columns = (np.arange(side) * CELLS // side for side in (height, width))
    noise = _numbers(name)
    images = np.empty((count, *shape), dtype=np.uint8)
    for i, label in enumerate(labels):
        images[i] = cells[label][:, rows[:, None], columns] + noise.randint(0, 64, shape, dtype=np.uint8) - np.uint8(32)
    return Split(images, labels)


def _numbers(stream: str) -> np.random.RandomState:
    # RandomState, since numpy keeps its numbers the same for ever
    return np.random.RandomState(stream_seed("fake", stream) % 2**32)
