"""Gates of attention as parts of a network: hidden widths, identities, published sizes, costs, gradients, joining."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networks
import pytest
import torch
from formulas import Noise, statistics_drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from ablate.block import Block, Shape, find
from ablate.builder import build
from ablate.costing import count_flops
from ablate.graph import Graph
from ablate.passes import Probe, called_problems, gradient_check, stuck_parameters
from ablate.trainable import Trainable

Make = Callable[..., Any]

SHAPE = (6, 5, 7)
RESNET50 = [(3, 256, 56), (4, 512, 28), (6, 1024, 14), (3, 2048, 7)]
"""Of each stage at 224 × 224 pixels: its blocks, their channels, the side of their output in pixels."""
RESNET50_PARAMS = 25_557_032

REDUCED: dict[str, tuple[dict[str, Any], str]] = {
    "bam": ({}, "channel.conv0.weight"),
    "global_context": ({"fusion": "scale"}, "fc1.weight"),
    "gather_excite": ({"form": "theta_plus"}, "fc1.weight"),
    "coordinate_attention": ({}, "conv1.weight"),
}
"""Blocks with a hidden width, and the layer that has it."""


def of(name: str, shape: Shape, **params: Any) -> Any:
    block: Any = find(name)
    return block(block.Params(**params), shape)


def size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def effective(name: str, shape: Shape, **params: Any) -> dict[str, Any]:
    block: Any = find(name)
    found: dict[str, Any] = block.effective(block.Params(**params), shape)
    return found


# hidden widths and identities --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REDUCED)
@given(channels=st.integers(1, 70), reduction=st.integers(1, 80), low=st.integers(0, 9))
@settings(max_examples=20)
def test_the_effective_hidden_width_is_the_one_that_is_built(
    name: str, channels: int, reduction: int, low: int
) -> None:
    extra, layer = REDUCED[name]
    shape, block = (channels, 3, 3), find(name)
    params = block.Params(reduction=reduction, min_hidden=low, **extra)
    wanted = max(low, channels // reduction)
    seen = block.effective(params, shape)
    assert seen["hidden"] == wanted
    assert not {"reduction", "min_hidden"} & seen.keys()
    said = f"reduction {reduction} on {channels} channels → hidden width {wanted}"
    assert (said in block.notes(params, shape)) == (wanted * reduction != channels)
    if name == "global_context" and wanted == 1:
        return  # its normalisation would leave a constant, and it is refused
    state = block(params, shape).state_dict()
    assert (len(state[layer]) if layer in state else 0) == wanted


@pytest.mark.parametrize("name", REDUCED)
def test_at_hidden_width_0_the_gate_is_a_constant_whatever_else_is_asked_for(
    make: Make, noise: Noise, name: str
) -> None:
    others: dict[str, list[dict[str, Any]]] = {
        "bam": [{"join": "max"}, {"mode": "spatial"}, {"norms": "inner", "dilation": 2}],
        "global_context": [{"pool": "avg"}],
        "gather_excite": [{"extent": 2}],
        "coordinate_attention": [{"bias": False, "act": "relu"}],
    }
    x, none = noise(2, *SHAPE), {"reduction": 32, "min_hidden": 0, **REDUCED[name][0]}
    for options in ({}, *others[name]):
        module = make(name, SHAPE, **none, **options)
        assert torch.equal(module(x), x / 4 if name == "coordinate_attention" else x / 2)
        assert not list(module.parameters())
        assert effective(name, SHAPE, **none, **options) == effective(name, SHAPE, **none)
        assert find(name).notes(find(name).Params(**none, **options), SHAPE) != ()


def test_what_nothing_reads_makes_no_other_network() -> None:
    assert effective("eca", SHAPE, kernel=3, gamma=5.0) == effective("eca", SHAPE, kernel=3) == {"kernel": 3}
    assert effective("eca", (16, 5, 7)) == {"kernel": 3}
    plain = effective("bam", SHAPE, mode="channel")
    assert plain == effective("bam", SHAPE, mode="channel", dilation=2, join="max")
    assert effective("bam", SHAPE, mode="spatial") == effective("bam", SHAPE, mode="spatial", join="max")
    free = effective("gather_excite", SHAPE, form="theta_minus")
    assert (
        free
        == effective("gather_excite", SHAPE, form="theta_minus", reduction=2)
        == effective("gather_excite", SHAPE, form="theta_minus", extent=7)
    )
    assert effective("gather_excite", SHAPE, form="theta", extent=8) != effective("gather_excite", SHAPE, form="theta")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("eca", [{}, {"kernel": 5}, {"gamma": 0.5}]),
        ("bam", [{}, {"dilation": 2}, {"join": "max"}, {"norms": "inner"}, {"mode": "channel"}, {"mode": "spatial"}]),
        ("global_context", [{}, {"pool": "avg"}, {"fusion": "scale"}, {"min_hidden": 5}]),
        ("simam", [{}, {"e_lambda": 0.1}, {"variance": "population"}]),
        ("gather_excite", [{}, {"form": "theta"}, {"form": "theta_minus"}, {"extent": 4}, {"min_hidden": 5}]),
        ("triplet_attention", [{}, {"kernel": 3}, {"spatial": False}]),
        ("coordinate_attention", [{}, {"bias": False}, {"act": "relu"}, {"min_hidden": 5}]),
    ],
)
def test_each_option_makes_another_identity(name: str, options: list[dict[str, Any]]) -> None:
    found = [effective(name, (16, 5, 7), **option) for option in options]
    assert all(one not in found[:index] for index, one in enumerate(found))


@pytest.mark.parametrize("name", ["eca", "simam", "triplet_attention", *REDUCED])
def test_a_gate_refuses_a_vector_in_words(name: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' reads an input of shape \(C, H, W\) and was given \(7,\)"):
        of(name, (7,))


# published sizes ---------------------------------------------------------------------------------------------------


def in_every_block(name: str, stages: slice = slice(None), **params: Any) -> int:
    """The parameters of one in each residual block of these stages of ResNet-50."""
    return sum(count * size(of(name, (channels, side, side), **params)) for count, channels, side in RESNET50[stages])


def millions(added: int) -> float:
    return round((RESNET50_PARAMS + added) / 1e6, 2)


def test_eca_adds_80_parameters_to_resnet50_with_the_kernels_of_its_weights_and_86_by_its_formula() -> None:
    by_stage = [3, 5, 5, 7]
    assert sum(in_every_block("eca", slice(i, i + 1), kernel=k) for i, k in enumerate(by_stage)) == 80
    assert in_every_block("eca") == 86


def test_bam_between_its_stages_makes_resnet50_25_92_million() -> None:
    for norms in ("last", "inner"):
        added = sum(size(of("bam", (channels, 7, 7), norms=norms)) for _, channels, _ in RESNET50[:3])
        assert millions(added) == 25.92


def test_global_context_makes_resnet50_25_69_million_once_and_28_08_in_the_last_three_stages() -> None:
    assert millions(size(of("global_context", (1024, 14, 14)))) == 25.69
    assert millions(in_every_block("global_context", slice(1, 4))) == 28.08


def test_triplet_attention_adds_4800_parameters_and_one_percent_of_the_work() -> None:
    assert in_every_block("triplet_attention") == 4_800
    work = {
        kernel: sum(count * triplet_flops((c, side, side), kernel) for count, c, side in RESNET50) for kernel in (3, 7)
    }
    assert round((work[7] - work[3]) / 1e9, 3) == round(4.169 - 4.131, 3)


def test_a_global_theta_of_gather_excite_has_a_weight_for_each_value() -> None:
    weights = sum(count * channels * (side * side + 2) for count, channels, side in RESNET50)
    assert in_every_block("gather_excite", form="theta") == weights == 5_549_568
    assert in_every_block("gather_excite", form="theta_minus") == 0
    assert in_every_block("gather_excite") == weights + in_every_block("se")


def test_coordinate_attention_makes_mobilenet_v2_3_95_million() -> None:
    """One in each expanding block, where its middle is 96 to 960 channels wide."""
    middles = [96] + [144] * 2 + [192] * 3 + [384] * 4 + [576] * 3 + [960] * 3
    added = sum(size(of("coordinate_attention", (channels, 7, 7))) for channels in middles)
    assert round((3_504_872 + added) / 1e6, 2) == 3.95


# costs -------------------------------------------------------------------------------------------------------------


def triplet_flops(shape: Shape, kernel: int) -> int:
    channels, height, width = shape
    return 2 * kernel**2 * (channels * width + height * channels + height * width)


C, H, W = 13, 7, 11
CLOSED: list[tuple[str, dict[str, Any], int]] = [
    ("eca", {"kernel": 5}, 5 * C),
    ("simam", {}, 0),
    ("bam", {"reduction": 4}, 2 * 3 * C + (3 * C + 2 * 9 * 3 * 3 + 3) * H * W),
    ("bam", {"reduction": 4, "mode": "channel", "norms": "inner"}, 2 * 3 * C),
    ("global_context", {"reduction": 2}, 2 * C * H * W + 2 * 6 * C),
    ("global_context", {"reduction": 2, "pool": "avg", "fusion": "scale"}, 2 * 6 * C),
    ("gather_excite", {"form": "theta_minus"}, 0),
    ("gather_excite", {"form": "theta_minus", "extent": 4}, 0),
    ("gather_excite", {"form": "theta"}, C * H * W),
    ("gather_excite", {"form": "theta_plus", "extent": 4, "reduction": 4}, 9 * C * (4 * 6 + 2 * 3) + 2 * 3 * C * 2 * 3),
    ("triplet_attention", {"kernel": 3}, triplet_flops((C, H, W), 3)),
    ("triplet_attention", {"kernel": 3, "spatial": False}, triplet_flops((C, H, W), 3) - 2 * 9 * H * W),
    ("coordinate_attention", {"reduction": 4, "min_hidden": 1}, 2 * 3 * C * (H + W)),
]


@pytest.mark.parametrize(("name", "params", "flops"), CLOSED)
def test_a_gate_costs_what_its_closed_form_says_and_torch_counts(name: str, params: dict[str, Any], flops: int) -> None:
    module = of(name, (C, H, W), **params).eval()
    assert count_flops(module, ((C, H, W),)) == (flops, ())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, C, H, W))
    assert counter.get_total_flops() == 2 * flops


# gradients ---------------------------------------------------------------------------------------------------------

EVERY: list[tuple[str, dict[str, Any]]] = [
    ("eca", {}),
    ("bam", {"reduction": 2, "dilation": 1}),
    ("bam", {"reduction": 2, "norms": "inner", "join": "product"}),
    ("global_context", {"reduction": 1}),
    ("global_context", {"reduction": 1, "fusion": "scale"}),
    ("simam", {"e_lambda": 0.1}),
    ("gather_excite", {"form": "theta_minus", "extent": 2}),
    ("gather_excite", {"form": "theta", "extent": 4}),
    ("gather_excite", {"form": "theta_plus", "reduction": 2}),
    ("triplet_attention", {"kernel": 3}),
    ("coordinate_attention", {"reduction": 2, "min_hidden": 1}),
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "params"), EVERY)
def test_gradients_are_those_of_finite_differences(
    make: Make, noise: Noise, name: str, params: dict[str, Any], training: bool
) -> None:
    shape = (4, 3, 2)
    module = statistics_drawn(make(name, shape, **params), noise).train(training)
    names, values = [name for name, _ in module.named_parameters()], list(module.parameters())

    def call(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x,))
        return answer

    assert torch.autograd.gradcheck(call, (noise(3, *shape).requires_grad_(), *values), fast_mode=True)


# in a network ------------------------------------------------------------------------------------------------------

NETWORK = {
    "stem": {"block": "conv_bn_act", "width": 8, "kernel": 3},
    "next": {"block": "conv_bn_act", "width": 6, "kernel": 3, "stride": 2},
    "head": {"block": "classifier"},
}


def bare() -> Graph:
    return networks.graph({"graph": NETWORK}, (3, 11, 13), 5)


def inserted(name: str, params: dict[str, Any], residual: str) -> Graph:
    insert = {"block": name, "at": "after stem", "residual": residual, **params}
    return networks.graph({"graph": NETWORK, "insert": {"gate": insert}}, (3, 11, 13), 5)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(7, 3, 11, 13, generator=generator), torch.arange(7) % 5


@pytest.mark.parametrize("residual", ["none", "plain"])
@pytest.mark.parametrize(("name", "params"), EVERY)
def test_a_network_with_a_gate_is_sound_and_each_of_its_parameters_moves(
    name: str, params: dict[str, Any], residual: str
) -> None:
    graph, (x, y) = inserted(name, params, residual), batch()
    probe = Probe(0, Trainable())
    assert called_problems(probe, build(graph), graph, x) == []
    found = gradient_check(probe, build(graph), graph, x, y)
    assert found["without"] == []
    assert found["invariant"] == (["stem_gate.attend.bias"] if name == "global_context" else [])
    expected = set(found["invariant"]) | set(found["cancelled_by_batch_norm"])
    if name == "global_context" and params.get("fusion") != "scale" and residual != "plain":
        return  # nothing moves behind its W₂ of 0, as the next test has it
    assert stuck_parameters(probe, build(graph), x, y) <= expected


@pytest.mark.parametrize(
    ("residual", "left"), [("none", {"next.conv.weight", "stem.conv.weight"}), ("weighted", {"stem_gate.fc2.bias"})]
)
def test_a_context_to_add_is_stuck_where_nothing_is_added_or_by_a_weight_of_0(residual: str, left: set[str]) -> None:
    (x, y), graph = batch(), inserted("global_context", {}, residual)
    assert {"stem_gate.fc2.weight", *left} <= stuck_parameters(Probe(0, Trainable()), build(graph), x, y)


def test_a_convolution_along_channels_starts_by_the_recipe_of_its_network_or_its_own(streams: Any) -> None:
    section = {"graph": NETWORK, "insert": {"gate": {"block": "eca", "at": "after stem"}}}
    graph = networks.graph({**section, "init": {"set": {"stem_gate": "torch_default"}}}, (3, 11, 13), 5)
    assert str(graph.by_name["stem_gate"].start.kind) == "torch_default"
    wide = of("eca", (7, 3, 2), kernel=2001)
    wide.init(streams(0), "kaiming_fan_out")
    assert float(wide.conv.weight.detach().std()) == pytest.approx((2 / 2001) ** 0.5, rel=0.05)


@torch.no_grad()
def test_a_network_starts_the_same_with_a_context_to_add_and_without() -> None:
    x, _ = batch()
    assert torch.equal(build(inserted("global_context", {}, "plain"))(x), build(bare())(x))
    alone = build(inserted("global_context", {}, "none"))(x)
    assert torch.equal(alone[:1].expand_as(alone), alone)  # of x itself nothing passes


def test_every_leaf_here_is_a_block_of_its_own_file() -> None:
    for name in {name for name, _ in EVERY}:
        block = find(name)
        assert issubclass(block, Block)
        assert block.__module__ == f"ablate.blocks.attention.{name}"
