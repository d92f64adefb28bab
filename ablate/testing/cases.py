"""A block with its parameters at given shapes, ready to be tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ablate.block import Block, BlockParams, BlockType, Shape
from ablate.builder import build, seed_noise
from ablate.graph import INPUT, Graph, GraphBuilder
from ablate.streams import generator

SIZE = 3
"""Examples in a batch."""
CLASSES = 5


@dataclass(frozen=True)
class BlockCase:
    """One block, its parameters, and the shape that arrives at each port."""

    block: BlockType
    given: dict[str, Any]
    shapes: tuple[Shape, ...]

    def __str__(self) -> str:
        params = ", ".join(f"{key}={value!r}" for key, value in self.given.items())
        return f"({params}) on {', '.join(map(str, self.shapes))}"

    @property
    def params(self) -> BlockParams:
        return self.block.Params(**self.given)

    @property
    def leaf(self) -> type[Block] | None:
        """The block, unless it is a composite."""
        return self.block if issubclass(self.block, Block) else None

    def graph(self) -> Graph:
        """Of a composite: the nodes that it adds."""
        builder = GraphBuilder(self.shapes[0], CLASSES)
        return builder.finish(builder.place("body", self.block, self.params, (INPUT,) * len(self.shapes)))

    def built(self, seed: int = 0) -> nn.Module:
        """Initialised by name, as a study does it."""
        if self.leaf is None:
            return build(self.graph(), seed=seed)
        module = self.raw()
        with torch.no_grad():
            self.leaf.initialise(
                module, self.params, lambda name: generator(seed, "init", name), "kaiming_fan_out", seed
            )
        return module

    def raw(self) -> nn.Module:
        """As its constructor leaves it."""
        assert self.leaf is not None
        with torch.random.fork_rng(devices=[]):
            return self.leaf.make(self.params, *self.shapes)

    def drawn(self, seed: int = 0) -> nn.Module:
        """In float64, with all parameters drawn at random, so that no start hides anything."""
        module = self.built().double()
        numbers = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=numbers, dtype=torch.float64) / 3)
        return module

    def inputs(self, seed: int = 0, size: int = SIZE) -> list[Tensor]:
        """A tensor for each input of what is built; a composite's ports all read one."""
        shapes = self.shapes if self.leaf is not None else self.shapes[:1]
        numbers = torch.Generator().manual_seed(seed)
        return [torch.randn(size, *shape, generator=numbers) for shape in shapes]

    @cached_property
    def exported(self) -> torch.export.ExportedProgram:
        """What ``torch.export`` makes of it, in evaluation."""
        return torch.export.export(self.built().eval(), tuple(self.inputs()))


def run(module: nn.Module, inputs: Sequence[Tensor], noise: int = 0) -> Tensor:
    """One call; what it draws comes from ``noise``."""
    seed_noise(module, noise, 0)
    output: Tensor = module(*inputs)
    return output


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
