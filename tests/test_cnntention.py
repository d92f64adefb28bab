"""The networks of CNNtention against ones written by hand in plain PyTorch, and their recipes against the paper's."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from networks import HandJoin, HandResNet20, name_by_hand
from torch import Tensor, nn

from ablate.builder import build
from ablate.costing import cost_of
from ablate.design import StudyPlan, study_plan
from ablate.spec import load
from tests.conftest import REPOSITORY

FAMILY = ("cnntention_cifar10", "cnntention_mnist")
every_data_set = pytest.mark.parametrize("name", FAMILY)


@cache
def plan(name: str) -> StudyPlan:
    return study_plan(load(REPOSITORY / "specs" / "models" / f"{name}.yaml"))


# by hand -----------------------------------------------------------------------------------------------------------


class HandSelfAttention(nn.Module):
    """Eq. 1 of the paper: softmax(Q Kᵀ) V, by 1 × 1 convolutions and batched matrix products."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv2d(width, width, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))
        attention = torch.bmm(query.transpose(1, 2), key).softmax(2)
        return torch.bmm(value, attention.transpose(1, 2)).view_as(x)


class HandMultiHead(HandSelfAttention):
    """Concat(head_1, …, head_8) W_O, one head after another."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        heads = []
        chunks = [layer(x).flatten(2).chunk(8, dim=1) for layer in (self.query, self.key, self.value)]
        for query, key, value in zip(*chunks, strict=True):
            logits = torch.bmm(query.transpose(1, 2), key) / query.shape[1] ** 0.5
            heads.append(torch.bmm(value, logits.softmax(2).transpose(1, 2)))
        y: Tensor = self.out(torch.cat(heads, 1).view_as(x))
        return y


class HandCbam(nn.Module):
    """F' = Mc(F) F and F'' = Ms(F') F', the MLP as matrix products; without hidden units Mc is σ(0)."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.channel, self.spatial = nn.Module(), nn.Module()
        if width // reduction:
            self.channel.fc1 = nn.Conv2d(width, width // reduction, 1, bias=False)
            self.channel.fc2 = nn.Conv2d(width // reduction, width, 1, bias=False)
        self.spatial.conv = nn.Conv2d(2, 1, 7, padding=3)

    def mlp(self, pooled: Tensor) -> Tensor:
        if not hasattr(self.channel, "fc1"):
            return torch.zeros_like(pooled)
        first, second = self.channel.fc1.weight.flatten(1), self.channel.fc2.weight.flatten(1)
        return (pooled @ first.T).clamp(min=0) @ second.T

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.mlp(x.flatten(2).mean(2)) + self.mlp(x.flatten(2).max(2).values))
        x = x * gate[:, :, None, None]
        return x * torch.sigmoid(self.spatial.conv(torch.stack([x.max(1).values, x.mean(1)], 1)))


After = Callable[[int], list[nn.Module]]
BY_HAND: dict[str, After] = {
    "Baseline": lambda width: [],
    "SelfAtt": lambda width: [HandJoin(HandSelfAttention(width), "weighted")],
    "SelfAtt-plain": lambda width: [HandJoin(HandSelfAttention(width), "plain")],
    "MHA": lambda width: [HandJoin(HandMultiHead(width), "weighted")],
    "CBAM-8": lambda width: [HandJoin(HandCbam(width, 8), "plain")],
    "CBAM-16": lambda width: [HandJoin(HandCbam(width, 16), "plain")],
    "CBAM-32": lambda width: [HandJoin(HandCbam(width, 32), "plain")],
}
PARAMETERS = {
    "Baseline": 269_722,
    "SelfAtt": 286_189,
    "SelfAtt-plain": 286_186,
    "MHA": 291_677,
    "CBAM-8": 271_363,
    "CBAM-16": 270_691,
    "CBAM-32": 270_339,
}


def pair(name: str, model: str) -> tuple[nn.Module, nn.Module, Callable[[str], str], Tensor]:
    """Our network and the one by hand, with the same random weights, in float64; how names map; an image."""
    variant = plan(name).variant(model)
    ours = build(variant.network.graph, seed=3).double()
    hand = HandResNet20(BY_HAND[model], channels=variant.shape[0], classes=10).double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in ours.parameters():  # at random: a weighted residual starts at 0 and would hide its branch
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(noise * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.5 + noise / 9)
    rename = partial(name_by_hand, after=["attention"], gates=[])
    hand.load_state_dict({key: ours.state_dict()[rename(key)] for key in hand.state_dict()})
    return ours, hand, rename, torch.randn(1, *variant.shape, generator=generator, dtype=torch.float64)


@every_data_set
@pytest.mark.parametrize("model", BY_HAND)
def test_a_network_is_the_one_written_by_hand(name: str, model: str) -> None:
    """Sizes, outputs in both modes, and the gradient of every parameter."""
    ours, hand, rename, x = pair(name, model)
    images = {"cnntention_cifar10": (3, 32, 32), "cnntention_mnist": (1, 28, 28)}
    assert tuple(x.shape[1:]) == images[name]
    count = sum(parameter.numel() for parameter in hand.parameters())
    graph = plan(name).variant(model).network.graph
    one_channel = 2 * 16 * 9 if name == "cnntention_mnist" else 0  # of the first convolution
    assert count == sum(p.numel() for p in ours.parameters()) == cost_of(graph).params
    assert count == PARAMETERS[model] - one_channel
    y, expected = ours.train()(x), hand.train()(x)
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    gradients = {key: parameter.grad for key, parameter in ours.named_parameters()}
    assert gradients.keys() == {rename(key) for key, _ in hand.named_parameters()}
    for key, parameter in hand.named_parameters():
        torch.testing.assert_close(gradients[rename(key)], parameter.grad, msg=key)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), hand.eval()(x))


# recipes -----------------------------------------------------------------------------------------------------------

SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}
LOW = {"name": "adam", "lr": 5e-4, "weight_decay": 1e-3}
HIGH = {"name": "adam", "lr": 5e-3, "weight_decay": 1e-4}
RECIPES: dict[str, tuple[dict[str, Any], list[int]]] = {
    "Baseline": (SGD, [91, 136]),
    **dict.fromkeys(("SelfAtt", "SelfAtt-plain", "MHA"), (LOW, [91, 115])),
    **dict.fromkeys(("CBAM-8", "CBAM-16", "CBAM-32"), (HIGH, [45, 91, 136])),
}


def recipe(variant: Any) -> tuple[dict[str, Any], list[int]]:
    optimizer = variant.train.optimizer.model_dump()
    assert optimizer.get("momentum", 0) == (0.9 if optimizer["name"] == "sgd" else 0)
    assert variant.train.schedule.name == "multi_step"
    assert variant.train.schedule.gamma == 0.1
    return {key: optimizer[key] for key in SGD if key in optimizer}, list(variant.train.schedule.milestones)


@every_data_set
def test_every_network_has_the_recipe_of_the_paper(name: str) -> None:
    variants = plan(name).variants
    assert {variant.name: recipe(variant) for variant in variants} == RECIPES
    for variant in variants:
        assert (variant.train.epochs, variant.train.batch_size) == (182, 128)
        assert variant.train.early_stopping is None


def test_images_of_cifar10_are_normalised_as_the_paper_does_and_digits_are_not() -> None:
    for variant in plan("cnntention_cifar10").variants:
        assert [type(each).__name__ for each in variant.data.augment] == ["RandomCrop", "HorizontalFlip"]
        assert variant.data.augment[0].padding == 4
        assert variant.data.normalize.mean == [0.49187, 0.49186, 0.49186]
        assert variant.data.normalize.std == [0.24697, 0.24697, 0.24697]
    assert {variant.data.normalize for variant in plan("cnntention_mnist").variants} == {"none"}


def test_the_tables_train_the_networks_and_recipes_of_the_family() -> None:
    """It would catch a table whose arm is not the network that the family calls by that name."""
    family = {variant.name: variant for variant in plan("cnntention_cifar10").variants}
    for table, monitor in (("table2", "val.error"), ("table3", "test.error"), ("table3_mnist", "test.error")):
        names = family if table != "table3_mnist" else {v.name: v for v in plan("cnntention_mnist").variants}
        for variant in study_plan(load(REPOSITORY / "specs" / "cnntention" / f"{table}.yaml")).variants:
            same = names[variant.name]
            assert variant.network.graph.fingerprint == same.network.graph.fingerprint
            assert recipe(variant) == recipe(same)
            stopping = variant.train.early_stopping
            assert (stopping is None) == (variant.name == "Baseline")
            assert stopping is None or (stopping.monitor, stopping.patience, stopping.threshold) == (monitor, 20, 1e-3)


def test_the_specs_of_the_family_are_short() -> None:
    for path in (REPOSITORY / "specs" / "models").glob("cnntention*.yaml"):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        assert len(lines) < 25, path.name
