"""The learnt weights of joins over training, as the trials' rows have them."""

from __future__ import annotations

import math
from typing import Any

from ablate.explaining.sources import Sources
from ablate.store import Study
from ablate.train import JOINS
from ablate.weights.checkpoint import read

Points = list[tuple[int, float]]


def joins_by_epoch(sources: Sources, names: list[str]) -> dict[str, dict[str, dict[str, Points]]]:
    """Variant → node → seed → (epoch, weight), of finished trials; of a weight per channel the mean. 0: at the start.

    Of trials whose rows have none (an earlier ``ablate``'s) there is the start and, from the weights, the end.
    """
    found: dict[str, dict[str, dict[str, Points]]] = {}
    for name in names:
        variant, record = sources.plan.variant(name), sources.record(name)
        nodes = {node.name: node for node in variant.network.graph.nodes if node.block.name in JOINS}
        results = sources.study.results(record["trials"].values())
        for seed, trial in record["trials"].items():
            result = results.get(trial)
            if not nodes or result is None or result["status"] != "finished":
                continue
            rows = [row for row in sources.study.metrics(trial, result) if isinstance(row.get("joins"), dict)]
            last = _at_the_end(sources.study, trial) if not rows and not record.get("duplicate_of") else {}
            for node in nodes:
                points: Points = [(0, float(nodes[node].params.init))]  # type: ignore[attr-defined]
                values = [(int(row["epoch"]), _one(row["joins"].get(node))) for row in rows]
                points += [(epoch, value) for epoch, value in values if value is not None]
                if (weight := last.get(f"{nodes[node].module}.weight")) is not None:
                    points.append((int(result["epochs"]), weight))
                if len(points) > 1:
                    found.setdefault(name, {}).setdefault(node, {})[seed] = points
    return found


def _one(value: Any) -> float | None:
    """A weight, or the mean of many; None for what is neither."""
    if isinstance(value, list) and len(value) == 3:
        value = value[1]
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _at_the_end(study: Study, trial: str) -> dict[str, float]:
    tensors = read(study.weights(trial)).tensors
    return {name: float(tensor.double().mean()) for name, tensor in tensors.items() if name.endswith(".weight")}
