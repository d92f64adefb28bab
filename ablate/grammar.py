"""The grammar of ``specs/`` but for the network and the data: sections as pydantic models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

REPORT_COLUMNS = (
    "params",
    "flops",
    "seconds",
    *(f"{split}.{metric}" for split in ("train", "val", "test") for metric in ("loss", "accuracy", "error")),
)
MONITORS = ("val.loss", "val.error", "val.accuracy", "test.loss", "test.error", "test.accuracy")


class Section(BaseModel):
    """Strict: unknown keys, silent coercions and numbers that are not finite are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Decay = Annotated[float, Field(ge=0, lt=1)]


class Sgd(Section):
    """Stochastic gradient descent (torch.optim.SGD)."""

    name: Literal["sgd"]
    lr: float = Field(gt=0, description="learning rate; the peak of one_cycle")
    momentum: float = Field(0.0, ge=0, lt=1, description="momentum")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty, added to the gradient")
    nesterov: bool = Field(False, description="Nesterov's momentum")


class Adam(Section):
    """Adam: Kingma and Ba, 2015 (arXiv:1412.6980) (torch.optim.Adam)."""

    name: Literal["adam"]
    lr: float = Field(gt=0, description="learning rate")
    betas: list[Decay] = Field([0.9, 0.999], min_length=2, max_length=2, description="decay of the two moments")
    eps: float = Field(1e-8, gt=0, description="added to the denominator")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty, added to the gradient")


class AdamW(Section):
    """Adam with decoupled weight decay: Loshchilov and Hutter, 2019 (arXiv:1711.05101) (torch.optim.AdamW)."""

    name: Literal["adamw"]
    lr: float = Field(gt=0, description="learning rate")
    betas: list[Decay] = Field([0.9, 0.999], min_length=2, max_length=2, description="decay of the two moments")
    eps: float = Field(1e-8, gt=0, description="added to the denominator")
    weight_decay: float = Field(0.01, ge=0, description="decay, as a share of the learning rate a step")


class Constant(Section):
    """The learning rate as stated, throughout."""

    name: Literal["constant"]


class MultiStep(Section):
    """Multiplied by gamma at each milestone (torch.optim.lr_scheduler.MultiStepLR)."""

    name: Literal["multi_step"]
    milestones: list[Annotated[int, Field(ge=1)]] = Field(min_length=1, description="epochs after which the rate drops")
    gamma: float = Field(0.1, gt=0, description="factor at each milestone")


class Cosine(Section):
    """From the rate to its floor along half a cosine, a step at a time (CosineAnnealingLR)."""

    name: Literal["cosine"]
    floor: float = Field(0.0, ge=0, description="the last learning rate")


class OneCycle(Section):
    """Up to the rate and down again: Smith and Topin, 2018 (arXiv:1708.07120) (OneCycleLR)."""

    name: Literal["one_cycle"]
    warmup: float = Field(0.3, gt=0, lt=1, description="share of the steps in which the rate rises")
    start_factor: float = Field(25.0, gt=1, description="the first rate is the peak divided by this")
    final_factor: float = Field(1e4, gt=1, description="the last rate is the first divided by this")


class Loss(Section):
    """The training loss. Evaluation always reports the plain cross-entropy, in nats."""

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the label spread over all classes")


class EarlyStopping(Section):
    """Ends a trial when the monitored metric has stopped improving."""

    monitor: Literal[MONITORS] = Field(description="a metric; one of test.* leaks the test split")  # type: ignore[valid-type]
    patience: int = Field(ge=1, description="epochs without improvement before the end")
    threshold: float = Field(1e-4, ge=0, description="the least change that counts as improvement")
    mode: Literal["relative", "absolute"] = Field("relative", description="threshold as a share of the best, or plain")


class Ema(Section):
    """Exponential moving average of the weights, a step at a time."""

    decay: float = Field(0.999, gt=0, lt=1, description="what is kept of the average each step")


Optimizer = Annotated[Sgd | Adam | AdamW, Field(discriminator="name")]
Schedule = Annotated[Constant | MultiStep | Cosine | OneCycle, Field(discriminator="name")]


class TrainSpec(Section):
    """The training recipe."""

    epochs: int = Field(ge=1, le=100_000, description="passes over the train split")
    batch_size: int = Field(128, ge=2, le=1_000_000, description="examples a step")
    optimizer: Optimizer = Field(description="the optimiser")
    schedule: Schedule = Field(Constant(name="constant"), description="the learning rate over time")
    loss: Loss = Field(Loss(), description="the training loss")
    early_stopping: EarlyStopping | None = Field(None, description="ends a trial early")
    clip_norm: float | None = Field(None, gt=0, description="gradients are scaled down to this L2 norm")
    ema: Ema | None = Field(None, description="keep an average of the weights")
    select: Literal["last", "best", "ema"] = Field("last", description="whose weights are reported")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="autocast's type in forward and loss")


class ExecutionSpec(Section):
    """How trials run. Not part of what a variant is, but of the study's numerics profile."""

    threads: int = Field(1, ge=1, le=1024, description="CPU threads per trial")
    channels_last: bool = Field(True, description="memory layout of images and convolutions")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: cuda where there is one")


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


class AblationSpec(Section):
    """What varies, and over which seeds."""

    seeds: int | list[int] = Field(description="how many (0, 1, …), or which")
    design: Literal["grid", "variants"] = Field("grid", description="how levels combine")
    baseline: str | dict[str, str | int | float] | None = Field(
        None, description="a variant's name, or levels (a partial baseline)"
    )
    factors: dict[str, Any] | None = Field(None, description="factor → level → patch, or {path, levels}")
    variants: dict[str, dict[str, Any]] | None = Field(None, description="variant → patch (design: variants)")
