"""DenseNet's layer and transition, and upsampling, against torchvision's own and formulas written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models.densenet import _DenseLayer, _Transition

from ablate.block import Block, find
from ablate.costing import count_flops

Scope = Callable[..., Any]
Noise = Callable[..., Tensor]


def with_weights_of(theirs: nn.Module, scope: Any, prefix: str) -> None:
    """Every parameter at random, and the same in both; ``norm`` there is ``bn`` here."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in theirs.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) / 3)
    for name, module in scope.modules.items():
        own = name.removeprefix(prefix).replace("bn", "norm")
        if module.state_dict():
            module.train().load_state_dict(theirs.get_submodule(own).state_dict())


def test_a_dense_layer_is_torchvisions_with_its_input_kept(tiny_scope: Scope, noise: Noise) -> None:
    scope, x = tiny_scope((7, 5, 3)), noise(2, 7, 5, 3).float()
    output = scope.add("d", "dense_layer", "input", growth=11, bottleneck=3)
    theirs = _DenseLayer(7, growth_rate=11, bn_size=3, drop_rate=0.0)
    with_weights_of(theirs, scope, "d.")
    y = scope.run(x)[output]
    assert scope.shape(output) == (18, 5, 3)
    assert torch.equal(y[:, :7], x)
    assert torch.equal(y[:, 7:], theirs.train()(x))


def test_a_transition_is_torchvisions(tiny_scope: Scope, noise: Noise) -> None:
    scope, x = tiny_scope((7, 5, 11)), noise(2, 7, 5, 11).float()
    output = scope.add("t", "transition", "input")
    theirs = _Transition(7, 3)
    with_weights_of(theirs, scope, "t.")
    assert scope.shape(output) == (3, 2, 5)
    assert torch.equal(scope.run(x)[output], theirs.train()(x))


@pytest.mark.parametrize(
    ("params", "nodes"),
    [
        ({}, "bn1 act1 conv1 bn2 act2 conv2 concat"),
        ({"dropout": 0.2}, "bn1 act1 conv1 dropout1 bn2 act2 conv2 dropout2 concat"),
        ({"bottleneck": 0}, "bn2 act2 conv2 concat"),
        ({"norm": "none", "act": "none"}, "bn1 act1 conv1 bn2 act2 conv2 concat"),
    ],
)
def test_the_nodes_of_a_dense_layer(tiny_scope: Scope, params: dict[str, Any], nodes: str) -> None:
    scope = tiny_scope((7, 5, 3))
    scope.add("d", "dense_layer", "input", growth=3, **params)
    assert list(scope.modules) == [f"d.{node}" for node in nodes.split()]
    assert scope.inputs["d.concat"] == ("input", f"d.{nodes.split()[-2]}")


def test_the_nodes_of_a_transition(tiny_scope: Scope) -> None:
    scope = tiny_scope((7, 5, 3))
    scope.add("t", "transition", "input", dropout=0.2, stride=3)
    assert list(scope.modules) == ["t.bn", "t.act", "t.conv", "t.dropout", "t.pool"]
    assert scope.shape("t.pool") == (3, 1, 1)


@example(channels=100, hundredths=29)
@given(channels=st.integers(1, 300), hundredths=st.integers(1, 100))
def test_compression_is_rounded_down_as_it_is_written(channels: int, hundredths: int) -> None:
    """0.29 of 100 channels are 29, though their product is a little less in binary."""
    found: list[int] = []

    class Recorder:
        def add(self, name: str, block: str, *inputs: str, **params: Any) -> str:
            found.extend([params["width"]] if block == "conv" else [])
            return name

        def shape(self, value: str) -> tuple[int, ...]:
            return (channels, 5, 7)

    block: Any = find("transition")
    block.expand(Recorder(), block.Params(compression=hundredths / 100), "x")
    assert found == [max(1, channels * hundredths // 100)]


# upsampling --------------------------------------------------------------------------------------------------------


def test_nearest_reads_the_pixel_that_its_formula_says(make: Callable[..., Any], noise: Noise) -> None:
    x = noise(2, 3, 5, 7)
    y = make("upsample", (3, 5, 7), size=11)(x)
    for i in range(11):
        for j in range(11):
            assert torch.equal(y[:, :, i, j], x[:, :, i * 5 // 11, j * 7 // 11])
    doubled = make("upsample", (3, 5, 7))(x)
    assert torch.equal(doubled, x.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_bilinear_is_two_matrices_of_weights(make: Callable[..., Any], noise: Noise) -> None:
    def weights(before: int, after: int) -> Tensor:
        matrix = torch.zeros(after, before, dtype=torch.float64)
        for i in range(after):
            place = (i + 0.5) * before / after - 0.5
            place = max(place, 0.0)
            low = int(place)
            high = min(low + 1, before - 1)
            matrix[i, low] += 1 - (place - low)
            matrix[i, high] += place - low
        return matrix

    x = noise(2, 3, 5, 7)
    for params, (height, width) in (({"factor": 3}, (15, 21)), ({"size": 13}, (13, 13))):
        y = make("upsample", (3, 5, 7), kind="bilinear", **params)(x)
        torch.testing.assert_close(y, weights(5, height) @ x @ weights(7, width).T)
        assert y.shape == (2, 3, height, width)


def test_what_says_the_same_size_is_one_network() -> None:
    block: Any = find("upsample")
    shape = (3, 5, 5)
    effective = [block.effective(block.Params(**params), shape) for params in ({}, {"factor": 2}, {"size": 10})]
    assert effective == [{"kind": "nearest", "height": 10, "width": 10}] * 3
    for params in ({"factor": 1}, {"size": 5}, {"size": 5, "kind": "bilinear"}):
        assert block.is_identity(block.Params(**params), shape)
    assert not block.is_identity(block.Params(size=5), (3, 4, 5))


def test_factor_and_size_at_once_and_a_smaller_size_are_refused_in_words() -> None:
    block: Any = find("upsample")
    with pytest.raises(ValueError, match="factor 2 and size 7: only one of them can decide; leave one out"):
        block.Params(factor=2, size=7)
    with pytest.raises(ValueError, match="'upsample': size 5 is smaller than the input's 7 × 3"):
        block(block.Params(size=5), (2, 7, 3))
    with pytest.raises(ValueError, match=r"'upsample' reads an input of shape \(C, H, W\) and was given \(7,\)"):
        block(block.Params(), (7,))


@pytest.mark.parametrize("kind", ["nearest", "bilinear"])
def test_upsampling_counts_as_no_multiplication(kind: str) -> None:
    block: Any = find("upsample")
    assert issubclass(block, Block)
    assert count_flops(block(block.Params(kind=kind), (3, 5, 7)), ((3, 5, 7),)) == (0, ())


def test_a_dense_block_costs_what_its_formula_says(tiny_scope: Scope) -> None:
    """Layer l of a dense block reads c + l·k channels: (c + l·k)·4k weights, and 9·4k·k."""
    scope, c, k = tiny_scope((7, 5, 3)), 7, 11
    value = "input"
    for layer in range(3):
        value = scope.add(str(layer), "dense_layer", value, growth=k)
    weights = sum((c + layer * k) * 4 * k + 9 * 4 * k * k for layer in range(3))
    norms = sum(2 * (c + layer * k) + 2 * 4 * k for layer in range(3))
    assert scope.params() == weights + norms
    flops = sum(
        count_flops(module.eval(), tuple(scope.shapes[v] for v in scope.inputs[name]))[0]
        for name, module in scope.modules.items()
    )
    assert flops == 15 * weights
