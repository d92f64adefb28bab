"""The residual blocks of He et al., 2016 (arXiv:1603.05027), beside modules written by hand from its figure 4."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.builder import build
from tests.networks import graph, messages

ORDERS = ("original", "bn_after_add", "relu_before_add", "relu_only", "full")
Layers = list[tuple[nn.Module, nn.Module]]


def original(x: Tensor, layers: Layers, shortcut: nn.Module) -> Tensor:
    y = x
    for conv, bn in layers[:-1]:
        y = F.relu(bn(conv(y)))
    conv, bn = layers[-1]
    return F.relu(bn(conv(y)) + shortcut(x))


def bn_after_add(x: Tensor, layers: Layers, shortcut: nn.Module) -> Tensor:
    y = x
    for conv, bn in layers[:-1]:
        y = F.relu(bn(conv(y)))
    conv, bn = layers[-1]
    return F.relu(bn(conv(y) + shortcut(x)))


def relu_before_add(x: Tensor, layers: Layers, shortcut: nn.Module) -> Tensor:
    y = x
    for conv, bn in layers:
        y = F.relu(bn(conv(y)))
    return y + shortcut(x)


def relu_only(x: Tensor, layers: Layers, shortcut: nn.Module) -> Tensor:
    y = x
    for conv, bn in layers:
        y = bn(conv(F.relu(y)))
    return y + shortcut(x)


def full(x: Tensor, layers: Layers, shortcut: nn.Module) -> Tensor:
    y = x
    for conv, bn in layers:
        y = conv(F.relu(bn(y)))
    return y + shortcut(x)


BY_HAND: dict[str, Callable[[Tensor, Layers, nn.Module], Tensor]] = {
    "original": original,
    "bn_after_add": bn_after_add,
    "relu_before_add": relu_before_add,
    "relu_only": relu_only,
    "full": full,
}


def layers(order: str, widths: list[int], kernels: list[int], strided: int, stride: int) -> Layers:
    made: Layers = []
    for i, kernel in enumerate(kernels):
        step = stride if i == strided else 1
        conv = nn.Conv2d(widths[i], widths[i + 1], kernel, step, kernel // 2, bias=False)
        made.append((conv, nn.BatchNorm2d(widths[i] if order == "full" else widths[i + 1])))
    return made


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("width", "stride"), [(5, 1), (7, 2)])
@pytest.mark.parametrize("block", ["pre_activation", "pre_activation_bottleneck"])
def test_an_order_is_the_papers(order: str, width: int, stride: int, block: str) -> None:
    bottleneck = block == "pre_activation_bottleneck"
    channels = 4 * width if bottleneck and stride == 1 else 5
    widths = [channels, width, width, 4 * width] if bottleneck else [channels, width, width]
    kernels, strided = ([1, 3, 1], 1) if bottleneck else ([3, 3], 0)
    node = {"block": block, "width": width, "stride": stride, "order": order}
    ours = build(graph({"graph": {"b": node}}, (channels, 11, 7))).train()
    torch.manual_seed(2)
    theirs = layers(order, widths, kernels, strided, stride)
    weights = {f"b.conv{i}": conv for i, (conv, _) in enumerate(theirs, 1)}
    weights |= {f"b.bn{i}": bn for i, (_, bn) in enumerate(theirs, 1)}
    shortcut: nn.Module = nn.Identity()
    if stride > 1:
        projection = nn.Conv2d(channels, widths[-1], 1, stride, bias=False)
        shortcut = nn.Sequential(projection, nn.BatchNorm2d(widths[-1]))
        weights |= {"b.shortcut.conv": projection, "b.shortcut.bn": shortcut[1]}
    for module in weights.values():
        nn.init.normal_(module.weight)
    state = {f"{name}.{key}": value for name, m in weights.items() for key, value in m.state_dict().items()}
    ours.load_state_dict(state)
    x = torch.randn(3, channels, 11, 7)
    torch.testing.assert_close(ours(x), BY_HAND[order](x, theirs, shortcut), rtol=1e-4, atol=1e-4)


def test_the_original_order_is_the_basic_block() -> None:
    shape = (5, 11, 7)
    one = graph({"graph": {"b": {"block": "basic", "width": 7, "stride": 2, "shortcut": "pad"}}}, shape)
    other = {"block": "pre_activation", "order": "original", "width": 7, "stride": 2, "shortcut": "pad"}
    assert graph({"graph": {"b": other}}, shape).fingerprint == one.fingerprint


def test_the_first_block_may_activate_before_it_splits() -> None:
    node = {"block": "pre_activation", "width": 5, "split": "activated", "repeat": 2}
    nodes = graph({"graph": {"b": node}}, (5, 7, 7)).by_name
    assert nodes["b.0.shortcut"].inputs == ("b.0.act1",)
    assert nodes["b.1.shortcut"].inputs == ("b.0.add",)


def test_an_order_without_an_activation_before_the_split_refuses_to_split_after_it() -> None:
    node = {"block": "pre_activation", "width": 5, "order": "original", "split": "activated"}
    (message,) = messages({"graph": {"b": node}})
    assert "order 'original' has no activation before conv1" in message


def nodes_of(**params: Any) -> list[str]:
    return [node.name for node in graph({"graph": {"b": {"block": "pre_activation", "width": 3, **params}}}).nodes]


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_has_the_same_parts(order: str) -> None:
    parts = {"b.conv1", "b.conv2", "b.bn1", "b.bn2", "b.act1", "b.shortcut", "b.add"}
    last = {"b.act"} if order in ("original", "bn_after_add") else {"b.act2"}
    assert set(nodes_of(order=order)) == parts | last


def test_norm_act_is_a_norm_and_an_activation() -> None:
    nodes = graph({"graph": {"last": {"block": "norm_act"}}}).nodes
    assert [(node.name, node.block.name) for node in nodes] == [("last.bn", "batch_norm"), ("last.act", "act")]
    off = graph({"graph": {"last": {"block": "norm_act", "norm": "none", "act": "none"}}}).nodes
    assert all(node.is_identity for node in off)
