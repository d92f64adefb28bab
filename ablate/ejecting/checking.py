"""An ejected file held against the network: with weights that let every part speak, evaluating and training.

As it starts, a network hides what stands behind a zero: an insertion whose share of the sum is 0, a branch whose last
normalisation is. So all weights are moved at random first. Draws are made to come from one stream on both sides, so
that training is compared as well: rates, what gradients flow through, and how statistics move.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.builder import build, noisy_modules
from ablate.ejecting.folding import NOISE
from ablate.ejecting.source import CannotEject
from ablate.graph import Graph

EXAMPLES = 2


def check(text: str, graph: Graph) -> None:
    """Run the file: the same weights by the same names, and equal outputs, gradients and statistics, to the last bit.

    ``CannotEject`` says what came out different.
    """
    with _one_stream():
        space: dict[str, Any] = {"__name__": "ejected"}
        exec(compile(text, "<ejected>", "exec"), space)
        ours, theirs = build(graph), space["Network"]()
        _refuse_other_weights(ours, theirs)
        _move(ours)
        theirs.load_state_dict(ours.state_dict(), strict=True)
        inputs = torch.randn(EXAMPLES, *graph.input_shape)
        _draw_alike(ours, space)
        _compare(ours.eval(), theirs.eval(), inputs)
        _compare(ours.train(), theirs.train(), inputs)


def _refuse_other_weights(ours: nn.Module, theirs: nn.Module) -> None:
    weights, others = list(ours.state_dict()), list(theirs.state_dict())
    if others != weights or _names(ours) != _names(theirs):
        missing = sorted({*weights} ^ {*others}) or ["their order"]
        raise CannotEject(f"came out with other weights than the network has: {', '.join(missing[:3])}")


def _names(network: nn.Module) -> list[str]:
    return [name for name, _ in network.named_parameters()]


@contextmanager
def _one_stream() -> Iterator[None]:
    """Random numbers and sums in one order; outside, everything is as it was."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _move(network: nn.Module) -> None:
    """Every weight a little away from where it starts, and running statistics from 0 and 1."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.is_floating_point():
                wide = 0.5 * (parameter[0].numel() ** -0.5) if parameter.ndim > 1 and parameter.numel() else 0.1
                parameter.add_(torch.randn_like(parameter), alpha=wide)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(torch.randn_like(buffer), alpha=0.1)
            elif name.endswith("running_var"):
                buffer.mul_(torch.rand_like(buffer) + 0.5)


def _draw_alike(ours: nn.Module, space: Mapping[str, Any]) -> None:
    """Dropout draws as torch's, since that is what the file has for it; every other block by one seed on both sides."""
    from ablate.blocks.dropout import Dropout

    for _, module in noisy_modules(ours):
        if isinstance(module, Dropout):
            module.forward = _Dropout(module)  # type: ignore[method-assign]
        elif not module._forward_pre_hooks:  # an imported module without a seed draws from torch's stream
            module.noise_seed = 5  # type: ignore[assignment]
    for kind in space.values():
        if isinstance(kind, type) and NOISE in vars(kind):
            kind.noise_seed = 5  # type: ignore[attr-defined]


class _Dropout:
    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, x: Tensor) -> Tensor:
        return F.dropout(x, float(self.module.rate), self.module.training)  # type: ignore[arg-type]


def _compare(ours: nn.Module, theirs: nn.Module, inputs: Tensor) -> None:
    one, other = _pass(ours, inputs), _pass(theirs, inputs)
    for (what, name), tensor in one.items():
        if (what, name) not in other or not _equal(tensor, other[what, name]):
            mode = " in training" if ours.training else ""
            raise CannotEject(f"came out with other {what} than the network gives{mode}{f': {name}' if name else ''}")
    if one.keys() != other.keys():
        raise CannotEject("came out with gradients where the network has none")


def _equal(one: Tensor, other: Tensor) -> bool:
    """To the last bit, and not a number where the other is not."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one.nan_to_num(), other.nan_to_num()) and torch.equal(one.isnan(), other.isnan())


def _pass(network: nn.Module, inputs: Tensor) -> dict[tuple[str, str], Tensor]:
    """The outputs; of a training network also the gradients, and the statistics after the pass."""
    torch.manual_seed(1)
    if not network.training:
        with torch.no_grad():
            return {("outputs", ""): network(inputs)}
    inputs = inputs.clone().requires_grad_()
    output = network(inputs)
    found = {("outputs", ""): output.detach()}
    if output.requires_grad:
        (output * torch.linspace(-1, 1, output.numel()).reshape(output.shape)).sum().backward()
    gradients = {"of the input": inputs.grad} | {name: weight.grad for name, weight in network.named_parameters()}
    found |= {("gradients", name): gradient for name, gradient in gradients.items() if gradient is not None}
    return found | {("statistics", name): buffer for name, buffer in network.named_buffers()}
