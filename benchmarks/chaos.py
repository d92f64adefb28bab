"""A sweep on a cluster of which something is killed again and again, against the same sweep left alone.

python benchmarks/chaos.py [--trials 40] [--kills 10] [--epochs 6] [--seed 0]

Three nodes on this machine (``ray.cluster_utils.Cluster``): a head without cores, and two that train, a core each. At
random times the sweep's process group, a worker or a whole node is killed with SIGKILL. A killed sweep is started again
by the same command, a killed node is replaced. In the end every trial must have exactly one result, equal bit for
bit (metrics, predictions, weights; fp32, eager, one thread) to that of a sweep in one process that nobody disturbed.
Printed are what was killed, how much work was done twice, and how long it took.

The images are made up, the networks small: it is about losing nothing, not about accuracy. No test depends on this
file's numbers; a short form of it is among the tests.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablate.store import Study

REPOSITORY = Path(__file__).resolve().parents[1]
KINDS = ("sweep", "worker", "node")
PATIENCE = 600.0
"""Seconds without anything new after which it is given up."""


@dataclass
class Disturbance:
    """What was killed, and the sweeps that it took."""

    killed: list[str] = field(default_factory=list)
    sweeps: int = 0
    seconds: float = 0.0


def write_spec(path: Path, trials: int, epochs: int, images: int) -> Path:
    """A study of ``trials`` short trials: two variants."""
    spec: dict[str, Any] = {
        "name": "chaos",
        "data": {
            "name": "fake",
            "shape": [3, 16, 16],
            "classes": 5,
            "count": {"train": images, "test": 50},
            "val": 0.1,
        },
        "train": {
            "epochs": epochs,
            "batch_size": 32,
            "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9},
            "schedule": {"name": "one_cycle"},
        },
        "network": {
            "graph": {
                "stem": {"block": "conv_bn_act", "width": 16, "kernel": 3},
                "stage1": {"block": "basic", "width": 16, "repeat": 2, "shortcut": "pad"},
                "head": {"block": "classifier"},
            },
            "insert": {"attention": {"block": "se", "reduction": 2, "at": "after stage1.*"}},
        },
        # what is bit-equal wherever it runs; and what a kill that hits one trial again and again must not exhaust
        "execution": {"deterministic": True, "threads": 1, "retries": 20},
        "ablation": {
            "seeds": -(-trials // 2),
            "baseline": {"attention": "none"},
            "factors": {"attention": {"none": {"network.insert.attention": None}, "se": {}}},
        },
    }
    path.write_text(json.dumps(spec))  # JSON is YAML
    return path


def undisturbed(spec: Path, folder: Path) -> Study:
    """The same study, one trial after another in one process."""
    command = [*_sweep(spec, folder), "--executor", "local"]
    subprocess.run(command, env=_environment(), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return Study.open(folder)


def disturbed(spec: Path, folder: Path, kinds: Sequence[str], draw: random.Random, pause: float) -> Disturbance:
    """The sweep on a cluster, of which one thing of each of ``kinds`` is killed, every ``pause`` seconds on average.

    A kill is due only when something trains; between two of them the sweep has got on by a trial's epoch at least.
    """
    from ray.cluster_utils import Cluster

    done, began = Disturbance(), time.monotonic()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    process: subprocess.Popen[bytes] | None = None
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        waiting, seen, last = list(kinds), 0, time.monotonic()
        due = 0.0
        while True:
            if process is None or process.poll() is not None:
                if process is not None and process.returncode in (0, 1) and _complete(folder):
                    break
                with (folder.parent / "errors.txt").open("ab") as errors:
                    process = subprocess.Popen(
                        [*_sweep(spec, folder), "--address", cluster.address],
                        env=_environment(),
                        stdout=subprocess.DEVNULL,
                        stderr=errors,
                        start_new_session=True,
                    )
                done.sweeps += 1
            rows = _events(folder, "epoch")
            if len(rows) > seen:
                last = time.monotonic()
            if time.monotonic() - last > PATIENCE:
                raise RuntimeError(f"nothing new for {PATIENCE:.0f} s; see {folder.parent / 'errors.txt'}")
            if len(rows) > seen and waiting and time.monotonic() >= due:
                kind = waiting.pop(0)
                if _kill(kind, process, rows[-1], cluster, nodes, draw):
                    done.killed.append(kind)
                else:
                    waiting.insert(0, kind)
                seen, due = len(rows), time.monotonic() + draw.uniform(0.2, 1.8) * pause
            time.sleep(0.05)
    finally:
        if process is not None and process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        cluster.shutdown()
    done.seconds = time.monotonic() - began
    return done


def _kill(kind: str, process: Any, event: dict[str, Any], cluster: Any, nodes: list[Any], draw: random.Random) -> bool:
    if kind == "sweep":
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    elif kind == "worker":
        try:
            os.kill(event["use"]["pid"], signal.SIGKILL)
        except ProcessLookupError:
            return False
    else:
        node = nodes.pop(draw.randrange(len(nodes)))
        cluster.remove_node(node, allow_graceful=False)
        nodes.append(cluster.add_node(num_cpus=1))
    return True


def differences(expected: Study, found: Study) -> list[str]:
    """Everything in which the trials of two studies differ, but for how long they took."""
    wrong = []
    hashes = [hash for variant in expected.variants for hash in variant["trials"].values()]
    ended = Counter(event["trial"] for event in _events(found.folder, "ended"))
    for hash in hashes:
        first, second = expected.result(hash), found.result(hash)
        if first is None or second is None:
            wrong.append(f"{hash}: no result ({found.damaged.get(hash, 'none written')})")
            continue
        for key in ("status", "metrics", "epochs", "selected_epoch", "test_readings"):
            if first[key] != second[key]:
                wrong.append(f"{hash}: {key}: {first[key]} and {second[key]}")
        if ended[hash] > 1:
            wrong.append(f"{hash}: recorded {ended[hash]} times")
        a, b = (_rows(study, hash) for study in (expected, found))
        if a != b:
            wrong.append(f"{hash}: the epochs' rows")
        wrong += [
            f"{hash}: predictions: {name}"
            for name, array in expected.predictions(hash).items()
            if not np.array_equal(array, found.predictions(hash)[name])
        ]
        one, other = (torch.load(study.weights(hash), weights_only=True) for study in (expected, found))
        wrong += [f"{hash}: weights: {name}" for name in one if not torch.equal(one[name], other[name])]
    readings = Counter(exposure["trial"] for exposure in found.exposures())
    # a sweep that was killed after a reading, before its trial's result, has that on record, and the next reading, too
    wrong += [f"{hash}: no reading of the test split on record" for hash in hashes if not readings[hash]]
    return wrong


def _rows(study: Study, hash: str) -> list[dict[str, Any]]:
    timed = ("seconds", "images_per_second")
    return [{key: value for key, value in row.items() if key not in timed} for row in study.metrics(hash)]


def _events(folder: Path, kind: str) -> list[dict[str, Any]]:
    if not (folder / "events.jsonl").exists():
        return []
    study, found, offset = Study(folder, {}, [], {}), [], -1
    events, after = study.events()
    while after != offset:
        found += [event for event in events if event["event"] == kind]
        offset = after
        events, after = study.events(offset)
    return found


def _complete(folder: Path) -> bool:
    study = Study.open(folder)
    return all(study.result(hash) for variant in study.variants for hash in variant["trials"].values())


def _sweep(spec: Path, folder: Path) -> list[str]:
    return [sys.executable, "-m", "ablate", "sweep", str(spec), "--out", str(folder), "--quiet", "--no-cache"]


def _environment() -> dict[str, str]:
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=500, help="of each trial's training split, made up")
    parser.add_argument("--pause", type=float, default=6.0, help="seconds between two kills, on average")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed when")
    given = parser.parse_args(arguments)
    draw = random.Random(given.seed)
    kinds = [KINDS[number % len(KINDS)] for number in range(given.kills)]
    draw.shuffle(kinds)
    with tempfile.TemporaryDirectory(prefix="chaos", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        spec = write_spec(folder / "chaos.yaml", given.trials, given.epochs, given.images)
        began = time.monotonic()
        alone = undisturbed(spec, folder / "alone")
        seconds = time.monotonic() - began
        done = disturbed(spec, folder / "disturbed", kinds, draw, given.pause)
        found = Study.open(folder / "disturbed")
        wrong = differences(alone, found)
        needed = sum(int((alone.result(hash) or {})["epochs"]) for hash in alone.results())
        trained = len(_events(found.folder, "epoch"))
        attempts = len(_events(found.folder, "started"))
        with suppress(FileNotFoundError):
            print((folder / "errors.txt").read_text()[-3000:], file=sys.stderr)
    killed = Counter(done.killed)
    print(
        f"| trials | killed | sweeps | attempts | epochs needed | epochs trained | repeated | wrong |\n{'| ---: ' * 8}|"
    )
    shown = ", ".join(f"{killed[kind]} {kind}s" for kind in KINDS if killed[kind])
    share = f"{100 * (trained - needed) / needed:.1f}%"
    print(f"| {given.trials} | {shown} | {done.sweeps} | {attempts} | {needed} | {trained} | {share} | {len(wrong)} |")
    print(f"\nalone {seconds:.0f} s, one trial at a time; disturbed {done.seconds:.0f} s, two; seed {given.seed}")
    for line in wrong[:20]:
        print(f"wrong: {line}")
    return 1 if wrong or len(done.killed) < given.kills else 0


if __name__ == "__main__":
    raise SystemExit(main())
