"""MNIST and CIFAR from tiny files in the published formats, read by torchvision's own code."""

from __future__ import annotations

import hashlib
import pickle
import struct
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision.datasets as published

from ablate.data.dataset import DataSpec, ImageData, load
from ablate.errors import UserError

TRAIN, TEST = 23, 11


def noise(count: int, *shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def loaded(name: str, folder: Path, **fields: Any) -> ImageData:
    return load(DataSpec.model_validate({"name": name, "root": ".", **fields}), base=folder)


def refusal(name: str, folder: Path, **fields: Any) -> str:
    with pytest.raises(UserError) as caught:
        loaded(name, folder, **fields)
    return str(caught.value)


# ---- MNIST: four idx files, big-endian sizes before the bytes ----


def idx(values: np.ndarray[Any, Any]) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    return write_idx(tmp_path, "MNIST")


def write_idx(tmp_path: Path, name: str) -> Path:
    raw = tmp_path / name / "raw"
    raw.mkdir(parents=True)
    for part, count, seed in (("train", TRAIN, 0), ("t10k", TEST, 1)):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(noise(count, 28, 28, seed=seed)))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(count, dtype=np.uint8) % 10))
    return tmp_path


def test_mnist_comes_back_as_it_was_written(mnist: Path) -> None:
    data = loaded("mnist", mnist)
    assert np.array_equal(data.train.images[:, 0], noise(TRAIN, 28, 28))
    assert data.test is not None
    assert np.array_equal(data.test.images[:, 0], noise(TEST, 28, 28, seed=1))
    assert data.train.labels.tolist() == [i % 10 for i in range(TRAIN)]
    assert data.class_names == tuple("0123456789")
    assert data.description == "mnist (handwritten digits of LeCun et al., 1998): 23 train, 11 test"


def test_fashion_mnist_comes_back_as_it_was_written(tmp_path: Path) -> None:
    data = loaded("fashion_mnist", write_idx(tmp_path, "FashionMNIST"))
    assert np.array_equal(data.train.batch(np.arange(TRAIN))[:, 0], noise(TRAIN, 28, 28))
    assert data.class_names[0] == "T-shirt/top"
    assert data.description == "fashion_mnist (pictures of clothes of Xiao et al., 2017): 23 train, 11 test"


def test_files_that_are_there_are_not_downloaded_again(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", None)
    assert len(loaded("mnist", mnist, download=True).train) == TRAIN


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        b"not an idx file",
        idx(noise(TRAIN, 28, 28))[:500],
        idx(noise(TRAIN, 14, 14)),
        struct.pack(">BBBBIII", 0, 0, 8, 3, 2**32 - 1, 28, 28),
        idx(noise(TRAIN - 1, 28, 28)),
        struct.pack(">BBBBIII", 0, 0, 10, 3, 1, 28, 28) + bytes(784),
        idx(noise(TRAIN, 28)),
    ],
)
def test_a_damaged_mnist_file_is_refused(mnist: Path, content: bytes) -> None:
    (mnist / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(content)
    message = refusal("mnist", mnist)
    assert message.startswith("data.root: mnist")
    assert "missing or damaged" in message or "28×28 pixels were expected" in message


def test_a_label_beyond_nine_is_refused(mnist: Path) -> None:
    (mnist / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(TEST, dtype=np.uint8)))
    assert refusal("mnist", mnist) == "data: mnist, test: row 10 (from 0): label 10 is out of range; 0 to 9"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_cached_file_of_old_runs_no_code(mnist: Path) -> None:
    # torchvision prefers MNIST/processed/*.pt, a pickle, where it exists
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (mnist / "bang",))

    old = mnist / "MNIST" / "processed"
    old.mkdir()
    for name in ("training.pt", "test.pt"):
        (old / name).write_bytes(pickle.dumps(Bomb()))
    assert "missing or damaged" in refusal("mnist", mnist)
    assert not (mnist / "bang").exists()


# ---- CIFAR: pickles, whose md5 torchvision checks before it opens them ----


def write_pickle(path: Path, content: Any) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Small files of both sets, and their md5 sums in the place of the published ones."""
    for kind, labels, names in (
        (published.CIFAR10, "labels", "label_names"),
        (published.CIFAR100, "fine_labels", "fine_label_names"),
    ):
        classes, folder = (10 if kind is published.CIFAR10 else 100), tmp_path / kind.base_folder
        for list_name, count in (("train_list", TRAIN), ("test_list", TEST)):
            sums = []
            for seed, (name, _) in enumerate(getattr(kind, list_name)):
                rows = noise(count, 3072, seed=seed + (list_name == "test_list") * 10)
                content = {"data": rows, labels: [i % classes for i in range(count)]}
                sums.append([name, write_pickle(folder / name, content)])
            monkeypatch.setattr(kind, list_name, sums)
        name = kind.meta["filename"]
        md5 = write_pickle(folder / name, {names: [f"class {i}" for i in range(classes)]})
        monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5})
    return tmp_path


@pytest.mark.parametrize(("name", "classes", "files"), [("cifar10", 10, 5), ("cifar100", 100, 1)])
def test_cifar_comes_back_as_it_was_written(cifar: Path, name: str, classes: int, files: int) -> None:
    data = loaded(name, cifar)
    assert np.array_equal(
        data.train.images.reshape(-1, 3072), np.concatenate([noise(TRAIN, 3072, seed=s) for s in range(files)])
    )
    assert data.test is not None
    assert np.array_equal(data.test.images.reshape(-1, 3072), noise(TEST, 3072, seed=10))
    assert data.train.labels.tolist() == [i % classes for i in range(TRAIN)] * files
    assert (data.input_shape, data.classes, data.class_names[-1]) == ((3, 32, 32), classes, f"class {classes - 1}")
    assert data.train.images.flags.c_contiguous


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-batches-py/data_batch_3"),
        ("cifar10", "cifar-10-batches-py/batches.meta"),
        ("cifar100", "cifar-100-python/test"),
    ],
)
def test_a_pickle_that_is_not_the_published_one_is_never_opened(cifar: Path, name: str, file: str) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (cifar / "bang",))

    (cifar / file).write_bytes(pickle.dumps(Bomb()))
    assert "are missing or damaged: Dataset" in refusal(name, cifar)
    assert not (cifar / "bang").exists()


# ---- nothing there ----


@pytest.mark.parametrize(
    ("name", "files"), [("mnist", "MNIST/raw"), ("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")]
)
def test_what_is_not_there_is_said_with_both_ways_out(tmp_path: Path, name: str, files: str) -> None:
    assert refusal(name, tmp_path) == (
        f"data.root: {name} is not there: no folder {tmp_path.resolve() / files}; "
        "download: true fetches it; or name the folder of the files by root"
    )
    (tmp_path / files).mkdir(parents=True)
    assert f"data.root: {name}: the files in {tmp_path.resolve() / files} are missing or damaged" in refusal(
        name, tmp_path
    )
    assert list(tmp_path.rglob("*.*")) == [path for path in tmp_path.rglob("*.*") if path.is_dir()]


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_a_download_without_a_network_is_said_in_words(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("Temporary failure in name resolution")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    message = refusal(name, tmp_path, download=True)
    assert message.startswith(f"data.download: {name} could not be downloaded to {tmp_path.resolve()}: ")
    assert "Temporary failure in name resolution" in message
    assert "is there a network? Files from elsewhere go to" in message


def test_a_folder_that_cannot_be_written_to_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "MNIST").write_text("a file where the folder would be")
    assert "data.download: mnist could not be downloaded" in refusal("mnist", tmp_path, download=True)
