"""Gather-excite: Hu, Shen, Albanie, Sun and Vedaldi, 2018 (arXiv:1810.12348).

    g = gather(x)                      (B, C, H, W) -> (B, C, ⌈H / extent⌉, ⌈W / extent⌉); ``global``: (B, C, 1, 1)
    y = σ(nearest_HW(excite(g))) ⊙ x

    form           gather                                                   excite
    theta_minus    mean over (2 extent - 1)², every extent pixels           g                          GE-θ⁻
    theta          log₂ extent depthwise convolutions 3 × 3 of stride 2     g                          GE-θ
    theta_plus     the same                                                 W₂ relu(W₁ g + b₁) + b₂    GE-θ⁺

Each depthwise convolution has batch normalisation after it and no bias, with a ReLU between one and the next;
``global`` is a single one with a kernel of H × W. GE-θ⁺ has a ReLU before its W₁ too, as in the authors' models
(timm has none there). The mean is over what of its window lies within the image, and ``global`` where the extent
covers all of it. GE-θ⁻ with global extent is squeeze-and-excitation without its layers. At hidden width 0 the gate
of GE-θ⁺ is 1/2.

The paper's gains for ResNet-50 on ImageNet grow with the extent and from θ⁻ to θ⁺; θ⁻ gains with no parameters.
A global θ has a weight per pixel and channel: it takes images of one size only, and 5.5 million in ResNet-50. Its
norm sees one value per channel of an example: training refuses a batch of 1, which has no variance.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.block import Shape
from ablate.blocks._shapes import image
from ablate.blocks.attention._reduction import ReducedBlock, ReductionParams


class GatherExciteParams(ReductionParams):
    form: Literal["theta_minus", "theta", "theta_plus"] = Field(
        "theta_plus", description="GE-θ⁻: no parameters; GE-θ: learnt gathering; GE-θ⁺: and a learnt excitation"
    )
    extent: Annotated[int, Field(ge=2, le=4096)] | Literal["global"] = Field(
        "global", description="pixels per gathered value, in H and in W; a power of two but for theta_minus"
    )

    @model_validator(mode="after")
    def strides_of_two_reach_the_extent(self) -> Self:
        if self.form != "theta_minus" and self.extent != "global" and self.extent.bit_count() != 1:
            raise ValueError(f"extent {self.extent} is no power of two, and '{self.form}' gathers by strides of 2")
        return self

    def reach(self, shape: Shape) -> int | Literal["global"]:
        """The extent; ``global`` where the windows of theta_minus are larger than the image."""
        covers = self.form == "theta_minus" and self.extent != "global" and self.extent >= max(shape[1:])
        return "global" if covers else self.extent


class GatherExcite(ReducedBlock, name="gather_excite"):
    Params = GatherExciteParams

    def __init__(self, params: GatherExciteParams, shape: Shape) -> None:
        super().__init__()
        channels, height, width = image(self.name, shape)
        self.extent, self.form = params.reach(shape), params.form
        self.hidden = params.hidden(channels)
        if self.form != "theta_minus" and not self.is_constant:
            self.gather = gathering(channels, (height, width), self.extent, last_act=self.form == "theta_plus")
        if self.form == "theta_plus" and not self.is_constant:
            self.fc1 = nn.Conv2d(channels, self.hidden, 1)
            self.fc2 = nn.Conv2d(self.hidden, channels, 1)

    @property
    def is_constant(self) -> bool:
        return self.form == "theta_plus" and self.hidden == 0

    @classmethod
    def effective(cls, params: Any, *shapes: Shape) -> dict[str, Any]:
        answer = {**super().effective(params, *shapes), "extent": params.reach(shapes[0])}
        if params.form != "theta_plus":
            del answer["hidden"]
        return answer if answer.get("hidden") != 0 else {"form": params.form, "hidden": 0}

    @classmethod
    def notes(cls, params: Any, *shapes: Shape) -> tuple[str, ...]:
        notes = super().notes(params, *shapes) if params.form == "theta_plus" else ()
        _, height, width = shapes[0]
        if params.extent != "global" and params.extent > max(height, width):
            notes += (f"extent {params.extent} on {height} × {width} pixels → all of them",)
        return notes

    def gathered(self, x: Tensor) -> Tensor:
        if self.form != "theta_minus":
            answer: Tensor = self.gather(x)
            return answer
        if self.extent == "global":
            return x.mean((2, 3), keepdim=True)
        window, padding = 2 * self.extent - 1, self.extent - 1
        return F.avg_pool2d(x, window, self.extent, padding, count_include_pad=False)

    def gate(self, x: Tensor) -> Tensor:
        if self.is_constant:
            return x.new_full((x.shape[0], x.shape[1], 1, 1), 0.5)
        gathered = self.gathered(x)
        if self.form == "theta_plus":
            gathered = self.fc2(F.relu(self.fc1(gathered)))
        if self.extent != "global":
            gathered = F.interpolate(gathered, size=x.shape[2:])
        return torch.sigmoid(gathered)

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x) * x


def gathering(
    channels: int, size: tuple[int, int], extent: int | Literal["global"], *, last_act: bool
) -> nn.Sequential:
    """conv1, bn1, act1, conv2, …: depthwise; the last has an activation where ``last_act`` says so."""
    count = 1 if extent == "global" else extent.bit_length() - 1
    layers = nn.Sequential()
    for index in range(1, count + 1):
        window: dict[str, Any] = {"kernel_size": size} if extent == "global" else THREE_BY_THREE
        layers.add_module(f"conv{index}", nn.Conv2d(channels, channels, groups=channels, bias=False, **window))
        layers.add_module(f"bn{index}", nn.BatchNorm2d(channels))
        if index < count or last_act:
            layers.add_module(f"act{index}", nn.ReLU())
    return layers


THREE_BY_THREE = {"kernel_size": 3, "stride": 2, "padding": 1}
