"""The grammar of a training recipe, ``train:`` in a spec. No torch here: ``optimizing`` makes of it what trains."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    field_validator,
)

from ablate.collect import Collector

MONITORS = ("val.loss", "val.error", "val.accuracy", "test.loss", "test.error", "test.accuracy")


class Section(BaseModel):
    """Strict: unknown keys, silent coercions and numbers that are not finite are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    later: ClassVar[frozenset[str]] = frozenset()
    """Fields that came after the first stored trials: not in an identity at their default, so that hashes stay."""

    def identity(self) -> dict[str, Any]:
        """The section as it enters a variant's identity: JSON data."""
        parts: dict[str, Any] = {}
        for name, info in type(self).model_fields.items():
            value = getattr(self, name)
            if name not in self.later or value != info.get_default(call_default_factory=True):
                parts[name] = value.identity() if isinstance(value, Section) else value
        return parts


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


class NAdam(Section):
    """Adam with Nesterov's momentum: Dozat, 2016 (ICLR workshop) (torch.optim.NAdam)."""

    name: Literal["nadam"]
    lr: float = Field(gt=0, description="learning rate")
    betas: list[Decay] = Field([0.9, 0.999], min_length=2, max_length=2, description="decay of the two moments")
    eps: float = Field(1e-8, gt=0, description="added to the denominator")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty, added to the gradient")
    momentum_decay: float = Field(4e-3, ge=0, description="how fast the momentum approaches its beta, per step")
    decoupled_weight_decay: bool = Field(False, description="weight decay as AdamW has it")


class RAdam(Section):
    """Rectified Adam, without a warm-up: Liu et al., 2020 (arXiv:1908.03265) (torch.optim.RAdam)."""

    name: Literal["radam"]
    lr: float = Field(gt=0, description="learning rate")
    betas: list[Decay] = Field([0.9, 0.999], min_length=2, max_length=2, description="decay of the two moments")
    eps: float = Field(1e-8, gt=0, description="added to the denominator")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty, added to the gradient")
    decoupled_weight_decay: bool = Field(False, description="weight decay as AdamW has it")


class RmsProp(Section):
    """RMSprop: Hinton, 2012 (lecture notes); eps is added outside of the square root (torch.optim.RMSprop)."""

    name: Literal["rmsprop"]
    lr: float = Field(gt=0, description="learning rate")
    alpha: Decay = Field(0.99, description="decay of the mean of squared gradients, per step")
    eps: float = Field(1e-8, gt=0, description="added to the denominator")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty, added to the gradient")
    momentum: float = Field(0.0, ge=0, lt=1, description="momentum")
    centered: bool = Field(False, description="divide by the standard deviation of the gradient, not by its RMS")


class Adagrad(Section):
    """Adagrad: Duchi, Hazan and Singer, 2011 (JMLR 12, 2121–2159) (torch.optim.Adagrad)."""

    name: Literal["adagrad"]
    lr: float = Field(gt=0, description="learning rate")
    lr_decay: float = Field(0.0, ge=0, description="the rate is divided by 1 + this × steps taken")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty, added to the gradient")
    initial_accumulator_value: float = Field(0.0, ge=0, description="first value of the sum of squared gradients")
    eps: float = Field(1e-10, gt=0, description="added to the denominator")


class Warmed(Section):
    """A schedule that may stand behind a linear warm-up (LinearLR, then SequentialLR), a step at a time."""

    warmup_epochs: float = Field(
        0.0, ge=0, le=100_000, description="epochs, of train.epochs, in which the rate rises; the schedule follows"
    )
    warmup_start: float = Field(0.01, gt=0, le=1, description="the first rate of the warm-up, as a share of the rate")

    def identity(self) -> dict[str, Any]:
        warmup = {"warmup_epochs", "warmup_start"} if self.warmup_epochs == 0 else set()
        return {name: value for name, value in super().identity().items() if name not in warmup}


class Constant(Warmed):
    """The learning rate as stated, throughout."""

    name: Literal["constant"]


def _epoch_or_share(value: Any, as_epoch: ValidatorFunctionWrapHandler) -> int | Fraction:
    """An epoch; or a share of the epochs, above 0 and below 1, as a number or as ``91/182``."""
    share = None
    if isinstance(value, float) and not value.is_integer():
        share = Fraction(str(value))  # 0.3 as it is written, and not the float that is nearest to it
    elif isinstance(value, str) and (parts := re.fullmatch(SHARE, value)):
        share = Fraction(int(parts[1]), int(parts[2]))
    if share is None:
        epoch: int = as_epoch(value)
        return epoch
    if not 0 < share < 1:
        raise ValueError(f"{value} is no share of the epochs: above 0 and below 1, or a whole epoch")
    return share


SHARE = r"([0-9]{1,6})/([1-9][0-9]{0,5})"
Milestone = Annotated[
    int,
    Field(ge=1),
    WrapValidator(_epoch_or_share),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
                {"type": "string", "pattern": f"^{SHARE}$"},
            ]
        }
    ),
]


class MultiStep(Warmed):
    """Multiplied by gamma at each milestone (torch.optim.lr_scheduler.MultiStepLR)."""

    name: Literal["multi_step"]
    milestones: list[Milestone] = Field(
        min_length=1,
        description="epochs after which the rate drops, the warm-up's included; or shares of train.epochs, such as 0.5 "
        "or 91/182",
    )
    gamma: float = Field(0.1, gt=0, description="factor at each milestone")

    def of(self, epochs: int) -> MultiStep:
        """The schedule with each share of ``epochs`` as the epoch that is nearest, at least the first."""
        milestones = [each if isinstance(each, int) else max(1, round(each * epochs)) for each in self.milestones]
        return self.model_copy(update={"milestones": milestones})


class Step(Warmed):
    """Multiplied by gamma every so many epochs, counted from the end of the warm-up (StepLR)."""

    name: Literal["step"]
    every: int = Field(ge=1, le=100_000, description="epochs between two drops")
    gamma: float = Field(0.1, gt=0, description="factor at each drop")


class Exponential(Warmed):
    """Multiplied by gamma after every epoch, counted from the end of the warm-up (ExponentialLR)."""

    name: Literal["exponential"]
    gamma: float = Field(gt=0, description="factor after each epoch")


class Polynomial(Warmed):
    """Down to 0 as (1 - share of the steps done) to a power, a step at a time (PolynomialLR)."""

    name: Literal["polynomial"]
    power: float = Field(1.0, gt=0, description="1 is a straight line")


class Cosine(Warmed):
    """From the rate to its floor along half a cosine, a step at a time (CosineAnnealingLR)."""

    name: Literal["cosine"]
    floor: float = Field(0.0, ge=0, description="the last learning rate, of every group")


class CosineRestarts(Warmed):
    """Half a cosine again and again, a step at a time: SGDR (arXiv:1608.03983) (CosineAnnealingWarmRestarts)."""

    name: Literal["cosine_restarts"]
    period: int = Field(ge=1, le=100_000, description="epochs until the first restart")
    growth: int = Field(1, ge=1, le=100, description="each period is this many times as long as the one before")
    floor: float = Field(0.0, ge=0, description="the learning rate before a restart, of every group")


class OneCycle(Section):
    """Up to the rate and down again: Smith and Topin, 2018 (arXiv:1708.07120) (OneCycleLR)."""

    name: Literal["one_cycle"]
    warmup: float = Field(0.3, gt=0, lt=1, description="share of the steps in which the rate rises")
    start_factor: float = Field(25.0, gt=1, description="the first rate is the peak divided by this")
    final_factor: float = Field(1e4, gt=1, description="the last rate is the first divided by this")


class TrainingLoss(Section):
    """A training loss. Evaluation always reports the plain cross-entropy, in nats."""

    soft: ClassVar[bool] = True
    """Whether it takes soft labels: shares of an example between classes, as ``data.mix`` makes them."""


class CrossEntropy(TrainingLoss):
    """Cross-entropy of softmax, in nats (torch.nn.CrossEntropyLoss)."""

    later = frozenset({"weights"})
    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the label spread over all classes")
    weights: list[Annotated[float, Field(gt=0)]] | None = Field(
        None,
        min_length=1,
        description="a weight per class, in the order of the labels; the mean is by the weights of a batch's labels "
        "(with soft labels: by its examples)",
    )


class BinaryCrossEntropy(TrainingLoss):
    """A sigmoid per class against its share of the label, in nats, averaged over examples and classes
    (torch.nn.BCEWithLogitsLoss): Wightman, Touvron and Jégou, 2021, "ResNet strikes back" (arXiv:2110.00476).
    """

    name: Literal["bce"]
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the label spread over all classes")


class SquaredError(TrainingLoss):
    """Mean squared difference from the one-hot label, over examples and classes (torch.nn.MSELoss).

    On raw scores: Hui and Belkin, 2021 (arXiv:2006.07322). On probabilities: Brier's score, over the classes.
    """

    name: Literal["mse"]
    of: Literal["scores", "probabilities"] = Field("scores", description="the network's output, or its softmax")


class MultiMargin(TrainingLoss):
    """Hinge loss of several classes: mean over classes of max(0, margin - s_label + s_other)^p (MultiMarginLoss)."""

    soft = False
    name: Literal["multi_margin"]
    p: Literal[1, 2] = Field(1, description="exponent")
    margin: float = Field(1.0, gt=0, description="by how much the label's score is to be above the others")


class EarlyStopping(Section):
    """Ends a trial when the monitored metric has stopped improving."""

    monitor: Literal[MONITORS] = Field(description="a metric; one of test.* leaks the test split")  # type: ignore[valid-type]
    patience: int = Field(ge=1, description="epochs without improvement before the end")
    threshold: float = Field(1e-4, ge=0, description="the least change that counts as improvement")
    mode: Literal["relative", "absolute"] = Field("relative", description="threshold as a share of the best, or plain")


class Ema(Section):
    """Exponential moving average of the weights, a step at a time."""

    decay: float = Field(0.999, gt=0, lt=1, description="what is kept of the average each step")


class Evaluate(Section):
    """When the val split is evaluated, besides after the last epoch, and whether the test split is, too."""

    later = frozenset({"test"})
    every: int = Field(ge=1, le=100_000, description="epochs from one evaluation to the next")
    test: bool = Field(
        False, description="read the test split as well, for its curve; each reading is counted, and decides nothing"
    )


class Group(Section):
    """Parameters with a learning rate or weight decay of their own. Of two groups that name one, the first acts."""

    of: str = Field(
        min_length=1,
        description="kinds: norm (parameters of norm layers), bias (every bias), or norm|bias; or a pattern of nodes "
        "or scopes of the finished graph (a node called norm: (norm)); or insert.NAME, an insertion's own nodes",
    )
    lr: float | None = Field(None, gt=0, description="learning rate, in the optimiser's place")
    lr_factor: float | None = Field(None, gt=0, le=1e6, description="learning rate, as a multiple of the optimiser's")
    weight_decay: float | None = Field(None, ge=0, description="weight decay, in the optimiser's place")


def _named_loss(value: Any) -> Any:
    """A loss without a name is cross-entropy: a level may set ``train.loss.label_smoothing`` alone."""
    return {"name": "cross_entropy", **value} if isinstance(value, dict) and "name" not in value else value


Optimizer = Annotated[
    Sgd | Adam | AdamW | NAdam | RAdam | RmsProp | Adagrad,
    Field(discriminator="name"),
]
Schedule = Annotated[
    Constant | MultiStep | Step | Exponential | Polynomial | Cosine | CosineRestarts | OneCycle,
    Field(discriminator="name"),
]
Loss = Annotated[
    CrossEntropy | BinaryCrossEntropy | SquaredError | MultiMargin,
    Field(discriminator="name"),
]


def by_name(union: Any) -> dict[str, type[Section]]:
    """The sections of a union by the name that chooses them."""
    return {get_args(kind.model_fields["name"].annotation)[0]: kind for kind in get_args(get_args(union)[0])}


class TrainSpec(Section):
    """The training recipe."""

    later = frozenset({"evaluate", "micro_batch"})
    epochs: int = Field(ge=1, le=100_000, description="passes over the train split")
    batch_size: int = Field(128, ge=2, le=1_000_000, description="examples a step")
    micro_batch: int | None = Field(
        None,
        ge=2,
        le=1_000_000,
        description="examples of a batch that are computed at once, to take less memory; their gradients add up to one "
        "step. Batch norm sees so many",
    )
    optimizer: Optimizer = Field(description="the optimiser")
    groups: list[Group] = Field([], description="parameters with a learning rate or weight decay of their own")
    schedule: Schedule = Field(Constant(name="constant"), description="the learning rate over time")
    loss: Annotated[Loss, BeforeValidator(_named_loss)] = Field(CrossEntropy(), description="the training loss")
    early_stopping: EarlyStopping | None = Field(None, description="ends a trial early")
    clip_norm: float | None = Field(None, gt=0, description="gradients are scaled down to this L2 norm")
    ema: Ema | None = Field(None, description="keep an average of the weights")
    freeze: list[str] = Field(
        [], description="what stays as it starts: patterns of nodes or scopes of the finished graph, or insert.NAME"
    )
    only: list[str] | None = Field(None, min_length=1, description="what is trained, everything else is frozen")
    select: Literal["last", "best", "ema"] = Field("last", description="whose weights are reported")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="autocast's type in forward and loss; auto: bf16 where the device multiplies in it, else fp32",
    )
    evaluate: Evaluate | None = Field(
        None,
        description="when val is evaluated besides at the end; without it every epoch where that stops the training "
        "or selects the weights, else not at all",
    )

    @field_validator("schedule")
    @classmethod
    def _milestones_are_epochs(cls, schedule: Schedule, info: ValidationInfo) -> Schedule:
        epochs = info.data.get("epochs")  # absent where it is wrong itself
        return schedule.of(epochs) if isinstance(schedule, MultiStep) and epochs else schedule

    @property
    def evaluates_every(self) -> int | None:
        """Epochs from one evaluation to the next; None where only the last epoch is evaluated."""
        if self.evaluate is not None:
            return self.evaluate.every
        return 1 if self.early_stopping is not None or self.select == "best" else None

    @property
    def evaluates_test(self) -> bool:
        """Whether evaluations read the test split: where it stops the training, or its curve is asked for."""
        stops = self.early_stopping is not None and self.early_stopping.monitor.startswith("test.")
        return stops or (self.evaluate is not None and self.evaluate.test)

    @property
    def evaluations(self) -> int:
        """How often val is evaluated, unless the training ends early."""
        return 1 if self.evaluates_every is None else -(-self.epochs // self.evaluates_every)

    def identity(self) -> dict[str, Any]:
        # What is trainable, and how fast, enters the identity resolved: two texts may come to the same.
        return {name: part for name, part in super().identity().items() if name not in ("freeze", "only", "groups")}


def check_recipe(train: TrainSpec, classes: int, mixes: bool, collector: Collector) -> None:
    """What no single key shows: keys that contradict one another, the data's classes, or its mixed labels."""
    for path, message, hint in (
        *_batch_problems(train),
        *_schedule_problems(train),
        *_loss_problems(train, classes, mixes),
    ):
        collector.add(("train", *path), message, hint, key=False)


_Contradiction = tuple[tuple[str | int, ...], str, str]


def _batch_problems(train: TrainSpec) -> Iterable[_Contradiction]:
    if train.micro_batch is not None and train.micro_batch >= train.batch_size:
        message = f"{train.micro_batch} examples are no part of a batch of {train.batch_size}"
        yield ("micro_batch",), message, "less than batch_size, or leave it out"


def _schedule_problems(train: TrainSpec) -> Iterable[_Contradiction]:
    schedule = train.schedule
    if not isinstance(schedule, Warmed):
        return
    here = ("schedule", "warmup_epochs")
    written = schedule.model_fields_set
    if "warmup_start" in written and "warmup_epochs" not in written:
        yield ("schedule", "warmup_start"), "unused: there is no warm-up", "add warmup_epochs"
    if schedule.warmup_epochs and schedule.warmup_epochs >= train.epochs:
        message = f"a warm-up of {schedule.warmup_epochs:g} epochs leaves nothing of {train.epochs} for the schedule"
        yield here, message, ""
    elif isinstance(schedule, MultiStep) and schedule.warmup_epochs:
        for index, milestone in enumerate(schedule.milestones):
            if milestone <= schedule.warmup_epochs:
                path = ("schedule", "milestones", index)
                yield path, f"epoch {milestone} lies in the warm-up of {schedule.warmup_epochs:g}", ""


def _loss_problems(train: TrainSpec, classes: int, mixes: bool) -> Iterable[_Contradiction]:
    loss = train.loss
    if mixes and not loss.soft:
        soft = ", ".join(name for name, kind in by_name(Loss).items() if issubclass(kind, TrainingLoss) and kind.soft)
        yield ("loss", "name"), f"'{loss.name}' takes no soft labels, and data.mix makes them", f"one of: {soft}"
    if isinstance(loss, CrossEntropy) and loss.weights is not None and len(loss.weights) != classes:
        yield ("loss", "weights"), f"{len(loss.weights)} weights for {classes} classes", "one each"
