"""One node → what the ejected file has for it: a call of torch, a module of torch, or a class of its own.

The blocks that are one of torch's functions or modules stand in ``PLAIN``; every other goes by its source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ablate.ejecting.importeds import expression_of, is_imported, plan_of
from ablate.ejecting.make import IDENTITY, Arg, Make
from ablate.ejecting.modules import Modules
from ablate.ejecting.source import CannotEject
from ablate.ejecting.torchmodules import constructor, is_torch
from ablate.graph import Node
from ablate.importing.imported import Program

LIGHT = frozenset(
    [
        "act",
        "add",
        "batch_norm",
        "concat",
        "drop_path",
        "dropout",
        "group_norm",
        "identity",
        "instance_norm",
        "layer_norm",
        "layer_scale",
        "residual",
        "scale",
    ]
)
"""Blocks that are written around what they read: ``F.relu(self.bn1(self.conv1(x)))``."""


_NORMS = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)


@dataclass
class Leaf:
    """What stands for a node. ``call`` is an expression of its inputs, ``{0}`` and on; ``module`` is to be written."""

    call: str = ""
    made: Make | None = None
    module: nn.Module | None = None

    @property
    def light(self) -> bool:
        """Whether it is written around what it reads, as far as its code says."""
        if self.call or isinstance(self.module, _NORMS):
            return True
        return self.made is not None and self.made.callee.startswith(("nn.BatchNorm", "nn.LayerNorm", "nn.Dropout"))

    def make(self, modules: Modules) -> Make | None:
        """The node as a module; ``None`` where it is an expression only."""
        return modules.make(self.module) if self.module is not None else self.made


FUNCTIONS = {
    "relu": ("F.relu", "nn.ReLU"),
    "relu6": ("F.relu6", "nn.ReLU6"),
    "leaky_relu": ("F.leaky_relu", "nn.LeakyReLU"),
    "elu": ("F.elu", "nn.ELU"),
    "gelu": ("F.gelu", "nn.GELU"),
    "silu": ("F.silu", "nn.SiLU"),
    "mish": ("F.mish", "nn.Mish"),
    "hardswish": ("F.hardswish", "nn.Hardswish"),
    "sigmoid": ("torch.sigmoid", "nn.Sigmoid"),
    "tanh": ("torch.tanh", "nn.Tanh"),
}


CALLS: dict[type[nn.Module], str] = {getattr(nn, module[3:]): function for function, module in FUNCTIONS.values()}
"""Of modules that are one function and nothing else."""


def _act(node: Node, params: Any) -> Leaf | None:
    if params.kind not in FUNCTIONS:
        return None
    function, module = FUNCTIONS[params.kind]
    return Leaf(f"{function}({{0}})", Make(module))


def _add(node: Node, params: Any) -> Leaf:
    return Leaf(" + ".join(f"{{{index}}}" for index in range(len(node.inputs))))


def _concat(node: Node, params: Any) -> Leaf:
    return Leaf(f"torch.cat([{', '.join(f'{{{index}}}' for index in range(len(node.inputs)))}], dim=1)")


def _scale(node: Node, params: Any) -> Leaf:
    return Leaf(f"{{0}} * {params.factor!r}")


def _global_pool(node: Node, params: Any) -> Leaf:
    return Leaf("{0}.mean((2, 3))" if params.kind == "avg" else "{0}.amax((2, 3))")


def _token_pool(node: Node, params: Any) -> Leaf:
    return Leaf("{0}[:, 0]" if params.kind == "class" else "{0}.mean(1)")


def _window_pool(kind: str) -> Callable[[Node, Any], Leaf]:
    def pool(node: Node, params: Any) -> Leaf:
        stride = params.pixels_of_stride
        options = {"stride": (stride, params.kernel), "padding": (params.padding, 0), "ceil_mode": (params.ceil, False)}
        words = "".join(f", {key}={value!r}" for key, (value, default) in options.items() if value != default)
        args = [Arg("", params.kernel, "kernel")]
        args += [Arg(key, value, key, default) for key, (value, default) in options.items()]
        return Leaf(f"F.{kind.lower()}_pool2d({{0}}, {params.kernel}{words})", Make(f"nn.{kind}Pool2d", tuple(args)))

    return pool


def _dropout(node: Node, params: Any) -> Leaf:
    return Leaf(made=Make("nn.Dropout", (Arg("", params.rate, "rate"),)))


def _batch_norm(node: Node, params: Any) -> Leaf:
    kind = "nn.BatchNorm2d" if len(node.shapes[0]) == 3 else "nn.BatchNorm1d"
    with torch.device("meta"):
        made = constructor(node.block.make(params, *node.shapes), nn.BatchNorm2d)
    return Leaf(made=Make(kind, made.args))


def _layer_norm(node: Node, params: Any) -> Leaf | None:
    if len(node.shapes[0]) == 3:
        return None
    with torch.device("meta"):
        return Leaf(made=constructor(node.block.make(params, *node.shapes), nn.LayerNorm))


PLAIN: dict[str, Callable[[Node, Any], Leaf | None]] = {
    "act": _act,
    "add": _add,
    "avg_pool": _window_pool("Avg"),
    "batch_norm": _batch_norm,
    "concat": _concat,
    "dropout": _dropout,
    "global_pool": _global_pool,
    "identity": lambda node, params: Leaf(made=IDENTITY),
    "layer_norm": _layer_norm,
    "max_pool": _window_pool("Max"),
    "scale": _scale,
    "token_pool": _token_pool,
}


def leaf(node: Node, modules: Modules) -> Leaf:
    """What stands for a node. ``CannotEject`` names what a file of its own can't have."""
    if node.block.name in PLAIN and node.block.__module__.startswith("ablate.blocks."):
        plain = PLAIN[node.block.name](node, node.params)
        if plain is not None:
            return plain
    module = made(node)
    try:
        if isinstance(module, Program):
            code = expression_of(module, modules.sheet)
            if code is not None:
                return Leaf(code)
            modules.adopt(plan_of(module, modules.sheet, node.name))
        elif is_imported(node) and type(module) in CALLS and module.extra_repr() in ("", "inplace=True"):
            return Leaf(f"{CALLS[type(module)]}({{0}})", Make(f"nn.{type(module).__name__}"))
        modules.gather(module)
    except CannotEject as error:
        raise CannotEject(f"block '{node.block.name}' (node '{node.name}') needs {error}") from None
    return Leaf(module=module)


def made(node: Node) -> nn.Module:
    """The node's module: shapes alone, unless its class holds numbers of its own, which then say how it starts."""
    with torch.device("meta"):
        module = node.block.make(node.params, *node.shapes)
    if not any(_has_own_numbers(part) for part in module.modules()):
        return module
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return node.block.make(node.params, *node.shapes)


def _has_own_numbers(module: nn.Module) -> bool:
    torchs = any(is_torch(kind) for kind in type(module).__mro__)
    return not torchs and bool(module._parameters or module._buffers)


def has_state(node: Node) -> bool:
    with torch.device("meta"):
        return bool(node.block.make(node.params, *node.shapes).state_dict())
