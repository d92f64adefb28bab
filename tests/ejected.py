"""What the tests of ejected files share: to eject, to run a file's code, to compare two networks bit for bit."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ablate.block import Shape
from ablate.builder import noisy_modules
from ablate.ejecting import About, written
from ablate.graph import Graph

TITLE = About("a test", "ablate eject spec.yaml")


def ejected(graph: Graph, **given: Any) -> str:
    return written(graph, TITLE, **given)


def plain_network(text: str) -> nn.Module:
    space: dict[str, Any] = {"__name__": "ejected"}
    exec(compile(text, "<ejected>", "exec"), space)
    network: nn.Module = space["Network"]()
    return network


def assert_same_network(ours: nn.Module, theirs: nn.Module, shape: Shape, size: int = 3) -> None:
    """Equal names, outputs, gradients of parameters and of the input, and statistics, in both modes."""
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(size, *shape, generator=torch.Generator().manual_seed(5))
    noisy = any(True for _ in noisy_modules(ours))
    for training in (False, *([] if noisy else [True])):
        one, other = run(ours.train(training), images), run(theirs.train(training), images)
        for name, tensor in one.items():
            assert torch.equal(tensor, other[name]), f"{name}, training: {training}"
        assert one.keys() == other.keys()


def run(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What a pass gives, by name: the output, gradients, and the buffers after it."""
    network.zero_grad(set_to_none=True)
    images = images.clone().requires_grad_()
    output = network(images)
    weights = torch.linspace(-1, 1, output.numel()).reshape(output.shape)
    (output * weights).sum().backward()
    assert images.grad is not None
    gradients = {f"gradient of {name}": p.grad for name, p in network.named_parameters() if p.grad is not None}
    buffers = {f"buffer {name}": buffer.clone() for name, buffer in network.named_buffers()}
    return {"output": output.detach(), "gradient of the input": images.grad, **gradients, **buffers}
