"""What may be imported, and what is said where it may not or can't be."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torchvision

import ablate
from ablate.errors import UserError
from ablate.importing.graph import import_graph
from ablate.importing.origin import Origin, OriginError, construct, origin_of
from tests.imported_models import images, section


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
    (tmp_path / "net.py").write_text(f"from helper_of_net import WIDTH\n{code}")
    digests = []
    for width in (3, 5):
        (tmp_path / "helper_of_net.py").write_text(f"WIDTH = {width}\n")
        origin = Origin.of("net.py:Net", {"num_classes": 7}, str(tmp_path / "net.py"))
        digests.append(origin.digest)
        assert construct(origin, 0).conv.out_channels == width
    assert digests[0] != digests[1]


def test_a_helper_is_that_of_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = ModuleType("helper_of_net")
    theirs.WIDTH = 9  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "helper_of_net", theirs)
    code = OWN.replace("width", "WIDTH").replace("self, WIDTH, num", "self, num")
    for width in (3, 5):
        folder = tmp_path / str(width)
        folder.mkdir()
        (folder / "net.py").write_text(f"from helper_of_net import WIDTH\n{code}")
        (folder / "helper_of_net.py").write_text(f"WIDTH = {width}\n")
        origin = Origin.of("net.py:Net", {"num_classes": 7}, str(folder / "net.py"))
        assert construct(origin, 0).conv.out_channels == width
        assert sys.modules["helper_of_net"] is theirs


def test_a_helper_that_is_called_as_pythons_own_module_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(f"import colorsys\n{OWN}")
    origin = Origin.of("net.py:Net", {"width": 3, "num_classes": 7}, str(tmp_path / "net.py"))
    assert construct(origin, 0).conv.out_channels == 3
    (tmp_path / "colorsys.py").touch()
    origin = Origin.of("net.py:Net", {"width": 3, "num_classes": 7}, str(tmp_path / "net.py"))
    with pytest.raises(OriginError, match=r"'net.py' imports 'colorsys': there is a module 'colorsys' already"):
        construct(origin, 0)


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
        ("from torch import nn\nNet = lambda: nn.Sequential(*[nn.Identity() for _ in range(600)])\n", "more than 500"),
    ],
)
def test_a_users_file_that_is_wrong_says_what_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, what: str
) -> None:
    monkeypatch.setattr("ablate.importing.origin.MOST_MODULES", 500)
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
