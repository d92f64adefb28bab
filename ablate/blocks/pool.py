"""Pooling: mean or maximum, over the whole image or over windows.

global_pool   (C, H, W) -> (C,)
max_pool      (C, H, W) -> (C, H', W'),  H' = (H + 2 padding - kernel) // stride + 1; padding never wins
avg_pool      likewise; zeros of the padding count in the mean, as in torch

With ``ceil`` a window may hang over the far edge, ⌈ ⌉ in the place of //; what it lacks there counts for nothing.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor
from torch.nn import functional as F

from ablate.block import Block, BlockParams, Shape
from ablate.blocks._shapes import image, window_fits


class GlobalPool(Block, name="global_pool"):
    """Mean or maximum over the whole image: (C, H, W) -> (C,)."""

    class Params(BlockParams):
        kind: Literal["avg", "max"] = Field("avg", description="mean (avg) or maximum over H and W")

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        image(self.name, shape)
        self.kind = params.kind

    def forward(self, x: Tensor) -> Tensor:
        # amax, and not adaptive_max_pool2d, whose backward on CUDA is not deterministic
        return x.mean((2, 3)) if self.kind == "avg" else x.amax((2, 3))

    def extra_repr(self) -> str:
        return self.kind


class WindowParams(BlockParams):
    kernel: PositiveInt = Field(2, description="side of the square window, in pixels")
    stride: PositiveInt | Literal["kernel"] = Field(
        "kernel", description="step of the window, in pixels; kernel: windows side by side"
    )
    padding: NonNegativeInt = Field(0, description="added on each side, in pixels; at most kernel // 2")
    ceil: bool = Field(False, description="also the last window, where it hangs over the edge")

    @model_validator(mode="after")
    def padding_is_at_most_half_a_window(self) -> Self:
        if self.padding > self.kernel // 2:
            raise ValueError(f"padding {self.padding} is more than half of kernel {self.kernel}")
        return self

    @property
    def pixels_of_stride(self) -> int:
        return self.kernel if self.stride == "kernel" else self.stride


class WindowPool(Block):
    """What ``max_pool`` and ``avg_pool`` share."""

    Params = WindowParams

    def __init__(self, params: WindowParams, shape: Shape) -> None:
        super().__init__()
        window_fits(self.name, shape, params.kernel, params.padding)
        self.kernel, self.stride, self.padding = params.kernel, params.pixels_of_stride, params.padding
        self.ceil = params.ceil

    @classmethod
    def effective(cls, params: Any, *shapes: Shape) -> dict[str, Any]:
        stride = params.pixels_of_stride
        answer = {**params.model_dump(mode="json", exclude={"ceil"}), "stride": stride}
        hangs_over = any((size + 2 * params.padding - params.kernel) % stride for size in shapes[0][1:])
        return {**answer, "ceil": True} if params.ceil and hangs_over else answer

    @classmethod
    def is_identity(cls, params: Any, *shapes: Shape) -> bool:
        return bool(params.kernel == 1 and params.pixels_of_stride == 1)

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, stride={self.stride}, padding={self.padding}"


class MaxPool(WindowPool, name="max_pool"):
    """Maximum over windows."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel, self.stride, self.padding, ceil_mode=self.ceil)


class AvgPool(WindowPool, name="avg_pool"):
    """Mean over windows; zeros of the padding count."""

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, self.kernel, self.stride, self.padding, self.ceil)
