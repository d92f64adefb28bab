"""The block of an imported network's nodes: a module of the original, or a few of its operations."""

from __future__ import annotations

import copy
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from enum import Enum
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ablate.block import Block, BlockParams, Shape, Stream
from ablate.importing.origin import Origin, OriginError, construct, one_line
from ablate.importing.parts import Part, Parts, Ref, SplitError, Step, divided, filled, references, tensor_at
from ablate.importing.tracing import CONSTANT, MODE, Trace, TraceError, trace
from ablate.shapes import infer_shape, over_a_map
from ablate.streams import stream_seed

_NOISY_FUNCTIONS = frozenset(
    [
        *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "rrelu"),
        *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "bernoulli"),
        *("multinomial", "poisson", "gumbel_softmax", "uniform", "exponential", "random", "cauchy", "geometric"),
    ]
)
"""Functions and methods that draw."""


_PINNED = ("torch.", "operator.", "builtins.", "math.")
"""Where code comes from that needs no digest: torch's version is in every trial's hash."""


class Imported(NamedTuple):
    """An imported model: taken apart, with its modules on the CPU and on ``meta``."""

    model: nn.Module
    meta: nn.Module
    parts: dict[str, Part]
    divided: Parts
    whole: tuple[str, ...]


@lru_cache(maxsize=4)
def imported(origin: Origin, shape: Shape) -> Imported:
    """The model of an origin for images of ``shape``, (C, H, W). ``OriginError`` or ``TraceError`` say why not."""
    try:
        # A copy, since tracing sets the mode, and adds the tensors that a forward makes from nothing.
        model = copy.deepcopy(construct(origin, 0))
        with redirect_stdout(sys.stderr):  # what its code prints is none of our results
            found, parts = _taken_apart(model, shape)
        return Imported(model, copy.deepcopy(model).to("meta"), {p.name: p for p in parts.parts}, parts, found.whole)
    except (OriginError, TraceError):
        raise
    except Exception as error:  # whatever a stranger's code raises when it is copied, traced or run
        raise TraceError(f"{type(error).__name__}: {one_line(error)}") from None


def _taken_apart(model: nn.Module, shape: Shape) -> tuple[Trace, Parts]:
    keep: set[str] = set()
    while True:
        found = trace(model, shape, keep)
        try:
            return found, divided(model, found)
        except SplitError as error:
            # Around it may be a module that reads and gives one tensor each: windows, heads.
            if not error.scope or error.scope in keep:
                raise
            keep |= {error.scope}


class ImportedParams(BlockParams):
    """Which part of which model. Only an import writes these."""

    model: str = Field(description="module:callable")
    arguments: str = Field("{}", description="its arguments, as JSON")
    file: str = Field("", description="where a user's own model is")
    digest: str = Field("", description="SHA-256 of that file, 128 bits")
    shape: tuple[int, ...] = Field(description="of the images that it was traced with")
    part: str = Field(description="the part's name")

    @property
    def origin(self) -> Origin:
        return Origin(self.model, self.arguments, self.file, self.digest)


class ImportedNode(Block):
    """A node of an imported network: one module of it, or one function."""

    name = "imported"
    Params = ImportedParams
    variadic = True
    fewest = 1

    @classmethod
    def make(cls, params: ImportedParams, *shapes: Shape) -> nn.Module:
        found, part = _find(params)
        source = found.meta if torch.get_default_device().type == "meta" else found.model
        if part.alone is None:
            return Program(part, source)
        module = _copied(source.get_submodule(part.alone))
        return _seeded(module) if _is_noisy(module) else module

    @classmethod
    def initialise(cls, module: nn.Module, params: ImportedParams, stream: Stream, recipe: str, seed: int) -> None:
        """The values that the original's own code draws, from the seed's stream."""
        _, part = _find(params)
        source = construct(params.origin, seed)
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            path = original_name(part, name)
            if not path.startswith(CONSTANT) and name not in part.probes:
                tensor.copy_(tensor_at(source, path))

    @classmethod
    def elsewhere(cls, params: ImportedParams, module: str, name: str) -> str:
        """As the original calls it: its files load as they are."""
        return original_name(_find(params)[1], name)

    @classmethod
    def taken_over(cls, params: ImportedParams, *shapes: Shape) -> Mapping[str, Any]:
        return over_a_map(shapes[0], infer_shape(cls, params, shapes))

    @classmethod
    def effective(cls, params: ImportedParams, *shapes: Shape) -> dict[str, Any]:
        return dict(_description(params.origin, params.shape, params.part))

    @classmethod
    def is_identity(cls, params: ImportedParams, *shapes: Shape) -> bool:
        found, part = _find(params)
        module = found.meta.get_submodule(part.alone) if part.alone else None
        rate = getattr(module, "p", getattr(module, "drop_prob", None))
        return type(module) is nn.Identity or (_is_dropout(module) and rate == 0)


def _copied(module: nn.Module) -> nn.Module:
    """A copy of a module of the original, in training mode, told to write nothing in place where it can be told."""
    twin = copy.deepcopy(module)
    twin.train()  # whatever it returns: some models' own does not return themselves
    for part in twin.modules():
        if getattr(part, "inplace", False) is True:
            part.inplace = False  # type: ignore[assignment]
    return twin


def _find(params: ImportedParams) -> tuple[Imported, Part]:
    found = imported(params.origin, params.shape)
    return found, found.parts[params.part]


def original_name(part: Part, name: str) -> str:
    """A parameter or buffer of a part's module → its name in the original."""
    if part.alone is not None:
        return f"{part.alone}.{name}"
    if name in part.tensors:
        return part.tensors[name]
    local, _, rest = name.partition(".")
    return f"{part.modules[local]}.{rest}"


class Program(nn.Module):
    """A few operations of an imported model, one after another: (B, …) tensors in, one (B, …) tensor out."""

    def __init__(self, part: Part, source: nn.Module) -> None:
        super().__init__()
        self.part = part
        for local, path in part.modules.items():
            self.add_module(local, _copied(source.get_submodule(path)))
        for local, path in part.tensors.items():
            tensor = tensor_at(source, path)
            if local in part.probes:
                self.register_buffer(local, tensor.detach().new_empty(0), persistent=False)
            elif isinstance(tensor, nn.Parameter):
                self.register_parameter(local, nn.Parameter(tensor.detach().clone(), tensor.requires_grad))
            else:
                self.register_buffer(local, tensor.detach().clone(), persistent=_is_persistent(source, path))
        if any(_is_noisy(module) for module in self.children()) or any(_draws(step) for step in part.steps):
            _seeded(self)

    def forward(self, *inputs: Tensor) -> Tensor:
        results: list[Any] = []

        def value(leaf: Any) -> Any:
            if leaf is MODE:
                return self.training
            return results[leaf.index] if leaf.index >= 0 else inputs[-1 - leaf.index]

        for step in self.part.steps:
            args, kwargs = filled(step.args, value), filled(step.kwargs, value)
            results.append(self._call(step, args, kwargs))
        output: Tensor = results[-1]
        return output

    def _call(self, step: Step, args: Any, kwargs: Any) -> Any:
        if step.kind == "tensor":
            return getattr(self, step.target)
        if step.kind == "module":
            return getattr(self, step.target)(*args, **kwargs)
        if step.kind == "method":
            return getattr(args[0], step.target)(*args[1:], **kwargs)
        return step.target(*args, **kwargs)

    def extra_repr(self) -> str:
        return "; ".join(in_words(step, index) for index, step in enumerate(self.part.steps))


def in_words(step: Step, index: int) -> str:
    """A step as a line of Python: ``v2 = torch.flatten(x0, 1)``."""
    words = [_in_words(arg) for arg in step.args] + [f"{key}={_in_words(value)}" for key, value in step.kwargs.items()]
    if step.kind == "tensor":
        return f"v{index} = {step.target}"
    name = step.target if isinstance(step.target, str) else qualified(step.target)
    return f"v{index} = {name}({', '.join(words)})"


def _in_words(value: Any) -> str:
    if isinstance(value, Ref):
        return f"v{value.index}" if value.index >= 0 else f"x{-1 - value.index}"
    return repr(value)


def qualified(target: Any) -> str:
    """A function's full name; that of the module in which it is found."""
    module = getattr(target, "__module__", None) or type(target).__module__
    name = getattr(target, "__qualname__", getattr(target, "__name__", repr(target)))
    return f"{module}.{name}".replace("torch._C._nn", "torch.nn.functional").replace("_operator", "operator")


def _is_persistent(source: nn.Module, path: str) -> bool:
    owner, _, last = path.rpartition(".")
    module = source.get_submodule(owner)
    return last in module._buffers and last not in module._non_persistent_buffers_set


def _draws(step: Step) -> bool:
    if any(leaf is MODE for leaf in references((step.args, step.kwargs))):
        return True
    name = step.target if step.kind == "method" else getattr(step.target, "__name__", "")
    return name.rstrip("_") in _NOISY_FUNCTIONS


def _is_dropout(module: nn.Module | None) -> bool:
    kind = type(module)
    known = kind.__module__.startswith(("torchvision.", "timm."))
    return (isinstance(module, nn.modules.dropout._DropoutNd) and kind.__module__.startswith("torch.nn.")) or (
        known and kind.__name__ in ("StochasticDepth", "DropPath")
    )


def _is_noisy(module: nn.Module) -> bool:
    """Whether it may draw random numbers in training. Of code that is not torch's own: yes."""
    for part in module.modules():
        if _is_dropout(part) or isinstance(part, nn.RReLU) or not type(part).__module__.startswith("torch.nn"):
            return True
        rate = getattr(part, "dropout", 0)  # a number in torch's attention, a module in its transformer layers
        if isinstance(rate, int | float) and rate > 0:
            return True
    return False


def _seeded(module: nn.Module) -> nn.Module:
    """In training, what it draws comes from ``noise_seed`` where that is set; torch's own stream goes on as it was.

    By hooks, so that the module stays what it is and keeps the names of its parameters.
    """
    module.noisy = True  # type: ignore[assignment]
    module.noise_seed = None  # type: ignore[assignment]
    module.noise_calls = 0  # type: ignore[assignment]
    module.register_forward_pre_hook(_enter_stream)
    module.register_forward_hook(_leave_stream, always_call=True)
    return module


def _enter_stream(module: nn.Module, args: tuple[Any, ...]) -> None:
    if not module.training or module.noise_seed is None:
        return
    devices = {arg.device for arg in args if isinstance(arg, Tensor) and arg.device.type == "cuda"}
    fork = torch.random.fork_rng(devices=sorted(device.index or 0 for device in devices))
    fork.__enter__()
    # A module that is called twice in a step draws twice.
    torch.manual_seed(stream_seed(int(module.noise_seed), module.noise_calls))  # type: ignore[arg-type]
    module.noise_calls += 1  # type: ignore[assignment, operator]
    module._fork = fork  # type: ignore[assignment]


def _leave_stream(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    fork = module.__dict__.pop("_fork", None)
    if fork is not None:
        fork.__exit__(None, None, None)


@lru_cache(maxsize=65_536)
def _description(origin: Origin, shape: Shape, name: str) -> dict[str, Any]:
    """What a part is, but for names. The origin belongs to it where its values or its code are the origin's."""
    found = imported(origin, shape)
    part = found.parts[name]
    described = {
        "steps": [_step_described(step) for step in part.steps],
        "modules": [_module_described(found.meta.get_submodule(path)) for path in part.modules.values()],
        "tensors": [_tensor_described(found.meta, path) for path in part.tensors.values()],
    }
    if part.alone is not None:
        del described["steps"]
    modules = [found.meta.get_submodule(path) for path in part.modules.values()]
    owes = bool(part.tensors) or any(_has_tensors(module) or _is_foreign(module) for module in modules)
    owes = owes or any(_is_foreign(step) for step in part.steps)
    return described | ({"origin": origin.identity} if owes else {})


def _has_tensors(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None or next(module.buffers(), None) is not None


def _is_foreign(what: nn.Module | Step) -> bool:
    """Whether it is code of neither torch nor Python, which only the origin's version, or its digest, pins down."""
    if isinstance(what, Step):
        return what.kind == "function" and not qualified(what.target).startswith(_PINNED)
    return any(not type(part).__module__.startswith(_PINNED) for part in what.modules())


def _step_described(step: Step) -> list[Any]:
    target = step.target if isinstance(step.target, str) else qualified(step.target)
    # The names of a part's own modules and tensors are left out: they are described in order.
    return [
        step.kind,
        target if step.kind in ("function", "method") else "",
        repr((step.args, sorted(step.kwargs.items()))),
    ]


def _tensor_described(model: nn.Module, path: str) -> list[Any]:
    tensor = tensor_at(model, path)
    return [isinstance(tensor, nn.Parameter), list(tensor.shape), str(tensor.dtype)]


def _module_described(module: nn.Module) -> dict[str, Any]:
    """Its class, its settings and those of what is inside."""
    kind = type(module)
    settings = {
        key: _setting(value)
        for key, value in sorted(vars(module).items())
        if not key.startswith("_") and key not in ("training", "inplace", "noisy", "noise_seed", "noise_calls")
    }
    described: dict[str, Any] = {"class": f"{kind.__module__}.{kind.__qualname__}", "settings": settings}
    tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    described["tensors"] = [[name, list(tensor.shape), str(tensor.dtype)] for name, tensor in tensors]
    described["inside"] = [[name, _module_described(child)] for name, child in module.named_children()]
    return {key: value for key, value in described.items() if value}


def _setting(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | list):
        return [_setting(item) for item in value]
    if isinstance(value, Mapping):
        return [[str(key), _setting(item)] for key, item in value.items()]
    if isinstance(value, partial):
        return [qualified(value.func), _setting(value.args), _setting(value.keywords)]
    if isinstance(value, torch.dtype | torch.device | torch.Size | slice | Enum):
        return repr(value)
    return qualified(value) if hasattr(value, "__qualname__") else type(value).__qualname__
