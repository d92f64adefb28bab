"""Non-local block, over the pixels of an image: Wang, Girshick, Gupta and He, 2018 (arXiv:1711.07971).

    y_i = 1/C(x) Σ_j f(x_i, x_j) g(x_j)        g = W_g x: 1 × 1, C -> C/2        eq. 1
    z_i = BN(W_z y_i)                          W_z: 1 × 1, C/2 -> C              eq. 6, without its + x_i

    form                 f(x_i, x_j)                           C(x)
    gaussian             exp(x_i · x_j)                        Σ_j f              eq. 2
    embedded_gaussian    exp(θ_i · φ_j),  θ, φ: 1 × 1, C -> C/2  Σ_j f              eq. 3
    dot_product          θ_i · φ_j                             the number of j    eq. 4
    concatenation        relu(w_f · [θ_i; φ_j])                the number of j    eq. 5

The paper's sum with x is the wiring's: insert it with ``residual: plain``, which is the identity before training,
since the scale γ of the batch normalisation starts at 0. ``subsample`` halves the sides of what is summed over, by a
2 × 2 maximum of φ (of x, for ``gaussian``) and g. No layer has a bias, as in the formulas (the authors' code has
them). Their code divides the logits of the two Gaussian forms by the root of their width: ``scale``.

Made for video: on Kinetics one block in ResNet-50 brings 0.7 to 1.1 points of top-1, and the forms differ by less.
On ImageNet the paper gives no number.

A Gaussian form stores nothing of N × M, and ``dot_product`` is linear: (θ φᵀ) g and θ (φᵀ g) are one number up to
rounding, and the one that takes fewer products is computed. ``concatenation`` stores its N × M comparisons.

Shapes: B images, C channels, H × W pixels, N = H·W; d channels within, M pixels summed over; h = 1 head.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.block import Block, BlockParams, Shape, Stream
from ablate.blocks._attend import attend
from ablate.blocks._shapes import image
from ablate.blocks.attention._pixels import attention_weights, picture, pixels


class NonLocal(Block, name="non_local"):
    class Params(BlockParams):
        form: Literal["gaussian", "embedded_gaussian", "dot_product", "concatenation"] = Field(
            "embedded_gaussian", description="how two pixels are compared"
        )
        subsample: bool = Field(False, description="sum over the maxima of 2 × 2 pixels, a quarter of the work")
        scale: bool = Field(False, description="divide the logits of a Gaussian form by the root of their width")

    def __init__(self, params: Params, shape: Shape) -> None:
        super().__init__()
        channels, height, width = image(self.name, shape)
        if params.subsample and min(height, width) < 2:
            raise ValueError(f"'{self.name}' can't subsample an input of {height} × {width}")
        inner = inner_width(channels)
        self.form, self.subsample = params.form, params.subsample
        self.scale = _logit_width(params, channels) ** -0.5 if params.scale else 1.0
        if self.form != "gaussian":
            self.theta = nn.Conv2d(channels, inner, 1, bias=False)
            self.phi = nn.Conv2d(channels, inner, 1, bias=False)
        if self.form == "concatenation":
            self.compare = nn.Linear(2 * inner, 1, bias=False)
        self.g = nn.Conv2d(channels, inner, 1, bias=False)
        self.out = nn.Conv2d(inner, channels, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn.weight)

    @classmethod
    def effective(cls, params: Any, *shapes: Shape) -> dict[str, Any]:
        return {**params.model_dump(mode="json"), "scale": params.scale and "gaussian" in params.form}

    @classmethod
    def notes(cls, params: Any, *shapes: Shape) -> tuple[str, ...]:
        channels = shapes[0][0]
        return () if channels % 2 == 0 else (f"half of {channels} channels → inner width {inner_width(channels)}",)

    def init(self, stream: Stream, recipe: str) -> None:
        super().init(stream, recipe)
        nn.init.zeros_(self.bn.weight)

    def attention(self, x_BCHW: Tensor) -> Tensor:
        """(B, 1, N, M): f(x_i, x_j) / C(x), how much each pixel (row) reads from each that is summed over (column)."""
        query, key = self._compared(x_BCHW)
        if self.form == "dot_product":
            return query @ key.transpose(-2, -1) / key.shape[2]
        if self.form == "concatenation":
            return self._concatenated(query, key)
        return attention_weights(query, key, self.scale)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        query, key = self._compared(x_BCHW)
        value_B1Md = pixels(self._fewer(self.g(x_BCHW)), 1)
        if self.form == "dot_product":
            y_B1Nd = multiplied(query, key, value_B1Md)
        elif self.form == "concatenation":
            y_B1Nd = self._concatenated(query, key) @ value_B1Md
        else:
            y_B1Nd = attend(query, key, value_B1Md, self.scale)
        z_BCHW: Tensor = self.bn(self.out(picture(y_B1Nd, *x_BCHW.shape[2:])))
        return z_BCHW

    def _concatenated(self, query_B1Nd: Tensor, key_B1Md: Tensor) -> Tensor:
        """(B, 1, N, M): relu(w_f · [θ_i; φ_j]) / M, as the sum of what either half of w_f makes of its own."""
        of_query, of_key = self.compare.weight.transpose(-2, -1).chunk(2)
        return F.relu(query_B1Nd @ of_query + (key_B1Md @ of_key).transpose(-2, -1)) / key_B1Md.shape[2]

    def _compared(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """What stands for x_i and for x_j in f: (B, 1, N, d) and (B, 1, M, d)."""
        if self.form == "gaussian":
            return pixels(x_BCHW, 1), pixels(self._fewer(x_BCHW), 1)
        return pixels(self.theta(x_BCHW), 1), pixels(self._fewer(self.phi(x_BCHW)), 1)

    def _fewer(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2) if self.subsample else x


def multiplied(query_B1Nd: Tensor, key_B1Md: Tensor, value_B1Md: Tensor) -> Tensor:
    """q kᵀ v / M, (B, 1, N, d), in the cheaper order: then N × M is stored only where it is the smaller matrix."""
    count, width, summed = query_B1Nd.shape[2], query_B1Nd.shape[3], key_B1Md.shape[2]
    if 2 * count * summed < (count + summed) * width:
        return query_B1Nd @ key_B1Md.mT / summed @ value_B1Md
    return query_B1Nd @ ((key_B1Md / summed).mT @ value_B1Md)


def inner_width(channels: int) -> int:
    return max(1, channels // 2)


def _logit_width(params: NonLocal.Params, channels: int) -> int:
    return channels if params.form == "gaussian" else inner_width(channels)
