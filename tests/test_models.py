"""The models of ``specs/models`` beside torchvision's own with the same weights: outputs, gradients, statistics."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.vision_transformer import VisionTransformer
from torchvision.ops import StochasticDepth

from ablate.builder import build, seed_noise
from ablate.design import study_plan
from ablate.errors import UserError
from ablate.graph import Graph
from ablate.spec import load
from tests.conftest import REPOSITORY
from tests.models import (
    MODELS,
    differences,
    gradients,
    images,
    load_into,
    model,
    off,
    randomised,
    renamed,
    torchvisions_names,
)

SIDE = 64
WITHOUT_NOISE: dict[str, tuple[dict[str, float], dict[str, Any]]] = {
    "mobilenet_v2": ({"dropout": 0.0}, {"dropout": 0.0}),
    "efficientnet_b0": ({"dropout": 0.0}, {"dropout": 0.0, "stochastic_depth_prob": 0.0}),
    "convnext_tiny": ({}, {"stochastic_depth_prob": 0.0}),
    "vit_b_16": ({}, {"image_size": SIDE}),
}
"""What turns off what is drawn in training, in ours and in theirs; and a ViT must be told its images' size."""
SAME_OPERATIONS = ("resnet18", "resnet50", "densenet121", "mobilenet_v2", "efficientnet_b0")
OTHER_OPERATIONS = ("convnext_tiny", "vit_b_16")
"""torchvision's ConvNeXt multiplies matrices of channels-last pixels where ours convolves by 1 × 1; its attention has
one matrix for query, key and value, and in evaluation a kernel of its own."""


def pair(name: str) -> tuple[Graph, Any, nn.Module]:
    """Our graph, our network with torchvision's weights, torchvision's network."""
    params, options = WITHOUT_NOISE.get(name, ({}, {}))
    with torch.device("meta"):
        empty = getattr(torchvision.models, name)(weights=None, **options)
    theirs = randomised(empty)
    graph = model(name, (3, SIDE, SIDE), **params)
    ours = build(graph)
    load_into(ours, theirs, torchvisions_names(name))
    return graph, ours, theirs


@pytest.mark.parametrize("name", SAME_OPERATIONS)
def test_a_model_is_torchvisions_to_the_last_bit(name: str) -> None:
    _, ours, theirs = pair(name)
    assert differences(ours, theirs, torchvisions_names(name), images(2, 3, SIDE, SIDE)) == {}


@pytest.mark.parametrize("name", OTHER_OPERATIONS)
def test_a_model_of_other_operations_is_torchvisions_but_for_rounding(name: str) -> None:
    graph, ours, theirs = pair(name)
    # a bias that the softmax cancels has a gradient that is nothing but rounding
    cancelled = {f"{node.name}.{p}" for node in graph.nodes for p in node.block.invariant_parameters}
    found = differences(ours, theirs, torchvisions_names(name), images(2, 3, SIDE, SIDE), frozenset(cancelled))
    assert {what: size for what, size in found.items() if size > 1e-5} == {}


def test_every_file_of_names_is_held_against_torchvision() -> None:
    files = {path.stem for path in (MODELS / "torchvision").glob("*.yaml")}
    assert files == {*SAME_OPERATIONS, *OTHER_OPERATIONS}


def small(name: str) -> tuple[nn.Module, dict[str, float]]:
    """torchvision's model at a tenth of its size, and what makes ours as small."""
    if name == "mobilenet_v2":
        return torchvision.models.mobilenet_v2(weights=None, width_mult=0.35, num_classes=7), {"k": 0.35}
    if name == "vit_b_16":
        return VisionTransformer(SIDE, 16, 2, 3, 12, 48, num_classes=7), {"depth": 2, "dim": 12, "heads": 3}
    layout = [CNBlockConfig(12, 24, 1), CNBlockConfig(24, 48, 1), CNBlockConfig(48, 96, 3), CNBlockConfig(96, None, 1)]
    return ConvNeXt(layout, num_classes=7), {"k": 0.125, "d": 0.34}


@pytest.mark.parametrize("name", ["mobilenet_v2", *OTHER_OPERATIONS])
def test_the_file_of_names_loads_a_saved_model_through_the_spec(name: str, tmp_path: Path) -> None:
    """The whole way: a state dict on disk, ``init.from``, the rules, the variant's network; a classifier and all."""
    theirs, params = small(name)
    torch.save(randomised(theirs).state_dict(), tmp_path / "saved.pt")
    sets = {
        "network.init.from": str(tmp_path / "saved.pt"),
        **{f"network.params.{key}": value for key, value in params.items()},
        "name": "loaded",
        "data": {"name": "fake", "shape": [3, SIDE, SIDE], "classes": 7},
        "train": {"epochs": 1, "optimizer": {"name": "sgd", "lr": 0.1}},
    }
    spec = load(MODELS / "torchvision" / f"{name}.yaml", sets=sets)
    network = study_plan(spec).variants[0].network.built(3).eval()
    x = images(2, 3, SIDE, SIDE)
    assert off(network(x), theirs.eval()(x)) < 1e-5


OLD_NAMES = {
    "densenet121": (r"(denselayer\d+\.(?:norm|conv))(\d\.)", r"\1.\2"),
    "vit_b_16": (r"mlp\.(0|3)\.", lambda found: f"mlp.linear_{1 if found[1] == '0' else 2}."),
}
"""What the files that torchvision publishes are called within, where its models have other names today: both translate
as they load (``_load_state_dict`` of its densenet.py, ``MLPBlock._load_from_state_dict``)."""


@pytest.mark.parametrize("name", OLD_NAMES)
def test_the_published_files_names_mean_what_the_models_own_do(name: str) -> None:
    with torch.device("meta"):
        module = getattr(torchvision.models, name)(weights=None)
    state = {key: torch.zeros(value.shape[:1]) for key, value in module.state_dict().items()}
    old = {re.sub(*OLD_NAMES[name], key): value for key, value in state.items()}
    assert old.keys() != state.keys()
    assert renamed(old, torchvisions_names(name)).keys() == renamed(state, torchvisions_names(name)).keys()


def test_the_pages_example_lacks_nothing_but_the_file_of_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    shutil.copytree(MODELS, tmp_path / "specs" / "models")
    page = (REPOSITORY / "docs" / "models.md").read_text(encoding="utf-8")
    example = page.partition("```yaml\n# specs/finetune.yaml\n")[2].partition("```")[0]
    (tmp_path / "specs" / "finetune.yaml").write_text(example, encoding="utf-8")
    with pytest.raises(UserError) as error:
        study_plan(load(tmp_path / "specs" / "finetune.yaml"))
    assert [problem.message.partition(" '")[0] for problem in error.value.problems] == ["no file"]


# stochastic depth --------------------------------------------------------------------------------------------------


class Given(nn.Module):
    """Stochastic depth whose draws are given: torchvision's mode ``row``, written out."""

    def __init__(self, rate: float, kept: Tensor) -> None:
        super().__init__()
        self.rate, self.kept = rate, kept

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        rows = [row / (1 - self.rate) if kept else 0 * row for row, kept in zip(x, self.kept.tolist(), strict=True)]
        return torch.stack(rows)


def test_stochastic_depth_as_an_insertion_is_convnexts_own() -> None:
    """The line that the head of the file gives, with the rates and the rule of torchvision: a draw for each example."""
    drop = {"block": "drop_path", "rate": {"linear": [0, 0.5]}, "at": "before stage*.*.add:branch"}
    graph = model("convnext_tiny", (3, SIDE, SIDE), 7, {"drop": drop}, width=12, n3=2)
    ours = build(graph)
    layout = [CNBlockConfig(12, 24, 3), CNBlockConfig(24, 48, 3), CNBlockConfig(48, 96, 2), CNBlockConfig(96, None, 3)]
    theirs = randomised(ConvNeXt(layout, stochastic_depth_prob=0.5, num_classes=7))
    drops = graph.insertion_nodes("drop")
    steps = [(path, module) for path, module in theirs.named_modules() if isinstance(module, StochasticDepth)]
    assert [module.p for _, module in steps] == pytest.approx([node.params.rate for node in drops])  # type: ignore[attr-defined]
    assert {module.mode for _, module in steps} == {"row"}
    load_into(ours, theirs, torchvisions_names("convnext_tiny"))
    seed_noise(ours, 11, 3)
    for (path, module), node in zip(steps[1:], drops[1:], strict=True):  # the first is never dropped
        stream = torch.Generator().manual_seed(ours.get_submodule(node.name).noise_seed)
        theirs.set_submodule(path, Given(module.p, torch.rand(5, generator=stream) >= module.p))
    x = images(5, 3, SIDE, SIDE)
    assert off(gradients(ours.train(), x), gradients(theirs.train(), x)) < 1e-5
    expected = renamed({name: p.grad for name, p in theirs.named_parameters()}, torchvisions_names("convnext_tiny"))
    for name, parameter in ours.named_parameters():
        assert off(parameter.grad.reshape(expected[name].shape), expected[name]) < 1e-5, name
