"""Arrays in an .npz file under MedMNIST's names: what is in it comes back, and what is wrong with it is said."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ablate.data.dataset import DataSpec, ImageData, load, shape_of
from ablate.errors import UserError

SIZES = {"train": 23, "val": 13, "test": 11}


def images(split: str, *shape: int) -> np.ndarray[Any, Any]:
    seed = list(SIZES).index(split)
    return np.random.default_rng(seed).integers(0, 256, (SIZES[split], *shape), dtype=np.uint8)


def contents(*shape: int, splits: tuple[str, ...] = ("train", "val", "test")) -> dict[str, np.ndarray[Any, Any]]:
    """As MedMNIST writes them: labels (N, 1) uint8."""
    made: dict[str, np.ndarray[Any, Any]] = {}
    for split in splits:
        made[f"{split}_images"] = images(split, *shape)
        made[f"{split}_labels"] = (np.arange(SIZES[split], dtype=np.uint8) % 3)[:, None]
    return made


def spec(**fields: Any) -> DataSpec:
    return DataSpec.model_validate({"name": "npz", "root": ".", "file": "set.npz", **fields})


def loaded(folder: Path, **fields: Any) -> ImageData:
    return load(spec(**fields), base=folder)


def refusal(folder: Path, arrays: dict[str, Any] | bytes | None = None, **fields: Any) -> str:
    if isinstance(arrays, bytes):
        (folder / "set.npz").write_bytes(arrays)
    elif arrays is not None:
        np.savez(folder / "set.npz", **arrays)
    with pytest.raises(UserError) as caught:
        loaded(folder, **fields)
    return str(caught.value)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 1)])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_and_labels_come_back_channels_first(tmp_path: Path, shape: tuple[int, ...], save: Any) -> None:
    save(tmp_path / "set.npz", **contents(*shape))
    data = loaded(tmp_path, val="own")
    channels = shape[2] if len(shape) == 3 else 1
    for name, split in (("train", data.train), ("val", data.val), ("test", data.test)):
        assert split is not None
        written = images(name, *shape).reshape(-1, 5, 7, channels)
        assert np.array_equal(split.batch(np.arange(len(split))), written.transpose(0, 3, 1, 2))
        assert split.labels.tolist() == [i % 3 for i in range(SIZES[name])]
    assert shape_of(spec(val="own"), base=tmp_path) == ((channels, 5, 7), 3)
    assert data.class_names == ("0", "1", "2")
    assert data.description == "npz (set): 23 train, 13 val, 11 test"


def test_labels_may_be_flat(tmp_path: Path) -> None:
    arrays = contents(5, 7)
    np.savez(tmp_path / "set.npz", **{name: a.ravel() if "labels" in name else a for name, a in arrays.items()})
    assert loaded(tmp_path, val="own").train.labels.tolist() == [i % 3 for i in range(23)]


def test_shape_and_classes_are_known_without_reading_the_images(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", **contents(5, 7))
    with zipfile.ZipFile(tmp_path / "set.npz") as archive:
        cut = {name: archive.read(name)[: 200 if "images" in name else None] for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        for name, content in cut.items():
            archive.writestr(name, content)
    assert shape_of(spec(val="own", size=11), base=tmp_path) == ((1, 11, 11), 3)
    assert refusal(tmp_path, val="own").startswith("data.file: set.npz: no .npz file, or damaged: ")


def test_the_files_own_val_split_is_used_knowingly(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", **contents(5, 7))
    message = "data.val: 'npz' brings a val split of its own here; write val: own"
    for fields in ({}, {"val": 0.2}):
        assert refusal(tmp_path, **fields) == message
        with pytest.raises(UserError, match="brings a val split of its own"):
            shape_of(spec(**fields), base=tmp_path)


def test_without_a_val_split_in_the_file_one_is_held_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", **contents(5, 7, splits=("train", "test")))
    data = loaded(tmp_path, val=0.2)
    assert [len(split) for split in (data.train, data.val, data.test) if split is not None] == [18, 5, 11]
    message = "data.val: 'npz' brings no val split here; write a fraction (0.2) or {size: …}"
    assert refusal(tmp_path, val="own") == message


def test_a_file_without_a_test_split_has_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", **contents(5, 7, splits=("train",)))
    assert loaded(tmp_path).test is None


def test_several_labels_an_image_are_refused(tmp_path: Path) -> None:
    arrays = contents(5, 7) | {"train_labels": np.zeros((23, 14), dtype=np.uint8)}
    assert refusal(tmp_path, arrays, val="own") == (
        "data.file: set.npz: train_labels is (23, 14): 14 labels for each image; "
        "a network here learns one class of each"
    )


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "bang",))

    for name in ("train_images", "train_labels"):
        arrays = contents(5, 7) | {name: np.array([Bomb()] * 23, dtype=object)}
        assert "set.npz: train_" in refusal(tmp_path, arrays, val="own")
    assert not (tmp_path / "bang").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_images": np.zeros((23, 5, 7), np.float32)}, "train_images is float32 (23, 5, 7); uint8 (N, H, W)"),
        ({"train_images": np.zeros((23, 35), np.uint8)}, "train_images is uint8 (23, 35); uint8 (N, H, W) or"),
        ({"train_images": np.zeros((22, 5, 7), np.uint8)}, "22 train_images and 23 train_labels"),
        ({"train_labels": np.zeros(23, np.float64)}, "train_labels is float64 (23,); whole numbers (N, 1) or (N,)"),
        ({"train_labels": np.zeros((23, 1), np.int64)}, "class '1' (label 1) has no example (nor have 1 more)"),
        ({"val_labels": np.full((13, 1), -1)}, "set.npz, val_labels: row 0 (from 0): label -1 is out of range"),
        ({"val_labels": np.full((13, 1), 10**9)}, "label 1000000000 is out of range; at most 100,000 classes"),
        ({"train_images": np.zeros((0, 5, 7), np.uint8), "train_labels": np.zeros(0, int)}, "no examples"),
    ],
)
def test_arrays_that_cannot_be_meant_are_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    assert message in refusal(tmp_path, contents(5, 7) | changed, val="own")


def test_a_missing_array_is_named_beside_those_there_are(tmp_path: Path) -> None:
    arrays = contents(5, 7, splits=("train",))
    del arrays["train_labels"]
    assert refusal(tmp_path, arrays) == "data.file: set.npz: no array 'train_labels'; it has: train_images"
    assert "no array 'train_images'" in refusal(tmp_path, {"x": np.zeros(3)})


@pytest.mark.parametrize("content", [b"", b"no zip file", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    assert refusal(tmp_path, content).startswith("data.file: set.npz: no .npz file, or damaged: ")


def test_a_header_that_promises_too_much_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = io.BytesIO()
    promised = {"descr": "|u1", "fortran_order": False, "shape": (23, 4096, 4096, 999)}
    np.lib.format.write_array_header_1_0(header, promised)  # type: ignore[arg-type]
    np.savez(tmp_path / "set.npz", train_labels=np.arange(23) % 3)
    with zipfile.ZipFile(tmp_path / "set.npz", "a") as archive:
        archive.writestr("train_images.npy", header.getvalue())
    assert "GiB; at most 8" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["../set.npz", "/etc/passwd", "a\nb", "link.npz"])
def test_a_file_outside_of_root_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "root").mkdir()
    np.savez(tmp_path / "set.npz", **contents(5, 7))
    (tmp_path / "root" / "link.npz").symlink_to(tmp_path / "set.npz")
    assert "is not in root" in refusal(tmp_path, root="root", file=name)


def test_a_file_that_is_not_there_is_named_beside_those_there_are(tmp_path: Path) -> None:
    np.savez(tmp_path / "pathmnist.npz", **contents(5, 7))
    assert refusal(tmp_path) == f"data.file: no file 'set.npz' in {tmp_path}; there are: pathmnist.npz"
    assert refusal(tmp_path, root="nowhere") == f"data.root: no folder {tmp_path / 'nowhere'}"
