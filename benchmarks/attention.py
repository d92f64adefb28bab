"""Attention over pixels, fused against naive: seconds and memory.

python benchmarks/attention.py [--batch 8] [--inference-batch 500] [--rounds 3] [--threads 2]

Training: forward and backward of `multi_head_attention` with eight heads at 32 × 32 pixels, 1,024 tokens, in the form
that the block has (`scaled_dot_product_attention`) and in the naive one, which stores the map of all pixels; on 16 and
64 channels, 2 and 8 a head. Inference: the fused form alone, in both layouts and precisions. Every case runs in a
process of its own, the cases in turn, `rounds` times; medians, and the range of the seconds. Memory is the most that
the process ever held less what it held before the call, its input included. The naive form needs 12 GB at a batch of
128, so the batch is small unless `--batch` says otherwise. About two minutes on two idle cores.

The aim: eight heads at 32 × 32, a batch of 500, in inference within 2 GiB. No test depends on it.
"""

from __future__ import annotations

import argparse
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

SIDE, HEADS = 32, 8
LIMIT = 2 << 30


@dataclass(frozen=True)
class Case:
    form: str
    training: bool
    channels: int
    batch: int
    channels_last: bool = True
    precision: str = "fp32"
    threads: int = 1

    @property
    def name(self) -> str:
        return (
            f"{'training' if self.training else 'inference'} {self.batch:>5} {self.channels:>4} "
            f"{'channels-last' if self.channels_last else 'contiguous':<14}{self.precision:<5}{self.form:<6}"
        )


@dataclass(frozen=True)
class Seen:
    seconds: float
    bytes: int
    """Above what the process held before the first call."""
    difference: float
    """From the naive form, on two images: the largest, of outputs of about 1."""


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    cases = cases_of(given.batch, given.inference_batch, given.threads)
    seen: dict[Case, list[Seen]] = {case: [] for case in cases}
    for _ in range(given.rounds):
        for case in cases:
            seen[case].append(alone(case))
    print(
        f"{platform.machine()}, {given.threads} threads, {HEADS} heads, {SIDE} × {SIDE} pixels, {given.rounds} rounds"
    )
    print(f"{'':<10}batch    C layout        type form  seconds (range)             MiB  from naive")
    for case, runs in seen.items():
        print(row(case, runs))
    within = all(run.bytes < LIMIT for case, runs in seen.items() if not case.training for run in runs)
    print(f"inference within {LIMIT >> 20:,} MiB: {'yes' if within else 'no'}")
    return 0 if within else 1


def cases_of(batch: int, inference_batch: int, threads: int) -> list[Case]:
    training = [
        Case(form, True, channels, batch, precision=precision, threads=threads)
        for channels in (16, 64)
        for form, precision in (("naive", "fp32"), ("fused", "fp32"), ("fused", "bf16"))
    ]
    inference = [
        Case("fused", False, channels, inference_batch, channels_last, precision, threads)
        for channels in (16, 64)
        for channels_last, precision in ((True, "fp32"), (True, "bf16"), (False, "fp32"))
    ]
    return training + inference


def row(case: Case, runs: list[Seen]) -> str:
    seconds = sorted(run.seconds for run in runs)
    memory = median(run.bytes for run in runs) / 2**20
    spread = f"({seconds[0]:.2f} to {seconds[-1]:.2f})"
    return (
        f"{case.name} {median(seconds):>7.2f} {spread:<18} {memory:>8,.0f}  {max(run.difference for run in runs):.0e}"
    )


def alone(case: Case) -> Seen:
    """The case in a fresh process: the most memory that a process ever held is all that the system tells of it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measured, case).result()


def measured(case: Case) -> Seen:
    import torch

    torch.set_num_threads(case.threads)
    block, x = _built(case)
    step = _step(case, block)
    step(x[:1].clone())  # the first call starts threads and chooses kernels
    x = x.requires_grad_(case.training)
    before, started = _bytes_now(), time.perf_counter()
    step(x)
    seconds, most = time.perf_counter() - started, _most_bytes()
    return Seen(seconds, most - before, _difference(case, block))


def _built(case: Case) -> tuple[Any, Any]:
    import torch

    from ablate.block import find

    torch.manual_seed(1)
    kind: Any = find("multi_head_attention")
    block = kind(kind.Params(heads=HEADS), (case.channels, SIDE, SIDE)).train(case.training)
    x = torch.randn(case.batch, case.channels, SIDE, SIDE)
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    return block.to(memory_format=layout), x.contiguous(memory_format=layout)


def _step(case: Case, block: Any) -> Callable[[Any], Any]:
    import torch

    call = block if case.form == "fused" else lambda x: naive(block, x)

    def step(x: Any) -> Any:
        with torch.set_grad_enabled(case.training), torch.autocast("cpu", torch.bfloat16, case.precision == "bf16"):
            y = call(x)
        if case.training:
            y.float().sum().backward()
        return y.detach()

    return step


def naive(block: Any, x: Any) -> Any:
    """The block as the paper's formula is written, with its map of all pixels."""
    q, k, v = (layer(x).flatten(2).unflatten(1, (HEADS, -1)) for layer in (block.query, block.key, block.value))
    weights = (block.scale * q.mT @ k).softmax(-1)
    return block.out((v @ weights.mT).reshape(x.shape))


def _difference(case: Case, block: Any) -> float:
    import torch

    x = torch.randn(2, case.channels, SIDE, SIDE)
    with torch.no_grad():
        expected = naive(block, x)
    return float((_step(case, block)(x) - expected).abs().max())


def _bytes_now() -> int:
    """What is resident; where no system file tells it, the most that ever was, which hides what stays below it."""
    counts = Path("/proc/self/statm")
    return int(counts.read_text().split()[1]) * resource.getpagesize() if counts.exists() else _most_bytes()


def _most_bytes() -> int:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batch", type=int, default=8, help="images of a training step (8)")
    parser.add_argument("--inference-batch", type=int, default=500, help="images of a call in inference (500)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each case runs (3)")
    parser.add_argument("--threads", type=int, default=2, help="threads of a process (2)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
