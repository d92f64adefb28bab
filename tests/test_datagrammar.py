"""The grammar of ``data:``: what is read as written, what is refused and where, and what means the same."""

from __future__ import annotations

import json
import pickle
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel, Field, ValidationError

from ablate.augmentations.horizontal_flip import HorizontalFlip
from ablate.augmentations.random_crop import RandomCrop
from ablate.data.dataset import (
    DataSet,
    DataSetParams,
    DataSpec,
    find,
    registry,
)
from ablate.data.fields import HeldOutFraction

AUGMENTATIONS = "color_jitter, horizontal_flip, random_crop, random_erasing, random_resized_crop, random_rotation"


def spec(name: str = "fake", **fields: Any) -> DataSpec:
    return DataSpec.model_validate({"name": name, **fields})


def small(**fields: Any) -> DataSpec:
    """23 train and 11 test images in three classes, made up."""
    return spec(**{"shape": [2, 5, 7], "classes": 3, "count": {"train": 23, "test": 11}, **fields})


def complaints(error: ValidationError) -> dict[tuple[int | str, ...], str]:
    return {item["loc"]: item["msg"] for item in error.errors()}


def refused(**fields: Any) -> dict[tuple[int | str, ...], str]:
    with pytest.raises(ValidationError) as caught:
        DataSpec.model_validate(fields)
    return complaints(caught.value)


# ---- the registry ----


def test_every_data_set_is_found_by_its_name() -> None:
    assert list(registry()) == [
        *("arrays", "cifar10", "cifar100", "fake", "fashion_mnist", "image_folder"),
        *("mnist", "mnist5k", "npz", "parquet"),
    ]
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
    assert (read.val, read.limit, read.normalize, read.download, read.root) == (
        *(HeldOutFraction(fraction=0.2), None, "dataset", False, None),
    )
    assert spec().params.model_dump() == {"shape": [3, 224, 224], "classes": 1000, "count": {"train": 512, "test": 128}}


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
        (True, "True is no hold-out; write a fraction (0.2), {size: …} or own"),
        ("0.2", "'0.2' is no hold-out; write a fraction (0.2), {size: …} or own"),
        ([0.2], "[0.2] is no hold-out; write a fraction (0.2), {size: …} or own"),
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
        ({"count": {"train": 0}}, ("count", "train")),
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
        ({"cutout": {"size": 3}}, f"unknown augmentation 'cutout'; one of: {AUGMENTATIONS}"),
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


def test_val_own_is_refused_where_the_data_set_brings_none() -> None:
    message = "'mnist5k' brings no val split; write a fraction (0.2) or {size: …}"
    assert refused(name="mnist5k", val="own") == {("val",): message}


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


def test_the_json_schema_takes_what_the_grammar_takes() -> None:
    schema = DataSpec.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    base: dict[str, Any] = {"name": "fake"}
    accepted: list[dict[str, Any]] = [
        *({"val": val} for val in (0.2, {"fraction": 0.2}, {"fraction": 0.2, "seed": 1}, {"size": 5})),
        *({"size": size} for size in (8, [8, 9])),
        *({"mix": {"name": name}} for name in ("mixup", "cutmix", "mixup_or_cutmix")),
        {"mix": {"name": "mixup", "alpha": 0.3, "p": 0.5}},
        {"augment": ["horizontal_flip", "color_jitter", {"random_crop": {"padding": 4}}]},
        {"augment": [{"random_erasing": {"p": 0.25, "value": [1, 2, 3]}}]},
    ]
    refused_: list[dict[str, Any]] = [
        *({"val": val} for val in (1.5, 3, {"siz": 3}, "half")),
        *({"size": size} for size in (0, [8], "large")),
        *({"mix": mix} for mix in ("mixup", {"name": "mixip"}, {"name": "mixup", "alpha": 0})),
        {"augment": ["random_crop"]},
        {"augment": [{"random_erasing": {"value": 300}}]},
    ]
    for fields in accepted:
        assert validator.is_valid(base | fields), fields
        DataSpec.model_validate(base | fields)
    for fields in refused_:
        assert not validator.is_valid(base | fields), fields
        with pytest.raises(ValidationError):
            DataSpec.model_validate(base | fields)


def test_the_schema_describes_every_key() -> None:
    def undescribed(part: Any, name: str = "") -> list[str]:
        found = [name] if name and isinstance(part, dict) and not part.keys() & {"description", "const"} else []
        for key, below in part.get("properties", {}).items():
            found += undescribed(below, f"{name}.{key}")
        return found

    schema = DataSpec.model_json_schema()
    kinds = schema["anyOf"] + list(schema["$defs"].values())
    resolved = [schema["$defs"][kind["$ref"].rsplit("/", 1)[1]] if "$ref" in kind else kind for kind in kinds]
    assert [key for kind in resolved for key in undescribed(kind)] == []


# ---- one meaning, one identity ----


@pytest.mark.parametrize(
    "ways",
    [
        [{"val": 0.2}, {"val": {"fraction": 0.2}}, {"val": {"fraction": 0.2, "seed": 0}}],
        [{"val": {"size": 5}}, {"val": {"size": 5, "seed": 0}}],
        [{"size": 8}, {"size": [8, 8]}],
        [{}, {"limit": {}}, {"augment": []}, {"val": None}],
        [{"mix": {"name": "mixup"}}, {"mix": {"name": "mixup", "alpha": 0.2, "p": 1.0}}],
        [{"augment": ["horizontal_flip"]}, {"augment": [{"horizontal_flip": {}}]}],
        [{"augment": ["color_jitter"]}, {"augment": [{"color_jitter": {"hue": 0.0}}]}],
    ],
)
def test_what_means_the_same_has_one_identity(ways: list[dict[str, Any]]) -> None:
    identities = [small(**way).identity() for way in ways]
    assert all(identity == identities[0] for identity in identities)
    for way in ways:
        assert DataSpec.model_validate(small(**way).model_dump(mode="json")) == small(**way)


def test_an_identity_has_what_changes_a_result_and_nothing_else() -> None:
    plain = spec("mnist", val=0.2)
    assert spec("mnist", val=0.2, root="there", download=True).identity() == plain.identity()
    assert plain.identity() == {"name": "mnist", "val": 0.2, "augment": [], "normalize": "dataset"}
    changed = [
        {"size": 8},
        {"mix": {"name": "mixup"}},
        {"augment": ["color_jitter"]},
        {"val": {"fraction": 0.2, "seed": 1}},
    ]
    assert len({json.dumps(spec("mnist", **({"val": 0.2} | way)).identity()) for way in changed} | {""}) == 5


def test_an_augmentation_of_the_stored_image_comes_first() -> None:
    wrong = refused(name="fake", augment=["horizontal_flip", "random_resized_crop"])
    assert wrong == {("augment",): "'random_resized_crop' acts on the image as it is stored; list it first"}


@pytest.mark.parametrize("size", [0, 4097, [8], [8, 8, 8], [8, 0], 8.5, "8", True])
def test_a_size_that_is_none_is_refused(size: Any) -> None:
    assert {place[0] for place in refused(name="fake", size=size)} == {"size"}


def test_a_mix_that_is_none_is_refused_at_its_place() -> None:
    assert list(refused(name="fake", mix={"name": "mixup", "alpha": 0.0})) == [("mix", "mixup", "alpha")]
    assert list(refused(name="fake", mix={"name": "cutmix", "mixup_alpha": 1.0})) == [("mix", "cutmix", "mixup_alpha")]
    assert "mix" in str(refused(name="fake", mix={"name": "mixip"}))
