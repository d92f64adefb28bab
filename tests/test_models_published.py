"""The models of ``specs/models`` beside what their papers say, and beside networks written by hand."""

from __future__ import annotations

import re
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import ResNet
from torchvision.models.resnet import Bottleneck

from ablate.builder import build
from ablate.costing import cost_of
from tests.conftest import REPOSITORY
from tests.models import MODELS, differences, images, load_into, model, randomised, torchvisions_names

RESNET = torchvisions_names("resnet50")
CIFAR = (3, 32, 32)


# sizes ---------------------------------------------------------------------------------------------------------------

PAGE = (REPOSITORY / "docs" / "models.md").read_text(encoding="utf-8")
ROW = r"^\| `(\w+)` \|.*?\| 3×(\d+)×\d+, (\d+) \| ([\d,]+) \| ([\d,]+) \|"
ROWS = {
    name: tuple(int(number.replace(",", "")) for number in numbers)
    for name, *numbers in re.findall(ROW, PAGE, re.MULTILINE)
}
"""Model → side of the image, classes, parameters, multiply-accumulates, as docs/models.md has them."""


def test_every_model_is_on_the_page() -> None:
    files = {path.stem for path in MODELS.glob("*.yaml") if not path.stem.startswith("cnntention")}
    assert files == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_a_model_costs_what_its_page_says(name: str) -> None:
    side, classes, params, flops = ROWS[name]
    cost = cost_of(model(name, (3, side, side), classes))
    assert (cost.params, cost.flops) == (params, flops)
    assert not cost.uncounted


@pytest.mark.parametrize("name", [path.stem for path in (MODELS / "torchvision").glob("*.yaml")])
def test_what_the_page_says_is_what_torchvision_states(name: str) -> None:
    stated = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].meta
    _, _, params, flops = ROWS[name]
    assert (params, round(flops / 1e9, 3)) == (stated["num_params"], stated["_ops"])


GATES = {"stage1": (3, 256), "stage2": (4, 512), "stage3": (6, 1024), "stage4": (3, 2048)}
"""Blocks of each stage of a ResNet-50, and their channels."""


def test_se_resnet_50_has_the_28_1_million_parameters_of_its_paper() -> None:
    """4.2 G are published for it; its gates add what two small matrices cost, and 4.09 is nearest to that."""
    cost, trunk = cost_of(model("senet50")), cost_of(model("resnet50"))
    weights = sum(count * 2 * c * (c // 16) for count, c in GATES.values())
    biases = sum(count * (c + c // 16) for count, c in GATES.values())
    assert cost.params - trunk.params == weights + biases
    assert cost.flops - trunk.flops == weights
    assert round(cost.params / 1e6, 1) == 28.1
    assert cost.params == sum(p.numel() for p in on_meta("seresnet50").parameters())


def test_cbam_resnet_50_has_the_parameters_of_its_formula() -> None:
    """28.09 M in its paper, with biases and norms within the gates that its formula lacks; 28.0 in AICNN's table."""
    cost, trunk = cost_of(model("cbam_resnet50")), cost_of(model("resnet50"))
    weights = sum(count * 2 * c * (c // 16) for count, c in GATES.values())
    assert cost.params - trunk.params == weights + 16 * (2 * 49 + 1)
    pixels = sum(count * (224 // 2 ** (i + 2)) ** 2 for i, (count, _) in enumerate(GATES.values()))
    assert cost.flops - trunk.flops == 2 * weights + 2 * 49 * pixels
    assert cost.params == pytest.approx(28.05e6, abs=0.05e6)


def test_aicnn_50_has_the_27_5_million_parameters_of_its_table() -> None:
    """And more FLOPs than its trunk's 4.09 G, where the table has 4.0: nothing that is added can cost less."""
    cost, trunk = cost_of(model("aicnn50")), cost_of(model("resnet50"))
    assert round(cost.params / 1e6, 1) == 27.5
    assert cost.flops > trunk.flops > 4.05e9
    reads = [(256 * 2**s // 4, 256 * 2**s, (3, 4, 6)[s]) for s in range(3)]  # width, output, blocks of a stage
    before = [64, 256, 512]
    channels = [
        c
        for (width, output, count), first in zip(reads, before, strict=True)
        for block in range(count)
        for c in (first if block == 0 else output, width, width)
    ]
    assert cost.params - trunk.params == sum(2 * c * (c // 8) + 9 * c + 1 for c in channels)


def test_aicnns_form_for_cifar_is_the_same_gates_on_a_small_stem() -> None:
    large, small = model("aicnn50"), model("aicnn_cifar", CIFAR, 100)
    gates = [[(n.name, n.params) for n in network.insertion_nodes("attention")] for network in (large, small)]
    assert gates[0] == gates[1]
    assert len(gates[0]) == 3 * (3 + 4 + 6)
    assert small.by_name["stem.conv"].params.kernel == 3  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("theirs", "options", "ours", "params"),
    [
        ("resnet34", {}, "resnet18", {"n1": 3, "n2": 4, "n3": 6, "n4": 3}),
        ("resnet101", {}, "resnet50", {"n3": 23}),
        ("convnext_small", {}, "convnext_tiny", {"n3": 27}),
        ("convnext_base", {}, "convnext_tiny", {"width": 128, "n3": 27}),
        ("efficientnet_b4", {}, "efficientnet_b0", {"width": 1.4, "depth": 1.8}),
        ("densenet161", {}, "densenet121", {"growth": 48, "n3": 36, "n4": 24}),
        ("mobilenet_v2", {"width_mult": 1.4}, "mobilenet_v2", {"k": 1.4}),
        ("vit_l_16", {"image_size": 64}, "vit_b_16", {"depth": 24, "dim": 1024, "heads": 16}),
    ],
)
def test_relatives_are_the_same_file_with_other_parameters(
    theirs: str, options: dict[str, Any], ours: str, params: dict[str, float]
) -> None:
    with torch.device("meta"):
        expected = sum(p.numel() for p in getattr(torchvision.models, theirs)(weights=None, **options).parameters())
        found = [node.block.make(node.params, *node.shapes) for node in model(ours, (3, 64, 64), **params).nodes]
    assert sum(p.numel() for module in found for p in module.parameters()) == expected


@pytest.mark.parametrize("file", sorted(MODELS.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_model_is_short_and_names_its_source(file: Any) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    head = [line for line in lines if line.startswith("#")]
    assert len(lines) - len(head) < 25
    assert any(mark in " ".join(head) for mark in ("arXiv:", "AICNN", "CNNtention"))


# CIFAR's residual networks -------------------------------------------------------------------------------------------


class PlainBlock(nn.Module):
    """Two convolutions and the shortcut of option A, its zeros by concatenation."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.step = width // channels
        self.conv1 = nn.Conv2d(channels, width, 3, self.step, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.step == 2:
            zeros = torch.zeros_like(y[:, : y.shape[1] // 4])
            x = torch.cat([zeros, F.max_pool2d(x, 1, 2), zeros], 1)
        return F.relu(y + x)


class CifarResNet(nn.Module):
    """He et al., 2016, section 4.2: 6n + 2 layers, in torchvision's names."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(PlainBlock(16, 16) for _ in range(n)))
        self.layer2 = nn.Sequential(PlainBlock(16, 32), *(PlainBlock(32, 32) for _ in range(n - 1)))
        self.layer3 = nn.Sequential(PlainBlock(32, 64), *(PlainBlock(64, 64) for _ in range(n - 1)))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(F.avg_pool2d(x, x.shape[2:]).flatten(1))


WITHOUT_SHORTCUTS = {pattern: name for pattern, name in RESNET.items() if "downsample" not in pattern}
MILLIONS = {20: 0.27, 32: 0.46, 44: 0.66, 56: 0.85, 110: 1.7}
"""Layers → millions of parameters, in table 6 of the paper."""


@pytest.mark.parametrize("layers", MILLIONS)
def test_a_residual_network_for_cifar_is_he_et_als_in_another_hand(layers: int) -> None:
    graph = model(f"resnet{layers}", CIFAR, 10)
    theirs = randomised(CifarResNet((layers - 2) // 6))
    params = sum(p.numel() for p in theirs.parameters())
    assert params == ROWS[f"resnet{layers}"][2]
    assert round(params / 1e6, 1 if layers == 110 else 2) == MILLIONS[layers]
    assert sum(node.block.name in ("conv", "linear") for node in graph.nodes) == layers
    ours = build(graph)
    load_into(ours, theirs, WITHOUT_SHORTCUTS)
    found = differences(ours, theirs, WITHOUT_SHORTCUTS, images(2, 3, 16, 16))
    assert {what: size for what, size in found.items() if size > 1e-5} == {}


# attention on ResNet-50 ----------------------------------------------------------------------------------------------


def on_meta(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        made: nn.Module = timm.create_model(name, **options)
    return made


class HandCbam(nn.Module):
    """The two gates by einsum and by pooling functions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Parameter(torch.empty(channels // 16, channels))
        self.fc2 = nn.Parameter(torch.empty(channels, channels // 16))
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def mlp(self, x: Tensor) -> Tensor:
        return torch.einsum("oh,bh->bo", self.fc2, F.relu(torch.einsum("hc,bc->bh", self.fc1, x.flatten(1))))

    def forward(self, x: Tensor) -> Tensor:
        channel = self.mlp(F.adaptive_avg_pool2d(x, 1)) + self.mlp(F.adaptive_max_pool2d(x, 1))
        x = x * torch.sigmoid(channel)[:, :, None, None]
        maps = torch.stack([x.max(1).values, x.mean(1)], 1)
        return x * torch.sigmoid(self.conv(maps))


class HandGate(nn.Module):
    """AICNN's A ⊙ X, by eq. 2 to 5."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Parameter(torch.empty(channels // 8, channels))
        self.fc2 = nn.Parameter(torch.empty(channels, channels // 8))
        self.spatial = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)
        channel = torch.sigmoid(F.relu(pooled @ self.fc1.T) @ self.fc2.T)
        return torch.einsum("bc,bhw,bchw->bchw", channel, torch.sigmoid(self.spatial(x))[:, 0], x)


class CbamBottleneck(Bottleneck):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bn3 = nn.Sequential(self.bn3, HandCbam(self.bn3.num_features))


class AicnnBottleneck(Bottleneck):
    """Its convolutions read their input through a gate; the shortcut does not."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("conv1", "conv2", "conv3"):
            conv = getattr(self, name)
            if self.bn1.num_features < 512:  # stages 1 to 3
                setattr(self, name, nn.Sequential(HandGate(conv.in_channels), conv))


def names(inner: dict[str, str]) -> dict[str, str]:
    """Those of ``inner`` within a block, and torchvision's."""
    return {rf"layer(\d)\.(\d+)\.{their}": rf"stage\1.\2.{our}" for their, our in inner.items()} | dict(RESNET)


HAND = {
    "senet50": (
        lambda: on_meta("seresnet50", layers=(2, 1, 1, 1), num_classes=7),
        names({r"se\.(.+)": r"bn3_attention.\3"}),
    ),
    "cbam_resnet50": (
        lambda: ResNet(CbamBottleneck, [2, 1, 1, 1], num_classes=7),
        names(
            {
                r"bn3\.1\.(fc\d)": r"bn3_attention.channel.\3.weight",
                r"bn3\.1\.(conv.+)": r"bn3_attention.spatial.\3",
                r"bn3\.0\.(.+)": r"bn3.\3",
            }
        ),
    ),
    "aicnn50": (
        lambda: ResNet(AicnnBottleneck, [2, 1, 1, 1], num_classes=7),
        names(
            {
                r"conv(\d)\.0\.(fc\d)": r"conv\3_in_attention.\4.weight",
                r"conv(\d)\.0\.(spatial.+)": r"conv\3_in_attention.\4",
                r"conv(\d)\.1\.(weight)": r"conv\3.\4",
            }
        ),
    ),
}


@pytest.mark.parametrize("name", HAND)
def test_attention_on_resnet_50_is_that_of_another_hand(name: str) -> None:
    """senet50 beside timm's seresnet50; the others by einsum. One block a stage, two in the first."""
    make, rules = HAND[name]
    theirs = randomised(make()).double()
    ours = build(model(name, (3, 64, 64), 7, n1=2, n2=1, n3=1, n4=1)).double()
    load_into(ours, theirs, rules)
    found = differences(ours, theirs, rules, images(2, 3, 64, 64).double())
    assert {what: size for what, size in found.items() if size > 1e-9} == {}
