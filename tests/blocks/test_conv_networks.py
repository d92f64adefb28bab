"""Residual networks and their variants beside torchvision's and timm's own, with their weights copied."""

from __future__ import annotations

import re
from typing import Any

import pytest
import timm
import torch
import torchvision
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn
from torchvision.models._utils import _make_divisible

from ablate.builder import build
from ablate.expression import substitute
from ablate.graph import Graph
from tests.conftest import REPOSITORY
from tests.networks import graph


def randomised(module: nn.Module, seed: int = 5) -> dict[str, Tensor]:
    """Every weight and statistic of the module drawn anew, so that nothing hides behind a 0 or a 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name.endswith("running_var"):
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
            elif value.is_floating_point():
                fan_in = max(1, value[0].numel()) if value.dim() > 1 and value[0].numel() > 1 else 4
                value.copy_(torch.randn(value.shape, generator=generator) / fan_in**0.5)
    return dict(module.state_dict())


def load(ours: fx.GraphModule, theirs: dict[str, Tensor], rename: dict[str, str]) -> None:
    """Their weights under our names: each pattern of ``rename`` in turn. Nothing may be left over on either side."""
    renamed = {}
    for key, value in theirs.items():
        for pattern, name in rename.items():
            key = re.sub(pattern, name, key)
        renamed[key] = value
    shapes = {name: value.shape for name, value in ours.state_dict().items()}
    ours.load_state_dict({name: value.reshape(shapes[name]) for name, value in renamed.items()})


def assert_equal(ours: Graph, theirs: nn.Module, rename: dict[str, str], side: int) -> None:
    network = build(ours).eval()
    load(network, randomised(theirs), rename)
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        torch.testing.assert_close(network(x), theirs.eval()(x), rtol=1e-4, atol=1e-4)


RESNET = {
    r"^conv1\.": "stem.conv.",
    r"^bn1\.": "stem.bn.",
    r"^layer": "stage",
    r"downsample\.0": "shortcut.conv",
    r"downsample\.1": "shortcut.bn",
    r"^fc\.": "head.fc.",
}


@given(width=st.floats(0.1, 8), depth=st.floats(0.1, 8))
@settings(max_examples=200)
def test_efficientnets_channels_and_depths_are_rounded_as_the_authors_do(width: float, depth: float) -> None:
    section = yaml.safe_load((REPOSITORY / "specs/models/efficientnet_b0.yaml").read_text())["network"]
    names: dict[str, Any] = {}
    for name, value in (section["params"] | {"width": width, "depth": depth}).items():
        names[name] = substitute(value, names)
    for channels in (16, 24, 32, 40, 80, 112, 192, 320):
        assert names[f"c{channels}"] == _make_divisible(channels * width, 8)
    for blocks in (1, 2, 3, 4):
        assert names[f"n{blocks}"] == -int(-(blocks * depth) // 1)


def resnet(stem: str = "", **block: Any) -> dict[str, Any]:
    """ResNet-50 with a parameter of its blocks changed, narrow and one block a stage."""
    stages = {
        f"stage{i + 1}": {"block": "bottleneck", "width": 8 * 2**i, "stride": 1 + (i > 0), **block} for i in range(4)
    }
    first = {"stem": {"block": "conv_bn_act", "width": 64, "kernel": 7, "stride": 2}}
    if stem:
        first = {
            "stem1": {"block": "conv_bn_act", "width": 32, "stride": 2},
            "stem2": {"block": "conv_bn_act", "width": 32},
            "stem": {"block": "conv_bn_act", "width": 64},
        }
    pool = {"block": "max_pool", "kernel": 3, "stride": 2, "padding": 1}
    return {"graph": {**first, "pool": pool, **stages, "head": {"block": "classifier"}}}


@pytest.mark.parametrize("side", [64, 67])
def test_resnet_d_is_timms(side: int) -> None:
    """Sizes that two does not divide need a pooling window that hangs over the edge."""
    theirs = timm.create_model("resnet50d", num_classes=7, layers=(1, 1, 1, 1), channels=(8, 16, 32, 64))
    rename = {r"^conv1\.0": "stem1.conv", r"^conv1\.1": "stem1.bn", r"^conv1\.3": "stem2.conv"}
    rename |= {r"^conv1\.4": "stem2.bn", r"^conv1\.6": "stem.conv", r"^bn1": "stem.bn", r"^layer(\d)\.0": r"stage\1"}
    rename |= {r"downsample\.1": "shortcut.conv", r"downsample\.2": "shortcut.bn", r"^fc": "head.fc"}
    # at stage 1 nothing is pooled
    ours = graph(resnet("deep", shortcut="avg_project"), (3, side, side), 7)
    assert_equal(ours, theirs, rename, side)


def test_the_first_version_of_resnet_has_its_stride_in_the_first_convolution() -> None:
    steps = {}
    for version in ("v1", "v1.5"):
        nodes = graph(resnet(version=version), (3, 64, 64)).by_name
        steps[version] = [nodes[f"stage2.conv{i}"].params.stride for i in (1, 2, 3)]  # type: ignore[attr-defined]
    assert steps == {"v1": [2, 1, 1], "v1.5": [1, 2, 1]}


def test_resnext_is_torchvisions() -> None:
    block = torchvision.models.resnet.Bottleneck
    theirs = torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=7, groups=32, width_per_group=4)
    ours = {"graph": resnet(groups=32, expansion=2)["graph"]}
    for i in range(4):
        ours["graph"][f"stage{i + 1}"]["width"] = 128 * 2**i
    rename = {**RESNET, r"stage(\d)\.0": r"stage\1"}
    assert_equal(graph(ours, (3, 67, 67), 7), theirs, rename, 67)


@pytest.mark.parametrize(("norm", "block"), [("group", "group_norm"), ("layer", "layer_norm"), ("none", "identity")])
def test_norm_says_which_block_stands_in_every_bn(norm: str, block: str) -> None:
    section = {"graph": {"a": {"block": "conv_bn_act", "width": 32, "norm": norm}}}
    section["graph"]["b"] = {"block": "bottleneck", "width": 32, "stride": 2, "norm": norm}
    section["graph"]["c"] = {"block": "basic", "width": 64, "stride": 2, "norm": norm}
    found = {node.name: node.block.name for node in graph(section).nodes if "bn" in node.name}
    assert found == dict.fromkeys(
        ["a.bn", "b.bn1", "b.bn2", "b.bn3", "b.shortcut.bn", "c.bn1", "c.bn2", "c.shortcut.bn"], block
    )


def test_option_c_projects_every_shortcut() -> None:
    stages = {"block": "basic", "width": 5, "repeat": 2, "shortcut": "project_all"}
    found = [node.name for node in graph({"graph": {"s": stages}}, (5, 7, 7)).nodes if "shortcut.conv" in node.name]
    assert found == ["s.0.shortcut.conv", "s.1.shortcut.conv"]
