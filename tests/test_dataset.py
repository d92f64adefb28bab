"""From ``data:`` in a spec to arrays: the grammar, held-out and limited splits, statistics, and every refusal."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from ablate import dataset
from ablate.batches import HorizontalFlip, RandomCrop
from ablate.dataset import (
    DataInfo,
    DataSet,
    DataSetParams,
    DataSpec,
    ImageData,
    RawData,
    Split,
    find,
    load,
    registry,
    root_of,
    shape_of,
)
from ablate.errors import UserError

NAMES = ("ant", "bee", "cat")


def spec(name: str = "fake", **fields: Any) -> DataSpec:
    return DataSpec.model_validate({"name": name, **fields})


def small(**fields: Any) -> DataSpec:
    """23 train and 11 test images in three classes, made up."""
    return spec(**{"shape": [2, 5, 7], "classes": 3, "size": {"train": 23, "test": 11}, **fields})


def loaded(data: DataSpec, **options: Any) -> ImageData:
    return load(data, base=Path("/nowhere"), **options)


def complaints(error: ValidationError) -> dict[tuple[int | str, ...], str]:
    return {item["loc"]: item["msg"] for item in error.errors()}


def refused(**fields: Any) -> dict[tuple[int | str, ...], str]:
    with pytest.raises(ValidationError) as caught:
        DataSpec.model_validate(fields)
    return complaints(caught.value)


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
    dataset._registry.pop("given")
    dataset._grammar.cache_clear()


def as_split(labels: list[int]) -> Split:
    noise = np.random.default_rng(7).integers(0, 256, (len(labels), 1, 3, 2), dtype=np.uint8)
    return Split(noise, np.array(labels, dtype=np.int64))


def counts(split: Split | None) -> list[int]:
    assert split is not None
    return [int((split.labels == label).sum()) for label in range(3)]


# ---- the registry ----


def test_every_data_set_is_found_by_its_name() -> None:
    assert list(registry()) == ["cifar10", "cifar100", "fake", "mnist", "mnist5k", "parquet"]
    assert find("fake").name == "fake"


def test_an_unknown_name_is_a_key_error_with_a_hint() -> None:
    with pytest.raises(KeyError, match="did you mean 'cifar10'"):
        find("cifra10")


def test_one_name_cannot_be_given_twice() -> None:
    with pytest.raises(ValueError, match="data set 'fake' is defined in"):
        type("Other", (DataSet,), {"__module__": __name__}, name="fake")


def test_a_parameter_cannot_take_the_name_of_a_common_field() -> None:
    class Clash(DataSetParams):
        root: str = "x"

    with pytest.raises(ValueError, match=r"names of data's own: \['root'\]"):
        type("Clashing", (DataSet,), {"__module__": __name__, "Params": Clash}, name="clashing")


@pytest.mark.parametrize("name", list(registry()))
def test_every_parameter_has_a_description_and_every_set_a_summary(name: str) -> None:
    fields = {**DataSpec.model_fields, **find(name).Params.model_fields}
    assert [field for field, info in fields.items() if not info.description] == []
    assert find(name).summary()


# ---- the grammar ----


def test_a_spec_reads_as_written_with_defaults_filled_in() -> None:
    read = small(val=0.2, augment=["horizontal_flip", {"random_crop": {"padding": 4}}])
    assert read.augment == [HorizontalFlip(), RandomCrop(padding=4)]
    assert (read.val, read.limit, read.normalize, read.download, read.root) == (0.2, None, "dataset", False, None)
    assert spec().params.model_dump() == {"shape": [3, 224, 224], "classes": 1000, "size": {"train": 512, "test": 128}}


def test_a_resolved_spec_reads_back_to_itself() -> None:
    written = small(
        val={"size": 5},
        limit={"train": 7},
        normalize={"mean": [0.5, 0.5], "std": [0.1, 1]},
        augment=[{"random_crop": {"padding": 4}}, "horizontal_flip"],
    )
    plain = json.loads(json.dumps(written.model_dump(mode="json")))
    assert "null" not in json.dumps([plain, spec("mnist5k").model_dump(mode="json")])
    assert plain["augment"] == [{"random_crop": {"padding": 4}}, "horizontal_flip"]
    assert DataSpec.model_validate(plain) == written
    assert DataSpec.model_validate(spec("mnist5k").model_dump()) == spec("mnist5k")
    assert pickle.loads(pickle.dumps(written)) == written


def test_within_a_larger_spec_errors_keep_their_path_and_come_all_at_once() -> None:
    class Whole(BaseModel):
        data: DataSpec

    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(
            {
                "data": {
                    "name": "fake",
                    "clases": 3,
                    "val": 5,
                    "limit": {"trian": 1},
                    "shape": [1, 2],
                    "augment": ["flip", {"random_crop": {"pad": 1}}],
                }
            }
        )
    assert set(complaints(caught.value)) == {
        ("data", "clases"),
        ("data", "val"),
        ("data", "limit", "trian"),
        ("data", "shape"),
        ("data", "augment", 0),
        ("data", "augment", 1, "random_crop", "padding"),
        ("data", "augment", 1, "random_crop", "pad"),
    }


def test_an_unknown_key_gets_a_hint_over_common_and_own_parameters() -> None:
    assert refused(name="fake", clases=3)[("clases",)] == "unknown key; did you mean 'classes'?"
    assert refused(name="fake", dowload=True)[("dowload",)] == "unknown key; did you mean 'download'?"
    # a parameter of another data set is unknown to this one
    assert refused(name="mnist5k", classes=3)[("classes",)].startswith("unknown key; one of: augment, download")


def test_an_unknown_data_set_gets_a_hint() -> None:
    assert refused(name="minst")[("name",)] == "unknown data set 'minst'; did you mean 'mnist'?"


def test_a_spec_without_a_name_is_refused() -> None:
    assert refused(val=0.2) == {("name",): "Field required"}
    assert list(refused(name=3)) == [("name",)]


@pytest.mark.parametrize(
    ("val", "message"),
    [
        (5, "5 is a whole number; write a fraction between 0 and 1, or {size: 5} for a number of examples"),
        (0, "0 is a whole number; write a fraction between 0 and 1, or {size: 0} for a number of examples"),
        (1.0, "1.0 is no fraction; it lies between 0 and 1, both excluded"),
        (0.0, "0.0 is no fraction; it lies between 0 and 1, both excluded"),
        (-0.2, "-0.2 is no fraction; it lies between 0 and 1, both excluded"),
        (float("nan"), "nan is no fraction; it lies between 0 and 1, both excluded"),
        (True, "True is no hold-out; write a fraction (0.2) or {size: …}"),
        ("0.2", "'0.2' is no hold-out; write a fraction (0.2) or {size: …}"),
        ([0.2], "[0.2] is no hold-out; write a fraction (0.2) or {size: …}"),
        ({}, "write either size (a number of examples) or fraction, one of the two"),
        ({"size": 3, "fraction": 0.1}, "write either size (a number of examples) or fraction, one of the two"),
    ],
)
def test_a_hold_out_that_cannot_be_meant_is_refused(val: Any, message: str) -> None:
    assert refused(name="fake", val=val) == {("val",): message}


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"val": {"size": 0}}, ("val", "size")),
        ({"val": {"size": 2.5}}, ("val", "size")),
        ({"val": {"fraction": 1.5}}, ("val", "fraction")),
        ({"val": {"size": 3, "seed": -1}}, ("val", "seed")),
        ({"val": {"size": 3, "sed": 1}}, ("val", "sed")),
        ({"limit": {"train": 0}}, ("limit", "train")),
        ({"limit": {"valid": 3}}, ("limit", "valid")),
        ({"limit": 3}, ("limit",)),
        ({"normalize": {"mean": [0.1]}}, ("normalize", "std")),
        ({"normalize": {"mean": [0.1], "std": [0]}}, ("normalize", "std", 0)),
        ({"normalize": {"mean": [float("inf")], "std": [1]}}, ("normalize", "mean", 0)),
        ({"normalize": {"mean": [], "std": [1]}}, ("normalize", "mean")),
        ({"download": "yes"}, ("download",)),
        ({"root": 3}, ("root",)),
        ({"shape": [3, 0, 8]}, ("shape", 1)),
        ({"shape": [3, 8, 4097]}, ("shape", 2)),
        ({"classes": 10**9}, ("classes",)),
        ({"classes": 3.7}, ("classes",)),
        ({"size": {"train": 0}}, ("size", "train")),
    ],
)
def test_a_wrong_value_is_refused_at_its_own_place(fields: dict[str, Any], place: tuple[str | int, ...]) -> None:
    assert list(refused(name="fake", **fields)) == [place]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("datset", "unknown normalization 'datset'; did you mean 'dataset'? or a mapping with mean and std"),
        (3, "3 is no normalization; write dataset, none, or a mapping with mean and std"),
        (None, "None is no normalization; write dataset, none, or a mapping with mean and std"),
    ],
)
def test_an_unknown_normalization_is_refused(value: Any, message: str) -> None:
    assert refused(name="fake", normalize=value) == {("normalize",): message}


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("horizontal_flp", "unknown augmentation 'horizontal_flp'; did you mean 'horizontal_flip'?"),
        ({"cutout": {"size": 3}}, "unknown augmentation 'cutout'; one of: horizontal_flip, random_crop"),
        ("random_crop", "'random_crop' needs parameters; write {random_crop: {padding: …}}"),
        (3, "3 is no augmentation; write its name, or a mapping with one key, the name, and its parameters"),
        (
            {"horizontal_flip": {}, "random_crop": {"padding": 1}},
            "{'horizontal_flip': {}, 'random_crop': {'padding': 1}} is no augmentation; write its name, or a mapping "
            "with one key, the name, and its parameters",
        ),
    ],
)
def test_an_augmentation_that_is_none_is_refused(item: Any, message: str) -> None:
    assert refused(name="fake", augment=["horizontal_flip", item]) == {("augment", 1): message}


@pytest.mark.parametrize("padding", [0, -1, 513, 2.5, "4", None])
def test_a_padding_out_of_range_is_refused(padding: Any) -> None:
    wrong = refused(name="fake", augment=[{"random_crop": {"padding": padding}}])
    assert list(wrong) == [("augment", 0, "random_crop", "padding")]


def test_the_same_augmentation_twice_is_refused() -> None:
    # both would draw the same numbers from the one stream that bears their name
    wrong = refused(name="fake", augment=["horizontal_flip", {"horizontal_flip": {}}])
    assert wrong == {("augment",): "'horizontal_flip' is listed twice"}


def test_a_key_that_the_data_set_would_not_use_is_refused() -> None:
    wrong = refused(name="mnist5k", root="there", download=True)
    assert wrong == {
        ("root",): "'mnist5k' reads no folder; remove this key",
        ("download",): "'mnist5k' has nothing to download; remove this key",
    }
    assert list(refused(name="parquet", root="there", download=True)) == [("download",)]


def test_parquet_needs_a_root() -> None:
    assert list(refused(name="parquet")) == [("root",)]
    assert list(refused(name="parquet", root=None)) == [("root",)]


def test_the_json_schema_has_the_keys_of_each_data_set() -> None:
    class Whole(BaseModel):
        data: DataSpec = Field()

    schema = Whole.model_json_schema()
    kinds = {kind["properties"]["name"]["const"]: kind for kind in schema["$defs"]["DataSpec"]["anyOf"]}
    assert list(kinds) == list(registry())
    assert kinds["parquet"]["required"] == ["name", "root"]
    assert "classes" in kinds["fake"]["properties"]
    assert "classes" not in kinds["mnist5k"]["properties"]
    assert all(kind["additionalProperties"] is False for kind in kinds.values())
    used = {word.rsplit("/", 1)[1] for word in json.dumps(schema).split('"') if word.startswith("#/$defs/")}
    assert used <= set(schema["$defs"])


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
    shares = dataset._proportional(np.array(sizes), size)
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
    shares = dataset._balanced(np.array(sizes), total)
    assert shares.sum() == total
    assert (shares <= sizes).all()
    short = [share for share, size in zip(shares, sizes, strict=True) if share < size]
    assert not short or shares.max() - min(short) <= 1
    if total:
        assert (dataset._balanced(np.array(sizes), total - 1) <= shares).all()


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
            {"shape": [3, 4096, 4096], "size": {"train": 1000}},
            "1,000 images of 4096×4096 pixels take 46.9 GiB; at most 8",
        ),
        ({"shape": [1, 1, 1], "size": {"train": 60_000_000}}, "60,000,000 examples; at most 50,000,000"),
    ],
)
def test_a_split_that_no_machine_could_hold_is_refused_before_it_is_made(fields: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        loaded(spec(**fields))


# ---- normalisation, hash, description ----


def test_statistics_are_those_of_the_train_images_that_are_left() -> None:
    data = loaded(small(size={"train": 3001, "test": 3}, val=0.3, limit={"train": 1500}))
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
            small(size={"train": 23, "test": 12}),
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
