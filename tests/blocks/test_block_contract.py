"""What every block promises, tried on every block of the registry.

A new block is tried with its defaults on an image; one that needs more (a width, a vector) has a line in ``CASES``.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ablate.block import INIT_RECIPES, Block, Shape, Stream, registry

IMAGE: Shape = (7, 13, 5)
WIDE: Shape = (16, 13, 5)
VECTOR: Shape = (7,)
TOKENS: Shape = (10, 12)

CASES: dict[str, list[tuple[dict[str, Any], tuple[Shape, ...]]]] = {
    "conv": [
        ({"width": 11}, (IMAGE,)),
        ({"width": 14, "kernel": 5, "stride": 2, "groups": 7, "dilation": 1, "bias": True}, (IMAGE,)),
        ({"width": 3, "kernel": 4, "padding": 1}, (IMAGE,)),
    ],
    "linear": [({"width": 11}, (VECTOR,)), ({"width": 11, "bias": False}, (VECTOR,)), ({"width": 11}, (TOKENS,))],
    "batch_norm": [({}, (IMAGE,)), ({}, (VECTOR,))],
    "add": [({}, (IMAGE, IMAGE)), ({}, (VECTOR, VECTOR, VECTOR))],
    "concat": [({}, (IMAGE, (3, 13, 5))), ({}, (VECTOR, (2,), (5,)))],
    "pad_shortcut": [({"width": 12, "stride": 2}, (IMAGE,)), ({"width": 7}, (IMAGE,))],
    "residual": [({}, (IMAGE, IMAGE)), ({"per": "channel", "init": 0.3}, (IMAGE, IMAGE)), ({}, (VECTOR, VECTOR))],
    "act": [({"kind": kind}, (IMAGE,)) for kind in ("relu", "leaky_relu", "gelu", "none")],
    "dropout": [({"rate": 0.3}, (IMAGE,)), ({"rate": 0.0}, (VECTOR,))],
    "drop_path": [
        ({"rate": 0.3, "per": per, "scaled": scaled}, (IMAGE,))
        for per in ("example", "batch")
        for scaled in ("training", "evaluation")
    ]
    + [({"rate": 0.0}, (VECTOR,)), ({}, (TOKENS,))],
    "scale": [({"factor": 0.5}, (IMAGE,)), ({}, (VECTOR,))],
    "layer_scale": [({}, (IMAGE,)), ({"init": 0.3}, (TOKENS,)), ({}, (VECTOR,))],
    "group_norm": [({"groups": 7}, (IMAGE,)), ({"groups": 1}, (VECTOR,)), ({"groups": 4}, (WIDE,))],
    "layer_norm": [({}, (IMAGE,)), ({}, (TOKENS,)), ({"eps": 1e-3}, (VECTOR,))],
    "max_pool": [
        ({}, (IMAGE,)),
        ({"kernel": 3, "stride": 2, "padding": 1}, (IMAGE,)),
        ({"kernel": 2, "ceil": True}, (IMAGE,)),
    ],
    "avg_pool": [({}, (IMAGE,)), ({"kernel": 2, "ceil": True}, (IMAGE,))],
    "upsample": [({"kind": "nearest", "factor": 3}, (IMAGE,)), ({"kind": "bilinear", "size": 13}, (IMAGE,))],
    "se": [({}, (IMAGE,)), ({"reduction": 3, "bias": False}, (IMAGE,)), ({"min_hidden": 0}, (IMAGE,))]
    + [({"reduction": 2, "squeeze": "max", "excitation": kind}, (IMAGE,)) for kind in ("relu", "tanh")],
    "cbam": [({}, (IMAGE,)), ({"min_hidden": 0, "kernel": 3}, (IMAGE,))]
    + [({"order": order, "spatial_pool": "conv"}, (IMAGE,)) for order in ("spatial_first", "parallel")],
    "channel_gate": [({"reduction": 2}, (IMAGE,)), ({"min_hidden": 0}, (IMAGE,))]
    + [({"pool": pool}, (IMAGE,)) for pool in ("avg", "max")],
    "spatial_gate": [({}, (IMAGE,)), ({"spatial_pool": "conv"}, (IMAGE,))],
    "non_local": [
        ({"form": form, "subsample": subsample, "scale": subsample}, (IMAGE,))
        for form in ("gaussian", "embedded_gaussian", "dot_product", "concatenation")
        for subsample in (False, True)
    ],
    "patch_embed": [({"width": 11, "patch": 3}, ((5, 9, 6),))],
    "class_token": [({}, (TOKENS,))],
    "position_embedding": [({"kind": kind}, (TOKENS,)) for kind in ("learned_1d", "learned_2d", "sincos_2d", "none")]
    + [({"kind": "learned_2d", "rows": 5}, (TOKENS,))],
    "token_attention": [
        ({"heads": 4}, (TOKENS,)),
        ({"heads": 2, "position": "relative"}, (TOKENS,)),
    ],
    "token_pool": [({}, (TOKENS,)), ({"kind": "mean"}, (TOKENS,))],
    "ai_gate": [({"mode": mode, "min_hidden": low}, (IMAGE,)) for mode in ("channel", "combined") for low in (0, 1)]
    + [({"mode": "spatial"}, (IMAGE,))],
    "multi_head_attention": [({}, (WIDE,)), ({"heads": 7}, (IMAGE,))],
    "eca": [({}, (WIDE,)), ({"kernel": 5}, (IMAGE,))],
    "bam": [({"reduction": 2, "dilation": 2}, (IMAGE,)), ({"min_hidden": 0}, (IMAGE,))]
    + [({"reduction": 3, "join": join, "norms": "inner"}, (IMAGE,)) for join in ("product", "max")]
    + [({"mode": mode}, (IMAGE,)) for mode in ("channel", "spatial")],
    "global_context": [({}, (IMAGE,)), ({"fusion": "scale", "min_hidden": 0}, (IMAGE,))]
    + [({"pool": pool, "fusion": "scale", "reduction": 2}, (IMAGE,)) for pool in ("attention", "avg")],
    "simam": [({"variance": kind}, (IMAGE,)) for kind in ("sample", "population")],
    "gather_excite": [
        ({"form": form, "extent": extent, "min_hidden": low}, (IMAGE,))
        for form, low in (("theta_minus", 1), ("theta", 1), ("theta_plus", 1), ("theta_plus", 0))
        for extent in (4, "global")
    ],
    "triplet_attention": [({}, (IMAGE,)), ({"kernel": 3, "spatial": False}, (IMAGE,))],
    "coordinate_attention": [({}, (IMAGE,)), ({"min_hidden": 0}, (IMAGE,)), ({"bias": False, "act": "relu"}, (IMAGE,))],
    "channel_multi_head_attention": [({}, (WIDE,)), ({"heads": 1, "normalize": False}, (IMAGE,))],
    "position_attention": [({}, (IMAGE,)), ({"reduction": 2}, (WIDE,))],
    "channel_attention": [({"compare": compare}, (IMAGE,)) for compare in ("likeness", "difference")],
    "attention_augmented_conv": [
        ({"width": 24}, (IMAGE,)),
        ({"width": 11, "kernel": 5, "stride": 2, "heads": 3, "dk": 6, "dv": 3, "position": "none"}, (IMAGE,)),
        ({"width": 6, "heads": 2, "dk": 2, "dv": 6, "stride": 3}, (IMAGE,)),
    ],
}

LEAVES = {name: block for name, block in registry().items() if issubclass(block, Block)}
Case = tuple[type[Block], dict[str, Any], tuple[Shape, ...]]


def cases() -> list[Any]:
    found = []
    for name, block in LEAVES.items():
        for params, shapes in CASES.get(name, [({}, (IMAGE,) * len(block.ports))]):
            label = ",".join(f"{key}={value}" for key, value in params.items())
            found.append(pytest.param((block, params, shapes), id=f"{name}[{label}]{shapes[0]}"))
    return found


every_leaf = pytest.mark.parametrize("case", cases())


def built(case: Case) -> Block:
    block, params, shapes = case
    module = block(block.Params(**params), *shapes)
    module.noise_seed = 17
    return module


def batch(case: Case, size: int = 3, device: str = "cpu") -> list[Tensor]:
    return [torch.randn(size, *shape, device=device) for shape in case[2]]


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@every_leaf
@pytest.mark.parametrize("training", [True, False])
def test_a_leaf_computes_and_passes_a_gradient_to_every_input(case: Case, training: bool) -> None:
    module = built(case).train(training)
    inputs = [x.requires_grad_() for x in batch(case)]
    answer = module(*inputs)
    assert answer.shape[0] == 3
    assert answer.isfinite().all()
    answer.square().sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in inputs)
    assert all(parameter.grad is not None for parameter in module.parameters())


@every_leaf
@pytest.mark.parametrize("training", [True, False])
def test_shapes_on_the_meta_device_are_the_real_ones(case: Case, training: bool) -> None:
    real = built(case).train(training)(*batch(case))
    with torch.device("meta"):
        module = built(case).train(training)
    shadow = module(*batch(case, device="meta"))
    assert shadow.shape == real.shape
    assert shadow.dtype == real.dtype


@every_leaf
@pytest.mark.parametrize("training", [True, False])
def test_a_leaf_never_writes_into_its_input(case: Case, training: bool) -> None:
    module = built(case).train(training)
    inputs = batch(case)
    before = [(x.clone(), x._version) for x in inputs]
    module(*inputs)
    assert all(torch.equal(x, was) and x._version == version for x, (was, version) in zip(inputs, before, strict=True))


@every_leaf
def test_examples_of_a_batch_do_not_mix_outside_training(case: Case) -> None:
    module, inputs = built(case).eval(), batch(case)
    alone = module(*(x[1:2] for x in inputs))
    torch.testing.assert_close(module(*inputs)[1:2], alone)


@every_leaf
def test_the_memory_format_changes_nothing(case: Case) -> None:
    module, inputs = built(case).double(), [x.double() for x in batch(case)]
    last = [x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs]
    torch.testing.assert_close(module(*last), module(*inputs))


@every_leaf
def test_a_leaf_pickles_and_copies(case: Case) -> None:
    module, inputs = built(case).eval(), batch(case)
    for twin in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert equal(state(twin), state(module))
        assert torch.equal(twin(*inputs), module(*inputs))


@every_leaf
def test_a_leaf_exports(case: Case) -> None:
    module, inputs = built(case).eval(), batch(case)
    exported = torch.export.export(module, tuple(inputs)).module()
    torch.testing.assert_close(exported(*inputs), module(*inputs))


@every_leaf
@pytest.mark.parametrize("recipe", INIT_RECIPES)
def test_init_covers_every_parameter_and_buffer(case: Case, recipe: str, streams: Callable[[int], Stream]) -> None:
    module = built(case)
    with torch.no_grad():
        for value in module.state_dict().values():
            value.fill_(torch.nan if value.is_floating_point() else 99)
    module.init(streams(0), recipe)
    assert all(value.isfinite().all() and (value != 99).all() for value in module.state_dict().values())


@every_leaf
@pytest.mark.parametrize("recipe", INIT_RECIPES)
def test_init_depends_on_the_stream_alone(case: Case, recipe: str, streams: Callable[[int], Stream]) -> None:
    torch.manual_seed(1)
    one = built(case)
    torch.manual_seed(2)
    other = built(case)
    before = torch.get_rng_state()
    one.init(streams(0), recipe)
    other.init(streams(0), recipe)
    assert torch.equal(torch.get_rng_state(), before)
    assert equal(state(one), state(other))


@every_leaf
def test_init_asks_once_for_each_parameter_and_by_its_name(case: Case, streams: Callable[[int], Stream]) -> None:
    module, asked = built(case), []

    def stream(name: str) -> torch.Generator:
        asked.append(name)
        return streams(0)(name)

    module.init(stream, "kaiming_fan_out")
    first = state(module)
    assert len(asked) == len(set(asked))
    assert set(asked) <= {name for name, _ in module.named_parameters()}
    module.init(lambda name: streams(0)(f"elsewhere.{name}"), "kaiming_fan_out")
    assert all(not torch.equal(first[name], module.state_dict()[name]) for name in asked)


@every_leaf
def test_an_identity_returns_its_first_input(case: Case) -> None:
    block, params, shapes = case
    if block.is_identity(block.Params(**params), *shapes):
        module, inputs = built(case).train(), batch(case)
        assert torch.equal(module(*inputs), inputs[0])
        assert not list(module.parameters())


@every_leaf
def test_the_effective_parameters_are_plain_data_and_the_notes_are_text(case: Case) -> None:
    block, params, shapes = case
    effective = block.effective(block.Params(**params), *shapes)
    assert all(isinstance(value, str | int | float | bool) for value in effective.values())
    assert all(isinstance(note, str) for note in block.notes(block.Params(**params), *shapes))


@pytest.mark.parametrize("name", LEAVES)
def test_invariant_parameters_exist_in_some_case(name: str) -> None:
    tried = [case.values[0] for case in cases() if case.values[0][0] is LEAVES[name]]
    found = {parameter for case in tried for parameter, _ in built(case).named_parameters()}
    assert LEAVES[name].invariant_parameters <= found


@pytest.mark.parametrize("name", registry())
def test_every_parameter_of_a_block_is_described(name: str) -> None:
    block = registry()[name]
    fields = block.Params.model_json_schema().get("properties", {})
    assert all(field.get("description") for field in fields.values())
    assert len(block.summary()) > 10


@pytest.mark.parametrize("name", registry())
def test_every_block_refuses_unknown_parameters_and_coerces_nothing(name: str) -> None:
    block = registry()[name]
    with pytest.raises(ValueError, match="no_such_thing"):
        block.Params(no_such_thing=1)
    for field, schema in block.Params.model_json_schema().get("properties", {}).items():
        if schema.get("type") == "integer":
            with pytest.raises(ValueError, match=field):
                block.Params(**{field: 3.7})


@pytest.mark.parametrize("name", ["conv", "global_pool", "max_pool", "avg_pool", "pad_shortcut", "se", "cbam"])
def test_a_block_for_images_refuses_a_vector_in_words(name: str) -> None:
    block = LEAVES[name]
    params = {"width": 7} if "width" in block.Params.model_fields else {}
    with pytest.raises(ValueError, match=rf"'{name}' reads an input of shape \(C, H, W\) and was given \(7,\)"):
        block(block.Params(**params), VECTOR)
