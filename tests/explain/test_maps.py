"""Maps are drawn where they belong: enlarged as torch does it, blended with the picture, on the scale that is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from torch.nn import functional as F

from ablate.figures.canvas import draw
from ablate.figures.maps import COLORS, SIDE, Map, Picture, blended, enlarged, maps_over_images, resized


@pytest.mark.parametrize(
    ("shape", "size"), [((4, 4), (128, 128)), ((3, 5), (7, 11)), ((8, 6), (8, 6)), ((9, 9), (4, 5))]
)
def test_maps_are_enlarged_as_torch_does_it(shape: tuple[int, int], size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=shape)
    wanted = F.interpolate(torch.from_numpy(values)[None, None], size=size, mode="bilinear", align_corners=False)
    np.testing.assert_allclose(resized(values, *size), wanted[0, 0].numpy(), atol=1e-12)


def test_pictures_are_enlarged_by_whole_pixels() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (10, 32, 3), dtype=np.uint8)
    large = enlarged(pixels)
    assert large.shape[1] >= SIDE
    assert large.shape == (40, 128, 3)
    assert np.array_equal(large[::4, ::4], pixels)
    assert enlarged(pixels[..., :1]).shape == (40, 128, 3)


def test_by_limits_colours_are_those_of_the_bar_and_else_the_largest_value_is_the_brightest() -> None:
    picture = np.full((4, 4, 3), 128, dtype=np.uint8)
    values = np.full((4, 4), 0.25)
    wanted = np.round(255 * np.array(colormaps[COLORS](0.25)[:3]))
    assert np.array_equal(blended(picture, values, (0.0, 1.0))[0, 0], wanted)
    values[1, 2] = 0.5
    own = blended(picture, values, None).astype(int).sum(2)
    assert np.unravel_index(own.argmax(), own.shape) == (1, 2)
    assert np.array_equal(blended(picture, 2 * values + 3, None), blended(picture, values, None))


def test_a_map_without_differences_or_with_no_numbers_is_drawn_all_the_same() -> None:
    picture = np.zeros((4, 4, 3), dtype=np.uint8)
    assert np.array_equal(blended(picture, np.ones((2, 2)), None), blended(picture, np.zeros((2, 2)), None))
    assert blended(picture, np.full((2, 2), np.nan), (0.0, 1.0)).shape == (4, 4, 3)


def test_what_is_said_beneath_stays_text_in_the_picture() -> None:
    picture = Picture(np.zeros((8, 8, 1), dtype=np.uint8), ("cat <b>", "no. 3"), (0.5, 0.5))
    cell = Map(np.eye(2), ("dog 0.75",), False)
    images = draw("t", lambda figure: maps_over_images(figure, [picture], ["a variant", "none"], [[cell, None]]))
    for text in (b"cat &lt;b&gt;", b"no. 3", b"dog 0.75", b"a variant"):
        assert text in images.svg
