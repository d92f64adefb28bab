"""What a block is, and the registry of blocks.

A *leaf* block is one ``nn.Module`` and becomes one node of the graph. A *composite* block is a function
that adds several nodes. A new block is one new file under ``ablate/blocks``; the registry finds it.

Shapes are those of one example, without the batch axis: ``(C, H, W)``.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from ablate.code import remember
from ablate.own_code import home, note
from ablate.plugins import BLOCKS, Plugin, class_of, found_in, listed_in, unusable_in

Shape = tuple[int, ...]
Value = str
"""The output of a node, by the node's name; ``input`` is the network's input."""

Stream = Callable[[str], torch.Generator]
"""A parameter's name within its block → the generator that initialises it."""

TAKEN_OVER = ("width", "stride")
"""What a block that replaces another takes over from it where the spec is silent."""

INIT_RECIPES = ("kaiming_fan_out", "kaiming_fan_in", "torch_default", "trunc_normal")
TRUNC_NORMAL_STD = 0.02
"""The standard deviation of the recipe ``trunc_normal``, as in ViT and ConvNeXt."""


@dataclass(frozen=True)
class Start:
    """How one node's parameters start in the place of the network's recipe: by ``kind``, and biases at 0.

    ``kind`` is ``constant`` or, with ``value`` as the standard deviation, ``normal`` or ``truncated_normal``; or a
    recipe.
    """

    kind: str
    value: float = 0.0


class BlockParams(BaseModel):
    """The parameters of a block. Strict: 3.7 is no int, "8" is no number; unknown names are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def once(default: Any, **kwargs: Any) -> Any:
    """A parameter that acts on the first of ``repeat`` blocks only (a stride)."""
    return Field(default, json_schema_extra={"repeat": "first"}, **kwargs)


class Block(nn.Module):
    """A leaf block: one module, one node.

    A subclass states its name (``class SqueezeExcite(Block, name="se")``), its ``Params``, and takes
    ``(params, *shapes)``: its parameters and the shape that arrives at each port. Whatever it refuses
    (8 heads on 20 channels) it refuses by ``ValueError`` with a sentence for the user. It never writes
    into its input, and never adds its own input to its output: joining is the wiring's business.
    """

    name: ClassVar[str]
    Params: ClassVar[type[BlockParams]] = BlockParams
    ports: ClassVar[tuple[str, ...]] = ("x",)
    variadic: ClassVar[bool] = False
    """Takes any number of inputs from ``fewest`` on; those beyond ``ports`` are named ``input2``, ``input3``, …"""
    fewest: ClassVar[int] = 2
    invariant_parameters: ClassVar[frozenset[str]] = frozenset()
    """Parameters whose gradient is zero by construction (a bias that a softmax cancels)."""
    noisy: ClassVar[bool] = False
    """Draws random numbers in training, seeded by its ``noise_seed``, which is set anew before each step."""

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is not None:
            cls.name = name
            register(cls)

    @classmethod
    def make(cls, params: Any, *shapes: Shape) -> nn.Module:
        """The module of one node. A node of an imported network has one that is no ``Block``."""
        return cls(params, *shapes)

    @classmethod
    def initialise(cls, module: nn.Module, params: Any, stream: Stream, recipe: str, seed: int) -> None:
        """Initialise a module that ``make`` made: by ``init``, but for what brings an initialisation of its own."""
        module.init(stream, recipe)  # type: ignore[operator]

    @classmethod
    def elsewhere(cls, params: Any, module: str, name: str) -> str:
        """How a parameter or buffer, ``name`` in the module that ``module`` names, is called in files of weights."""
        return f"{module}.{name}"

    @classmethod
    def taken_over(cls, params: Any, *shapes: Shape) -> Mapping[str, Any]:
        """Its ``width`` and ``stride``, as far as it has them: for what stands in its place."""
        return {name: getattr(params, name) for name in TAKEN_OVER if hasattr(params, name)}

    @classmethod
    def effective(cls, params: Any, *shapes: Shape) -> dict[str, Any]:
        """What the parameters come to at these shapes. Equal answers mean equal modules.

        The identity of a variant is made of this: a reduction of 16 and one of 32 that both come to a
        hidden width of 1 are one network.
        """
        return dict(params.model_dump(mode="json"))

    @classmethod
    def is_identity(cls, params: Any, *shapes: Shape) -> bool:
        """Whether the block returns its first input unchanged (scale 1, rate 0)."""
        return False

    @classmethod
    def notes(cls, params: Any, *shapes: Shape) -> tuple[str, ...]:
        """Where rounding or clamping took place: ``reduction 32 on 16 channels → hidden width 1``."""
        return ()

    def init(self, stream: Stream, recipe: str) -> None:
        """Initialise every parameter and buffer in place, each from its own stream.

        The default knows convolutions, linear and norm layers. A block with parameters of its own
        initialises those and calls ``super().init``.
        """
        init_layers(self, stream, recipe)

    @classmethod
    def summary(cls) -> str:
        return _summary(cls)


class Scope(Protocol):
    """Where a composite puts its nodes; names are relative to the composite."""

    classes: int

    def add(self, name: str, block: str, *inputs: Value, **params: Any) -> Value:
        """Add a block that reads these values, and return its output."""
        ...

    def shape(self, value: Value) -> Shape: ...


class Composite(ABC):
    """A composite block: adds several nodes and returns the value that is its output."""

    name: ClassVar[str]
    Params: ClassVar[type[BlockParams]] = BlockParams
    ports: ClassVar[tuple[str, ...]] = ("x",)
    variadic: ClassVar[bool] = False
    fewest: ClassVar[int] = 2

    def __init_subclass__(cls, *, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is not None:
            cls.name = name
            register(cls)

    @classmethod
    @abstractmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value: ...

    @classmethod
    def summary(cls) -> str:
        return _summary(cls)


BlockType = type[Block] | type[Composite]
_registry: dict[str, BlockType] = {}


_FEWEST = {1: "one", 2: "two"}


def register(block: BlockType) -> None:
    known = _registry.get(block.name)
    if known is not None and known.__module__ != block.__module__:
        raise ValueError(f"block '{block.name}' is defined in {home(known)} and in {home(block)}")
    note(_registry, block)
    remember(block)
    _registry[block.name] = block


def registry() -> dict[str, BlockType]:
    """Every block by name, sorted: ours, those of installed packages, and those that this program has defined.

    An installed block that can't be used is warned of, once.
    """
    _load_builtin_blocks()
    return listed_in(BLOCKS, _registry, _brought)


def find(name: str) -> BlockType:
    """The block of that name; ``KeyError`` with a hint where there is none, or with why it can't be used."""
    _load_builtin_blocks()
    return found_in(BLOCKS, _registry, name, _brought)


def unusable(name: str) -> str:
    """Why a block that an installed package brings can't be used; empty where it can, or where none brings it."""
    _load_builtin_blocks()
    return unusable_in(BLOCKS, _registry, name, _brought)


def _brought(plugin: Plugin) -> BlockType:
    """What a package's entry point has registered. ``PluginError`` where that is no block of this name."""
    block: BlockType = class_of(plugin, (Block, Composite), "Block or a Composite")
    return block


def is_registered(block: BlockType) -> bool:
    """Whether its name still means this block."""
    return _registry.get(block.name) is block and not unusable(block.name)


def port_names(block: BlockType, count: int) -> tuple[str, ...]:
    """The names of ``count`` input ports; ``ValueError`` where the block does not take that many."""
    if block.variadic:
        if count < block.fewest:
            raise ValueError(f"'{block.name}' joins {_FEWEST[block.fewest]} or more inputs and was given {count}")
        return (*block.ports[:count], *(f"input{i}" for i in range(len(block.ports), count)))
    if count != len(block.ports):
        raise ValueError(f"'{block.name}' takes {len(block.ports)} input(s) and was given {count}")
    return block.ports


def init_layers(network: nn.Module, stream: Stream, recipe: str) -> None:
    """Every convolution and linear layer by ``recipe``, each parameter from its own stream; norms as torch has them."""
    for path, module in network.named_modules():
        prefix = f"{path}." if path else ""
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            init_weights(module, prefix, stream, recipe)
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            module.reset_parameters()


def init_weights(module: nn.Conv1d | nn.Conv2d | nn.Linear, prefix: str, stream: Stream, recipe: str) -> None:
    """Weights by ``recipe``; biases uniform in ±1/sqrt(fan_in), as torch has it.

    ``kaiming_*`` is He et al., 2015 (arXiv:1502.01852), normal, with the gain of ReLU. ``trunc_normal`` has
    standard deviation 0.02, cut at two of them, and biases of 0.
    """
    if module.weight.numel() == 0:
        return
    generator = stream(f"{prefix}weight")
    if recipe == "trunc_normal":
        truncated_normal(module.weight, TRUNC_NORMAL_STD, generator)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
        return
    if recipe == "torch_default":
        nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=generator)
    else:
        mode: Literal["fan_in", "fan_out"] = "fan_out" if recipe == "kaiming_fan_out" else "fan_in"
        nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu", generator=generator)
    if module.bias is not None:
        fan_in = module.weight[0].numel()
        bound = fan_in**-0.5
        nn.init.uniform_(module.bias, -bound, bound, generator=stream(f"{prefix}bias"))


def truncated_normal(tensor: torch.Tensor, std: float, generator: torch.Generator) -> None:
    """In place: normal, cut at two standard deviations on either side."""
    nn.init.trunc_normal_(tensor, std=std, a=-2 * std, b=2 * std, generator=generator)


def start_parameters(module: nn.Module, start: Start, stream: Stream) -> None:
    """Give the module's weights and biases the values that ``start`` states (and not a recipe)."""
    for name, parameter in module.named_parameters():
        if name.rpartition(".")[2].endswith("bias"):
            nn.init.zeros_(parameter)
        elif start.kind == "constant":
            nn.init.constant_(parameter, start.value)
        elif start.kind == "normal":
            nn.init.normal_(parameter, std=start.value, generator=stream(name))
        else:
            truncated_normal(parameter, start.value, stream(name))


@cache
def _load_builtin_blocks() -> None:
    package = importlib.import_module("ablate.blocks")
    for module in pkgutil.walk_packages(package.__path__, "ablate.blocks."):
        importlib.import_module(module.name)


def _summary(block: BlockType) -> str:
    """The first line of the class's docstring, or of its file's."""
    module = sys.modules.get(block.__module__)  # of a block that was typed at a prompt there is none
    text = block.__dict__.get("__doc__") or (module and module.__doc__) or ""
    return inspect.cleandoc(text).split("\n", 1)[0]
