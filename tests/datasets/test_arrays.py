"""Arrays that a program holds: every layout, and a sentence for what cannot be meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ablate.data.dataset import DataSpec, ImageData, load
from ablate.datasets.arrays import hold
from ablate.errors import UserError


def images(count: int = 23, channels: int = 3) -> np.ndarray[Any, Any]:
    return np.random.default_rng(1).integers(0, 256, (count, channels, 5, 7), dtype=np.uint8)


def labels(count: int = 23) -> np.ndarray[Any, Any]:
    return np.arange(count) % 3


def held(data: dict[str, Any], **fields: Any) -> ImageData:
    return load(DataSpec.model_validate({"name": "arrays", "content": hold(data), **fields}), base=Path())


def refusal(data: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        hold(data)
    return str(caught.value)


def rows(data: ImageData) -> np.ndarray[Any, Any]:
    return data.train.batch(np.arange(len(data.train)))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_both_orders_of_axes_and_both_libraries_are_one_data_set(channels: int, kind: Any) -> None:
    x = images(channels=channels)
    first = held({"train": (kind(x), kind(labels()))})
    last = held({"train": [kind(x.transpose(0, 2, 3, 1).copy()), kind(labels().astype(np.uint8))]})
    assert np.array_equal(rows(first), x)
    assert np.array_equal(rows(last), x)
    assert first.content_hash == last.content_hash


def test_axes_that_could_be_read_in_two_ways_are_refused() -> None:
    images = np.zeros((7, 2, 8, 3), dtype=np.uint8)
    assert "is the second axis the channels, or the last" in refusal(
        {"train": (images, labels(7)), "test": (images, labels(7))}
    )


def test_grey_images_need_no_axis_for_their_channel() -> None:
    assert np.array_equal(rows(held({"train": (images()[:, 0], labels())}))[:, 0], images()[:, 0])


def test_splits_and_class_names_are_as_given() -> None:
    pairs = {"train": (images(), labels()), "val": (images(11), labels(11)), "test": (images(7), labels(7))}
    data = held({**pairs, "classes": ["ant", "bee", "cat"]}, val="own")
    assert data.class_names == ("ant", "bee", "cat")
    assert data.description == "arrays (arrays): 23 train, 11 val, 7 test"
    with pytest.raises(UserError, match="brings a val split of its own here; write val: own"):
        held(pairs, val=0.2)


def test_the_content_is_known_by_pixels_labels_splits_and_names() -> None:
    x, y = images(), labels()
    other = x.copy()
    other[3, 1, 2, 4] ^= 1
    contents = [
        hold({"train": (x, y)}),
        hold({"train": (other, y)}),
        hold({"train": (x, y[::-1])}),
        hold({"train": (x, y), "test": (x, y)}),
        hold({"train": (x, y), "val": (x, y)}),
        hold({"train": (x, y), "classes": "abc"}),
    ]
    assert len(set(contents)) == 6
    assert hold({"train": (x.copy(), y.tolist())}) == contents[0]


def test_what_the_program_does_to_its_arrays_afterwards_changes_nothing() -> None:
    x = images()
    data = held({"train": (x, labels())})
    x[:] = 0
    assert np.array_equal(rows(data), images())
    x[:] = 1  # and they stay writable


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"test": 3}, "no 'train' in data="),
        ({"train": (images(), labels()), "tset": 3}, "unknown key 'tset' in data=; its keys: train, val, test"),
        ({"train": images()}, "train: a pair (images, labels) was expected, not ndarray"),
        ({"train": (images() / 255, labels())}, "train: images are float64 (23, 3, 5, 7); uint8 (N, C, H, W)"),
        ({"train": (images()[0, 0], labels())}, "train: images are uint8 (5, 7); uint8 (N, C, H, W)"),
        ({"train": (images(), labels(22))}, "train: labels are int64 (22,) for 23 images"),
        ({"train": (images(), labels() / 2)}, "train: labels are float64 (23,) for 23 images"),
        ({"train": (images(), labels() - 1)}, "train: row 0 (from 0): label -1 is out of range; 0 to 1; 8 such rows"),
        ({"train": (images(), labels() * 2)}, "train: class '1' (label 1) has no example (nor have 1 more)"),
        ({"train": (images(0), labels(0))}, "train: no examples"),
        ({"train": (images(), labels()), "classes": ["a", "a", "b"]}, "two classes have one name"),
        ({"train": (images(), labels()), "classes": ["a", "b"]}, "label 2 is out of range; 0 to 1"),
        (
            {"train": (images(), labels()), "test": (images(channels=1), labels())},
            "differ in shape (C, H, W): train (3, 5, 7), test (1, 5, 7)",
        ),
    ],
)
def test_arrays_that_cannot_be_meant_are_refused(data: dict[str, Any], message: str) -> None:
    assert message in refusal(data)


def test_a_spec_alone_cannot_name_arrays() -> None:
    with pytest.raises(UserError, match=r"^data\.name: 'arrays' are handed over by a Python program.*ablate\.load"):
        load(DataSpec.model_validate({"name": "arrays"}), base=Path())
    with pytest.raises(UserError, match=r"^data\.content: the arrays of this spec are not in this process; hand them"):
        load(DataSpec.model_validate({"name": "arrays", "content": "0" * 32}), base=Path())
