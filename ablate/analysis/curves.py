"""Learning curves: errors by epoch, averaged over the seeds whose trials finished.

A trial that did not finish is in no mean here, as in the table. One that ended early is in the means of its own epochs
alone, so that from there on a mean is over those that were still training: ``n`` says how many.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ablate import stats
from ablate.analysis.arms import Arm
from ablate.store import Study

SPLITS = ("train", "val", "test")
LEAST = 3
"""Seeds from which on the band is an interval; of two it would be nine standard deviations to either side."""
Band = Literal["95% t-interval", "lowest to highest", ""]


@dataclass(frozen=True)
class Curve:
    """One metric of a variant, in its unit: a mean for each epoch, its band, and the number of trials behind it.

    The band is None where fewer trials than it needs were still training; ``band`` is empty where it is nowhere.
    """

    variant: str
    metric: str
    band: Band
    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    n: tuple[int, ...]


Rows = Sequence[Mapping[str, Any]]


def rows_of(study: Study, arms: Iterable[Arm]) -> dict[str, dict[str, Rows]]:
    """The epochs of the finished trials, by variant and seed; of duplicates each trial is read once."""
    read: dict[str, Rows] = {}
    found: dict[str, dict[str, Rows]] = {}
    for arm in arms:
        found[arm.name] = {}
        for seed, result in arm.finished().items():
            hash = arm.record["trials"][seed]
            if hash not in read:
                read[hash] = study.metrics(hash, result)
            found[arm.name][seed] = read[hash]
    return found


def curves_of(rows: Mapping[str, Mapping[str, Rows]], hidden: Iterable[str] = ()) -> list[Curve]:
    """The errors of each split that was read after every epoch; losses, where no variant has an error.

    ``hidden`` are splits of which nothing may be told yet.
    """
    splits = [split for split in SPLITS if split not in {*hidden}]
    every = [row for by_seed in rows.values() for by_epoch in by_seed.values() for row in by_epoch[:1]]
    kind = "error" if any(f"{split}.error" in row for row in every for split in splits) else "loss"
    made = (
        _curve(name, f"{split}.{kind}", list(by_seed.values())) for split in splits for name, by_seed in rows.items()
    )
    return [curve for curve in made if curve]


def _curve(variant: str, metric: str, trials: Sequence[Rows]) -> Curve | None:
    last = max((int(row["epoch"]) for rows in trials for row in rows), default=0)
    values = np.full((len(trials), last), np.nan)
    for index, rows in enumerate(trials):
        for row in rows:
            value = row.get(metric)
            if value is not None and math.isfinite(value):
                values[index, int(row["epoch"]) - 1] = value
    n = np.isfinite(values).sum(axis=0)
    told = n > 0
    if not told.any():
        return None
    values, n = values[:, told], n[told]
    mean = np.nanmean(values, axis=0)
    band: Band = "95% t-interval" if n.max() >= LEAST else "lowest to highest" if n.max() > 1 else ""
    low, high = _interval(values, mean, n) if band == "95% t-interval" else _range(values, n)
    epochs = tuple(int(epoch) + 1 for epoch in np.flatnonzero(told))
    return Curve(variant, metric, band, epochs, tuple(mean.tolist()), _told(low), _told(high), tuple(n.tolist()))


def _interval(values: np.ndarray, mean: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As ``stats.summary`` of each column."""
    enough = n >= LEAST
    half = np.full(mean.shape, np.nan)
    quantile = {int(count): stats.t_quantile(int(count) - 1) for count in np.unique(n[enough])}
    scale = np.array([quantile[int(count)] / math.sqrt(count) for count in n[enough]])
    half[enough] = scale * np.nanstd(values[:, enough], axis=0, ddof=1)
    return mean - half, mean + half


def _range(values: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
    return np.where(n > 1, low, np.nan), np.where(n > 1, high, np.nan)


def _told(values: np.ndarray) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(value) else value for value in values.tolist())
