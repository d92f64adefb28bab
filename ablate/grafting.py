"""``ablate.graft``: a block put into a network that is there already, in one line.

    model = torchvision.models.resnet18(weights="DEFAULT")
    grafted = ablate.graft(model, "se", after="layer*", reduction=8)

It is what a spec's ``network.insert`` does, on a model that a program holds and not on one that a name builds.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch import fx, nn

from ablate.design import Variant, as_written
from ablate.errors import Problem, UserError
from ablate.importing import imported, origin
from ablate.insert import Side
from ablate.spec import load

SIZE = 224
"""Height and width, in pixels, of the images that a model is traced with where nothing is said."""
Places = str | Sequence[str]
_RECIPE = {"epochs": 1, "optimizer": {"name": "sgd", "lr": 0.1}}


class _Held:
    """The models that are being grafted onto, each under the name that stands in for an import's."""

    def __init__(self) -> None:
        self._models: dict[str, nn.Module] = {}
        self._numbers = count()

    def __getattr__(self, name: str) -> Callable[[], nn.Module]:
        try:
            model = self.__dict__["_models"][name]
        except KeyError:
            raise AttributeError(name) from None
        return lambda: copy.deepcopy(model)

    @contextmanager
    def holding(self, model: nn.Module) -> Iterator[str]:
        name = f"model{next(self._numbers)}"
        self._models[name] = model
        try:
            yield f"{__name__}:HELD.{name}"
        finally:
            del self._models[name]
            for cached in (origin.construct, imported.imported, imported._description):
                cached.cache_clear()  # they hold the model


HELD = _Held()


def graft(
    model: nn.Module,
    block: str,
    *,
    after: Places = (),
    before: Places = (),
    replace: Places = (),
    joined: str | Mapping[str, Any] = "none",
    input_shape: tuple[int, int, int] | None = None,
    name: str | None = None,
    seed: int = 0,
    **params: Any,
) -> fx.GraphModule:
    """A copy of a classifier with a block in it: at each place ``after``, ``before`` or in the place of a pattern.

    Patterns name modules, as in ``model.named_modules()``: ``layer1``, ``layer*.*.bn2``. ``joined`` is ``none`` F(x),
    ``plain`` F(x) + x or ``weighted`` w·F(x) + x with w learnt, 0 at first. ``params`` are the block's; ``$in`` is the
    channels at each place. All weights but the block's are the model's, by value; the block's are drawn by name from
    ``seed``. Mode, device, type and what requires gradients stay as they are. ``input_shape`` (C, H, W) is what the
    model is traced with: by default the channels of its first convolution, and 224 × 224. ``name``: of the insertion,
    by default the block's.

    Errors (UserError): no such block, parameter or place; a shape that does not fit; a model that can't be traced.
    """
    at = [f"{side} {pattern}" for side, given in _sides(after, before, replace) for pattern in given]
    if not at:
        raise UserError(Problem("graft: where?", hint="after=PATTERN, before=PATTERN or replace=PATTERN"))
    if not isinstance(model, nn.Module):
        raise UserError(f"graft: a {type(model).__name__} is no torch.nn.Module")
    shape = tuple(input_shape) if input_shape is not None else (_channels(model), SIZE, SIZE)
    twin = copy.deepcopy(model).cpu().float()
    inserted = name or block
    residual = dict(joined) if isinstance(joined, Mapping) else joined
    entry = {"block": block, "at": at[0] if len(at) == 1 else at, "residual": residual, **params}
    with HELD.holding(twin) as named:
        spec = _spec(named, shape, _classes(twin, shape), {inserted: entry})
        try:
            variant = as_written(load(spec, trust=True))
            network = variant.network.built(seed)
        except UserError as error:
            raise UserError([_told(problem, inserted, named) for problem in error.problems]) from None
    _as_it_was(network, model, variant)
    return network


def _sides(after: Places, before: Places, replaced: Places) -> list[tuple[Side, list[str]]]:
    given: dict[Side, Places] = {"after": after, "before": before, "replace": replaced}
    return [(side, [places] if isinstance(places, str) else list(places)) for side, places in given.items()]


def _channels(model: nn.Module) -> int:
    first = next((module for module in model.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        raise UserError(Problem("graft: the model has no convolution that tells its channels", hint="give input_shape"))
    return first.in_channels


def _classes(model: nn.Module, shape: tuple[int, ...]) -> int:
    """How many numbers it gives for an image. ``UserError`` where it gives something else, or fails."""
    twin = copy.deepcopy(model).eval()
    try:
        with torch.no_grad():
            scores = twin(torch.zeros(2, *shape))
    except Exception as error:  # whatever a stranger's code raises
        said = str(error).strip().split("\n", 1)[0]
        message = f"graft: the model fails on images of {' × '.join(map(str, shape))}: {type(error).__name__}: {said}"
        raise UserError(Problem(message, hint="give input_shape=(C, H, W)")) from None
    if not isinstance(scores, torch.Tensor) or scores.dim() != 2:
        raise UserError("graft: the model's output is no tensor of (batch, classes)")
    return int(scores.shape[1])


def _spec(named: str, shape: tuple[int, ...], classes: int, insertions: dict[str, Any]) -> dict[str, Any]:
    data = {"name": "fake", "shape": list(shape), "classes": classes, "count": {"train": classes, "test": classes}}
    return {
        "name": "graft",
        "data": data,
        "train": _RECIPE,
        "network": {"import": named, "insert": insertions},
    }


def _told(problem: Problem, inserted: str, named: str) -> Problem:
    """Of the call, where it was of the spec that stands for it."""
    path = problem.path.removeprefix(f"network.insert.{inserted}").removeprefix("network.import").strip(".")
    message = problem.message.replace(named, "the model")
    return dataclasses.replace(problem, message=message, path=f"graft: {path}" if path else "graft", place=None)


def _as_it_was(network: fx.GraphModule, model: nn.Module, variant: Variant) -> None:
    """Type, device, values, what requires gradients and the mode, as the model has them."""
    first = next((p for p in model.parameters() if p.is_floating_point()), None)
    if first is not None:
        network.to(device=first.device, dtype=first.dtype)
    source = variant.network.source
    assert source is not None
    theirs = model.state_dict(keep_vars=True)
    for ours, tensor in network.state_dict(keep_vars=True).items():
        original = theirs.get(source.names.get(ours, ""))
        if original is not None:
            tensor.data = original.detach().clone()
    modes = {path: module.training for path, module in model.named_modules()}
    network.train(model.training)
    for path, module in network.named_modules():
        module.training = modes.get(path, module.training)
