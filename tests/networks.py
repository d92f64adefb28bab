"""What the tests of graphs share: networks from YAML text, and ResNet-20 written by hand in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import indent
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablate import yamlfile
from ablate.block import Shape, find
from ablate.collect import Collector
from ablate.graph import Graph
from ablate.network import Network, read_network

RESNET20 = """
params: {k: 1}
graph:
  stem:   {block: conv_bn_act, width: 16*$k, kernel: 3}
  stage1: {block: basic, width: 16*$k, repeat: 3, shortcut: pad}
  stage2: {block: basic, width: 32*$k, repeat: 3, stride: 2, shortcut: pad}
  stage3: {block: basic, width: 64*$k, repeat: 3, stride: 2, shortcut: pad}
  head:   {block: classifier}
"""

Section = str | dict[str, Any]


def read(
    section: Section, shape: Shape = (3, 13, 17), classes: int = 7, removed: frozenset[str] = frozenset()
) -> tuple[Network | None, Collector]:
    """The network of a ``network:`` section, and what is wrong with it."""
    if isinstance(section, str):
        tree: Any = yamlfile.loads("network:\n" + indent(section, "  "), "spec.yaml")
    else:
        tree = {"network": section}
    collector = Collector(tree)
    return read_network(tree["network"], shape, classes, collector, removed), collector


def network(section: Section, shape: Shape = (3, 13, 17), classes: int = 7) -> Network:
    found, collector = read(section, shape, classes)
    collector.raise_if_any()
    assert found is not None
    return found


def graph(section: Section, shape: Shape = (3, 13, 17), classes: int = 7) -> Graph:
    return network(section, shape, classes).graph


def resnet20(insert: str = "", shape: Shape = (3, 13, 17), classes: int = 7) -> Graph:
    """ResNet-20, with insertions as lines of YAML."""
    return graph(RESNET20 + (f"insert:\n{indent(insert, '  ')}\n" if insert else ""), shape, classes)


def messages(section: Section, removed: frozenset[str] = frozenset()) -> list[str]:
    """Every problem of a section as the user reads it; empty where it is sound."""
    found, collector = read(section, removed=removed)
    assert (found is None) == bool(collector.problems)
    return [str(problem) for problem in collector.problems]


def block(name: str, shape: Shape, **params: Any) -> nn.Module:
    kind: Any = find(name)
    module: nn.Module = kind(kind.Params(**params), shape)
    return module


class HandJoin(nn.Module):
    """F(x), F(x) + x or w · F(x) + x."""

    def __init__(self, branch: nn.Module, kind: str) -> None:
        super().__init__()
        self.branch = branch
        self.kind = kind
        if kind == "weighted":
            self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "none":
            return self.branch(x)
        return self.branch(x) + x if self.kind == "plain" else x + self.weight * self.branch(x)


class HandBlock(nn.Module):
    def __init__(self, channels: int, width: int, stride: int, gates: Callable[[int], list[nn.Module]]) -> None:
        super().__init__()
        self.gate1, self.gate2 = nn.Sequential(*gates(channels)), nn.Sequential(*gates(width))
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.channels, self.width, self.stride = channels, width, stride

    def shortcut(self, x: Tensor) -> Tensor:
        """Option A, written with an explicit canvas of zeros."""
        if self.stride == 1 and self.channels == self.width:
            return x
        kept = x[:, :, :: self.stride, :: self.stride]
        canvas = x.new_zeros(len(x), self.width, *kept.shape[2:])
        first = (self.width - self.channels) // 2
        canvas[:, first : first + self.channels] = kept
        return canvas

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(self.gate1(x))))
        y = self.bn2(self.conv2(self.gate2(y)))
        return F.relu(y + self.shortcut(x))


class HandResNet20(nn.Module):
    """He et al., 2016, section 4.2, with ``after`` modules behind each stage and ``gates`` before each convolution."""

    def __init__(
        self,
        after: Callable[[int], list[nn.Module]] = lambda width: [],
        gates: Callable[[int], list[nn.Module]] = lambda width: [],
        channels: int = 3,
        classes: int = 7,
    ) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(channels, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        self.stages = nn.ModuleList()
        self.after = nn.ModuleList()
        before = 16
        for width in (16, 32, 64):
            strides = (1 if width == 16 else 2, 1, 1)
            stage = [HandBlock(before if index == 0 else width, width, strides[index], gates) for index in range(3)]
            self.stages.append(nn.Sequential(*stage))
            self.after.append(nn.Sequential(*after(width)))
            before = width
        self.fc = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(x)))
        for stage, after in zip(self.stages, self.after, strict=True):
            x = after(stage(x))
        return self.fc(x.mean((2, 3)))


def name_by_hand(name: str, after: list[str], gates: list[str]) -> str:
    """The name in our network of a tensor of ``HandResNet20``; ``after`` and ``gates`` name the insertions."""
    parts = name.split(".")
    if parts[0] in ("conv", "bn"):
        return f"stem.{name}"
    if parts[0] == "fc":
        return f"head.{name}"
    if parts[0] == "after":  # after.STAGE.INDEX.(branch.…|weight)
        place = f"stage{int(parts[1]) + 1}_{after[int(parts[2])]}"
        return _inserted(place, parts[3:])
    _, stage, index, *rest = parts
    scope = f"stage{int(stage) + 1}.{index}"
    if rest[0].startswith("gate"):
        return _inserted(f"{scope}.conv{rest[0][-1]}_in_{gates[int(rest[1])]}", rest[2:])
    return ".".join([scope, *rest])


def _inserted(place: str, parts: list[str]) -> str:
    return f"{place}_residual.weight" if parts == ["weight"] else ".".join([place, *parts[1:]])
