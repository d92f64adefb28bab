"""What the driver and the store cost at scale: 10,000 trials on 100 slots, replayed with faults, and resumed twice.

python benchmarks/scale.py [--trials 10000] [--slots 100] [--epochs 5] [--seed 1] [--out FOLDER]

Nothing is trained: an executor with a virtual clock replays made-up curves, and in its attempts workers die, nodes die,
trials do not fit, or hang. The driver is killed after about a third and after two thirds of the work; each sweep is a
process of its own. The folder is a real one, and in the end every result is compared with its curve.

Printed are, for each sweep, how long opening the study takes (its records, its states, the driver), the driver's own
time for each trial that it ended (with what it writes, without what workers do) and how much its process grew for each
trial of the study; then the folder, and `ablate status` in a fresh process.

The aim: `ablate status` in under 2 seconds. No test depends on it.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ablate.driving import Driver, Listed, Policy
from ablate.planting import Faults
from ablate.replaying import Clock, Course, Recorded, run
from ablate.store import Study

SEEDS = 10
POLICY = Policy(retries=2, trial_timeout=600.0)
DEATH, OUT_OF_MEMORY, HANG = 0.05, 0.02, 0.002
NODES, NODE_EVERY, NODE_BACK = 10, 300.0, 60.0
STATUS_RUNS = 5
COLUMNS = ("sweep", "opened", "began", "ended", "virtual", "wall", "driver", "in fsync", "on a core", "grew")
"""The last four are of one trial: of one that ended in the sweep; of one in the study."""


@dataclass(frozen=True)
class Swept:
    """What one sweep took. Times are in seconds, memory in bytes."""

    opening: float
    wall: float
    driver: float
    waited: float
    """What of that the disk took to settle files (fsync)."""
    computed: float
    """What of that a core was busy."""
    grown: int
    began: int
    ended: int
    virtual: float
    course: Course


class Curves(Mapping[str, Recorded]):
    """What each trial comes to, made up from its hash when it is asked for; one in fifty fails by itself."""

    def __init__(self, trials: Sequence[Listed]) -> None:
        self._trials = {trial.hash: trial for trial in trials}

    def __len__(self) -> int:
        return len(self._trials)

    def __iter__(self) -> Iterator[str]:
        return iter(self._trials)

    def __getitem__(self, hash: str) -> Recorded:
        draws = random.Random(int(hash, 16))
        status = "finished" if draws.random() < 0.98 else draws.choice(["diverged", "crashed"])
        epochs = (
            self._trials[hash].epochs if status == "finished" else draws.randrange(1, self._trials[hash].epochs + 1)
        )
        seconds = draws.uniform(5.0, 15.0)
        rows = [_row(epoch, seconds, draws) for epoch in range(1, epochs + 1)]
        error = {"type": "RuntimeError", "message": "a block's own bug", "traceback": "Traceback …"}
        result = {
            "status": status,
            "metrics": {"test.accuracy": draws.uniform(80.0, 95.0)} if status == "finished" else {},
            "epochs": epochs,
            "selected_epoch": epochs if status == "finished" else 0,
            "seconds": seconds * epochs,
            "images_per_second": 50_000 / seconds,
            "test_readings": int(status == "finished"),
            "error": error if status == "crashed" else None,
        }
        return Recorded(rows, [seconds] * epochs, result)


def _row(epoch: int, seconds: float, draws: random.Random) -> dict[str, float]:
    row = {"epoch": epoch, "lr": 0.1}
    for split in ("train", "val"):
        accuracy = draws.uniform(50.0, 95.0)
        row |= {f"{split}.loss": draws.random(), f"{split}.accuracy": accuracy, f"{split}.error": 100.0 - accuracy}
    return row | {"seconds": seconds, "images_per_second": 50_000 / seconds}


class Timed(Driver):
    """A driver that adds up the time that is spent in it, and what of that the disk took. One in a process."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.spent = self.waited = self.computed = 0.0
        self._inside = False
        for name in ("next", "started", "epoch", "ended", "lost", "timed_out", "overdue", "tell"):
            setattr(self, name, self._timed(getattr(self, name)))
        os.fsync = self._waiting_for(os.fsync)

    def _timed(self, method: Any) -> Any:
        def called(*given: Any, **named: Any) -> Any:
            if self._inside:
                return method(*given, **named)
            self._inside, began, busy = True, time.perf_counter(), time.process_time()
            try:
                return method(*given, **named)
            finally:
                self.spent += time.perf_counter() - began
                self.computed += time.process_time() - busy
                self._inside = False

        return called

    def _waiting_for(self, fsync: Any) -> Any:
        def called(file: int) -> None:
            began = time.perf_counter()
            fsync(file)
            if self._inside:
                self.waited += time.perf_counter() - began

        return called


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    with tempfile.TemporaryDirectory(prefix="scale") as temporary:
        folder = given.out or Path(temporary) / "scale"
        create(folder, given)
        third = given.trials * (given.epochs + 1) // 3
        swept = [_apart(sweep, folder, given, number, kill) for number, kill in enumerate([third, third, None])]
        print("\n".join(report(folder, given, swept)))
    return 0


def create(folder: Path, given: argparse.Namespace) -> None:
    """A study of so many trials; its variants' records hold what an index and a status need."""
    variants = [
        {
            "name": f"v{index}",
            "levels": {"placement": f"v{index}"},
            "baseline": "v0" if index else None,
            "trials": {str(trial.seed): trial.hash for trial in trials},
        }
        for index, trials in enumerate(_by_variant(given))
    ]
    spec = {"name": "scale", "train": {"epochs": given.epochs}, "ablation": {"seeds": SEEDS}}
    Study.create(folder, spec, variants, {})


def _by_variant(given: argparse.Namespace) -> list[list[Listed]]:
    """The trials, ten seeds of each variant."""
    pairs = [divmod(index, SEEDS) for index in range(given.trials)]
    trials = [
        Listed(hashlib.sha256(f"{variant} {seed}".encode()).hexdigest()[:32], f"v{variant}", seed, given.epochs)
        for variant, seed in pairs
    ]
    return [trials[start : start + SEEDS] for start in range(0, len(trials), SEEDS)]


def _apart(function: Any, *given: Any) -> Any:
    """Called in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *given).result()


def sweep(folder: Path, given: argparse.Namespace, number: int, kill_after: int | None) -> Swept:
    """Go on with what has no result, until all is done or the driver is killed."""
    trials = [trial for seeds in _by_variant(given) for trial in seeds]
    before = _resident()
    began = time.perf_counter()
    study = Study.open(folder)
    with study.hold():
        states = study.states()
        to_do = [
            trial for trial in trials if states[trial.hash].status in ("waiting", "interrupted", "lost", "running")
        ]
        clock, told = Clock(), Counter[str]()
        driver = Timed(to_do, study, lambda event: told.update([event["event"]]), POLICY, clock)
        opening = time.perf_counter() - began
        about = {"pid": os.getpid(), "host": platform.node(), "executor": "replay", "trials": len(trials)}
        epochs = sum(trial.epochs for trial in to_do)
        driver.tell("sweep", **about, kept=len(trials) - len(to_do), cached=0, slots=given.slots, to_do=epochs)
        faults = Faults(given.seed + number, DEATH, OUT_OF_MEMORY, HANG, NODES, NODE_EVERY, NODE_BACK, kill_after)
        course = run(driver, Curves(trials), given.slots, clock, faults)
        if not course.killed:
            driver.tell("over", why=driver.stopping or "done", message="")
    wall = time.perf_counter() - began
    grown = max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)
    began_and_ended = (told["started"], told["ended"])
    return Swept(
        opening, wall, driver.spent, driver.waited, driver.computed, grown, *began_and_ended, clock.now, course
    )


def _resident() -> int:
    """Bytes of this process's memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def report(folder: Path, given: argparse.Namespace, swept: Sequence[Swept]) -> list[str]:
    """Markdown."""
    faults = sum((each.course.faults for each in swept), Counter[str]())
    listed = ", ".join(f"{number:,} × {kind.replace('_', ' ')}" for kind, number in sorted(faults.items()))
    return [
        f"{given.trials:,} trials of {given.epochs} epochs on {given.slots} slots of {NODES} nodes; "
        f"Python {platform.python_version()}, {os.cpu_count()} cores",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{' --- |' * len(COLUMNS)}",
        *(_line(number, each, given) for number, each in enumerate(swept, start=1)),
        "",
        f"Faults: {listed}. Epochs done again: {_repeated(given, swept):.1%}.",
        *_compared(folder, given),
        *_folder(folder),
        *_status(folder),
    ]


def _line(number: int, each: Swept, given: argparse.Namespace) -> str:
    name = f"{number}, killed" if each.course.killed else f"{number}"
    driver, waited, computed = (1e3 * took / each.ended for took in (each.driver, each.waited, each.computed))
    counts = f"{each.began:,} | {each.ended:,} | {each.virtual / 3600:.2f} h | {each.wall:.1f} s"
    one = f"{driver:.2f} ms | {waited:.2f} ms | {computed:.2f} ms | {each.grown / given.trials / 1024:.2f} KiB"
    return f"| {name} | {each.opening:.2f} s | {counts} | {one} |"


def _repeated(given: argparse.Namespace, swept: Sequence[Swept]) -> float:
    """Epochs that were trained beyond each trial's own, as a share of these."""
    curves = Curves([trial for seeds in _by_variant(given) for trial in seeds])
    own = sum(len(curves[hash].rows) for hash in curves)
    return sum(each.course.epochs for each in swept) / own - 1


def _compared(folder: Path, given: argparse.Namespace) -> list[str]:
    """Every result against its curve; a trial that hung or was lost too often says so instead."""
    study = Study.open(folder)
    curves = Curves([trial for seeds in _by_variant(given) for trial in seeds])
    other: Counter[str] = Counter()
    equal = 0
    for hash in curves:
        result = study.result(hash) or {"status": "missing"}
        same = {**result, **curves[hash].result} == result
        equal += same
        other.update([] if same else [result["status"]])
    rest = ", ".join(f"{number} {status}" for status, number in sorted(other.items())) or "none"
    return [f"Results equal to the undisturbed ones: {equal:,} of {len(curves):,}; others: {rest}."]


def _folder(folder: Path) -> list[str]:
    sizes = [path.lstat() for path in folder.rglob("*") if path.is_file()]
    log = (folder / "events.jsonl").read_bytes()
    index = (folder / "trials.sqlite").stat().st_size
    return [
        f"Folder: {len(sizes):,} files, {sum(size.st_size for size in sizes) / 1e6:.1f} MB "
        f"({sum(size.st_blocks for size in sizes) * 512 / 1e6:.0f} MB on the disk); "
        f"events.jsonl {len(log) / 1e6:.1f} MB in {log.count(10):,} lines; trials.sqlite {index / 1e6:.1f} MB."
    ]


def _status(folder: Path) -> list[str]:
    """Wall time of the command, Python's own start included."""
    times = []
    for _ in range(STATUS_RUNS):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "ablate", "status", str(folder)], capture_output=True, text=True)
        times.append(time.perf_counter() - began)
        if done.returncode not in (0, 1):  # 1: there are failures
            raise SystemExit(done.stderr)
    shown = ", ".join(f"{seconds:.2f}" for seconds in sorted(times))
    return [f"`ablate status`: {sorted(times)[len(times) // 2]:.2f} s, the median of {shown}."]


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=10_000, help="a multiple of ten seeds (10000)")
    parser.add_argument("--slots", type=int, default=100, help="trials at once (100)")
    parser.add_argument("--epochs", type=int, default=5, help="of each trial (5)")
    parser.add_argument("--seed", type=int, default=1, help="of the faults (1)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep the study there; otherwise it is removed")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
