from __future__ import annotations

import copy
import itertools
import pickle
import random
from typing import Any

import networks
import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from ablate.block import Block, BlockParams, Shape
from ablate.builder import build, noisy_modules, parameter_digests, seed_noise, tensor_digest
from ablate.graph import INPUT, Graph, GraphBuilder

SHAPE, CLASSES, BATCH = (3, 13, 17), 7, 5
SELF_ATTENTION = "attention: {block: self_attention, at: after stage*, residual: weighted}"


def images(seed: int = 0) -> Tensor:
    return torch.randn(BATCH, *SHAPE, generator=torch.Generator().manual_seed(seed))


def randomised(network: nn.Module) -> nn.Module:
    """All parameters and statistics at random: a weight of 0 would hide a branch."""
    generator = torch.Generator().manual_seed(23)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.05)
    return network


def assert_equal_to_hand(ours: fx.GraphModule, hand: networks.HandResNet20, after: list[str], gates: list[str]) -> None:
    """Equal bit for bit: names, outputs in eval, outputs, gradients and statistics in train."""
    randomised(ours)
    names = {name: networks.name_by_hand(name, after, gates) for name in hand.state_dict()}
    assert set(names.values()) == set(ours.state_dict())
    hand.load_state_dict({name: ours.state_dict()[ours_name] for name, ours_name in names.items()})
    x = images()
    assert torch.equal(ours.eval()(x), hand.eval()(x))
    y, z = ours.train()(x), hand.train()(x)
    assert torch.equal(y, z)
    y.square().sum().backward()
    z.square().sum().backward()
    parameters = dict(ours.named_parameters())
    for name, parameter in hand.named_parameters():
        assert parameter.grad is not None, name
        assert torch.equal(parameter.grad, parameters[names[name]].grad), name  # type: ignore[arg-type]
    for name, tensor in hand.state_dict().items():
        assert torch.equal(tensor, ours.state_dict()[names[name]]), name


def test_resnet20_equals_one_written_by_hand_bit_for_bit() -> None:
    assert_equal_to_hand(build(networks.resnet20()), networks.HandResNet20(), [], [])


def test_resnet20_for_one_channel_equals_one_written_by_hand() -> None:
    ours, hand = build(networks.resnet20(shape=(1, 13, 17))), networks.HandResNet20(channels=1)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in hand.parameters())


@pytest.mark.parametrize(
    ("block", "residual"), list(itertools.product(["se", "cbam", "self_attention"], ["none", "plain", "weighted"]))
)
def test_an_insertion_after_each_stage_equals_one_wired_by_hand(block: str, residual: str) -> None:
    ours = build(networks.resnet20(f"a: {{block: {block}, at: after stage*, residual: {residual}}}"))
    hand = networks.HandResNet20(
        after=lambda width: [networks.HandJoin(networks.block(block, (width, 2, 3)), residual)]
    )
    assert_equal_to_hand(ours, hand, ["a"], [])


@pytest.mark.parametrize("residual", ["none", "weighted"])
def test_a_gate_before_each_convolution_equals_one_wired_by_hand(residual: str) -> None:
    ours = build(networks.resnet20(f"gate: {{block: ai_gate, at: before stage*.*.conv*, residual: {residual}}}"))
    hand = networks.HandResNet20(
        gates=lambda width: [networks.HandJoin(networks.block("ai_gate", (width, 2, 3)), residual)]
    )
    if residual == "weighted":
        names = {name.replace("_in_gate_residual", "_in_gate") for name in ours.state_dict()}
        assert "stage3.2.conv2_in_gate.weight" in names
    assert_equal_to_hand(ours, hand, [], ["gate"])


def test_two_insertions_at_one_place_equal_two_wired_by_hand_in_that_order() -> None:
    insert = "a: {block: se, at: after stage*, residual: plain}\nb: {block: cbam, at: after stage*}\n"
    insert += "g: {block: act, kind: tanh, at: before stage*.*.conv*}\nh: {block: se, at: before stage*.*.conv*}"
    hand = networks.HandResNet20(
        after=lambda width: [
            networks.HandJoin(networks.block("se", (width, 2, 3)), "plain"),
            networks.HandJoin(networks.block("cbam", (width, 2, 3)), "none"),
        ],
        gates=lambda width: [nn.Tanh(), networks.HandJoin(networks.block("se", (width, 2, 3)), "none")],
    )
    assert_equal_to_hand(build(networks.resnet20(insert)), hand, ["a", "b"], ["g", "h"])
    swapped = build(networks.resnet20(insert.replace("plain}", "plain, rank: 1}")))
    with pytest.raises(AssertionError):
        assert_equal_to_hand(swapped, hand, ["a", "b"], ["g", "h"])


def test_parameters_are_called_as_their_nodes() -> None:
    names = list(build(networks.resnet20(SELF_ATTENTION)).state_dict())
    assert names[:2] == ["stem.conv.weight", "stem.bn.weight"]
    assert {"stage1.0.conv1.weight", "stage2.1.bn2.running_var", "head.fc.bias", "stage3_attention.query.bias"} <= {
        *names
    }
    assert "stage3_attention_residual.weight" in names


def test_two_variants_of_one_seed_share_every_shared_parameter_bit_for_bit() -> None:
    plain = parameter_digests(build(networks.resnet20(), seed=11))
    for insert in (
        SELF_ATTENTION,
        "a: {block: cbam, at: before stage*.*.conv*}",
        "a: {block: basic, width: 16, at: after stem}",
    ):
        other = parameter_digests(build(networks.resnet20(insert), seed=11))
        assert len(other) > len(plain)
        assert {name: other[name] for name in plain} == plain


def test_another_seed_draws_every_drawn_parameter_anew() -> None:
    first, second = (build(networks.resnet20(SELF_ATTENTION), seed=seed).state_dict() for seed in (0, 1))
    drawn = [name for name in first if not (".bn" in name or name.endswith("_residual.weight"))]
    assert len(drawn) == 1 + 18 + 2 + 3 * 6
    assert not any(torch.equal(first[name], second[name]) for name in drawn)


def test_no_two_parameters_are_drawn_from_one_stream() -> None:
    state = build(networks.resnet20()).state_dict()
    convolutions = [tensor.flatten()[:31] for name, tensor in state.items() if ".conv" in name]
    assert len({tuple(tensor.tolist()) for tensor in convolutions}) == 19


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("block", ["self_attention", "multi_head_attention", "cbam", "se"])
def test_a_weighted_residual_leaves_the_first_output_equal_to_the_baselines(
    block: str, memory_format: torch.memory_format
) -> None:
    insert = f"a: {{block: {block}, at: after stage*, residual: weighted}}"
    x = images().to(memory_format=memory_format)  # type: ignore[call-overload]
    for mode in (True, False):
        plain, gated = (
            build(graph, seed=3).train(mode).to(memory_format=memory_format)  # type: ignore[call-overload]
            for graph in (networks.resnet20(), networks.resnet20(insert))
        )
        assert tensor_digest(plain(x)) == tensor_digest(gated(x))
        nn.init.constant_(gated.get_submodule("stage1_a_residual").weight, 0.5)
        assert tensor_digest(plain(x)) != tensor_digest(gated(x))


@pytest.mark.parametrize(
    ("recipe", "fan"), [("kaiming_fan_out", 64 * 9), ("kaiming_fan_in", 32 * 9), ("torch_default", 32 * 9 * 6)]
)
def test_the_recipe_sets_the_spread_of_the_weights(recipe: str, fan: int) -> None:
    weight = build(networks.resnet20(), recipe=recipe).state_dict()["stage3.0.conv1.weight"]
    assert weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.03)
    assert weight.mean().item() == pytest.approx(0, abs=0.002)


def test_building_leaves_every_global_random_state_untouched() -> None:
    torch.manual_seed(5)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    build(networks.resnet20(SELF_ATTENTION + "\nd: {block: dropout, at: after stage1}"), seed=7)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]


def test_building_is_the_same_whatever_the_global_random_state() -> None:
    torch.manual_seed(1)
    first = parameter_digests(build(networks.resnet20()))
    torch.manual_seed(2)
    assert parameter_digests(build(networks.resnet20())) == first


class Foreign(Block):
    """A block that draws in its constructor and knows no ``init``."""

    name = "foreign"

    def __init__(self, params: BlockParams, shape: Shape) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(shape[0]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale[:, None, None]


def test_what_a_foreign_constructor_draws_depends_on_seed_and_name_alone() -> None:
    def scale(name: str, seed: int) -> Tensor:
        builder = GraphBuilder(SHAPE, CLASSES)
        network = build(builder.finish(builder.place(name, Foreign, BlockParams(), (INPUT,))), seed=seed)
        return network.get_parameter(f"{name}.scale").detach()

    torch.manual_seed(1)
    first = scale("a", 0)
    torch.manual_seed(2)
    assert torch.equal(scale("a", 0), first)
    assert not torch.equal(scale("b", 0), first)
    assert not torch.equal(scale("a", 1), first)


def test_a_module_that_two_nodes_call_is_one_module() -> None:
    builder = GraphBuilder(SHAPE, CLASSES)
    conv: Any = networks.find("conv")
    first = builder.place("a", conv, conv.Params(width=3), (INPUT,))
    graph = builder.finish(builder.place("b", conv, conv.Params(width=3), (first,), module="a"))
    network = build(graph)
    assert list(network.state_dict()) == ["a.weight"]
    x = images()
    assert torch.equal(network(x), network.a(network.a(x)))


DROPOUT = (
    "graph:\n  c: {block: conv, width: 11}\n  drop: {block: dropout, rate: 0.5}\n  end: {block: conv, width: 11}\n"
)


def dropped(graph: Graph, name: str, seed: int, step: int) -> list[bool]:
    network = build(graph).train()
    seed_noise(network, seed, step)
    ones = torch.ones(BATCH, *graph.by_name[name].shape)
    mask: Tensor = network.get_submodule(name)(ones) == 0
    return mask.flatten().tolist()


def test_what_dropout_drops_is_the_same_whatever_else_was_inserted() -> None:
    plain = networks.graph(DROPOUT, SHAPE)
    busy = networks.graph(
        DROPOUT + "insert:\n  d: {block: dropout, at: [before c, after drop]}\n  s: {block: cbam, at: after c}\n", SHAPE
    )
    first = dropped(plain, "drop", 3, 7)
    assert dropped(busy, "drop", 3, 7) == first
    assert 0.4 < sum(first) / len(first) < 0.6
    others = [dropped(plain, "drop", 5, 7), dropped(plain, "drop", 3, 8), dropped(busy, "drop_d", 3, 7)]
    assert first not in others
    assert len({tuple(mask) for mask in others}) == 3


def test_the_whole_networks_noise_depends_on_seed_and_step_alone() -> None:
    network, x = build(networks.graph(DROPOUT, SHAPE)).train(), images()
    assert [name for name, _ in noisy_modules(network)] == ["drop"]

    def output(seed: int, step: int) -> str:
        torch.manual_seed(random.randrange(10**6))
        seed_noise(network, seed, step)
        return tensor_digest(network(x))

    assert output(0, 1) == output(0, 1)
    assert len({output(0, 1), output(0, 2), output(1, 1)}) == 3


EVERYTHING = (
    "a: {block: cbam, at: after stage1, residual: plain}\nb: {block: multi_head_attention, at: after stage3, "
    "residual: weighted}\nd: {block: dropout, at: before head}\ng: {block: se, at: before stage2.*.conv*}"
)


def test_a_network_can_be_pickled_and_copied() -> None:
    network = randomised(build(networks.resnet20(EVERYTHING))).eval()
    x = images()
    for other in (pickle.loads(pickle.dumps(network)), copy.deepcopy(network)):
        assert list(other.state_dict()) == list(network.state_dict())
        assert torch.equal(other.eval()(x), network(x))
        nn.init.zeros_(other.get_submodule("head.fc").weight)
        assert not torch.equal(other(x), network(x))


@pytest.mark.parametrize(
    "name", ["torch", "device", "inf", "input_1", "print_", "_codegen", "fx", "None_", "x", "math"]
)
def test_a_node_may_have_a_name_that_generated_code_uses(name: str) -> None:
    graph = networks.graph({"graph": {"a": {"block": "conv", "width": 5}, name: {"block": "conv", "width": 7}}})
    network, x = build(graph), images()
    by_hand = network.get_submodule(name)(network.a(x))
    for other in (network, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(x), by_hand)


def test_names_that_differ_in_dots_only_are_two_nodes() -> None:
    graph = networks.graph(
        "graph:\n  a: {block: act, kind: tanh, repeat: 2}\n  a_0: {block: conv, width: 5}\n"
        "insert:\n  b: {block: se, at: [after a.0, after a_0]}\n"
    )
    network = build(graph)
    assert sorted(network.meta["nodes"].values()) == ["a.0", "a.0_b", "a.1", "a_0", "a_0_b"]
    assert len(network.meta["nodes"]) == 5


def test_a_network_exports_and_the_exported_program_gives_the_same_output() -> None:
    network = randomised(build(networks.resnet20(EVERYTHING))).eval()
    x = images()
    exported = torch.export.export(network, (x,))
    assert torch.equal(exported.module()(x), network(x))
    assert set(exported.state_dict) == set(network.state_dict())


def test_a_digest_knows_type_shape_and_every_bit() -> None:
    x = torch.arange(6.0)
    different = [x, x.double(), x.reshape(2, 3), x.reshape(3, 2), -x, x.half(), torch.zeros(0), torch.zeros(0, 3)]
    assert len({tensor_digest(tensor) for tensor in different}) == len(different)
    assert tensor_digest(torch.tensor(0.0)) != tensor_digest(torch.tensor(-0.0))
    assert tensor_digest(x.reshape(2, 3).T) == tensor_digest(x.reshape(2, 3).T.contiguous())


def test_a_digest_is_given_for_every_parameter_and_buffer() -> None:
    network = build(networks.resnet20())
    before = parameter_digests(network)
    assert set(before) == set(network.state_dict())
    network.train()(images())
    changed = {name for name, digest in parameter_digests(network).items() if digest != before[name]}
    assert changed == {name for name in before if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}


def test_the_order_of_writing_changes_no_bit_of_the_gradients() -> None:
    # Three branches read one value: autograd adds their gradients up in the order of the calls.
    def gradient(*order: str) -> torch.Tensor:
        branches = "".join(f"  {name}: {{block: conv, width: 7, from: stem}}\n" for name in order)
        head = "  mix: {block: add, from: [a, b, c]}\n  head: {block: classifier}\n"
        graph = networks.graph(f"graph:\n  stem: {{block: conv, width: 7}}\n{branches}{head}")
        network = build(graph, seed=5)
        network(images()).square().sum().backward()
        found = network.get_parameter("stem.weight").grad
        assert found is not None
        return found

    assert torch.equal(gradient("a", "b", "c"), gradient("b", "c", "a"))


def test_what_is_left_out_of_the_identity_is_left_out_of_the_module_too() -> None:
    """An elided pooling would add to the graph of autograd, and with it reorder sums of gradients."""
    section = "graph:\n  s: {block: conv, width: 8}\n  p: {block: KIND}\n  out: {block: add, from: [s, p]}\n"
    for kind in (
        "avg_pool, kernel: 1",
        "max_pool, kernel: 1",
        "identity",
        "pad_shortcut, width: 8",
        "scale, factor: 1.0",
    ):
        module = build(networks.graph(section.replace("KIND", kind))).get_submodule("p")
        x = torch.randn(2, 8, 5, 7)
        assert module(x) is x


def test_two_networks_of_one_identity_have_their_parameters_in_one_order() -> None:
    """A norm of the gradient is a sum over all parameters, in their order."""
    tail = "  b: {block: conv, width: 5}\n  c: {block: unit, from: b}\n"
    unit = "blocks: {unit: {graph: {%s conv: {block: conv, width: 5}}}}\n"
    plain = networks.graph(unit % "" + "graph:\n  a: {block: conv, width: 5}\n" + tail)
    early = networks.graph(unit % "pre: {block: identity}," + "graph:\n  a: {block: conv, width: 5}\n" + tail)
    assert plain.fingerprint == early.fingerprint
    assert [name for name, _ in build(plain).named_parameters()] == [
        name for name, _ in build(early).named_parameters()
    ]
