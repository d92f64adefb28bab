"""Option A of residual networks' shortcuts: He, Zhang, Ren and Sun, 2016 (arXiv:1512.03385).

    y = pad(x[:, :, ::stride, ::stride])        (C, H, W) -> (width, ⌈H / stride⌉, ⌈W / stride⌉)

Takes every ``stride``-th pixel and adds channels of zeros, half before and half after (the odd one after).
No parameters. Projections (option B) were a little better on ImageNet in that paper, by 0.5 points of top-1 on
ResNet-34; its networks for CIFAR-10 use option A.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from ablate.block import Block, BlockParams, Shape, once
from ablate.blocks._shapes import image


class PadShortcut(Block, name="pad_shortcut"):
    """Shortcut without parameters (option A): every stride-th pixel, channels of zeros around."""

    class Params(BlockParams):
        width: PositiveInt = Field(description="output channels; at least those of the input")
        stride: PositiveInt = once(1, description="keep every stride-th row and column")

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        channels, _, _ = image(self.name, shape)
        added = params.width - channels
        if added < 0:
            raise ValueError(f"'{self.name}' can't narrow {channels} channels to width {params.width}")
        self.stride = params.stride
        self.before, self.after = added // 2, added - added // 2

    @classmethod
    def is_identity(cls, params: Any, *shapes: Shape) -> bool:
        return bool(params.stride == 1 and params.width == shapes[0][0])

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))

    def extra_repr(self) -> str:
        return f"stride={self.stride}, before={self.before}, after={self.after}"
