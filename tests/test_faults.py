"""What is want of memory, and what is a bug."""

from __future__ import annotations

import errno

import numpy as np
import pytest
import torch

from ablate.faults import out_of_memory


def raised_by(action: object) -> BaseException:
    assert callable(action)
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        action()
    return caught.value


def caused(by: BaseException) -> BaseException:
    error = ValueError("a block's own words")
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    "error",
    [
        raised_by(lambda: torch.empty(1 << 50)),
        raised_by(lambda: np.empty(1 << 50)),
        raised_by(lambda: bytearray(1 << 60)),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        caused(torch.OutOfMemoryError("CUDA out of memory.")),
        caused(caused(MemoryError())),
    ],
    ids=lambda error: f"{type(error).__name__} {str(error)[:40]}",
)
def test_want_of_memory_is_known_by_type_or_by_torchs_own_words(error: BaseException) -> None:
    assert out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("my block is out of memory slots"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
        raised_by(lambda: torch.empty(2, 3) @ torch.empty(2, 3)),
        raised_by(lambda: torch.empty(-1)),
        ValueError("CUDA out of memory"),
        OSError(errno.ENOSPC, "No space left on device"),
        caused(RuntimeError("another bug")),
    ],
    ids=lambda error: f"{type(error).__name__} {str(error)[:40]}",
)
def test_what_only_speaks_of_memory_is_a_bug(error: BaseException) -> None:
    assert not out_of_memory(error)
