"""What a recipe names, by torch's own classes: optimiser, schedule, loss, average of the weights.

Every schedule moves by the step. Those that a recipe counts in epochs are given their epochs as steps, which is the
same rate at the same step, and lets a warm-up stand in front of any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import lr_scheduler, swa_utils

from ablate.recipe import (
    BinaryCrossEntropy,
    Constant,
    Cosine,
    CosineRestarts,
    CrossEntropy,
    Exponential,
    MultiMargin,
    MultiStep,
    OneCycle,
    Polynomial,
    SquaredError,
    Step,
    TrainSpec,
    Warmed,
)
from ablate.trainable import Trainable

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
}
"""By the recipe's name; the fields of its section are the arguments of the class."""
FUSED = {"cpu": ("sgd", "adam", "adamw", "adagrad"), "cuda": ("sgd", "adam", "adamw")}
"""Those that torch can run as one kernel over all parameters, by kind of device."""

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""(scores (B, classes), labels: int64 (B,) or float (B, classes)) → the mean loss, a scalar"""


def make_optimizer(
    recipe: TrainSpec, network: nn.Module, trainable: Trainable | None = None, *, fused: bool = True
) -> torch.optim.Optimizer:
    """The optimiser of what takes a gradient. Its first group has the recipe's own rate, and may be empty.

    ``fused``: all parameters in one kernel, where torch has one.
    """
    settings = {f"{s.module}.{s.parameter}": (s.lr, s.weight_decay) for s in (trainable or Trainable()).settings}
    own = (recipe.optimizer.lr, recipe.optimizer.weight_decay)
    groups: dict[tuple[float, float], list[Tensor]] = {own: []}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(settings.get(name, own), []).append(parameter)
    arguments: dict[str, Any] = recipe.optimizer.model_dump(exclude={"name"})
    if "betas" in arguments:
        arguments["betas"] = tuple(arguments["betas"])
    written = [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]
    devices = {parameter.device.type for group in groups.values() for parameter in group}
    if fused and all(recipe.optimizer.name in FUSED.get(device, ()) for device in devices):
        arguments["fused"] = True
    return OPTIMIZERS[recipe.optimizer.name](written, **arguments)


def make_schedule(
    recipe: TrainSpec, optimizer: torch.optim.Optimizer, steps_per_epoch: int
) -> lr_scheduler.LRScheduler:
    """The schedule of the learning rate, to be moved after every step."""
    steps = recipe.epochs * steps_per_epoch
    spec = recipe.schedule
    if isinstance(spec, OneCycle):
        return _one_cycle(optimizer, steps, spec)
    warmup = round(spec.warmup_epochs * steps_per_epoch)
    if warmup == 0:
        return _main_schedule(spec, optimizer, steps, 0, steps_per_epoch)
    rising = lr_scheduler.LinearLR(optimizer, start_factor=spec.warmup_start, total_iters=warmup)
    main = _main_schedule(spec, optimizer, max(steps - warmup, 1), warmup, steps_per_epoch)
    return lr_scheduler.SequentialLR(optimizer, [rising, main], [warmup])


def _main_schedule(
    spec: Warmed, optimizer: torch.optim.Optimizer, steps: int, warmup: int, steps_per_epoch: int
) -> lr_scheduler.LRScheduler:
    """What follows the warm-up, in so many steps; its own step 0 is the first after it."""
    match spec:
        case MultiStep() as s:
            milestones = [epoch * steps_per_epoch - warmup for epoch in s.milestones]
            return lr_scheduler.MultiStepLR(optimizer, milestones, s.gamma)
        case Step() as s:
            return lr_scheduler.StepLR(optimizer, s.every * steps_per_epoch, s.gamma)
        case Exponential() as s:
            # ExponentialLR by the epoch: StepLR drops at every one and is constant between
            return lr_scheduler.StepLR(optimizer, steps_per_epoch, s.gamma)
        case Polynomial() as s:
            return lr_scheduler.PolynomialLR(optimizer, steps, s.power)
        case Cosine() as s:
            return lr_scheduler.CosineAnnealingLR(optimizer, steps, s.floor)
        case CosineRestarts() as s:
            return lr_scheduler.CosineAnnealingWarmRestarts(optimizer, s.period * steps_per_epoch, s.growth, s.floor)
        case _:
            assert isinstance(spec, Constant), spec
            return lr_scheduler.ConstantLR(optimizer, factor=1.0)


def _one_cycle(optimizer: torch.optim.Optimizer, steps: int, spec: OneCycle) -> lr_scheduler.LRScheduler:
    # The momentum stays what the spec says: torch would cycle it too, between 0.85 and 0.95.
    # torch divides by warmup × steps - 1: at exactly 0 it needs a nudge.
    warmup = spec.warmup if spec.warmup * steps != 1 else spec.warmup * (1 + 1e-9)
    return lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=steps,
        pct_start=warmup,
        div_factor=spec.start_factor,
        final_div_factor=spec.final_factor,
        cycle_momentum=False,
    )


def make_loss(recipe: TrainSpec, classes: int, device: torch.device | str = "cpu") -> LossFunction:
    """The training loss. Mixed labels are float (B, classes), each row a distribution over the classes."""
    match recipe.loss:
        case CrossEntropy() as spec:
            weight = None if spec.weights is None else torch.tensor(spec.weights, device=device)
            loss: nn.Module = nn.CrossEntropyLoss(weight=weight, label_smoothing=spec.label_smoothing)
            return lambda scores, y: loss(scores.float(), y)
        case BinaryCrossEntropy() as spec:
            loss, smoothing = nn.BCEWithLogitsLoss(), spec.label_smoothing
            return lambda scores, y: loss(scores.float(), soft_labels(y, classes, smoothing))
        case SquaredError() as spec:
            loss, of_probabilities = nn.MSELoss(), spec.of == "probabilities"
            return lambda scores, y: loss(
                scores.float().softmax(1) if of_probabilities else scores.float(), soft_labels(y, classes)
            )
        case MultiMargin() as spec:
            loss = nn.MultiMarginLoss(p=spec.p, margin=spec.margin)
            return lambda scores, y: loss(scores.float(), y)


def make_part(recipe: TrainSpec, device: torch.device | str = "cpu") -> Callable[[Tensor, slice], Tensor | float]:
    """(labels of a batch, some of its examples) → the part that their own mean loss has in the batch's mean loss."""
    loss = recipe.loss
    if not isinstance(loss, CrossEntropy) or loss.weights is None:
        return lambda y, own: len(y[own]) / len(y)
    weights = torch.tensor(loss.weights, device=device)

    def part(y: Tensor, own: slice) -> Tensor | float:
        if y.is_floating_point():  # torch then divides by the number of examples
            return len(y[own]) / len(y)
        return weights[y[own]].sum() / weights[y].sum()

    return part


def parts_of(examples: int, size: int | None) -> list[slice]:
    """A batch in parts of that size, None being all of it. A last single example, which batch norm could not use, joins
    the part before."""
    starts = list(range(0, max(examples - 1, 1), size or examples))
    return [slice(start, stop) for start, stop in zip(starts, [*starts[1:], examples], strict=True)]


def soft_labels(y: Tensor, classes: int, smoothing: float = 0.0) -> Tensor:
    """Labels as shares of the classes: float (B, classes), of int64 (B,) or of what is so already."""
    shares = y.float() if y.is_floating_point() else F.one_hot(y, classes).float()
    return shares * (1 - smoothing) + smoothing / classes if smoothing else shares


def hard_labels(y: Tensor) -> Tensor:
    """The label, int64 (B,): of mixed labels the one with the largest share, the lower of equals."""
    return y.argmax(1) if y.is_floating_point() else y


def make_average(recipe: TrainSpec, network: nn.Module) -> swa_utils.AveragedModel | None:
    """The moving average of weights and running statistics, if the recipe asks for one."""
    if recipe.ema is None:
        return None
    average = swa_utils.get_ema_multi_avg_fn(recipe.ema.decay)  # type: ignore[no-untyped-call]
    return swa_utils.AveragedModel(network, multi_avg_fn=average, use_buffers=True)
