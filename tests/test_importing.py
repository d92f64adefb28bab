"""Imported networks are their originals, in both modes and with nothing in place."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from ablate.builder import build, seed_noise
from ablate.importing.graph import differences, import_graph
from ablate.importing.origin import Origin, construct
from ablate.importing.tracing import TraceError
from tests.imported_models import (
    DENSE,
    SWIN,
    VIT,
    AddedInPlace,
    AssignsAPart,
    BranchOnMode,
    Constant,
    CountsItsCalls,
    Decides,
    FunctionalDropout,
    Halves,
    HasANormOfItsOwn,
    NormalisesItsImages,
    OtherConstantInTraining,
    OtherHeadInTraining,
    OtherNumberInTraining,
    ReadAfterWrite,
    ReadTwice,
    SharedLayer,
    SharedNoise,
    TakesAMask,
    Tied,
    Tiny,
    TwoOutputs,
    Untraceable,
    WritesAsAStatement,
    WritesInsideALeaf,
    WritesIntoAView,
    images,
    imported,
    own,
    own_images,
    place,
)


class HandBottleneck(nn.Module):
    """torchvision's first bottleneck with a gate on what ``bn1`` gives, or on what ``conv1`` reads."""

    def __init__(self, block: nn.Module, after_bn1: nn.Module | None, before_conv1: nn.Module | None) -> None:
        super().__init__()
        self.block, self.after_bn1, self.before_conv1 = block, after_bn1, before_conv1

    def forward(self, x: Tensor) -> Tensor:
        block = self.block
        y = block.bn1(block.conv1(self.before_conv1(x) if self.before_conv1 else x))
        y = F.relu(self.after_bn1(y) + y if self.after_bn1 else y)
        y = F.relu(block.bn2(block.conv2(y)))
        return F.relu(block.bn3(block.conv3(y)) + block.downsample(x))


@pytest.mark.parametrize("at", ["after layer1.0.bn1", "before layer1.0.conv1"])
@pytest.mark.parametrize("training", [False, True])
def test_an_insertion_into_resnet50_is_the_hand_written_module(at: str, training: bool) -> None:
    graph, source = imported("resnet50")
    residual = "plain" if at.startswith("after") else "none"
    network = build(place(graph, "se", at, residual, reduction=3), seed=5).train(training)
    original = copy.deepcopy(construct(source.origin, 5)).train(training)
    gate = copy.deepcopy(network.get_submodule("layer1.0.bn1_new" if residual == "plain" else "layer1.0.conv1_in_new"))
    original.layer1[0] = HandBottleneck(original.layer1[0], *((gate, None) if residual == "plain" else (None, gate)))
    assert torch.equal(network(images()), original(images()))


def test_what_stands_after_bn1_reads_what_bn1_gave() -> None:
    graph, source = imported("resnet18")
    network = build(place(graph, "se", "after layer1.0.bn1"), seed=1).eval()
    read: list[Tensor] = []
    network.get_submodule("layer1.0.bn1_new").register_forward_pre_hook(
        lambda module, args: read.append(args[0].detach())
    )
    network(images())
    assert float(read[0].min()) < 0, "a ReLU in place would have left nothing below 0"
    normal = construct(source.origin, 1).layer1[0].bn1
    assert not isinstance(normal, nn.ReLU)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("densenet:DenseNet", DENSE),
        ("convnext_tiny", {"stochastic_depth_prob": 0.5}),
        ("shufflenet_v2_x0_5", {}),
        ("mobilenet_v3_small", {"dropout": 0.4}),
        ("vision_transformer:VisionTransformer", VIT),
        ("swin_transformer:SwinTransformer", SWIN),
    ],
)
def test_an_import_is_its_original_in_both_modes(name: str, arguments: dict[str, Any]) -> None:
    module = f"torchvision.models.{name}" if ":" in name else f"torchvision.models:{name}"
    graph, source = import_graph(Origin.of(module, {"num_classes": 7, **arguments}), (3, 32, 32), 7)
    network = build(graph, seed=3)
    assert differences(source, graph, network, images(32), 3) == []
    assert draws_in_training_alone(network) == (name != "shufflenet_v2_x0_5")


def draws_in_training_alone(network: nn.Module) -> bool:
    """Whether two passes in training differ (batch norm put aside); in evaluation they never may."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01)  # a classifier that starts at 0 would hide what is before it
        network.eval()
        assert torch.equal(network(images(32)), network(images(32)))
        for module in network.modules():
            module.training = not isinstance(module, nn.BatchNorm2d)
        return not torch.equal(network(images(32)), network(images(32)))


def test_noise_is_seeded_by_name_and_step_and_leaves_torchs_own_stream_alone() -> None:
    graph, _ = own(FunctionalDropout)
    network = build(graph, seed=3).train()
    outputs = []
    with torch.no_grad():
        for step in (4, 4, 5):
            torch.manual_seed(step + len(outputs))
            before = torch.get_rng_state()
            seed_noise(network, 1, step)
            outputs.append(network(own_images()))
            assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_two_seeds_start_apart_and_an_insertion_moves_no_other_weight() -> None:
    graph, source = imported("resnet18")
    plain, other = build(graph, seed=1).state_dict(), build(graph, seed=2).state_dict()
    inserted = build(place(graph, "se", "after layer1.0"), seed=1).state_dict()
    original = construct(source.origin, 1).state_dict()
    assert set(plain) == set(original)
    assert len(plain) > 100
    assert all(torch.equal(plain[name], original[name]) and torch.equal(plain[name], inserted[name]) for name in plain)
    assert not torch.equal(plain["conv1.weight"], other["conv1.weight"])


@pytest.mark.parametrize(
    "model",
    [
        *(ReadAfterWrite, AddedInPlace, FunctionalDropout, BranchOnMode, Untraceable, Constant, SharedLayer, Halves),
        *(NormalisesItsImages, HasANormOfItsOwn, TakesAMask, SharedNoise, WritesAsAStatement),
    ],
)
def test_a_users_model_is_itself_in_both_modes(model: type[nn.Module]) -> None:
    graph, source = own(model)
    assert differences(source, graph, build(graph, seed=3), own_images(), 3) == []


def test_a_module_that_cannot_be_traced_or_that_branches_on_the_mode_is_one_node() -> None:
    assert own(Untraceable)[1].whole == ("gate",)
    assert "gate" in own(Untraceable)[0].by_name
    # Without parts of its own a module is one node in any case.
    assert own(BranchOnMode)[1].whole == ()


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (AssignsAPart, "can't be traced at 'x[:, 0] = 0'"),
        (Decides, "can't be traced at 'return super().forward(x if x.sum() > 0 else -x)'"),
        (TwoOutputs, "returns several values"),
        (OtherHeadInTraining, "one thing in training and another in evaluation"),
        (OtherConstantInTraining, "one thing in training and another in evaluation"),
        (OtherNumberInTraining, "one thing in training and another in evaluation"),
        (Tied, "tied parameters can't be imported"),
        (ReadTwice, "'scale' is read in two places"),
        (WritesIntoAView, "reads later by another name"),
        (WritesInsideALeaf, "reads later by another name"),
        (CountsItsCalls, "its forward changes 'calls'"),
    ],
)
def test_what_cannot_be_imported_says_why(model: type[nn.Module], what: str) -> None:
    with pytest.raises(TraceError) as caught:
        own(model)
    assert what in str(caught.value)


def test_a_seed_that_is_not_the_first_is_the_original_too() -> None:
    """A random buffer that the trace had frozen would be the first seed's for all."""
    graph, source = own(NormalisesItsImages)
    assert differences(source, graph, build(graph, seed=8), own_images(), 8) == []


def test_a_copy_of_an_import_is_itself() -> None:
    """An average of the weights, and every file that is exported, is made from a deep copy."""
    network = build(own(FunctionalDropout)[0], seed=3).eval()
    assert torch.equal(copy.deepcopy(network)(own_images()), network(own_images()))
    assert torch.equal(pickle.loads(pickle.dumps(network))(own_images()), network(own_images()))


def test_a_module_that_draws_twice_in_a_step_draws_otherwise_the_second_time() -> None:
    graph, _ = own(SharedNoise)
    network = build(graph, seed=3).train()
    seed_noise(network, 1, 1)
    with torch.no_grad():
        first = network(own_images())
        seed_noise(network, 1, 1)
        assert torch.equal(network(own_images()), first)
    masks = []
    for name in graph.by_name:
        if "drop" in name:
            network.get_submodule(graph.by_name[name].module).register_forward_hook(
                lambda module, args, output: masks.append(output == 0)
            )
    seed_noise(network, 1, 1)
    network(own_images())
    assert len(masks) == 2
    assert not torch.equal(masks[0], masks[1])


def test_the_output_of_a_scope_is_what_a_later_write_left() -> None:
    graph, _ = own(WritesAsAStatement)
    assert graph.scopes["inner"] == "inner.relu"


def test_a_norm_with_a_forward_of_its_own_is_one_node_and_a_norm_to_groups() -> None:
    graph, _ = own(HasANormOfItsOwn)
    assert graph.by_name["norm"].module == "norm"
    assert "norm.relu" not in graph.by_name


def test_a_planted_difference_is_found() -> None:
    graph, source = own(FunctionalDropout)
    network = build(graph, seed=3)
    with torch.no_grad():
        network.get_parameter("conv.weight")[0, 0, 0, 0] += 1e-3
    found = differences(source, graph, network, own_images(), 3)
    assert any("evaluation" in line for line in found)
    assert any("training" in line for line in found)
    assert any("'conv.weight'" in line for line in found)


def test_gradients_that_only_the_original_has_are_a_difference() -> None:
    graph, source = own(Tiny)
    network = build(graph, seed=3)
    network.get_submodule("fc").register_forward_hook(lambda module, args, output: output.detach())
    assert any("no gradients" in line for line in differences(source, graph, network, own_images(), 3))


def test_code_without_values_belongs_to_the_identity_too(tmp_path: Path) -> None:
    """A module of a user's own that holds nothing still does something, and its file says what."""
    rows = []
    for factor in (2, 3):
        (tmp_path / "net.py").write_text(STATELESS.format(factor=factor))
        graph, _ = import_graph(Origin.of("net.py:net", {}, str(tmp_path / "net.py")), (3, 9, 9), 3)
        rows.append(graph.by_name["0"].effective)
        assert "origin" not in graph.by_name["1"].effective  # torch's own needs none
    assert rows[0] != rows[1]


STATELESS = """
from torch import nn

class Times(nn.Module):
    def forward(self, x):
        return x * {factor}

def net(num_classes=3):
    return nn.Sequential(Times(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
"""


def test_no_node_of_an_import_writes_into_what_it_reads() -> None:
    graph, _ = own(AddedInPlace)
    network = build(graph, seed=3).eval()
    changed: list[str] = []
    for name, module in network.named_modules():
        if name in graph.by_name:
            module.register_forward_pre_hook(lambda module, args: setattr(module, "seen", [a.clone() for a in args]))
            module.register_forward_hook(
                lambda module, args, output, name=name: changed.extend(
                    name for a, seen in zip(args, module.seen, strict=True) if not torch.equal(a, seen)
                )
            )
    network(own_images())
    assert changed == []


LISTED = torchvision.models.list_models(module=torchvision.models)
_SMALL = """
    alexnet densenet121 densenet169 efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_v2_s googlenet
    inception_v3 convnext_tiny maxvit_t mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3 mobilenet_v2
    mobilenet_v3_large mobilenet_v3_small regnet_x_1_6gf regnet_x_3_2gf regnet_x_400mf regnet_x_800mf
    regnet_y_1_6gf regnet_y_3_2gf regnet_y_400mf regnet_y_800mf resnet101 resnet152 resnet18 resnet34 resnet50
    resnext50_32x4d shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0 squeezenet1_0
    squeezenet1_1 swin_t swin_v2_t vgg11 vgg11_bn vit_b_16 vit_b_32
"""
SMALL = _SMALL.split()
"""44 of them, those of fewer parameters: the page docs/importing.md has all."""


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_torchvisions_models_are_themselves(name: str) -> None:
    arguments: dict[str, Any] = {"num_classes": 7}
    if name in ("googlenet", "inception_v3"):
        arguments |= {"aux_logits": False, "init_weights": False}
    side = {"inception_v3": 299, "maxvit_t": 224, "vit_b_16": 224, "vit_b_32": 224}.get(name, 96)
    graph, source = import_graph(Origin.of(f"torchvision.models:{name}", arguments), (3, side, side), 7)
    assert differences(source, graph, build(graph, seed=3), images(side, 2), 3) == []


def test_the_page_has_a_row_for_each_of_torchvisions_models() -> None:
    page = (Path(__file__).parent.parent / "docs" / "importing.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| ")][1:]
    assert [row[1].strip() for row in rows if row[1].strip() in LISTED] == LISTED
    assert {row[4].strip() for row in rows if row[1].strip() in LISTED} == {"yes"}
