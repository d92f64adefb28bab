"""Data, specs and child processes of the benchmarks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parent.parent
MODELS = BENCHMARKS.parent / "specs" / "models"
INSERTED: dict[str, dict[str, Any] | None] = {
    "resnet20": None,
    "self_attention": {"block": "self_attention", "at": "after stage*", "residual": "weighted"},
    "cbam": {"block": "cbam", "reduction": 16, "at": "after stage*", "residual": "plain"},
}
"""As in specs/cnntention/table3.yaml."""
SET_HERE = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "OMP_", "MKL_", "OPENBLAS_", "TORCHINDUCTOR_CACHE_DIR")
"""Beginnings of environment variables that would change what is measured: a child has them only from here."""


@dataclass(frozen=True)
class Place:
    """A folder that one run of the benchmark has for itself, with its data and its caches."""

    folder: Path
    images: int

    @property
    def data(self) -> Path:
        return self.folder / "data.npz"

    def environment(self, threads: int, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """Of a child: ours, without what tunes a process, with the threads and a compile cache that starts empty."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(SET_HERE)}
        kept |= {"OMP_NUM_THREADS": str(threads), "XDG_CACHE_HOME": str(self.folder / "cache")}
        return kept | {"TORCHINDUCTOR_CACHE_DIR": str(self.folder / "inductor")} | dict(more or {})

    def spec(self, name: str, model: str, epochs: int, **sections: Any) -> Path:
        """The spec of one network on the run's data, written; ``sections`` join what is said here."""
        spec: dict[str, Any] = {
            "name": name,
            "extends": "models/cnntention_base.yaml",
            "data": {"name": "npz", "file": self.data.name, "root": "."},
            "train": {"epochs": epochs, "precision": "auto"},
        }
        if inserted := INSERTED[model]:
            spec["network"] = {"insert": {"attention": inserted}}
        for section, content in sections.items():
            spec[section] = {**spec.get(section, {}), **content}
        folder = self.folder / "specs"
        (folder / "models").mkdir(parents=True, exist_ok=True)
        for file in ("cnntention_base.yaml", "resnet20.yaml"):
            (folder / "models" / file).write_text((MODELS / file).read_text())
        with suppress(FileExistsError):
            (folder / self.data.name).hardlink_to(self.data)
        path = folder / f"{name}.yaml"
        path.write_text(json.dumps(spec))  # JSON is YAML
        return path


def write_data(place: Place, parquet: Path | None) -> str:
    """Training images, and a tenth as many for testing, 3 × 32 × 32 in 10 classes; what they are, in words."""
    import numpy as np

    import ablate
    from ablate.data.dataset import Split, load
    from ablate.design import study_plan

    count = {"train": place.images, "test": max(10, place.images // 10)}
    data: dict[str, Any] = {"name": "fake", "shape": [3, 32, 32], "classes": 10, "count": count}
    if parquet is not None:
        data = {"name": "parquet", "root": str(parquet.resolve()), "limit": count}
    train = {"epochs": 1, "batch_size": 2, "optimizer": {"name": "sgd", "lr": 0.1}}
    network = {"graph": {"head": {"block": "classifier"}}}
    sets = {"data.root": data.pop("root")} if parquet is not None else {}
    spec = ablate.load({"name": "data", "data": data, "train": train, "network": network}, set=sets)
    found = load(study_plan(spec).distinct[0].data, base=place.folder, trusted_root=True)
    arrays: dict[str, Any] = {}
    for name, split in (("train", found.train), ("test", found.test)):
        assert isinstance(split, Split)
        arrays |= {f"{name}_images": split.images.transpose(0, 2, 3, 1), f"{name}_labels": split.labels}
    np.savez(place.data, **arrays)
    return found.description


@dataclass
class Ran:
    """What a child process did: the JSON that it printed last, if any, and what the system says of it."""

    began: float
    """Of the clock that files are dated by."""
    seconds: float
    peak_mib: float
    """The largest sum over the process and its descendants, shared pages counted once; sampled twice a second."""
    said: dict[str, Any] = field(default_factory=dict)
    log: str = ""


def run(command: Sequence[str], environment: Mapping[str, str], *, watched: bool = False) -> Ran:
    """Run a Python command in ``benchmarks/`` to its end. ``watched``: its processes' memory is sampled."""
    date, began = time.time(), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=BENCHMARKS,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watch = Watch(process.pid) if watched else None
    out, log = process.communicate()
    seconds = time.perf_counter() - began
    peak = watch.stop() if watch else 0.0
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{log[-4000:]}\n{out[-2000:]}")
    last = (out.strip().splitlines() or [""])[-1]
    return Ran(date, seconds, peak, json.loads(last) if last.startswith("{") else {}, log)


class Watch(threading.Thread):
    """The most memory that a process and its descendants held together, where /proc tells."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self.done = pid, 0.0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self.done.wait(0.5):
            self.peak = max(self.peak, sum(map(_mib, _descendants(self.pid))))

    def stop(self) -> float:
        self.done.set()
        self.join()
        return self.peak


def _descendants(pid: int) -> list[int]:
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


def _mib(pid: int) -> float:
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024
    return 0.0


def tcmalloc() -> str | None:
    """The path of Google's allocator, if it is installed."""
    from ctypes.util import find_library

    for name in ("tcmalloc_minimal", "tcmalloc"):
        found = find_library(name)
        folders = [Path(folder) for folder in ("/usr/lib", "/usr/local/lib", "/usr/lib64")]
        for path in (path for folder in folders if found for path in [folder / found, *folder.glob(f"*/{found}")]):
            if path.is_file():
                return str(path)
    return None
