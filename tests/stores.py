"""A study of a few trials with made-up files, and what befalls it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from ablate import store
from ablate.store import Study

SPEC: dict[str, Any] = {
    "name": "placement",
    "train": {"epochs": 5, "optimizer": {"name": "sgd", "lr": 0.1}},
    "ablation": {"seeds": 3, "baseline": {"placement": "none"}},
    "report": {"columns": ["params", "val.accuracy"]},
}
A, B, C, D = (letter * 32 for letter in "abcd")
VARIANTS: list[dict[str, Any]] = [
    {"name": "none", "levels": {"placement": "none"}, "baseline": None, "trials": {"0": A, "1": B}},
    {"name": "every_block", "levels": {"placement": "every_block"}, "baseline": "none", "trials": {"0": C}},
    {"name": "again", "levels": {}, "baseline": "none", "duplicate_of": "every_block", "trials": {"0": C}},
]
RESULT: dict[str, Any] = {
    "status": "finished",
    "metrics": {"val.accuracy": 97.25, "val.loss": 0.125},
    "epochs": 5,
    "selected_epoch": 4,
    "seconds": 7.5,
    "images_per_second": 1009.0,
    "test_readings": 1,
    "error": None,
}
CRASHED = {**RESULT, "status": "crashed", "metrics": {}, "error": {"type": "E", "message": "m", "traceback": "t"}}


def train(study: Study, hash: str, result: dict[str, Any] = RESULT) -> None:
    """Everything that a trial leaves behind."""
    study.begin({"hash": hash, "variant": "none", "seed": 0})
    for epoch in range(1, 4):
        study.append_metrics(hash, {"epoch": epoch, "train.loss": 1 / epoch})
    study.save_predictions(hash, {"val": np.arange(7, dtype=np.int64), "test": np.eye(3, 5, dtype=np.float32)})
    (study.trial_folder(hash) / store.CHECKPOINT).write_bytes(b"weights")
    study.finish(hash, result)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def run_python(code: str, *args: str) -> subprocess.Popen[str]:
    """A process to be used as a context manager: its pipes are closed and its end awaited."""
    root = Path(store.__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


def told(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    database = sqlite3.connect(path)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()
