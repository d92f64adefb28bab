"""A study of trials with made-up values, for what reads them: tables, comparisons, figures, the page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ablate.store import Study

Outcome = float | str | None
"""A trial's val.accuracy (its test.accuracy is one less); how it failed; None: it began and has no result."""
Make = Callable[..., Study]

ERRORS = {"crashed": "RuntimeError", "timed_out": "timed_out", "lost": "lost", "out_of_memory": "MemoryError"}
SPEC: dict[str, Any] = {
    "name": "placement",
    "data": {"name": "mnist5k", "val": 0.2},
    "train": {"epochs": 5, "select": "last"},
    "report": {"columns": ["params", "flops", "val.accuracy", "test.accuracy"]},
}


def variant(name: str, hashes: list[str], **more: Any) -> dict[str, Any]:
    record = {
        "name": name,
        "levels": {"placement": name},
        "baseline": None if name == "none" else "none",
        "identity": "0" * 32,
        "duplicate_of": None,
        "trials": {str(seed): hash for seed, hash in enumerate(hashes)},
        "cost": {"params": 269_722, "flops": 40_551_296},
        "certificate": {"protocol": ["Nothing was selected on the test split."]},
    }
    return {**record, **more}


def result(outcome: float | str) -> dict[str, Any]:
    common = {"epochs": 5, "selected_epoch": 5, "seconds": 7.0, "images_per_second": 1009.0, "test_readings": 1}
    if isinstance(outcome, str):
        error = {"type": ERRORS[outcome], "message": "boom", "traceback": ""} if outcome in ERRORS else None
        return {**common, "status": outcome, "metrics": {"val.accuracy": 9.75}, "error": error, "test_readings": 0}
    metrics = {"val.accuracy": outcome, "test.accuracy": outcome - 1, "val.loss": 0.125}
    return {**common, "status": "finished", "metrics": metrics, "error": None}


def build(
    folder: Path,
    outcomes: dict[str, list[Outcome]],
    spec: dict[str, Any] | None = None,
    more: dict[str, dict[str, Any]] | None = None,
    correct: dict[str, list[np.ndarray]] | None = None,
) -> Study:
    """A study whose variants have these outcomes, a list by seed each; ``correct``: which test images were right."""
    hashes = {name: [f"{1_000 * i + j:032x}" for j in range(len(o))] for i, (name, o) in enumerate(outcomes.items())}
    variants = [variant(name, hashes[name], **(more or {}).get(name, {})) for name in outcomes]
    study = Study.create(folder / "placement", {**SPEC, **(spec or {})}, variants, {})
    for name, by_seed in outcomes.items():
        for seed, (hash, outcome) in enumerate(zip(hashes[name], by_seed, strict=True)):
            study.begin({"hash": hash})
            if correct:
                label = np.zeros(len(correct[name][seed]), dtype=np.int32)
                study.save_predictions(hash, {"predicted": 1 - correct[name][seed].astype(np.int32), "label": label})
            if outcome is not None:
                study.finish(hash, result(outcome))
    return study
