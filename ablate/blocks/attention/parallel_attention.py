"""Attentions in parallel: CNNtention (Kapila et al., 2024), §5.4, after Inception (Szegedy et al., 2014,
arXiv:1409.4842).

    y = W [F₁(x); F₂(x); …] + b        W: 1 × 1 convolution, the channels of all paths -> width

All paths read x. The paper proposes that "different attentions can be combined and concatenated", and tries nothing.
The 1 × 1 convolution, which brings the width back, is ours; no normalisation and no activation follow it.

A path is the name of a block with one input, or a mapping with its parameters: ``{block: cbam, reduction: 8}``; what
that leaves open has the block's defaults, or those of ``network.defaults``. The nodes are called as the blocks are
(``stage1_attention.cbam``), the second of a kind ``cbam2``. Blocks that a spec declares can't be a path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveInt, ValidationError

from ablate.block import BlockParams, Composite, Scope, Value, find
from ablate.blocks._shapes import image
from ablate.errors import did_you_mean

Path = str | dict[str, Any]


def sound(path: Path) -> Path:
    """The path, or ``ValueError`` where it names no block of one input or gives it parameters that it doesn't take."""
    name, params = _split(path)
    try:
        block = find(name)
    except KeyError as error:
        raise ValueError(f"no block '{name}'; {error.args[0]}") from None
    if block.variadic or len(block.ports) != 1:
        raise ValueError(f"'{name}' joins several inputs and can't be a path")
    try:
        block.Params.model_validate(params)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            hint = did_you_mean(key, block.Params.model_fields)
            raise ValueError(f"unknown parameter '{key}' of block '{name}'; {hint}") from None
        raise ValueError(f"'{name}': {key}: {first['msg']}") from None
    return path


class ParallelAttention(Composite, name="parallel_attention"):
    """Attentions side by side, concatenated, and a 1 × 1 convolution: CNNtention (Kapila et al., 2024), §5.4."""

    class Params(BlockParams):
        blocks: list[Annotated[Path, AfterValidator(sound)]] = Field(
            min_length=1, description="the paths: names of blocks, or {block: NAME, …} with parameters"
        )
        width: PositiveInt | Literal["same"] = Field(
            "same", description="output channels of the last convolution; same: as many as arrive"
        )
        bias: bool = Field(True, description="add a learnable constant to each output channel")

    @classmethod
    def expand(cls, scope: Scope, params: Any, *inputs: Value) -> Value:
        (x,) = inputs
        channels, _, _ = image(cls.name, scope.shape(x))
        paths = [scope.add(name, block, x, **given) for name, (block, given) in _named(params.blocks).items()]
        joined = scope.add("concat", "concat", *paths) if len(paths) > 1 else paths[0]
        width = channels if params.width == "same" else params.width
        return scope.add("fit", "conv", joined, width=width, kernel=1, bias=params.bias)


def _split(path: Path) -> tuple[str, Mapping[str, Any]]:
    if isinstance(path, str):
        return path, {}
    if not isinstance(path.get("block"), str):
        raise ValueError("a path is a block's name, or a mapping {block: NAME, …}")
    return path["block"], {key: value for key, value in path.items() if key != "block"}


def _named(paths: list[Path]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """The paths by the names of their nodes: a block's name, from its second path on with a number."""
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    counts: dict[str, int] = {}
    for path in paths:
        block, params = _split(path)
        counts[block] = counts.get(block, 0) + 1
        found[block if counts[block] == 1 else f"{block}{counts[block]}"] = (block, params)
    return found
