"""What went wrong with a trial, where its type alone does not say: want of memory, and a process that is gone."""

from __future__ import annotations

import errno

import torch

_WANT_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What torch says in a plain RuntimeError, by library: of a CPU's allocator, and of calls that go past CUDA's."""


class RankLostError(Exception):
    """One of the processes that share a trial was ended from outside. The trial goes on from its checkpoint."""


def out_of_memory(error: BaseException) -> bool:
    """Whether there was not enough memory, of this machine or of its device, or the error came of that."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(cause, OSError) and cause.errno == errno.ENOMEM:
            return True
        if isinstance(cause, RuntimeError) and any(words in str(cause) for words in _WANT_OF_MEMORY):
            return True
        cause = cause.__cause__
    return False
