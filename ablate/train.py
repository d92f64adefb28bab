"""One variant, one seed → one result. A plain loop, in memory, one stream of random numbers per purpose.

ResNet-20 on 4,000 MNIST digits takes about 20 s an epoch on one CPU thread. Accuracies and errors are in percent,
losses in nats.
"""

from __future__ import annotations

import contextlib
import math
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import lr_scheduler, swa_utils

from ablate.batches import Batches, evaluation_batches
from ablate.builder import build, seed_noise
from ablate.dataset import ImageData, Split
from ablate.grammar import Adam, AdamW, Constant, Cosine, EarlyStopping, MultiStep, OneCycle, Sgd, TrainSpec
from ablate.graph import Graph
from ablate.streams import stream_seed

EVALUATION_BATCH = 512
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Numerics:
    """How numbers are computed in a study: resolved once, stored with it, part of every trial's hash."""

    threads: int = 1
    channels_last: bool = True
    device: str = "cpu"
    device_name: str = ""
    """Of a CUDA device: another model rounds otherwise."""
    flush_denormal: bool = True
    torch: str = torch.__version__

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Trial:
    """A variant and a seed: everything that training needs but the data."""

    hash: str
    variant: str
    seed: int
    graph: Graph
    init: str
    train: TrainSpec
    augment: tuple[Any, ...]
    numerics: Numerics


@dataclass
class Outcome:
    """What a trial came to. ``result`` is JSON; ``predictions`` has an entry per test example."""

    result: dict[str, Any]
    predictions: dict[str, np.ndarray[Any, Any]] | None = None
    weights: dict[str, Tensor] | None = None


@dataclass
class _Evaluation:
    loss: float
    accuracy: float
    predicted: np.ndarray[Any, Any]
    losses: np.ndarray[Any, Any]

    def metrics(self, split: str) -> dict[str, float]:
        return {
            f"{split}.loss": self.loss,
            f"{split}.accuracy": self.accuracy,
            f"{split}.error": 100.0 - self.accuracy,
        }


def set_process(numerics: Numerics) -> None:
    """Settings of the whole process. Denormals first: torch ignores the flag once threads have started."""
    torch.set_flush_denormal(numerics.flush_denormal)
    torch.set_num_threads(numerics.threads)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@contextlib.contextmanager
def process_settings(numerics: Numerics) -> Iterator[None]:
    """``set_process`` for a while: a notebook has its threads and its denormals back afterwards."""
    flushed = not bool(torch.tensor(5e-324, dtype=torch.float64) * torch.ones((), dtype=torch.float64))
    threads = torch.get_num_threads()
    cudnn, cuda = torch.backends.cudnn, torch.backends.cuda
    kept = (cudnn.deterministic, cudnn.benchmark, cuda.matmul.allow_tf32, cudnn.allow_tf32)
    set_process(numerics)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_flush_denormal(flushed)
        torch.set_num_threads(threads)
        cudnn.deterministic, cudnn.benchmark, cuda.matmul.allow_tf32, cudnn.allow_tf32 = kept


Row = dict[str, float]
"""What was measured in one epoch: ``epoch``, ``lr``, ``seconds`` and metrics by name."""


def epochs(trial: Trial, data: ImageData) -> Generator[Row, None, Outcome]:
    """Train one trial, giving a row after each epoch; the generator's return value is the outcome.

    A bug in a block is an outcome with its traceback (``crashed``), and so is a loss that is no number (``diverged``).
    """
    run: _Run | None = None
    try:
        run = _Run(trial, data)
        return (yield from run.epochs())
    except Exception as error:  # whatever a block raises: the study goes on, and the trial says why it did not
        details = {"type": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
        return Outcome(_result("crashed", error=details, test_readings=run.test_readings if run else 0))


def train(trial: Trial, data: ImageData, on_epoch: Callable[[Row], None] = lambda row: None) -> Outcome:
    """Train one trial from the first epoch to the last; ``on_epoch`` sees each epoch's row."""
    running = epochs(trial, data)
    with process_settings(trial.numerics):
        while True:
            try:
                on_epoch(next(running))
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome


class _Run:
    """The state of one training run."""

    def __init__(self, trial: Trial, data: ImageData) -> None:
        self.trial, self.data, self.recipe = trial, data, trial.train
        self.device = torch.device(trial.numerics.device)
        self.layout = torch.channels_last if trial.numerics.channels_last else torch.contiguous_format
        network = build(trial.graph, seed=trial.seed, recipe=trial.init)
        self.network: nn.Module = network.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        self.batches = Batches(data.train, data, trial.augment, self.recipe.batch_size, trial.seed, self.device)
        self.optimizer = make_optimizer(self.recipe, self.network)
        self.schedule, self.schedule_by_step = make_schedule(self.recipe, self.optimizer, len(self.batches))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.recipe.precision == "fp16")
        self.average = make_average(self.recipe, self.network)
        self.stopping = Stopping(self.recipe.early_stopping) if self.recipe.early_stopping else None
        self.step = 0
        self.test_readings = 0
        self.train_seconds = 0.0

    def epochs(self) -> Generator[Row, None, Outcome]:
        started = time.monotonic()
        best: tuple[float, int, dict[str, Tensor]] | None = None
        rows: list[Row] = []
        for epoch in range(1, self.recipe.epochs + 1):
            row = self._epoch(epoch)
            rows.append(row)
            yield row
            if not math.isfinite(row["train.loss"]):
                seconds = time.monotonic() - started
                return Outcome(_result("diverged", epochs=epoch, seconds=seconds, test_readings=self.test_readings))
            if self.recipe.select == "best" and (best is None or row["val.accuracy"] > best[0]):
                best = (row["val.accuracy"], epoch, deepcopy(self.network.state_dict()))
            if self.stopping is not None and self.stopping.done(row):
                break
        selected = len(rows)
        if best is not None:
            selected = best[1]
            self.network.load_state_dict(best[2])
        return self._finish(rows, selected, started)

    def _epoch(self, epoch: int) -> Row:
        began = time.monotonic()
        loss, accuracy = self._train_epoch(epoch - 1)
        self.train_seconds += time.monotonic() - began
        row: Row = {"epoch": epoch, "lr": self.optimizer.param_groups[0]["lr"]}
        row |= {"train.loss": loss, "train.accuracy": accuracy, "train.error": 100.0 - accuracy}
        if not self.schedule_by_step:
            self.schedule.step()
        if math.isfinite(loss):
            if self.data.val is not None:
                row |= self._evaluate(self._selected(), self.data.val).metrics("val")
            if self.stopping is not None and self.stopping.spec.monitor.startswith("test."):
                row |= self._evaluate_test(self._selected()).metrics("test")
        seconds = time.monotonic() - began
        return row | {"seconds": seconds, "images_per_second": len(self.data.train) / seconds}

    def _train_epoch(self, index: int) -> tuple[float, float]:
        """(mean loss, accuracy in percent) over the batches as they were trained on; one synchronisation at the end."""
        self.network.train()
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        count = 0
        for x, y in self.batches.epoch(index):
            seed_noise(self.network, self.trial.seed, self.step)
            # For what draws from torch's own stream (a third party's dropout): never what an earlier trial left there.
            torch.manual_seed(stream_seed(self.trial.seed, "global", self.step))
            x = x.to(memory_format=self.layout)
            with self._autocast():
                scores = self.network(x)
                loss = F.cross_entropy(scores, y, label_smoothing=self.recipe.loss.label_smoothing)
            self._update(loss)
            loss_sum += loss.detach().double() * len(y)
            correct += (scores.detach().argmax(1) == y).sum()
            count += len(y)
        return float(loss_sum) / count, 100.0 * int(correct) / count

    def _update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.schedule_by_step:
            self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        self.step += 1

    def _selected(self) -> nn.Module:
        return self.network if self.average is None else self.average.module

    def _evaluate_test(self, network: nn.Module) -> _Evaluation:
        assert self.data.test is not None
        self.test_readings += 1
        return self._evaluate(network, self.data.test)

    @torch.no_grad()
    def _evaluate(self, network: nn.Module, split: Split) -> _Evaluation:
        network.eval()
        predicted, losses = [], []
        for x, y in evaluation_batches(split, self.data, EVALUATION_BATCH, self.device):
            with self._autocast():
                scores = network(x.to(memory_format=self.layout)).float()
            predicted.append(scores.argmax(1))
            losses.append(F.cross_entropy(scores, y, reduction="none"))
        guesses, nats = torch.cat(predicted).cpu().numpy(), torch.cat(losses).cpu().numpy()
        accuracy = 100.0 * float(np.mean(guesses == split.labels))
        return _Evaluation(float(nats.astype(np.float64).mean()), accuracy, guesses, nats)

    def _finish(self, rows: list[Row], selected: int, started: float) -> Outcome:
        network = self._selected()
        row = rows[selected - 1]
        metrics = {key: value for key, value in row.items() if key.startswith("train.")}
        if self.data.val is not None:
            metrics |= self._evaluate(network, self.data.val).metrics("val")
        predictions = None
        if self.data.test is not None:
            test = self._evaluate_test(network)
            metrics |= test.metrics("test")
            predictions = {
                "predicted": test.predicted.astype(np.int32),
                "label": self.data.test.labels.astype(np.int32),
                "loss": test.losses.astype(np.float32),
            }
        finite = all(math.isfinite(value) for value in metrics.values())
        result = _result(
            "finished" if finite else "diverged",
            metrics=metrics if finite else {},
            epochs=len(rows),
            selected_epoch=selected,
            seconds=time.monotonic() - started,
            images_per_second=len(rows) * len(self.data.train) / max(self.train_seconds, 1e-9),
            test_readings=self.test_readings,
        )
        weights = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
        return Outcome(result, predictions, weights)

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        if self.recipe.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=PRECISIONS[self.recipe.precision])


class Stopping:
    """Early stopping: ``patience`` epochs without an improvement beyond ``threshold``."""

    def __init__(self, spec: EarlyStopping) -> None:
        self.spec = spec
        self.sign = -1.0 if spec.monitor.endswith("accuracy") else 1.0
        self.best = math.inf
        self.waited = 0

    def done(self, row: Mapping[str, float]) -> bool:
        value = self.sign * row[self.spec.monitor]
        margin = self.spec.threshold * (abs(self.best) if self.spec.mode == "relative" else 1.0)
        if math.isfinite(value) and (math.isinf(self.best) or value < self.best - margin):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        return self.waited >= self.spec.patience


def make_optimizer(recipe: TrainSpec, network: nn.Module) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    match recipe.optimizer:
        case Sgd() as o:
            return torch.optim.SGD(
                parameters, lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay, nesterov=o.nesterov
            )
        case Adam() | AdamW() as o:
            kind = torch.optim.AdamW if isinstance(o, AdamW) else torch.optim.Adam
            betas = (o.betas[0], o.betas[1])
            return kind(parameters, lr=o.lr, betas=betas, eps=o.eps, weight_decay=o.weight_decay)


def make_schedule(
    recipe: TrainSpec, optimizer: torch.optim.Optimizer, steps_per_epoch: int
) -> tuple[lr_scheduler.LRScheduler, bool]:
    """The schedule, and whether it moves by the step (otherwise by the epoch)."""
    steps = recipe.epochs * steps_per_epoch
    match recipe.schedule:
        case Constant():
            return lr_scheduler.ConstantLR(optimizer, factor=1.0), False
        case MultiStep() as s:
            return lr_scheduler.MultiStepLR(optimizer, milestones=s.milestones, gamma=s.gamma), False
        case Cosine() as s:
            return lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=s.floor), True
        case OneCycle() as s:
            return _one_cycle(optimizer, recipe.optimizer.lr, steps, s), True


def _one_cycle(optimizer: torch.optim.Optimizer, peak: float, steps: int, spec: OneCycle) -> lr_scheduler.LRScheduler:
    # The momentum stays what the spec says: torch would cycle it too, between 0.85 and 0.95.
    # torch divides by warmup × steps - 1: at exactly 0 it needs a nudge.
    warmup = spec.warmup if spec.warmup * steps != 1 else spec.warmup * (1 + 1e-9)
    return lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=peak,
        total_steps=steps,
        pct_start=warmup,
        div_factor=spec.start_factor,
        final_div_factor=spec.final_factor,
        cycle_momentum=False,
    )


def make_average(recipe: TrainSpec, network: nn.Module) -> swa_utils.AveragedModel | None:
    if recipe.ema is None:
        return None
    average = swa_utils.get_ema_multi_avg_fn(recipe.ema.decay)  # type: ignore[no-untyped-call]
    return swa_utils.AveragedModel(network, multi_avg_fn=average, use_buffers=True)


def first_batches(trial: Trial, data: ImageData, count: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    """The first batches of a trial, as its training would see them."""
    batches = Batches(data.train, data, trial.augment, trial.train.batch_size, trial.seed)
    for index, batch in enumerate(batches.epoch(0)):
        if index == count:
            return
        yield batch


def _result(
    status: str,
    *,
    metrics: dict[str, float] | None = None,
    epochs: int = 0,
    selected_epoch: int = 0,
    seconds: float = 0.0,
    images_per_second: float = 0.0,
    test_readings: int = 0,
    error: dict[str, str] | None = None,
) -> dict[str, Any]:
    return {
        "status": status,
        "metrics": metrics or {},
        "epochs": epochs,
        "selected_epoch": selected_epoch,
        "seconds": round(seconds, 3),
        "images_per_second": round(images_per_second, 1),
        "test_readings": test_readings,
        "error": error,
    }


def time_steps(trial: Trial, data: ImageData, steps: int) -> float:
    """Estimated seconds of a trial: a few real steps and one evaluation batch, timed after one step to warm up."""
    run = _Run(trial, data)
    run.network.train()
    durations = []
    batches = run.batches.epoch(0)
    for _, (x, y) in zip(range(steps + 1), batches, strict=False):
        began = time.monotonic()
        seed_noise(run.network, trial.seed, run.step)
        with run._autocast():
            loss = F.cross_entropy(run.network(x.to(memory_format=run.layout)), y)
        run._update(loss)
        float(loss.detach())
        durations.append((time.monotonic() - began) / len(y))
    per_image = min(durations[1:] or durations)
    # A forward pass is a third of a training step's work.
    evaluated = len(data.val) if data.val is not None else 0
    per_epoch = len(data.train) + evaluated / 3
    tested = len(data.test) / 3 if data.test is not None else 0
    return per_image * (trial.train.epochs * per_epoch + tested)
