"""What is fed to readers, and what must come of it: a value, or an error that is meant for the user.

``TARGETS`` are readers by name, each given bytes; ``seeds`` are sound inputs to begin from. ``tests/test_fuzzing.py``
and ``benchmarks/fuzz.py`` share both.
"""

from __future__ import annotations

import io
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from PIL import Image

from ablate import yamlfile
from ablate.analysis.arms import arms_of
from ablate.datasets.npz import Npz, NpzParams
from ablate.datasets.parquet import Parquet, ParquetParams
from ablate.design import StudyPlan, study_plan
from ablate.errors import UserError
from ablate.expression import evaluate
from ablate.pattern import Pattern
from ablate.report import ablation_table
from ablate.report.page.explained import explained
from ablate.report.render import FORMATS, render
from ablate.spec import load
from ablate.store import (
    CERTIFICATES,
    DIAGRAMS,
    ENVIRONMENT,
    EVENTS,
    EXPOSURES,
    INDEX,
    METRICS,
    PREDICTIONS,
    PROPOSALS,
    RESULT,
    SPEC,
    Study,
)
from ablate.store.explained import RECORD, read_explained, save_explained
from ablate.store.layout import EXPLAINED
from ablate.store.records import plain, sealed
from ablate.weights.checkpoint import read as read_weights
from tests.conftest import REPOSITORY
from tests.tabled import build, result, variant

NAMES = ("stem", "stage1.0.conv1", "stage1.1.conv1", "stage2.0.bn2", "head")
SMALL = """\
name: small
data: {name: fake, shape: [1, 8, 8], classes: 3, count: {train: 12, test: 6}, val: 0.25}
train: {epochs: 1, batch_size: 4, optimizer: {name: sgd, lr: 0.1}}
network:
  params: {k: 1}
  graph:
    stem: {block: conv_bn_act, width: 4*$k, kernel: 3}
    stage1: {block: basic, width: 4, repeat: 2}
    head: {block: classifier}
  insert:
    attention: {block: se, reduction: 2, at: after stage*}
ablation:
  seeds: 2
  baseline: {attention: none}
  factors:
    attention: {none: {network.insert.attention: null}, se: {}}
    reduction: {path: network.insert.attention.reduction, levels: [2, 4]}
"""
DESIGNS = (
    SMALL[SMALL.index("ablation:") :],
    """\
profiles: {cpu: {ablation.seeds: 1, train.epochs: 2}}
ablation:
  seeds: [3, 1]
  design: one_at_a_time
  reference: {width: 4}
  factors:
    width: {path: network.graph.stage1.width, levels: [4, 8]}
    rate: {path: train.optimizer.lr, levels: [0.1, 0.3]}
    batch: {path: train.batch_size, levels: [4, 8]}
  zip: [[rate, batch]]
  exclude: [{width: 8}]
""",
    """\
ablation:
  design: ladder
  seeds: 2
  components:
    gate: {network.insert.more: {block: spatial_gate, kernel: 3, at: after stem}}
    kernel: {network.insert.more.kernel: 5, network.set.stage1.*.conv1.kernel: 5}
    gone: {network.insert.more: null}
""",
    """\
ablation:
  seeds: auto
  until: {metric: val.accuracy, half_width: 0.5, first: 3, most: 5}
  design: variants
  baseline: plain
  variants:
    plain: {network.insert.attention: null}
    other: {network: {graph: {body: {block: conv, width: 4, kernel: 1}, head: {block: classifier}}}}
""",
)
"""What may stand in the place of the last sections of ``SMALL``."""


def read_yaml(data: bytes) -> bool:
    """What was read is written and read again to the same."""
    with suppress(UserError):
        tree = yamlfile.loads(data.decode("utf-8", "replace"), "fuzz.yaml")
        again = yamlfile.loads(yamlfile.dump(tree), "again.yaml")
        assert json.dumps(again) == json.dumps(tree)  # where NaN is NaN, and 1 is not 1.0
        return True
    return False


def read_spec(data: bytes) -> bool:
    """Its variants, those of what a study would record of it too; of whatever is wrong it is said where it stands."""
    with _folder() as folder:
        file = folder / "spec.yaml"
        file.write_bytes(data)
        try:
            plan = study_plan(load(file))
        except UserError as error:
            unplaced = [problem for problem in error.problems if problem.place is None]
            assert all(str(file) in problem.message for problem in unplaced), unplaced
            return False
        again = folder / "again.yaml"
        again.write_text(yamlfile.dump(plain(plan.tree)), encoding="utf-8")
        assert _identities(study_plan(load(again))) == _identities(plan)
        return True


def _identities(plan: StudyPlan) -> dict[str, tuple[str, str | None]]:
    return {variant.name: (variant.identity, variant.baseline) for variant in plan.variants}


def read_ablation(data: bytes) -> bool:
    """A sound network and recipe, with that text as all that comes after them: factors, levels, patches, profiles."""
    return read_spec(SMALL[: SMALL.index("ablation:")].encode() + data)


def read_set(data: bytes) -> bool:
    """``--set`` with that text, on a sound spec."""
    with suppress(UserError):
        return bool(study_plan(load(_small(), sets=[data.decode("utf-8", "replace")])).variants)
    return False


def _read_weights(name: str, data: bytes) -> bool:
    """A file of weights that a network would start from."""
    with _folder() as folder:
        (folder / name).write_bytes(data)
        with suppress(UserError):
            return len(read_weights(folder / name).tensors) > 0
    return False


def read_pattern(data: bytes) -> bool:
    with suppress(ValueError):
        pattern = Pattern(data.decode("utf-8", "replace"))
        assert set(pattern.select(NAMES, {"stage1": 2, "stage2": 1})) <= set(NAMES)
        return True
    return False


def read_expression(data: bytes) -> bool:
    with suppress(ValueError):
        assert isinstance(evaluate(data.decode("utf-8", "replace"), {"k": 2, "n": 3}), int | float)
        return True
    return False


def read_npz(data: bytes) -> bool:
    with _folder() as folder:
        (folder / "data.npz").write_bytes(data)
        with suppress(UserError):
            params = NpzParams(file="data.npz")
            Npz.info(params, folder)
            return len(Npz.load(params, folder, False).train) > 0
    return False


def read_parquet(data: bytes) -> bool:
    with _folder() as folder:
        for name in ("train.parquet", "test.parquet"):
            (folder / name).write_bytes(data)
        with suppress(UserError):
            Parquet.info(ParquetParams(), folder)
            return len(Parquet.load(ParquetParams(), folder, False).train) > 0
    return False


def _report_with(name: str, data: bytes) -> bool:
    """What a study says of itself, one of whose files holds this; sealed anew where it is a record of ours."""
    with _folder() as folder:
        study = _study(folder)
        with suppress(ValueError):
            record = json.loads(data)
            if isinstance(record, dict) and "checksum" in record:
                record.pop("checksum")
                data = json.dumps(sealed(record)).encode("utf-8", "surrogatepass")
        (study.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (study.folder / name).write_bytes(data)
        if name.endswith((METRICS, PREDICTIONS)):  # as a result would vouch for it
            study.finish(f"{0:032x}", result(97.0))
        with suppress(UserError):
            opened = Study.open(study.folder)
            arms = arms_of(opened)
            for format in FORMATS:
                render(ablation_table(opened, None, arms), format)
            opened.states(), opened.diagrams(), opened.exposures(), list(opened.events()), opened.proposals()
            drawn = read_explained(opened.folder, whole=True)
            explained(opened, hidden=False)
            if name == INDEX:  # who writes makes a damaged one anew
                with Study.open(study.folder).hold():
                    pass
            for hash in [f"{0:032x}", f"{1_000:032x}"]:
                opened.metrics(hash), opened.predictions(hash)
            return not opened.damaged and not (drawn and drawn.damaged)
    return False


STUDY_FILES = {
    "certificates": CERTIFICATES,
    "record": SPEC,
    "environment": ENVIRONMENT,
    "result": f"trials/{0:032x}/{RESULT}",
    "metrics": f"trials/{0:032x}/{METRICS}",
    "predictions": f"trials/{0:032x}/{PREDICTIONS}",
    "events": EVENTS,
    "exposures": EXPOSURES,
    "diagrams": DIAGRAMS,
    "proposals": PROPOSALS,
    "explanation": f"{EXPLAINED}/{RECORD}",
    "index": INDEX,
}
"""Target → the file of a study that holds the bytes."""
TARGETS: dict[str, Callable[[bytes], bool]] = {
    "yaml": read_yaml,
    "spec": read_spec,
    "ablation": read_ablation,
    "set": read_set,
    "pattern": read_pattern,
    "expression": read_expression,
    "npz": read_npz,
    "parquet": read_parquet,
    "safetensors": partial(_read_weights, "weights.safetensors"),
    "pt": partial(_read_weights, "weights.pt"),
    **{target: partial(_report_with, name) for target, name in STUDY_FILES.items()},
}
"""Each returns whether the bytes were read as something sound."""


@cache
def seeds(target: str) -> tuple[bytes, ...]:
    """Sound inputs of a target."""
    if target in ("yaml", "spec"):
        shipped = sorted((REPOSITORY / "specs").glob("*.yaml"))
        return (SMALL.encode(), *(path.read_bytes() for path in shipped if target == "yaml"))
    if target == "ablation":
        return tuple(text.encode() for text in DESIGNS)
    if target == "set":
        return tuple(
            text.encode()
            for text in (
                "train.epochs=2",
                "network.insert.attention.residual=weighted",
                "network.insert.attention.at=[before head, after stage1.0]",
                "ablation.factors.reduction={path: network.params.k, levels: [1, 2]}",
                "network.set.stage1.*.conv1.kernel=5",
            )
        )
    if target == "pattern":
        return (b"stage*.*.conv1", b"stage(1|2).-1", b"stage1.0", b"*")
    if target == "expression":
        return (b"16*$k", b"max($k, 3) // 2", b"round($n / 2) - -1", b"$k")
    if target == "npz":
        return (_npz(),)
    if target == "parquet":
        return (_parquet(),)
    if target in ("safetensors", "pt"):
        return _weights(target)
    return (_files()[target],)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fuzz") as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of decoders, on odd files
        yield Path(name)


@cache
def _small() -> Path:
    file = Path(tempfile.mkdtemp(prefix="fuzz")) / "small.yaml"
    file.write_text(SMALL, encoding="utf-8")
    return file


def _study(folder: Path) -> Study:
    study = build(folder, {"none": [97.0, 96.0], "se": [97.5, "crashed"]}, {"name": "placement"})
    study.append_metrics(f"{0:032x}", {"epoch": 1, "train.loss": 0.5, "val.accuracy": 95.0, "seconds": 1.0})
    return study


@cache
def _files() -> dict[str, bytes]:
    """A made-up study's files by target."""
    with _folder() as folder:
        study = _study(folder)
        root = study.folder
        with study.hold():
            save_explained(root, _EXPLANATION, {})
            study.propose({"number": 0, "name": "0", "levels": {}, "outcome": "trained", "trial": f"{7:032x}",
                           "variant": variant("0", [f"{7:032x}"])})  # fmt: skip
        found = {target: (root / name).read_bytes() for target, name in STUDY_FILES.items() if (root / name).exists()}
    arrays = io.BytesIO()
    np.savez(arrays, predicted=np.zeros(4, np.int32), label=np.ones(4, np.int32))
    event = {"event": "started", "time": "2026-11-22T00:00:00.000Z", "trial": "0" * 32, "attempt": 1}
    diagrams = {"format": 2, "diagrams": {"0" * 32: "<svg xmlns='http://www.w3.org/2000/svg'><path d='M0 0'/></svg>"}}
    made = {"events": json.dumps(event).encode() + b"\n", "diagrams": json.dumps(sealed(diagrams)).encode()}
    exposure = {"by": "trial", "trial": "0" * 32, "variant": "none", "seed": 0, "epoch": None}
    made["exposures"] = json.dumps(exposure).encode() + b"\n"
    return {**made, **found, "predictions": arrays.getvalue()}


_EXPLANATION: dict[str, Any] = {
    "split": "test",
    "seed": 0,
    "chosen": "by index",
    "images": [{"index": 1, "label": 0, "class": "0"}],
    "variants": [{"name": "none", "layer": "stage1"}],
    "left_out": {},
    "reductions": [
        {"node": "a", "variant": "se", "reduction": 2, "part": "channels", "mean": 0.5, "across": 0.1}
        | {"across_images": 0.2, "images": 4, "hidden": 2, "silent": 0, "weight": None}
    ],
    "figures": [{"name": "joins", "text": "learnt weights"}],
}


def _weights(suffix: str) -> tuple[bytes, ...]:
    state = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.steps": torch.tensor(3)}
    if suffix == "safetensors":
        return (safetensors.torch.save(state),)
    found = []
    for zipped in (True, False):
        file = io.BytesIO()
        torch.save({"state_dict": state, "epoch": 3}, file, _use_new_zipfile_serialization=zipped)
        found.append(file.getvalue())
    return tuple(found)


def _npz() -> bytes:
    file = io.BytesIO()
    images, labels = np.zeros((6, 5, 5, 1), np.uint8), np.arange(6, dtype=np.int64)[:, None] % 2
    np.savez(
        file,
        **{
            f"{split}_{kind}": each
            for split in ("train", "val", "test")
            for kind, each in (("images", images), ("labels", labels))
        },
    )
    return file.getvalue()


def _parquet() -> bytes:
    picture = io.BytesIO()
    Image.fromarray(np.zeros((6, 6, 3), np.uint8)).save(picture, "PNG")
    file = io.BytesIO()
    pq.write_table(pa.table({"image": [picture.getvalue()] * 4, "label": [0, 1, 0, 1]}), file)
    return file.getvalue()
