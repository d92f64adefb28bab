"""Trials that several devices share: the recipe of one process, and no end of one process that hangs the others.

What each rank computes is looked at in this process, one rank after another; a few trials are really shared by two.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ablate import block as blocks
from ablate import placing, resolving
from ablate.augmentations.horizontal_flip import HorizontalFlip
from ablate.augmentations.random_crop import RandomCrop
from ablate.builder import noisy_modules
from ablate.data.batches import Batches, share_of
from ablate.data.dataset import DataSpec, ImageData
from ablate.data.dataset import load as load_data
from ablate.data.mix import Mixup
from ablate.design import study_plan
from ablate.errors import Problem, UserError
from ablate.numerics import Numerics
from ablate.parallel import ALONE, Ranks
from ablate.processes import Message, together
from ablate.recipe import TrainSpec
from ablate.spec import load
from ablate.store import Study
from ablate.train import Outcome, Run, Trial, train
from ablate.trainable import training_mode
from tests.faulty import SecondFails
from tests.networks import network

Sweep = Callable[..., Study]
SHAPE, CLASSES = (3, 9, 11), 5
GROUP_NORM = """
graph:
  conv1: {block: conv, width: 6, kernel: 3}
  norm:  {block: group_norm, groups: 2}
  act1:  {block: act}
  head:  {block: classifier}
"""


@pytest.fixture(autouse=True, scope="module")
def block_of_this_file() -> Iterator[None]:
    blocks.register(SecondFails)
    yield
    del blocks._registry[SecondFails.name]


@lru_cache(maxsize=4)
def arrays(count: int = 31) -> ImageData:
    section = {"name": "fake", "shape": list(SHAPE), "classes": CLASSES, "count": {"train": count, "test": 13}}
    return load_data(DataSpec.model_validate(section), base=Path())


def trial(section: str = GROUP_NORM, mix: Any = None, **recipe: Any) -> Trial:
    found = network(section, SHAPE, CLASSES)
    sgd = {"name": "sgd", "lr": 0.05}
    spec = TrainSpec.model_validate({"epochs": 2, "batch_size": 7, "optimizer": sgd, "precision": "fp32"} | recipe)
    augment = (RandomCrop(padding=2), HorizontalFlip())
    return Trial("", "variant", 11, found.graph, found.init.recipe, spec, augment, Numerics(), mix=mix)


@dataclass(frozen=True)
class Apart(Ranks):
    """A rank that the others are not there for."""

    def wrap(self, network: nn.Module) -> nn.Module:
        return network


def first_step(of: Trial, ranks: Ranks) -> tuple[Run, float, dict[str, Tensor]]:
    """(the run, the loss of the first batch, the gradients of the network's parameters)"""
    run = Run(of, arrays(), ranks)
    training_mode(run.network, of.trainable)
    x, y = next(iter(run.batches.epoch(0)))
    loss, _ = run.forward(x, y)
    run.backward(loss)
    return run, float(loss.detach()), {name: p.grad for name, p in run.network.named_parameters() if p.grad is not None}


# ---- shares ----


@given(st.integers(2, 257), st.integers(1, 17))
def test_shares_follow_one_another_and_differ_by_one_example_at_most(examples: int, ranks: int) -> None:
    shares = [list(range(examples))[share_of(examples, rank, ranks)] for rank in range(ranks)]
    assert list(chain.from_iterable(shares)) == list(range(examples))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("mix", [None, Mixup(name="mixup", alpha=1.0)])
@pytest.mark.parametrize("ranks", [2, 3])
def test_the_shares_of_a_batch_are_the_batch_of_one_process_to_the_last_bit(ranks: int, mix: Mixup | None) -> None:
    def epoch(rank: int, ranks: int) -> list[tuple[Tensor, Tensor]]:
        augment = (RandomCrop(padding=2), HorizontalFlip())
        batches = Batches(arrays().train, arrays(), augment, 12, 3, mix=mix, rank=rank, ranks=ranks)
        return list(batches.epoch(1))

    whole, shared = epoch(0, 1), zip(*(epoch(rank, ranks) for rank in range(ranks)), strict=True)
    for (x, y), shares in zip(whole, shared, strict=True):  # of 12, 12 and 7 images
        assert torch.equal(torch.cat([own for own, _ in shares]), x)
        assert all(torch.equal(labels, y) for _, labels in shares)


def test_no_share_is_a_single_example() -> None:
    # 31 = 14 + 14 + 3: of three images a rank would be given one, so they join the batch before
    ranks = [Batches(arrays().train, arrays(), (), 14, 3, rank=rank, ranks=2) for rank in (0, 1)]
    sizes = [[len(x) for x, _ in batches.epoch(0)] for batches in ranks]
    assert sizes == [[7, 9], [7, 8]]
    with pytest.raises(ValueError, match="31 examples are too few for 16 devices; at least 2 each"):
        Batches(arrays().train, arrays(), (), 31, 3, ranks=16)


# ---- a step ----

WEIGHTED = {"name": "cross_entropy", "weights": [1.0, 7.0, 0.5, 3.0, 11.0], "label_smoothing": 0.1}


@pytest.mark.parametrize("ranks", [2, 3])  # of a batch of seven: four and three; three, two and two
@pytest.mark.parametrize(
    ("loss", "mixes"),
    [
        ({"name": "cross_entropy"}, False),
        ({"name": "cross_entropy", "label_smoothing": 0.1}, True),
        (WEIGHTED, False),
        (WEIGHTED, True),
        ({"name": "bce"}, True),
        ({"name": "mse"}, False),
        ({"name": "multi_margin"}, False),
    ],
)
def test_the_mean_of_the_ranks_gradients_is_the_gradient_of_the_batch(
    loss: dict[str, Any], mixes: bool, ranks: int
) -> None:
    of = trial(loss=loss, mix=Mixup(name="mixup") if mixes else None)
    _, whole, wanted = first_step(of, ALONE)
    steps = [first_step(of, Apart(rank, ranks)) for rank in range(ranks)]
    assert sum(step[1] for step in steps) == pytest.approx(whole, rel=1e-6)
    for name, gradient in wanted.items():
        mean = torch.stack([gradients[name] for _, _, gradients in steps]).mean(0)
        torch.testing.assert_close(mean, gradient, rtol=0, atol=1e-6 * max(1.0, float(gradient.abs().max())))


def test_batch_norm_sees_the_share() -> None:
    of = trial(GROUP_NORM.replace("group_norm, groups: 2", "batch_norm"))
    for rank in (0, 1):
        run, _, _ = first_step(of, Apart(rank, 2))
        x, _ = next(iter(run.batches.epoch(0)))
        assert len(x) == (4, 3)[rank]
        seen = nn.functional.conv2d(x, run.network.get_parameter("conv1.weight"), padding=1).transpose(0, 1).flatten(1)
        norm: Any = run.network.get_submodule("norm")
        torch.testing.assert_close(norm.running_mean, 0.1 * seen.mean(1), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * seen.var(1), rtol=1e-5, atol=1e-6)


def test_each_rank_draws_noise_of_its_own_and_the_first_that_of_one_process() -> None:
    of = trial(GROUP_NORM.replace("block: act", "block: dropout, rate: 0.5"))
    alone, first, second = (
        {name: module.noise_seed for name, module in noisy_modules(first_step(of, ranks)[0].network)}
        for ranks in (ALONE, Apart(0, 2), Apart(1, 2))
    )
    assert alone == first
    assert len(alone) == 1
    assert not set(first.values()) & set(second.values())


# ---- who watches ----


def crash(word: str, status: str = "crashed") -> Outcome:
    return Outcome({"status": status, "error": word})


def test_the_first_rank_speaks_for_all() -> None:
    end = Outcome({"status": "finished"})
    other: list[tuple[int, Message] | None] = [(1, {"epoch": 1}), None, (1, Outcome({"status": "finished"}))]
    running = together([(0, {"epoch": 1}), *other, (0, {"epoch": 2}), (0, end)])
    assert [next(running), next(running)] == [{"epoch": 1}, {"epoch": 2}]
    with pytest.raises(StopIteration) as stop:
        next(running)
    assert stop.value.value is end


@pytest.mark.parametrize("status", ["crashed", "out_of_memory"])
def test_the_first_failure_is_the_outcome_whichever_rank_it_is_on(status: str) -> None:
    own = crash("its own bug", status)
    running = together([(0, {"epoch": 1}), (1, own), (0, crash("the connection was closed")), None])
    assert next(running) == {"epoch": 1}
    with pytest.raises(StopIteration) as stop:
        next(running)
    assert stop.value.value is own


def test_a_process_that_was_killed_is_no_result_though_another_failed_because_of_it() -> None:
    def messages() -> Iterator[tuple[int, Message]]:
        yield 0, crash("the connection was closed")
        raise EOFError

    with pytest.raises(EOFError):
        next(together(messages()))
    with pytest.raises(UserError, match="the weights changed"):
        next(together([(1, [Problem("the weights changed")])]))


# ---- shared by two processes ----

SHARED = """\
name: shared
data: {name: fake, shape: [3, 9, 11], classes: 5, count: {train: 61, test: 13}, val: 0.25, augment: [horizontal_flip]}
train:
  epochs: 2
  batch_size: 16
  optimizer: {name: sgd, lr: 0.02, momentum: 0.9, weight_decay: 5.0e-4}
  loss: {label_smoothing: 0.1, weights: [1.0, 2.0, 0.5, 3.0, 1.5]}
  clip_norm: 1.0
  ema: {decay: 0.7}
  select: ema
  precision: fp32
execution: {device: cpu, threads: 1, compile: false}
network:
  graph:
    conv1: {block: conv, width: 6, kernel: 3}
    norm:  {block: group_norm, groups: 2}
    act1:  {block: act}
    head:  {block: classifier}
ablation:
  seeds: 1
  design: variants
  baseline: whole
  variants:
    whole: {}
"""


@pytest.fixture
def two_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "available_cpus", lambda: 2)


def spec_in(folder: Path, *variants: str) -> Path:
    path = folder / "shared.yaml"
    path.write_text(SHARED + "".join(f"    {variant}\n" for variant in variants))
    return path


def rows_of(study: Study, variant: str = "whole") -> list[dict[str, float]]:
    """What was measured in each epoch, but for how long it took."""
    (key,) = next(record for record in study.variants if record["name"] == variant)["trials"].values()
    clocks = ("seconds", "images_per_second")
    return [{name: value for name, value in row.items() if name not in clocks} for row in study.metrics(key)]


def state_of(study: Study) -> dict[str, Tensor]:
    (key,) = study.variants[0]["trials"].values()
    state: dict[str, Tensor] = torch.load(study.trial_folder(key) / "checkpoint.pt", weights_only=True)
    return state


@pytest.mark.usefixtures("two_cpus")
def test_two_processes_give_the_curve_of_one_and_a_bug_in_one_of_them_ends_both(
    tmp_path: Path, sweep_spec: Sweep
) -> None:
    # 46 images in batches of 16, 16 and 14; the fault comes last, and takes nothing of the first variant with it
    spec = spec_in(tmp_path, "faulty: {network.insert.fault: {block: second_fails, at: after act1}}")
    one = sweep_spec(spec, tmp_path / "one", executor="local")
    # each share of 8 images in parts of 3, 3 and 2: gradients add up here before they are shared
    two = sweep_spec(spec, tmp_path / "two", ["execution.devices=2", "train.micro_batch=3"], executor="local")
    whole, faulty = (two.result(record["trials"]["0"]) for record in two.variants)
    assert whole is not None
    assert whole["status"] == "finished"
    # Sums over a batch in another order differ by an ulp, 1e-7, and six steps at these rates multiply that by little.
    for wanted, found in zip(rows_of(one), rows_of(two), strict=True):
        assert found == pytest.approx(wanted, rel=1e-4)
    for name, tensor in state_of(one).items():
        torch.testing.assert_close(state_of(two)[name], tensor, rtol=1e-4, atol=1e-6)
    assert faulty is not None
    assert faulty["status"] == "crashed"
    assert "a bug on the second device" in faulty["error"]["traceback"]
    assert multiprocessing.active_children() == []
    assert len(two.exposures()) == 1


@pytest.mark.usefixtures("two_cpus")
def test_the_certificate_says_what_a_device_sees(tmp_path: Path) -> None:
    from ablate.prepare import prepare

    plan = study_plan(load(spec_in(tmp_path), sets=["execution.devices=2"]))
    (certificate,) = prepare(plan, measure=False).certificates.values()
    assert any("batch norm, where there is any, sees 8 of its 16 images" in each for each in certificate.protocol)


@pytest.mark.usefixtures("two_cpus")
@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["train.batch_size=3"], r"execution\.devices: 2 devices share batches of 3 images: at least 2 each"),
        (["execution.threads=2"], "2 threads on 2 devices a trial are more than the 2 cores here"),
    ],
)
def test_more_devices_than_there_is_work_or_room_for_are_refused(tmp_path: Path, sets: list[str], message: str) -> None:
    plan = study_plan(load(spec_in(tmp_path), sets=["execution.devices=2", *sets]))
    with pytest.raises(UserError, match=message):
        resolving.on_this_machine(plan)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("ray_session", "two_cpus")
def test_ray_gives_what_local_processes_give_bit_for_bit(tmp_path: Path, sweep_spec: Sweep) -> None:
    spec = spec_in(tmp_path, "faulty: {network.insert.fault: {block: second_fails, at: after act1}}")
    here = sweep_spec(spec, tmp_path / "here", ["execution.devices=2"], executor="local")
    there = sweep_spec(spec, tmp_path / "there", ["execution.devices=2"], executor="ray")
    assert rows_of(here) == rows_of(there)
    mine, theirs = state_of(here), state_of(there)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    faulty = there.result(there.variants[1]["trials"]["0"])
    assert faulty is not None
    assert faulty["status"] == "crashed"
    assert "a bug on the second device" in faulty["error"]["traceback"]


@pytest.mark.slow
@pytest.mark.usefixtures("two_cpus")
def test_a_trial_one_of_whose_processes_is_killed_again_and_again_is_lost(tmp_path: Path, sweep_spec: Sweep) -> None:
    spec = spec_in(tmp_path, "faulty: {network.insert.fault: {block: second_fails, killed: true, at: after act1}}")
    study = sweep_spec(spec, tmp_path / "s", ["execution.devices=2", "execution.retries=1"], executor="local")
    whole, faulty = (study.result(record["trials"]["0"]) for record in study.variants)
    assert whole is not None
    assert whole["status"] == "finished"
    assert faulty is not None
    assert faulty["status"] == "lost"
    assert "one of its 2 processes was ended from outside" in str(faulty["error"])
    assert multiprocessing.active_children() == []


@pytest.mark.slow
@pytest.mark.usefixtures("two_cpus")
def test_running_statistics_are_those_of_the_first_ranks_shares(tmp_path: Path, sweep_spec: Sweep) -> None:
    sets = [
        "network.graph.norm={block: batch_norm}",
        "train.epochs=1",
        "train.batch_size=46",
        "train.ema=null",
        "train.select=last",
    ]
    study = sweep_spec(spec_in(tmp_path), tmp_path / "s", ["execution.devices=2", *sets], executor="local")
    plan = study_plan(load(spec_in(tmp_path), sets=sets))
    (variant,) = plan.variants
    data = load_data(variant.data, base=tmp_path)
    batches = Batches(data.train, data, variant.data.augment, 46, 0)
    x, _ = next(iter(batches.epoch(0)))
    assert len(x) == 46
    start = variant.network.built(0).get_parameter("conv1.weight")
    seen = nn.functional.conv2d(x[:23], start, padding=1).transpose(0, 1).flatten(1).detach()
    torch.testing.assert_close(state_of(study)["norm.running_mean"], 0.1 * seen.mean(1), rtol=1e-5, atol=1e-6)


def test_one_device_needs_no_process_group() -> None:
    train(trial(), arrays())
    assert not torch.distributed.is_initialized()
    network = nn.Linear(2, 3)
    assert ALONE.wrap(network) is network
    assert np.arange(5)[ALONE.share(5)].tolist() == [0, 1, 2, 3, 4]
