"""What the samplers and pruners find on a problem whose answer is known: all 240 variants of a small space, recorded.

python benchmarks/search.py [--seeds 20] [--samplers random tpe …] [--processes N]
python benchmarks/search.py --record RUNS_FOLDER      # of `ablate sweep benchmarks/search/recorded.yaml`

The table in benchmarks/search/mnist5k.json was trained once: of each variant its parameters and FLOPs, its accuracy on
validation after each of two epochs (800 images: in steps of 0.125 points), and seconds. Searches are replayed on it: by
the proposer and the pruner of `ablate search`, each trial answered from the table. No point is proposed twice, so that
n trials are n distinct ones. What is compared with random search is compared seed by seed; intervals are 95%.

Printed are, as Markdown: the regret of each sampler for one objective; for accuracy against FLOPs the share of the true
front's hypervolume; what pruners save in epochs and what that costs. `gp` is left out unless asked for: it models for
some third of a second before each proposal, which takes minutes here.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal, get_args

from ablate.design.levels import label_of
from ablate.errors import UserError
from ablate.proposing import Proposer, Pruner
from ablate.space import Grid, Point, PrunerSpec, SamplerSpec, grid_on, load_space
from ablate.spec import load
from ablate.stats import Difference, paired_difference

HERE = Path(__file__).parent / "search"
TABLE = HERE / "mnist5k.json"
Sampler = Literal["random", "grid", "tpe", "cmaes", "gp", "nsga2", "nsga3"]
ACCURACY, FLOPS = "val.accuracy", "flops"
AFTER = (10, 20, 40, 60)
SAMPLERS: tuple[Sampler, ...] = ("random", "grid", "tpe", "cmaes", "nsga2", "nsga3")
FRONTS: tuple[Sampler, ...] = ("random", "tpe", "nsga2", "nsga3")
PRUNERS: Mapping[str, dict[str, Any]] = {
    "ASHA, grace 1, reduction 2": {"name": "asha", "grace": 1, "reduction": 2},
    "ASHA, grace 1, reduction 3": {"name": "asha", "grace": 1, "reduction": 3},
    "median, grace 1, 3 samples": {"name": "median", "grace": 1, "samples": 3},
}


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    accuracy: tuple[float, ...]
    """On validation after each epoch, in percent."""
    params: int
    flops: int
    seconds: float


@dataclass(frozen=True)
class Problem:
    """The space, and what each of its points comes to."""

    grid: Grid
    variants: Mapping[Point, Variant]

    @property
    def best(self) -> float:
        return max(each.accuracy[-1] for each in self.variants.values())

    @property
    def reference(self) -> tuple[float, float]:
        """What a front is measured from: the median accuracy, since some variants do not learn, and the most FLOPs."""
        variants = self.variants.values()
        return median(each.accuracy[-1] for each in variants), max(each.flops for each in variants)

    def hypervolume(self, points: Iterable[Point]) -> float:
        """The area of accuracy times FLOPs that the points beat, above the reference."""
        lowest, most = self.reference
        found = sorted((self.variants[point].flops, self.variants[point].accuracy[-1]) for point in points)
        area, highest = 0.0, lowest
        for flops, accuracy in found:
            area += (most - flops) * max(0.0, accuracy - highest)
            highest = max(highest, accuracy)
        return area


@cache
def problem(table: Path) -> Problem:
    """``SystemExit`` where nothing was recorded, or not of all points."""
    if not table.exists():
        raise SystemExit(f"{table} is missing: ablate sweep {HERE / 'recorded.yaml'}, then --record runs/recorded")
    rows = json.loads(table.read_text())["variants"]
    grid = _grid()
    by_label = {json.dumps(row["point"], sort_keys=True): row for row in rows}
    variants = {}
    for point in grid:
        row = by_label.get(json.dumps(grid.labels(point), sort_keys=True))
        if row is None:
            raise SystemExit(f"{table} has nothing of {grid.labels(point)}")
        variants[point] = Variant(tuple(row[ACCURACY]), row["params"], row["flops"], row["seconds"])
    return Problem(grid, variants)


def _grid() -> Grid:
    return grid_on(load_space(HERE / "space.yaml"), load(HERE / "recorded.yaml"), trained=True)


def record(folder: Path, table: Path) -> None:
    """The table, from the folder of the finished study."""
    from ablate.store import Study
    from ablate.yamlfile import load as read

    study = Study.open(folder)
    factors = read(HERE / "recorded.yaml")["ablation"]["factors"]
    paths = {dimension.path for dimension in _grid().dimensions}
    rows = []
    for variant in study.variants:
        (hash,) = variant["trials"].values()
        result, epochs = study.result(hash), study.metrics(hash)
        if result is None or result["status"] != "finished":
            raise SystemExit(f"{folder}: {variant['name']} is not finished")
        values = _values(variant["levels"], factors)
        rows.append(
            {
                "point": {path: label_of(value) for path, value in values.items() if path in paths},
                **{metric: variant["cost"][metric] for metric in ("params", FLOPS)},
                ACCURACY: [epoch[ACCURACY] for epoch in epochs],
                "seconds": round(result["seconds"], 2),
            }
        )
    about = {"what": "benchmarks/search/recorded.yaml: every variant, one seed", "variants": rows}
    table.write_text(json.dumps(about, indent=None).replace('{"point"', '\n{"point"') + "\n")


def _values(levels: Mapping[str, str], factors: Mapping[str, Any]) -> dict[str, Any]:
    """Path → value, of a variant's levels."""
    found: dict[str, Any] = {}
    for factor, label in levels.items():
        written = factors[factor]
        if "levels" in written:
            found[written["path"]] = next(value for value in written["levels"] if label_of(value) == label)
        else:
            found |= written[label]
    return found


@dataclass(frozen=True)
class Replay:
    """One search on the table."""

    table: Path
    sampler: Sampler
    objectives: tuple[str, ...]
    seed: int

    def points(self) -> list[Point]:
        """As many as the largest of ``AFTER``, in the order in which they were proposed."""
        given = problem(self.table)
        ways = {ACCURACY: "maximize", FLOPS: "minimize"}
        spec = SamplerSpec(name=self.sampler, seed=self.seed)
        proposer = Proposer(given.grid, {metric: ways[metric] for metric in self.objectives}, spec)
        found = []
        for _ in range(AFTER[-1]):
            proposal = proposer.propose()
            assert proposal is not None
            variant = given.variants[proposal.point]
            proposer.tell(proposal.number, {ACCURACY: variant.accuracy[-1], FLOPS: float(variant.flops)})
            found.append(proposal.point)
        return found


Found = dict[str, dict[int, list[Point]]]
"""Sampler → seed → points."""


def replayed(samplers: Sequence[Sampler], objectives: tuple[str, ...], given: argparse.Namespace) -> Found:
    seeds = range(given.seeds)
    replays = [Replay(given.table, sampler, objectives, seed) for sampler in samplers for seed in seeds]
    with ProcessPoolExecutor(given.processes, mp_context=get_context("spawn")) as pool:
        points = list(pool.map(Replay.points, replays, chunksize=5))
    found: Found = {sampler: {} for sampler in samplers}
    for replay, each in zip(replays, points, strict=True):
        found[replay.sampler][replay.seed] = each
    return found


def compared(title: str, by_sampler: Mapping[str, Mapping[int, Mapping[int, float]]]) -> Iterator[str]:
    """A row for each sampler: the mean over seeds after n trials, and below it the difference to random search."""
    yield f"| {title} | {' | '.join(f'{n} trials' for n in AFTER)} |"
    yield f"| --- |{' ---: |' * len(AFTER)}"
    for sampler, by_seed in by_sampler.items():
        cells = [f"{fmean(by_n[n] for by_n in by_seed.values()):.3f}" for n in AFTER]
        if sampler != "random":
            random_one = by_sampler["random"]
            for index, n in enumerate(AFTER):
                own, other = ({seed: values[n] for seed, values in each.items()} for each in (by_seed, random_one))
                cells[index] += f" ({_difference(paired_difference(own, other))})"
        yield f"| {sampler} | {' | '.join(cells)} |"


def _difference(found: Difference) -> str:
    """``−0.12 [−0.20, −0.04]``"""
    assert found.mean is not None
    said = f"{found.mean:+.3f}"
    if found.interval is not None:
        said += f" [{found.interval.low:+.3f}, {found.interval.high:+.3f}]"
    return said.replace("-", "−")


def regrets(found: Found, given: Problem) -> dict[str, dict[int, dict[int, float]]]:
    """How much less than the best of the table the best of the first n points has, in points of accuracy."""

    def regret(points: list[Point]) -> float:
        return given.best - max(given.variants[point].accuracy[-1] for point in points)

    return {
        sampler: {seed: {n: regret(points[:n]) for n in AFTER} for seed, points in by_seed.items()}
        for sampler, by_seed in found.items()
    }


def shares(found: Found, given: Problem) -> dict[str, dict[int, dict[int, float]]]:
    """The hypervolume of the first n points, as a share of the true front's."""
    whole = given.hypervolume(given.variants)
    return {
        sampler: {seed: {n: given.hypervolume(points[:n]) / whole for n in AFTER} for seed, points in by_seed.items()}
        for sampler, by_seed in found.items()
    }


def pruned(given: Problem, pruner: Mapping[str, Any], trials: int, seed: int) -> tuple[float, float]:
    """Of so many points at random: the share of epochs that is saved, and what the best lacks in accuracy."""
    order = list(given.variants)
    random.Random(seed).shuffle(order)
    judge = Pruner(PrunerSpec(**pruner), "maximize", 2).judge
    epochs, kept = 0, []
    for number, point in enumerate(order[:trials]):
        accuracy = given.variants[point].accuracy
        ended = judge(str(number), 1, accuracy[0])
        epochs += 1 if ended else 2
        kept += [] if ended else [accuracy[-1]]
    best = max(given.variants[point].accuracy[-1] for point in order[:trials])
    return 1 - epochs / (2 * trials), best - max(kept)


def savings(given: Problem, seeds: int) -> Iterator[str]:
    counts = (20, 60, len(given.variants))
    yield f"| pruner | {' | '.join(f'{n} trials: saved | lost' for n in counts)} |"
    yield f"| --- |{' ---: | ---: |' * len(counts)}"
    for name, spec in PRUNERS.items():
        cells = []
        for n in counts:
            saved, lost = zip(*(pruned(given, spec, n, seed) for seed in range(seeds)), strict=True)
            same = sum(each == 0 for each in lost)
            cells += [f"{fmean(saved):.1%}", f"{fmean(lost):.3f} (none in {same} of {seeds})"]
        yield f"| {name} | {' | '.join(cells)} |"


def report(given: argparse.Namespace) -> Iterator[str]:
    began = time.perf_counter()
    table = problem(given.table)
    accuracies = sorted((each.accuracy[-1] for each in table.variants.values()), reverse=True)
    minutes = sum(each.seconds for each in table.variants.values()) / 60
    yield (
        f"{len(table.variants)} variants, trained in {minutes:.0f} minutes; the best has {table.best:.3f} % on "
        f"validation, the tenth {accuracies[9]:.3f}, the median {median(accuracies):.3f}. Means over {given.seeds} "
        "seeds; in brackets the difference to random search with its 95% interval."
    )
    one: list[Sampler] = []
    refused = []
    for sampler in dict.fromkeys(["random", *given.samplers]):
        try:
            Proposer(table.grid, {ACCURACY: "maximize"}, SamplerSpec(name=sampler))
            one.append(sampler)
        except UserError as error:
            refused.append(f"{sampler}: {error}")
    yield from ["", "### Regret: how much less than the best, in points of accuracy", ""]
    yield from compared("sampler", regrets(replayed(one, (ACCURACY,), given), table))
    yield from ["", *refused] if refused else []
    two: list[Sampler] = ["random", *(each for each in given.samplers if each in (*FRONTS[1:], "gp"))]
    lowest, most = table.reference
    yield from ["", "### Accuracy against FLOPs: hypervolume, as a share of the true front's", ""]
    yield from compared("sampler", shares(replayed(two, (ACCURACY, FLOPS), given), table))
    yield from ["", f"Measured from {lowest:.3f} % (the median) and {most / 1e6:.2f} MFLOPs (the most)."]
    yield from [
        "",
        "### Pruners on random search: epochs saved, points of accuracy that the best kept lacks",
        "",
    ]
    yield from savings(table, given.seeds)
    yield from ["", f"Replayed in {time.perf_counter() - began:.0f} s on {os.cpu_count()} cores."]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--record", type=Path, metavar="FOLDER", help="write the table from a finished study")
    parser.add_argument(
        "--table", type=Path, default=TABLE, metavar="FILE", help="the table (benchmarks/search/mnist5k.json)"
    )
    parser.add_argument("--seeds", type=int, default=20, help="searches of each sampler (20)")
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS, choices=get_args(Sampler), help="beside random")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="at once (one for each core)")
    given = parser.parse_args(arguments)
    if given.record:
        record(given.record, given.table)
    else:
        for line in report(given):
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
