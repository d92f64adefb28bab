"""Images in parquet files, in the layout in which image-classification sets are published.

One row an image: a column of encoded images (PNG, JPEG, WebP or BMP; a struct with ``bytes``, or plain bytes) and a
column of labels from 0. Class names, comma-separated, are read from the schema's metadata under ``classes``.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ablate.data.checks import (
    MAX_BYTES,
    MAX_CLASSES,
    MAX_SIDE,
    Shape,
    check_every_class,
    check_labels,
    check_size,
    user_error,
)
from ablate.data.images import FORMATS, first_line
from ablate.data.kind import DataInfo, DataSet, DataSetParams, RawData
from ablate.data.splits import Split
from ablate.errors import UserError, listed

MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB", "CMYK": "RGB", "YCbCr": "RGB"}
ROWS_AT_A_TIME = 512


class ParquetParams(DataSetParams):
    train: str = Field("train.parquet", description="file of the train split, in root")
    test: str = Field("test.parquet", description="file of the test split, in root; none: there is no test split")
    image: str = Field("image", description="column of encoded images")
    label: str = Field("label", description="column of labels, whole numbers from 0")
    title: str = Field("", max_length=80, description="what captions call the data; empty: the name of the folder")


class Parquet(DataSet, name="parquet"):
    """Images in parquet files, in the layout in which image-classification sets are published."""

    Params = ParquetParams
    folder = "required"
    without_effect = frozenset({"title"})

    @classmethod
    def info(cls, params: ParquetParams, root: Path | None) -> DataInfo:
        assert root is not None
        with _Table(root, params.train, params) as table:
            names = table.class_names() or _numbered(table.labels())
            return DataInfo(table.shape(), len(names))

    @classmethod
    def load(cls, params: ParquetParams, root: Path | None, download: bool) -> RawData:
        assert root is not None
        with _Table(root, params.train, params) as table:
            labels = table.labels()
            names = table.class_names() or _numbered(labels)
            check_labels(labels, len(names), table.name)
            check_every_class(labels, names, table.name)
            shape = table.shape()
            train = Split(table.images(shape), labels)
        test = None if params.test == "none" else _test(root, params, shape, len(names))
        return RawData(train, test, names, params.title or root.name)


def _test(root: Path, params: ParquetParams, shape: Shape, classes: int) -> Split:
    with _Table(root, params.test, params) as table:
        if (root / params.test).samefile(root / params.train):
            raise user_error(f"'{params.test}' is the train split as well", "test", "write none for no test split")
        labels = table.labels()
        check_labels(labels, classes, table.name)
        return Split(table.images(shape), labels)


class _Table:
    """One open parquet file. Whatever is wrong with it is a ``UserError`` that names the file."""

    def __init__(self, root: Path, name: str, params: ParquetParams) -> None:
        self.name, self.params = name, params
        self.file = _opened(root, name)
        check_size(self.rows, (1, 1, 1), name)
        with self._readable():
            self._check_columns()
            groups = [self.file.metadata.row_group(i) for i in range(self.file.num_row_groups)]
            packed = sum(max(group.total_byte_size, 0) for group in groups)
        if packed > MAX_BYTES:
            raise user_error(f"{name}: {packed / 2**30:,.1f} GiB of columns; at most {MAX_BYTES / 2**30:g}")

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    @property
    def rows(self) -> int:
        return int(self.file.metadata.num_rows)

    def class_names(self) -> tuple[str, ...]:
        """From the schema's metadata; empty where it has none."""
        text = (self.file.schema_arrow.metadata or {}).get(b"classes", b"").decode(errors="replace")
        names = tuple(name.strip() for name in text.split(",")) if text.strip() else ()
        if len(names) > MAX_CLASSES:
            raise user_error(f"{self.name}: {len(names):,} classes; at most {MAX_CLASSES:,}")
        if "" in names or len(set(names)) < len(names):
            raise user_error(
                f"{self.name}: 'classes' in the schema's metadata has an empty or a double name: {listed(names)}"
            )
        return names

    def labels(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """int64 (N,); the first null is an error that names its row."""
        found: list[np.ndarray[Any, Any]] = [np.empty(0, dtype=np.int64)]
        for start, column in self._batches(self.params.label, ROWS_AT_A_TIME):
            if column.null_count:
                row = start + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
                raise user_error(f"{self.name}: row {row} (from 0): the label is null")
            values = column.to_numpy()
            self._check_few_classes(values, start)
            found.append(values.astype(np.int64))
        return self._complete(np.concatenate(found))

    def _check_few_classes(self, labels: np.ndarray[Any, Any], start: int) -> None:
        # before any tuple of that many class names is made
        high = np.flatnonzero(labels >= MAX_CLASSES)
        if len(high):
            raise user_error(
                f"{self.name}: row {start + int(high[0])} (from 0): label {labels[high[0]]} is out of "
                f"range; at most {MAX_CLASSES:,} classes"
            )

    def shape(self) -> Shape:
        """(C, H, W) of the first image."""
        for _, column in self._batches(self._image_path(), 1):
            pixels = _decoded(column[0].as_py(), self.name, 0)
            return pixels.shape[0], pixels.shape[1], pixels.shape[2]
        raise user_error(f"{self.name}: no examples")

    def images(self, shape: Shape) -> np.ndarray[Any, np.dtype[np.uint8]]:
        """uint8 (N, C, H, W); grey images among coloured ones become grey in three channels."""
        check_size(self.rows, shape, self.name)
        images = np.empty((self.rows, *shape), dtype=np.uint8)
        done = 0
        for start, column in self._batches(self._image_path(), ROWS_AT_A_TIME):
            for row, encoded in enumerate(column.to_pylist()[: self.rows - start], start):
                pixels = _decoded(encoded, self.name, row)
                if pixels.shape != shape and (pixels.shape[0] != 1 or pixels.shape[1:] != shape[1:]):
                    raise user_error(
                        f"{self.name}: row {row} (from 0): an image of {_said(pixels.shape)}; those "
                        f"before it are of {_said(shape)}"
                    )
                images[row] = pixels
            done = start + len(column)
        return self._complete(images, done)

    def _complete(self, values: np.ndarray[Any, Any], count: int | None = None) -> np.ndarray[Any, Any]:
        count = len(values) if count is None else count
        if count != self.rows:
            raise user_error(f"{self.name}: {count:,} rows where the file promises {self.rows:,}; is it cut off?")
        return values

    def _check_columns(self) -> None:
        import pyarrow as pa

        schema = self.file.schema_arrow
        missing = [name for name in (self.params.image, self.params.label) if schema.names.count(name) != 1]
        if missing:
            raise user_error(
                f"{self.name}: no column '{missing[0]}'; it has: {listed(schema.names)}",
                "image" if missing[0] == self.params.image else "label",
            )
        image, label = schema.field(self.params.image).type, schema.field(self.params.label).type
        if not pa.types.is_integer(label):
            raise user_error(
                f"{self.name}: column '{self.params.label}' is {label}; whole numbers were expected", "label"
            )
        encoded = image
        if pa.types.is_struct(image) and image.get_field_index("bytes") >= 0:
            encoded = image.field("bytes").type
        if not (pa.types.is_binary(encoded) or pa.types.is_large_binary(encoded)):
            raise user_error(
                f"{self.name}: column '{self.params.image}' is {image}; encoded images were expected: "
                "bytes, or a struct with bytes",
                "image",
            )

    def _image_path(self) -> str:
        import pyarrow as pa

        nested = pa.types.is_struct(self.file.schema_arrow.field(self.params.image).type)
        return f"{self.params.image}.bytes" if nested else self.params.image

    def _batches(self, column: str, rows: int) -> Iterator[tuple[int, Any]]:
        """First row and values (an Arrow array) of each batch of one column."""
        start = 0
        with self._readable():
            for batch in self.file.iter_batches(batch_size=rows, columns=[column], use_threads=False):
                values = batch.column(0)
                yield start, values.field("bytes") if hasattr(values, "field") else values
                start += len(batch)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except UserError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise user_error(f"{self.name}: damaged or cut off: {first_line(error)}", "root") from error


def _opened(root: Path, name: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = root / name
    if not name.isprintable() or not path.resolve().is_relative_to(root.resolve()):
        raise user_error(f"{name!r} is not in root", "root")
    if not path.is_file():
        there = sorted(entry.name for entry in root.glob("*.parquet")) if root.is_dir() else []
        raise user_error(
            f"no file '{name}' in {root}" if root.is_dir() else f"no folder {root}",
            "root",
            f"there are: {listed(there)}" if there else "",
        )
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise user_error(f"{name}: no parquet file, or damaged: {first_line(error)}", "root") from error


def _decoded(encoded: bytes | None, file: str, row: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The pixels of one encoded image, uint8 (1 or 3, H, W)."""
    from PIL import Image

    where = f"{file}: row {row} (from 0)"
    if encoded is None:
        raise user_error(f"{where}: the image is null")
    try:
        image = Image.open(io.BytesIO(encoded), formats=FORMATS)
        if max(image.size) > MAX_SIDE:  # of the header: nothing has been decoded yet
            raise user_error(f"{where}: an image of {image.width}×{image.height} pixels; at most {MAX_SIDE}×{MAX_SIDE}")
        if image.mode not in MODES or "transparency" in image.info:
            raise user_error(
                f"{where}: an image of mode {image.mode}; grey or RGB, 8 bits a channel, without "
                "transparency, was expected"
            )
        pixels = np.asarray(image.convert(MODES[image.mode]))
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise user_error(f"{where}: the image cannot be read: {first_line(error)}") from error
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _numbered(labels: np.ndarray[Any, Any]) -> tuple[str, ...]:
    """Class names where the file has none: 0 … the largest label."""
    return tuple(str(label) for label in range(int(labels.max(initial=0)) + 1))


def _said(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width}×{height} pixels, {'grey' if channels == 1 else 'in colour'}"
