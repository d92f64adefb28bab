"""Attention-augmented convolution: Bello, Zoph, Vaswani, Shlens and Le, 2019 (arXiv:1904.09925).

    y       = [conv(x); W_o [head_1; …; head_heads]]                    (C, H, W) -> (width, H', W')
    conv    : kernel × kernel, C -> width - dv                          the first channels
    q, k, v = W_q x, W_k x, W_v x                                       1 × 1, C -> dk, dk, dv
    head_i  = softmax((q_i k_iᵀ + S_i) / sqrt(dk / heads)) v_i           over the N = H'·W' pixels, W_o: dv -> dv
    S_nm    = q_n · rH[row m - row n] + q_n · rW[column m - column n]   ``position: relative``; else 0

dk and dv count the channels of all heads, or are fractions of the width, the paper's two ratios, and then rounded to a
multiple of the heads. rH and rW have a learnt vector of dk / heads numbers for each of the 2H' - 1 and 2W' - 1
offsets, shared by the heads, and normal of standard deviation (dk / heads)^-0.5 before training. With dv = width
nothing of the convolution is left. No layer has a bias, as in the formulas (the code in the paper's appendix has them).

It can stand in the place of a convolution: ``at: replace stage3.*.conv1`` takes over width and stride. With a stride,
q, k and v are read at the pixels on which the kernel is centred: a choice made here. S enters the fused attention as a
mask, and takes heads · N² numbers an image, at 32 × 32 pixels and 8 heads 32 MiB in fp32; in training on a CPU, where
no kernel gives a mask its gradient, about four times that. Without positions memory is linear in N. Of the paper's way
out, to pool before the attention and enlarge after it, there is none here.

The paper takes ResNet-50 on ImageNet from 76.4 to 77.7% top-1.

Shapes: B images, C channels, H × W pixels within (those of the output), N = H·W; h heads of d channels.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field, PositiveInt
from torch import Tensor, nn

from ablate.block import Block, BlockParams, Shape, Stream, once
from ablate.blocks._attend import attend
from ablate.blocks._shapes import image
from ablate.blocks.attention._pixels import picture, pixels


def _odd(kernel: int) -> int:
    if kernel % 2 == 0:
        raise ValueError(f"kernel {kernel} is even and has no pixel in its middle; it must be odd")
    return kernel


Fraction = Annotated[float, Field(gt=0, lt=1)]


class AttentionAugmentedConv(Block, name="attention_augmented_conv"):
    """A convolution some of whose output channels are attention's: Bello et al., 2019 (arXiv:1904.09925)."""

    class Params(BlockParams):
        width: PositiveInt = Field(description="output channels, of convolution and attention together")
        kernel: Annotated[PositiveInt, AfterValidator(_odd)] = Field(
            3, description="side of the convolution's square kernel, in pixels; odd"
        )
        stride: PositiveInt = once(1, description="step of kernel and of attention, in pixels")
        heads: PositiveInt = Field(8, description="number of heads; divides dk and dv")
        dk: PositiveInt | Fraction = Field(
            0.2, description="channels of the queries and of the keys; below 1: as a fraction of the width"
        )
        dv: PositiveInt | Fraction = Field(
            0.1, description="output channels that are attention's; below 1: as a fraction of the width"
        )
        position: Literal["relative", "none"] = Field(
            "relative", description="relative: a learnt vector per offset in rows and in columns enters the logits"
        )

        def channels(self, wanted: float) -> int:
            """``dk`` or ``dv`` in channels: a fraction comes to the nearest multiple of the heads, and no less."""
            if isinstance(wanted, int):
                return wanted
            return self.heads * max(1, round(wanted * self.width / self.heads))

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        channels, height, width = image(self.name, shape)
        dk, dv = params.channels(params.dk), params.channels(params.dv)
        _check(params, dk, dv)
        self.heads, self.scale, self.stride = params.heads, (dk / params.heads) ** -0.5, params.stride
        rest, side, stride = params.width - dv, params.kernel, params.stride
        self.conv = nn.Conv2d(channels, rest, side, stride, side // 2, bias=False) if rest else None
        self.query = nn.Conv2d(channels, dk, 1, stride, bias=False)
        self.key = nn.Conv2d(channels, dk, 1, stride, bias=False)
        self.value = nn.Conv2d(channels, dv, 1, stride, bias=False)
        self.out = nn.Conv2d(dv, dv, 1, bias=False)
        relative = params.position == "relative"
        self.row_offsets = self._offsets(_strided(height, stride), dk) if relative else None
        self.column_offsets = self._offsets(_strided(width, stride), dk) if relative else None

    def _offsets(self, length: int, dk: int) -> nn.Parameter | None:
        """One vector an offset; none along a side of one pixel, where softmax cancels the only one there is."""
        return nn.Parameter(torch.zeros(2 * length - 1, dk // self.heads)) if length > 1 else None

    @classmethod
    def effective(cls, params: Any, *shapes: Shape) -> dict[str, Any]:
        dk, dv = params.channels(params.dk), params.channels(params.dv)
        alone = {_strided(side, params.stride) for side in shapes[0][1:]} == {1}
        changed = {"dk": dk, "dv": dv, "position": "none" if alone else params.position}
        # where attention has every channel there is no convolution that could have a kernel
        return {**params.model_dump(mode="json"), **changed, "kernel": params.kernel if dv < params.width else 1}

    @classmethod
    def notes(cls, params: Any, *shapes: Shape) -> tuple[str, ...]:
        given = {"dk": params.dk, "dv": params.dv}
        exact = {name: params.channels(wanted) == wanted * params.width for name, wanted in given.items()}
        return tuple(
            f"{name} {wanted:g} of width {params.width}, {params.heads} heads → {params.channels(wanted)} channels"
            for name, wanted in given.items()
            if isinstance(wanted, float) and not exact[name]
        )

    def init(self, stream: Stream, recipe: str) -> None:
        super().init(stream, recipe)
        for name in ("row_offsets", "column_offsets"):
            offsets = getattr(self, name)
            if offsets is not None:
                nn.init.normal_(offsets, std=offsets.shape[1] ** -0.5, generator=stream(name))

    def attention(self, x_BCHW: Tensor) -> Tensor:
        """(B, h, N, N): how much each pixel (row) reads from each pixel (column), by head; of the output's pixels."""
        query, key, _ = self._projected(x_BCHW)
        logits = self.scale * query @ key.transpose(2, 3)
        relative = self.relative_logits(query, *self._size(x_BCHW))
        return torch.softmax(logits if relative is None else logits + relative, dim=-1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        query, key, value = self._projected(x_BCHW)
        height, width = self._size(x_BCHW)
        mask = self.relative_logits(query, height, width)
        y_BhNd = attend(query, key, value, self.scale, mask)
        attended: Tensor = self.out(picture(y_BhNd, height, width))
        return attended if self.conv is None else torch.cat([self.conv(x_BCHW), attended], dim=1)

    def relative_logits(self, query_BhNd: Tensor, height: int, width: int) -> Tensor | None:
        """S / sqrt(dk / heads), (B, h, N, N); ``None`` where no position counts."""
        query_BhHWd = (self.scale * query_BhNd).reshape(*query_BhNd.shape[:2], height, width, -1)
        found = []
        if self.column_offsets is not None:
            by_column_BhHWW = _by_place(query_BhHWd @ self.column_offsets.transpose(0, 1))
            found.append(by_column_BhHWW.unsqueeze(-2).expand(-1, -1, -1, -1, height, -1))
        if self.row_offsets is not None:
            by_row_BhWHH = _by_place(query_BhHWd.transpose(2, 3) @ self.row_offsets.transpose(0, 1))
            found.append(by_row_BhWHH.transpose(2, 3).unsqueeze(-1).expand(-1, -1, -1, -1, -1, width))
        # (B, h, H, W, H, W): from each pixel to each pixel
        return sum(found[1:], found[0]).flatten(4).flatten(2, 3) if found else None

    def _projected(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = (pixels(layer(x_BCHW), self.heads) for layer in (self.query, self.key, self.value))
        return query, key, value

    def _size(self, x_BCHW: Tensor) -> tuple[int, int]:
        return _strided(x_BCHW.shape[2], self.stride), _strided(x_BCHW.shape[3], self.stride)

    def extra_repr(self) -> str:
        return f"heads={self.heads}"


def _by_place(logits: Tensor) -> Tensor:
    """(…, L, 2L - 1), by offset m - n, -> (…, L, L), by place m: each row n is read from its place L - 1 - n on."""
    length = logits.shape[-2]
    # Row n holds place m at m - n + L - 1: in the flat rows that is n(2L - 2) + m + L - 1.
    flat = logits.flatten(-2)[..., length - 1 : length - 1 + length * (2 * length - 2)]
    return flat.reshape(*logits.shape[:-1], 2 * length - 2)[..., :length]


def _strided(side: int, stride: int) -> int:
    return (side - 1) // stride + 1


def _check(params: AttentionAugmentedConv.Params, dk: int, dv: int) -> None:
    for name, count in (("dk", dk), ("dv", dv)):
        if count % params.heads:
            raise ValueError(f"{params.heads} heads do not divide {name} = {count} channels")
    if dv > params.width:
        raise ValueError(f"dv = {dv} channels of attention are more than the width of {params.width}")
