"""Two-dimensional convolution.

y = W * x (+ b)        (C, H, W) -> (width, H', W'),  H' = (H + 2 padding - dilation (kernel - 1) - 1) // stride + 1
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator
from torch import nn

from ablate.block import Block, BlockParams, Shape, once
from ablate.blocks._shapes import image, window_fits


class Conv(Block, nn.Conv2d, name="conv"):
    """Two-dimensional convolution, without bias unless asked for."""

    class Params(BlockParams):
        width: PositiveInt = Field(description="output channels")
        kernel: PositiveInt = Field(3, description="side of the square kernel, in pixels")
        stride: PositiveInt = once(1, description="step of the kernel, in pixels")
        padding: NonNegativeInt | Literal["same"] = Field(
            "same",
            description="zeros added on each side, in pixels; 'same' (odd kernels) keeps H and W at stride 1",
        )
        groups: PositiveInt = Field(1, description="groups of channels that do not see each other; C: depthwise")
        dilation: PositiveInt = Field(1, description="distance between the taps of the kernel, in pixels")
        bias: bool = Field(False, description="add a learnable constant to each output channel")

        @model_validator(mode="after")
        def same_needs_an_odd_kernel(self) -> Self:
            if self.padding == "same" and self.kernel % 2 == 0:
                raise ValueError(f"kernel {self.kernel} is even and has no padding 'same'; give padding as a number")
            return self

        @property
        def pixels_of_padding(self) -> int:
            return self.dilation * (self.kernel // 2) if self.padding == "same" else self.padding

    def __init__(self, params: Params, shape: Shape) -> None:
        channels, _, _ = image(self.name, shape)
        if channels % params.groups or params.width % params.groups:
            raise ValueError(f"{params.groups} groups do not divide both {channels} channels and width {params.width}")
        padding = params.pixels_of_padding
        window_fits(self.name, shape, params.kernel, padding, params.dilation)
        super().__init__(
            channels,
            params.width,
            params.kernel,
            stride=params.stride,
            padding=padding,
            dilation=params.dilation,
            groups=params.groups,
            bias=params.bias,
        )

    @classmethod
    def effective(cls, params: Any, *shapes: Shape) -> dict[str, Any]:
        # a 1 × 1 kernel has one tap, so that its dilation says nothing
        dilation = params.dilation if params.kernel > 1 else 1
        return {**params.model_dump(mode="json"), "padding": params.pixels_of_padding, "dilation": dilation}
