"""Imported networks are their originals, and take insertions as a hand-written module would."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

import ablate
from ablate.block import find
from ablate.builder import build, seed_noise
from ablate.errors import UserError
from ablate.graph import Graph
from ablate.importing.graph import Import, differences, import_graph
from ablate.importing.origin import Origin, OriginError, construct, origin_of
from ablate.importing.tracing import TraceError
from ablate.insert import At, Insertion, InsertionError, Residual, insert

SIDE = 37


def imported(name: str, side: int = SIDE, classes: int = 7, **arguments: Any) -> tuple[Graph, Import]:
    origin = Origin.of(f"torchvision.models:{name}", {"num_classes": classes, **arguments})
    return import_graph(origin, (3, side, side), classes)


def images(side: int = SIDE, count: int = 3) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(11))


def place(graph: Graph, block: str, at: str, residual: str = "none", **params: Any) -> Graph:
    kind = find(block)
    joined = Residual(residual)  # type: ignore[arg-type]
    return insert(graph, [Insertion("new", kind, kind.Params(**params), (At.parse(at),), joined)])


# --- the issue's own cases: in-place operations do not reach what is inserted --------------------------------------


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


# --- both modes ----------------------------------------------------------------------------------------------------


DENSE = {"growth_rate": 5, "block_config": [2, 3], "num_init_features": 7, "num_classes": 7, "drop_rate": 0.3}
SWIN = {
    "patch_size": [4, 4],
    "embed_dim": 12,
    "depths": [2, 1],
    "num_heads": [2, 3],
    "window_size": [3, 3],
    "dropout": 0.2,
    "attention_dropout": 0.1,
    "stochastic_depth_prob": 0.3,
    "num_classes": 7,
}
VIT = {
    "image_size": 32,
    "patch_size": 8,
    "num_layers": 2,
    "num_heads": 3,
    "hidden_dim": 15,
    "mlp_dim": 11,
    "dropout": 0.2,
    "attention_dropout": 0.1,
    "num_classes": 7,
}


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


# --- what torch.fx gets wrong, on models of our own ----------------------------------------------------------------


class Tiny(nn.Module):
    """A convolution, then what a subclass does, then a classifier."""

    def __init__(self, num_classes: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.fc = nn.Linear(5, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.middle(self.norm(self.conv(x))).mean((2, 3)))

    def middle(self, x: Tensor) -> Tensor:
        return x


class ReadAfterWrite(Tiny):
    def middle(self, x: Tensor) -> Tensor:
        y = x.relu_()
        return y + x  # x is what the ReLU left


class AddedInPlace(Tiny):
    def middle(self, x: Tensor) -> Tensor:
        y = x * 3
        y += x
        return F.relu(y, True) * y


class FunctionalDropout(Tiny):
    def middle(self, x: Tensor) -> Tensor:
        return F.dropout2d(F.dropout(x, 0.3, self.training), p=0.2, training=self.training)


class DropsInTrainingOnly(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = F.dropout(x, 0.5)
        return x


class BranchOnMode(Tiny):
    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.inner = nn.Sequential(nn.Conv2d(5, 5, 1), DropsInTrainingOnly())

    def middle(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((5, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 1e6:
            return x
        return x * self.weight


class Untraceable(Tiny):
    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.gate = Gate()

    def middle(self, x: Tensor) -> Tensor:
        return self.gate(x)


class Constant(Tiny):
    def middle(self, x: Tensor) -> Tensor:
        return x * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])[:, None, None]


class SharedLayer(Tiny):
    def middle(self, x: Tensor) -> Tensor:
        return self.norm(self.norm(x))


class Halves(Tiny):
    def middle(self, x: Tensor) -> Tensor:
        a, b = torch.split(x, [2, 3], dim=1)
        batch, _, height, width = x.shape
        return (
            torch.cat([b, a], 1)
            .view(batch, 5, height * width)
            .transpose(1, 2)
            .reshape(batch, -1, 5, 1)
            .mean(1, keepdim=True)
            .permute(0, 2, 1, 3)
        )


class AssignsAPart(Tiny):
    def middle(self, x: Tensor) -> Tensor:
        x[:, 0] = 0
        return x


class Decides(Tiny):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class TwoOutputs(Tiny):
    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        return y, y


class OtherHeadInTraining(Tiny):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * 2 if self.training else y


class Tied(Tiny):
    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.one, self.two = nn.Conv2d(5, 5, 1), nn.Conv2d(5, 5, 1)
        self.two.weight = self.one.weight

    def middle(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


class ReadTwice(Tiny):
    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.scale = nn.Parameter(torch.full((5, 1, 1), 0.5))

    def middle(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x * self.scale) * self.scale


class WritesIntoAView(Tiny):
    def middle(self, x: Tensor) -> Tensor:
        x.flatten(1).clamp_(max=0.1)
        return x


class WritesInsideALeaf(Tiny):
    """The original changes what it reads later; the module says nothing of it."""

    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.act = SilentlyInPlace()

    def middle(self, x: Tensor) -> Tensor:
        y = self.act(x)
        return y + x


class SilentlyInPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(x)


class OtherNumberInTraining(Tiny):
    def middle(self, x: Tensor) -> Tensor:
        return x.clamp(-0.1, None if self.training else 0.1)


class CountsItsCalls(Tiny):
    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.calls = 0

    def middle(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x if self.calls < 50 else x * 0


class NormalisesItsImages(Tiny):
    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]))
        self.register_buffer("random", torch.rand(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - self.mean.view(1, -1, 1, 1)) * (2 * self.random))


class NormWithAForward(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(super().forward(x))


class HasANormOfItsOwn(Tiny):
    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.norm = NormWithAForward(5)


class TakesAMask(Tiny):
    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 2.0) -> Tensor:
        y = super().forward(x) * scale
        return y if mask is None else y * mask


class SharedNoise(Tiny):
    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.drop = nn.Sequential(nn.Dropout(0.5))

    def middle(self, x: Tensor) -> Tensor:
        return self.drop(x) * self.drop(x)


class WritesAsAStatement(Tiny):
    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.inner = ConvThenRelu()

    def middle(self, x: Tensor) -> Tensor:
        return self.inner(x)


class ConvThenRelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(5, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.c(x)
        F.relu(y, inplace=True)
        return y


def own(model: type[nn.Module]) -> tuple[Graph, Import]:
    return import_graph(Origin.of(f"{__name__}:{model.__name__}", {"num_classes": 7}), (3, 11, 13), 7)


def own_images() -> Tensor:
    return torch.randn(4, 3, 11, 13, generator=torch.Generator().manual_seed(2))


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


def test_a_planted_difference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
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


# --- names and places ----------------------------------------------------------------------------------------------


def test_nodes_are_called_as_their_modules_and_functions_by_their_scope() -> None:
    graph, _ = imported("resnet18")
    names = set(graph.by_name)
    assert {"conv1", "layer1.0.conv2", "layer2.0.downsample.1", "layer1.0.add", "flatten", "fc"} <= names
    assert {"layer1.0.relu#1", "layer1.0.relu#2", "relu"} <= names
    assert graph.scopes["layer1.0"] == "layer1.0.relu#2"
    assert graph.repeats["layer1"] == 2


def test_a_slice_of_what_a_module_gives_is_no_second_call_of_it() -> None:
    graph, _ = import_graph(Origin.of("torchvision.models.vision_transformer:VisionTransformer", VIT), (3, 32, 32), 7)
    assert {"encoder.ln", "getitem", "encoder.layers.encoder_layer_0.self_attention"} <= set(graph.by_name)
    assert not any("#" in name for name in graph.by_name)


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("after layer*.*.bn3", 16),
        ("after layer*.*", 16),
        ("after layer*.-1", 4),
        ("before layer(2-4).0.conv1", 3),
        ("after layer1.*.relu#3", 3),
        ("replace layer*.*.conv2", 16),
        ("before layer*.*.add:x", 16),
    ],
)
def test_patterns_select_the_places_of_an_import(pattern: str, count: int) -> None:
    graph, _ = imported("resnet50")
    block = "conv" if pattern.startswith("replace") else "identity"
    params = {"kernel": 5} if block == "conv" else {}
    kind = find(block)
    made: Callable[..., Any] = lambda site: kind.Params(**params, **_taken(site))  # noqa: E731
    graph = insert(graph, [Insertion("new", kind, made if block == "conv" else kind.Params(), (At.parse(pattern),))])
    assert len(graph.insertion_nodes("new")) == count


def _taken(site: Any) -> dict[str, Any]:
    return dict(site.taken_over)


def test_replace_takes_over_width_and_stride_of_an_imported_convolution() -> None:
    spec = ablate.load(
        section(
            {
                "import": "torchvision.models:resnet18",
                "insert": {"wide": {"block": "conv", "kernel": 5, "at": "replace layer2.0.conv1"}},
            }
        )
    )
    module = ablate.build(spec).get_submodule("layer2.0.conv1_wide")
    weight = next(module.parameters())
    assert weight.shape == (128, 64, 5, 5)
    assert ablate.build(spec)(images(32)).shape == (3, 7)


def section(network: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {
        "name": "imported",
        "network": network,
        "data": {"name": "fake", "shape": [3, 32, 32], "classes": 7, "count": {"train": 16, "test": 8}},
        "train": {"epochs": 1, "batch_size": 8, "optimizer": {"name": "sgd", "lr": 0.01}},
        **others,
    }


def test_cbam_after_every_bn3_of_resnet50_is_sixteen_insertions_of_the_papers_size() -> None:
    spec = ablate.load(
        section(
            {
                "import": "torchvision.models:resnet50",
                "insert": {"attention": {"block": "cbam", "reduction": 16, "at": "after layer*.*.bn3"}},
            }
        )
    )
    widths = [256] * 3 + [512] * 4 + [1024] * 6 + [2048] * 3
    gates = sum(2 * width * (width // 16) + 2 * 49 + 1 for width in widths)
    head = 2048 * 7 + 7
    network = ablate.build(spec)
    assert sum(parameter.numel() for parameter in network.parameters()) == 25_557_032 - 2_049_000 + head + gates
    assert sum(name.endswith("bn3_attention") for name, _ in network.named_modules()) == 16


def test_the_bare_name_of_a_module_called_twice_lists_its_calls() -> None:
    network = {
        "import": "torchvision.models:resnet18",
        "insert": {"x": {"block": "se", "at": "after layer1.0.relu"}},
    }
    with pytest.raises(UserError) as caught:
        ablate.load(section(network))
    assert "layer1.0.relu#1, layer1.0.relu#2" in str(caught.value)


def test_a_module_inside_of_a_node_says_in_which() -> None:
    network = {
        "import": "torchvision.models:swin_t",
        "insert": {"x": {"block": "identity", "at": "after features.1.0.attn.qkv"}},
    }
    with pytest.raises(UserError) as caught:
        ablate.load(section(network))
    assert "matches nothing" in str(caught.value)


# --- through the whole house ---------------------------------------------------------------------------------------


def test_the_certificate_says_that_the_import_is_the_original(tmp_path: Path) -> None:
    spec = ablate.load(
        section(
            {
                "import": f"{__name__}:FunctionalDropout",
                "insert": {"gate": {"block": "se", "at": "after norm"}},
            },
            ablation={
                "seeds": 1,
                "baseline": {"gate": "none"},
                "factors": {
                    "gate": {"none": {"network.insert.gate": None}, "se": {"network.insert.gate.reduction": 2}}
                },
            },
        ),
        trust=True,
    )
    study = ablate.sweep(spec, folder=tmp_path / "study", executor="local")
    records = {record["name"]: record for record in study.variants}
    for record in records.values():
        assert record["certificate"]["failures"] == []
        assert record["certificate"]["passes"]["imported"]["equal_to_the_original"]
    shared = records["se"]["certificate"]["shared"]
    assert shared["equal"] == shared["shared"] == 9
    assert all(result["status"] == "finished" for result in study.results().values())


def test_equal_imports_are_one_network_and_others_are_not() -> None:
    def fingerprint(name: str, **arguments: Any) -> str:
        return imported(name, **arguments)[0].fingerprint

    assert fingerprint("resnet18") == fingerprint("resnet18")
    # Both start otherwise, or do something else in training: neither has the other's result.
    assert fingerprint("resnet18") != fingerprint("resnet18", zero_init_residual=True)
    assert own(Tiny)[0].fingerprint != own(FunctionalDropout)[0].fingerprint


def test_init_set_and_freeze_act_on_imported_nodes() -> None:
    spec = ablate.load(
        section(
            {"import": "torchvision.models:resnet18", "init": {"set": {"layer*.*.bn2": "zero", "fc": "trunc_normal"}}},
        )
        | {"train": {"epochs": 1, "batch_size": 8, "optimizer": {"name": "sgd", "lr": 0.01}, "freeze": ["layer1"]}}
    )
    state = ablate.build(spec).state_dict()
    assert float(state["layer1.1.bn2.weight"].abs().max()) == 0
    assert float(state["fc.bias"].abs().max()) == 0
    assert 0.01 < float(state["fc.weight"].std()) < 0.03


# --- trust ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "what"),
    [
        ("torchvision._internally_replaced_utils:load_state_dict_from_url", {"url": "x"}, "without --trust"),
        ("torchvision.models:get_model", {"name": "resnet18"}, "not among the models"),
        ("torchvision.models:resnet.resnet18", {}, "not among the models"),
        ("torchvision.models.resnet:resnet18", {}, "without --trust"),
        ("torch.hub:load", {"repo_or_dir": "x"}, "without --trust"),
        ("os:system", {"command": "true"}, "without --trust"),
        ("timm:create_model", {"model_name": "resnet18"}, "not among the models"),
        ("timm:hf-hub:some/model", {}, "is no 'module:callable'"),
        ("my_model.py:Net", {}, "without --trust"),
        ("torchvision.models:resnet50", {"weights": "IMAGENET1K_V1"}, "brings no weights"),
        ("torchvision.models:resnet50", {"norm_layer": "x"}, "'norm_layer' is refused"),
        ("timm:resnet18", {"pretrained_cfg": {"url": "http://x"}}, "'pretrained_cfg' is refused"),
        ("timm:resnet18", {"pretrained": True}, "brings no weights"),
        ("torchvision.models:resnet50", {"num_classes": "http://x"}, "takes numbers"),
        ("resnet50", {}, "is no 'module:callable'"),
        (7, {}, "is no 'module:callable'"),
    ],
)
def test_without_trust_only_listed_models_with_plain_arguments(name: Any, arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(OriginError) as caught:
        origin_of(name, arguments, Path(), trusted=False)
    assert what in str(caught.value)


def test_every_name_of_torchvision_that_is_no_listed_model_is_refused() -> None:
    known = set(torchvision.models.list_models(module=torchvision.models))
    for name in set(dir(torchvision.models)) - known:
        with pytest.raises(OriginError):
            origin_of(f"torchvision.models:{name}", {}, Path(), trusted=False)


def test_an_argument_that_would_load_weights_is_refused_even_with_trust() -> None:
    with pytest.raises(OriginError):
        origin_of("torchvision.models:resnet50", {"weights": "IMAGENET1K_V1"}, Path(), trusted=True)


OWN = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.fc(torch.relu_(self.conv(x)).amax((2, 3)))
"""


def test_a_users_own_file_needs_trust_and_counts_by_its_content(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(OWN)
    file = tmp_path / "spec.yaml"
    file.write_text(json.dumps(section({"import": "net.py:Net", "args": {"width": 5, "num_classes": "$classes"}})))
    with pytest.raises(UserError, match="without --trust"):
        ablate.load(file)
    network = ablate.build(ablate.load(file, trust=True))
    assert network(images(32)).shape == (3, 7)
    assert [name for name, _ in network.named_parameters()] == ["conv.weight", "conv.bias", "fc.weight", "fc.bias"]
    before = import_graph(
        Origin.of("net.py:Net", {"width": 5, "num_classes": 7}, str(tmp_path / "net.py")), (3, 9, 9), 7
    )
    (tmp_path / "net.py").write_text(OWN.replace("torch.relu_", "torch.sigmoid_"))
    after = import_graph(
        Origin.of("net.py:Net", {"width": 5, "num_classes": 7}, str(tmp_path / "net.py")), (3, 9, 9), 7
    )
    assert before[0].fingerprint != after[0].fingerprint


def test_what_a_users_file_imports_from_its_folder_counts_too(tmp_path: Path) -> None:
    code = OWN.replace("width", "WIDTH").replace("self, WIDTH, num", "self, num")
    (tmp_path / "net.py").write_text(f"from helper import WIDTH\n{code}")
    digests = []
    for width in (3, 5):
        (tmp_path / "helper.py").write_text(f"WIDTH = {width}\n")
        origin = Origin.of("net.py:Net", {"num_classes": 7}, str(tmp_path / "net.py"))
        digests.append(origin.digest)
        assert construct(origin, 0).conv.out_channels == width
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("import sys\nsys.exit(3)\n", "SystemExit"),
        ("def Net(\n", "SyntaxError"),
        ("class Net:\n    pass\n", "and no torch.nn.Module"),
        (
            "from torch import nn\nclass Net(nn.Module):\n    def __init__(self):\n        self.a = nn.Identity()\n",
            "Error",
        ),
        ("Net = 3\n", "is not callable"),
        ("from torch import nn\nNet = lambda: nn.Sequential(*[nn.Identity() for _ in range(60_000)])\n", "more than"),
    ],
)
def test_a_users_file_that_is_wrong_says_what_in_one_line(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "net.py").write_text(text)
    file = tmp_path / "spec.yaml"
    file.write_text(json.dumps(section({"import": "net.py:Net"})))
    with pytest.raises(UserError) as caught:
        ablate.load(file, trust=True)
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absurd_size_is_refused_before_it_is_built() -> None:
    with pytest.raises(OriginError, match="up to 65,536"):
        origin_of("torchvision.models:resnet18", {"num_classes": 3_000_000}, Path(), trusted=False)


@pytest.mark.parametrize(
    ("stride", "given", "what"), [((2, 2), None, (4, 5)), ((2, 1), None, "state stride"), ((2, 1), 1, None)]
)
def test_replace_takes_over_what_a_module_does_to_a_map(stride: tuple[int, int], given: int | None, what: Any) -> None:
    origin = Origin.of(f"{__name__}:strided", {"stride": list(stride)})
    graph, _ = import_graph(origin, (3, 8, 9), 7)
    kind = find("conv")
    own_stride = {} if given is None else {"stride": given}
    made: Callable[..., Any] = lambda site: kind.Params(kernel=3, **{**site.taken_over, "width": 5, **own_stride})  # noqa: E731
    insertion = Insertion("new", kind, made, (At.parse("replace conv"),))
    if what == "state stride":
        with pytest.raises(InsertionError, match="state stride"):
            insert(graph, [insertion])
    elif what is not None:
        assert insert(graph, [insertion]).by_name["conv_new"].shape[1:] == what


def strided(stride: list[int], num_classes: int = 7) -> nn.Module:
    model = Tiny(num_classes)
    model.conv = nn.Conv2d(3, 5, 3, stride=tuple(stride), padding=1)
    return model


def test_timms_models_take_the_datas_channels_and_classes() -> None:
    pytest.importorskip("timm")
    spec = ablate.load(
        section({"import": "timm:resnet10t"})
        | {"data": {"name": "fake", "shape": [1, 33, 35], "classes": 5, "count": {"train": 16, "test": 8}}}
    )
    assert ablate.build(spec)(torch.zeros(2, 1, 33, 35)).shape == (2, 5)


def test_a_graph_and_an_import_are_two_networks() -> None:
    network = {"import": "torchvision.models:resnet18", "graph": {"head": {"block": "classifier"}}}
    with pytest.raises(UserError, match="a graph or an import, not both"):
        ablate.load(section(network))


def test_an_import_takes_the_place_of_an_inherited_graph(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(json.dumps(section({"graph": {"head": {"block": "classifier"}}})))
    child = tmp_path / "child.yaml"
    child.write_text("extends: base.yaml\nnetwork: {graph: null, import: 'torchvision.models:squeezenet1_1'}\n")
    assert "features.0.weight" in dict(ablate.build(ablate.load(child)).named_parameters())
    child.write_text("extends: base.yaml\nnetwork: {graph: null}\n")
    with pytest.raises(UserError, match=r"network.graph: missing"):
        ablate.load(child)


def test_arguments_without_an_import_are_an_error() -> None:
    with pytest.raises(UserError, match="arguments of no import"):
        ablate.load(section({"args": {"width": 3}, "graph": {"head": {"block": "classifier"}}}))


def test_the_model_says_what_is_wrong_with_its_arguments() -> None:
    with pytest.raises(UserError, match="can't be built: ValueError"):
        ablate.load(section({"import": "torchvision.models:resnet18", "args": {"width_per_group": 128}}))
