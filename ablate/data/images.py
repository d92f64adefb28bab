"""Single images, by PIL: decoded from files of strangers, and resized as torchvision resizes PIL images.

PIL's bilinear filter is antialiased and computes in whole numbers: the same pixels on every machine.
"""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.data.checks import Images, user_error

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
"""Few on purpose: other formats of PIL's run programs (EPS) or are rarely tested against hostile files."""
MAX_PIXELS = 89_478_485
"""The most that one image on disk may have: where PIL, too, suspects a decompression bomb."""
MARGIN = 8 / 7
"""What is evaluated is the centre of an image that is larger by this: 256 for 224 pixels."""

Box = tuple[int, int, int, int]
"""Top, left, height, width in pixels."""


def resized(image: Images, size: tuple[int, int]) -> Images:
    """uint8 (C, H, W) → (C, *size)."""
    from PIL import Image

    height, width = size
    if image.shape[0] == 3:
        whole = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        return np.asarray(whole.resize((width, height), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    planes = [Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR) for plane in image]
    return np.stack([np.asarray(plane) for plane in planes])


def opened(encoded: bytes, where: str) -> Image.Image:
    """The image, its header read and its pixels not. ``UserError`` that starts with ``where`` if it is none."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
    except _unreadable() as error:
        raise user_error(f"{where}: the image cannot be read: {first_line(error)}") from error
    if image.width * image.height > MAX_PIXELS:
        raise user_error(f"{where}: an image of {image.width}×{image.height} pixels; at most {MAX_PIXELS:,} in all")
    return image


def decoded(image: Image.Image, mode: str, where: str) -> Image.Image:
    """The pixels, in PIL's ``mode``. ``UserError`` that starts with ``where`` if the file is damaged."""
    try:
        return image.convert(mode)
    except _unreadable() as error:
        raise user_error(f"{where}: the image cannot be read: {first_line(error)}") from error


def _unreadable() -> tuple[type[Exception], ...]:
    """What PIL raises at damaged and hostile files."""
    from PIL import Image

    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    return (OSError, SyntaxError, ValueError, EOFError, struct.error, *bombs)


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def centre(image: Image.Image, size: tuple[int, int]) -> Images:
    """uint8 (C, *size): resized so that it just covers size × 8/7, and its centre cut out.

    For a square size: short side to round(size × 8/7), then the centre (torchvision's Resize and CenterCrop).
    """
    from PIL import Image

    height, width = (round(side * MARGIN) for side in size)
    if image.width * height >= image.height * width:  # wider than asked for
        new = (height * image.width // image.height, height)
    else:
        new = (width, width * image.height // image.width)
    whole = image.resize(new, Image.Resampling.BILINEAR)
    top, left = round((new[1] - size[0]) / 2), round((new[0] - size[1]) / 2)
    return _pixels(whole.crop((left, top, left + size[1], top + size[0])))


def cut(image: Image.Image, box: Box, size: tuple[int, int]) -> Images:
    """uint8 (C, *size): the box, resized (torchvision's resized_crop)."""
    from PIL import Image

    top, left, height, width = box
    part = image.crop((left, top, left + width, top + height))
    return _pixels(part.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _pixels(image: Image.Image) -> Images:
    pixels: np.ndarray[Any, np.dtype[np.uint8]] = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
