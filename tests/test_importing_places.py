"""What is selected in an imported network, inserted, replaced and trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import ablate
from ablate.block import find
from ablate.errors import UserError
from ablate.importing.graph import import_graph
from ablate.importing.origin import Origin
from ablate.insert import At, Insertion, InsertionError, insert
from tests.imported_models import MODELS, VIT, FunctionalDropout, Tiny, images, imported, own, section


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
    assert "'features.1.0.attn.qkv' is inside of 'features.1.0.attn.shifted_window_attention'" in str(caught.value)


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


def test_the_certificate_says_that_the_import_is_the_original(tmp_path: Path) -> None:
    spec = ablate.load(
        section(
            {
                "import": f"{MODELS}:FunctionalDropout",
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
