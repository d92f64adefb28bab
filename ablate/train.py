"""One variant, one seed → one result. A plain loop, in memory, one stream of random numbers per purpose.

ResNet-20 on 4,000 MNIST digits takes about 20 s an epoch on one CPU thread. Accuracies and errors are in percent.
``val.loss`` and ``test.loss`` are the plain cross-entropy, in nats; ``train.loss`` is the recipe's loss on the batches
as they were trained on. Where ``data.mix`` mixes labels, ``train.accuracy`` counts an image as right that is taken for
the class with the largest share.
"""

from __future__ import annotations

import math
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from ablate.builder import seed_noise
from ablate.checkpoints import Checkpoints, NotKept
from ablate.compiling import Compiled
from ablate.data.batches import Batches
from ablate.data.dataset import Examples, ImageData
from ablate.data.on_device import OnDevice
from ablate.design.variant import Variant
from ablate.evaluating import Evaluation, evaluate, largest_batch
from ablate.faults import out_of_memory
from ablate.graph import Graph
from ablate.numerics import Numerics, autocast, process_settings, seed_process
from ablate.optimizing import hard_labels, make_average, make_loss, make_optimizer, make_part, make_schedule, parts_of
from ablate.own_code import Sent, sent
from ablate.parallel import ALONE, Ranks, gathering
from ablate.recipe import TrainSpec
from ablate.selecting import Best, Stopping
from ablate.streams import stream_seed
from ablate.trainable import Trainable, freeze, training_mode
from ablate.training_state import memory_of, restore, state_of
from ablate.weights import Loading, WeightsChanged, started


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
    own_code: Sent = field(default_factory=sent)
    """Files beside the spec that other processes need."""

    def __getstate__(self) -> dict[str, Any]:
        return {"own_code": self.own_code, **vars(self)}  # before what imports from them

    @property
    def precision(self) -> str:
        """What ``train.precision`` comes to."""
        return self.numerics.stated(self.train.precision)


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


Row = dict[str, Any]
"""What was measured in one epoch: ``epoch``, ``lr``, ``seconds`` and metrics by name, all of them numbers.

And ``joins``, if there are any: node → its learnt weight after the epoch; of many, the least, the mean, the largest.
"""

JOINS = ("residual", "layer_scale")
"""The blocks that weigh a branch, each by its ``weight``."""


def epochs(
    trial: Trial, data: ImageData, ranks: Ranks = ALONE, checkpoints: Checkpoints | None = None
) -> Generator[Row, None, Outcome]:
    """Train one trial, giving a row after each epoch; the generator's return value is the outcome.

    A bug in a block is an outcome with its traceback (``crashed``), and so are a loss that is no number (``diverged``)
    and want of memory (``out_of_memory``). Of several ``ranks``, the first one's rows and outcome are the trial's.
    With ``checkpoints`` it goes on from the last of them, and rows are those of the epochs from there on.
    """
    run: Run | None = None
    try:
        run = Run(trial, data, ranks, checkpoints)
        return (yield from run.epochs())
    except (WeightsChanged, NotKept):  # what would be trained now is not this trial; what was can't be kept
        raise
    except Exception as error:  # whatever a block raises: the study goes on, and the trial says why it did not
        return crashed(error, run.test_readings if run else 0)


def crashed(error: Exception, test_readings: int = 0) -> Outcome:
    """The outcome of a trial that raised: ``crashed``, or ``out_of_memory``."""
    text = "".join(traceback.format_exception(error))
    details = {"type": type(error).__name__, "message": str(error), "traceback": text}
    status = "out_of_memory" if out_of_memory(error) else "crashed"
    return Outcome(_result(status, error=details, test_readings=test_readings))


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


class Run:
    """The state of one training run."""

    def __init__(
        self, trial: Trial, data: ImageData, ranks: Ranks = ALONE, checkpoints: Checkpoints | None = None
    ) -> None:
        self.trial, self.data, self.recipe, self.numerics = trial, data, trial.train, trial.numerics
        self.ranks, self.checkpoints = ranks, checkpoints
        self.device = torch.device(self.numerics.device)
        self._seed_process("start", *ranks.stream)
        self.layout = torch.channels_last if self.numerics.channels_last else torch.contiguous_format
        network = started(trial.graph, seed=trial.seed, recipe=trial.init, loading=trial.loading)
        self.network: fx.GraphModule = network.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        freeze(self.network, trial.trainable)
        self.in_training = ranks.wrap(self._compiled() if self.numerics.compile else self.network)
        """The network as training steps call it."""
        self.batches = Batches(
            data.train,
            data,
            trial.augment,
            self.recipe.batch_size,
            trial.seed,
            self.device,
            trial.mix,
            ranks.rank,
            ranks.count,
        )
        self.part = make_part(self.recipe, self.device)
        self.loss = make_loss(self.recipe, trial.graph.classes, self.device)
        # where the scaler skips the first step, torch's fused SGD reads a momentum that nobody has written
        fused = self.numerics.fused and trial.precision != "fp16"
        self.optimizer = make_optimizer(self.recipe, self.network, trial.trainable, fused=fused)
        self.schedule = make_schedule(self.recipe, self.optimizer, len(self.batches))
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=trial.precision == "fp16")
        self.average = make_average(self.recipe, self.network)
        every = self.recipe.evaluates_every
        self.stopping = Stopping(self.recipe.early_stopping, every or 1) if self.recipe.early_stopping else None
        self.best = Best() if self.recipe.select == "best" else None
        self.evaluation_batch = largest_batch(trial.graph, self.device.type)
        self.val, self.test = (_held(split, self.device) for split in (data.val, data.test))
        self.step = 0
        self.lr = self.recipe.optimizer.lr
        """The rate of the last step, of what no group gives one of its own."""
        self.test_readings = 0
        self.rows: list[Row] = []
        self.train_seconds = 0.0
        self.began = time.monotonic()
        """When the trial would have begun, had nothing interrupted it."""
        self.memory = memory_of(self.network) if checkpoints is not None else ""

    @property
    def seconds(self) -> float:
        """That the trial has taken."""
        return time.monotonic() - self.began

    def _compiled(self) -> Compiled:
        trial, numerics = self.trial, self.numerics
        frozen, size = trial.trainable.frozen, self.recipe.micro_batch or self.recipe.batch_size
        identity = repr((trial.graph.fingerprint, frozen, size, trial.precision, numerics))
        return Compiled(self.network, identity, threads=numerics.threads)

    def epochs(self) -> Generator[Row, None, Outcome]:
        self.began = time.monotonic()
        state = self.ranks.first(self.checkpoints.load) if self.checkpoints is not None else None
        if state is not None:
            restore(self, state)
        goes_on = True
        while goes_on:
            epoch = len(self.rows) + 1
            row = self._epoch(epoch)
            self.rows.append(row)
            diverged = not math.isfinite(row["train.loss"])
            goes_on = not diverged and not self._is_over(row)
            if goes_on and self.checkpoints is not None and self.ranks.rank == 0:
                self.checkpoints.keep(lambda: state_of(self))
            yield row
            if diverged:
                seconds, readings = self.seconds, self.test_readings
                return Outcome(_result("diverged", epochs=epoch, seconds=seconds, test_readings=readings))
        if self.ranks.rank > 0:
            return Outcome(_result("finished", epochs=len(self.rows)))
        selected = len(self.rows)
        if self.best is not None and self.best.epoch:
            selected = self.best.epoch
            self.best.put(self.network)
        return self._finish(self.rows, selected)

    def _is_over(self, row: Row) -> bool:
        """Whether this was the last epoch, or training stops early."""
        if self.best is not None:
            self.best.look(row, self.network)
        stops = self.stopping is not None and self.stopping.done(row)
        return stops or row["epoch"] == self.recipe.epochs

    def _epoch(self, epoch: int) -> Row:
        began = time.monotonic()
        loss, accuracy = self._train_epoch(epoch - 1)
        self.train_seconds += time.monotonic() - began
        row: Row = {"epoch": epoch, "lr": self.lr}
        row |= {"train.loss": loss, "train.accuracy": accuracy, "train.error": 100.0 - accuracy}
        every = self.recipe.evaluates_every
        if math.isfinite(loss) and (epoch == self.recipe.epochs or (every is not None and epoch % every == 0)):
            row |= self.ranks.first(self._evaluated)
        if joins := joins_of(self.network, self.trial.graph):
            row["joins"] = joins
        seconds = time.monotonic() - began
        return row | {"seconds": seconds, "images_per_second": len(self.data.train) / seconds}

    def _evaluated(self) -> dict[str, float]:
        """Of the val split, and of the test split where that stops the training, or its curve is asked for."""
        metrics: dict[str, float] = {}
        if self.val is not None:
            metrics |= self._evaluate(self.val).metrics("val")
        if self.test is not None and self.recipe.evaluates_test:
            metrics |= self._evaluate_test().metrics("test")
        return metrics

    def _train_epoch(self, index: int) -> tuple[float, float]:
        """(mean loss, accuracy in percent) over the batches as they were trained on; one synchronisation at the end."""
        training_mode(self.network, self.trial.trainable)
        loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        correct = torch.zeros((), dtype=torch.int64, device=self.device)
        count = 0
        self._seed_process("epoch", index, *self.ranks.stream)
        for x, y in self.batches.epoch(index):
            loss, scores = self.one_step(x, y)
            loss_sum += loss.double() * len(y)
            correct += (scores.argmax(1) == hard_labels(y[self.ranks.share(len(y))])).sum()
            count += len(y)
        self.ranks.add_up(loss_sum, correct)
        return float(loss_sum) / count, 100.0 * int(correct) / count

    def one_step(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """(loss, scores), detached, of one batch, after which the weights have moved.

        Where ranks share the batch: ``x`` and the scores are this one's share of it, ``y`` are the labels of all, and
        the ranks' losses add up to the batch's.
        """
        parts = parts_of(len(x), self.recipe.micro_batch)
        if len(parts) > 1:
            loss, scores = self._in_parts(x, y, parts)
        else:
            loss, scores = self.forward(x, y)
            self.backward(loss)
        self.move()
        return loss.detach(), scores.detach()

    def forward(self, x: Tensor, y: Tensor, part: slice | None = None, number: int = 0) -> tuple[Tensor, Tensor]:
        """(loss, scores) of one batch, or of the part of that number of it: the parts' losses add up to the batch's."""
        self._seed_step(*(self.ranks.stream if number == 0 else (self.ranks.rank, number)))
        own = self.ranks.share(len(y))
        if part is None:
            return self._scored(x, y, own)
        return self._scored(x[part], y, slice(own.start + part.start, own.start + part.stop))

    def backward(self, loss: Tensor, number: int = 0) -> None:
        """Gradients in the place of those of the last step; of a later part of the batch, added to them."""
        if number == 0:
            self.optimizer.zero_grad(set_to_none=True)
        self._add_gradients(loss)

    def _in_parts(self, x: Tensor, y: Tensor, parts: list[slice]) -> tuple[Tensor, Tensor]:
        """(loss, scores), detached, of one batch, whose gradients are there; a part's activations at a time."""
        losses, scores = [], []
        for number, part in enumerate(parts):
            with gathering(self.in_training, last=part is parts[-1]):
                loss, given = self.forward(x, y, part, number)
                self.backward(loss, number)
            losses.append(loss.detach())
            scores.append(given.detach())
        return torch.stack(losses).sum(), torch.cat(scores)

    def _scored(self, x: Tensor, y: Tensor, own: slice) -> tuple[Tensor, Tensor]:
        """(loss, scores) of the examples ``own`` of the batch with the labels ``y``: their share of its loss."""
        with autocast(self.device.type, self.trial.precision):
            scores = self.in_training(x.to(memory_format=self.layout))
            loss = self.loss(scores, y[own])
        return loss if len(x) == len(y) else loss * self.part(y, own), scores

    def _add_gradients(self, loss: Tensor) -> None:
        if self.ranks.count > 1:
            loss = loss * self.ranks.count  # gradients come as the mean over the ranks, and are to be the sum
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def _seed_step(self, *stream: int) -> None:
        seed_noise(self.network, self.trial.seed, self.step, *stream)
        self._seed_process(self.step, *stream)

    def _seed_process(self, *name: str | int) -> None:
        """For what draws from the streams of the process (a third party's): never what an earlier trial left there."""
        seed_process(stream_seed(self.trial.seed, "global", *name), self.device.type)

    def move(self) -> None:
        """The weights by their gradients, the schedule and the average by a step."""
        if self.recipe.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.lr = self.optimizer.param_groups[0]["lr"]
        with warnings.catch_warnings():
            # of a first step that the scaler skipped because it overflowed, as it is made to
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        self.step += 1

    def _selected(self) -> nn.Module:
        return self.network if self.average is None else self.average.module

    def _evaluate_test(self) -> Evaluation:
        assert self.test is not None
        self.test_readings += 1
        return self._evaluate(self.test)

    def _evaluate(self, split: OnDevice) -> Evaluation:
        numerics, precision = self.numerics, self.trial.precision
        return evaluate(self._selected(), split, self.data, numerics, precision, self.evaluation_batch)

    def _finish(self, rows: list[Row], selected: int) -> Outcome:
        row = rows[selected - 1]
        metrics = {key: value for key, value in row.items() if key.startswith(("train.", "val."))}
        predictions = None
        if self.test is not None:
            test = self._evaluate_test()
            metrics |= test.metrics("test")
            predictions = {
                "predicted": test.predicted.astype(np.int32),
                "label": self.test.labels.astype(np.int32),
                "loss": test.losses.astype(np.float32),
            }
        finite = all(math.isfinite(value) for value in metrics.values())
        result = _result(
            "finished" if finite else "diverged",
            metrics=metrics if finite else {},
            epochs=len(rows),
            selected_epoch=selected,
            seconds=self.seconds,
            images_per_second=len(rows) * len(self.data.train) / max(self.train_seconds, 1e-9),
            test_readings=self.test_readings,
        )
        weights = {name: tensor.detach().cpu().clone() for name, tensor in self._selected().state_dict().items()}
        return Outcome(result, predictions, weights)


def joins_of(network: nn.Module, graph: Graph) -> dict[str, float | list[float]]:
    """What the branches are multiplied by, by node: the weight, or of one per channel the least, mean and largest."""
    found: dict[str, float | list[float]] = {}
    for node in graph.nodes:
        if node.block.name in JOINS and not node.is_identity:
            weight = network.get_submodule(node.module).weight.detach().double()  # type: ignore[operator]
            spread = [weight.min(), weight.mean(), weight.max()] if weight.numel() > 1 else [weight.sum()]
            values = torch.stack(spread).tolist()
            found[node.name] = values if len(values) > 1 else values[0]
    return found


def _held(split: Examples | None, device: torch.device) -> OnDevice | None:
    return None if split is None else OnDevice(split, device)


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
    """Estimated seconds of a trial: a few real steps, timed after one to warm up; a forward pass counts a third.

    Of a trial that several devices share, one's part of each batch is timed; what they tell one another is not.
    """
    share = max(2, trial.train.batch_size // trial.numerics.devices)
    trial = replace(trial, train=trial.train.model_copy(update={"batch_size": share}))
    run = Run(trial, data)
    training_mode(run.network, trial.trainable)
    durations = []
    batches = run.batches.epoch(0)
    for _, (x, y) in zip(range(steps + 1), batches, strict=False):
        began = time.monotonic()
        loss, _ = run.one_step(x, y)
        float(loss)
        durations.append((time.monotonic() - began) / len(y))
    per_image = min(durations[1:] or durations) / trial.numerics.devices
    evaluated = len(data.val) * trial.train.evaluations if data.val is not None else 0
    tested = len(data.test) if data.test is not None else 0
    return per_image * (trial.train.epochs * len(data.train) + (evaluated + tested) / 3)
