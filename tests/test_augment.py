"""Each augmentation does to a batch what torchvision does to its images one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torchvision.transforms import ColorJitter as PublishedJitter
from torchvision.transforms import InterpolationMode
from torchvision.transforms import RandomErasing as PublishedErasing
from torchvision.transforms import RandomResizedCrop as PublishedCrop
from torchvision.transforms import functional as reference

from ablate.augmentations.color_jitter import ColorJitter
from ablate.augmentations.random_erasing import RandomErasing
from ablate.augmentations.random_resized_crop import RandomResizedCrop
from ablate.augmentations.random_rotation import RandomRotation
from ablate.data.augment import Augmentation, augmentations
from ablate.streams import generator

NEEDED: dict[str, dict[str, Any]] = {
    "random_crop": {"padding": 2},
    "random_rotation": {"degrees": 30.0},
    "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2},
}


def noise(count: int = 13, channels: int = 3, height: int = 17, width: int = 23) -> torch.Tensor:
    """Smooth colours, so that interpolation has something to get wrong, and some grey pixels, which have no hue."""
    pixels = np.random.default_rng(3).integers(0, 256, (count, channels, height, width), dtype=np.uint8)
    pixels[:, :, :, :5] = pixels[:, :1, :, :5]
    return torch.from_numpy(pixels)


def default(name: str) -> Augmentation:
    return augmentations()[name].model_validate(NEEDED.get(name, {}))


def difference(one: torch.Tensor, other: torch.Tensor) -> int:
    return int((one.int() - other.int()).abs().max())


# ---- the contract of all ----


@pytest.mark.parametrize("name", list(augmentations()))
@pytest.mark.parametrize("channels", [1, 3])
def test_images_stay_uint8_of_their_shape_and_are_not_written_to(name: str, channels: int) -> None:
    x = noise(channels=channels)
    before = x.clone()
    augmentation = default(name)
    changed = augmentation.apply(x, augmentation.draw(len(x), generator("test")))
    assert (changed.dtype, changed.shape) == (torch.uint8, x.shape)
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", list(augmentations()))
def test_what_happens_to_an_image_does_not_depend_on_its_batch(name: str) -> None:
    x, augmentation = noise(), default(name)
    draws = augmentation.draw(len(x), generator("test"))
    together = augmentation.apply(x, draws)
    alone = torch.cat([augmentation.apply(x[i : i + 1], draws[i : i + 1]) for i in range(len(x))])
    assert difference(together, alone) <= (1 if name in ("random_resized_crop", "random_rotation") else 0)


@pytest.mark.parametrize("name", list(augmentations()))
def test_every_field_is_described(name: str) -> None:
    assert [field for field, info in augmentations()[name].model_fields.items() if not info.description] == []


# ---- colours ----

STEPS = {
    "brightness": reference.adjust_brightness,
    "contrast": reference.adjust_contrast,
    "saturation": reference.adjust_saturation,
    "hue": reference.adjust_hue,
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("step", [*STEPS, "all"])
def test_colours_equal_torchvisions_for_the_same_factors_and_order(step: str, channels: int) -> None:
    widths = {"brightness": 0.7, "contrast": 0.6, "saturation": 0.9, "hue": 0.31}
    chosen = widths if step == "all" else {step: widths[step]}
    x, jitter = noise(31, channels), ColorJitter(**chosen)
    draws = jitter.draw(len(x), generator("test"))
    for image, drawn, ours in zip(x, draws, jitter.apply(x, draws), strict=True):
        factors, turns = drawn[:4].tolist(), drawn[4:].tolist()
        for index in sorted(range(4), key=turns.__getitem__):
            name = list(STEPS)[index]
            if name in chosen:
                image = STEPS[name](image, factors[index])
        assert torch.equal(ours, image)


def test_factors_are_uniform_in_torchvisions_ranges_and_every_order_comes() -> None:
    jitter = ColorJitter(brightness=0.4, contrast=1.7, saturation=0.2, hue=0.1)
    draws = jitter.draw(5003, generator("test"))
    published = PublishedJitter(0.4, 1.7, 0.2, 0.1)
    ranges = [published.brightness, published.contrast, published.saturation, published.hue]
    for column, (low, high) in zip(draws.T, ranges, strict=False):
        assert low <= column.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < column.max() <= high
    orders = {tuple(order) for order in draws[:, 4:].tolist()}
    assert len(orders) == math.factorial(4)


def test_colours_of_other_than_grey_or_rgb_images_are_refused() -> None:
    assert ColorJitter().problem((2, 5, 5)) == "colours are known of 1 or 3 channels, and the images have 2"
    assert ColorJitter().problem((3, 5, 5)) is ColorJitter().problem((1, 5, 5)) is None


# ---- boxes ----


@settings(max_examples=50)
@given(height=st.integers(1, 90), width=st.integers(1, 90), low=st.floats(0.01, 1), low_ratio=st.floats(0.1, 5))
def test_a_crops_box_lies_in_the_image_whatever_its_shape(
    height: int, width: int, low: float, low_ratio: float
) -> None:
    crop = RandomResizedCrop(scale=[low, 1.0], ratio=[low_ratio, 2 * low_ratio])
    top, left, h, w = crop.boxes(crop.draw(37, generator("test")), height, width).unbind(1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (h >= 0).all()
    assert (w >= 0).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()


def test_boxes_are_distributed_as_torchvisions() -> None:
    # means and spreads of top, left, height and width over many draws, against torchvision's own sampling
    crop, x = RandomResizedCrop(scale=[0.2, 0.9], ratio=[0.5, 1.5]), noise(1, 3, 61, 89)[0]
    ours = crop.boxes(crop.draw(6007, generator("test")), 61, 89).double()
    torch.manual_seed(7)
    theirs = torch.tensor([PublishedCrop.get_params(x, [0.2, 0.9], [0.5, 1.5]) for _ in range(6007)]).double()
    error = theirs.std(0) / math.sqrt(6007)
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 6 * error).all()
    assert torch.allclose(ours.std(0), theirs.std(0), rtol=0.06)


def test_where_no_box_of_that_shape_fits_it_is_the_centre_as_torchvision_has_it() -> None:
    crop, x = RandomResizedCrop(scale=[0.9, 1.0], ratio=[0.9, 1.1]), noise(1, 3, 11, 89)[0]
    boxes = crop.boxes(crop.draw(7, generator("test")), 11, 89)
    assert boxes.tolist() == [list(PublishedCrop.get_params(x, [0.9, 1.0], [0.9, 1.1]))] * 7


@pytest.mark.parametrize("channels", [1, 3])
def test_a_resized_crop_equals_pils_to_within_rounding(channels: int) -> None:
    x, crop = noise(31, channels), RandomResizedCrop()
    draws = crop.draw(len(x), generator("test"))
    boxes = crop.boxes(draws, 17, 23).tolist()
    for image, box, ours in zip(x, boxes, crop.apply(x, draws), strict=True):
        whole = Image.fromarray(image.numpy().transpose(1, 2, 0).squeeze())
        pil = np.asarray(reference.resized_crop(whole, *box, [17, 23], InterpolationMode.BILINEAR))
        assert difference(ours, torch.from_numpy(pil.reshape(17, 23, channels).transpose(2, 0, 1).copy())) <= 1


def test_the_whole_image_as_box_changes_nothing() -> None:
    x, crop = noise(), RandomResizedCrop(scale=[1.0, 1.0], ratio=[23 / 17, 23 / 17])
    assert torch.equal(crop.apply(x, crop.draw(len(x), generator("test"))), x)


@pytest.mark.parametrize("value", [0, 7, [5, 6, 7]])
def test_erasing_fills_the_box_that_torchvision_would_fill(value: int | list[int]) -> None:
    x, erasing = noise(101), RandomErasing(p=0.6, value=value)
    draws = erasing.draw(len(x), generator("test"))
    colour = torch.tensor(value, dtype=torch.uint8).expand(3)[:, None, None]
    for image, (top, left, h, w), ours in zip(
        x, erasing.boxes(draws, 17, 23).tolist(), erasing.apply(x, draws), strict=True
    ):
        theirs = reference.erase(image, top, left, h, w, colour) if h else image
        assert torch.equal(ours, theirs)


def test_erased_boxes_are_distributed_as_torchvisions() -> None:
    erasing, x = RandomErasing(p=1.0, scale=[0.05, 0.4], ratio=[0.4, 1.2]), noise(1, 3, 61, 89)[0]
    ours = erasing.boxes(erasing.draw(6007, generator("test")), 61, 89).double()
    torch.manual_seed(7)
    params = [PublishedErasing.get_params(x, (0.05, 0.4), (0.4, 1.2), [0.0]) for _ in range(6007)]
    theirs = torch.tensor([param[:4] for param in params]).double()
    error = theirs.std(0) / math.sqrt(6007)
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 6 * error).all()
    assert torch.allclose(ours.std(0), theirs.std(0), rtol=0.06)


def test_as_many_images_lose_a_box_as_was_asked_for() -> None:
    erasing = RandomErasing(p=0.3)
    boxes = erasing.boxes(erasing.draw(10_007, generator("test")), 31, 31)
    assert (boxes[:, 2] > 0).double().mean().item() == pytest.approx(0.3, abs=0.02)


def test_a_colour_of_too_few_channels_is_refused() -> None:
    assert RandomErasing(value=[1, 2]).problem((3, 5, 5)) == "2 number(s) as value for images of 3 channel(s)"
    assert RandomErasing(value=[1, 2]).problem((2, 5, 5)) is None


# ---- rotation ----


def test_a_rotation_equals_torchvisions_to_within_rounding() -> None:
    x, rotation = noise(), RandomRotation(degrees=75.0)
    angles = rotation.draw(len(x), generator("test"))
    for image, angle, ours in zip(x, angles.tolist(), rotation.apply(x, angles), strict=True):
        assert difference(ours, reference.rotate(image, angle, InterpolationMode.BILINEAR)) <= 1


def test_angles_are_uniform_between_their_bounds() -> None:
    angles = RandomRotation(degrees=20.0).draw(5003, generator("test"))
    assert -20 <= angles.min() < -19.8
    assert 19.8 < angles.max() <= 20


# ---- the grammar ----


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("random_resized_crop", {"scale": [0.9, 0.2]}),
        ("random_resized_crop", {"scale": [0.0, 1.0]}),
        ("random_resized_crop", {"scale": [0.5, 1.5]}),
        ("random_resized_crop", {"ratio": [1.0]}),
        ("random_erasing", {"p": 1.5}),
        ("random_erasing", {"value": 256}),
        ("random_erasing", {"value": "random"}),
        ("color_jitter", {"hue": 0.6}),
        ("color_jitter", {"brightness": -0.1}),
        ("color_jitter", {"contrast": math.inf}),
        ("random_rotation", {"degrees": 0.0}),
    ],
)
def test_a_value_out_of_range_is_refused(name: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        augmentations()[name].model_validate(fields)
