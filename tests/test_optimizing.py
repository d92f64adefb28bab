"""Optimisers, schedules and losses of a recipe, against torch's own made by hand and against formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

from ablate.optimizing import hard_labels, make_loss, make_optimizer, make_schedule, soft_labels
from ablate.recipe import TrainSpec
from ablate.trainable import Setting, Trainable

LR, EPOCHS, STEPS = 0.3, 11, 7
"""The rate, the epochs, and the steps of an epoch."""


def recipe(**sections: Any) -> TrainSpec:
    return TrainSpec.model_validate({"epochs": EPOCHS, "optimizer": {"name": "sgd", "lr": LR}} | sections)


class Two(nn.Module):
    """Two layers with fixed numbers, and a loss of them that changes from step to step."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 2, dtype=torch.float64), nn.Linear(2, 5, dtype=torch.float64)
        with torch.no_grad():
            for index, parameter in enumerate(self.parameters()):
                parameter.copy_(torch.arange(parameter.numel()).reshape(parameter.shape).sin() + index)

    def loss(self, step: int) -> Tensor:
        values = [(parameter * (step + 1.0)).cos().sum() for parameter in self.parameters()]
        return torch.stack(values).sum()


def trained(optimizer_of: Callable[[Two], torch.optim.Optimizer], steps: int = 11) -> list[Tensor]:
    network = Two()
    optimizer = optimizer_of(network)
    for step in range(steps):
        optimizer.zero_grad()
        network.loss(step).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return [parameter.detach() for parameter in network.parameters()]


def assert_equal(found: list[Tensor], wanted: list[Tensor]) -> None:
    """Within float32's rounding, which torch's fused kernels have for scalars even where the weights are float64."""
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)


# ---- optimisers ----

ADAM = {"lr": 0.02, "betas": [0.7, 0.9], "eps": 1e-3, "weight_decay": 0.1}
OPTIMIZERS: dict[str, tuple[dict[str, Any], type[torch.optim.Optimizer]]] = {
    "sgd": ({"lr": 0.02, "momentum": 0.7, "weight_decay": 0.1, "nesterov": True}, torch.optim.SGD),
    "adam": (ADAM, torch.optim.Adam),
    "adamw": (ADAM, torch.optim.AdamW),
    "nadam": (ADAM | {"momentum_decay": 0.03, "decoupled_weight_decay": True}, torch.optim.NAdam),
    "radam": (ADAM | {"decoupled_weight_decay": True}, torch.optim.RAdam),
    "rmsprop": (
        {"lr": 0.02, "alpha": 0.7, "eps": 1e-3, "weight_decay": 0.1, "momentum": 0.6, "centered": True},
        torch.optim.RMSprop,
    ),
    "adagrad": (
        {"lr": 0.2, "lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.3, "eps": 1e-3},
        torch.optim.Adagrad,
    ),
}


def by_hand(kind: type[torch.optim.Optimizer], params: Any, section: dict[str, Any]) -> torch.optim.Optimizer:
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in section.items()}
    return kind(params, **arguments)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_torchs_with_the_recipes_numbers(name: str) -> None:
    section, kind = OPTIMIZERS[name]
    of = recipe(optimizer={"name": name} | section)
    found, hand = (
        trained(lambda network: make_optimizer(of, network, fused=False)),
        trained(lambda network: by_hand(kind, network.parameters(), section)),
    )
    assert all(torch.equal(one, other) for one, other in zip(found, hand, strict=True))
    assert_equal(trained(lambda network: make_optimizer(of, network)), hand)
    for key, value in section.items():  # every number counts
        other = {"name": name} | section | {key: not value if isinstance(value, bool) else _less(value)}
        moved = trained(lambda network, other=other: make_optimizer(recipe(optimizer=other), network, fused=False))  # type: ignore[misc]
        assert any((one - two).abs().max() > 1e-9 for one, two in zip(found, moved, strict=True)), key


def _less(value: Any) -> Any:
    return [each / 2 for each in value] if isinstance(value, list) else value / 2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_is_fused_where_torch_has_a_kernel_for_it_and_unless_told_not_to(name: str) -> None:
    of = recipe(optimizer={"name": name, "lr": 0.02})
    default = make_optimizer(of, Two()).defaults.get("fused")
    assert bool(default) is (name in ("sgd", "adam", "adamw", "adagrad"))
    assert not make_optimizer(of, Two(), fused=False).defaults.get("fused")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizers_defaults_are_torchs(name: str) -> None:
    of = recipe(optimizer={"name": name, "lr": 0.02})
    kind = OPTIMIZERS[name][1]
    found = trained(lambda network: make_optimizer(of, network))
    assert_equal(found, trained(lambda network: kind(network.parameters(), lr=0.02)))  # type: ignore[call-arg]


BIASES = Trainable(settings=(Setting("one", "bias", 0.5, 0.0), Setting("two", "bias", 0.5, 0.0)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_groups_are_torchs_parameter_groups_made_by_hand(name: str) -> None:
    section, kind = OPTIMIZERS[name]
    of = recipe(optimizer={"name": name} | section)
    settings = (*BIASES.settings, Setting("two", "weight", section["lr"], 0.7))

    def hand(network: Two) -> torch.optim.Optimizer:
        groups = [
            {"params": [network.one.weight]},
            {"params": [network.one.bias, network.two.bias], "lr": 0.5, "weight_decay": 0.0},
            {"params": [network.two.weight], "weight_decay": 0.7},
        ]
        return by_hand(kind, groups, section)

    assert_equal(trained(lambda network: make_optimizer(of, network, Trainable((), settings))), trained(hand))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_network_whose_every_parameter_is_in_a_group_trains_too(name: str) -> None:
    section, kind = OPTIMIZERS[name]
    of = recipe(optimizer={"name": name} | section)
    every = Trainable((), tuple(Setting(m, p, 0.5, 0.0) for m in ("one", "two") for p in ("weight", "bias")))
    wanted = section | {"lr": 0.5, "weight_decay": 0.0}
    found = trained(lambda network: make_optimizer(of, network, every))
    assert_equal(found, trained(lambda network: by_hand(kind, network.parameters(), wanted)))
    assert make_optimizer(of, Two(), every).param_groups[0]["lr"] == section["lr"]


def test_what_takes_no_gradient_is_not_in_the_optimizer() -> None:
    network = Two()
    network.one.requires_grad_(False)
    optimizer = make_optimizer(recipe(), network, BIASES)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert held == {id(parameter) for parameter in network.two.parameters()}


# ---- schedules ----

Rate = Callable[[float], float]
"""The share of the learning rate after so many steps, counted from the end of the warm-up."""


def run(section: dict[str, Any], epochs: int = EPOCHS, trainable: Trainable | None = None) -> list[list[float]]:
    """The rate of every step, a list for each parameter group."""
    of = recipe(schedule=section, epochs=epochs)
    optimizer = make_optimizer(of, Two(), trainable)
    return followed(optimizer, make_schedule(of, optimizer, STEPS), epochs * STEPS)


def followed(
    optimizer: torch.optim.Optimizer, schedule: lr_scheduler.LRScheduler, steps: int, every: int = 1
) -> list[list[float]]:
    seen: list[list[float]] = [[] for _ in optimizer.param_groups]
    for step in range(steps):
        for rates, group in zip(seen, optimizer.param_groups, strict=True):
            rates.append(float(group["lr"]))
        optimizer.step()
        if (step + 1) % every == 0:
            schedule.step()
    return seen


def half_cosine(share: float) -> float:
    return (1 + math.cos(math.pi * share)) / 2


def restarts(step: float, period: int, growth: int) -> float:
    while step >= period:
        step, period = step - period, period * growth
    return half_cosine(step / period)


FORMULAS: dict[str, tuple[dict[str, Any], Callable[[int, int], float]]] = {
    # (step of the schedule, its steps in all) → the rate at LR
    "constant": ({}, lambda step, steps: LR),
    "step": ({"every": 3, "gamma": 0.5}, lambda step, steps: LR * 0.5 ** (step // (3 * STEPS))),
    "exponential": ({"gamma": 0.7}, lambda step, steps: LR * 0.7 ** (step // STEPS)),
    "polynomial": ({"power": 2.0}, lambda step, steps: LR * (1 - step / steps) ** 2),
    "cosine": ({"floor": 0.02}, lambda step, steps: 0.02 + (LR - 0.02) * half_cosine(step / steps)),
    "cosine_restarts": (
        {"period": 2, "growth": 2, "floor": 0.02},
        lambda step, steps: 0.02 + (LR - 0.02) * restarts(step, 2 * STEPS, 2),
    ),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("warmup", [0, 2])
def test_a_schedule_is_its_formula_behind_a_straight_warm_up(name: str, warmup: int) -> None:
    section, formula = FORMULAS[name]
    rise = warmup * STEPS
    wanted = [LR * (0.1 + 0.9 * step / rise) for step in range(rise)]
    wanted += [formula(step, EPOCHS * STEPS - rise) for step in range(EPOCHS * STEPS - rise)]
    warm = {"warmup_epochs": warmup, "warmup_start": 0.1} if warmup else {}
    (found,) = run({"name": name} | section | warm)
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("warmup", [0, 2])
def test_milestones_are_epochs_from_the_start_of_training_warm_up_included(warmup: int) -> None:
    warm = {"warmup_epochs": warmup, "warmup_start": 0.1} if warmup else {}
    (found,) = run({"name": "multi_step", "milestones": [5, 3, 7], "gamma": 0.5} | warm)
    wanted = [LR * 0.5 ** sum(step >= epoch * STEPS for epoch in (3, 5, 7)) for step in range(EPOCHS * STEPS)]
    rise = warmup * STEPS
    wanted[:rise] = [LR * (0.1 + 0.9 * step / rise) for step in range(rise)]
    assert found == pytest.approx(wanted, rel=1e-9)


BY_EPOCH: dict[str, tuple[dict[str, Any], Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]]] = {
    "constant": ({}, lambda o: lr_scheduler.ConstantLR(o, 1.0)),
    "multi_step": ({"milestones": [3, 5], "gamma": 0.3}, lambda o: lr_scheduler.MultiStepLR(o, [3, 5], 0.3)),
    "step": ({"every": 3, "gamma": 0.3}, lambda o: lr_scheduler.StepLR(o, 3, 0.3)),
    "exponential": ({"gamma": 0.7}, lambda o: lr_scheduler.ExponentialLR(o, 0.7)),
}
BY_STEP: dict[str, tuple[dict[str, Any], Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]]] = {
    "polynomial": ({"power": 0.9}, lambda o: lr_scheduler.PolynomialLR(o, EPOCHS * STEPS, 0.9)),
    "cosine": ({"floor": 0.02}, lambda o: lr_scheduler.CosineAnnealingLR(o, EPOCHS * STEPS, 0.02)),
    "cosine_restarts": (
        {"period": 3, "growth": 2, "floor": 0.02},
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3 * STEPS, 2, 0.02),
    ),
    "one_cycle": (
        {"warmup": 0.4, "start_factor": 20.0, "final_factor": 100.0},
        lambda o: lr_scheduler.OneCycleLR(
            o, [g["lr"] for g in o.param_groups], EPOCHS * STEPS, pct_start=0.4, div_factor=20, final_div_factor=100
        ),
    ),
}


@pytest.mark.parametrize("name", [*BY_EPOCH, *BY_STEP])
def test_a_schedule_is_torchs_own_stepped_by_hand_for_every_group(name: str) -> None:
    section, hand = (BY_EPOCH | BY_STEP)[name]
    network = Two()
    groups = [
        {"params": [network.one.weight, network.two.weight]},
        {"params": [network.one.bias, network.two.bias], "lr": 0.5, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=LR, momentum=0.9)
    wanted = followed(optimizer, hand(optimizer), EPOCHS * STEPS, every=STEPS if name in BY_EPOCH else 1)
    found = run({"name": name} | section, trainable=BIASES)
    assert len(found) == 2
    assert found == wanted
    assert found[0] != found[1]


@pytest.mark.parametrize("name", [*FORMULAS, "multi_step"])
def test_a_warm_up_lifts_every_group_to_its_own_rate(name: str) -> None:
    section = {"milestones": [5]} if name == "multi_step" else FORMULAS[name][0]
    own, biases = run({"name": name, "warmup_epochs": 2, "warmup_start": 0.25} | section, trainable=BIASES)
    for rates, top in ((own, LR), (biases, 0.5)):
        assert rates[0] == pytest.approx(0.25 * top)
        assert rates[STEPS] == pytest.approx((0.25 + 0.75 / 2) * top)
        assert rates[2 * STEPS] == pytest.approx(top)


def test_a_warm_up_is_torchs_linear_and_sequential_made_by_hand() -> None:
    optimizer = torch.optim.SGD(Two().parameters(), lr=LR)
    rising = lr_scheduler.LinearLR(optimizer, 0.2, total_iters=3 * STEPS)
    falling = lr_scheduler.CosineAnnealingLR(optimizer, (EPOCHS - 3) * STEPS)
    schedule = lr_scheduler.SequentialLR(optimizer, [rising, falling], [3 * STEPS])
    wanted = followed(optimizer, schedule, EPOCHS * STEPS)
    assert run({"name": "cosine", "warmup_epochs": 3, "warmup_start": 0.2}) == wanted


def test_a_warm_up_may_be_part_of_an_epoch() -> None:
    (found,) = run({"name": "constant", "warmup_epochs": 3 / 7, "warmup_start": 0.1}, epochs=1)
    assert found == pytest.approx([LR * s for s in (0.1, 0.4, 0.7, 1, 1, 1, 1)])


def test_momentum_is_not_cycled() -> None:
    of = recipe(optimizer={"name": "sgd", "lr": LR, "momentum": 0.7}, schedule={"name": "one_cycle"})
    optimizer = make_optimizer(of, Two())
    schedule = make_schedule(of, optimizer, STEPS)
    seen = set()
    for _ in range(EPOCHS * STEPS):
        seen.add(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        schedule.step()
    assert seen == {0.7}


# ---- losses ----

CLASSES = 5
SCORES = torch.tensor([[1.5, -0.3, 0.7, 0.0, -2.0], [0.1, 0.2, 0.3, 0.4, 0.5], [-1.0, 3.0, 0.0, 1.0, 2.0]])
LABELS = torch.tensor([2, 4, 1])
MIXED = torch.tensor([[0.0, 0.3, 0.7, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.0, 0.0, 0.0]])


def loss(section: dict[str, Any], y: Tensor) -> float:
    return float(make_loss(recipe(loss=section), CLASSES)(SCORES, y))


def shares(y: Tensor) -> list[list[float]]:
    """The labels as shares, by hand."""
    if y.is_floating_point():
        return [[float(value) for value in row] for row in y]
    return [[float(column == label) for column in range(CLASSES)] for label in y.tolist()]


def log_softmax(row: list[float]) -> list[float]:
    total = math.log(sum(math.exp(score) for score in row))
    return [score - total for score in row]


def cross_entropy(y: Tensor, smoothing: float = 0.0) -> float:
    rows = [
        -sum(
            (share * (1 - smoothing) + smoothing / CLASSES) * log_p
            for share, log_p in zip(t, log_softmax(s), strict=True)
        )
        for t, s in zip(shares(y), SCORES.tolist(), strict=True)
    ]
    return sum(rows) / len(rows)


def per_score(y: Tensor, of: Callable[[float, float], float]) -> float:
    pairs = [
        (t, s)
        for row_t, row_s in zip(shares(y), SCORES.tolist(), strict=True)
        for t, s in zip(row_t, row_s, strict=True)
    ]
    return sum(of(t, s) for t, s in pairs) / len(pairs)


def binary(share: float, score: float) -> float:
    p = 1 / (1 + math.exp(-score))
    return -share * math.log(p) - (1 - share) * math.log(1 - p)


@pytest.mark.parametrize("y", [LABELS, MIXED], ids=["labels", "mixed labels"])
def test_each_loss_is_its_formula(y: Tensor) -> None:
    assert loss({"name": "cross_entropy"}, y) == pytest.approx(cross_entropy(y), rel=1e-5)
    smoothed = {"name": "cross_entropy", "label_smoothing": 0.2}
    assert loss(smoothed, y) == pytest.approx(cross_entropy(y, 0.2), rel=1e-5)
    assert loss({"name": "bce"}, y) == pytest.approx(per_score(y, binary), rel=1e-5)
    softened = per_score(y, lambda share, score: binary(share * 0.8 + 0.04, score))
    assert loss({"name": "bce", "label_smoothing": 0.2}, y) == pytest.approx(softened, rel=1e-5)
    assert loss({"name": "mse"}, y) == pytest.approx(per_score(y, lambda t, s: (t - s) ** 2), rel=1e-5)
    brier = sum(
        (t - math.exp(log_p)) ** 2
        for row_t, row_s in zip(shares(y), SCORES.tolist(), strict=True)
        for t, log_p in zip(row_t, log_softmax(row_s), strict=True)
    )
    assert loss({"name": "mse", "of": "probabilities"}, y) == pytest.approx(brier / 15, rel=1e-5)


@pytest.mark.parametrize("p", [1, 2])
def test_the_margin_is_between_the_label_and_every_other_class(p: int) -> None:
    rows = [
        sum(max(0.0, 0.6 - row[label] + score) ** p for column, score in enumerate(row) if column != label) / CLASSES
        for row, label in zip(SCORES.tolist(), LABELS.tolist(), strict=True)
    ]
    assert loss({"name": "multi_margin", "p": p, "margin": 0.6}, LABELS) == pytest.approx(sum(rows) / 3, rel=1e-5)


def test_a_weight_per_class_is_in_the_mean_too() -> None:
    weights = [0.5, 1.0, 2.0, 3.0, 0.25]
    each = [-log_softmax(row)[label] for row, label in zip(SCORES.tolist(), LABELS.tolist(), strict=True)]
    of_label = [weights[label] for label in LABELS.tolist()]
    wanted = sum(w * nats for w, nats in zip(of_label, each, strict=True)) / sum(of_label)
    assert loss({"name": "cross_entropy", "weights": weights}, LABELS) == pytest.approx(wanted, rel=1e-5)


def test_a_loss_without_a_name_is_cross_entropy() -> None:
    assert loss({"label_smoothing": 0.2}, LABELS) == loss({"name": "cross_entropy", "label_smoothing": 0.2}, LABELS)


def test_every_loss_is_computed_in_fp32() -> None:
    for section in ({"name": "cross_entropy"}, {"name": "bce"}, {"name": "mse"}, {"name": "multi_margin"}):
        assert make_loss(recipe(loss=section), CLASSES)(SCORES.bfloat16(), LABELS).dtype == torch.float32


@given(st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=13), st.floats(0, 0.9))
@settings(max_examples=31)
def test_hard_and_soft_labels_of_one_class_are_the_same(labels: list[int], smoothing: float) -> None:
    y = torch.tensor(labels)
    soft = F.one_hot(y, CLASSES).float()
    assert torch.equal(soft_labels(y, CLASSES, smoothing), soft_labels(soft, CLASSES, smoothing))
    assert torch.equal(hard_labels(soft), y)
    assert torch.equal(hard_labels(y), y)
    torch.testing.assert_close(soft_labels(y, CLASSES, smoothing).sum(1), torch.ones(len(y)))


def test_the_label_of_mixed_labels_is_the_largest_share_and_the_lower_of_equals() -> None:
    assert hard_labels(MIXED).tolist() == [2, 4, 0]
