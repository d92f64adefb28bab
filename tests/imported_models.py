"""Models that networks are imported from, and what the tests of imports share."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ablate.block import find
from ablate.graph import Graph
from ablate.importing.graph import Import, import_graph
from ablate.importing.origin import Origin
from ablate.insert import At, Insertion, Residual, insert

MODELS = __name__
SIDE = 37


def imported(name: str, side: int = SIDE, classes: int = 7, **arguments: Any) -> tuple[Graph, Import]:
    origin = Origin.of(f"torchvision.models:{name}", {"num_classes": classes, **arguments})
    return import_graph(origin, (3, side, side), classes)


def images(side: int = SIDE, count: int = 3) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(11))


def place(graph: Graph, block: str, at: str, residual: str = "none", **params: Any) -> Graph:
    kind = find(block)
    joined = Residual(residual)  # type: ignore[arg-type]
    return insert(graph, [Insertion("new", kind, kind.Params(**params), (At.parse(at),), joined)])


DENSE = {"growth_rate": 5, "block_config": [2, 3], "num_init_features": 7, "num_classes": 7, "drop_rate": 0.3}
SWIN = {
    "patch_size": [4, 4],
    "embed_dim": 12,
    "depths": [2, 1],
    "num_heads": [2, 3],
    "window_size": [3, 3],
    "dropout": 0.2,
    "attention_dropout": 0.1,
    "stochastic_depth_prob": 0.3,
    "num_classes": 7,
}
VIT = {
    "image_size": 32,
    "patch_size": 8,
    "num_layers": 2,
    "num_heads": 3,
    "hidden_dim": 15,
    "mlp_dim": 11,
    "dropout": 0.2,
    "attention_dropout": 0.1,
    "num_classes": 7,
}


class Tiny(nn.Module):
    """A convolution, then what a subclass does, then a classifier."""

    def __init__(self, num_classes: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)
        self.fc = nn.Linear(5, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.middle(self.norm(self.conv(x))).mean((2, 3)))

    def middle(self, x: Tensor) -> Tensor:
        return x


class ReadAfterWrite(Tiny):
    def middle(self, x: Tensor) -> Tensor:
        y = x.relu_()
        return y + x  # x is what the ReLU left


class AddedInPlace(Tiny):
    def middle(self, x: Tensor) -> Tensor:
        y = x * 3
        y += x
        return F.relu(y, True) * y


class FunctionalDropout(Tiny):
    def middle(self, x: Tensor) -> Tensor:
        return F.dropout2d(F.dropout(x, 0.3, self.training), p=0.2, training=self.training)


class DropsInTrainingOnly(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            x = F.dropout(x, 0.5)
        return x


class BranchOnMode(Tiny):
    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.inner = nn.Sequential(nn.Conv2d(5, 5, 1), DropsInTrainingOnly())

    def middle(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((5, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 1e6:
            return x
        return x * self.weight


class Untraceable(Tiny):
    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.gate = Gate()

    def middle(self, x: Tensor) -> Tensor:
        return self.gate(x)


class Constant(Tiny):
    def middle(self, x: Tensor) -> Tensor:
        return x * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])[:, None, None]


class SharedLayer(Tiny):
    def middle(self, x: Tensor) -> Tensor:
        return self.norm(self.norm(x))


class Halves(Tiny):
    def middle(self, x: Tensor) -> Tensor:
        a, b = torch.split(x, [2, 3], dim=1)
        batch, _, height, width = x.shape
        return (
            torch.cat([b, a], 1)
            .view(batch, 5, height * width)
            .transpose(1, 2)
            .reshape(batch, -1, 5, 1)
            .mean(1, keepdim=True)
            .permute(0, 2, 1, 3)
        )


class AssignsAPart(Tiny):
    def middle(self, x: Tensor) -> Tensor:
        x[:, 0] = 0
        return x


class Decides(Tiny):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class TwoOutputs(Tiny):
    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        return y, y


class OtherHeadInTraining(Tiny):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * 2 if self.training else y


class Tied(Tiny):
    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.one, self.two = nn.Conv2d(5, 5, 1), nn.Conv2d(5, 5, 1)
        self.two.weight = self.one.weight

    def middle(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


class ReadTwice(Tiny):
    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.scale = nn.Parameter(torch.full((5, 1, 1), 0.5))

    def middle(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x * self.scale) * self.scale


class WritesIntoAView(Tiny):
    def middle(self, x: Tensor) -> Tensor:
        x.flatten(1).clamp_(max=0.1)
        return x


class WritesInsideALeaf(Tiny):
    """The original changes what it reads later; the module says nothing of it."""

    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.act = SilentlyInPlace()

    def middle(self, x: Tensor) -> Tensor:
        y = self.act(x)
        return y + x


class SilentlyInPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(x)


class OtherNumberInTraining(Tiny):
    def middle(self, x: Tensor) -> Tensor:
        return x.clamp(-0.1, None if self.training else 0.1)


class OtherConstantInTraining(Tiny):
    def middle(self, x: Tensor) -> Tensor:
        return x * torch.tensor(0.5 if self.training else 1.0)


class CountsItsCalls(Tiny):
    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.calls = 0

    def middle(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x if self.calls < 50 else x * 0


class NormalisesItsImages(Tiny):
    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]))
        self.register_buffer("random", torch.rand(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - self.mean.view(1, -1, 1, 1)) * (2 * self.random))


class NormWithAForward(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(super().forward(x))


class HasANormOfItsOwn(Tiny):
    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.norm = NormWithAForward(5)


class TakesAMask(Tiny):
    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 2.0) -> Tensor:
        y = super().forward(x) * scale
        return y if mask is None else y * mask


class SharedNoise(Tiny):
    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.drop = nn.Sequential(nn.Dropout(0.5))

    def middle(self, x: Tensor) -> Tensor:
        return self.drop(x) * self.drop(x)


class WritesAsAStatement(Tiny):
    def __init__(self, num_classes: int = 7) -> None:
        super().__init__(num_classes)
        self.inner = ConvThenRelu()

    def middle(self, x: Tensor) -> Tensor:
        return self.inner(x)


class ConvThenRelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(5, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.c(x)
        F.relu(y, inplace=True)
        return y


def own(model: type[nn.Module]) -> tuple[Graph, Import]:
    return import_graph(Origin.of(f"{MODELS}:{model.__name__}", {"num_classes": 7}), (3, 11, 13), 7)


def own_images() -> Tensor:
    return torch.randn(4, 3, 11, 13, generator=torch.Generator().manual_seed(2))


def section(network: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {
        "name": "imported",
        "network": network,
        "data": {"name": "fake", "shape": [3, 32, 32], "classes": 7, "count": {"train": 16, "test": 8}},
        "train": {"epochs": 1, "batch_size": 8, "optimizer": {"name": "sgd", "lr": 0.01}},
        **others,
    }
