"""A small stand-in for the graph: builds composites node by node, and runs what it built."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ablate.block import Block, Composite, Shape, Stream, Value, find


class TinyScope:
    def __init__(self, shape: Shape, classes: int = 10) -> None:
        self.classes = classes
        self.prefix = ""
        self.shapes: dict[Value, Shape] = {"input": shape}
        self.modules: dict[Value, Block] = {}
        self.inputs: dict[Value, tuple[Value, ...]] = {}

    def add(self, name: str, block: str, *inputs: Value, **params: Any) -> Value:
        name, kind = f"{self.prefix}{name}", find(block)
        values = kind.Params(**params)
        if issubclass(kind, Composite):
            return kind.expand(self.inner(f"{name}."), values, *inputs)
        module = kind(values, *(self.shapes[value] for value in inputs))
        with torch.no_grad():
            answer = module.eval()(*(torch.zeros(2, *self.shapes[value]) for value in inputs))
        self.modules[name], self.inputs[name], self.shapes[name] = module, inputs, tuple(answer.shape[1:])
        return name

    def inner(self, prefix: str) -> TinyScope:
        scope = object.__new__(TinyScope)
        scope.__dict__ = {**self.__dict__, "prefix": prefix}  # shares the dictionaries
        return scope

    def shape(self, value: Value) -> Shape:
        return self.shapes[value]

    def run(self, x: Tensor) -> dict[Value, Tensor]:
        """The output of every node; the last is the network's."""
        values = {"input": x}
        for name, module in self.modules.items():
            values[name] = module(*(values[value] for value in self.inputs[name]))
        return values

    def params(self) -> int:
        return sum(count(module) for module in self.modules.values())

    def init(self, stream: Stream) -> None:
        for module in self.modules.values():
            module.init(stream, "kaiming_fan_out")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def stream_of(seed: int) -> Stream:
    """A generator per name: what the builder hands to ``init``."""

    def stream(name: str) -> torch.Generator:
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    return stream


@pytest.fixture
def tiny_scope() -> type[TinyScope]:
    return TinyScope


@pytest.fixture
def streams() -> Callable[[int], Stream]:
    return stream_of


@pytest.fixture
def make() -> Callable[..., Any]:
    """``make("se", (7, 5, 3), reduction=2)``: a leaf block, in float64, every parameter drawn at random."""

    def build(name: str, *shapes: Shape, **params: Any) -> Block:
        kind = find(name)
        assert issubclass(kind, Block)
        module = kind(kind.Params(**params), *shapes).double()
        generator = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 3)
        return module

    return build


@pytest.fixture
def noise() -> Callable[..., Tensor]:
    """``noise(2, 7, 5, 3)``: float64 and normal, the same at every call of these sizes."""

    def draw(*sizes: int, seed: int = 7) -> Tensor:
        return torch.randn(sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)

    return draw
