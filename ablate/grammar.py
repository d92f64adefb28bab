"""The grammar of ``specs/`` but for the network, the data and the recipe: sections as pydantic models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator
from pydantic_core import PydanticKnownError, core_schema

from ablate.plugins import COLUMNS, installed_names
from ablate.recipe import Section, TrainSpec
from ablate.units import DURATION, SIZE, duration, size

__all__ = [
    "AblationSpec",
    "ControlSpec",
    "ExecutionSpec",
    "PaperClaim",
    "ReportSpec",
    "Section",
    "TrainSpec",
    "TuneSpec",
    "UntilSpec",
]

REPORT_COLUMNS = (
    "params",
    "flops",
    "seconds",
    *(f"{split}.{metric}" for split in ("train", "val", "test") for metric in ("loss", "accuracy", "error")),
)
MOST_SEEDS = 1_000


class _Columns:
    """A column of the table: one of ours, or of an installed package."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return core_schema.no_info_plain_validator_function(cls._known)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> Any:
        return {"enum": _columns(), "type": "string"}

    @staticmethod
    def _known(value: Any) -> str:
        known = _columns()
        if not isinstance(value, str) or value not in known:
            raise PydanticKnownError("literal_error", {"expected": " or ".join(map(repr, known))})
        return value


def _columns() -> list[str]:
    return [*REPORT_COLUMNS, *(name for name in installed_names(COLUMNS) if name not in REPORT_COLUMNS)]


ReportColumn = Annotated[str, _Columns]

Threads = Annotated[int, Field(ge=1, le=1024)]
Gpus = Annotated[
    float,
    Field(ge=0.01, le=1024),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0.01, "maximum": 1},
                {"type": "integer", "minimum": 1, "maximum": 1024},
            ]
        }
    ),
]


def _bytes(value: Any) -> Any:
    if value == "auto":
        return value
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        return size(str(value))
    raise ValueError("'auto' or a size was expected; such as 500MB or 4GiB")


def _seconds(value: Any) -> float | None:
    if value == "none":
        return None
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        return duration(str(value))
    raise ValueError("'none' or a duration was expected; such as 45s, 30m or 2h")


Bytes = Annotated[
    Literal["auto"] | int,
    BeforeValidator(_bytes),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "string", "pattern": SIZE}]}),
]
"""A size as text; an integer of bytes in Python."""
Limit = Annotated[
    float | None,
    BeforeValidator(_seconds),
    WithJsonSchema({"anyOf": [{"const": "none"}, {"type": "string", "pattern": DURATION}]}),
]
"""A duration as text, or ``none``; in Python seconds, or None."""


class ExecutionSpec(Section):
    """How trials run. Not part of what a variant is, but of the study's numerics profile."""

    threads: Literal["auto"] | Threads = Field(
        "auto", description="CPU threads per trial; auto: what a short measurement finds to be fastest"
    )
    max_concurrent: Literal["auto"] | Threads = Field(
        "auto", description="trials at once; auto: as many as the cores allow, a trial's threads each"
    )
    channels_last: bool = Field(True, description="memory layout of images and convolutions")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one")
    compile: Literal["auto"] | bool = Field(
        "auto", description="torch.compile; auto: where it saves more time in a study's steps than compiling takes"
    )
    deterministic: bool = Field(
        False, description="fp32, eager, and deterministic kernels alone: equal to the last bit"
    )
    devices: int = Field(
        1, ge=1, le=1024, description="devices that share each batch of a trial (torch's DistributedDataParallel)"
    )
    cpus: Literal["auto"] | Threads = Field(
        "auto", description="CPUs that a trial holds, its threads and what decodes images; auto: as many as its threads"
    )
    gpus: Literal["auto"] | Gpus = Field(
        "auto",
        description="share of a GPU that a trial holds: 0.25 is four trials on each; auto: by trials at once",
    )
    memory: Bytes = Field("auto", description="main memory that a trial holds, such as 4GiB; auto: not counted")
    retries: int = Field(
        2, ge=0, le=100, description="how often a trial is repeated in a sweep after its worker or node died"
    )
    trial_timeout: Limit = Field(
        "none", validate_default=True, description="how long a trial may train, such as 2h; it is ended then"
    )
    budget: Limit = Field(
        "none", validate_default=True, description="how long a sweep may take, such as 12h; it ends cleanly then"
    )

    @field_validator("cpus")
    @classmethod
    def _holds_its_threads(cls, cpus: Any, info: ValidationInfo) -> Any:
        threads, devices = info.data.get("threads", "auto"), info.data.get("devices", 1)
        needed = (1 if threads == "auto" else threads) * devices
        if cpus != "auto" and cpus < needed:
            of = f" of {threads} threads" if threads != "auto" else ""
            on = f" on {'each of ' if of else ''}{devices} devices" if devices > 1 else ""
            raise ValueError(f"{cpus} CPUs are too few for a trial{of}{on}; at least {needed}, or auto")
        return cpus

    @field_validator("gpus")
    @classmethod
    def _is_what_its_devices_use(cls, gpus: Any, info: ValidationInfo) -> Any:
        devices = info.data.get("devices", 1)
        if gpus == "auto":
            return gpus
        if info.data.get("device") == "cpu":
            raise ValueError("device: cpu uses no GPU; leave one of them out")
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"{gpus} GPUs; above 1 they are whole")
        if devices > 1 and gpus != devices:
            raise ValueError(
                f"{gpus:g} GPUs for a trial on {devices} devices, each a GPU of its own; {devices}, or auto"
            )
        if devices == 1 and gpus > 1:
            raise ValueError(f"{gpus:g} GPUs for a trial on 1 device; at most 1, or devices: {gpus:g} as well")
        return gpus


class ReportSpec(Section):
    """What the table shows, and how variants are compared: stated before there are data."""

    metric: Literal[REPORT_COLUMNS] | None = Field(  # type: ignore[valid-type]
        None,
        description="what variants are compared by; without it the first accuracy or error of the columns",
    )
    interval: Literal["t", "bootstrap"] = Field(
        "t",
        description="95% intervals over seeds: Student's t; or bootstrap (BCa), for ten seeds or more",
    )
    columns: list[ReportColumn] = Field(
        ["params", "flops", "val.accuracy", "test.accuracy"], min_length=1, description="columns of the table"
    )


class PaperClaim(Section):
    """Published values, shown beside the measured ones."""

    title: str = Field(min_length=1, max_length=200, description="the paper")
    table: int | str | None = Field(None, description="table or figure of the paper")
    metric: Literal[REPORT_COLUMNS] = Field(description="what the values are")  # type: ignore[valid-type]
    values: dict[str, float] = Field({}, description="variant → published value")
    plus_minus: dict[str, float] = Field(
        {}, description="variant → the paper's own ± of it, such as a standard deviation over its runs"
    )
    order: list[list[str]] = Field(
        [], description="rankings of variants that the paper gives without numbers, the highest of the metric first"
    )
    printed_to: float | None = Field(
        None, gt=0, description="what a unit of the last printed digit is worth: 1.0e+5 for 28.0 M (params, flops)"
    )
    not_reproducible: dict[str, str] = Field(
        default_factory=dict,
        description="variant → why no network as described has the published value (params, flops)",
    )


class UntilSpec(Section):
    """Until when seeds are added, for ``seeds: auto``."""

    metric: Literal[tuple(name for name in REPORT_COLUMNS if "." in name)] = Field(  # type: ignore[valid-type]
        description="whose 95% intervals are looked at: of every difference to the baseline; without one, of every mean"
    )
    half_width: float = Field(
        gt=0, allow_inf_nan=False, description="± how much they may be, in the metric's unit: points of accuracy"
    )
    first: int = Field(5, ge=3, le=MOST_SEEDS, description="seeds before the first look at the intervals")
    add: int = Field(2, ge=1, le=MOST_SEEDS, description="seeds that are added while an interval is wider")
    most: int = Field(
        20,
        ge=3,
        le=MOST_SEEDS,
        validate_default=True,
        description="seeds after which none is added, however wide it is",
    )

    @field_validator("most")
    @classmethod
    def _is_no_less_than_the_first(cls, most: int, info: ValidationInfo) -> int:
        first = info.data.get("first", 2)
        if most < first:
            raise ValueError(
                f"at most {most} seeds are fewer than the first {first}; at least {first}, or a lower first"
            )
        return most


class ControlSpec(Section):
    """For each variant a baseline that is as expensive as it is."""

    match: Literal["params", "flops"] = Field(description="what it is to have as many of as the variant")
    by: str = Field(
        min_length=1,
        max_length=200,
        description="the parameter that is solved for: network.params.k, a width multiplier",
    )
    tolerance: float = Field(0.01, gt=0, lt=1, description="how far off it may be, as a share of the variant's")


LevelName = str | bool | int | float
Design = Literal["grid", "one_at_a_time", "leave_one_out", "add_one_in", "ladder", "variants"]


class AblationSpec(Section):
    """What varies, and over which seeds."""

    seeds: Literal["auto"] | int | list[int] = Field(
        description="how many (0, 1, …), or which; auto: some more until the intervals are as narrow as `until` says"
    )
    until: UntilSpec | None = Field(None, description="when seeds suffice (seeds: auto)")
    design: Design = Field("grid", description="how levels, or components, become variants")
    baseline: str | dict[str, LevelName] | None = Field(
        None, description="what the others are compared with: a variant's name, or levels (a partial baseline)"
    )
    factors: dict[str, Any] | None = Field(
        None, description="factor → level → patch, or {path, levels} (grid, one_at_a_time)"
    )
    reference: dict[str, LevelName] | None = Field(
        None, description="factor → the level that it has while another varies; else as written (one_at_a_time)"
    )
    zip: list[list[str]] | None = Field(None, description="factors that move together (grid, one_at_a_time)")
    exclude: list[dict[str, LevelName]] | None = Field(
        None, description="combinations of levels that are left out (grid, one_at_a_time)"
    )
    components: dict[str, dict[str, Any]] | None = Field(
        None, description="component → the patch that removes it (leave_one_out) or adds it (add_one_in, ladder)"
    )
    variants: dict[str, dict[str, Any]] | None = Field(None, description="variant → patch (variants)")
    controls: list[ControlSpec] | None = Field(
        None, min_length=1, description="for each variant its baseline, widened or narrowed until it costs as much"
    )


class TuneSpec(Section):
    """A search of the recipe, the same for each variant, before the variants' seeds are run."""

    space: str = Field(min_length=1, description="the search space: a file, seen from the spec's folder")
    trials: int = Field(ge=1, le=10_000, description="trials that each variant is tuned by")
    seed: int = Field(9973, ge=0, description="of these trials; none of the study's own seeds")
