"""Shapes of values, without the batch axis: what a block makes of them, and what they say of what stands between."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import nn

from ablate.block import Block, BlockParams, Shape

MOST_VALUES = 2**31
"""Of the parameters of one node, and of its output for one example: 8 GiB in fp32."""


def infer_shape(block: type[Block], params: BlockParams, shapes: tuple[Shape, ...]) -> Shape:
    """The output's shape, found by running the module on meta tensors. ``ValueError`` where it can't run."""
    # mypy takes the module's __hash__ for the class's
    return _infer_shape(block, params.model_dump_json(), shapes)  # type: ignore[arg-type]


@lru_cache(maxsize=65_536)
def _infer_shape(block: type[Block], params_json: str, shapes: tuple[Shape, ...]) -> Shape:
    params = block.Params.model_validate_json(params_json)
    for name, value in params:
        if isinstance(value, int) and abs(value) >= 2**63:
            raise ValueError(f"{name} has more than 63 bits")
    try:
        try:
            module, output = _run_once(block, params, shapes, "meta")
        except RuntimeError as error:
            if "meta" not in str(error):
                raise
            # Somebody's code that looks at values: there are none on meta.
            module, output = _run_once(block, params, shapes, "cpu")
    except RuntimeError as error:
        raise ValueError(str(error).split("\n", 1)[0]) from None
    if not isinstance(output, torch.Tensor) or output.ndim < 2 or output.shape[0] != 2:
        raise ValueError("a block returns one tensor that keeps the batch axis")
    shape = tuple(output.shape[1:])
    if 0 in shape:
        raise ValueError(f"its output would be empty: {shape}")
    largest = max(output[0].numel(), sum(parameter.numel() for parameter in module.parameters()))
    if largest > MOST_VALUES:
        raise ValueError(f"{largest:,} values in its parameters or output; at most {MOST_VALUES:,}")
    return shape


def stride_of(before: Shape, after: Shape) -> int | None:
    """By how much a map shrinks; ``None`` where that is no whole number, or another along each axis."""
    if len(before) != 3 or len(after) != 3:
        return 1
    for stride in range(1, max(before[1:]) + 1):
        if all(-(-size // stride) == smaller for size, smaller in zip(before[1:], after[1:], strict=True)):
            return stride
    return None


def over_a_map(before: Shape, after: Shape) -> dict[str, Any]:
    """The width and, where there is one, the stride of something that is known by its shapes alone."""
    stride = stride_of(before, after)
    return {"width": width_of(after)} | ({} if stride is None else {"stride": stride})


def width_of(shape: Shape) -> int:
    """The channels of a map (C, H, W) or of features (C,); of tokens (N, C) the last axis."""
    return shape[-1] if len(shape) == 2 else shape[0]


def _run_once(
    block: type[Block], params: BlockParams, shapes: tuple[Shape, ...], device: str
) -> tuple[nn.Module, torch.Tensor]:
    with torch.device(device), torch.no_grad(), torch.random.fork_rng(devices=[]):
        # Batch norm over a single value refuses to train; shapes are the same in both modes.
        module = block.make(params, *shapes)
        module.eval()  # whatever it returns: some models' own returns nothing
        return module, module(*(torch.zeros(2, *shape) for shape in shapes))
