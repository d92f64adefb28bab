from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import networks
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_graph import CHANNELS, chains, graph_of
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ablate.block import Block, BlockParams, Shape, find
from ablate.builder import build, parameter_digests
from ablate.costing import Cost, cost, cost_of, count_flops
from ablate.graph import INPUT, Graph, GraphBuilder

CIFAR = (3, 32, 32)
STAGES = [(16, 32 * 32), (32, 16 * 16), (64, 8 * 8)]
"""Channels and pixels after each stage, for 32 × 32 images."""


def resnet(insert: str = "", shape: Shape = CIFAR) -> Graph:
    return networks.resnet20(insert, shape, classes=10)


def torchs_count(module: nn.Module, *shapes: Shape) -> float:
    """Multiply-accumulates as ``torch.utils.flop_counter`` has them, which counts two operations for each."""
    # it does not know the fused attention of CPUs
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(*(torch.zeros(1, *shape) for shape in shapes))
    return counter.get_total_flops() / 2


def test_resnet20_has_the_published_parameters_and_the_counted_flops() -> None:
    found = cost_of(resnet())
    assert found.params == 269_722
    assert found.flops == 40_551_040
    assert found.uncounted == {}
    assert cost_of(resnet(shape=(1, 32, 32))).params == 269_434


def test_the_flops_of_resnet20_are_those_of_its_convolutions_and_classifier() -> None:
    by_hand = 27 * 16 * 1024 + 6 * 9 * 16 * 16 * 1024
    by_hand += 9 * 16 * 32 * 256 + 5 * 9 * 32 * 32 * 256 + 9 * 32 * 64 * 64 + 5 * 9 * 64 * 64 * 64 + 640
    found = cost_of(resnet())
    assert found.flops == by_hand
    assert {row.block for row in found.rows if row.flops} == {"conv", "linear"}
    assert torchs_count(build(resnet()), CIFAR) == by_hand


@pytest.mark.parametrize(
    ("insert", "params"),
    [
        ("a: {block: self_attention, at: after stage*, residual: weighted}", 286_189),
        ("a: {block: multi_head_attention, heads: 8, at: after stage*, residual: weighted}", 291_677),
        ("a: {block: cbam, reduction: 16, at: after stage*, residual: plain}", 270_691),
    ],
)
def test_the_three_attentions_have_the_papers_parameters(insert: str, params: int) -> None:
    assert cost_of(resnet(insert)).params == params
    assert sum(parameter.numel() for parameter in build(resnet(insert)).parameters()) == params


_CLOSED: dict[str, Callable[[int, int], int]] = {
    "self_attention": lambda c, n: 3 * c * c * n + 2 * n * n * c,
    "multi_head_attention": lambda c, n: 4 * c * c * n + 2 * n * n * c,
    "se": lambda c, n: 2 * c * (c // 16),
    "cbam": lambda c, n: 4 * c * (c // 16) + 2 * 49 * n,
}


@pytest.mark.parametrize("block", sorted(_CLOSED))
def test_attention_costs_what_its_closed_form_says(block: str) -> None:
    found = cost_of(resnet(f"a: {{block: {block}, at: after stage*, residual: weighted}}"))
    expected = sum(_CLOSED[block](channels, pixels) for channels, pixels in STAGES)
    assert found.by_insertion()["a"][1] == expected
    assert found.flops == 40_551_040 + expected


@settings(max_examples=25)
@given(
    st.sampled_from([1, 2, 3, 5]),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([1, 3, 5]),
    st.sampled_from([1, 2]),
    st.booleans(),
    st.tuples(st.integers(7, 13), st.integers(7, 13)),
)
def test_convolutions_cost_the_closed_form_and_torchs_count(
    per_group: int, stride: int, kernel: int, groups: int, bias: bool, size: tuple[int, int]
) -> None:
    shape, width = (groups * per_group, *size), groups * 7
    conv: Any = find("conv")
    params = conv.Params(width=width, kernel=kernel, stride=stride, groups=groups, bias=bias)
    height, breadth = (-(-side // stride) for side in size)
    flops, uncounted = count_flops(conv(params, shape), (shape,))
    assert flops == kernel**2 * per_group * width * height * breadth == torchs_count(conv(params, shape), shape)
    assert uncounted == ()


def test_linear_layers_cost_the_closed_form_and_torchs_count() -> None:
    module = networks.block("linear", (13,), width=17)
    assert count_flops(module, ((13,),))[0] == 13 * 17 == torchs_count(module, (13,))


@pytest.mark.parametrize(
    ("block", "params"),
    [("self_attention", {}), ("multi_head_attention", {"heads": 1}), ("multi_head_attention", {"heads": 11})],
)
def test_attention_costs_torchs_count(block: str, params: dict[str, int]) -> None:
    shape = (11, 5, 7)
    module = networks.block(block, shape, **params)
    assert count_flops(module, (shape,))[0] == _CLOSED[block](11, 35) == torchs_count(module, shape)


@pytest.mark.parametrize("heads", [2, 8])
def test_the_number_of_heads_costs_nothing(heads: int) -> None:
    shape = (16, 5, 7)
    one, many = (networks.block("multi_head_attention", shape, heads=count) for count in (1, heads))
    assert count_flops(one, (shape,)) == count_flops(many, (shape,))


@pytest.mark.parametrize("block", ["batch_norm", "act", "se", "cbam", "global_pool", "max_pool", "avg_pool", "dropout"])
def test_norms_poolings_and_elementwise_operations_cost_nothing_by_convention(block: str) -> None:
    shape = (17, 8, 7)
    module = networks.block(block, shape).eval()
    flops, uncounted = count_flops(module, (shape,))
    assert flops == (_CLOSED[block](17, 56) if block in _CLOSED else 0)
    assert uncounted == ()


class Planted(Block):
    """A block around any function, for operations that no counter knows."""

    name = "planted"
    act: Callable[[Tensor], Tensor]

    def __init__(self, params: BlockParams, shape: Shape) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return type(self).act(x)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x @ x.transpose(-1, -2) @ x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0]


def planted(act: Callable[[Tensor], Tensor]) -> Cost:
    kind = type("PlantedHere", (Planted,), {"act": staticmethod(act)})
    builder = GraphBuilder((5, 11, 13), 7)
    first = builder.place("odd", kind, BlockParams(), (INPUT,))
    act_block: Any = find("act")
    return cost_of(builder.finish(builder.place("even", act_block, act_block.Params(), (first,))))


@pytest.mark.parametrize(
    ("act", "operation"),
    [
        (lambda x: torch.fft.rfft2(x).abs(), "aten::fft_rfft2"),
        (lambda x: x.cumsum(1), "aten::cumsum"),
        (lambda x: torch.cdist(x, x), "aten::cdist"),
        (lambda x: x.sort(1).values, "aten::sort"),
        (lambda x: torch.linalg.svdvals(x)[..., None], "aten::linalg_svdvals"),
        (lambda x: x.topk(3, 1).values, "aten::topk"),
        (Doubled.apply, "prim::PythonOp.Doubled"),
    ],
)
def test_an_operation_that_nobody_counts_is_named_and_never_a_silent_0(act: Any, operation: str) -> None:
    found = planted(act)
    assert operation in found.uncounted["odd"]
    assert list(found.uncounted) == ["odd"]


def test_matrix_products_are_counted_however_they_are_written() -> None:
    expected = 5 * 11 * 13 * 11
    for act in (
        lambda x: x @ x.transpose(2, 3),
        lambda x: torch.einsum("bchw,bcvw->bchv", x, x),
        lambda x: torch.bmm(x.flatten(0, 1), x.flatten(0, 1).transpose(1, 2)).unflatten(0, (-1, 5)),
        lambda x: nn.functional.linear(x, torch.ones(11, 13)),
    ):
        found = planted(act)
        assert found.flops == expected
        assert found.uncounted == {}


def rows(found: Cost) -> list[tuple[Any, ...]]:
    return [
        (row.name, row.block, row.shape, row.params, row.flops, row.activations, row.uncounted) for row in found.rows
    ]


EVERYTHING = (
    "a: {block: cbam, at: after stage1, residual: plain}\nb: {block: multi_head_attention, at: after stage3, "
    "residual: weighted}\nd: {block: dropout, at: before head}\ng: {block: ai_gate, at: before stage2.*.conv*}"
)


def test_a_graph_costs_what_its_network_costs_row_by_row() -> None:
    graph = networks.resnet20(EVERYTHING)
    network = build(graph)
    for other in (network, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert rows(cost(other, (1, *graph.input_shape))) == rows(cost_of(graph))


@settings(max_examples=15)
@given(chains())
def test_any_graph_costs_what_its_network_costs(nodes: dict[str, Any]) -> None:
    graph = graph_of(nodes)
    network = build(graph)
    found = cost_of(graph)
    assert sorted(rows(found)) == sorted(rows(cost(network, (1, CHANNELS, 11, 13))))
    assert found.params == sum(parameter.numel() for parameter in network.parameters())
    assert found.flops == torchs_count(network, (CHANNELS, 11, 13))


def test_the_cost_is_that_of_one_example_whatever_the_batch() -> None:
    network = build(networks.resnet20(EVERYTHING))
    assert rows(cost(network, (1, 3, 13, 17))) == rows(cost(network, (5, 3, 13, 17)))


def test_counting_leaves_the_network_as_it_was() -> None:
    network = build(networks.resnet20(EVERYTHING)).train()
    network.get_submodule("stage1.0.bn1").eval()
    before = parameter_digests(network)
    modes = [module.training for module in network.modules()]
    state = torch.get_rng_state()
    cost(network, (1, 3, 13, 17))
    assert parameter_digests(network) == before
    assert [module.training for module in network.modules()] == modes
    cost_of(networks.resnet20(EVERYTHING, shape=(3, 19, 23)))
    assert torch.equal(torch.get_rng_state(), state)


def test_modes_come_back_when_counting_fails() -> None:
    network = build(networks.resnet20()).train()
    with pytest.raises(RuntimeError):
        cost(network, (1, 5, 13, 17))
    assert all(module.training for module in network.modules())


def test_a_module_that_two_nodes_call_has_its_parameters_counted_once_and_its_flops_twice() -> None:
    builder = GraphBuilder((5, 11, 13), 7)
    conv: Any = find("conv")
    first = builder.place("a", conv, conv.Params(width=5), (INPUT,))
    graph = builder.finish(builder.place("b", conv, conv.Params(width=5), (first,), module="a"))
    for found in (cost_of(graph), cost(build(graph), (1, 5, 11, 13))):
        assert found.params == 9 * 25
        assert found.flops == 2 * 9 * 25 * 11 * 13
        assert [row.name for row in found.rows] == ["a", "b"]


def test_activations_are_the_values_of_every_output() -> None:
    found = cost_of(graph_of({"a": {"block": "conv", "width": 7}, "b": {"block": "global_pool"}}))
    assert found.activations == 7 * 11 * 13 + 7


def test_a_node_that_passes_on_what_arrives_has_no_activations_of_its_own() -> None:
    """One network has one count, whether it was written with the identity or without."""
    graph = graph_of({"a": {"block": "conv", "width": 7}, "i": {"block": "identity"}, "b": {"block": "global_pool"}})
    for found in (cost_of(graph), cost(build(graph), (1, *graph.input_shape))):
        assert found.activations == 7 * 11 * 13 + 7


def test_costs_are_summed_by_stage_and_by_insertion() -> None:
    found = cost_of(resnet("a: {block: se, at: after stage*}\nb: {block: cbam, at: before head}"))
    stages, insertions = found.by_stage(), found.by_insertion()
    assert stages["stage1"] == (6 * (9 * 256 + 32), 6 * 9 * 256 * 1024)
    assert stages["head"] == (650, 640)
    assert [sum(column) for column in zip(*stages.values(), strict=True)] == [found.params, found.flops]
    assert set(insertions) == {"a", "b"}
    assert insertions["a"][0] + insertions["b"][0] == found.params - 269_722
