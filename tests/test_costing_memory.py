"""Activation memory against closed forms and against what real tensors keep; latency with a clock of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import networks
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_graph import graph_of

from ablate.builder import build, parameter_digests, seed_noise
from ablate.costing import Bench, memory_of, summary, timed
from ablate.costing.latency import LEAST_RUNS, MOST_RUNS, WARM_UP
from ablate.graph import Graph

BATCH = 3
C, H, W = 5, 11, 13
"""The input of ``graph_of``."""
IMAGE = 4 * BATCH * C * H * W
"""Bytes of a batch."""
WIDE = 4 * BATCH * 7 * H * W
"""Bytes of a batch of 7 channels."""


def saved(graph: Graph, **options: Any) -> dict[str, int]:
    return {row.name: row.saved for row in memory_of(graph, BATCH, **options).rows}


CHAIN = {
    "conv": {"block": "conv", "width": 7},
    "bn": {"block": "batch_norm"},
    "relu": {"block": "act"},
    "pool": {"block": "global_pool"},
    "head": {"block": "linear", "width": 2},
}


def test_a_convolution_keeps_its_input_batch_norm_its_own_and_relu_its_output() -> None:
    found = saved(graph_of(CHAIN))
    mean_and_deviation = 2 * 4 * 7
    # the mean over pixels keeps nothing, and the linear layer what it reads
    assert found == {"conv": IMAGE, "bn": WIDE + mean_and_deviation, "relu": WIDE, "pool": 0, "head": 4 * BATCH * 7}
    assert memory_of(graph_of(CHAIN), BATCH).saved == sum(found.values())


def test_what_two_nodes_keep_is_counted_once_at_the_first() -> None:
    found = saved(graph_of({"relu": {"block": "act"}, "conv": {"block": "conv", "width": 7}}))
    # no gradient reaches the relu, which stands before all parameters; what the convolution reads is kept for it
    assert found == {"relu": 0, "conv": IMAGE}
    behind = {"first": {"block": "conv", "width": 7}, "relu": {"block": "act"}, "second": {"block": "conv", "width": 7}}
    assert saved(graph_of(behind)) == {"first": IMAGE, "relu": WIDE, "second": 0}


def test_frozen_parameters_need_nothing_kept() -> None:
    chain = {name: CHAIN[name] for name in ("conv", "bn", "relu")}
    assert saved(graph_of(chain), frozen=("conv", "bn")) == {"conv": 0, "bn": 0, "relu": 0}
    assert saved(graph_of(chain), frozen=("conv",)) == saved(graph_of(chain)) | {"conv": 0}
    # a frozen norm passes the gradient on by its running statistics: torch keeps its input, but nothing per channel
    assert saved(graph_of(chain), frozen=("bn",)) == {"conv": IMAGE, "bn": WIDE, "relu": WIDE}


def test_memory_grows_with_the_batch() -> None:
    one, three = (memory_of(networks.resnet20(), batch) for batch in (1, 3))
    statistics = sum(2 * 4 * node.shape[0] for node in networks.resnet20().nodes if node.block.name == "batch_norm")
    assert three.saved - statistics == 3 * (one.saved - statistics)
    assert three.peak == 3 * one.peak


@pytest.mark.parametrize("heads", [1, 5])
def test_attention_keeps_no_matrix_in_either_layout(heads: int) -> None:
    graph = graph_of({"first": {"block": "conv", "width": 10}, "a": {"block": "multi_head_attention", "heads": heads}})
    pixels = H * W
    logsumexp = 4 * BATCH * heads * pixels
    # its input; query, key, value; the output, which the last convolution reads; a number for each row
    values = 4 * BATCH * 10 * pixels
    assert saved(graph)["a"] == 5 * values + logsumexp
    # channels first: the kernel keeps its output as it made it, the convolution one in the layout of the image
    assert saved(graph, channels_last=False)["a"] == 6 * values + logsumexp


def kept_by_real_tensors(graph: Graph, channels_last: bool) -> int:
    """What autograd keeps of a real training step on the CPU, parameters and buffers left out."""
    network = build(graph).train()
    seed_noise(network, 0, 0)
    x = torch.rand(BATCH, *graph.input_shape)
    if channels_last:
        network.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(x)
    return sum(storage.nbytes() for storage in kept.values())


EVERYTHING = (
    "a: {block: cbam, at: after stage1, residual: plain}\nb: {block: multi_head_attention, at: after stage3, "
    "residual: weighted}\nd: {block: dropout, at: before head}\ng: {block: ai_gate, at: before stage2.*.conv*}\n"
    "s: {block: drop_path, rate: 0.5, at: before stage3.*.add:branch}"
)


@pytest.mark.parametrize("channels_last", [True, False])
def test_memory_is_what_a_real_step_keeps(channels_last: bool) -> None:
    graph = networks.resnet20(EVERYTHING)
    assert memory_of(graph, BATCH, channels_last=channels_last).saved == kept_by_real_tensors(graph, channels_last)


def test_the_memory_of_tokens_is_what_a_real_step_keeps() -> None:
    graph = networks.graph(
        {
            "graph": {
                "patch": {"block": "patch_embed", "width": 22, "patch": 3},
                "token": {"block": "class_token"},
                "position": {"block": "position_embedding", "rows": 3},
                "encoder": {"block": "transformer", "heads": 2, "repeat": 2},
                "head": {"block": "token_classifier"},
            }
        },
        (3, 9, 15),
    )
    assert memory_of(graph, BATCH).saved == kept_by_real_tensors(graph, True)


def alive(nodes: dict[str, Any]) -> dict[str, int]:
    return {row.name: row.live for row in memory_of(graph_of(nodes), BATCH).rows}


def test_a_value_is_alive_until_its_last_reader_has_run() -> None:
    found = alive(
        {
            "conv": {"block": "conv", "width": C},
            "relu": {"block": "act"},
            "add": {"block": "add", "from": ["relu", "conv"]},
            "pool": {"block": "global_pool"},
        }
    )
    pooled = 4 * BATCH * C
    assert found == {"conv": 2 * IMAGE, "relu": 2 * IMAGE, "add": 3 * IMAGE, "pool": IMAGE + pooled}


def test_views_of_one_storage_are_alive_together_and_count_once() -> None:
    found = alive(
        {
            "conv": {"block": "conv", "width": C},
            "same": {"block": "identity"},
            "relu": {"block": "act"},
            "add": {"block": "add", "from": ["relu", "same"]},
        }
    )
    assert found == {"conv": 2 * IMAGE, "same": IMAGE, "relu": 2 * IMAGE, "add": 3 * IMAGE}


def test_the_peak_is_the_most_that_is_alive_and_names_its_node() -> None:
    nodes = {"wide": {"block": "conv", "width": 7}, "narrow": {"block": "conv", "width": 2}}
    found = memory_of(graph_of(nodes), BATCH)
    assert (found.peak, found.peak_node) == (IMAGE + WIDE, "wide")


def test_memory_is_summed_by_stage_and_by_insertion() -> None:
    found = memory_of(networks.resnet20(EVERYTHING), BATCH)
    assert sum(found.saved_by_stage().values()) == found.saved
    rows = [row for row in found.rows if row.insertion == "a"]
    assert found.saved_by_insertion()["a"] == sum(row.saved for row in rows) > 0
    assert set(found.saved_by_insertion()) == {"a", "b", "d", "g", "s"}


def test_measuring_memory_draws_no_random_numbers_and_holds_any_batch() -> None:
    state = torch.get_rng_state()
    assert memory_of(networks.resnet20(EVERYTHING), 10**6).saved > 10**11
    assert torch.equal(torch.get_rng_state(), state)


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=31))
def test_the_summary_is_numpys_median_and_quartiles(seconds: list[float]) -> None:
    found = summary(seconds)
    expected = np.percentile(seconds, [25, 50, 75])
    assert [found.low, found.median, found.high] == pytest.approx(expected.tolist())
    assert found.runs == len(seconds)


def test_nothing_timed_has_no_summary() -> None:
    with pytest.raises(ValueError, match="no run"):
        summary([])


class Machine:
    """A clock that only moves when something is called, and a device that is done only when it is waited for."""

    def __init__(self, **costs: Iterator[float]) -> None:
        self.now, self.pending, self.costs = 0.0, 0.0, costs
        self.calls: list[str] = []

    def call(self, name: str) -> Callable[[], None]:
        def run() -> None:
            self.calls.append(name)
            self.pending += next(self.costs[name])

        return run

    def done(self) -> None:
        self.now, self.pending = self.now + self.pending, 0.0

    def clock(self) -> float:
        return self.now


def test_the_warm_up_does_not_count_and_networks_take_turns() -> None:
    machine = Machine(a=iter([100.0] * WARM_UP + [1.0, 2.0, 3.0, 4.0, 5.0]), b=iter([100.0] * WARM_UP + [7.0] * 5))
    calls = {name: machine.call(name) for name in "ab"}
    found = timed(calls, clock=machine.clock, done=machine.done, least_runs=5, least_seconds=0)
    assert machine.calls == ["a"] * WARM_UP + ["b"] * WARM_UP + ["a", "b"] * 5
    assert (found["a"].median, found["a"].low, found["a"].high) == (3.0, 2.0, 4.0)
    assert (found["b"].median, found["b"].low, found["b"].high) == (7.0, 7.0, 7.0)


@pytest.mark.parametrize(
    ("cost", "runs"), [(0.5, LEAST_RUNS), (0.01, 100), (1e-9, MOST_RUNS)], ids=["slow", "fast", "at once"]
)
def test_what_is_fast_is_timed_more_often(cost: float, runs: int) -> None:
    machine = Machine(a=iter(lambda: cost, None))
    found = timed({"a": machine.call("a")}, clock=machine.clock, done=machine.done, least_seconds=1.0)
    assert found["a"].runs == pytest.approx(runs, abs=1)
    assert found["a"].median == pytest.approx(cost)


def bench(**options: Any) -> Bench:
    graph = networks.resnet20(EVERYTHING)
    return Bench(build(graph), graph.input_shape, 2, **options)


def test_a_forward_pass_changes_nothing_and_a_training_step_the_weights() -> None:
    found = bench()
    before = parameter_digests(found.network)
    found.forward()
    assert parameter_digests(found.network) == before
    assert not found.network.training
    found.step()
    assert found.network.training
    changed = {name for name, digest in parameter_digests(found.network).items() if digest != before[name]}
    assert {"stem.conv.weight", "head.fc.weight", "stem.bn.running_mean"} <= changed


@pytest.mark.parametrize("channels_last", [True, False])
def test_what_is_timed_has_the_layout_of_the_study(channels_last: bool) -> None:
    found = bench(channels_last=channels_last)
    weight = found.network.get_parameter("stage1.0.conv1.weight")
    for tensor in (weight, found.images):
        assert tensor.is_contiguous(memory_format=torch.channels_last) == channels_last
    assert found.images.shape == (2, 3, 13, 17)


def test_every_node_is_timed_under_its_name() -> None:
    ticks = iter(range(10**6))
    found = bench().by_node(clock=lambda: float(next(ticks)))
    graph = networks.resnet20(EVERYTHING)
    assert set(found) == {node.name for node in graph.nodes}
    assert {latency.runs for latency in found.values()} == {LEAST_RUNS}
    assert {latency.median for latency in found.values()} == {1.0}
