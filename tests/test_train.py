"""The trainer against a plain loop that is written out here, by formulas and without torch.optim."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from dataclasses import replace as changed
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablate import block as blocks
from ablate import evaluating
from ablate import train as training
from ablate.block import Block, BlockParams, Shape
from ablate.builder import build, seed_noise
from ablate.collect import Collector
from ablate.data.batches import Batches, evaluation_batches
from ablate.data.dataset import DataSpec, ImageData, Split
from ablate.data.dataset import load as load_data
from ablate.data.on_device import OnDevice
from ablate.network import read_network
from ablate.numerics import Numerics, process_settings
from ablate.recipe import EarlyStopping, TrainSpec
from ablate.selecting import Stopping
from ablate.train import Outcome, Run, Trial, epochs, first_batches, time_steps, train

STEM = {"block": "conv_bn_act", "width": 7, "kernel": 3}
HEAD = {"block": "classifier"}
SGD = {"name": "sgd", "lr": 0.05}
EPOCHS, BATCH, SEED = 3, 5, 11


class Recorder(Block):
    """Passes its input on, and remembers what it saw in training."""

    name = "test_recorder"
    batches: ClassVar[list[tuple[int, torch.dtype, bool]]] = []

    def __init__(self, params: BlockParams, shape: Shape) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not x.is_meta:
            is_last = x.is_contiguous(memory_format=torch.channels_last)
            Recorder.batches.append((len(x), x.dtype, is_last))
        return x


class After(Block):
    """Counts training steps; from ``steps`` on it gives what is no number, or raises."""

    name = "test_after"

    class Params(BlockParams):
        steps: int
        raises: bool = False

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        self.params, self.step = params, 0

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not x.is_meta:
            self.step += 1
        if self.step <= self.params.steps:
            return x
        if self.params.raises:
            raise RuntimeError("a block's own bug")
        return x * float("nan")


@pytest.fixture(autouse=True, scope="module")
def blocks_of_this_file() -> Iterator[None]:
    """Registered while these tests run, and unknown to the tests of all registered blocks."""
    kinds = (Recorder, After)
    for kind in kinds:
        blocks.register(kind)
    yield
    for kind in kinds:
        del blocks._registry[kind.name]


@lru_cache(maxsize=8)
def arrays(train_size: int = 31, val: float | None = 0.3) -> ImageData:
    section = {"name": "fake", "shape": [3, 9, 11], "classes": 5, "count": {"train": train_size, "test": 13}}
    return load_data(DataSpec.model_validate(section | ({"val": val} if val else {})), base=Path())


def trial(
    nodes: dict[str, Any] | None = None, numerics: Numerics | None = None, seed: int = SEED, **recipe: Any
) -> Trial:
    section = {"graph": {"stem": STEM, **(nodes or {}), "head": HEAD}}
    collector = Collector(section)
    network = read_network(section, (3, 9, 11), 5, collector)
    assert network is not None, collector.problems
    spec = TrainSpec.model_validate({"epochs": EPOCHS, "batch_size": BATCH, "optimizer": SGD} | recipe)
    return Trial("", "variant", seed, network.graph, network.init.recipe, spec, (), numerics or Numerics())


def finished(of: Trial, data: ImageData | None = None) -> tuple[Outcome, list[dict[str, float]]]:
    rows: list[dict[str, float]] = []
    outcome = train(of, data or arrays(), rows.append)
    assert outcome.result["error"] is None, outcome.result["error"]["traceback"]
    return outcome, rows


# ---- the plain loop ----

Rate = Callable[[int, int, int], float]
"""(step from 0, epoch from 0, steps in all) → learning rate"""
Update = Callable[[Tensor, Tensor, dict[str, Tensor], float, int], None]
"""(parameter, gradient, its memory, learning rate, step from 1): writes into the parameter and the memory"""


def sgd(momentum: float = 0.0, decay: float = 0.0, nesterov: bool = False) -> Update:
    def update(p: Tensor, g: Tensor, memory: dict[str, Tensor], lr: float, step: int) -> None:
        g = g + decay * p
        memory["m"] = momentum * memory["m"] + g if "m" in memory else g
        p -= lr * (g + momentum * memory["m"] if nesterov else memory["m"])

    return update


def adam(
    decay: float = 0.0, decoupled: float = 0.0, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
) -> Update:
    def update(p: Tensor, g: Tensor, memory: dict[str, Tensor], lr: float, step: int) -> None:
        p *= 1 - lr * decoupled
        g = g + decay * p
        memory["m"] = betas[0] * memory.get("m", torch.zeros_like(p)) + (1 - betas[0]) * g
        memory["v"] = betas[1] * memory.get("v", torch.zeros_like(p)) + (1 - betas[1]) * g * g
        m, v = memory["m"] / (1 - betas[0] ** step), memory["v"] / (1 - betas[1] ** step)
        p -= lr * m / (v.sqrt() + eps)

    return update


@dataclass
class Plain:
    """What the loop came to."""

    network: nn.Module
    losses: list[float] = field(default_factory=list)
    """Mean training loss of each epoch."""
    average: dict[str, Tensor] = field(default_factory=dict)


def plain(
    of: Trial,
    update: Update,
    rate: Rate | None = None,
    *,
    smoothing: float = 0.0,
    clip: float | None = None,
    keep: float | None = None,
) -> Plain:
    data = arrays()
    network = build(of.graph, seed=of.seed, recipe=of.init).to(memory_format=torch.channels_last)
    done = Plain(network)
    batches = Batches(data.train, data, (), of.train.batch_size, of.seed)
    memory: dict[str, dict[str, Tensor]] = {name: {} for name, _ in network.named_parameters()}
    step, steps = 0, len(batches) * of.train.epochs
    network.train()
    for epoch in range(of.train.epochs):
        losses: list[float] = []
        for x, y in batches.epoch(epoch):
            log_p = network(x).log_softmax(1)
            target = F.one_hot(y, 5) * (1 - smoothing) + smoothing / 5
            loss = -(target * log_p).sum(1).mean()
            names, parameters = zip(*network.named_parameters(), strict=True)
            gradients = torch.autograd.grad(loss, parameters)
            if clip is not None:
                norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))
                gradients = tuple(g * min(1.0, clip / (norm + 1e-6)) for g in gradients)
            with torch.no_grad():
                for name, p, g in zip(names, parameters, gradients, strict=True):
                    update(p, g, memory[name], rate(step, epoch, steps) if rate else of.train.optimizer.lr, step + 1)
                state = {name: tensor.double() for name, tensor in network.state_dict().items()}
                if keep is not None:
                    old = done.average or state
                    done.average = {name: keep * old[name] + (1 - keep) * state[name] for name in state}
            losses += [float(loss.detach())] * len(y)
            step += 1
        done.losses.append(sum(losses) / len(losses))
    return done


def assert_same_weights(found: dict[str, Tensor] | None, wanted: dict[str, Tensor], tolerance: float = 2e-6) -> None:
    assert found is not None
    assert found.keys() == wanted.keys()
    for name in wanted:
        if "num_batches_tracked" not in name:
            torch.testing.assert_close(
                found[name].double(), wanted[name].double(), rtol=tolerance, atol=tolerance, msg=name
            )


OPTIMIZERS: dict[str, tuple[dict[str, Any], Update]] = {
    "sgd": ({"name": "sgd", "lr": 0.05}, sgd()),
    "momentum": ({"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}, sgd(0.9, 0.01)),
    "nesterov": ({"name": "sgd", "lr": 0.05, "momentum": 0.7, "nesterov": True}, sgd(0.7, nesterov=True)),
    "adam": ({"name": "adam", "lr": 0.003, "weight_decay": 0.1}, adam(decay=0.1)),
    "adam betas": ({"name": "adam", "lr": 0.003, "betas": [0.7, 0.9], "eps": 1e-3}, adam(betas=(0.7, 0.9), eps=1e-3)),
    "adamw": ({"name": "adamw", "lr": 0.003, "weight_decay": 0.5}, adam(decoupled=0.5)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_the_plain_loop_of_its_optimizer(name: str) -> None:
    section, update = OPTIMIZERS[name]
    outcome, rows = finished(of := trial(optimizer=section))
    loop = plain(of, update)
    assert_same_weights(outcome.weights, loop.network.state_dict())
    assert [row["train.loss"] for row in rows] == pytest.approx(loop.losses, abs=1e-6)
    start = build(of.graph, seed=SEED).state_dict()["stem.conv.weight"]
    assert outcome.weights is not None
    assert not torch.allclose(outcome.weights["stem.conv.weight"], start, atol=1e-3)


def cosine(step: int, epoch: int, steps: int) -> float:
    return 0.01 + (0.05 - 0.01) * (1 + math.cos(math.pi * step / steps)) / 2


def one_cycle(step: int, epoch: int, steps: int) -> float:
    def anneal(start: float, end: float, share: float) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

    first, last = 0.05 / 20, 0.05 / 20 / 100
    top = 0.4 * steps - 1
    return anneal(first, 0.05, step / top) if step <= top else anneal(0.05, last, (step - top) / (steps - 1 - top))


SCHEDULES: dict[str, tuple[dict[str, Any], Rate]] = {
    "multi_step": (
        {"name": "multi_step", "milestones": [1, 2], "gamma": 0.3},
        lambda step, epoch, steps: 0.05 * 0.3**epoch,
    ),
    "cosine": ({"name": "cosine", "floor": 0.01}, cosine),
    "one_cycle": ({"name": "one_cycle", "warmup": 0.4, "start_factor": 20.0, "final_factor": 100.0}, one_cycle),
    "constant": ({"name": "constant"}, lambda step, epoch, steps: 0.05),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_training_is_the_plain_loop_of_its_schedule(name: str) -> None:
    section, rate = SCHEDULES[name]
    of = trial(optimizer=SGD | {"momentum": 0.9}, schedule=section)
    assert_same_weights(finished(of)[0].weights, plain(of, sgd(0.9), rate).network.state_dict())


def test_a_milestone_is_counted_in_epochs_and_shown_in_the_rows() -> None:
    _, rows = finished(trial(schedule={"name": "multi_step", "milestones": [2], "gamma": 0.1}))
    assert [row["lr"] for row in rows] == pytest.approx([0.05, 0.05, 0.005])


def test_the_rate_of_a_row_is_that_of_the_epochs_last_step() -> None:
    _, rows = finished(trial(schedule={"name": "polynomial", "warmup_epochs": 1, "warmup_start": 0.2}))
    steps = len(Batches(arrays().train, arrays(), (), BATCH, SEED))
    rising = 0.2 + 0.8 * (steps - 1) / steps
    falling = [1 - (epoch * steps - 1) / (2 * steps) for epoch in (1, 2)]
    assert [row["lr"] for row in rows] == pytest.approx([0.05 * share for share in (rising, *falling)])


@pytest.mark.parametrize(("warmup", "epoch_count", "size"), [(0.5, 1, 8), (0.25, 1, 15), (1 / 3, 1, 10), (0.3, 1, 3)])
def test_one_cycle_runs_however_few_steps_there_are(warmup: float, epoch_count: int, size: int) -> None:
    of = trial(schedule={"name": "one_cycle", "warmup": warmup}, epochs=epoch_count)
    assert finished(of, arrays(size, None))[0].result["status"] == "finished"


def test_label_smoothing_is_in_the_training_loss_and_not_in_the_evaluation() -> None:
    of = trial(loss={"name": "cross_entropy", "label_smoothing": 0.2})
    outcome, rows = finished(of)
    loop = plain(of, sgd(), smoothing=0.2)
    assert_same_weights(outcome.weights, loop.network.state_dict())
    assert [row["train.loss"] for row in rows] == pytest.approx(loop.losses, abs=1e-6)
    assert outcome.result["metrics"]["test.loss"] == pytest.approx(evaluated(loop.network, arrays().test)[0], abs=1e-5)


class HalfAndHalf:
    """Labels shared with the example before in the batch, 0.7 to 0.3; images as they are."""

    def __call__(self, x: Tensor, y: Tensor, classes: int, *name: str | int) -> tuple[Tensor, Tensor]:
        soft = F.one_hot(y, classes).float()
        return x, 0.7 * soft + 0.3 * soft.roll(1, 0)


@pytest.mark.parametrize("section", [{"name": "cross_entropy"}, {"name": "bce"}, {"name": "mse"}])
def test_mixed_labels_are_in_the_loss_and_the_largest_share_in_the_accuracy(section: dict[str, Any]) -> None:
    # one step an epoch: what is reported is what the network as initialised gives
    of = changed(trial(loss=section, epochs=1, batch_size=31), mix=HalfAndHalf())
    data = arrays()
    ((x, y),) = first_batches(changed(of, mix=None), data)
    network = build(of.graph, seed=SEED, recipe=of.init).to(memory_format=torch.channels_last)
    scores = network(x).detach()
    mixed = 0.7 * F.one_hot(y, 5) + 0.3 * F.one_hot(y.roll(1), 5)
    p = scores.sigmoid()
    wanted = {
        "cross_entropy": -(mixed * scores.log_softmax(1)).sum(1).mean(),
        "bce": -(mixed * p.log() + (1 - mixed) * (1 - p).log()).mean(),
        "mse": (mixed - scores).square().mean(),
    }[section["name"]]
    outcome, (row,) = finished(of)
    assert row["train.loss"] == pytest.approx(float(wanted), rel=1e-5)
    assert row["train.accuracy"] == pytest.approx(100 * float((scores.argmax(1) == y).double().mean()))
    network.load_state_dict(outcome.weights or {})
    assert outcome.result["metrics"]["test.loss"] == pytest.approx(evaluated(network, data.test)[0], abs=1e-5)


def test_a_loss_for_hard_labels_trains() -> None:
    _, rows = finished(trial(loss={"name": "multi_margin"}))
    assert rows[-1]["train.loss"] < rows[0]["train.loss"]


def test_gradients_are_clipped_to_the_norm() -> None:
    of = trial(clip_norm=0.3)
    loop = plain(of, sgd(), clip=0.3)
    assert_same_weights(finished(of)[0].weights, loop.network.state_dict())
    with pytest.raises(AssertionError):
        assert_same_weights(finished(of)[0].weights, plain(of, sgd()).network.state_dict(), 1e-3)


def test_the_average_of_the_weights_is_reported_with_its_own_running_statistics() -> None:
    of = trial(ema={"decay": 0.8}, select="ema")
    outcome, rows = finished(of)
    loop = plain(of, sgd(), keep=0.8)
    assert_same_weights(outcome.weights, loop.average)
    average = build(of.graph, seed=SEED)
    tracked = {name: tensor for name, tensor in average.state_dict().items() if "num_batches" in name}
    average.load_state_dict(loop.average | tracked)
    assert outcome.result["metrics"]["val.loss"] == pytest.approx(evaluated(average, arrays().val)[0], abs=1e-5)
    assert rows[-1]["val.loss"] == outcome.result["metrics"]["val.loss"]


def evaluated(network: nn.Module, split: Split | None) -> tuple[float, float, np.ndarray[Any, Any]]:
    """(loss, accuracy in percent, predictions), image by image."""
    assert split is not None
    data = arrays()
    network.eval()
    losses, right, predictions = [], 0, []
    mean, std = (np.array(values, dtype=np.float32)[:, None, None] for values in (data.mean, data.std))
    for image, label in zip(split.images, split.labels, strict=True):
        x = torch.from_numpy((image.astype(np.float32) / np.float32(255) - mean) / std)[None]
        with torch.no_grad():
            log_p = network(x).log_softmax(1)[0]
        losses.append(-float(log_p[label]))
        predictions.append(int(log_p.argmax()))
        right += predictions[-1] == label
    return sum(losses) / len(losses), 100 * right / len(losses), np.array(predictions)


# ---- evaluation and what is reported ----


def test_the_reported_metrics_and_predictions_are_those_of_each_image_alone() -> None:
    outcome, rows = finished(of := trial())
    network = build(of.graph)
    network.load_state_dict(outcome.weights or {})
    assert outcome.predictions is not None
    for split_name in ("val", "test"):
        split: Split = getattr(arrays(), split_name)
        loss, accuracy, predictions = evaluated(network, split)
        metrics = outcome.result["metrics"]
        assert metrics[f"{split_name}.loss"] == pytest.approx(loss, abs=1e-5)
        assert metrics[f"{split_name}.accuracy"] == pytest.approx(accuracy)
        assert metrics[f"{split_name}.error"] == pytest.approx(100 - accuracy)
    assert outcome.predictions["predicted"].tolist() == predictions.tolist()
    assert outcome.predictions["label"].tolist() == arrays().test.labels.tolist()  # type: ignore[union-attr]
    assert float(outcome.predictions["loss"].mean()) == pytest.approx(loss, abs=1e-5)
    assert rows[-1]["val.loss"] == metrics["val.loss"]


def test_a_row_an_epoch_and_nothing_of_the_test_split_in_it() -> None:
    outcome, rows = finished(trial())
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert not any(key.startswith("test.") for row in rows for key in row)
    assert (outcome.result["epochs"], outcome.result["selected_epoch"]) == (3, 3)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The split of every evaluation, in order."""
    found: list[str] = []

    def counted(split: OnDevice, data: ImageData, *rest: Any) -> Any:
        found.append("test" if split.split is data.test else "val")
        return evaluation_batches(split, data, *rest)

    monkeypatch.setattr(evaluating, "evaluation_batches", counted)
    return found


def test_the_test_split_is_read_exactly_once_and_last(readings: list[str]) -> None:
    outcome, _ = finished(trial())
    assert readings.count("test") == 1 == outcome.result["test_readings"]
    assert readings[-1] == "test"


def test_every_reading_of_the_test_split_is_counted_when_it_stops_the_training(readings: list[str]) -> None:
    outcome, rows = finished(trial(early_stopping={"monitor": "test.error", "patience": 100}))
    assert readings.count("test") == EPOCHS + 1 == outcome.result["test_readings"]
    assert all("test.error" in row for row in rows)


def test_every_reading_of_the_test_split_for_its_curve_is_counted_and_changes_no_result(readings: list[str]) -> None:
    outcome, rows = finished(trial(epochs=5, evaluate={"every": 2, "test": True}))
    assert [int(row["epoch"]) for row in rows if "test.error" in row] == [2, 4, 5]
    assert readings.count("test") == 3 + 1 == outcome.result["test_readings"]
    without = finished(trial(epochs=5, evaluate={"every": 2}))[0]
    assert_same_weights(without.weights, outcome.weights or {}, tolerance=0)
    assert without.result["metrics"] == outcome.result["metrics"]


def epochs_evaluated(readings: list[str], **recipe: Any) -> tuple[list[int], list[str]]:
    """The epochs whose row has val metrics, and the splits that were read, in order."""
    readings.clear()
    outcome, rows = finished(trial(epochs=5, **recipe))
    assert {"val.loss", "val.accuracy", "val.error"} <= set(outcome.result["metrics"])
    return [int(row["epoch"]) for row in rows if "val.accuracy" in row], readings[:]


def test_the_val_split_is_evaluated_once_unless_it_decides_or_the_spec_asks(readings: list[str]) -> None:
    assert epochs_evaluated(readings) == ([5], ["val", "test"])
    assert epochs_evaluated(readings, evaluate={"every": 2}) == ([2, 4, 5], ["val", "val", "val", "test"])
    assert epochs_evaluated(readings, evaluate={"every": 1})[0] == [1, 2, 3, 4, 5]
    assert epochs_evaluated(readings, select="best")[0] == [1, 2, 3, 4, 5]
    assert epochs_evaluated(readings, early_stopping={"monitor": "val.error", "patience": 9})[0] == [1, 2, 3, 4, 5]


def test_how_often_is_evaluated_changes_no_result() -> None:
    seldom, often = finished(trial())[0], finished(trial(evaluate={"every": 1}))[0]
    assert_same_weights(seldom.weights, often.weights or {}, tolerance=0)
    assert seldom.result["metrics"] == often.result["metrics"]


def test_the_best_of_the_epochs_that_were_evaluated_is_selected() -> None:
    of = trial(select="best", epochs=7, evaluate={"every": 3}, optimizer=SGD | {"lr": 0.5})
    outcome, rows = finished(of)
    seen = {int(row["epoch"]): row["val.accuracy"] for row in rows if "val.accuracy" in row}
    assert list(seen) == [3, 6, 7]
    assert outcome.result["selected_epoch"] == max(seen, key=lambda epoch: seen[epoch])


def test_no_test_split_is_no_reading_and_no_metric() -> None:
    outcome, _ = finished(trial(), changed(arrays(), test=None))
    assert outcome.result["test_readings"] == 0
    assert outcome.predictions is None
    assert not any(key.startswith("test.") for key in outcome.result["metrics"])


def test_the_best_epoch_is_the_first_of_the_highest_validation_accuracy() -> None:
    of = trial(select="best", epochs=7, optimizer=SGD | {"lr": 0.5})
    outcome, rows = finished(of)
    accuracies = [row["val.accuracy"] for row in rows]
    best = accuracies.index(max(accuracies)) + 1
    assert best < 7, "choose another seed: the last epoch is the best, and the test could not fail"
    assert outcome.result["selected_epoch"] == best
    shorter, _ = finished(trial(epochs=best, optimizer=SGD | {"lr": 0.5}))
    assert_same_weights(outcome.weights, shorter.weights or {}, tolerance=0)
    assert outcome.result["metrics"] == shorter.result["metrics"]


# ---- early stopping ----


def stopped_after(values: list[float], **spec: Any) -> int | None:
    stopping = Stopping(EarlyStopping.model_validate({"monitor": "val.error", "patience": 2} | spec))
    for epoch, value in enumerate(values, 1):
        if stopping.done({stopping.spec.monitor: value}):
            return epoch
    return None


def test_patience_is_counted_in_epochs_however_seldom_one_is_evaluated() -> None:
    stopping = Stopping(EarlyStopping(monitor="val.error", patience=4), every=3)
    assert [stopping.done({"val.error": value}) for value in (9.0, 9.5, 9.7)] == [False, False, True]


@pytest.mark.parametrize(
    ("values", "spec", "epoch"),
    [
        # an improvement of more than a tenth of the best: 10 → 9.1 is not one, 10 → 8.9 is
        ([10, 9.1, 9.05], {"threshold": 0.1}, 3),
        ([10, 8.9, 8.1, 8.0], {"threshold": 0.1}, None),
        ([10, 8.9, 8.1, 8.05, 8.02], {"threshold": 0.1}, 4),
        # slow progress counts from the best, not from the epoch before
        ([10, 9.5, 8.9, 8.6, 8.5], {"threshold": 0.1}, 5),
        # one tenth, plain
        ([10, 9.95, 9.91], {"threshold": 0.1, "mode": "absolute"}, 3),
        ([10, 9.95, 9.89, 9.8], {"threshold": 0.1, "mode": "absolute"}, None),
        # accuracy improves upwards: 50 → 54.9 is not a tenth, 50 → 55.1 is
        ([50, 54.9, 54.8], {"threshold": 0.1, "monitor": "val.accuracy"}, 3),
        ([50, 54.9, 55.1, 60.0], {"threshold": 0.1, "monitor": "val.accuracy"}, None),
        ([50, 50.2, 50.4], {"threshold": 0.5, "monitor": "val.accuracy", "mode": "absolute"}, 3),
        # equal is no improvement, not even at threshold 0
        ([3, 3, 3], {"threshold": 0}, 3),
        ([0.0, 0.0, 0.0], {"threshold": 0.1}, 3),
        ([3, 2, 1, 2, 0.5, 2, 2], {"threshold": 0}, 7),
        ([3, float("nan"), float("nan")], {}, 3),
    ],
)
def test_early_stopping_ends_where_a_count_by_hand_does(
    values: list[float], spec: dict[str, Any], epoch: int | None
) -> None:
    assert stopped_after(values, **spec) == epoch


def test_a_stopped_trial_reports_the_epochs_that_it_ran() -> None:
    spec = {"monitor": "val.loss", "patience": 2, "threshold": 0.5, "mode": "absolute"}
    outcome, rows = finished(trial(early_stopping=spec, epochs=17))
    losses = [row["val.loss"] for row in rows]
    assert len(rows) == outcome.result["epochs"] == stopped_after(losses, **spec)
    assert len(rows) < 17


# ---- the same twice ----


def assert_equal_outcomes(one: Outcome, other: Outcome) -> None:
    assert_same_weights(one.weights, other.weights or {}, tolerance=0)
    assert one.result["metrics"] == other.result["metrics"]
    assert one.predictions is not None
    assert other.predictions is not None
    assert all((one.predictions[key] == other.predictions[key]).all() for key in one.predictions)


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_trial_gives_the_same_bits_twice_whatever_was_drawn_before(deterministic: bool) -> None:
    of = trial({"drop": {"block": "dropout", "rate": 0.3}}, numerics=Numerics(deterministic=deterministic))
    torch.manual_seed(1)
    first, _ = finished(of)
    torch.manual_seed(2)
    torch.rand(13)
    assert_equal_outcomes(first, finished(of)[0])


def test_training_leaves_the_streams_of_the_process_as_they_were() -> None:
    before = (torch.random.get_rng_state(), random.getstate(), np.random.get_state())
    finished(trial({"drop": {"block": "dropout", "rate": 0.3}}))
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert str(np.random.get_state()) == str(before[2])


def test_another_seed_gives_other_weights() -> None:
    one, other = (finished(trial(seed=seed))[0].weights or {} for seed in (0, 1))
    assert not torch.equal(one["stem.conv.weight"], other["stem.conv.weight"])


def test_dropout_draws_anew_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def noted(network: nn.Module, *parts: int) -> None:
        seed_noise(network, *parts)
        seeds.append(network.get_submodule("drop").noise_seed)  # type: ignore[arg-type]

    monkeypatch.setattr(training, "seed_noise", noted)
    finished(of := trial({"drop": {"block": "dropout", "rate": 0.3}}))
    data = arrays()
    steps = EPOCHS * len(Batches(data.train, data, (), BATCH, SEED))
    assert len(set(seeds)) == len(seeds) == steps
    assert of.train.epochs == EPOCHS


def test_a_step_that_fp16_skips_leaves_the_later_ones_to_plain_sgd() -> None:
    """Torch's fused SGD takes the momentum of a first step for written, even where that step was skipped."""
    of = trial(precision="fp16", optimizer={"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01})
    update, memory = sgd(0.9, 0.01), defaultdict[str, dict[str, Tensor]](dict)
    with process_settings(Numerics(deterministic=True)):  # in which memory that nobody has written is NaN
        run = Run(of, arrays())
        assert not run.optimizer.defaults["fused"]
        run.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60, backoff_factor=2.0**-50)
        wanted = {name: weight.detach().clone() for name, weight in run.network.named_parameters()}
        for step, (x, y) in enumerate(first_batches(of, arrays(), 4)):
            run.one_step(x, y)
            for name, weight in run.network.named_parameters():
                assert weight.grad is not None
                assert step == 0 or weight.grad.isfinite().all()
                if step > 0:
                    update(wanted[name], weight.grad, memory[name], 0.05, step)
                torch.testing.assert_close(weight.detach(), wanted[name], msg=f"{name} after step {step}")


def test_channels_last_changes_nothing_but_rounding() -> None:
    Recorder.batches.clear()
    outcomes = []
    for channels_last in (True, False):
        of = trial({"look": {"block": "test_recorder"}}, numerics=Numerics(channels_last=channels_last))
        outcomes.append(finished(of)[0])
    layouts = [is_last for _, _, is_last in Recorder.batches]
    assert layouts == [True] * (len(layouts) // 2) + [False] * (len(layouts) // 2)
    assert_same_weights(outcomes[0].weights, outcomes[1].weights or {}, tolerance=1e-4)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_a_precision_is_the_type_of_the_forward_pass_and_not_of_the_weights(precision: str, dtype: torch.dtype) -> None:
    Recorder.batches.clear()
    # between convolutions, since batch norm gives back the type that it was given
    nodes = {"conv": {"block": "conv", "width": 7}, "look": {"block": "test_recorder"}}
    outcome, rows = finished(trial(nodes, precision=precision))
    assert {seen for _, seen, _ in Recorder.batches} == {dtype}
    assert outcome.weights is not None
    assert {tensor.dtype for tensor in outcome.weights.values()} <= {torch.float32, torch.int64}
    assert rows[-1]["train.loss"] < rows[0]["train.loss"]


# ---- batches ----


def test_batch_norm_never_sees_a_batch_of_one() -> None:
    Recorder.batches.clear()
    finished(trial({"look": {"block": "test_recorder"}}, epochs=1), arrays(2 * BATCH + 1, None))
    assert sorted(size for size, _, _ in Recorder.batches) == [BATCH, BATCH + 1]


def test_the_first_batches_are_those_that_training_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    of, data, seen = trial(epochs=1), arrays(), []

    class Seen(Batches):
        def epoch(self, n: int) -> Iterator[tuple[Tensor, Tensor]]:
            for x, y in super().epoch(n):
                seen.append((x.clone(), y.clone()))
                yield x, y

    wanted = list(first_batches(of, data, 2))
    monkeypatch.setattr(training, "Batches", Seen)
    finished(of)
    assert len(wanted) == 2
    for (x, y), (other_x, other_y) in zip(wanted, seen, strict=False):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


# ---- trials that fail ----


def test_a_loss_that_is_no_number_is_a_result_diverged() -> None:
    steps = len(Batches(arrays().train, arrays(), (), BATCH, SEED))
    outcome = train(trial({"after": {"block": "test_after", "steps": steps + 1}}), arrays())
    assert (outcome.result["status"], outcome.result["epochs"]) == ("diverged", 2)
    assert outcome.result["metrics"] == {}
    assert outcome.result["error"] is None
    assert outcome.result["test_readings"] == 0


def test_a_learning_rate_that_explodes_is_a_result_diverged() -> None:
    outcome = train(trial(optimizer=SGD | {"lr": 1e30}), arrays())
    assert (outcome.result["status"], outcome.result["metrics"]) == ("diverged", {})


@pytest.mark.parametrize(("raises", "status"), [(False, "diverged"), (True, "crashed")])
def test_the_readings_of_the_test_split_before_a_failure_are_counted(
    readings: list[str], raises: bool, status: str
) -> None:
    steps = len(Batches(arrays().train, arrays(), (), BATCH, SEED))
    stopping = {"monitor": "test.error", "patience": 100}
    nodes = {"after": {"block": "test_after", "steps": 2 * steps + 1, "raises": raises}}
    outcome = train(trial(nodes, early_stopping=stopping), arrays())
    assert outcome.result["status"] == status
    assert outcome.result["test_readings"] == readings.count("test") == 2


def test_a_block_that_raises_is_a_result_crashed_with_its_traceback() -> None:
    outcome = train(trial({"after": {"block": "test_after", "steps": 1, "raises": True}}), arrays())
    error = outcome.result["error"]
    assert (outcome.result["status"], outcome.result["metrics"]) == ("crashed", {})
    assert (error["type"], error["message"]) == ("RuntimeError", "a block's own bug")
    assert 'raise RuntimeError("a block\'s own bug")' in error["traceback"]


def test_a_bug_before_the_first_step_is_a_result_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*args: Any, **kwargs: Any) -> None:
        raise KeyError("no such thing")

    monkeypatch.setattr(training, "started", bug)
    assert train(trial(), arrays()).result["error"]["type"] == "KeyError"


def test_an_interrupt_is_not_taken_for_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "seed_noise", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(trial(), arrays())


def test_a_trial_can_be_left_after_any_epoch() -> None:
    running = epochs(trial(), arrays())
    assert next(running)["epoch"] == 1
    running.close()


def test_an_estimate_of_the_time_grows_with_the_epochs() -> None:
    assert 0 < time_steps(trial(epochs=1), arrays(), 2) < math.inf


def test_the_steps_that_are_timed_are_those_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    of, data, losses = trial(loss={"name": "bce", "label_smoothing": 0.3}), arrays(), []
    one_step = training.Run.one_step

    def noted(run: Any, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        loss, scores = one_step(run, x, y)
        losses.append(float(loss))
        return loss, scores

    monkeypatch.setattr(training.Run, "one_step", noted)
    time_steps(of, data, 2)
    timed = losses[:]
    losses.clear()
    finished(of)
    assert len(timed) == 3
    assert timed == pytest.approx(losses[:3])
