"""What a sweep costs beyond training: many short trials through ``ablate sweep``, and the same by hand in a loop.

python benchmarks/overhead.py [--trials 64] [--rounds 5] [--concurrent 2] [--threads 1] [--images 1280]

By hand: as many processes as the sweep runs trials at once, each training its part of the trials in one loop, with the
same threads, and nothing written. The sweep: what follows Ray's start, from the first trial's start to the sweep's
end, results, predictions, weights and all. Both by turns; printed is the median of the rounds' ratios with their range,
the start apart, and where the time between two trials of a worker goes. A ResNet-20 on made-up images.

The aim: a ratio of at most 1.05, and at most 0.2 s from a trial's end to the next one's first step. No test depends on
it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
BY_HAND = """
import json, sys, time
from pathlib import Path
from ablate.design import study_plan
from ablate.numerics import set_process
from ablate.prepare import loader
from ablate.resolving import on_this_machine
from ablate.spec import load
from ablate.train import train, trial_of
from ablate.workers import keep_memory
path, part, parts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
plan = study_plan(load(path))
numerics = on_this_machine(plan)
set_process(numerics)
keep_memory()
(variant,) = plan.distinct
data = loader(plan)(variant.data)
trials = [trial_of(variant, seed, numerics) for seed in plan.seeds[part::parts]]
train(trials[0], data)
print("ready", flush=True)
sys.stdin.readline()
began = time.monotonic()
for trial in trials:
    train(trial, data)
print(time.monotonic() - began, flush=True)
"""


@dataclass(frozen=True)
class Round:
    """Seconds: by hand; the sweep's start, until its first trial; its rest; and between the trials of a worker."""

    by_hand: float
    start: float
    sweep: float
    waited: list[float]
    built: list[float]

    @property
    def ratio(self) -> float:
        return self.sweep / self.by_hand


def write_spec(path: Path, given: argparse.Namespace) -> Path:
    spec: dict[str, Any] = {
        "name": "overhead",
        "extends": "models/resnet20.yaml",
        "data": {"name": "fake", "shape": [3, 32, 32], "classes": 10, "count": {"train": given.images, "test": 128}},
        "train": {"epochs": 1, "batch_size": 128, "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}},
        "execution": {"threads": given.threads, "max_concurrent": given.concurrent, "compile": False},
        "ablation": {"seeds": given.trials, "design": "variants", "variants": {"resnet20": {}}},
    }
    models = path.parent / "models"
    models.mkdir(exist_ok=True)
    (models / "resnet20.yaml").write_text((REPOSITORY / "specs" / "models" / "resnet20.yaml").read_text())
    path.write_text(json.dumps(spec))  # JSON is YAML
    return path


def by_hand(spec: Path, given: argparse.Namespace) -> float:
    """Seconds that training takes, until the last process is done."""
    command = [sys.executable, "-c", BY_HAND, str(spec)]
    processes = [
        subprocess.Popen(
            [*command, str(part), str(given.concurrent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(given),
        )
        for part in range(given.concurrent)
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return max(float(process.communicate()[0]) for process in processes)


def swept(spec: Path, folder: Path, given: argparse.Namespace) -> tuple[float, float, list[float], list[float]]:
    """(start, rest, waited, built) of a sweep in a folder of its own, by its event log."""
    command = [sys.executable, "-m", "ablate", "sweep", str(spec), "--out", str(folder), "--quiet", "--no-cache"]
    began = time.time()
    subprocess.run(command, env=_environment(given), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    times = {kind: [_time(event) for event in events if event["event"] == kind] for kind in ("started", "over")}
    uses = [event["use"] for event in events if event["event"] == "epoch"]
    waited, built = ([use[key] for use in uses if key in use] for key in ("waited", "built"))
    return times["started"][0] - began, times["over"][0] - times["started"][0], waited, built


def _time(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["time"]).timestamp()


def _environment(given: argparse.Namespace) -> dict[str, str]:
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(given.threads)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrent", type=int, default=2, help="trials at once, and processes by hand")
    parser.add_argument("--threads", type=int, default=1, help="of each trial")
    parser.add_argument("--images", type=int, default=1280, help="of a trial's one epoch")
    given = parser.parse_args(arguments)
    rounds = []
    with tempfile.TemporaryDirectory(prefix="overhead", ignore_cleanup_errors=True) as name:
        spec = write_spec(Path(name) / "overhead.yaml", given)
        for number in range(given.rounds):
            hand = by_hand(spec, given)
            rounds.append(Round(hand, *swept(spec, Path(name) / f"study{number}", given)))
            print(f"round {number + 1}: by hand {hand:.1f} s, sweep {rounds[-1].sweep:.1f} s", file=sys.stderr)
    ratios = sorted(each.ratio for each in rounds)
    waited, built = ([value for each in rounds for value in getattr(each, key)] for key in ("waited", "built"))
    print(
        f"{given.trials} trials of one epoch of {given.images} images, "
        f"{given.concurrent} at once, {given.threads} threads each"
    )
    print("\n| | seconds, median of the rounds |\n| --- | ---: |")
    for what, key in (("by hand", "by_hand"), ("sweep, after its start", "sweep"), ("its start", "start")):
        print(f"| {what} | {median(getattr(each, key) for each in rounds):.1f} |")
    print(f"\nratio {median(ratios):.3f} ({ratios[0]:.3f}–{ratios[-1]:.3f}), aim 1.05")
    if waited:
        both = median(a + b for a, b in zip(waited, built, strict=True))
        share = f"{median(waited):.3f} s waiting for Ray Tune and the driver, {median(built):.3f} s building the next"
        print(f"from a trial's end to the next one's first step {both:.3f} s, aim 0.2: {share}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
