"""Parquet files written here by pyarrow and PIL come back pixel by pixel; every damaged one is refused by row."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ablate.data import checks
from ablate.data.dataset import DataSpec, ImageData, load, shape_of
from ablate.errors import UserError

NAMES = "ant,bee,cat"
COLOUR, GREY = (7, 11, 3), (7, 11)


def pictures(count: int, shape: tuple[int, ...] = COLOUR, seed: int = 0) -> list[np.ndarray[Any, Any]]:
    """Noise, (H, W, 3) or (H, W)."""
    return list(np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8))


def encoded(pixels: np.ndarray[Any, Any], kind: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def write(
    path: Path,
    images: Sequence[bytes | None],
    labels: Sequence[int | None],
    *,
    classes: str | None = NAMES,
    image: str = "image",
    label: str = "label",
    struct_column: bool = True,
    label_type: Any = None,
    **options: Any,
) -> None:
    column = pa.array(images, pa.binary())
    if struct_column:
        paths = pa.array([None] * len(images), pa.string())
        column = pa.StructArray.from_arrays([column, paths], ["bytes", "path"])
    table = pa.table({image: column, label: pa.array(labels, label_type or pa.int64())})
    pq.write_table(table.replace_schema_metadata({"classes": classes} if classes else None), path, **options)


def write_both(
    folder: Path,
    images: Sequence[bytes | None] | None = None,
    labels: Sequence[int | None] = (0, 1, 2, 1, 0),
    **options: Any,
) -> None:
    """A train split as asked for, and a faultless test split."""
    write(folder / "train.parquet", [encoded(p) for p in pictures(5)] if images is None else images, labels, **options)
    write(folder / "test.parquet", [encoded(p) for p in pictures(3, seed=1)], [0, 1, 2])


def spec(**fields: Any) -> DataSpec:
    return DataSpec.model_validate({"name": "parquet", "root": ".", **fields})


def loaded(folder: Path, **fields: Any) -> ImageData:
    return load(spec(**fields), base=folder)


def refusal(folder: Path, **fields: Any) -> str:
    with pytest.raises(UserError) as caught:
        loaded(folder, **fields)
    return str(caught.value)


# ---- what comes back ----


@pytest.mark.parametrize("struct_column", [True, False])
def test_pixels_labels_and_names_come_back_as_they_were_written(tmp_path: Path, struct_column: bool) -> None:
    write_both(tmp_path, struct_column=struct_column)
    data = loaded(tmp_path)
    assert np.array_equal(data.train.images.transpose(0, 2, 3, 1), pictures(5))
    assert data.train.labels.tolist() == [0, 1, 2, 1, 0]
    assert data.test is not None
    assert np.array_equal(data.test.images.transpose(0, 2, 3, 1), pictures(3, seed=1))
    assert data.class_names == ("ant", "bee", "cat")
    assert data.input_shape == (3, 7, 11)
    assert data.description == f"parquet ({tmp_path.name}): 5 train, 3 test"


def test_grey_images_have_one_channel(tmp_path: Path) -> None:
    write_both(tmp_path, [encoded(p) for p in pictures(5, GREY)])
    data = loaded(tmp_path, test="none")
    assert np.array_equal(data.train.images[:, 0], pictures(5, GREY))
    assert data.test is None


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP"])
def test_other_formats_are_decoded_as_pil_decodes_them(tmp_path: Path, kind: str) -> None:
    files = [encoded(p, kind) for p in pictures(5)]
    write_both(tmp_path, files)
    expected = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]
    assert np.array_equal(loaded(tmp_path).train.images.transpose(0, 2, 3, 1), expected)


def test_a_palette_is_resolved_and_black_and_white_becomes_grey(tmp_path: Path) -> None:
    palette = encoded(pictures(1)[0], mode="P")
    write_both(tmp_path, [palette] * 5)
    expected = np.asarray(Image.open(io.BytesIO(palette)).convert("RGB"))
    assert np.array_equal(loaded(tmp_path).train.images[0].transpose(1, 2, 0), expected)
    write_both(tmp_path, [encoded(pictures(1)[0], mode="1")] * 5)
    assert set(np.unique(loaded(tmp_path, test="none", normalize="none").train.images)) == {0, 255}


def test_a_grey_image_among_coloured_ones_is_grey_in_three_channels(tmp_path: Path) -> None:
    grey = pictures(1, GREY)[0]
    write_both(tmp_path, [*(encoded(p) for p in pictures(4)), encoded(grey)])
    assert np.array_equal(loaded(tmp_path).train.images[4], [grey] * 3)


def test_many_row_groups_come_back_in_order(tmp_path: Path) -> None:
    images = pictures(1301, (3, 2))
    write(tmp_path / "train.parquet", [encoded(p) for p in images], [i % 3 for i in range(1301)], row_group_size=53)
    data = loaded(tmp_path, test="none")
    assert np.array_equal(data.train.images[:, 0], images)
    assert data.train.labels.tolist() == [i % 3 for i in range(1301)]


def test_without_names_in_the_metadata_classes_are_numbers(tmp_path: Path) -> None:
    write_both(tmp_path, classes=None)
    assert loaded(tmp_path).class_names == ("0", "1", "2")
    assert shape_of(spec(), base=tmp_path) == ((3, 7, 11), 3)


def test_files_columns_and_title_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(
        tmp_path / "sub" / "a.parquet",
        [encoded(p) for p in pictures(3)],
        [0, 1, 2],
        image="img",
        label="y",
        label_type=pa.uint8(),
    )
    data = loaded(tmp_path, train="sub/a.parquet", test="none", image="img", label="y", title="Ants (small)")
    assert data.description == "parquet (Ants (small)): 3 train"


def test_shape_of_reads_no_more_than_the_first_image(tmp_path: Path) -> None:
    write_both(tmp_path, [encoded(pictures(1)[0]), *[b"no image"] * 4])
    assert shape_of(spec(), base=tmp_path) == ((3, 7, 11), 3)


# ---- files ----


def test_a_missing_folder_or_file_is_named_with_what_is_there(tmp_path: Path) -> None:
    assert refusal(tmp_path, root="nowhere") == f"data.root: no folder {tmp_path.resolve() / 'nowhere'}"
    assert refusal(tmp_path) == f"data.root: no file 'train.parquet' in {tmp_path.resolve()}"
    write(tmp_path / "trian.parquet", [encoded(p) for p in pictures(3)], [0, 1, 2])
    assert refusal(tmp_path).endswith("there are: trian.parquet")
    assert refusal(tmp_path, train="trian.parquet").startswith("data.root: no file 'test.parquet' in")


@pytest.mark.parametrize("name", ["../outside.parquet", "/etc/passwd", "a\0b", "a\x1b[0m"])
def test_a_file_outside_root_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "outside.parquet", [encoded(p) for p in pictures(3)], [0, 1, 2])
    assert "is not in root" in refusal(tmp_path, root="in", train=name)


def test_one_file_for_train_and_test_is_refused(tmp_path: Path) -> None:
    write_both(tmp_path)
    os.link(tmp_path / "train.parquet", tmp_path / "same.parquet")
    for name in ("train.parquet", "same.parquet"):
        assert f"data.test: '{name}' is the train split as well" in refusal(tmp_path, test=name)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"image,label\n1,2\n", b"PAR1" + b"\xff" * 100 + b"PAR1"])
def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.parquet").write_bytes(content)
    assert refusal(tmp_path).startswith("data.root: train.parquet: no parquet file, or damaged: ")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, share: float) -> None:
    write_both(tmp_path)
    path = tmp_path / "train.parquet"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "train.parquet: no parquet file, or damaged" in refusal(tmp_path)


@pytest.mark.parametrize("mask", [0x01, 0x55, 0x80, 0xFF])
def test_damage_anywhere_in_the_file_is_a_user_error_or_no_damage(tmp_path: Path, mask: int) -> None:
    # every third byte in turn: whatever pyarrow and PIL raise has to come out as ours
    write_both(tmp_path, [encoded(p) for p in pictures(5, (3, 2))], compression="snappy")
    write(tmp_path / "test.parquet", [encoded(p) for p in pictures(5, (3, 2))], [0, 1, 2, 0, 1])
    path = tmp_path / "train.parquet"
    whole = path.read_bytes()
    refused = 0
    for position in range(0, len(whole), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ mask]) + whole[position + 1 :])
        try:
            loaded(tmp_path)
        except UserError:
            refused += 1
    assert refused > len(whole) / 30


# ---- columns ----


def test_a_missing_column_lists_those_there_are(tmp_path: Path) -> None:
    write_both(tmp_path, image="img")
    assert refusal(tmp_path) == "data.image: train.parquet: no column 'image'; it has: img, label"
    write_both(tmp_path, label="y")
    assert refusal(tmp_path) == "data.label: train.parquet: no column 'label'; it has: image, y"


def test_columns_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    write_both(tmp_path, labels=[0.0, 1.0, 2.0, 1.0, 0.0], label_type=pa.float64())  # type: ignore[list-item]
    assert refusal(tmp_path) == "data.label: train.parquet: column 'label' is double; whole numbers were expected"
    pq.write_table(pa.table({"image": ["a", "b"], "label": [0, 1]}), tmp_path / "train.parquet")
    assert "column 'image' is string; encoded images were expected" in refusal(tmp_path)
    pq.write_table(pa.table({"image": [{"path": "a"}], "label": [0]}), tmp_path / "train.parquet")
    assert "column 'image' is struct<path: string>; encoded images were expected" in refusal(tmp_path)


# ---- labels ----


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2, 7, 0], "row 3 (from 0): label 7 is out of range; 0 to 2"),
        ([0, -1, 2, 1, -5], "row 1 (from 0): label -1 is out of range; 0 to 2; 2 such rows"),
        ([0, 1, 2, None, 0], "row 3 (from 0): the label is null"),
        ([0, 1, 1, 1, 0], "class 'cat' (label 2) has no example; labels count from 0"),
    ],
)
def test_a_wrong_label_is_refused_by_its_row(tmp_path: Path, labels: list[int | None], message: str) -> None:
    write_both(tmp_path, labels=labels)
    assert refusal(tmp_path) == f"data: train.parquet: {message}"


@pytest.mark.parametrize(("label", "message"), [(10**6, "label 1000000 is out of range"), (None, "the label is null")])
def test_rows_are_counted_from_the_head_of_the_file(tmp_path: Path, label: int | None, message: str) -> None:
    labels: list[int | None] = [i % 3 for i in range(1301)]
    labels[1201] = label
    write_both(tmp_path, [encoded(pictures(1)[0])] * 1301, labels)
    assert f"row 1201 (from 0): {message}" in refusal(tmp_path)
    write_both(tmp_path, [*[encoded(pictures(1)[0])] * 1201, *[b"no image"] * 100], [i % 3 for i in range(1301)])
    assert "row 1201 (from 0): the image cannot be read" in refusal(tmp_path)


def test_labels_that_count_from_one_are_noticed(tmp_path: Path) -> None:
    write_both(tmp_path, labels=[1, 2, 3, 1, 2], classes=None)
    assert "class '0' (label 0) has no example; labels count from 0" in refusal(tmp_path)


def test_a_label_of_the_test_split_that_train_does_not_know_is_refused(tmp_path: Path) -> None:
    write_both(tmp_path, labels=[0, 1, 0, 1, 0], classes=None)
    assert refusal(tmp_path) == "data: test.parquet: row 2 (from 0): label 2 is out of range; 0 to 1"


def test_a_huge_label_does_not_make_as_many_classes(tmp_path: Path) -> None:
    write_both(tmp_path, labels=[0, 1, 10**15, 1, 0], classes=None)
    assert "row 2 (from 0): label 1000000000000000 is out of range; at most 100,000 classes" in refusal(tmp_path)
    write_both(tmp_path, labels=[0, 1, 2**64 - 1, 1, 0], classes=None, label_type=pa.uint64())
    assert "row 2 (from 0): label 18446744073709551615 is out of range" in refusal(tmp_path)


@pytest.mark.parametrize("classes", ["ant,,cat", "ant,bee,ant", ",".join(map(str, range(100_001)))])
def test_class_names_that_cannot_be_are_refused(tmp_path: Path, classes: str) -> None:
    write_both(tmp_path, classes=classes)
    message = refusal(tmp_path)
    assert "100,001 classes; at most 100,000" in message or "has an empty or a double name: ant" in message


def test_names_from_a_file_cannot_steer_the_terminal(tmp_path: Path) -> None:
    write_both(tmp_path, labels=[1, 1, 2, 1, 1], classes="\x1b[2Jant,bee,cat")
    assert refusal(tmp_path) == (
        "data: train.parquet: class '\\x1b[2Jant' (label 0) has no example; labels count from 0"
    )
    write_both(tmp_path)
    assert loaded(tmp_path, title="a\x1b[2J\nb").description == "parquet (a\\x1b[2J\\nb): 5 train, 3 test"


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    write_both(tmp_path, [], [])
    assert refusal(tmp_path) == "data: train.parquet: no examples"


# ---- images ----


def png_that_claims(width: int, height: int) -> bytes:
    """A few bytes whose header announces a picture of that size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def one_bad(bad: bytes | None) -> list[bytes | None]:
    files: list[bytes | None] = [encoded(p) for p in pictures(5)]
    files[3] = bad
    return files


GOOD = encoded(pictures(1)[0])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"", "row 3 (from 0): the image cannot be read: "),
        (b"no image", "row 3 (from 0): the image cannot be read: "),
        (GOOD[: len(GOOD) // 2], "row 3 (from 0): the image cannot be read: "),
        (GOOD[:20], "row 3 (from 0): the image cannot be read: "),
        (None, "row 3 (from 0): the image is null"),
        (encoded(pictures(1)[0], "TIFF"), "row 3 (from 0): the image cannot be read: "),
        (encoded(pictures(1)[0], "EPS"), "row 3 (from 0): the image cannot be read: "),
        (encoded(pictures(1)[0], mode="RGBA"), "row 3 (from 0): an image of mode RGBA; grey or RGB, 8 bits a channel"),
        (encoded(pictures(1)[0], mode="P", transparency=0), "row 3 (from 0): an image of mode P; grey or RGB"),
        (encoded(np.zeros((7, 11), dtype=np.uint16)), "row 3 (from 0): an image of mode I;16; grey or RGB"),
        (
            encoded(pictures(1, (11, 7, 3))[0]),
            "row 3 (from 0): an image of 7×11 pixels, in colour; those before it are of 11×7 pixels, in colour",
        ),
        (encoded(pictures(1, (5, 5))[0]), "row 3 (from 0): an image of 5×5 pixels, grey; those before it are of 11×7"),
        (png_that_claims(4097, 1), "row 3 (from 0): an image of 4097×1 pixels; at most 4096×4096"),
        (png_that_claims(30_000, 30_000), "row 3 (from 0): the image cannot be read: Image size (900000000 pixels)"),
    ],
)
def test_a_bad_image_is_refused_by_its_row(tmp_path: Path, bad: bytes | None, message: str) -> None:
    write_both(tmp_path, one_bad(bad))
    assert refusal(tmp_path).startswith(f"data: train.parquet: {message}")


def test_colour_after_grey_is_refused(tmp_path: Path) -> None:
    write_both(tmp_path, [*(encoded(p) for p in pictures(4, GREY)), encoded(pictures(1)[0])])
    assert "row 4 (from 0): an image of 11×7 pixels, in colour; those before it are of 11×7 pixels, grey" in refusal(
        tmp_path
    )


def test_a_test_split_of_another_size_is_refused(tmp_path: Path) -> None:
    write_both(tmp_path, [encoded(p) for p in pictures(5, (5, 5, 3))])
    assert "test.parquet: row 0 (from 0): an image of 11×7 pixels, in colour" in refusal(tmp_path)


# ---- sizes ----


def test_a_split_too_large_for_memory_is_refused_at_its_first_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_both(tmp_path)
    size = (tmp_path / "train.parquet").stat().st_size
    monkeypatch.setattr(checks, "MAX_BYTES", 5 * 7 * 11 * 3 - 1)
    assert size > 0
    assert "train.parquet: 5 images of 11×7 pixels take" in refusal(tmp_path)


def test_an_absurd_number_of_rows_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_both(tmp_path)
    monkeypatch.setattr(checks, "MAX_EXAMPLES", 4)
    assert refusal(tmp_path) == "data: train.parquet: 5 examples; at most 4"


def test_a_row_count_that_the_pages_do_not_keep_is_refused(tmp_path: Path) -> None:
    write_both(tmp_path)
    path = tmp_path / "train.parquet"
    content = path.read_bytes()
    footer = len(content) - 8 - struct.unpack("<I", content[-8:-4])[0]
    # num_rows of the file: thrift field 3, i64, zigzag 5 → 0x16 0x0a; announce 60 instead
    position = content.index(b"\x16\x0a", footer)
    path.write_bytes(content[: position + 1] + bytes([120]) + content[position + 2 :])
    assert pq.ParquetFile(path).metadata.num_rows == 60
    assert "5 rows where the file promises 60; is it cut off?" in refusal(tmp_path)


# ---- real files, where there are some ----


REAL = Path(os.environ.get("ABLATE_TEST_DATA", Path(__file__).parents[2] / "../shared/data"))


@pytest.mark.skipif(not (REAL / "mnist" / "test.parquet").is_file(), reason="needs ABLATE_TEST_DATA/mnist")
def test_real_digits_have_the_published_statistics() -> None:
    data = load(spec(root=str(REAL / "mnist")), base=Path(), trusted_root=True)
    assert (len(data.train), data.input_shape, data.classes) == (60_000, (1, 28, 28), 10)
    # the figures that every MNIST tutorial normalises by
    assert [data.mean[0], data.std[0]] == pytest.approx([0.1307, 0.3081], abs=5e-5)


@pytest.mark.skipif(not (REAL / "cifar10-jpeg" / "test.parquet").is_file(), reason="needs cifar10-jpeg")
def test_real_photographs_are_balanced_and_keep_their_names() -> None:
    data = load(
        spec(root=str(REAL / "cifar10-jpeg"), train="test.parquet", test="none", title="CIFAR-10 (JPEG copy)"),
        base=Path(),
        trusted_root=True,
    )
    assert data.description == "parquet (CIFAR-10 (JPEG copy)): 10,000 train"
    assert np.bincount(data.train.labels).tolist() == [1000] * 10
    assert data.class_names[:3] == ("airplane", "automobile", "bird")
    assert data.mean == pytest.approx([0.4942, 0.4851, 0.4504], abs=0.01)  # of the original test images
