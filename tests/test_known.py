"""What is known before training: each metric is what the tool beneath it says, of the trial's own network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ablate import block as blocks
from ablate import known as module
from ablate.block import Block, BlockParams, Shape
from ablate.costing import Bench, Latency, cost_of, memory_of
from ablate.data.dataset import DataSpec, ImageData
from ablate.design import StudyPlan, study_plan
from ablate.errors import UserError
from ablate.known import Known
from ablate.numerics import Numerics
from ablate.prepare import loader
from ablate.space.grammar import KNOWN_METRICS
from ablate.spec import load
from ablate.zero_cost import grad_norm, naswot, synflow


class Raising(Block):
    """Meets a batch with an error, on the first call that is no shape's."""

    name = "test_known_raising"

    def __init__(self, params: BlockParams, shape: Shape) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 45:
            raise RuntimeError("not this batch")
        return x


def plan_of(spec: Path, **sets: Any) -> StudyPlan:
    return study_plan(load(spec, sets={key.replace("__", "."): value for key, value in sets.items()}))


def known_of(plan: StudyPlan, seed: int = 3, **numerics: Any) -> Known:
    return Known(loader(plan), Numerics(**numerics), seed)


def test_counted_metrics_need_neither_data_nor_a_network(tiny: Path) -> None:
    plan = plan_of(tiny, train__micro_batch=7)

    def no_data(spec: DataSpec) -> ImageData:
        raise AssertionError

    variant = plan.variant("se")
    found = Known(no_data, Numerics()).values(variant, ["memory", "flops", "params", "activations", "synflow"])
    cost = cost_of(variant.network.graph)
    assert found.pop("synflow") == pytest.approx(synflow(variant.network.built(0), torch.zeros(1, 3, 11, 13)))
    assert found == {
        "memory": memory_of(variant.network.graph, 7).saved,
        "flops": cost.flops,
        "params": cost.params,
        "activations": cost.activations,
    }


def test_scores_are_of_the_trials_network_on_training_images_that_all_variants_share(tiny: Path) -> None:
    plan = plan_of(tiny)
    data = loader(plan)(plan.variants[0].data)
    asked = ("naswot", "grad_norm")
    seen: list[tuple[Tensor, Tensor]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "grad_norm", lambda net, x, y: seen.append((x, y)) or grad_norm(net, x, y))
        known = known_of(plan)
        found = {variant.name: known.values(variant, asked) for variant in plan.variants}
    (x, y), *others = seen
    assert all(other[0] is x for other in others)
    assert len(x) == 45
    # the split's own pixels, normalised, each with its own label, in an order that is not the split's
    pixels = (np.moveaxis(x.numpy(), 1, -1) * data.std + data.mean) * 255
    off = np.abs(np.moveaxis(data.train.batch(np.arange(45)), 1, -1) - pixels[:, None]).max((2, 3, 4))
    rows = [*off.argmin(1)]
    assert off.min(1).max() < 1e-3
    assert sorted(rows) == list(range(45)) != rows
    assert (y.numpy() == data.train.labels[rows]).all()
    for variant in plan.variants:
        network = variant.network.built(3).to(memory_format=torch.channels_last)
        expected = {"naswot": naswot(network, x), "grad_norm": grad_norm(network, x, y)}
        assert found[variant.name] == pytest.approx(expected, rel=1e-6)
    assert len({values["grad_norm"] for values in found.values()}) == 3


def test_what_the_recipe_freezes_is_frozen(tiny: Path) -> None:
    whole, part = plan_of(tiny), plan_of(tiny, train__freeze=["stage1.0"])
    asked = ["grad_norm", "memory"]
    one, other = (known_of(plan).values(plan.variant("se"), asked) for plan in (whole, part))
    assert other["grad_norm"] < one["grad_norm"]
    assert other["memory"] < one["memory"]


def test_latency_is_the_median_of_forward_passes_of_a_batch(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benches: list[Bench] = []

    def timed(calls: dict[str, Callable[[], object]], **options: Any) -> dict[str, Latency]:
        for call in calls.values():
            call()
            benches.append(call.__self__)  # type: ignore[attr-defined]
        return {name: Latency(0.5, 0.25, 3.0, 1) for name in calls}

    monkeypatch.setattr(module, "timed", timed)
    plan = plan_of(tiny)
    assert known_of(plan).values(plan.variant("se"), ["latency", "synflow"])["latency"] == 0.5
    assert benches[0].images.shape == (64, 3, 11, 13)
    assert not benches[0].network.training


def test_everything_that_can_not_be_had_is_said_at_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(blocks._registry, Raising.name, Raising)
    tiny.write_text(tiny.read_text().replace("block: se,", f"block: {Raising.name},").replace("reduction: 2, ", ""))
    plan = plan_of(tiny)
    with pytest.raises(UserError) as caught:
        known_of(plan).values(plan.variant("between"), ["synflow", "grad_norm", "naswot"])
    said = [str(problem) for problem in caught.value.problems]
    why = "can't be had: a pass raises RuntimeError: not this batch"
    assert said == [f"{score} {why}" for score in ("grad_norm", "naswot")]


def test_every_metric_that_a_space_may_ask_for_is_here(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "timed", lambda calls, **options: {name: Latency(1.0, 1.0, 1.0, 1) for name in calls})
    plan = plan_of(tiny)
    found = known_of(plan).values(plan.variant("none"), KNOWN_METRICS)
    assert list(found) == list(KNOWN_METRICS)
    assert all(np.isfinite(value) for value in found.values())
