"""What the tests of ``specs/models`` share: the graph of a spec, weights drawn at random, and networks held equal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from ablate import yamlfile
from ablate.graph import Graph
from ablate.spec import load
from ablate.weights.cutting import Rules, cut
from tests.conftest import REPOSITORY
from tests.networks import graph

MODELS = REPOSITORY / "specs" / "models"
IMAGENET = (3, 224, 224)


def model(
    name: str,
    shape: tuple[int, int, int] = IMAGENET,
    classes: int = 1000,
    insert: Mapping[str, Any] | None = None,
    **params: float,
) -> Graph:
    """The graph of ``specs/models/NAME.yaml``, with some of its parameters set, and with insertions added."""
    section: Any = load(MODELS / f"{name}.yaml").tree["network"]
    section["params"] = {**section["params"], **params}
    if insert:
        section["insert"] = {**section.get("insert", {}), **insert}
    return graph(section, shape, classes)


def torchvisions_names(name: str) -> Rules:
    """The rules of ``specs/models/torchvision/NAME.yaml``: torchvision's names → ours."""
    rules: Rules = yamlfile.load(MODELS / "torchvision" / f"{name}.yaml")["network"]["init"]["rename"]
    return rules


def renamed(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Their tensors under our names, as ``network.init.rename`` has it."""
    found, wrong = cut(state, rules)
    assert not wrong, wrong
    return found


def load_into(ours: fx.GraphModule, theirs: nn.Module, rules: Rules) -> None:
    """Every tensor of theirs into ours, none left over; a matrix is the 1 × 1 convolution with its values."""
    shapes = {name: value.shape for name, value in ours.state_dict().items()}
    state = renamed(theirs.state_dict(), rules)
    ours.load_state_dict({name: value.reshape(shapes.get(name, value.shape)) for name, value in state.items()})


@torch.no_grad()
def randomised(module: nn.Module, seed: int = 5) -> nn.Module:
    """Every weight and statistic drawn anew, so that nothing hides behind a 0 or a 1; from the meta device as well."""
    if any(parameter.is_meta for parameter in module.parameters()):
        module.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if not value.is_floating_point():
            value.zero_()
        elif value.dim() > 1 and value[0].numel() > 1:
            value.normal_(std=value[0].numel() ** -0.5, generator=generator)
        elif name.endswith(("running_var", "weight", "layer_scale")):
            value.uniform_(0.5, 1.5, generator=generator)
        else:
            value.normal_(std=0.1, generator=generator)
    return module


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def gradients(module: nn.Module, x: Tensor) -> Tensor:
    """The module's output; its parameters' gradients are those of a random weighting of it."""
    module.zero_grad()
    y: Tensor = module(x)
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(7), dtype=y.dtype)).sum().backward()
    return y.detach()


def off(one: Tensor, other: Tensor) -> float:
    """The largest difference, relative to the largest value; 0.0 means equal to the last bit."""
    if torch.equal(one, other):
        return 0.0
    return float(((one - other).abs().max() / other.abs().max()).detach())


def differences(
    ours: fx.GraphModule, theirs: nn.Module, rules: Rules, x: Tensor, exempt: frozenset[str] = frozenset()
) -> dict[str, float]:
    """What differs by how much, in evaluation and in training: the output, every gradient, every statistic."""
    with torch.no_grad():
        found = {"output in evaluation": off(ours.eval()(x), theirs.eval()(x))}
    found["output in training"] = off(gradients(ours.train(), x), gradients(theirs.train(), x))
    expected = renamed({name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}, rules)
    own = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    assert own.keys() == expected.keys() == dict(ours.named_parameters()).keys()
    for name in own.keys() - exempt:
        found[f"gradient of {name}"] = off(own[name].reshape(expected[name].shape), expected[name])
    state = renamed(theirs.state_dict(), rules)
    for name, value in ours.named_buffers():
        found[name] = off(value.double(), state[name].double())
    return {name: size for name, size in found.items() if size > 0}
