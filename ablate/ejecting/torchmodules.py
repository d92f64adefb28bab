"""Modules of ``torch.nn`` → the constructor calls that make them, read off their attributes and tried."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ablate.ejecting.expressions import flat
from ablate.ejecting.make import Arg, Make, expression, literal

ROLES = {
    "in_channels": "channels",
    "in_features": "channels",
    "out_channels": "width",
    "out_features": "width",
    "num_features": "norm",
    "num_channels": "norm",
    "normalized_shape": "norm",
    "kernel_size": "kernel",
    "num_groups": "groups",
    "embed_dim": "width",
}
"""What a class that holds such modules calls an argument that differs among them."""
_SIDES = ("kernel_size", "stride", "padding", "output_padding", "dilation")
_OF_ATTENTION: dict[str, Callable[[nn.MultiheadAttention], Any]] = {
    "bias": lambda module: module.in_proj_bias is not None,
    "add_bias_kv": lambda module: module.bias_k is not None,
    "kdim": lambda module: None if module.kdim == module.embed_dim else module.kdim,
    "vdim": lambda module: None if module.vdim == module.embed_dim else module.vdim,
}
"""Arguments of ``nn.MultiheadAttention`` that are attributes by another name, or always set."""
_PLAIN_STATE = ("device", "dtype", "inplace")


class CannotRecover(ValueError):
    """The module can't be told by its attributes; the sentence says which."""


def is_torch(kind: type) -> bool:
    return kind is not nn.Module and kind.__module__.startswith("torch.nn.") and hasattr(nn, kind.__name__)


def constructor(module: nn.Module, kind: type[nn.Module] | None = None) -> Make:
    """The call that makes a module like this one. ``CannotRecover`` where trying it gives another."""
    kind = kind or type(module)
    args = [_arg(module, parameter) for parameter in _parameters(kind)]
    make = Make(f"nn.{kind.__name__}", tuple(arg for arg in args if arg is not None))
    if kind is type(module):
        _try(module, make)
    return make


def _arg(module: nn.Module, parameter: inspect.Parameter) -> Arg | None:
    name, default = parameter.name, parameter.default
    required = default is inspect.Parameter.empty
    if name in _PLAIN_STATE or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
        return None
    value = _value(module, name)
    if value is None and not required:
        return None
    if not literal(value) or (value is None and required):
        raise CannotRecover(f"argument '{name}' of {type(module).__name__}")
    if isinstance(default, bool | int | float) and type(default) is not type(value) and default == value:
        value = default
    return Arg("" if required else name, value, ROLES.get(name, name), default)


def _value(module: nn.Module, name: str) -> Any:
    if isinstance(module, nn.MultiheadAttention) and name in _OF_ATTENTION:
        return _OF_ATTENTION[name](module)
    if name == "bias":
        bias = getattr(module, "bias", None)
        return bias if isinstance(bias, bool) else bias is not None
    value = getattr(module, name, None)
    if isinstance(value, torch.Size):
        value = tuple(value)
    # (3, 3) is written 3, as in the calls that people write
    if isinstance(value, tuple) and ((name in _SIDES and len(set(value)) == 1) or len(value) == 1):
        return value[0]
    return value


def _parameters(kind: type[nn.Module]) -> tuple[inspect.Parameter, ...]:
    return tuple(inspect.signature(kind.__init__).parameters.values())[1:]


def _try(module: nn.Module, make: Make) -> None:
    code = flat(expression(make))
    try:
        with torch.device("meta"):
            again = eval(code, {"nn": nn, "__builtins__": {"float": float}})
    except Exception as error:
        raise CannotRecover(f"{type(module).__name__}: {error}") from None
    if _seen(again) != _seen(module):
        raise CannotRecover(f"{type(module).__name__}: {again!r} is not {module!r}")


def _seen(module: nn.Module) -> tuple[object, ...]:
    tensors = tuple((name, tuple(value.shape), value.dtype) for name, value in module.state_dict().items())
    settings = re.sub(r"(, )?inplace=(True|False)", "", repr(module))
    # pools keep their sides as they were written, a number or one for each axis
    return type(module), re.sub(r"\((\d+), \1\)", r"\1", settings), tensors
