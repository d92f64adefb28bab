"""Attention is fused wherever it can be: equal to the naive form, and its memory linear in pixels, in any layout."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from ablate.block import Shape, registry
from ablate.blocks._attend import attend

Make = Callable[..., Any]
Noise = Callable[..., Tensor]
Case = tuple[str, dict[str, Any], int]

LINEAR: list[Case] = [
    # block, parameters, heads; on 16 channels, so that eight heads have 2 each
    ("self_attention", {}, 1),
    ("multi_head_attention", {"heads": 1}, 1),
    ("multi_head_attention", {"heads": 8}, 8),
    ("multi_head_attention", {"heads": 16}, 16),
    ("position_attention", {"reduction": 4}, 1),
    ("position_attention", {"reduction": 16}, 1),
    ("non_local", {"form": "gaussian", "subsample": True}, 1),
    ("non_local", {"form": "gaussian"}, 1),
    ("non_local", {"form": "embedded_gaussian", "subsample": True}, 1),
    ("non_local", {"form": "embedded_gaussian", "scale": True}, 1),
    ("non_local", {"form": "dot_product", "subsample": True}, 1),
    ("non_local", {"form": "dot_product"}, 1),
    ("attention_augmented_conv", {"width": 20, "heads": 2, "dk": 6, "dv": 10, "position": "none"}, 2),
    ("channel_attention", {}, 1),
    ("channel_multi_head_attention", {"heads": 2}, 2),
    ("channel_multi_head_attention", {"heads": 8, "normalize": False}, 8),
    ("token_attention", {"heads": 8}, 8),
    ("global_context", {}, 1),
]
QUADRATIC: list[Case] = [
    ("attention_augmented_conv", {"width": 20, "heads": 2, "dk": 6, "dv": 10, "stride": 2}, 2),
    ("token_attention", {"heads": 8, "position": "relative"}, 8),
    ("non_local", {"form": "concatenation"}, 1),
]
"""Relative positions are a mask of N × M; so are the comparisons of a concatenation, which is no softmax."""

PLAIN = {"dot_product", "concatenation", "global_context"}
"""Forms that no fused kernel is for: products of two matrices, or one row of weights for all pixels."""

FUSED = {
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
}
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]

linear = pytest.mark.parametrize(("name", "params", "heads"), LINEAR)
every_case = pytest.mark.parametrize(("name", "params", "heads"), LINEAR + QUADRATIC)
layouts = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
devices = pytest.mark.parametrize("device", DEVICES)


def test_every_block_with_attention_maps_is_here() -> None:
    with_maps = {name for name, block in registry().items() if hasattr(block, "attention")}
    assert with_maps == {name for name, *_ in LINEAR + QUADRATIC}


def laid_out(tensor: Tensor, layout: torch.memory_format) -> Tensor:
    return tensor.contiguous(memory_format=layout) if tensor.ndim == 4 else tensor


def case_of(
    make: Make, noise: Noise, name: str, params: dict[str, Any], layout: torch.memory_format, sides: tuple[int, int]
) -> tuple[nn.Module, Tensor]:
    """The block on 16 channels, and two images (sequences) for it, in float64."""
    shape: Shape = (sides[0] * sides[1], 16) if name == "token_attention" else (16, *sides)
    module = make(name, shape, **params)
    return module.to(memory_format=layout), laid_out(noise(2, *shape) / 2, layout)


def is_plain(name: str, params: dict[str, Any]) -> bool:
    return name in PLAIN or params.get("form") in PLAIN


# equal to the naive form -------------------------------------------------------------------------------------------


def naive(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, attn_mask: Tensor | None = None, dropout_p: float = 0.0
) -> Tensor:
    logits = scale * torch.einsum("bhnd,bhmd->bhnm", q, k)
    weights = (logits if attn_mask is None else logits + attn_mask).exp()
    return torch.einsum("bhnm,bhmd->bhnd", weights / weights.sum(-1, keepdim=True), v)


def operand(noise: Noise, count: int, width: int, transposed: bool, seed: int) -> Tensor:
    x = noise(2, 3, width, count, seed=seed).mT if transposed else noise(2, 3, count, width, seed=seed)
    return x.detach().requires_grad_()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("width", "value_width"), [(1, 1), (2, 2), (7, 7), (2, 11), (11, 2), (16, 16), (64, 64)])
@pytest.mark.parametrize("root", [False, True])
def test_attention_is_the_naive_form_forward_and_backward(
    noise: Noise, width: int, value_width: int, root: bool, transposed: bool, masked: bool
) -> None:
    scale = width**-0.5 if root else 1.0
    shapes = [(13, width), (17, width), (17, value_width)]
    ours, theirs = (
        [operand(noise, *shape, transposed, seed) for seed, shape in enumerate(shapes, 1)]
        + ([noise(2, 3, 13, 17, seed=4).requires_grad_()] if masked else [])
        for _ in range(2)
    )
    y = attend(*ours[:3], scale, *ours[3:])
    expected = naive(*theirs[:3], scale=scale, attn_mask=theirs[3] if masked else None)
    torch.testing.assert_close(y, expected)
    weights = noise(*y.shape, seed=5)
    found = torch.autograd.grad(y, ours, weights)
    for one, two in zip(found, torch.autograd.grad(expected, theirs, weights), strict=True):
        torch.testing.assert_close(one, two)


def everything(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The output and all gradients."""
    x = x.detach().requires_grad_()
    module.zero_grad()
    y = module(x)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype, device=y.device).reshape(y.shape)
    (y * weights).sum().backward()
    grads = {name: parameter.grad for name, parameter in module.named_parameters()}
    assert x.grad is not None
    return {"output": y.detach(), "input": x.grad, **{name: grad for name, grad in grads.items() if grad is not None}}


@every_case
@layouts
def test_a_block_is_itself_with_the_naive_form_in_its_place(
    make: Make,
    noise: Noise,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    params: dict[str, Any],
    heads: int,
    layout: torch.memory_format,
) -> None:
    module, x = case_of(make, noise, name, params, layout, (5, 7))
    found = everything(module, x)
    monkeypatch.setattr(F, "scaled_dot_product_attention", naive)
    expected = everything(module, x)
    assert found.keys() == expected.keys()
    for key, tensor in found.items():
        torch.testing.assert_close(tensor, expected[key], msg=f"{key} differs")


@every_case
@layouts
@devices
def test_in_bfloat16_a_block_is_what_it_is_in_float64_but_for_rounding(
    make: Make,
    noise: Noise,
    name: str,
    params: dict[str, Any],
    heads: int,
    layout: torch.memory_format,
    device: str,
) -> None:
    module, x = case_of(make, noise, name, params, layout, (5, 7))
    expected = module(x)
    module, x = module.to(device, torch.float32), x.to(device, torch.float32)
    with torch.autocast(device, torch.bfloat16):
        found = module(x)
    error = (found.cpu().double() - expected).abs().max() / expected.abs().max()
    assert error < 0.05


# linear in pixels --------------------------------------------------------------------------------------------------


@dataclass
class Watched(TorchDispatchMode):
    """Which operations ran, the largest tensor that one of them made, and the most bytes that were alive at once."""

    names: set[str] = field(default_factory=set)
    largest: int = 0
    peak: int = 0
    alive: dict[int, tuple[StorageWeakRef, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        self.names.add(func.overloadpacket.__name__)
        for tensor in tree_leaves(answer):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
                storage = tensor.untyped_storage()
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.alive = {key: held for key, held in self.alive.items() if not held[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return answer


def watched(module: nn.Module, x: Tensor, training: bool, precision: AbstractContextManager[Any]) -> Watched:
    module.train(training).zero_grad(set_to_none=True)
    with Watched() as seen, torch.set_grad_enabled(training), precision:
        y = module(x.detach().requires_grad_(training))
        if training:
            y.float().sum().backward()
    return seen


@linear
@layouts
@devices
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_no_tensor_is_as_large_as_the_map_of_all_pixels(
    make: Make,
    noise: Noise,
    name: str,
    params: dict[str, Any],
    heads: int,
    layout: torch.memory_format,
    training: bool,
    bf16: bool,
    device: str,
) -> None:
    seen = []
    for sides in [(14, 11), (28, 22)]:
        module, x = case_of(make, noise, name, params, layout, sides)
        module, x = module.to(device, torch.float32), x.to(device, torch.float32)
        precision = torch.autocast(device, torch.bfloat16) if bf16 else nullcontext()
        seen.append(watched(module, x, training, precision))
        pixels = sides[0] * sides[1]
        # subsampled, keys are a quarter of the queries
        assert seen[-1].largest < 2 * heads * pixels * pixels / 4
        assert is_plain(name, params) or seen[-1].names & FUSED
    assert seen[1].peak < 4.5 * seen[0].peak  # four times the pixels; a map would be sixteen times as large


@pytest.mark.parametrize(("name", "params", "heads"), QUADRATIC)
def test_the_watch_sees_a_map_where_there_is_one(
    make: Make, noise: Noise, name: str, params: dict[str, Any], heads: int
) -> None:
    module, x = case_of(make, noise, name, params, torch.channels_last, (14, 10))
    seen = watched(module.float(), x.float(), True, nullcontext())
    pixels = 14 * 10 // params.get("stride", 1) ** 2
    assert seen.largest >= 2 * heads * pixels * pixels


def test_what_has_a_mask_without_a_gradient_is_fused(make: Make, noise: Noise) -> None:
    for name, params, _ in QUADRATIC[:2]:
        module, x = case_of(make, noise, name, params, torch.contiguous_format, (5, 7))
        assert watched(module, x, False, nullcontext()).names & FUSED


# what surrounds it -------------------------------------------------------------------------------------------------


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> Tensor:
        raise AssertionError("maps are for looking at")

    for block in registry().values():
        if hasattr(block, "attention"):
            monkeypatch.setattr(block, "attention", refuse)


@every_case
@pytest.mark.parametrize("training", [False, True])
def test_maps_for_looking_at_are_not_made_on_the_way(
    make: Make, noise: Noise, refusing: None, name: str, params: dict[str, Any], heads: int, training: bool
) -> None:
    module, x = case_of(make, noise, name, params, torch.channels_last, (5, 7))
    module.train(training)(x)
    with pytest.raises(AssertionError, match="for looking at"):
        module.attention(x)


@pytest.mark.parametrize(("name", "params", "heads"), [case for case in LINEAR if not is_plain(*case[:2])])
@layouts
def test_an_image_leaves_in_the_layout_in_which_it_came(
    make: Make, noise: Noise, name: str, params: dict[str, Any], heads: int, layout: torch.memory_format
) -> None:
    module, x = case_of(make, noise, name, params, layout, (5, 7))
    y = module(x)
    assert y.is_contiguous(memory_format=layout) or y.ndim == 3


@pytest.mark.parametrize(("sides", "by_map"), [((5, 7), False), ((2, 3), True)])
def test_a_dot_product_is_taken_in_the_cheaper_order(
    make: Make, noise: Noise, sides: tuple[int, int], by_map: bool
) -> None:
    """8 channels within: keys times values are 8 × 8, a map of 6 pixels is the smaller one."""
    module, x = case_of(make, noise, "non_local", {"form": "dot_product"}, torch.contiguous_format, sides)
    module.eval()
    values = module.g(x).flatten(2).mT.unsqueeze(1)
    y = (module.attention(x) @ values).squeeze(1).mT.reshape(2, 8, *sides)
    with FlopCounterMode(display=False) as counter:
        found = module(x)
    torch.testing.assert_close(found, module.bn(module.out(y)))
    # two images; four convolutions between 16 and 8 channels, and two products whose smaller side is 8 or the pixels
    count = sides[0] * sides[1]
    assert counter.get_total_flops() == 2 * 2 * (4 * count * 16 * 8 + 2 * count * 8 * (count if by_map else 8))
