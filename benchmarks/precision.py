"""Accuracy after equal epochs in bf16 and in float32: five seeds of a ResNet-20 on 10,000 images of CIFAR-10.

python benchmarks/precision.py --root FOLDER [--epochs 5] [--seeds 5] [--images 10000] [--out FOLDER] [--title NAME]

FOLDER holds ``train.parquet`` and ``test.parquet``, in the layout in which image-classification sets are published. The
study is an ordinary one, with the precision as its one factor: it is resumed where it was left, and `ablate report`
prints it too. Printed are the mean of each with its 95% interval (Student's t), whether the intervals overlap, and the
differences of each seed, whose two trials share weights and batches. Two epochs took six minutes
on two cores.

The aim: the intervals overlap. No test depends on it.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

MODELS = Path(__file__).parent.parent / "specs" / "models"
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Interval:
    """A mean and half the width of its 95% interval, by Student's t."""

    mean: float
    half: float

    @property
    def text(self) -> str:
        return f"{self.mean:.2f} ± {self.half:.2f}"

    def overlaps(self, other: Interval) -> bool:
        return abs(self.mean - other.mean) <= self.half + other.half


def main(arguments: Sequence[str]) -> int:
    given = _arguments(arguments)
    with tempfile.TemporaryDirectory(prefix="precision") as folder:
        spec = write_spec(Path(folder), given)
        root = ["--set", f"data.root={given.root.resolve()}"]
        sweep = ["sweep", str(spec), "--out", str(given.out.resolve()), *root]
        if code := subprocess.run([sys.executable, "-m", "ablate", *sweep], stdout=sys.stderr).returncode:
            return code
    found = {precision: accuracies(given.out, precision) for precision in PRECISIONS}
    print("\n".join(table(found, given)))
    return 0


def write_spec(folder: Path, given: argparse.Namespace) -> Path:
    """The study's spec, with the network that it extends beside it. The name of the data is for captions."""
    (folder / "models").mkdir()
    for file in ("cnntention_base.yaml", "resnet20.yaml"):
        (folder / "models" / file).write_text((MODELS / file).read_text())
    spec: dict[str, Any] = {
        "name": "precision",
        "extends": "models/cnntention_base.yaml",
        "data": {"name": "parquet", "title": given.title, "limit": {"train": given.images, "test": given.images // 5}},
        # the base's milestones lie beyond its end: one cycle lets a short training come to rest
        "train": {"epochs": given.epochs, "schedule": {"name": "one_cycle"}},
        "ablation": {
            "seeds": given.seeds,
            "baseline": {"precision": PRECISIONS[0]},
            "factors": {"precision": {"path": "train.precision", "levels": list(PRECISIONS)}},
        },
        "report": {"columns": ["test.accuracy", "seconds"]},
    }
    path = folder / "precision.yaml"
    path.write_text(json.dumps(spec))  # JSON is YAML
    return path


def accuracies(folder: Path, variant: str) -> list[float]:
    """Of the test images, in percent, seed by seed."""
    from ablate.store import Study

    study = Study.open(folder)
    record = next(record for record in study.variants if record["name"] == variant)
    results = [study.result(key) for _, key in sorted(record["trials"].items(), key=lambda item: int(item[0]))]
    return [result["metrics"]["test.accuracy"] for result in results if result is not None]


def table(found: dict[str, list[float]], given: argparse.Namespace) -> list[str]:
    """Markdown."""
    intervals = {precision: interval(values) for precision, values in found.items()}
    fp32, bf16 = PRECISIONS
    differences = [b - a for a, b in zip(found[fp32], found[bf16], strict=True)]
    overlap = "overlap" if intervals[fp32].overlaps(intervals[bf16]) else "do **not** overlap"
    return [
        f"ResNet-20 on {given.images:,} images of {given.title}, {given.epochs} epochs, {given.seeds} seeds; "
        f"accuracy on {given.images // 5:,} test images, %",
        "",
        "| precision | mean, 95% interval | each seed |",
        "| --- | --- | --- |",
        *(f"| {name} | {each.text} | {_listed(found[name])} |" for name, each in intervals.items()),
        f"| {bf16} − {fp32}, paired | {interval(differences).text} | {_listed(differences)} |",
        "",
        f"The intervals {overlap}.",
    ]


def interval(values: Sequence[float]) -> Interval:
    from scipy.stats import t

    count = len(values)
    half = float(t.ppf(0.975, count - 1)) * stdev(values) / math.sqrt(count) if count > 1 else math.inf
    return Interval(fmean(values), half)


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, required=True, metavar="FOLDER", help="of train.parquet and test.parquet")
    parser.add_argument("--title", default="CIFAR-10 (JPEG copy)", help="what the data are called")
    parser.add_argument("--images", type=int, default=10_000, help="training images, class-balanced (10000)")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/precision"), metavar="FOLDER", help="the study's folder")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
