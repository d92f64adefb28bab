"""How fast variants are built, certified without the training step, and counted: 1,000 of a ResNet-20 space.

python benchmarks/certify_space.py [--variants 1000] [--processes 2] [--profile]          (``make bench``)

Each variant is drawn at random: an attention block, its reduction, its places (after stages, after or within blocks,
before convolutions; in some stages or all), how it joins, and the kernel of each convolution of each stage. What is
timed is what `ablate plan` does for each: the spec's text is read and checked, the network built as a graph and as a
module with its first weights, its identity computed, and everything certified but the passes that run it forward and
backward; parameters and FLOPs are counted, node by node. Nothing is kept from one run to the next.

The aim: 1,000 in under 60 seconds on two cores. No test depends on it.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import platform
import pstats
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

SEED = 20
PLACES = (
    "after stage{}",
    "after stage{}.*",
    "after stage{}.*.bn1",
    "after stage{}.*.bn2",
    "before stage{}.*.conv1",
    "before stage{}.*.conv*",
    "before stage{}.*.add:branch",
    "before stage{}.*.add:shortcut",
)
STAGES = ("*", "1", "2", "3", "(1|2)", "(1|3)", "(2|3)")
REDUCED = ("se", "cbam", "channel_gate", "ai_gate")
BLOCKS = (*REDUCED, "spatial_gate", "self_attention", "multi_head_attention", "non_local")
REDUCTIONS = (2, 4, 8, 16, 32)
RESIDUALS: tuple[Any, ...] = ("none", "plain", "weighted", {"kind": "weighted", "per": "channel"})
KERNELS = (1, 3, 5, 7)

SPEC: dict[str, Any] = {
    "name": "space",
    "data": {"name": "fake", "shape": [3, 32, 32], "classes": 10, "count": {"train": 512, "test": 16}},
    "train": {"epochs": 1, "batch_size": 128, "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}},
    "network": {
        "graph": {
            "stem": {"block": "conv_bn_act", "width": 16, "kernel": 3},
            "stage1": {"block": "basic", "width": 16, "repeat": 3, "shortcut": "pad"},
            "stage2": {"block": "basic", "width": 32, "repeat": 3, "stride": 2, "shortcut": "pad"},
            "stage3": {"block": "basic", "width": 64, "repeat": 3, "stride": 2, "shortcut": "pad"},
            "head": {"block": "classifier"},
        }
    },
}


@dataclass(frozen=True)
class Share:
    """What one process has done."""

    variants: int
    identities: tuple[str, ...]
    failures: tuple[str, ...]
    nodes: int
    params: tuple[int, int]
    """The fewest and the most."""
    flops: tuple[int, int]
    cpu_seconds: float


def drawn(index: int) -> dict[str, Any]:
    """The patch of one variant, drawn from a stream of its own."""
    from ablate.streams import stream_seed

    numbers = iter(range(100))

    def choose(options: Sequence[Any]) -> Any:
        return options[stream_seed("benchmark", SEED, index, next(numbers)) % len(options)]

    block = choose(BLOCKS)
    attention = {"block": block, "at": choose(PLACES).format(choose(STAGES)), "residual": choose(RESIDUALS)}
    if block in REDUCED:
        attention["reduction"] = choose(REDUCTIONS)
    kernels = {f"stage{stage}.*.conv{conv}": {"kernel": choose(KERNELS)} for stage in (1, 2, 3) for conv in (1, 2)}
    return {"network.insert.attention": attention, "network.set": kernels}


def certified(first: int, last: int) -> Share:
    """The variants numbered ``first`` to ``last`` - 1, as one study."""
    from pathlib import Path

    from ablate.certify import Certifier
    from ablate.data.dataset import load as load_data
    from ablate.design import study_plan
    from ablate.numerics import Numerics
    from ablate.spec import load

    begun = time.process_time()
    variants = {"baseline": {}, **{f"v{index}": drawn(index) for index in range(first, last)}}
    ablation = {"design": "variants", "seeds": 1, "baseline": "baseline", "variants": variants}
    plan = study_plan(load({**SPEC, "ablation": ablation}))
    loaded = load_data(plan.variants[0].data, base=Path())
    certifier = Certifier(lambda data: loaded, Numerics())
    baseline = plan.variant("baseline")
    found = [certifier.certify(each, baseline, passes=False) for each in plan.variants if each is not baseline]
    return Share(
        len(found),
        tuple(each.identity for each in found),
        tuple(f"{each.variant}: {failure}" for each in found for failure in each.failures),
        sum(len(each.network.graph.nodes) for each in plan.variants if each is not baseline),
        _range([each.cost["params"] for each in found]),
        _range([each.cost["flops"] for each in found]),
        time.process_time() - begun,
    )


def _range(numbers: list[int]) -> tuple[int, int]:
    return min(numbers), max(numbers)


def _processor() -> str:
    from ablate.prepare import environment

    return str(environment()["processor"] or platform.machine())


def _report(shares: list[Share], seconds: float, processes: int) -> None:
    import fvcore
    import torch

    variants = sum(share.variants for share in shares)
    identities = {identity for share in shares for identity in share.identities}
    failures = [failure for share in shares for failure in share.failures]
    cpu = sum(share.cpu_seconds for share in shares)
    params = min(share.params[0] for share in shares), max(share.params[1] for share in shares)
    flops = min(share.flops[0] for share in shares), max(share.flops[1] for share in shares)
    rows = [
        ("variants", f"{variants:,} ({len(identities):,} distinct, {len(failures)} failures)"),
        ("nodes", f"{sum(share.nodes for share in shares):,}"),
        ("params", f"{params[0]:,} to {params[1]:,}"),
        ("FLOPs", f"{flops[0]:,} to {flops[1]:,}"),
        ("seconds", f"{seconds:.1f} with {processes} processes, imports included"),
        ("CPU seconds", f"{cpu:.1f} in all, {cpu / processes:.1f} a process, imports left out"),
        ("a second", f"{variants / seconds:.1f} variants; {variants / (cpu / processes):.1f} by CPU time"),
        ("machine", f"{_processor()}, {len(os.sched_getaffinity(0))} CPUs, load {os.getloadavg()[0]:.1f}"),
        ("versions", f"Python {platform.python_version()}, torch {torch.__version__}, fvcore {fvcore.__version__}"),
    ]
    for name, text in rows:
        print(f"{name:<12}  {text}")
    for failure in failures[:10]:
        print(failure, file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--variants", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--profile", action="store_true", help="in this process, with what takes how long")
    options = parser.parse_args()
    if options.profile:
        certified(0, 1)  # imports
        with cProfile.Profile() as profile:
            certified(0, options.variants)
        pstats.Stats(profile).sort_stats("cumulative").print_stats(45)
        return 0
    edges = [round(options.variants * index / options.processes) for index in range(options.processes + 1)]
    begun = time.perf_counter()
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        shares = list(pool.map(certified, edges[:-1], edges[1:]))
    _report(shares, time.perf_counter() - begun, options.processes)
    return 1 if any(share.failures for share in shares) else 0


if __name__ == "__main__":
    raise SystemExit(main())
