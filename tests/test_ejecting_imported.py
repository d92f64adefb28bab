"""Imported models as one file: what a person would write as one class, or one expression, is one."""

from __future__ import annotations

from typing import Any

from ejected import assert_same_network, ejected, plain_network
from torch import nn

from ablate.builder import build
from ablate.ejecting.torchmodules import constructor
from ablate.importing.graph import import_graph
from ablate.importing.origin import Origin
from tests.imported_models import SWIN, VIT

SHAPE = (3, 32, 32)


def file_of(model: str, arguments: dict[str, Any]) -> str:
    """The file of a model of torchvision's, after it was held against the model."""
    graph, _ = import_graph(Origin.of(f"torchvision.models.{model}", arguments), SHAPE, 7)
    text = ejected(graph)
    assert_same_network(build(graph), plain_network(text), SHAPE)
    return text


def classes(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.startswith("class ")]


def test_a_vision_transformer_keeps_torchs_attention() -> None:
    text = file_of("vision_transformer:VisionTransformer", VIT)
    assert "nn.MultiheadAttention(15, 3, dropout=0.1, batch_first=True)" in text
    assert "self.mlp = nn.Sequential(nn.Linear(15, 11), nn.GELU(), " in text


def test_arguments_of_attention_are_read_off_what_it_holds() -> None:
    for given in ({"bias": False}, {"add_bias_kv": True}, {"kdim": 5, "vdim": 7}, {"add_zero_attn": True}):
        module = nn.MultiheadAttention(6, 2, **given)
        make = constructor(module)
        assert {arg.key: arg.value for arg in make.args if arg.key in given} == given
        assert not {"kdim", "vdim"} - given.keys() & {arg.key for arg in make.args}


def test_parts_that_differ_in_constants_share_a_class() -> None:
    text = file_of("swin_transformer:SwinTransformer", {**SWIN, "depths": [2, 2]})
    assert text.count(" shifted_window_attention(") == 2, "the function, and one call of it"
    assert "shift_size=self.shift_size" in text
    assert "self.num_heads = " in text


def test_layers_that_concatenate_whatever_came_before_are_one_class() -> None:
    model = {"growth_rate": 2, "block_config": [2, 19], "num_init_features": 4, "bn_size": 1, "num_classes": 7}
    text = file_of("densenet:DenseNet", model)
    assert [line for line in classes(text) if "Cat" in line or "DenseLayer" in line] == ["class DenseLayer(nn.Module):"]
    assert "def forward(self, *x: Tensor) -> Tensor:\n        x = F.relu(self.norm1(torch.cat(x, 1)))" in text
