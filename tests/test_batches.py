"""Batches are what torchvision makes of the same images one by one, and depend on their streams alone."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import functional as first_version
from torchvision.transforms.v2 import functional as reference

from ablate.augmentations.color_jitter import ColorJitter
from ablate.augmentations.horizontal_flip import HorizontalFlip
from ablate.augmentations.random_crop import RandomCrop
from ablate.augmentations.random_erasing import RandomErasing
from ablate.data import on_device
from ablate.data.augment import Augmentation, augmentations
from ablate.data.batches import Batches, evaluation_batches
from ablate.data.dataset import ImageData, Split
from ablate.data.mix import MIXINGS
from ablate.data.on_device import OnDevice
from ablate.streams import generator

MEAN, STD = (0.11, 0.23, 0.37), (0.29, 0.31, 0.41)
CROP, FLIP = RandomCrop(padding=3), HorizontalFlip()
JITTER = ColorJitter(brightness=0.4, contrast=0.5, saturation=0.6, hue=0.2)
ERASING = RandomErasing(p=0.7, value=7)
COLOURS: list[Callable[..., Any]] = [
    reference.adjust_brightness,
    reference.adjust_contrast,
    # The second version rounds otherwise here, and where it divides by 255.
    first_version.adjust_saturation,
    first_version.adjust_hue,
]


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
    """Each image by itself through torchvision's functions, with what was drawn for it from the named streams."""
    draws = [a.draw(len(data.train), generator(seed, "augment", n, a.name)) for a in augment]
    result = []
    for row, pixels in enumerate(data.train.images):
        image = torch.from_numpy(pixels)
        for augmentation, drawn in zip(augment, draws, strict=True):
            image = by_torchvision(augmentation, image, drawn[row])
        result.append(reference.normalize(first_version.convert_image_dtype(image), data.mean, data.std))
    return torch.stack(result)


def by_torchvision(augmentation: Augmentation, image: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
    height, width = image.shape[1:]
    if isinstance(augmentation, RandomCrop):
        return reference.crop(reference.pad(image, [augmentation.padding] * 4), *drawn.tolist(), height, width)
    if isinstance(augmentation, HorizontalFlip):
        return reference.horizontal_flip(image) if drawn else image
    if isinstance(augmentation, RandomErasing):
        box = augmentation.boxes(drawn[None], height, width)[0].tolist()
        return reference.erase(image, *box, torch.tensor(augmentation.value, dtype=torch.uint8))
    assert isinstance(augmentation, ColorJitter)
    factors, turns = drawn[:4].tolist(), drawn[4:].tolist()
    for step in sorted(range(4), key=turns.__getitem__):
        image = COLOURS[step](image, factors[step])
    return image


@pytest.mark.parametrize(
    "augment", [[], [CROP], [FLIP], [CROP, FLIP], [FLIP, CROP], [CROP, FLIP, JITTER, ERASING], [ERASING, JITTER, CROP]]
)
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
    augment = (CROP, FLIP, JITTER, ERASING)
    first, second = (list(batches(data, *augment, batch_size=size).epoch(epoch)) for size in (one, other))
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


@settings(max_examples=20)
@given(asked=st.lists(st.integers(0, 3), max_size=4), batch_size=st.integers(1, 23))
def test_an_epoch_is_the_same_whichever_came_before_it_and_whatever_else_is_drawn(
    asked: list[int], batch_size: int
) -> None:
    # as a trial that resumes begins with it, and one that does not comes to it
    data = image_data()
    fresh = whole_epoch(batches(data, CROP, FLIP, JITTER, batch_size=batch_size), 3)
    used = batches(data, CROP, FLIP, JITTER, batch_size=batch_size)
    for n in asked:
        torch.rand(3)
        next(used.epoch(n))  # and left there
    assert all(torch.equal(a, b) for a, b in zip(fresh, whole_epoch(used, 3), strict=True))


def test_two_epochs_at_once_do_not_disturb_each_other() -> None:
    source = batches(image_data(), CROP, FLIP, JITTER, ERASING)
    alone = [list(source.epoch(n)) for n in (0, 1)]
    for n, pairs in enumerate(zip(*zip(source.epoch(0), source.epoch(1), strict=True), strict=True)):
        assert all(torch.equal(x, a) and torch.equal(y, b) for (x, y), (a, b) in zip(pairs, alone[n], strict=True))


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


# ---- devices ----


def of_all_kinds() -> list[Augmentation]:
    needed = {"random_crop": CROP, "color_jitter": JITTER, "random_rotation": {"degrees": 20.0}}
    return sorted(
        (kind.model_validate(needed.get(name, {})) for name, kind in augmentations().items()),
        key=lambda augmentation: not augmentation.comes_first,
    )


@pytest.mark.parametrize("mix", [None, *MIXINGS])
def test_nothing_in_the_loop_waits_for_the_device(mix: str | None) -> None:
    # A meta tensor has no values: whoever asks for one (item, tolist, nonzero, a mask as index) gets an error.
    data = image_data()
    mixing = MIXINGS[mix](name=mix) if mix else None
    source = Batches(data.train, data, of_all_kinds() if mix is None else [], 13, 0, "meta", mixing)
    for x, y in [*source.epoch(0), *evaluation_batches(data.train, data, 13, "meta")]:
        assert x.device.type == y.device.type == "meta"
        assert x.shape[1:] == data.train.shape


def test_on_a_cpu_the_images_are_used_where_they_are() -> None:
    split = image_data().train
    there = OnDevice(split)
    assert there.images is not None
    assert there.images.data_ptr() == split.images.ctypes.data


def test_a_split_goes_to_its_device_once_for_all_evaluations() -> None:
    data = image_data()
    there = OnDevice(data.train, "meta")
    kept = there.images
    assert kept is not None
    assert kept.device.type == "meta"
    for _ in range(2):
        assert [len(x) for x, _ in evaluation_batches(there, data, 11)] == [11, 11, 1]
    assert there.images is kept


@pytest.mark.parametrize(("free", "stays"), [(4000, True), (3999, False)])
def test_a_split_may_take_a_quarter_of_what_is_free_on_the_device(
    free: int, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**6))
    assert on_device._fits(1000, torch.device("cuda")) is stays
    assert on_device._fits(10**9, torch.device("cpu"))


def test_a_split_too_large_for_the_device_goes_there_a_batch_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    data = image_data()
    monkeypatch.setattr(on_device, "_fits", lambda size, device: False)
    source = Batches(data.train, data, [CROP, FLIP], 5, 0, "meta")
    assert source.split.images is not None
    assert source.split.images.device.type == "cpu"
    assert all(x.device.type == "meta" for x, _ in source.epoch(0))
    # what would be sent
    here = Batches(data.train, data, [], 5, 0).split
    sent = torch.cat([here._sent(rows) for rows in torch.arange(23).flip(0).split(7)])
    assert torch.equal(sent, torch.from_numpy(data.train.images).flip(0))


on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@on_a_gpu
@pytest.mark.parametrize("room", [0.0, 0.25])
def test_a_gpu_sees_the_batches_that_the_cpu_sees_and_is_never_waited_for(
    room: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_device, "ROOM", room)
    data = image_data()
    source = Batches(data.train, data, [CROP, FLIP, JITTER, ERASING], 5, 0, "cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        there = list(source.epoch(1))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for (x, y), (gpu_x, gpu_y) in zip(batches(data, CROP, FLIP, JITTER, ERASING).epoch(1), there, strict=True):
        assert torch.equal(y, gpu_y.cpu())
        # colours may round to the next of 256
        assert (x - gpu_x.cpu()).abs().max() < 1.01 / 255 / min(STD)
