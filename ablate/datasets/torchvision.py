"""The data sets that torchvision downloads and reads: MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100.

MNIST: LeCun, Bottou, Bengio and Haffner, 1998. CIFAR: Krizhevsky, 2009. Fashion-MNIST: Xiao, Rasul and Vollgraf, 2017
(arXiv:1708.07747).
"""

from __future__ import annotations

import http.client
import importlib
import pickle
import zlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ablate.data.checks import Shape, check_labels, check_size, user_error
from ablate.data.kind import DataInfo, DataSet, RawData
from ablate.data.splits import Split

UNREADABLE = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    AssertionError,
    EOFError,
    zlib.error,
    pickle.UnpicklingError,
    http.client.HTTPException,
)
"""What torchvision's readers and its download raise at missing, cut or foreign files and without a network.

A strange folder runs no code: the only pickles that torchvision opens in full are CIFAR's, after a check of their md5.
"""


class TorchvisionSet(DataSet):
    """A data set of torchvision. A subclass names the class there, and what its constructor cannot say beforehand."""

    torchvision_class: ClassVar[str]
    files: ClassVar[str]
    """The folder beneath ``root``, as torchvision has it."""
    shape: ClassVar[Shape]
    classes: ClassVar[int]
    source: ClassVar[str]
    folder = "shared"
    downloads = True

    @classmethod
    def info(cls, params: Any, root: Path | None) -> DataInfo:
        return DataInfo(cls.shape, cls.classes)

    @classmethod
    def load(cls, params: Any, root: Path | None, download: bool) -> RawData:
        assert root is not None
        train, test = (cls._published(root, train, download) for train in (True, False))
        return RawData(cls._split(train, "train"), cls._split(test, "test"), cls.class_names(train), cls.source)

    @classmethod
    def class_names(cls, published: Any) -> tuple[str, ...]:
        return tuple(str(name) for name in published.classes)

    @classmethod
    def _published(cls, root: Path, train: bool, download: bool) -> Any:
        kind = getattr(importlib.import_module("torchvision.datasets"), cls.torchvision_class)
        try:
            return kind(str(root), train=train, download=download)
        except UNREADABLE as error:
            raise user_error(*cls._complaint(root, download, error)) from error

    @classmethod
    def _complaint(cls, root: Path, download: bool, error: Exception) -> tuple[str, str, str]:
        folder = root / cls.files
        reason = str(error).strip().replace("\n", " ") or type(error).__name__
        if download:
            return (
                f"{cls.name} could not be downloaded to {root}: {reason}",
                "download",
                f"is there a network? Files from elsewhere go to {folder}",
            )
        if not folder.is_dir():
            return (
                f"{cls.name} is not there: no folder {folder}",
                "root",
                "download: true fetches it; or name the folder of the files by root",
            )
        return (
            f"{cls.name}: the files in {folder} are missing or damaged: {reason}",
            "root",
            "download: true fetches them",
        )

    @classmethod
    def _split(cls, published: Any, name: str) -> Split:
        images, labels = np.asarray(published.data), np.asarray(published.targets, dtype=np.int64)
        channels, height, width = cls.shape
        if images.dtype != np.uint8 or images.shape != (len(labels), height, width, *[channels] * (channels > 1)):
            raise user_error(
                f"{cls.name}, {name}: images {images.shape} for {len(labels)} labels; "
                f"{height}×{width} pixels were expected",
                "root",
            )
        check_size(len(labels), cls.shape, f"{cls.name}, {name}")
        check_labels(labels, cls.classes, f"{cls.name}, {name}")
        return Split(np.ascontiguousarray(images.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)), labels)


class Mnist(TorchvisionSet, name="mnist"):
    """MNIST: 60,000 train and 10,000 test digits, 1×28×28, by torchvision."""

    torchvision_class, files = "MNIST", "MNIST/raw"
    shape, classes = (1, 28, 28), 10
    source = "handwritten digits of LeCun et al., 1998"

    @classmethod
    def class_names(cls, published: Any) -> tuple[str, ...]:
        return tuple(str(digit) for digit in range(cls.classes))  # torchvision's are "0 - zero"


class Cifar10(TorchvisionSet, name="cifar10"):
    """CIFAR-10: 50,000 train and 10,000 test photographs, 3×32×32, by torchvision."""

    torchvision_class, files = "CIFAR10", "cifar-10-batches-py"
    shape, classes = (3, 32, 32), 10
    source = "photographs of Krizhevsky, 2009"


class Cifar100(TorchvisionSet, name="cifar100"):
    """CIFAR-100: the same sizes with 100 classes, by torchvision."""

    torchvision_class, files = "CIFAR100", "cifar-100-python"
    shape, classes = (3, 32, 32), 100
    source = "photographs of Krizhevsky, 2009"


class FashionMnist(TorchvisionSet, name="fashion_mnist"):
    """Fashion-MNIST: 60,000 train and 10,000 test pictures of clothes, 1×28×28, by torchvision."""

    torchvision_class, files = "FashionMNIST", "FashionMNIST/raw"
    shape, classes = (1, 28, 28), 10
    source = "pictures of clothes of Xiao et al., 2017"
