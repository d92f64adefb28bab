"""Which examples are held out and kept, and what their pixels come to: functions of arrays alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ablate.data.checks import Images, Rows, user_error
from ablate.data.splits import Examples
from ablate.errors import Problem, UserError
from ablate.streams import stream_seed

Counts = np.ndarray[Any, Any]


def hold_out(labels: Counts, size: int, seed: int, names: tuple[str, ...]) -> tuple[Rows, Rows]:
    """The rows of what is left of train, and of val: each class in proportion, both in the order that train has."""
    if size >= len(labels):
        raise user_error(f"{size:,} examples cannot be held out of {len(labels):,}", "val.size")
    counts = np.bincount(labels, minlength=len(names))
    quotas = proportional(counts, size)
    for left, split in ((quotas, "val"), (counts - quotas, "train")):
        _check_none_lost(counts, left, names, f"{split}, with {size:,} of {len(labels):,} examples held out")
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[_rows(labels, quotas, "val", seed)] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def limited(splits: Mapping[str, Examples], wanted: Mapping[str, int], names: tuple[str, ...], seed: int) -> Any:
    """The splits with ``wanted`` examples left of some, class-balanced, each in its own order."""
    wrong = [problem for name, count in wanted.items() if (problem := _limit_problem(name, count, splits))]
    if wrong:
        raise UserError(wrong)
    kept = dict(splits)
    for name, count in wanted.items():
        labels = splits[name].labels
        quotas = balanced(np.bincount(labels, minlength=len(names)), count)
        kept[name] = splits[name].take(np.sort(_rows(labels, quotas, f"limit {name}", seed)))
    return kept


def _limit_problem(name: str, count: int, splits: Mapping[str, Examples]) -> Problem | None:
    path = f"data.limit.{name}"
    if name not in splits:
        return Problem(f"there is no {name} split to limit", path, hint="add data.val" if name == "val" else "")
    if count > len(splits[name]):
        return Problem(f"{count:,} is more than the {len(splits[name]):,} examples of {name}", path)
    present = len(np.unique(splits[name].labels))
    if count < present:
        return Problem(f"{count:,} is too few for {present:,} classes; at least one class would have no example", path)
    return None


def _check_none_lost(before: Counts, after: Counts, names: tuple[str, ...], where: str) -> None:
    lost = np.flatnonzero((before > 0) & (after == 0))
    if len(lost):
        more = f" (nor would {len(lost) - 1} more)" if len(lost) > 1 else ""
        raise user_error(f"class '{names[lost[0]]}' would have no example in {where}{more}", "val")


def proportional(counts: Counts, size: int) -> Counts:
    """``size`` shared out in proportion to the counts, by largest remainders, in whole numbers."""
    quotas, remainders = np.divmod(counts.astype(np.int64) * size, counts.sum())
    short = size - int(quotas.sum())
    quotas[np.argsort(-remainders, kind="stable")[:short]] += 1
    return quotas


def balanced(counts: Counts, total: int) -> Counts:
    """``total`` shared out equally, as far as each class has examples; what is left over goes to the first classes."""
    quotas = np.zeros_like(counts)
    while total:
        open_classes = np.flatnonzero(quotas < counts)
        share = total // len(open_classes)
        if share == 0:
            quotas[open_classes[:total]] += 1
            break
        granted = np.minimum(counts[open_classes] - quotas[open_classes], share)
        quotas[open_classes] += granted
        total -= int(granted.sum())
    return quotas


def _rows(labels: Counts, quotas: Counts, stream: str, seed: int) -> Rows:
    """Rows chosen at random, class by class: of one seed, a smaller quota's rows are among a larger one's."""
    by_class = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels, minlength=len(quotas)))[:-1])
    # RandomState, since numpy keeps its numbers the same for ever: a split must not depend on numpy's version
    return np.concatenate(
        [
            np.random.RandomState(stream_seed(stream, seed, label) % 2**32).permutation(rows)[:quota]
            for label, (rows, quota) in enumerate(zip(by_class, quotas, strict=True))
            if quota
        ]
    )


def sample(count: int, most: int, stream: str) -> Rows:
    """Rows 0 … count-1, or ``most`` of them at random, in order."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.RandomState(stream_seed(stream) % 2**32).permutation(count)[:most])


def mean_and_std(chunks: Iterable[Images]) -> tuple[list[float], list[float]]:
    """Per channel, of pixel/255; exact for any number of pixels: from a count of the 256 values."""
    counts: Counts = np.zeros((0, 256), dtype=np.int64)
    for chunk in chunks:
        found = [np.bincount(chunk[:, channel].ravel(), minlength=256) for channel in range(chunk.shape[1])]
        counts = np.stack(found) + (counts if len(counts) else 0)
    statistics = [_statistics(channel) for channel in counts]
    return [mean for mean, _ in statistics], [std for _, std in statistics]


def _statistics(counts: Counts) -> tuple[float, float]:
    pixels = int(counts.sum())
    total = sum(value * int(count) for value, count in enumerate(counts))
    squares = sum(value**2 * int(count) for value, count in enumerate(counts))
    return total / pixels / 255, math.sqrt(squares * pixels - total**2) / pixels / 255


def content_hash(splits: Mapping[str, Examples]) -> str:
    """SHA-256 of the images and labels of train, val and test."""
    digest = hashlib.sha256()
    for name in ("train", "val", "test"):
        split = splits.get(name)
        digest.update(f"{name} {(len(split), *split.shape) if split is not None else None};".encode())
        if split is not None:
            split.feed(digest)
    return digest.hexdigest()
