"""Every block, in a network of its own, ejected: equal outputs, gradients and statistics, to the last bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ejected import assert_same_network, ejected, plain_network
from test_block_contract import Case, cases

from ablate.block import Shape, find
from ablate.builder import build
from ablate.graph import INPUT, Graph, GraphBuilder


def network_of(case: Case) -> Graph:
    """The block, reading the input and, at further ports, what a layer makes of the input; and again what it gives."""
    block, params, shapes = case
    builder = GraphBuilder(shapes[0], classes=5)

    def add(name: str, kind: str, *inputs: str, **given: Any) -> str:
        chosen = find(kind)
        return builder.place(name, chosen, chosen.Params(**given), inputs)

    values = [INPUT]
    for index, shape in enumerate(shapes[1:], start=1):
        values.append(add(f"port{index}", *_layer(shape, len(shapes[0])), INPUT, **_width(shape, shapes[0])))
    first = builder.place("scope.first", block, block.Params(**params), tuple(values))
    added = add("after", "scale", first, factor=0.5)
    return builder.finish(added)


def _layer(shape: Shape, rank: int) -> tuple[str]:
    return ("conv",) if rank == 3 else ("linear",)


def _width(shape: Shape, source: Shape) -> dict[str, Any]:
    return {"width": shape[-1 if len(shape) == 2 else 0]}


@pytest.mark.parametrize("case", cases())
def test_an_ejected_block_is_the_block(case: Case) -> None:
    graph = network_of(case)
    torch.manual_seed(3)
    assert_same_network(build(graph, seed=1), plain_network(ejected(graph)), graph.input_shape)
