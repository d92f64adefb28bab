"""One variant, one seed → one result. A plain loop, in memory, one stream of random numbers per purpose.

ResNet-20 on 4,000 MNIST digits takes about 20 s an epoch on one CPU thread. Accuracies and errors are in percent.
``val.loss`` and ``test.loss`` are the plain cross-entropy, in nats; ``train.loss`` is the recipe's loss on the batches
as they were trained on. Where ``data.mix`` mixes labels, ``train.accuracy`` counts an image as right that is taken for
the class with the largest share.
"""

from __future__ import annotations

import contextlib
import math
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.builder import seed_noise
from ablate.data.batches import Batches, evaluation_batches
from ablate.data.dataset import Examples, ImageData
from ablate.design.variant import Variant
from ablate.graph import Graph
from ablate.optimizing import hard_labels, make_average, make_loss, make_optimizer, make_schedule
from ablate.recipe import EarlyStopping, TrainSpec
from ablate.streams import stream_seed
from ablate.trainable import Trainable, freeze, training_mode
from ablate.weights import Loading, WeightsChanged, started

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
    trainable: Trainable = field(default_factory=Trainable)
    mix: Any = None
    loading: Loading | None = None
    """The weights that it starts from, if any."""


def trial_of(variant: Variant, seed: int, numerics: Numerics, key: str = "") -> Trial:
    """What the certificate, the executors and the estimate of the time all train. ``key`` is the trial's hash."""
    return Trial(
        hash=key,
        variant=variant.name,
        seed=seed,
        graph=variant.network.graph,
        init=variant.network.init.recipe,
        train=variant.train,
        augment=tuple(variant.data.augment),
        numerics=numerics,
        trainable=variant.trainable,
        mix=variant.data.mix,
        loading=variant.network.weights.loading(seed) if variant.network.weights else None,
    )


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
    except WeightsChanged:  # nothing was trained, and nothing that is trained now would be this trial
        raise
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
        network = started(trial.graph, seed=trial.seed, recipe=trial.init, loading=trial.loading)
        self.network: nn.Module = network.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        freeze(self.network, trial.trainable)
        self.batches = Batches(
            data.train, data, trial.augment, self.recipe.batch_size, trial.seed, self.device, trial.mix
        )
        self.loss = make_loss(self.recipe, trial.graph.classes, self.device)
        self.optimizer = make_optimizer(self.recipe, self.network, trial.trainable)
        self.schedule = make_schedule(self.recipe, self.optimizer, len(self.batches))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.recipe.precision == "fp16")
        self.average = make_average(self.recipe, self.network)
        self.stopping = Stopping(self.recipe.early_stopping) if self.recipe.early_stopping else None
        self.step = 0
        self.lr = self.recipe.optimizer.lr
        """The rate of the last step, of what no group gives one of its own."""
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
        row: Row = {"epoch": epoch, "lr": self.lr}
        row |= {"train.loss": loss, "train.accuracy": accuracy, "train.error": 100.0 - accuracy}
        if math.isfinite(loss):
            if self.data.val is not None:
                row |= self._evaluate(self._selected(), self.data.val).metrics("val")
            if self.stopping is not None and self.stopping.spec.monitor.startswith("test."):
                row |= self._evaluate_test(self._selected()).metrics("test")
        seconds = time.monotonic() - began
        return row | {"seconds": seconds, "images_per_second": len(self.data.train) / seconds}

    def _train_epoch(self, index: int) -> tuple[float, float]:
        """(mean loss, accuracy in percent) over the batches as they were trained on; one synchronisation at the end."""
        training_mode(self.network, self.trial.trainable)
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        count = 0
        for x, y in self.batches.epoch(index):
            loss, scores = self.one_step(x, y)
            loss_sum += loss.double() * len(y)
            correct += (scores.argmax(1) == hard_labels(y)).sum()
            count += len(y)
        return float(loss_sum) / count, 100.0 * int(correct) / count

    def one_step(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(loss, scores), detached, of one batch, after which the weights have moved."""
        seed_noise(self.network, self.trial.seed, self.step)
        # For what draws from torch's own stream (a third party's dropout): never what an earlier trial left there.
        torch.manual_seed(stream_seed(self.trial.seed, "global", self.step))
        with self._autocast():
            scores = self.network(x.to(memory_format=self.layout))
            loss = self.loss(scores, y)
        self._update(loss)
        return loss.detach(), scores.detach()

    def _update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.lr = self.optimizer.param_groups[0]["lr"]
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
    def _evaluate(self, network: nn.Module, split: Examples) -> _Evaluation:
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


def first_batches(trial: Trial, data: ImageData, count: int = 1) -> Iterator[tuple[Tensor, Tensor]]:
    """The first batches of a trial, as its training would see them."""
    batches = Batches(data.train, data, trial.augment, trial.train.batch_size, trial.seed, mix=trial.mix)
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
    training_mode(run.network, trial.trainable)
    durations = []
    batches = run.batches.epoch(0)
    for _, (x, y) in zip(range(steps + 1), batches, strict=False):
        began = time.monotonic()
        loss, _ = run.one_step(x, y)
        float(loss)
        durations.append((time.monotonic() - began) / len(y))
    per_image = min(durations[1:] or durations)
    # A forward pass is a third of a training step's work.
    evaluated = len(data.val) if data.val is not None else 0
    per_epoch = len(data.train) + evaluated / 3
    tested = len(data.test) / 3 if data.test is not None else 0
    return per_image * (trial.train.epochs * per_epoch + tested)
