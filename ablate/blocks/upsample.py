"""Upsampling: a larger image of the same channels.

    nearest     y[i, j] = x[⌊i · H / H'⌋, ⌊j · W / W'⌋]
    bilinear    y[i, j]: x read at ((i + ½) H / H' - ½, (j + ½) W / W' - ½), linear between pixels, edges held
    (C, H, W) -> (C, H', W'),  H' = factor · H, or size

No parameters. ``bilinear`` is torch's with ``align_corners=False``.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, PositiveInt, model_validator
from torch import Tensor
from torch.nn import functional as F

from ablate.block import Block, BlockParams, Shape
from ablate.blocks._shapes import image

DEFAULT_FACTOR = 2


class Upsample(Block, name="upsample"):
    """A larger image of the same channels, by repeated pixels or linearly between them."""

    class Params(BlockParams):
        kind: Literal["nearest", "bilinear"] = Field(
            "nearest", description="repeat pixels, or go linearly between them"
        )
        factor: PositiveInt | Literal["auto"] = Field(
            "auto", description=f"output pixels per input pixel, along each axis; auto: by size, else {DEFAULT_FACTOR}"
        )
        size: PositiveInt | Literal["auto"] = Field(
            "auto", description="height and width of the output, in pixels; auto: by factor"
        )

        @model_validator(mode="after")
        def factor_or_size(self) -> Self:
            if "auto" not in (self.factor, self.size):
                raise ValueError(
                    f"factor {self.factor} and size {self.size}: only one of them can decide; leave one out"
                )
            return self

        def target(self, shape: Shape) -> tuple[int, int]:
            """(H', W') for an input of this shape."""
            if self.size != "auto":
                return self.size, self.size
            factor = DEFAULT_FACTOR if self.factor == "auto" else self.factor
            return factor * shape[1], factor * shape[2]

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        _, height, width = image(self.name, shape)
        self.kind, self.target = params.kind, params.target(shape)
        if self.target[0] < height or self.target[1] < width:
            raise ValueError(f"'{self.name}': size {params.size} is smaller than the input's {height} × {width}")

    @classmethod
    def effective(cls, params: Any, *shapes: Shape) -> dict[str, Any]:
        height, width = params.target(shapes[0])
        return {"kind": params.kind, "height": height, "width": width}

    @classmethod
    def is_identity(cls, params: Any, *shapes: Shape) -> bool:
        return bool(params.target(shapes[0]) == shapes[0][1:])

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2:] == self.target:
            return x
        if self.kind == "nearest":
            return F.interpolate(x, self.target, mode="nearest")
        return F.interpolate(x, self.target, mode="bilinear", align_corners=False)

    def extra_repr(self) -> str:
        return f"{self.kind}, {self.target[0]} × {self.target[1]}"
