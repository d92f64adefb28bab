"""``train.micro_batch``: a batch that is computed in parts is the batch, but for rounding and what batch norm sees."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ablate import train as training
from ablate.builder import noisy_modules, seed_noise
from ablate.certify import protocol
from ablate.data.batches import Batches
from ablate.data.dataset import DataSpec, ImageData
from ablate.data.dataset import load as load_data
from ablate.data.mix import Mixup
from ablate.design import as_written
from ablate.errors import UserError
from ablate.numerics import Numerics
from ablate.optimizing import parts_of
from ablate.parallel import ALONE, Ranks
from ablate.recipe import TrainSpec
from ablate.spec import load
from ablate.train import Run, Trial, train
from ablate.trainable import training_mode
from ablate.training_state import tensors_of
from tests.networks import network

SHAPE, CLASSES = (3, 9, 11), 5
GROUP_NORM = """
graph:
  conv1: {block: conv, width: 6, kernel: 3}
  norm:  {block: group_norm, groups: 2}
  act1:  {block: act}
  head:  {block: classifier}
"""
WEIGHTED = {"name": "cross_entropy", "weights": [1.0, 7.0, 0.5, 3.0, 11.0], "label_smoothing": 0.1}


@lru_cache(maxsize=1)
def arrays() -> ImageData:
    """Of batches of 7 the last has 3 images, and so has one part however small they are to be."""
    section = {"name": "fake", "shape": list(SHAPE), "classes": CLASSES, "count": {"train": 31, "test": 13}}
    return load_data(DataSpec.model_validate(section), base=Path())


def trial(section: str = GROUP_NORM, mix: Any = None, **recipe: Any) -> Trial:
    found = network(section, SHAPE, CLASSES)
    sgd = {"name": "sgd", "lr": 0.05}
    spec = TrainSpec.model_validate({"epochs": 2, "batch_size": 7, "optimizer": sgd, "precision": "fp32"} | recipe)
    return Trial("", "variant", 11, found.graph, found.init.recipe, spec, (), Numerics(), mix=mix)


class Apart(Ranks):
    """A rank that the others are not there for."""

    def wrap(self, network: nn.Module) -> nn.Module:
        return network


def stepped(of: Trial, ranks: Ranks = ALONE, count: int = 1) -> tuple[Run, float, Tensor]:
    """After so many batches: the run, and of the last one the loss and the scores. Its gradients are there as well."""
    run = Run(of, arrays(), ranks)
    training_mode(run.network, of.trainable)
    for _, (x, y) in zip(range(count), run.batches.epoch(0), strict=False):
        loss, scores = run.one_step(x, y)
    return run, float(loss), scores


def gradients(run: Run) -> dict[str, Tensor]:
    return {name: p.grad for name, p in run.network.named_parameters() if p.grad is not None}


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 2e-6) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        scale = max(1.0, float(tensor.abs().max()))
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=tolerance * scale, msg=name)


@given(st.integers(2, 257), st.integers(2, 300))
def test_parts_follow_one_another_in_the_size_asked_for_and_none_is_a_single_example(examples: int, size: int) -> None:
    parts = parts_of(examples, size)
    lengths = [part.stop - part.start for part in parts]
    assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
    assert parts[-1].stop == examples
    assert set(lengths[:-1]) <= {size}
    assert 2 <= lengths[-1] <= size + 1
    assert parts_of(examples, None) == [slice(0, examples)]


LOSSES = [
    ({"name": "cross_entropy"}, False),
    ({"name": "cross_entropy", "label_smoothing": 0.1}, True),
    (WEIGHTED, False),
    (WEIGHTED, True),
    ({"name": "bce"}, True),
    ({"name": "mse"}, False),
    ({"name": "multi_margin"}, False),
]


@pytest.mark.parametrize("size", [2, 3, 4, 6])  # of seven: 2, 2 and 3; 3 and 4; 4 and 3; 7
@pytest.mark.parametrize(("loss", "mixes"), LOSSES)
def test_the_gradients_of_parts_add_up_to_those_of_the_batch(loss: dict[str, Any], mixes: bool, size: int) -> None:
    mix = Mixup(name="mixup") if mixes else None
    whole, wanted_loss, wanted_scores = stepped(trial(loss=loss, mix=mix))
    run, found_loss, scores = stepped(trial(loss=loss, mix=mix, micro_batch=size))
    assert found_loss == pytest.approx(wanted_loss, rel=1e-6)
    torch.testing.assert_close(scores, wanted_scores, rtol=0, atol=1e-6)
    assert_close(gradients(run), gradients(whole))


@pytest.mark.parametrize(("loss", "mixes"), [LOSSES[0], LOSSES[2], LOSSES[3]])
def test_the_parts_of_two_ranks_shares_add_up_to_the_batch(loss: dict[str, Any], mixes: bool) -> None:
    mix = Mixup(name="mixup") if mixes else None
    recipe: dict[str, Any] = {"loss": loss, "batch_size": 11}
    whole, wanted_loss, _ = stepped(trial(mix=mix, **recipe))
    ranks = [stepped(trial(mix=mix, **recipe, micro_batch=2), Apart(rank, 2)) for rank in (0, 1)]  # 2, 2, 2; 2, 3
    assert sum(loss for _, loss, _ in ranks) == pytest.approx(wanted_loss, rel=1e-6)
    both = [gradients(run) for run, _, _ in ranks]
    assert_close({name: (both[0][name] + both[1][name]) / 2 for name in both[0]}, gradients(whole))


@pytest.mark.parametrize(
    "recipe",
    [
        {"clip_norm": 0.1, "optimizer": {"name": "sgd", "lr": 0.5}},  # of the whole gradient, not of a part's
        {"schedule": {"name": "cosine"}},  # moved once a batch
        {"ema": {"decay": 0.5}, "select": "ema"},
        {"loss": WEIGHTED, "clip_norm": 1.0},
    ],
)
def test_a_training_in_parts_is_the_training(recipe: dict[str, Any]) -> None:
    rows: list[dict[str, float]] = []
    parts_rows: list[dict[str, float]] = []
    whole = train(trial(**recipe), arrays(), rows.append)
    parts = train(trial(**recipe, micro_batch=2), arrays(), parts_rows.append)
    assert whole.weights is not None
    assert parts.weights is not None
    assert_close(parts.weights, whole.weights, 1e-5)
    for key in ("lr", "train.loss", "train.accuracy"):
        assert [row[key] for row in parts_rows] == pytest.approx([row[key] for row in rows], rel=1e-5)


def test_a_step_of_the_scaler_is_a_batch_and_parts_are_scaled_alike() -> None:
    recipe: dict[str, Any] = {"precision": "fp16", "clip_norm": 0.1, "optimizer": {"name": "sgd", "lr": 0.5}}
    whole, _, _ = stepped(trial(**recipe), count=5)
    parts, _, _ = stepped(trial(**recipe, micro_batch=3), count=5)
    assert parts.scaler.state_dict() == whole.scaler.state_dict()
    assert parts.step == whole.step == 5
    assert_close(tensors_of(parts.network), tensors_of(whole.network), 2e-3)  # ulps of fp16


def test_batch_norm_sees_one_part_after_another() -> None:
    run, _, _ = stepped(trial(GROUP_NORM.replace("group_norm, groups: 2", "batch_norm"), micro_batch=4))
    x, _ = next(iter(Batches(arrays().train, arrays(), (), 7, 11).epoch(0)))
    start = Run(trial(), arrays()).network.get_parameter("conv1.weight")
    seen = nn.functional.conv2d(x, start, padding=1).detach()
    first, second = (part.transpose(0, 1).flatten(1) for part in (seen[:4], seen[4:]))
    norm: Any = run.network.get_submodule("norm")
    mean = 0.9 * 0.1 * first.mean(1) + 0.1 * second.mean(1)
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-5, atol=1e-6)


def test_each_part_draws_noise_of_its_own_and_the_first_that_of_a_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def noted(network: nn.Module, *parts: int) -> None:
        seed_noise(network, *parts)
        seeds.extend(module.noise_seed for _, module in noisy_modules(network))  # type: ignore[misc]

    monkeypatch.setattr(training, "seed_noise", noted)
    section = GROUP_NORM.replace("block: act", "block: dropout, rate: 0.5")

    def of(ranks: Ranks, **recipe: Any) -> list[int]:
        seeds.clear()
        stepped(trial(section, **recipe), ranks, count=2)
        return seeds[:]

    whole, parts = of(ALONE), of(ALONE, micro_batch=2)
    assert (len(whole), len(parts)) == (2, 6)
    assert [parts[0], parts[3]] == whole
    others = [*of(Apart(1, 2), micro_batch=2), *of(Apart(2, 3), micro_batch=2)]
    assert len({*parts, *others}) == len(parts) + len(others)


def test_the_activations_of_a_part_are_freed_before_the_next_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def spied(name: str) -> None:
        method: Callable[..., Any] = getattr(Run, name)

        def call(*arguments: Any) -> Any:
            order.append(name)
            return method(*arguments)

        monkeypatch.setattr(Run, name, call)

    for name in ("_scored", "_add_gradients", "move"):
        spied(name)
    stepped(trial(micro_batch=3))
    assert order == ["_scored", "_add_gradients", "_scored", "_add_gradients", "move"]


# ---- the spec and the certificate ----


def spec(**recipe: Any) -> dict[str, Any]:
    return {
        "name": "study",
        "data": {"name": "fake", "shape": list(SHAPE), "classes": 5, "count": {"train": 7, "test": 3}},
        "train": {"epochs": 3, "batch_size": 16, "optimizer": {"name": "sgd", "lr": 0.1}} | recipe,
        "network": {"graph": {"stem": {"block": "conv_bn_act", "width": 7}, "head": {"block": "classifier"}}},
    }


@pytest.mark.parametrize("size", [16, 17])
def test_a_part_that_is_no_part_is_refused(size: int) -> None:
    with pytest.raises(UserError, match=f"{size} examples are no part of a batch of 16; less than batch_size"):
        as_written(load(spec(micro_batch=size)))


def test_a_single_example_is_no_part() -> None:
    with pytest.raises(UserError, match="micro_batch"):
        as_written(load(spec(micro_batch=1)))


def test_parts_are_of_a_variants_identity_and_without_them_it_is_what_it_was() -> None:
    plain, parted = as_written(load(spec())), as_written(load(spec(micro_batch=5)))
    assert "micro_batch" not in plain.identity_parts["train"]
    assert as_written(load(spec(micro_batch=None))).identity == plain.identity
    assert len({plain.identity, parted.identity, as_written(load(spec(micro_batch=6))).identity}) == 3


def test_the_certificate_says_what_batch_norm_sees() -> None:
    def said(devices: int, **recipe: Any) -> list[str]:
        return [line for line in protocol(as_written(load(spec(**recipe))), devices) if "batch norm" in line]

    assert said(1) == []
    assert said(1, micro_batch=5) == [
        "16 images are computed in parts of 5, whose gradients add up to one step: batch norm, where there is any, "
        "sees one part at a time."
    ]
    shared, parted = said(2, micro_batch=5)
    assert "batch norm, where there is any, sees 5 of its 16 images" in shared
    assert parted.startswith("8 images are computed in parts of 5")
    (shared,) = said(4, micro_batch=5)
    assert "sees 4 of its 16 images" in shared
