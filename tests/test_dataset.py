"""From ``data:`` in a spec to arrays: resized, held-out and limited splits, statistics, and every refusal."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional as reference

from ablate.data import kind, subsets
from ablate.data.dataset import (
    DataInfo,
    DataSet,
    DataSpec,
    ImageData,
    RawData,
    Split,
    load,
    root_of,
    shape_of,
)
from ablate.errors import UserError

NAMES = ("ant", "bee", "cat")


def spec(name: str = "fake", **fields: Any) -> DataSpec:
    return DataSpec.model_validate({"name": name, **fields})


def small(**fields: Any) -> DataSpec:
    """23 train and 11 test images in three classes, made up."""
    return spec(**{"shape": [2, 5, 7], "classes": 3, "count": {"train": 23, "test": 11}, **fields})


def loaded(data: DataSpec, **options: Any) -> ImageData:
    return load(data, base=Path("/nowhere"), **options)


@pytest.fixture
def given_split() -> Iterator[Any]:
    """Registers a data set ``given`` whose labels the test chooses; images are noise."""
    made: dict[str, Any] = {}

    class Given(DataSet, name="given"):
        @classmethod
        def info(cls, params: Any, root: Path | None) -> DataInfo:
            return DataInfo((1, 3, 2), len(NAMES))

        @classmethod
        def load(cls, params: Any, root: Path | None, download: bool) -> RawData:
            train, test = made["train"], made.get("test")
            return RawData(as_split(train), None if test is None else as_split(test), NAMES, "a test's labels")

    yield made.update
    kind._registry.pop("given")


def as_split(labels: list[int]) -> Split:
    noise = np.random.default_rng(7).integers(0, 256, (len(labels), 1, 3, 2), dtype=np.uint8)
    return Split(noise, np.array(labels, dtype=np.int64))


def counts(split: Split | None) -> list[int]:
    assert split is not None
    return [int((split.labels == label).sum()) for label in range(3)]


# ---- size ----


@pytest.mark.parametrize("shape", [[1, 11, 13], [3, 11, 13], [2, 11, 13]])
@pytest.mark.parametrize("size", [[5, 7], [23, 29], [11, 5]])
def test_images_are_resized_as_torchvision_resizes_pil_images(shape: list[int], size: list[int]) -> None:
    fields = {"shape": shape, "classes": 3, "count": {"train": 11, "test": 3}}
    plain, data = loaded(spec(**fields)), loaded(spec(**fields, size=size))
    assert data.input_shape == (shape[0], *size)
    assert shape_of(spec(**fields, size=size)) == ((shape[0], *size), 3)
    rows = np.arange(11)
    for image, ours in zip(plain.train.batch(rows), data.train.batch(rows), strict=True):
        theirs = [np.asarray(reference.resize(Image.fromarray(channel), size)) for channel in image]
        assert np.array_equal(ours, np.stack(theirs))


def test_resized_images_are_close_to_those_of_an_antialiased_tensor() -> None:
    fields = {"shape": [3, 31, 29], "classes": 3, "count": {"train": 11, "test": 3}}
    plain, data = loaded(spec(**fields)), loaded(spec(**fields, size=[13, 11]))
    rows = np.arange(11)
    whole = torch.from_numpy(plain.train.batch(rows)).float()
    theirs = torch.nn.functional.interpolate(whole, [13, 11], mode="bilinear", antialias=True)
    assert np.abs(data.train.batch(rows) - theirs.numpy()).max() < 1.01


def test_the_statistics_and_the_hash_are_of_the_resized_images() -> None:
    plain, data = loaded(small()), loaded(small(size=[10, 14]))
    assert data.content_hash != plain.content_hash
    pixels = data.train.batch(np.arange(23)) / 255
    assert data.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert data.description == "fake (made-up images, 14×10 pixels): 23 train, 11 test"
    assert loaded(small(size=[5, 7])).content_hash == plain.content_hash  # their own size


def test_a_size_that_no_memory_holds_is_refused_before_it_is_made() -> None:
    with pytest.raises(UserError, match=r"images of 4096×4096 pixels take 48\.0 GiB; at most 8"):
        loaded(spec(shape=[3, 5, 7], classes=3, count={"train": 1024, "test": 1}, size=4096))


# ---- val ----


def test_val_is_held_out_of_train_and_nothing_is_lost_or_doubled(given_split: Any) -> None:
    labels = [0] * 20 + [1] * 30 + [2] * 50
    given_split(train=labels)
    data = loaded(spec("given", val=0.1))
    assert counts(data.val) == [2, 3, 5]
    assert counts(data.train) == [18, 27, 45]
    whole = sorted(image.tobytes() for image in as_split(labels).images)
    assert data.val is not None
    assert sorted(image.tobytes() for image in [*data.train.images, *data.val.images]) == whole


@given(st.lists(st.integers(2, 400), min_size=1, max_size=9), st.data())
def test_shares_are_in_proportion_to_within_one_example(sizes: list[int], data: st.DataObject) -> None:
    total = sum(sizes)
    size = data.draw(st.integers(0, total))
    shares = subsets.proportional(np.array(sizes), size)
    assert shares.sum() == size
    assert all(abs(share - size * count / total) < 1 for share, count in zip(shares.tolist(), sizes, strict=True))


def test_a_size_is_met_exactly_and_its_seed_decides_which(given_split: Any) -> None:
    given_split(train=[0, 1, 2] * 33)
    held = [loaded(spec("given", val={"size": 31, "seed": seed})).val for seed in (0, 0, 1)]
    assert all(split is not None and len(split) == 31 for split in held)
    images = [split.images for split in held if split is not None]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


def test_held_out_examples_do_not_depend_on_the_seed_of_limit(given_split: Any) -> None:
    given_split(train=[0, 1, 2] * 33)
    one, other = (loaded(spec("given", val=0.2, limit={"train": 30}), seed=seed) for seed in (0, 1))
    assert one.val is not None
    assert other.val is not None
    assert np.array_equal(one.val.images, other.val.images)
    assert not np.array_equal(one.train.images, other.train.images)


def test_holding_out_everything_is_refused(given_split: Any) -> None:
    given_split(train=[0, 1, 2])
    with pytest.raises(UserError, match=r"^data.val.size: 3 examples cannot be held out of 3$"):
        loaded(spec("given", val={"size": 3}))


@pytest.mark.parametrize(
    ("labels", "val", "message"),
    [
        ([0] * 50 + [1] * 50 + [2], 0.1, "class 'cat' would have no example in val, with 10 of 101 examples held out"),
        (
            [0] * 50 + [1] * 50 + [2],
            0.9,
            "class 'cat' would have no example in train, with 91 of 101 examples held out",
        ),
        (
            [0, 1, 2] * 5,
            0.01,
            "class 'ant' would have no example in val, with 0 of 15 examples held out (nor would 2 more)",
        ),
    ],
)
def test_a_hold_out_that_loses_a_class_is_refused(
    given_split: Any, labels: list[int], val: float, message: str
) -> None:
    given_split(train=labels)
    with pytest.raises(UserError) as caught:
        loaded(spec("given", val=val))
    assert str(caught.value) == f"data.val: {message}"


# ---- limit ----


def test_limit_counts_what_is_kept_after_val_was_held_out(given_split: Any) -> None:
    given_split(train=[0] * 20 + [1] * 30 + [2] * 50, test=[0, 1, 2] * 5)
    data = loaded(spec("given", val=0.1, limit={"train": 31, "val": 4, "test": 3}))
    assert [counts(split) for split in (data.train, data.val, data.test)] == [[11, 10, 10], [2, 1, 1], [1, 1, 1]]
    assert data.description == "given (a test's labels): 31 of 90 train, 4 of 10 val, 3 of 15 test"


@given(st.lists(st.integers(0, 60), min_size=1, max_size=9).filter(any), st.data())
def test_a_limit_is_shared_out_as_evenly_as_the_classes_allow(sizes: list[int], data: st.DataObject) -> None:
    total = data.draw(st.integers(0, sum(sizes)))
    shares = subsets.balanced(np.array(sizes), total)
    assert shares.sum() == total
    assert (shares <= sizes).all()
    short = [share for share, size in zip(shares, sizes, strict=True) if share < size]
    assert not short or shares.max() - min(short) <= 1
    if total:
        assert (subsets.balanced(np.array(sizes), total - 1) <= shares).all()


def test_a_smaller_limit_keeps_some_of_what_a_larger_one_keeps(given_split: Any) -> None:
    given_split(train=[0] * 20 + [1] * 30 + [2] * 50)
    kept = [{image.tobytes() for image in loaded(spec("given", limit={"train": n})).train.images} for n in (7, 31, 73)]
    assert kept[0] < kept[1] < kept[2]


def test_a_limit_keeps_the_order_of_the_split(given_split: Any) -> None:
    labels = [0, 1, 2] * 20
    given_split(train=labels)
    whole = [image.tobytes() for image in as_split(labels).images]
    rows = [whole.index(image.tobytes()) for image in loaded(spec("given", limit={"train": 17})).train.images]
    assert rows == sorted(rows)


def test_everything_wrong_with_a_limit_is_said_at_once(given_split: Any) -> None:
    given_split(train=[0, 1, 2] * 4)
    with pytest.raises(UserError) as caught:
        loaded(spec("given", limit={"train": 13, "val": 3, "test": 3}))
    assert str(caught.value).splitlines() == [
        "data.limit.train: 13 is more than the 12 examples of train",
        "data.limit.val: there is no val split to limit; add data.val",
        "data.limit.test: there is no test split to limit",
    ]


def test_a_limit_that_loses_a_class_is_refused(given_split: Any) -> None:
    given_split(train=[0, 1, 2] * 4)
    with pytest.raises(UserError, match="2 is too few for 3 classes; at least one class would have no example"):
        loaded(spec("given", limit={"train": 2}))


# ---- what a data set may hand over ----


def test_an_empty_split_is_refused(given_split: Any) -> None:
    given_split(train=[])
    with pytest.raises(UserError, match="given, train: no examples"):
        loaded(spec("given"))
    given_split(train=[0, 1, 2], test=[])
    with pytest.raises(UserError, match="given, test: no examples"):
        loaded(spec("given"))


@pytest.mark.parametrize(("label", "more"), [(3, ""), (-1, "; 2 such rows")])
def test_a_label_out_of_range_is_refused_by_its_row(given_split: Any, label: int, more: str) -> None:
    given_split(train=[0, 1, 2, 0, label, *([label] if more else [])])
    with pytest.raises(UserError) as caught:
        loaded(spec("given"))
    assert str(caught.value) == f"data: given, train: row 4 (from 0): label {label} is out of range; 0 to 2{more}"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"shape": [3, 4096, 4096], "count": {"train": 1000}},
            "1,000 images of 4096×4096 pixels take 46.9 GiB; at most 8",
        ),
        ({"shape": [1, 1, 1], "count": {"train": 60_000_000}}, "60,000,000 examples; at most 50,000,000"),
    ],
)
def test_a_split_that_no_machine_could_hold_is_refused_before_it_is_made(fields: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        loaded(spec(**fields))


@pytest.mark.parametrize("ask", [loaded, shape_of])
def test_an_augmentation_that_the_images_cannot_have_is_refused(ask: Any) -> None:
    with pytest.raises(UserError) as caught:
        ask(
            small(augment=["horizontal_flip", {"color_jitter": {"hue": 0.1}}, {"random_erasing": {"value": [1, 2, 3]}}])
        )
    assert str(caught.value).splitlines() == [
        "data.augment.1.color_jitter: colours are known of 1 or 3 channels, and the images have 2",
        "data.augment.2.random_erasing: 3 number(s) as value for images of 2 channel(s)",
    ]


# ---- normalisation, hash, description ----


def test_statistics_are_those_of_the_train_images_that_are_left() -> None:
    data = loaded(small(count={"train": 3001, "test": 3}, val=0.3, limit={"train": 1500}))
    pixels = data.train.images.astype(np.longdouble) / 255
    assert len(data.train) == 1500
    assert data.mean == pytest.approx([float(m) for m in pixels.mean((0, 2, 3))], rel=1e-14)
    assert data.std == pytest.approx([float(s) for s in pixels.std((0, 2, 3))], rel=1e-12)


def test_normalize_none_and_numbers_are_taken_as_written() -> None:
    assert (loaded(small(normalize="none")).mean, loaded(small(normalize="none")).std) == ((0.0, 0.0), (1.0, 1.0))
    data = loaded(small(normalize={"mean": [0.1, 0.2], "std": [0.3, 0.4]}))
    assert (data.mean, data.std) == ((0.1, 0.2), (0.3, 0.4))


@pytest.mark.parametrize("ask", [loaded, shape_of])
def test_normalisation_with_the_wrong_number_of_channels_is_refused(ask: Any) -> None:
    with pytest.raises(UserError) as caught:
        ask(small(normalize={"mean": [0.1], "std": [0.3, 0.4, 0.5]}))
    assert str(caught.value).splitlines() == [
        "data.normalize.mean: 1 number(s) for images of 2 channel(s)",
        "data.normalize.std: 3 number(s) for images of 2 channel(s)",
    ]


def test_a_channel_without_contrast_cannot_be_normalised(given_split: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given_split(train=[0, 1, 2])
    flat = Split(np.full((3, 1, 3, 2), 7, dtype=np.uint8), np.arange(3))
    monkeypatch.setitem(globals(), "as_split", lambda labels: flat)
    with pytest.raises(UserError, match=r"data\.normalize: channel 0 is the same in every pixel of train"):
        loaded(spec("given"))
    assert loaded(spec("given", normalize="none")).std == (1.0,)


def test_equal_data_have_equal_hashes_and_any_change_another() -> None:
    same = {loaded(small()).content_hash, loaded(small(normalize="none", augment=["horizontal_flip"])).content_hash}
    others = [
        loaded(data).content_hash
        for data in (
            small(val=0.3),
            small(val={"fraction": 0.3, "seed": 1}),
            small(limit={"train": 22}),
            small(limit={"test": 10}),
            small(shape=[2, 7, 5]),
            small(count={"train": 23, "test": 12}),
        )
    ]
    assert len(same) == 1
    assert len({*same, *others}) == 7


def test_a_changed_pixel_or_label_changes_the_hash(given_split: Any) -> None:
    given_split(train=[0, 1, 2, 0, 1, 2])
    first = loaded(spec("given")).content_hash
    given_split(train=[0, 1, 2, 0, 2, 1])
    assert loaded(spec("given")).content_hash != first


def test_the_arrays_are_read_only_and_the_whole_pickles() -> None:
    data = loaded(small(val=0.3))
    with pytest.raises(ValueError, match="read-only"):
        data.train.images[0] = 0
    copy = pickle.loads(pickle.dumps(data))
    assert copy.content_hash == data.content_hash
    assert np.array_equal(copy.train.images, data.train.images)
    assert data.train.images.flags.c_contiguous
    assert (data.input_shape, data.classes, data.class_names) == ((2, 5, 7), 3, ("0", "1", "2"))


def test_shape_of_agrees_with_what_is_loaded() -> None:
    assert shape_of(small()) == (loaded(small()).input_shape, 3)
    assert shape_of(spec("mnist")) == ((1, 28, 28), 10)
    assert shape_of(spec("cifar10")) == ((3, 32, 32), 10)
    assert shape_of(spec("cifar100")) == ((3, 32, 32), 100)


# ---- root ----


def test_a_relative_root_starts_at_the_specs_folder(tmp_path: Path) -> None:
    assert root_of(spec("parquet", root="images/small"), tmp_path) == tmp_path.resolve() / "images" / "small"
    assert root_of(spec("parquet", root="."), tmp_path) == tmp_path.resolve()


@pytest.mark.parametrize("root", ["..", "../other", "a/../../b", "/etc", "~", "~/data"])
def test_a_root_outside_the_specs_folder_needs_the_command_line(tmp_path: Path, root: str) -> None:
    for name in ("parquet", "mnist"):
        with pytest.raises(UserError, match=f"data.root: '{root}' is outside the spec's folder; .* command line"):
            root_of(spec(name, root=root), tmp_path)
        assert root_of(spec(name, root=root), tmp_path, trusted_root=True) is not None


def test_a_link_out_of_the_specs_folder_is_outside(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match="outside the spec's folder"):
        root_of(spec("parquet", root="link"), tmp_path / "base")


@pytest.mark.parametrize("root", ["", "a\0b", "a\nb", "\x1b[31m"])
def test_a_root_that_is_no_name_is_refused(tmp_path: Path, root: str) -> None:
    with pytest.raises(UserError, match="is no folder's name"):
        root_of(spec("parquet", root=root), tmp_path)


def test_the_home_of_an_unknown_user_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root: '~nobody-of-this-name/data' leads nowhere"):
        root_of(spec("parquet", root="~nobody-of-this-name/data"), tmp_path, trusted_root=True)


def test_without_a_root_the_shared_folder_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ABLATE_DATA", str(tmp_path))
    assert root_of(spec("mnist"), Path("/nowhere")) == tmp_path
    monkeypatch.setenv("ABLATE_DATA", "")
    assert root_of(spec("cifar10"), Path("/nowhere")) == Path.home() / ".cache" / "ablate" / "data"
    assert root_of(spec("fake"), Path("/nowhere")) is None
