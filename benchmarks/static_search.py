"""How many architectures a second a search by cost alone looks at: 10,000 points of a space, parameters and FLOPs.

python benchmarks/static_search.py [--spec specs/placement.yaml] [--space search_spaces/placement_per_block.yaml]
                                   [--points 10000] [--jobs 1 2] [--rounds 3]

The space says for each residual block of a ResNet-20 which attention follows it, if any; the points are drawn at
random without repeats (seed 0). Each round is a fresh process, which reads the spec and the space, holds one against
the other, draws, builds and counts every network, merges the equal ones and ranks them: what `ablate search --static
--trials` does after Python and torch have been imported. With several processes their start is in the time too, and
all rounds have to find the same. The rounds of each number of processes take turns, and the median is printed.

The aim: 300 architectures a second on two cores. No test depends on it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from statistics import median
from typing import Any

from ablate.space import load_space
from ablate.spec import load
from ablate.static_search import record, static_search

REPOSITORY = Path(__file__).resolve().parents[1]
AIM = 300
COLUMNS = ("processes", "wall", "architectures a second", "CPU of each", "largest process", "networks")


@dataclass(frozen=True)
class Round:
    """One search. Times are in seconds, memory in bytes."""

    wall: float
    computed: float
    """What cores were busy, of all processes."""
    resident: int
    """At the most, of the largest process."""
    points: int
    networks: int
    digest: str
    """Of everything that was found."""


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    rounds: dict[int, list[Round]] = {jobs: [] for jobs in given.jobs}
    for _ in range(given.rounds):
        for jobs, found in rounds.items():
            found.append(_apart(search, given, jobs))
    print("\n".join(report(given, rounds)))
    return 0


def search(given: argparse.Namespace, jobs: int) -> Round:
    """The search, and what it took."""
    began, busy = time.perf_counter(), _busy()
    found = static_search(load_space(given.space), load(given.spec), trials=given.points, seed=0, jobs=jobs)
    wall, computed = time.perf_counter() - began, _busy() - busy
    resident = 1024 * max(getrusage(who).ru_maxrss for who in (RUSAGE_SELF, RUSAGE_CHILDREN))
    digest = hashlib.sha256(json.dumps(record(found)).encode()).hexdigest()
    return Round(wall, computed, resident, found.points, len(found.networks), digest)


def _busy() -> float:
    """CPU seconds of this process and of those that it has ended."""
    return sum(getrusage(who).ru_utime + getrusage(who).ru_stime for who in (RUSAGE_SELF, RUSAGE_CHILDREN))


def _apart(function: Any, *given: Any) -> Any:
    """Called in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *given).result()


def report(given: argparse.Namespace, rounds: dict[int, list[Round]]) -> list[str]:
    """Markdown."""
    spec, space = (os.path.relpath(path, REPOSITORY) for path in (given.spec, given.space))
    digests = {each.digest for found in rounds.values() for each in found}
    return [
        f"{given.points:,} points of {space} on {spec}, the median of {given.rounds} rounds; "
        f"Python {platform.python_version()}, {os.cpu_count()} cores",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{' --- |' * len(COLUMNS)}",
        *(_line(jobs, found) for jobs, found in rounds.items()),
        "",
        "All rounds found the same." if len(digests) == 1 else f"The rounds found {len(digests)} different results.",
        f"The aim: {AIM} architectures a second on two cores.",
    ]


def _line(jobs: int, rounds: Sequence[Round]) -> str:
    rates = [each.points / each.wall for each in rounds]
    spread = f" ({min(rates):.0f} to {max(rates):.0f})" if len(rates) > 1 else ""
    one = median(1e3 * each.computed / each.points for each in rounds)
    largest = max(each.resident for each in rounds) / 2**20
    wall = median(each.wall for each in rounds)
    cells = (
        *(f"{jobs}", f"{wall:.1f} s", f"{median(rates):.0f}{spread}"),
        *(f"{one:.2f} ms", f"{largest:.0f} MiB", f"{rounds[0].networks:,}"),
    )
    return f"| {' | '.join(cells)} |"


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--spec", type=Path, default=REPOSITORY / "specs" / "placement.yaml")
    parser.add_argument("--space", type=Path, default=REPOSITORY / "search_spaces" / "placement_per_block.yaml")
    parser.add_argument("--points", type=int, default=10_000, help="of the space, at random (10000)")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2], help="processes (1 and 2)")
    parser.add_argument("--rounds", type=int, default=3, help="of each (3)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
