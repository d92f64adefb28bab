"""What a process that trains is given besides its trial: threads for each library, an allocator that keeps memory; and
what it takes.

glibc's allocator hands large blocks back to the system as they are freed, and a training step frees its activations:
the next step faults thousands of pages in again. Blocks that it keeps cost nothing a second time.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ablate.numerics import Numerics

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# Older glibc refuses more than 32 MiB, and would then map every block, since setting the other ends its own adapting.
# 2.36 was seen to take it; which version was the first is not known, and 2.35 is a guess.
_LARGEST = 1 << 30 if platform.libc_ver()[1] >= "2.35" else 1 << 25
KEPT = {"MALLOC_MMAP_THRESHOLD_": _LARGEST, "MALLOC_TRIM_THRESHOLD_": (1 << 31) - 1}
"""Bytes. Below the first a block comes from the heap, not from a mapping of its own; so many stay in the heap's end."""
_OPTIONS = {"MALLOC_MMAP_THRESHOLD_": -3, "MALLOC_TRIM_THRESHOLD_": -1}
"""Their numbers for ``mallopt``, in glibc's malloc.h."""


def worker_environment(numerics: Numerics) -> dict[str, str]:
    """What the libraries of a worker read as they start. Another allocator, or settings of one's own, stay."""
    threads = dict.fromkeys(THREADS, str(numerics.threads))
    return threads | ({key: str(value) for key, value in KEPT.items()} if _allocator_is_free() else {})


def keep_memory() -> None:
    """The same for the allocator of a process that is running; nothing where it isn't glibc's, or has been set."""
    if sys.platform != "linux" or not _allocator_is_free():
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        for key, value in KEPT.items():
            mallopt(_OPTIONS[key], value)


def _allocator_is_free() -> bool:
    """Whether the user has left the allocator as it comes."""
    tuned = [key for key in os.environ if key.startswith("MALLOC_")]
    preloaded = os.environ.get("LD_PRELOAD", "")
    return not tuned and "malloc" not in preloaded and "glibc.malloc" not in os.environ.get("GLIBC_TUNABLES", "")


class Use:
    """What this process takes of its machine, from one asking to the next."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def since_last(self) -> dict[str, Any]:
        """Cores in use since the last time; bytes in memory now, on the CUDA device too; where this process is."""
        wall, cpu = time.monotonic(), time.process_time()
        cores = (cpu - self._cpu) / max(wall - self._wall, 1e-9)
        self._wall, self._cpu = wall, cpu
        found: dict[str, Any] = {"cpu": round(cores, 2), "node": platform.node(), "pid": os.getpid()}
        with suppress(OSError):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            found["memory"] = pages * os.sysconf("SC_PAGE_SIZE")
        return found | (_gpu_use() if self._device == "cuda" else {})


def _gpu_use() -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {"gpu_memory": torch.cuda.memory_reserved()}
    with suppress(ModuleNotFoundError, RuntimeError):  # what counts a device's use is a package of its own
        found["gpu"] = torch.cuda.utilization() / 100
    return found
