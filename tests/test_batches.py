"""Batches are what torchvision makes of the same images one by one, and depend on their streams alone."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import functional as reference

from ablate.augmentations.horizontal_flip import HorizontalFlip
from ablate.augmentations.random_crop import RandomCrop
from ablate.data.augment import Augmentation, augmentations
from ablate.data.batches import Batches, evaluation_batches
from ablate.data.dataset import ImageData, Split
from ablate.streams import generator

MEAN, STD = (0.11, 0.23, 0.37), (0.29, 0.31, 0.41)
CROP, FLIP = RandomCrop(padding=3), HorizontalFlip()


def image_data(count: int = 23, channels: int = 3, height: int = 7, width: int = 11) -> ImageData:
    """Images of noise whose label is their row number, so that a batch tells which examples are in it."""
    noise = np.random.default_rng(5).integers(0, 256, (count, channels, height, width), dtype=np.uint8)
    split = Split(noise, np.arange(count, dtype=np.int64))
    return ImageData(split, None, split, count, tuple(map(str, range(count))), MEAN[:channels], STD[:channels], "", "")


def batches(data: ImageData, *augment: Augmentation, batch_size: int = 5, seed: int = 0) -> Batches:
    return Batches(data.train, data, augment, batch_size, seed)


def whole_epoch(source: Batches, n: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """The epoch's images and labels, back in the order of the split."""
    images, labels = (torch.cat(part) for part in zip(*source.epoch(n), strict=True))
    return images[labels.argsort()], labels


def torchvision_epoch(data: ImageData, augment: list[Augmentation], seed: int, n: int) -> torch.Tensor:
    """Each image by itself through torchvision's functions, with the offsets and flips of the named streams."""
    count, _, height, width = data.train.images.shape
    draws = [a.draw(count, generator(seed, "augment", n, a.name)) for a in augment]
    result = []
    for row, pixels in enumerate(data.train.images):
        image = torch.from_numpy(pixels)
        for augmentation, drawn in zip(augment, draws, strict=True):
            if isinstance(augmentation, RandomCrop):
                top, left = drawn[row].tolist()
                image = reference.crop(reference.pad(image, [augmentation.padding] * 4), top, left, height, width)
            elif drawn[row]:
                image = reference.hflip(image)
        result.append(reference.normalize(reference.convert_image_dtype(image), data.mean, data.std))
    return torch.stack(result)


@pytest.mark.parametrize("augment", [[], [CROP], [FLIP], [CROP, FLIP], [FLIP, CROP]])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_epoch_equals_torchvision_image_by_image_to_the_last_bit(augment: list[Augmentation], channels: int) -> None:
    data = image_data(channels=channels)
    images, _ = whole_epoch(batches(data, *augment, seed=13), n=2)
    assert torch.equal(images, torchvision_epoch(data, augment, seed=13, n=2))


def test_a_crop_pads_with_black_before_normalisation() -> None:
    # padding after normalisation would fill in 0, the mean colour
    data = image_data()
    images, _ = whole_epoch(batches(data, RandomCrop(padding=512)))
    black = torch.tensor([-m / s for m, s in zip(MEAN, STD, strict=True)])
    is_black = torch.isclose(images, black[:, None, None]).all(1)
    assert is_black.float().mean() > 0.9


def test_every_offset_of_the_crop_occurs_and_no_other() -> None:
    drawn = CROP.draw(2000, generator("test"))
    assert drawn.shape == (2000, 2)
    assert [sorted(set(axis.tolist())) for axis in drawn.T] == [list(range(7)), list(range(7))]


def test_half_of_the_images_are_flipped() -> None:
    assert FLIP.draw(10_007, generator("test")).double().mean().item() == pytest.approx(0.5, abs=0.02)


def test_augmentation_does_not_write_into_the_images() -> None:
    data = image_data()
    before = data.train.images.copy()
    whole_epoch(batches(data, CROP, FLIP))
    whole_epoch(batches(data))
    assert np.array_equal(data.train.images, before)


@settings(max_examples=30)
@given(count=st.integers(1, 40), one=st.integers(1, 50), other=st.integers(1, 50), epoch=st.integers(0, 5))
def test_batch_size_changes_neither_the_order_nor_what_happens_to_an_example(
    count: int, one: int, other: int, epoch: int
) -> None:
    data = image_data(count)
    first, second = (list(batches(data, CROP, FLIP, batch_size=size).epoch(epoch)) for size in (one, other))
    for a, b in zip(zip(*first, strict=True), zip(*second, strict=True), strict=True):
        assert torch.equal(torch.cat(a), torch.cat(b))


@given(count=st.integers(1, 60), batch_size=st.integers(1, 70))
def test_every_example_comes_once_in_batches_of_the_size_asked_for(count: int, batch_size: int) -> None:
    source = batches(image_data(count), batch_size=batch_size)
    labels = [y for _, y in source.epoch(0)]
    sizes = [len(y) for y in labels]
    assert sorted(torch.cat(labels).tolist()) == list(range(count))
    assert len(sizes) == len(source)
    assert all(size == batch_size for size in sizes[:-1])
    if batch_size > 1 and count > 1:
        assert 2 <= sizes[-1] <= batch_size + 1


def test_a_last_batch_of_one_joins_the_batch_before() -> None:
    assert [len(y) for _, y in batches(image_data(11), batch_size=5).epoch(0)] == [5, 6]
    assert [len(y) for _, y in batches(image_data(12), batch_size=5).epoch(0)] == [5, 5, 2]
    assert [len(y) for _, y in batches(image_data(3), batch_size=1).epoch(0)] == [1, 1, 1]


def test_epochs_and_seeds_have_orders_and_augmentation_of_their_own() -> None:
    data = image_data(101)
    runs = [whole_epoch(batches(data, CROP, FLIP, seed=seed), n) for seed, n in ((0, 0), (0, 1), (1, 0))]
    for i, (images, order) in enumerate(runs):
        for other_images, other_order in runs[:i]:
            assert not torch.equal(order, other_order)
            assert not torch.equal(images, other_images)


def test_an_epoch_does_not_depend_on_the_epochs_before_nor_on_the_global_stream() -> None:
    data = image_data()
    fresh = whole_epoch(batches(data, CROP, FLIP), 3)
    used = batches(data, CROP, FLIP)
    for n in range(3):
        whole_epoch(used, n)
        torch.rand(3)
    assert all(torch.equal(a, b) for a, b in zip(fresh, whole_epoch(used, 3), strict=True))


def test_leaving_an_augmentation_out_leaves_order_and_the_other_draws_as_they_were() -> None:
    data = image_data()
    flipped, order = whole_epoch(batches(data, FLIP))
    nothing_cropped = RandomCrop.model_construct(padding=0)
    both, same_order = whole_epoch(batches(data, nothing_cropped, FLIP))
    assert torch.equal(order, same_order)
    assert torch.equal(flipped, both)


def test_batches_are_float32_and_channels_last_with_int64_labels() -> None:
    data = image_data()
    for x, y in [*batches(data, CROP).epoch(0), *evaluation_batches(data.train, data, 5)]:
        assert x.dtype == torch.float32
        assert y.dtype == torch.int64
        assert x.is_contiguous(memory_format=torch.channels_last)


def test_evaluation_keeps_the_order_and_loses_nothing() -> None:
    data = image_data(23)
    parts = list(evaluation_batches(data.train, data, 11))
    assert [len(y) for _, y in parts] == [11, 11, 1]
    assert torch.cat([y for _, y in parts]).tolist() == list(range(23))
    assert torch.equal(torch.cat([x for x, _ in parts]), torchvision_epoch(data, [], 0, 0))


def test_normalize_none_gives_pixels_over_255() -> None:
    split = image_data().train
    data = ImageData(split, None, None, 23, (), (0.0,) * 3, (1.0,) * 3, "", "")
    images, _ = whole_epoch(batches(data))
    assert torch.equal(images, torch.from_numpy(split.images).float() / 255)


def test_read_only_arrays_are_used_without_a_warning() -> None:
    data = image_data()
    data.train.images.setflags(write=False)
    data.train.labels.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(batches(data, CROP).epoch(0))
        list(evaluation_batches(data.train, data, 5))


@pytest.mark.parametrize("size", [0, -3])
def test_a_batch_size_below_one_is_refused(size: int) -> None:
    data = image_data()
    with pytest.raises(ValueError, match=f"batch size {size} is too small; at least 1"):
        batches(data, batch_size=size)
    with pytest.raises(ValueError, match=f"batch size {size} is too small; at least 1"):
        next(evaluation_batches(data.train, data, size))


def test_the_registry_lists_the_augmentations_by_name() -> None:
    known = augmentations()
    assert list(known) == sorted(known)
    assert known["horizontal_flip"] is HorizontalFlip
    assert known["random_crop"] is RandomCrop


def test_the_module_and_the_data_sets_do_not_import_torch_nor_pyarrow() -> None:
    code = (
        "import sys, ablate.data.dataset; ablate.data.dataset.registry();"
        "sys.exit(str({'torch', 'torchvision', 'pyarrow', 'PIL', 'mlxtend'} & set(sys.modules)) "
        "if {'torch', 'torchvision', 'pyarrow', 'PIL', 'mlxtend'} & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_sees_the_batches_that_the_cpu_sees() -> None:
    data = image_data()
    there = Batches(data.train, data, [CROP, FLIP], 5, 0, "cuda").epoch(1)
    for (x, y), (gpu_x, gpu_y) in zip(batches(data, CROP, FLIP).epoch(1), there, strict=True):
        assert torch.equal(y, gpu_y.cpu())
        torch.testing.assert_close(x, gpu_x.cpu(), rtol=1e-6, atol=1e-6)
