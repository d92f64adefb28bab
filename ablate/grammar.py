"""The grammar of ``specs/`` but for the network, the data and the recipe: sections as pydantic models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ablate.recipe import Section, TrainSpec

__all__ = ["AblationSpec", "ExecutionSpec", "PaperClaim", "ReportSpec", "Section", "TrainSpec"]

REPORT_COLUMNS = (
    "params",
    "flops",
    "seconds",
    *(f"{split}.{metric}" for split in ("train", "val", "test") for metric in ("loss", "accuracy", "error")),
)


Threads = Annotated[int, Field(ge=1, le=1024)]


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


class ReportSpec(Section):
    """What the table shows."""

    columns: list[Literal[REPORT_COLUMNS]] = Field(  # type: ignore[valid-type]
        ["params", "flops", "val.accuracy", "test.accuracy"], min_length=1, description="columns of the table"
    )


class PaperClaim(Section):
    """Published values, shown beside the measured ones."""

    title: str = Field(min_length=1, max_length=200, description="the paper")
    table: int | str | None = Field(None, description="table or figure of the paper")
    metric: Literal[REPORT_COLUMNS] = Field(description="what the values are")  # type: ignore[valid-type]
    values: dict[str, float] = Field(min_length=1, description="variant → published value")
    printed_to: float | None = Field(
        None, gt=0, description="what a unit of the last printed digit is worth: 1.0e+5 for 28.0 M (params, flops)"
    )
    not_reproducible: dict[str, str] = Field(
        default_factory=dict,
        description="variant → why no network as described has the published value (params, flops)",
    )


LevelName = str | bool | int | float
Design = Literal["grid", "one_at_a_time", "leave_one_out", "add_one_in", "ladder", "variants"]


class AblationSpec(Section):
    """What varies, and over which seeds."""

    seeds: int | list[int] = Field(description="how many (0, 1, …), or which")
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
