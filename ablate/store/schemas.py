"""The shapes of a study's records, as far as anything is computed or shown of them; other keys may hold anything.

A checksum says that a record is as it was written, and not that it was written by us: what has another shape is refused
where it is read, so that whoever shows it need not ask again.
"""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Annotated, Any, Literal, Required

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

_LONGEST = 200
"""Characters of a place in a record, and of what is wrong there."""

LARGEST = 1e100
"""Of a metric: more than any single precision can hold."""
MOST_EPOCHS = 1_000_000
"""Of a trial: a curve has a place for each."""

Finite = Annotated[float, Field(allow_inf_nan=False, ge=-1e30, le=1e30)]


def _measurable(value: float) -> float:
    if math.isfinite(value) and abs(value) > LARGEST:
        raise ValueError(f"no metric is larger than {LARGEST:g}")
    return value


Measured = Annotated[float, AfterValidator(_measurable)]
"""What has diverged is not finite; what is finite has a square that is."""
Pair = Annotated[list[int], Field(min_length=2, max_length=2)]
"""Parameters and FLOPs."""
Change = Annotated[list[Any], Field(min_length=2, max_length=2)]
Seed = Annotated[str, Field(pattern="^[0-9]{1,20}$")]
Names = list[str]
Section = dict[str, Any]


class Keys(TypedDict, total=False):
    orphans: list[Section] | None
    inactive: list[Section] | None


class Difference(TypedDict, total=False):
    added: Names | None
    removed: Names | None
    changed: dict[str, dict[str, Change]] | None
    by_insertion: dict[str, Pair] | None
    by_stage: dict[str, Pair] | None


class Gradients(TypedDict, total=False):
    parameters: int | None
    invariant: Names | None
    cancelled_by_batch_norm: Names | None
    frozen: Names | None


class Passes(TypedDict, total=False):
    gradients: Gradients | None
    first_loss: float
    silent_at_first: Names | None
    imported: Section | None


class Shared(TypedDict, total=False):
    unequal_by_difference: Names | None


class FirstBatches(TypedDict, total=False):
    differ_by: Names | None


class CertifiedCost(TypedDict, total=False):
    by_stage: dict[str, Pair] | None


class CertificateRecord(TypedDict, total=False):
    """``certify.Certificate``."""

    keys: Keys | None
    difference: Difference | None
    effective: Names | None
    weights: Section | None
    passes: Passes | None
    shared: Shared | None
    first_batches: FirstBatches | None
    protocol: Names | None
    tuning: Section | None
    cost: CertifiedCost | None
    failures: Names | None
    code: dict[str, dict[str, str]] | None


class ControlRecord(TypedDict):
    of: str
    match: str
    by: str
    value: Finite
    wanted: Finite
    reached: Finite


class VariantRecord(TypedDict, total=False):
    """A row of ``certificates.json``, and what a proposal that is trained has of its variant."""

    name: Required[str]
    trials: Required[dict[Seed, Any]]
    levels: dict[str, str | Finite | bool | None] | None
    patch: list[Change] | None
    baseline: str | None
    duplicate_of: str | None
    cost: dict[str, Finite | None] | None
    certificate: CertificateRecord | None
    data: str | None
    data_hash: str | None
    epochs: int | None
    precision: str | None
    control: ControlRecord | None
    resized_by: str | None
    budget_set: Names | None


class ProposalRecord(TypedDict, total=False):
    """A line of ``proposals.jsonl``."""

    number: Required[int]
    name: Required[str]
    outcome: Required[str]
    levels: Section | None
    values: Section | None
    known: Section | None
    broken: Names | None
    variant: VariantRecord | None


class ResultRecord(TypedDict, total=False):
    """``result.json``, beside what ``records.check_result`` says of it."""

    metrics: dict[str, Measured | None] | None
    epochs: int | None
    selected_epoch: int | None
    attempts: int | None
    seconds: float | None
    images_per_second: float | None
    test_readings: int | None
    error: Section | None
    code: str | None


class PublishedValue(TypedDict, total=False):
    value: Required[Finite]
    plus_minus: Finite | None


class PaperSection(TypedDict, total=False):
    metric: Required[str]
    values: dict[str, Finite | PublishedValue] | None
    plus_minus: dict[str, Finite | None] | None
    printed_to: Annotated[Finite, Field(gt=0)] | None
    not_reproducible: dict[str, str] | None
    order: list[Names] | None


class UntilSection(TypedDict):
    metric: str
    half_width: Finite
    first: int
    add: int
    most: int


class AblationSection(TypedDict, total=False):
    design: str | None
    seeds: int | list[int] | Literal["auto"] | None
    until: UntilSection | None


def _ruled(section: AblationSection) -> AblationSection:
    if section.get("seeds") == "auto" and not section.get("until"):
        raise ValueError("seeds: auto takes until")
    return section


class ReportSection(TypedDict, total=False):
    metric: str | None
    interval: Literal["t", "bootstrap"]
    columns: Names | None


class DataSection(TypedDict, total=False):
    limit: dict[str, int | None] | None
    root: str | None


class TrainSection(TypedDict, total=False):
    epochs: int | None


class NumericsSection(TypedDict, total=False):
    """Of an older study it may lack any; with ``compile``, it has all."""

    device: str
    compile: Any
    deterministic: bool
    devices: int


def _stated(section: NumericsSection) -> NumericsSection:
    if "compile" in section and (missing := {"device", "deterministic", "devices"} - section.keys()):
        raise ValueError(f"{min(missing)} is missing")
    return section


class SearchSection(TypedDict, total=False):
    objectives: dict[str, str] | None
    constraints: dict[str, dict[str, Finite]] | None
    sampler: Section | None
    space: Section | None


class StudySpec(TypedDict, total=False):
    """A study's resolved spec; what its sweep reads of it, ``ablate.spec`` says."""

    data: DataSection | None
    train: TrainSection | None
    ablation: Annotated[AblationSection, AfterValidator(_ruled)] | None
    report: ReportSection | None
    paper: list[PaperSection] | None
    numerics: Annotated[NumericsSection, AfterValidator(_stated)] | None
    search: SearchSection | None


RowRecord = TypedDict(
    "RowRecord",
    {
        "epoch": Required[Annotated[int, Field(ge=1, le=MOST_EPOCHS)]],
        "train.loss": Measured | None,
        "train.accuracy": Measured | None,
        "train.error": Measured | None,
        "val.loss": Measured | None,
        "val.accuracy": Measured | None,
        "val.error": Measured | None,
        "test.loss": Measured | None,
        "test.accuracy": Measured | None,
        "test.error": Measured | None,
    },
    total=False,
)
"""A line of ``metrics.jsonl``, of which curves are drawn."""


@cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema)


def wrong_with(record: Any, schema: Any) -> str:
    """The first thing of a record that is not as its schema has it: ``certificate.cost: …``; "" where nothing is."""
    try:
        _adapter(schema).validate_python(record, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"] if not re.match(r"[a-z]+[\[-]", str(part)))
        said = first["msg"].removeprefix("Value error, ")
        return f"{where[:_LONGEST]}: {said[:1].lower()}{said[1:_LONGEST]}".removeprefix(": ")
    return ""
