"""FLOPs against closed forms, block by block, and against torch's own counter, model by model.

The closed forms are written here by hand, from the papers' formulas. A block that has none fails the first test.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ablate.block import Shape, registry
from ablate.collect import Collector
from ablate.costing import cost_of, count_flops
from ablate.costing.products import einsum_flops, matmul_flops
from ablate.graph import INPUT, Graph, GraphBuilder
from ablate.network import read_network
from ablate.spec import load

C, H, W = 23, 11, 13
N = H * W
HALF = 6 * 7
"""Pixels behind a stride of 2."""
IMAGE = (C, H, W)
EVEN = (2 * C, H, W)
TOKENS = (17, 2 * C)
CLASSES = 7

Case = tuple[dict[str, Any], Shape, int]


def conv(kernel: int, before: int, after: int, pixels: int, groups: int = 1) -> int:
    return kernel**2 * (before // groups) * after * pixels


def free(*params: dict[str, Any], shape: Shape = IMAGE) -> list[Case]:
    return [(each, shape, 0) for each in params or ({},)]


def attention(rows: int, columns: int, keys: int, values: int) -> int:
    """Q·Kᵀ and A·V."""
    return rows * columns * (keys + values)


CLOSED_FORMS: dict[str, list[Case]] = {
    "act": free({"kind": "relu"}, {"kind": "gelu"}, {"kind": "silu"}),
    "add": free(),
    "ai_gate": [
        ({"reduction": 3, "kernel": 5}, IMAGE, conv(5, C, 1, N) + 2 * C * 7),
        ({"reduction": 3, "kernel": 5, "mode": "channel"}, IMAGE, 2 * C * 7),
        ({"kernel": 5, "mode": "spatial"}, IMAGE, conv(5, C, 1, N)),
    ],
    "attention_augmented_conv": [
        (
            {"width": 31, "heads": 2, "dk": 6, "dv": 10, "stride": 2},
            IMAGE,
            conv(3, C, 21, HALF)
            + C * (6 + 6 + 10) * HALF
            + 10 * 10 * HALF
            + attention(HALF, HALF, 6, 10)
            + HALF * 6 * ((2 * 6 - 1) + (2 * 7 - 1)),
        ),
        (
            {"width": 31, "heads": 2, "dk": 6, "dv": 10, "position": "none"},
            IMAGE,
            conv(3, C, 21, N) + C * 22 * N + 100 * N + attention(N, N, 6, 10),
        ),
    ],
    "avg_pool": free({"kernel": 3, "stride": 2}),
    "bam": [
        ({"reduction": 3}, IMAGE, 2 * C * 7 + (C * 7 + 2 * 9 * 7 * 7 + 7) * N),
        ({"reduction": 3, "mode": "channel"}, IMAGE, 2 * C * 7),
        ({"reduction": 3, "mode": "spatial", "norms": "inner"}, IMAGE, (C * 7 + 2 * 9 * 7 * 7 + 7) * N),
    ],
    "basic": [
        ({"width": 29, "stride": 2}, IMAGE, conv(3, C, 29, HALF) + conv(3, 29, 29, HALF) + C * 29 * HALF),
        ({"width": 29, "stride": 2, "shortcut": "pad"}, IMAGE, conv(3, C, 29, HALF) + conv(3, 29, 29, HALF)),
        ({"width": C}, IMAGE, 2 * conv(3, C, C, N)),
    ],
    "batch_norm": free(),
    "bottleneck": [
        (
            {"width": 7, "expansion": 3, "stride": 2},
            IMAGE,
            C * 7 * N + conv(3, 7, 7, HALF) + 7 * 21 * HALF + C * 21 * HALF,
        ),
        (
            {"width": 7, "expansion": 3, "stride": 2, "version": "v1", "groups": 7},
            IMAGE,
            C * 7 * HALF + conv(3, 7, 7, HALF, groups=7) + 7 * 21 * HALF + C * 21 * HALF,
        ),
    ],
    "cbam": [
        ({"reduction": 3, "kernel": 5}, IMAGE, 4 * C * 7 + conv(5, 2, 1, N)),
        ({"reduction": 3, "pool": "avg", "spatial_pool": "conv"}, IMAGE, 2 * C * 7 + C * N + conv(7, 1, 1, N)),
        ({"reduction": 29, "min_hidden": 0}, IMAGE, conv(7, 2, 1, N)),
    ],
    "channel_attention": [({}, IMAGE, 2 * C * C * N), ({"compare": "difference"}, IMAGE, 2 * C * C * N)],
    "channel_gate": [({"reduction": 3}, IMAGE, 4 * C * 7), ({"reduction": 3, "pool": "max"}, IMAGE, 2 * C * 7)],
    "channel_multi_head_attention": [({"heads": 2}, EVEN, 4 * (2 * C) ** 2 * N + 2 * (2 * C) * C * N)],
    "class_token": free(shape=TOKENS),
    "classifier": [({}, IMAGE, C * CLASSES), ({"pool": "max"}, IMAGE, C * CLASSES), ({}, (C,), C * CLASSES)],
    "concat": free(),
    "conv": [
        ({"width": 29, "kernel": 5, "stride": 2}, IMAGE, conv(5, C, 29, HALF)),
        ({"width": 58, "groups": 2, "bias": True}, EVEN, 9 * C * 58 * N),
        ({"width": C, "groups": C}, IMAGE, 9 * C * N),
        ({"width": 29, "dilation": 2}, IMAGE, conv(3, C, 29, N)),
        ({"width": 29, "dilation": 2, "padding": 0}, IMAGE, conv(3, C, 29, 7 * 9)),
    ],
    "conv_bn_act": [({"width": 29, "kernel": 5, "stride": 2}, IMAGE, conv(5, C, 29, HALF))],
    "convnext": [
        ({"width": C, "expansion": 3.0}, IMAGE, conv(7, C, C, N, groups=C) + 2 * C * 69 * N),
        (
            {"width": 29, "stride": 2, "expansion": 3.0},
            IMAGE,
            conv(7, C, C, HALF, groups=C) + C * 87 * HALF + 87 * 29 * HALF + C * 29 * HALF,
        ),
        (
            {"width": C, "expansion": 3.0, "depthwise": "middle", "kernel": 3},
            IMAGE,
            2 * C * 69 * N + conv(3, 69, 69, N, groups=69),
        ),
    ],
    "convnext_downsample": [({"width": 29}, IMAGE, conv(2, C, 29, 5 * 6))],
    "coordinate_attention": [
        ({"reduction": 3, "min_hidden": 1}, IMAGE, C * 7 * (H + W) + 7 * C * H + 7 * C * W),
        ({"reduction": 29, "min_hidden": 0}, IMAGE, 0),
    ],
    "dense_layer": [
        ({"growth": 5, "bottleneck": 3}, IMAGE, C * 15 * N + conv(3, 15, 5, N)),
        ({"growth": 5, "bottleneck": 0}, IMAGE, conv(3, C, 5, N)),
    ],
    "drop_path": free(),
    "dropout": free(),
    "eca": [({}, IMAGE, 3 * C), ({"kernel": 5}, IMAGE, 5 * C)],
    "gate_1x1": [({}, IMAGE, C * C * N)],
    "gated_add": [({}, IMAGE, C * C * N)],
    "gather_excite": [
        ({"form": "theta_minus", "extent": 4}, IMAGE, 0),
        ({"form": "theta", "extent": 4}, IMAGE, 9 * C * (HALF + 3 * 4)),
        ({"form": "theta_plus", "extent": 2, "reduction": 3}, IMAGE, 9 * C * HALF + 2 * C * 7 * HALF),
        ({"reduction": 3}, IMAGE, C * N + 2 * C * 7),
    ],
    "global_context": [
        ({"reduction": 3}, IMAGE, 2 * C * N + 2 * C * 7),
        ({"reduction": 3, "pool": "avg", "fusion": "scale"}, IMAGE, 2 * C * 7),
    ],
    "global_pool": free({"kind": "avg"}, {"kind": "max"}),
    "group_norm": free({"groups": C}),
    "identity": free(),
    "instance_norm": free(),
    "layer_norm": free() + free(shape=TOKENS),
    "layer_scale": free(),
    "linear": [({"width": 29}, (C,), C * 29), ({"width": 29, "bias": False}, TOKENS, 17 * 46 * 29)],
    "max_pool": free({"kernel": 3, "stride": 2}),
    "mbconv": [
        (
            {"width": 29, "stride": 2, "kernel": 5, "expansion": 3},
            IMAGE,
            C * 69 * N + conv(5, 69, 69, HALF, groups=69) + 2 * 69 * (69 // 12) + 69 * 29 * HALF,
        ),
        (
            {"width": C, "kernel": 3, "expansion": 1, "reduction": 0},
            IMAGE,
            conv(3, C, C, N, groups=C) + C * C * N,
        ),
    ],
    "mlp": [({"ratio": 3.0}, TOKENS, 2 * 17 * 46 * 138)],
    "multi_head_attention": [({"heads": 2}, EVEN, 4 * 46 * 46 * N + 2 * N * N * 46)],
    "non_local": [
        ({}, IMAGE, 4 * C * 11 * N + attention(N, N, 11, 11)),
        ({"subsample": True}, IMAGE, 4 * C * 11 * N + attention(N, 5 * 6, 11, 11)),
        ({"form": "gaussian"}, IMAGE, 2 * C * 11 * N + attention(N, N, C, 11)),
        # keys times values first, and no map of N × N
        ({"form": "dot_product"}, IMAGE, 4 * C * 11 * N + 2 * N * 11 * 11),
        # unless the map is the smaller matrix
        ({"form": "dot_product"}, (C, 2, 3), 4 * C * 11 * 6 + attention(6, 6, 11, 11)),
        # each of the two halves of the comparing layer times a vector for each pixel, and the sum over pixels
        ({"form": "concatenation"}, IMAGE, 4 * C * 11 * N + 2 * 11 * N + N * N * 11),
    ],
    "norm_act": free(),
    "pad_shortcut": free({"width": 29, "stride": 2}),
    "parallel_attention": [
        (
            {"blocks": [{"block": "se", "reduction": 3}, "spatial_gate"], "width": 29},
            IMAGE,
            2 * C * 7 + conv(7, 2, 1, N) + 2 * C * 29 * N,
        )
    ],
    "patch_embed": [({"width": 29, "patch": 11}, (3, 22, 33), 6 * 3 * 11 * 11 * 29)],
    "position_attention": [({"reduction": 5}, IMAGE, (4 + 4 + C) * C * N + attention(N, N, 4, C))],
    "position_embedding": free({"kind": "learned_1d"}, shape=TOKENS),
    "pre_activation": [
        ({"width": 29, "stride": 2}, IMAGE, conv(3, C, 29, HALF) + conv(3, 29, 29, HALF) + C * 29 * HALF)
    ],
    "pre_activation_bottleneck": [
        (
            {"width": 7, "expansion": 3, "stride": 2},
            IMAGE,
            C * 7 * N + conv(3, 7, 7, HALF) + 7 * 21 * HALF + C * 21 * HALF,
        )
    ],
    "residual": free({"kind": "weighted"}),
    "scale": free({"factor": 0.5}),
    "se": [({"reduction": 3}, IMAGE, 2 * C * 7), ({"reduction": 29, "min_hidden": 0}, IMAGE, 0)],
    "self_attention": [({}, IMAGE, 3 * C * C * N + 2 * N * N * C)],
    "simam": free(),
    "spatial_gate": [
        ({"kernel": 5}, IMAGE, conv(5, 2, 1, N)),
        ({"kernel": 5, "spatial_pool": "conv"}, IMAGE, C * N + conv(5, 1, 1, N)),
    ],
    "token_attention": [
        ({"heads": 2}, TOKENS, 4 * 17 * 46 * 46 + 2 * 17 * 17 * 46),
        ({"heads": 2, "position": "relative"}, TOKENS, 4 * 17 * 46 * 46 + 2 * 17 * 17 * 46 + 17 * 46 * (2 * 17 - 1)),
    ],
    "token_classifier": [({}, TOKENS, 46 * CLASSES)],
    "token_pool": free({"kind": "class"}, {"kind": "mean"}, shape=TOKENS),
    "transformer": [({"heads": 2, "mlp_ratio": 3.0}, TOKENS, 4 * 17 * 46 * 46 + 2 * 17 * 17 * 46 + 2 * 17 * 46 * 138)],
    "transition": [({}, IMAGE, C * 11 * N)],
    "triplet_attention": [
        ({"kernel": 5}, IMAGE, 25 * 2 * (C * W + H * C + H * W)),
        ({"kernel": 5, "spatial": False}, IMAGE, 25 * 2 * (C * W + H * C)),
    ],
    "upsample": free({"kind": "nearest"}, {"kind": "bilinear"}),
}
ALL = [
    pytest.param(name, *case, id=f"{name}-{number}")
    for name, cases in CLOSED_FORMS.items()
    for number, case in enumerate(cases)
]


def of_block(name: str, params: dict[str, Any], shape: Shape) -> Graph:
    kind: Any = registry()[name]
    builder = GraphBuilder(shape, CLASSES)
    inputs = (INPUT,) * (2 if kind.variadic else len(kind.ports))
    return builder.finish(builder.place("here", kind, kind.Params(**params), inputs))


aten = torch.ops.aten
UNCOUNTED_BY_TORCH = {
    aten.mv: lambda matrix, vector, out_shape: 2 * prod(matrix),
    aten.dot: lambda left, right, out_shape: 2 * prod(left),
}
"""The products that ``torch.utils.flop_counter`` has no formula for, and counts as 0, with what they come to.

Its documentation: 2·m·n·k for a product; operators without a formula add none, unless they decompose into some that
have one. On the meta device attention decomposes, into two ``bmm``.
"""


def torchs_count(run: Callable[[], object], told: dict[Any, Any] | None = None) -> tuple[int, dict[Any, int]]:
    """What torch counts, 2 for a multiply-accumulate; and by operation."""
    with FlopCounterMode(display=False, custom_mapping=told) as counter, torch.no_grad():
        run()
    return counter.get_total_flops(), dict(counter.get_flop_counts().get("Global", {}))


def on_meta(graph: Graph) -> Callable[[], object]:
    """A forward pass of one example in evaluation, on the meta device."""
    with torch.device("meta"):
        modules = {node.module: node.block.make(node.params, *node.shapes).eval() for node in graph.nodes}
        x = torch.empty(1, *graph.input_shape)

    def run() -> None:
        values = {INPUT: x}
        for node in graph.in_execution_order:
            values[node.name] = modules[node.module](*(values[source] for source in node.inputs))

    return run


def test_every_block_has_a_closed_form_here() -> None:
    assert set(registry()) - {"imported"} == set(CLOSED_FORMS), "write the block's multiply-accumulates down"


ZEROS = {
    "attention_augmented_conv-0": HALF * HALF * (10 - 6),
    "attention_augmented_conv-1": N * N * (10 - 6),
    "non_local-2": N * N * (C - 11),
    "position_attention-0": N * N * (C - 4),
}
"""What torch counts beyond the formula: kernels take keys and values of one width, the narrower filled up by zeros."""


@pytest.mark.parametrize(("name", "params", "shape", "expected"), ALL)
def test_a_block_costs_its_closed_form_and_torchs_count(
    name: str, params: dict[str, Any], shape: Shape, expected: int, request: pytest.FixtureRequest
) -> None:
    graph = of_block(name, params, shape)
    found = cost_of(graph)
    assert found.flops == expected
    assert found.uncounted == {}
    zeros = ZEROS.get(request.node.callspec.id, 0)
    assert torchs_count(on_meta(graph), UNCOUNTED_BY_TORCH)[0] == 2 * (expected + zeros)


MODELS = sorted((Path(__file__).resolve().parents[1] / "specs" / "models").glob("*.yaml"))


def model(file: Path) -> Graph:
    tree = load(file).tree
    collector = Collector(tree)
    network = read_network(tree["network"], (3, 32, 32), CLASSES, collector)
    collector.raise_if_any()
    assert network is not None
    return network.graph


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_a_model_costs_half_of_what_torch_counts_but_for_products_with_vectors(file: Path) -> None:
    graph = model(file)
    found = cost_of(graph)
    assert found.uncounted == {}
    _, by_operation = torchs_count(on_meta(graph), UNCOUNTED_BY_TORCH)
    missed = sum(by_operation.pop(operation, 0) for operation in UNCOUNTED_BY_TORCH)
    assert 2 * found.flops == sum(by_operation.values()) + missed


class Function(nn.Module):
    def __init__(self, act: Callable[..., Any]) -> None:
        super().__init__()
        self.act = act

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.act(*inputs)


def plain_fvcore(module: nn.Module, shape: Shape) -> dict[str, int]:
    from fvcore.nn import FlopCountAnalysis

    counted = FlopCountAnalysis(module.eval(), torch.zeros(1, *shape)).unsupported_ops_warnings(False)
    with torch.no_grad():
        return {name: int(value) for name, value in counted.by_operator().items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("module", "shape", "by_fvcore_alone", "by_us_alone"),
    [
        (nn.Sequential(nn.Conv2d(C, 29, 3), nn.BatchNorm2d(29)), IMAGE, {"batch_norm": 2 * 29 * 9 * 11}, 0),
        (nn.Sequential(nn.Linear(46, 29), nn.LayerNorm(29)), TOKENS, {"layer_norm": 5 * 17 * 29}, 0),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(C, 29, 1)), IMAGE, {"adaptive_avg_pool2d": C * N}, 0),
        (Function(lambda x: F.scaled_dot_product_attention(x, x, x)), (2, 17, 23), {}, 2 * 2 * 17 * 17 * 23),
        (Function(lambda x: torch.baddbmm(x[0], x[0], x[0])), (5, 7, 7), {}, 5 * 7**3),
    ],
)
def test_what_fvcore_alone_counts_differs_by_norms_and_poolings_and_products_it_does_not_know(
    module: nn.Module, shape: Shape, by_fvcore_alone: dict[str, int], by_us_alone: int
) -> None:
    theirs = plain_fvcore(module, shape)
    assert {name: theirs[name] for name in by_fvcore_alone} == by_fvcore_alone
    ours, uncounted = count_flops(module.eval(), (shape,))
    assert ours == sum(theirs.values()) - sum(by_fvcore_alone.values()) + by_us_alone
    assert uncounted == ()


class Called(TorchDispatchMode):
    """The operations that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


sizes = st.integers(1, 7)


@st.composite
def factors(draw: st.DrawFn) -> tuple[Shape, Shape]:
    """Two shapes that ``torch.matmul`` takes, vectors and broadcast batches among them."""
    inner = draw(sizes)
    batch = [
        draw(st.tuples(st.sampled_from([1, size]), st.sampled_from([1, size]))) for size in draw(st.lists(sizes))[:2]
    ]
    left = (*(pair[0] for pair in batch), draw(sizes), inner)
    right = (*(pair[1] for pair in batch), inner, draw(sizes))
    if draw(st.booleans()):
        left = left[draw(st.integers(0, len(batch))) :]
    form = draw(st.sampled_from(["matrices", "row", "column"]))
    return (left[-1:] if form == "row" else left), (right[-2:-1] if form == "column" else right)


@settings(max_examples=60)
@given(factors())
def test_any_matrix_product_costs_its_result_times_the_sum(shapes: tuple[Shape, Shape]) -> None:
    left, right = (torch.zeros(shape) for shape in shapes)
    assert matmul_flops(*shapes) == (left @ right).numel() * left.shape[-1]


@settings(max_examples=8)
@given(factors())
def test_a_product_is_counted_in_a_module(shapes: tuple[Shape, Shape]) -> None:
    module = Function(lambda x, y: x[0] @ y[0])
    assert count_flops(module, shapes) == (matmul_flops(*shapes), ())


@st.composite
def equations(draw: st.DrawFn) -> tuple[str, list[Shape]]:
    size = {letter: draw(sizes) for letter in "abcde"}
    operands = [draw(st.lists(st.sampled_from("abcde"), min_size=1, max_size=4, unique=True)) for _ in range(2)]
    letters = sorted({letter for operand in operands for letter in operand})
    output = draw(st.permutations(letters))[: draw(st.integers(0, len(letters)))]
    return f"{','.join(map(''.join, operands))}->{''.join(output)}", [
        tuple(size[letter] for letter in operand) for operand in operands
    ]


@settings(max_examples=100)
@given(equations())
def test_any_einsum_of_two_costs_what_torch_makes_of_it(drawn: tuple[str, list[Shape]]) -> None:
    equation, shapes = drawn
    inputs = [torch.empty(shape, device="meta") for shape in shapes]
    with Called() as called:
        torch.einsum(equation, *inputs)
    counted = torchs_count(lambda: torch.einsum(equation, *inputs))[0]
    assert 2 * einsum_flops(equation, shapes) == counted
    assert counted or "bmm" not in called.names


@pytest.mark.parametrize(
    ("equation", "shapes", "expected"),
    [
        ("bij,bjk->bik", [(5, 7, 11), (5, 11, 13)], 5 * 7 * 11 * 13),
        ("...ij,...jk->...ik", [(2, 5, 7, 11), (5, 11, 13)], 2 * 5 * 7 * 11 * 13),
        ("ij,jk", [(7, 11), (11, 13)], 7 * 11 * 13),
        ("ij,jk,kl->il", [(7, 11), (11, 13), (13, 17)], 7 * 11 * 13 + 7 * 13 * 17),
        ("bi,bj->bij", [(5, 7), (5, 11)], 0),
        ("bij->bji", [(5, 7, 11)], 0),
        # k is the second's alone: it is summed before the product
        ("ij,jk->i", [(7, 11), (11, 13)], 7 * 11),
    ],
)
def test_an_einsum_costs_the_products_it_is_made_of(equation: str, shapes: list[Shape], expected: int) -> None:
    assert einsum_flops(equation, shapes) == expected
    module = Function(lambda *inputs: torch.einsum(equation, *(each[0] for each in inputs)))
    assert count_flops(module, tuple(shapes)) == (expected, ())


x571113 = (5, 7, 11)


@pytest.mark.parametrize(
    ("act", "shapes", "expected"),
    [
        (lambda x, v: x[0] @ v[0], [(7, 11), (11,)], 7 * 11),
        (lambda x, v: torch.mv(x[0], v[0]), [(7, 11), (11,)], 7 * 11),
        (lambda v: torch.dot(v[0], v[0]), [(11,)], 11),
        (lambda x: x @ x.mT, [x571113], 5 * 7 * 11 * 7),
        (lambda x: x[0] @ x[0, 0].T, [x571113], 5 * 7 * 11 * 7),
        (lambda x, y: x[0] @ y, [(7, 11), (3, 11, 13)], 3 * 7 * 11 * 13),
        (lambda x, y: torch.baddbmm(x[0] @ y[0], x[0], y[0]), [(5, 7, 11), (5, 11, 13)], 2 * 5 * 7 * 11 * 13),
        (lambda x, y: torch.addmm(x[0, 0], x[0], y[0]), [(7, 11), (11, 11)], 7 * 11 * 11),
        (lambda x, y: torch.tensordot(x[0], y[0], dims=2), [(7, 5, 11), (5, 11, 13)], 7 * 5 * 11 * 13),
        (lambda x: F.linear(x, torch.ones(11)), [(7, 11)], 7 * 11),
        (lambda x: F.conv1d(x, torch.ones(3, 5, 3)), [(5, 13)], 3 * 5 * 3 * 11),
        (lambda x: F.conv2d(x, torch.ones(3, 5, 3, 3), padding="same"), [(5, 7, 11)], 3 * 5 * 9 * 7 * 11),
        (lambda x: F.conv_transpose2d(x, torch.ones(5, 3, 3, 3), stride=2), [(5, 7, 11)], 5 * 3 * 9 * 7 * 11),
        (
            lambda q, k: F.scaled_dot_product_attention(q, k, k, enable_gqa=True),
            [(6, 7, 11), (2, 13, 11)],
            6 * 7 * 13 * 22,
        ),
        (lambda x: torch.flatten(F.dropout(torch.cat([x, -x.std(1, keepdim=True)], 1), 0.5, False), 1), [(5, 7)], 0),
    ],
)
def test_functions_of_torch_are_counted(act: Callable[..., Any], shapes: list[Shape], expected: int) -> None:
    assert count_flops(Function(act), tuple(shapes)) == (expected, ())


class TorchsAttention(nn.MultiheadAttention):
    def __init__(self, weights: bool) -> None:
        super().__init__(46, 2, batch_first=True)
        self.weights = weights

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(x, x, x, need_weights=self.weights)[0]


@pytest.mark.parametrize("weights", [False, True])
def test_torchs_attention_module_is_counted_in_its_parts(weights: bool) -> None:
    expected = 4 * 17 * 46 * 46 + 2 * 17 * 17 * 46
    assert count_flops(TorchsAttention(weights).eval(), ((17, 46),)) == (expected, ())
    assert torch.backends.mha.get_fastpath_enabled()
