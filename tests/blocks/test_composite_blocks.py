"""Composites: names of their nodes, wiring, and equality with He et al.'s and torchvision's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, conv1x1

from ablate.block import Stream, find

Scope = Callable[..., Any]
Streams = Callable[[int], Stream]
Noise = Callable[..., Tensor]


def resnet20(scope: Any) -> str:
    x = scope.add("stem", "conv_bn_act", "input", width=16)
    for stage, width in enumerate((16, 32, 64), start=1):
        for i in range(3):
            stride = 2 if stage > 1 and i == 0 else 1
            x = scope.add(f"stage{stage}.{i}", "basic", x, width=width, stride=stride, shortcut="pad")
    return str(scope.add("head", "classifier", x))


def test_resnet20_has_the_parameters_of_the_papers(tiny_scope: Scope) -> None:
    scope = tiny_scope((3, 32, 32))
    assert resnet20(scope) == "head.fc"
    assert scope.params() == 269_722
    assert [scope.shape(f"stage{i}.2.act") for i in (1, 2, 3)] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    # the closed form: stem, 18 convolutions, two norm parameters per channel, head
    convs = 3 * 16 + 6 * 16 * 16 + 16 * 32 + 5 * 32 * 32 + 32 * 64 + 5 * 64 * 64
    assert scope.params() == 9 * convs + 2 * (7 * 16 + 6 * 32 + 6 * 64) + 64 * 10 + 10


def test_resnet20_is_he_et_als_in_another_hand(tiny_scope: Scope, streams: Streams, noise: Noise) -> None:
    scope, x = tiny_scope((3, 32, 32)), noise(2, 3, 32, 32).float()
    output = resnet20(scope)
    scope.init(streams(3))
    weights = {
        f"{node}.{name}": value for node, module in scope.modules.items() for name, value in module.state_dict().items()
    }

    def norm(x: Tensor, name: str) -> Tensor:
        return F.batch_norm(x, None, None, weights[f"{name}.weight"], weights[f"{name}.bias"], training=True)

    y = F.relu(norm(F.conv2d(x, weights["stem.conv.weight"], padding=1), "stem.bn"))
    for stage in (1, 2, 3):
        for i in range(3):
            at, stride = f"stage{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            z = F.conv2d(y, weights[f"{at}.conv1.weight"], stride=stride, padding=1)
            z = norm(F.conv2d(F.relu(norm(z, f"{at}.bn1")), weights[f"{at}.conv2.weight"], padding=1), f"{at}.bn2")
            if stride == 2:
                quarter = torch.zeros_like(z[:, : z.shape[1] // 4])
                y = torch.cat([quarter, y[:, :, ::2, ::2], quarter], 1)
            y = F.relu(z + y)
    expected = F.linear(F.adaptive_avg_pool2d(y, 1).flatten(1), weights["head.fc.weight"], weights["head.fc.bias"])
    for module in scope.modules.values():
        module.train()
    torch.testing.assert_close(scope.run(x)[output], expected, rtol=1e-4, atol=1e-4)


def test_basic_with_projection_is_torchvisions(tiny_scope: Scope, streams: Streams, noise: Noise) -> None:
    scope, x = tiny_scope((5, 11, 7)), noise(3, 5, 11, 7).float()
    output = scope.add("block", "basic", "input", width=13, stride=2, shortcut="project")
    scope.init(streams(3))
    theirs = BasicBlock(5, 13, 2, torch.nn.Sequential(conv1x1(5, 13, 2), torch.nn.BatchNorm2d(13)))
    renamed = {"shortcut.conv": "downsample.0", "shortcut.bn": "downsample.1"}
    weights = {}
    for node, module in scope.modules.items():
        module.train()
        name = node.removeprefix("block.")
        weights |= {f"{renamed.get(name, name)}.{key}": value for key, value in module.state_dict().items()}
    theirs.load_state_dict(weights)
    torch.testing.assert_close(scope.run(x)[output], theirs(x))


@pytest.mark.parametrize(
    ("width", "stride", "shortcut", "nodes"),
    [
        (7, 1, "pad", ["shortcut:identity", "add:add"]),
        (7, 1, "project", ["shortcut:identity", "add:add"]),
        (7, 2, "pad", ["shortcut:pad_shortcut", "add:add"]),
        (11, 1, "pad", ["shortcut:pad_shortcut", "add:add"]),
        (7, 2, "project", ["shortcut.conv:conv", "shortcut.bn:batch_norm", "add:add"]),
        (11, 1, "project", ["shortcut.conv:conv", "shortcut.bn:batch_norm", "add:add"]),
        (11, 2, "none", []),
    ],
)
def test_the_nodes_of_basic(tiny_scope: Scope, width: int, stride: int, shortcut: str, nodes: list[str]) -> None:
    scope = tiny_scope((7, 5, 3))
    output = scope.add("b", "basic", "input", width=width, stride=stride, shortcut=shortcut)
    trunk = ["conv1:conv", "bn1:batch_norm", "act1:act", "conv2:conv", "bn2:batch_norm"]
    found = [f"{name}:{module.name}" for name, module in scope.modules.items()]
    assert found == [f"b.{node}" for node in [*trunk, *nodes, "act:act"]]
    assert output == "b.act"
    if nodes:
        last_of_shortcut = nodes[-2].split(":")[0]
        assert scope.inputs["b.add"] == ("b.bn2", f"b.{last_of_shortcut}")
        assert scope.inputs[f"b.{nodes[0].split(':')[0]}"] == ("input",)


def test_the_stride_of_basic_and_of_conv_bn_act_acts_once_in_a_repeat() -> None:
    for name in ("basic", "conv_bn_act", "conv", "pad_shortcut"):
        assert find(name).Params.model_json_schema()["properties"]["stride"]["repeat"] == "first"


def test_conv_bn_act_keeps_its_act_node_without_an_activation(tiny_scope: Scope) -> None:
    scope = tiny_scope((3, 5, 7))
    assert scope.add("stem", "conv_bn_act", "input", width=11, kernel=5, stride=2, act="none") == "stem.act"
    assert list(scope.modules) == ["stem.conv", "stem.bn", "stem.act"]
    assert scope.modules["stem.act"].kind == "none"
    assert scope.shape("stem.act") == (11, 3, 4)
    assert scope.params() == 11 * 3 * 25 + 2 * 11


@pytest.mark.parametrize(
    ("shape", "rate", "nodes"),
    [
        ((7, 5, 3), 0.0, ["pool", "fc"]),
        ((7, 5, 3), 0.2, ["pool", "dropout", "fc"]),
        ((7,), 0.2, ["dropout", "fc"]),
    ],
)
def test_the_nodes_of_classifier(tiny_scope: Scope, shape: tuple[int, ...], rate: float, nodes: list[str]) -> None:
    scope = tiny_scope(shape, classes=13)
    output = scope.add("head", "classifier", "input", dropout=rate)
    assert list(scope.modules) == [f"head.{node}" for node in nodes]
    assert scope.shape(output) == (13,)
    assert scope.params() == 13 * 7 + 13
