"""How numbers are computed in a study: its numerics profile, and the settings of a process that come with it.

The profile is resolved once, frozen in the study's ``spec.yaml`` and part of every trial's hash: two trials of one
table never differ in it. Equal profiles give equal results bit for bit in fp32, eager, on one kind of machine
(on CUDA with ``deterministic``); elsewhere they are equal within rounding.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Numerics:
    """How numbers are computed in a study: resolved once, stored with it, part of every trial's hash."""

    threads: int = 1
    """CPU threads of a trial, of each of its processes."""
    channels_last: bool = True
    device: str = "cpu"
    device_name: str = ""
    """Of a CUDA device: another model rounds otherwise."""
    devices: int = 1
    """Processes that share each batch of a trial, a device each; batch norm's statistics are those of a share."""
    precision: str = "fp32"
    """What ``train.precision: auto`` comes to."""
    compile: bool = False
    """Whether training steps run through ``torch.compile``."""
    fused: bool = True
    """Whether the optimiser moves all parameters in one kernel, where torch has one for it."""
    deterministic: bool = False
    flush_denormal: bool = True
    torch: str = torch.__version__

    def stated(self, precision: str) -> str:
        """What a recipe's ``precision`` comes to."""
        return self.precision if precision == "auto" else precision

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def fastest_precision(device: str) -> str:
    """bf16 where the device multiplies matrices in it, several times as fast as in fp32; else fp32."""
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # AVX512-BF16 or AMX: without them torch emulates bf16, more slowly than it computes fp32
    has = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return "bf16" if any(supported is not None and supported() for supported in has) else "fp32"


def autocast(device: str, precision: str) -> contextlib.AbstractContextManager[None]:
    """The forward pass and the loss in that precision; the weights stay fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device, dtype=PRECISIONS[precision])


def set_process(numerics: Numerics) -> None:
    """Settings of the whole process. Denormals first: torch ignores the flag once threads have started."""
    torch.set_flush_denormal(numerics.flush_denormal)
    torch.set_num_threads(numerics.threads)
    if numerics.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.use_deterministic_algorithms(numerics.deterministic)
    torch.backends.cudnn.deterministic = numerics.deterministic
    torch.backends.cudnn.benchmark = not numerics.deterministic
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def seed_process(seed: int, device: str) -> None:
    """The streams of the whole process: torch's, on the device too, Python's and numpy's."""
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes 0.2 ms, for devices that are not there
    if device == "cuda":
        torch.cuda.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


@contextlib.contextmanager
def process_settings(numerics: Numerics) -> Iterator[None]:
    """``set_process`` for a while: a notebook has its threads, denormals and random streams back afterwards."""
    flushed = not bool(torch.tensor(5e-324, dtype=torch.float64) * torch.ones((), dtype=torch.float64))
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    kept = (cudnn.deterministic, cudnn.benchmark, cuda.matmul.allow_tf32, cudnn.allow_tf32)
    of_python, of_numpy = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    set_process(numerics)
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        torch.set_flush_denormal(flushed)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        cudnn.deterministic, cudnn.benchmark, cuda.matmul.allow_tf32, cudnn.allow_tf32 = kept
