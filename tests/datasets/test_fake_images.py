"""Made-up images: the same bytes on every machine, and something to learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ablate.data.dataset import DataSpec, ImageData, load


def loaded(**fields: Any) -> ImageData:
    return load(DataSpec.model_validate({"name": "fake", **fields}), base=Path())


def test_shape_classes_and_sizes_are_as_asked_for() -> None:
    data = loaded(shape=[5, 11, 3], classes=7, count={"train": 23, "test": 13})
    assert data.test is not None
    assert data.train.images.shape == (23, 5, 11, 3)
    assert data.test.images.shape == (13, 5, 11, 3)
    assert data.classes == 7
    assert data.train.labels.tolist() == [i % 7 for i in range(23)]


def test_the_bytes_are_the_same_on_every_machine() -> None:
    # numpy promises RandomState's numbers for ever; a changed hash means that cached results are of other data
    data = loaded(shape=[1, 5, 7], classes=3, count={"train": 11, "test": 5})
    assert data.content_hash == "891d1ba78fbc30a2aff3126e2a85b7ea901efb537581e47ea6ef32229d6f2019"


def test_the_nearest_class_mean_of_train_recognises_test_images() -> None:
    data = loaded(shape=[1, 9, 9], classes=11, count={"train": 407, "test": 101})
    assert data.test is not None
    means = np.stack([data.train.images[data.train.labels == label].mean(0).ravel() for label in range(11)])
    distances = ((data.test.images.reshape(101, 1, -1) - means) ** 2).sum(-1)
    assert (distances.argmin(1) == data.test.labels).mean() > 0.9


def test_no_image_is_in_both_splits_and_noise_does_not_wrap_around() -> None:
    data = loaded(shape=[1, 9, 9], classes=3, count={"train": 101, "test": 53})
    assert data.test is not None
    assert not {i.tobytes() for i in data.train.images} & {i.tobytes() for i in data.test.images}
    assert data.train.images.min() >= 64 - 32
    assert data.train.images.max() <= 191 + 31
