"""A search's study with made-up proposals and results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablate.store import Study

LR, BLOCK, REDUCTION = "train.optimizer.lr", "network.insert.attention.block", "network.insert.attention.reduction"
SPACE: dict[str, Any] = {
    BLOCK: {"choice": ["se", "cbam", "simam"]},
    REDUCTION: {"choice": [2, 4, 8], "when": {BLOCK: ["se", "cbam"]}},
    LR: {"float": [0.001, 0.5], "log": True},
}
SEARCH: dict[str, Any] = {
    "file": "search_spaces/attention.yaml",
    "space": SPACE,
    "objectives": {"val.accuracy": "maximize"},
    "constraints": {"params": {"max": 300_000}},
    "sampler": {"name": "tpe", "seed": 0},
    "budget": {"trials": 50},
    "seed": 0,
}
SPEC: dict[str, Any] = {
    "name": "placement",
    "data": {"name": "mnist5k", "val": 0.2},
    "train": {"epochs": 5, "select": "last"},
    "numerics": {"device": "cpu", "compile": False, "deterministic": False, "devices": 1},
}


def label_of(value: Any) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value)


def trained(
    number: int,
    values: Mapping[str, Any],
    metrics: Mapping[str, float] | None,
    *,
    status: str = "finished",
    epochs: int = 5,
    protocol: Sequence[str] = ("Nothing was selected on the test split.",),
    readings: int = 1,
    **known: float,
) -> dict[str, Any]:
    """A proposal that is trained, with what ``result`` is made of; ``metrics`` None: it has no result."""
    return {"number": number, "values": dict(values), "metrics": metrics, "status": status, "epochs": epochs} | {
        "protocol": list(protocol),
        "readings": readings,
        "known": {"params": 269_722, "flops": 40_551_296} | known,
    }


def refused(number: int, outcome: str, why: str = "", **more: Any) -> dict[str, Any]:
    return {"number": number, "outcome": outcome, "why": why, "values": {}, **more}


def search(folder: Path, proposals: Iterable[Mapping[str, Any]], **section: Any) -> Study:
    """A study whose search proposed these; ``section`` changes that of the spec."""
    proposals = list(proposals)
    study = Study.create(folder / "search", {**SPEC, "search": {**SEARCH, **section}}, [], {})
    with study.hold():
        for each in proposals:
            study.propose(_record(each))
            if "outcome" not in each and each["metrics"] is not None:
                study.finish(_hash(each["number"]), _result(each))
    return study


def _hash(number: int) -> str:
    return f"{number:032x}"


def _record(each: Mapping[str, Any]) -> dict[str, Any]:
    name = each.get("name", str(each["number"]))
    common = {
        "number": each["number"],
        "name": name,
        "levels": {path: label_of(value) for path, value in each["values"].items()},
        "values": dict(each["values"]),
        "outcome": each.get("outcome", "trained"),
        "trial": None,
        "of": each.get("of"),
        "why": each.get("why", ""),
        "broken": each.get("broken", []),
        "known": each.get("known", {}),
    }
    if "outcome" in each:
        return common
    known = each["known"]
    variant = {
        "name": name,
        "levels": common["levels"],
        "baseline": None,
        "identity": _hash(each["number"]),
        "duplicate_of": None,
        "trials": {"0": _hash(each["number"])},
        "cost": {key: known[key] for key in ("params", "flops") if key in known},
        "certificate": {"protocol": each["protocol"]},
        "data": "mnist5k: 4,000 to train on, 1,000 for validation, 1,000 for the test",
        "epochs": 5,
        "precision": "fp32",
    }
    return {**common, "trial": _hash(each["number"]), "variant": variant}


def _result(each: Mapping[str, Any]) -> dict[str, Any]:
    failed = each["status"] not in ("finished", "pruned")
    return {
        "status": each["status"],
        "metrics": dict(each["metrics"]),
        "epochs": each["epochs"],
        "selected_epoch": each["epochs"],
        "seconds": 7.5,
        "images_per_second": 1009.0,
        "test_readings": 0 if failed else each["readings"],
        "error": {"type": "RuntimeError", "message": "boom", "traceback": ""} if failed else None,
    }
