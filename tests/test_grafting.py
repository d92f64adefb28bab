"""A block put into a model that a program holds."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import ablate
from ablate import grafting, yamlfile
from ablate.importing import origin

SHAPE = (3, 13, 11)
MODEL = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes=5):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.layer1 = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.layer2 = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(16, num_classes)

    def forward(self, x):
        x = self.layer2(self.layer1(self.stem(x)))
        return self.head(self.drop(x.mean((2, 3))))
"""


def net() -> Any:
    names: dict[str, Any] = {"__name__": "elsewhere"}
    exec(MODEL, names)
    torch.manual_seed(3)
    return names["Net"]()


@pytest.fixture
def model() -> nn.Module:
    """With running statistics of its own, so that what is copied can be told from what is new."""
    found = net()
    for batch in range(3):
        found(torch.randn(7, *SHAPE, generator=torch.Generator().manual_seed(batch)))
    return found.eval()


def images(count: int = 5) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(17))


def test_a_block_that_weighs_nothing_leaves_outputs_equal_bit_for_bit(model: nn.Module) -> None:
    grafted = ablate.graft(model, "se", after="layer*", joined="weighted", reduction=4, input_shape=SHAPE)
    assert isinstance(grafted, fx.GraphModule)
    assert torch.equal(grafted(images()), model(images()))
    assert {name for name, _ in grafted.named_children()} >= {"layer1_se", "layer2_se", "layer1_se_residual"}
    with torch.no_grad():
        for name, parameter in grafted.named_parameters():
            if "residual" in name:
                parameter.fill_(1.0)
    assert not torch.equal(grafted(images()), model(images()))


def test_a_scale_of_one_and_an_identity_leave_outputs_equal(model: nn.Module) -> None:
    for block in ("identity", "scale"):
        assert torch.equal(ablate.graft(model, block, before="layer2", input_shape=SHAPE)(images()), model(images()))


def test_it_is_the_block_applied_there(model: nn.Module) -> None:
    grafted = ablate.graft(model, "se", after="layer1", reduction=2, input_shape=SHAPE, name="gate")
    x = images()
    expected = model.get_submodule("head")(
        model.get_submodule("layer2")(
            grafted.get_submodule("layer1_gate")(model.get_submodule("layer1")(model.get_submodule("stem")(x)))
        ).mean((2, 3))
    )
    assert torch.equal(grafted(x), expected)


def test_it_is_what_a_spec_says(model: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(MODEL)
    spec = {
        "name": "spec",
        "data": {"name": "fake", "shape": list(SHAPE), "classes": 5, "count": {"train": 10, "test": 10}},
        "train": {"epochs": 1, "optimizer": {"name": "sgd", "lr": 0.1}},
        "network": {
            "import": "net.py:Net",
            "insert": {"gate": {"block": "cbam", "reduction": 4, "at": "before layer2", "residual": "plain"}},
        },
    }
    written = tmp_path / "spec.yaml"
    written.write_text(yamlfile.dump(spec))
    ours = ablate.build(ablate.load(written, trust=True), seed=7)
    grafted = ablate.graft(
        model, "cbam", before="layer2", joined="plain", reduction=4, input_shape=SHAPE, name="gate", seed=7
    )
    theirs = grafted.state_dict()
    assert list(ours.state_dict()) == list(theirs)
    for name, value in ours.state_dict().items():
        if "gate" in name:
            assert torch.equal(value, theirs[name]), name
    ours.load_state_dict(theirs)
    assert torch.equal(ours.eval()(images()), grafted(images()))


def test_its_other_weights_are_the_model_s_and_its_own(model: nn.Module) -> None:
    before = copy.deepcopy(model.state_dict())
    grafted = ablate.graft(model, "se", after="layer1", reduction=2, input_shape=SHAPE)
    after = grafted.state_dict()
    shared = [name for name in before if name in after]
    assert len(shared) == len(before)
    assert all(torch.equal(after[name], before[name]) for name in shared)
    grafted.train()(images()).sum().backward()
    with torch.no_grad():
        for parameter in grafted.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_mode_type_and_what_is_frozen_stay(model: nn.Module) -> None:
    model = copy.deepcopy(model).double().train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1e-12)  # no float32 holds it
    model.get_submodule("layer1").requires_grad_(False).eval()
    grafted = ablate.graft(model, "se", after="layer2", reduction=2, input_shape=SHAPE)
    assert all(parameter.dtype == torch.float64 for parameter in grafted.parameters())
    frozen = {name for name, parameter in grafted.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen
    assert grafted.training
    assert not grafted.get_submodule("layer1.1").training
    assert torch.equal(grafted.get_submodule("stem").weight, model.get_submodule("stem").weight)


def test_the_block_starts_by_seed_and_name(model: nn.Module) -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed + 1)
        torch.rand(seed + 2)
        state = ablate.graft(model, "se", after="layer1", reduction=2, input_shape=SHAPE, seed=seed).state_dict()
        return torch.cat([state[name].flatten() for name in state if "layer1_se" in name])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_the_model_is_not_kept(model: nn.Module) -> None:
    ablate.graft(model, "se", after="layer1", reduction=2, input_shape=SHAPE)
    assert grafting.HELD._models == {}
    assert origin.construct.cache_info().currsize == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"block": "se"}, r"graft: where\?; after=PATTERN"),
        ({"block": "se", "after": "layr1"}, "graft: at: pattern 'layr1' matches nothing; nearest: layer1"),
        ({"block": "sse", "after": "layer1"}, r"graft: block: unknown block 'sse'; did you mean 'se'\?"),
        ({"block": "se", "after": "layer1", "redction": 2}, "graft: redction: unknown parameter of block 'se'"),
        ({"block": "se", "after": "layer1", "reduction": 0.5}, "graft: reduction: 0.5 is not a whole number"),
        ({"block": "se", "after": "layer1", "joined": "added"}, "graft: residual"),
        ({"block": "conv", "after": "layer1", "width": 9}, "graft: node 'layer2.0'"),
        ({"block": "se", "after": "layer1", "input_shape": (4, 13, 11)}, "fails on images of 4 × 13 × 11"),
    ],
)
def test_what_is_wrong_is_said_of_the_call(model: nn.Module, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ablate.UserError, match=said):
        ablate.graft(model, **{"input_shape": SHAPE, **given})
    assert grafting.HELD._models == {}


def test_what_is_no_classifier_or_no_module_is_refused(model: nn.Module) -> None:
    with pytest.raises(ablate.UserError, match=r"no tensor of \(batch, classes\)"):
        ablate.graft(model.get_submodule("layer1"), "se", after="0", input_shape=(8, 7, 7))
    with pytest.raises(ablate.UserError, match="a function is no"):
        ablate.graft(net, "se", after="0")  # type: ignore[arg-type]
    with pytest.raises(ablate.UserError, match="no convolution"):
        ablate.graft(nn.Linear(3, 4), "se", after="0")
