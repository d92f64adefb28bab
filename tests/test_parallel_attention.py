"""Attentions in parallel: the same modules wired by hand, names, costs, and what can't be a path."""

from __future__ import annotations

from typing import Any

import networks
import pytest
import torch

from ablate.block import find
from ablate.builder import build
from ablate.costing import cost_of

SHAPE = (16, 5, 7)
PATHS = "[{block: cbam, reduction: 4}, self_attention, {block: multi_head_attention, heads: 2}]"


def section(given: str) -> str:
    return f"graph: {{mix: {{block: parallel_attention, {given}}}}}"


def messages(given: str) -> list[str]:
    return [message.partition("network.graph.mix.")[2] for message in networks.messages(section(given))]


def test_paths_side_by_side_are_the_modules_wired_by_hand() -> None:
    network = build(networks.graph(section(f"blocks: {PATHS}"), SHAPE), seed=1).double()
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    part = network.get_submodule
    paths = [part("mix.cbam")(x), part("mix.self_attention")(x), part("mix.multi_head_attention")(x)]
    fit = part("mix.fit")
    assert fit.weight.shape == (16, 48, 1, 1)
    together = torch.einsum("dc,bchw->bdhw", fit.weight[:, :, 0, 0], torch.cat(paths, 1)) + fit.bias[:, None, None]
    torch.testing.assert_close(network(x), together)


def test_parameters_of_a_path_are_its_own_and_the_rest_are_the_blocks_defaults() -> None:
    nodes = networks.graph(section(f"blocks: {PATHS}"), SHAPE).by_name
    assert nodes["mix.cbam"].params == find("cbam").Params(reduction=4)
    assert nodes["mix.multi_head_attention"].params == find("multi_head_attention").Params(heads=2)
    filled = networks.graph(f"{section('blocks: [cbam, {block: cbam, kernel: 3}]')}\ndefaults: {{kernel: 5}}", SHAPE)
    assert [filled.by_name[f"mix.{name}"].params.kernel for name in ("cbam", "cbam2")] == [5, 3]  # type: ignore[attr-defined]


def test_what_parallel_paths_cost_is_what_each_costs_and_the_convolution() -> None:
    def cost(graph: str) -> tuple[int, int]:
        found = cost_of(networks.graph(graph, SHAPE))
        return found.params, found.flops

    alone = [cost(f"graph: {{a: {{block: {name}}}}}") for name in ("cbam, reduction: 4", "self_attention", "se")]
    together = cost(section("blocks: [{block: cbam, reduction: 4}, self_attention, se]"))
    fit = (48 * 16 + 16, 48 * 16 * 35)
    assert together == tuple(sum(column) for column in zip(*alone, fit, strict=True))


@pytest.mark.parametrize(("given", "width"), [("blocks: [se, se]", 16), ("blocks: [se], width: 2*$in", 32)])
def test_the_width_is_what_arrives_unless_another_is_given(given: str, width: int) -> None:
    graph = networks.graph(section(given), SHAPE)
    assert graph.shape(graph.output) == (width, 5, 7)
    assert ("mix.concat" in graph.by_name) == ("[se, se]" in given)


def test_a_path_left_out_leaves_the_others_as_they_start() -> None:
    """A node has its block's name, not its number among the paths: names seed the parameters."""
    both, one = (
        build(networks.graph(section(f"blocks: {paths}"), SHAPE), seed=5) for paths in ("[se, cbam]", "[cbam]")
    )
    wanted, found = both.get_submodule("mix.cbam").state_dict(), one.get_submodule("mix.cbam").state_dict()
    assert all(torch.equal(wanted[key], found[key]) for key in wanted)


def test_after_each_stage_with_a_residual() -> None:
    line = "both: {block: parallel_attention, blocks: [cbam, self_attention], at: after stage*, residual: plain}"
    graph = networks.resnet20(line)
    names = [node.name for node in graph.insertion_nodes("both") if node.name.startswith("stage2")]
    parts = ("cbam", "self_attention", "concat", "fit")
    assert names == [*(f"stage2_both.{part}" for part in parts), "stage2_both_residual"]
    assert graph.shape("stage2_both.fit") == graph.shape("stage2.2.act") == (32, 7, 9)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("blocks: [cbm]", "blocks.0: no block 'cbm'; did you mean 'cbam'?"),
        (
            "blocks: [se, {block: cbam, reducton: 8}]",
            "blocks.1: unknown parameter 'reducton' of block 'cbam'; did you mean 'reduction'?",
        ),
        ("blocks: [{block: se, reduction: 2.5}]", "blocks.0: 'se': reduction: Input should be a valid integer"),
        ("blocks: [add]", "blocks.0: 'add' joins several inputs and can't be a path"),
        ("blocks: [{reduction: 8}]", "blocks.0: a path is a block's name, or a mapping {block: NAME, …}"),
        ("blocks: []", "blocks: a list has too few items; at least 1"),
    ],
)
def test_what_can_not_be_a_path_is_said_at_its_place(given: str, said: str) -> None:
    assert messages(given) == [said]


def test_paths_of_other_sizes_do_not_fit_together() -> None:
    (message,) = networks.messages(section("blocks: [se, {block: max_pool, kernel: 2}]"))
    assert "'concat' needs shapes that differ in channels only and was given" in message


def test_an_image_is_wanted() -> None:
    block: Any = find("parallel_attention")
    graph = "graph: {pool: {block: global_pool}, mix: {block: parallel_attention, blocks: [se]}}"
    (message,) = networks.messages(graph)
    assert f"'{block.name}' reads an input of shape (C, H, W) and was given (3,)" in message
