"""The contract of blocks and data sets: what keeps it passes, and each rule is broken by something."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn import functional as F

from ablate.block import Block, BlockParams, Composite, registry
from ablate.data.kind import DataInfo, DataSet, DataSetParams, RawData
from ablate.data.kind import find as find_data
from ablate.data.splits import Split
from ablate.errors import UserError
from ablate.testing import ContractError, check_block, check_dataset
from ablate.testing.block_rules import RULES
from ablate.testing.cases import BlockCase
from ablate.testing.datasets import RULES as DATA_RULES
from ablate.testing.rules import broken_of
from tests.blocks.test_block_contract import CASES, IMAGE

SHAPE = (6, 5, 3)


class Good(Block):
    """A gate by the mean: x · σ(W mean(x))."""

    name = "good"

    class Params(BlockParams):
        reduction: int = Field(2, ge=1, description="channels per hidden unit")

    def __init__(self, params: Any, shape: Any) -> None:
        super().__init__()
        if len(shape) != 3:
            raise ValueError(f"'good' reads an image (C, H, W) and was given {shape}")
        self.hidden = max(1, shape[0] // params.reduction)
        self.down = nn.Linear(shape[0], self.hidden)
        self.up = nn.Linear(self.hidden, shape[0])

    @classmethod
    def effective(cls, params: Any, *shapes: Any) -> dict[str, Any]:
        return {"hidden": max(1, shapes[0][0] // params.reduction)}

    def gate(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.up(torch.tanh(self.down(x.mean((2, 3))))))[:, :, None, None]

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class Twice(Composite):
    """Two gates of ours."""

    name = "good_twice"

    @classmethod
    def expand(cls, scope: Any, params: Any, *inputs: str) -> str:
        return scope.add("two", "se", scope.add("one", "se", inputs[0], reduction=2), reduction=2)


def broken(block: Any, **given: Any) -> str:
    with pytest.raises(ContractError) as error:
        check_block(block, **{"shapes": [SHAPE], **given})
    return str(error.value)


def test_what_keeps_its_contract_passes() -> None:
    check_block(Good, params=[{}, {"reduction": 3}, {"reduction": 6}, {"reduction": 100}], shapes=[SHAPE, (16, 8, 8)])
    check_block(Good, shapes=[SHAPE], refused=[({"reduction": 0}, SHAPE), ({}, (7,))])
    check_block(Twice, shapes=[SHAPE])


class WritesInput(Good):
    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        x.mul_(0.5) if not x.requires_grad else None
        return out


class AddsInput(Good):
    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.down(x.mean((2, 3))))[:, :, None, None] * x


class AddsToItsGate(Good):
    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class AddsBehindAnActivation(Good):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(super().forward(x) + x.clone())


class OutOfReach(Good):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.tanh(self.down(x.mean((2, 3))).detach())))[:, :, None, None]


class StopsInput(Good):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach() * self.gate(x.detach())


class SayInvariant(Good):
    invariant_parameters = frozenset({"up.bias"})


class OtherShape(Good):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else super().forward(x)[:, :, 1:]


class OtherType(Good):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).double()


class NotStarted(Good):
    def __init__(self, params: Any, shape: Any) -> None:
        super().__init__(params, shape)
        self.more = nn.Parameter(torch.randn(shape[0], 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.more


class StartsByChance(Good):
    def init(self, stream: Any, recipe: str) -> None:
        super().init(stream, recipe)
        nn.init.normal_(self.up.bias)


class StartsByItself(Good):
    def init(self, stream: Any, recipe: str) -> None:
        super().init(stream, recipe)
        self.up.bias.mul_(1 + self.up.bias.isnan())
        self.up.bias.copy_(torch.as_tensor([random.random() for _ in self.up.bias]))


class StartsByAnother(Good):
    def init(self, stream: Any, recipe: str) -> None:
        super().init(stream, recipe)
        nn.init.normal_(self.up.bias, generator=stream("elsewhere"))


class StartsTwice(Good):
    def init(self, stream: Any, recipe: str) -> None:
        super().init(stream, recipe)
        super().init(stream, recipe)


class SaysIdentity(Good):
    @classmethod
    def is_identity(cls, params: Any, *shapes: Any) -> bool:
        return True


class Nothing(Block):
    name = "nothing"

    def __init__(self, params: Any, shape: Any) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


class SaysTooLittle(Good):
    @classmethod
    def effective(cls, params: Any, *shapes: Any) -> dict[str, Any]:
        return {"hidden": 1}


class SaysWhatIsNoData(Good):
    @classmethod
    def effective(cls, params: Any, *shapes: Any) -> dict[str, Any]:
        return {"hidden": torch.ones(1)}


class NotesAList(Good):
    @classmethod
    def notes(cls, params: Any, *shapes: Any) -> Any:
        return ["reduced"]


class HiddenState(Good):
    def __init__(self, params: Any, shape: Any) -> None:
        super().__init__(params, shape)
        self.memory = [random.random()]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.memory[0]


class NoPickle(Good):
    def __init__(self, params: Any, shape: Any) -> None:
        super().__init__(params, shape)
        self.act = lambda x: x

    def forward(self, x: Tensor) -> Tensor:
        return self.act(super().forward(x))


class CountsInEvaluation(Good):
    def __init__(self, params: Any, shape: Any) -> None:
        super().__init__(params, shape)
        self.register_buffer("calls", torch.zeros(1))

    def init(self, stream: Any, recipe: str) -> None:
        super().init(stream, recipe)
        self.calls.zero_()

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1.0)
        return super().forward(x)


class DropsAlways(Good):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), 0.5, training=True)


class DropsInTraining(Good):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(super().forward(x), 0.5, self.training)


class Mixes(Good):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - x.mean(0, keepdim=True)


class MixesInTraining(Good):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) - (x.mean(0, keepdim=True) if self.training else 0.0)


class ByMemory(Good):
    def forward(self, x: Tensor) -> Tensor:
        factor = 1.0 if x.is_contiguous() else 2.0
        return super().forward(x) * factor


class OverflowsInBf16(Good):
    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x)
        wide = self.down(x.mean((2, 3)))
        return x * gate if wide.dtype != torch.bfloat16 else x * gate / 0.0


class OffInBf16(Good):
    def forward(self, x: Tensor) -> Tensor:
        low = self.down(x.mean((2, 3))).dtype == torch.bfloat16
        return x * self.gate(x) + 3.0 * low


class Uncounted(Good):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.0 * torch.fft.rfft2(x).abs().sum()


class LooksAtValues(Good):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.device.type == "meta" or x.sum() > -1e9 else x


class Unwordy(Good):
    def __init__(self, params: Any, shape: Any) -> None:
        if len(shape) != 3:
            raise ValueError("bad")
        super().__init__(params, shape)


class AssertsShapes(Good):
    def __init__(self, params: Any, shape: Any) -> None:
        assert len(shape) == 3
        super().__init__(params, shape)


class Infinite(Good):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / 0.0


class Pair(Good):
    def forward(self, x: Tensor) -> Any:
        return x, x


class LooseParams(Good):
    class Params(BaseModel):  # type: ignore[assignment]
        reduction: int = Field(2, description="channels per hidden unit")


class Coerces(Good):
    class Params(BlockParams):
        reduction: Any = Field(2, description="channels per hidden unit", json_schema_extra={"type": "integer"})


class Undescribed(Good):
    class Params(BlockParams):
        reduction: int = 2


class Unnamed(Good):
    name = ""


BROKEN = [
    (WritesInput, "in training it writes into its input"),
    (AddsInput, "adds its own input to its output"),
    (AddsToItsGate, "adds its own input to its output"),
    (AddsBehindAnActivation, "adds its own input to its output"),
    (OutOfReach, "no gradient reaches 'down.weight'"),
    (StopsInput, "no gradient reaches 'input 0'"),
    (SayInvariant, "'up.bias' is declared invariant, and has a gradient"),
    (OtherShape, "in training it gives (6, 5, 3), and (6, 4, 3) on the meta device"),
    (OtherType, "it makes torch.float64 of torch.float32"),
    (NotStarted, "'more' is not set by its start"),
    (StartsByChance, "draws from torch's own stream"),
    (StartsByItself, "two of the same seed start with other values"),
    (StartsByAnother, "asks for a stream 'elsewhere', and has no such parameter"),
    (StartsTwice, "asks twice for the stream of one parameter"),
    (SaysIdentity, "says that it returns its first input, and it does not"),
    (SaysIdentity, "is true of a block with parameters"),
    (Nothing, "it returns its first input unchanged, and is_identity() does not say so"),
    (SaysWhatIsNoData, "effective() gives what is no plain data"),
    (NotesAList, "notes() gives no tuple of texts"),
    (HiddenState, "a part of it is in no parameter or buffer"),
    (NoPickle, "pickles and copies: raises"),
    (CountsInEvaluation, "in evaluation it changes its parameters or buffers"),
    (DropsAlways, "in evaluation it draws random numbers"),
    (DropsAlways, "in evaluation two calls give two answers"),
    (DropsInTraining, "in training it draws from torch's own stream"),
    (DropsInTraining, "in training two calls with one noise_seed give two answers"),
    (Mixes, "in evaluation what it gives for an example depends on the others"),
    (MixesInTraining, "in training what it gives for an example depends on the others"),
    (ByMemory, "channels-last"),
    (OverflowsInBf16, "under bf16 autocast its output is not finite"),
    (OffInBf16, "under bf16 autocast it is off by 3"),
    (Uncounted, "is counted by no rule of FLOPs"),
    (LooksAtValues, "torch.export can't trace it"),
    (Unwordy, "it is refused without a sentence: 'bad'"),
    (AssertsShapes, "it is refused by AssertionError, and not by ValueError"),
    (Infinite, "in training its output is not finite"),
    (Pair, "it gives no tensor with the batch axis first"),
    (LooseParams, "Params does not refuse an unknown parameter"),
    (Coerces, "Params does not refuse reduction=3.7"),
    (Undescribed, "parameter 'reduction' has no description"),
    (Unnamed, "it has no name"),
]


@pytest.mark.parametrize(("block", "said"), BROKEN, ids=[f"{each.__name__}-{n}" for n, (each, _) in enumerate(BROKEN)])
def test_each_rule_is_broken_by_something_and_says_so(block: type[Block], said: str) -> None:
    assert said in broken(block)


def test_every_rule_has_something_that_breaks_it() -> None:
    """By which of them complain: a rule that no block above breaks could not fail."""
    silent = {rule.__name__ for rule in RULES}
    for block in {block for block, _ in BROKEN if block not in (LooseParams, Infinite, Pair)}:
        case = BlockCase(block, {}, (SHAPE,))
        silent -= {rule.__name__ for rule in RULES if rule.__name__ in silent and [*broken_of([rule], case)]}
    assert not silent


def test_parameters_that_are_said_to_come_to_the_same_must() -> None:
    said = broken(SaysTooLittle, params=[{"reduction": 2}, {"reduction": 3}])
    assert "effective() is the same for (reduction=2) on (6, 5, 3) and (reduction=3) on (6, 5, 3)" in said


def test_what_is_to_be_refused_must_be() -> None:
    assert "(reduction=3) on (6, 5, 3): it is not refused" in broken(Good, refused=[({"reduction": 3}, SHAPE)])


class BadComposite(Composite):
    """Batch norm's own statistics are no mixing, dropout from torch's stream is."""

    name = "bad_composite"

    class Params(BlockParams):
        kind: str = Field("add", description="which mistake")

    @classmethod
    def expand(cls, scope: Any, params: Any, *inputs: str) -> str:
        if params.kind == "shape":
            return scope.add("fc", "linear", inputs[0], width=3)
        lost = scope.add("lost", "conv", inputs[0], width=6, kernel=1)
        zero = scope.add("none", "scale", lost, factor=0.0)
        return scope.add("sum", "add", zero, scope.add("act", "act", inputs[0]))


def test_composites_are_held_to_what_they_come_to() -> None:
    assert "it can't be built or run: GraphError" in broken(BadComposite, params=[{"kind": "shape"}])
    assert "no gradient reaches 'body.lost.weight'" in broken(BadComposite, params=[{}])


LEAVES = [name for name, block in registry().items() if issubclass(block, Block) and block.__module__.startswith("abl")]


@pytest.mark.parametrize("name", LEAVES)
def test_our_own_blocks_keep_it(name: str) -> None:
    block = registry()[name]
    params, shapes = CASES.get(name, [({}, (IMAGE,) * len(block.ports))])[0]
    check_block(block, params=[params], shapes=[shapes])


COMPOSITES = ["basic", "bottleneck", "conv_bn_act", "convnext", "mbconv", "pre_activation", "transition"]


@pytest.mark.parametrize("name", COMPOSITES)
def test_our_own_composites_keep_it(name: str) -> None:
    block = registry()[name]
    check_block(block, params=[{"width": 8} if "width" in block.Params.model_fields else {}], shapes=[(8, 7, 5)])


# ---- data sets ----


class GoodParams(DataSetParams):
    count: int = Field(20, description="examples of train")


class GoodData(DataSet):
    """Made of numbers."""

    name = "good_data"
    Params = GoodParams

    @classmethod
    def info(cls, params: Any, root: Path | None) -> DataInfo:
        return DataInfo((3, 5, 7), 4)

    @classmethod
    def load(cls, params: Any, root: Path | None, download: bool) -> RawData:
        def split(count: int) -> Split:
            labels = np.arange(count, dtype=np.int64) % 4
            return Split(
                np.full((count, 3, 5, 7), 9, dtype=np.uint8) + labels.astype(np.uint8)[:, None, None, None], labels
            )

        return RawData(split(params.count), split(6), ("a", "b", "c", "d"), "made of numbers")


def changed(**by: Any) -> type[DataSet]:
    """The good data set with what is loaded changed."""

    class Changed(GoodData):
        @classmethod
        def load(cls, params: Any, root: Path | None, download: bool) -> RawData:
            raw = super().load(params, root, download)
            return replace(raw, **{key: value(raw) for key, value in by.items()})

    return Changed


def data_with(**attributes: Any) -> type[DataSet]:
    return type("With", (GoodData,), attributes)


class Rooted(GoodData):
    folder = "required"

    @classmethod
    def info(cls, params: Any, root: Path | None) -> DataInfo:
        if root is None or not root.is_dir():
            raise UserError(f"{root} is no folder")
        return super().info(params, root)


class NoCopy(Split):
    def batch(self, rows: Any) -> Any:
        return self.images[rows.min() : rows.max() + 1] if len(rows) == len(self.images) else self.images


class Unchecked(Split):
    def __post_init__(self) -> None: ...


class Lossy(Split):
    def __reduce__(self) -> Any:
        return Split, (self.images * 0, self.labels)


BROKEN_DATA = [
    (changed(class_names=lambda raw: ("a", "b", "c")), "info says 4 classes, and 3 names are loaded"),
    (changed(class_names=lambda raw: ("a", "b", "c", "a")), "names are not distinct"),
    (data_with(info=classmethod(lambda cls, params, root: DataInfo((3, 5, 5), 4))), "info says images of (3, 5, 5)"),
    (changed(val=lambda raw: raw.test), "whether there is a validation split"),
    (changed(val=lambda raw: raw.test), "brings_val is not set"),
    (changed(source=lambda raw: " "), "source says nothing"),
    (changed(train=lambda raw: Unchecked(raw.train.images, raw.train.labels.astype(np.int32))), "labels are int32"),
    (changed(train=lambda raw: Split(raw.train.images, raw.train.labels + 1)), "labels are not all in 0 … 3"),
    (changed(train=lambda raw: Split(raw.train.images, raw.train.labels * 0)), "train has no example of class 1"),
    (changed(train=lambda raw: Unchecked(raw.train.images.astype(np.int16), raw.train.labels)), "and not uint8"),
    (changed(train=lambda raw: Split(raw.train.images + np.uint8(random.randrange(99)), raw.train.labels)), "another"),
    (changed(train=lambda raw: (np.random.rand(), raw.train)[1]), "draws from torch's or numpy's global stream"),
    (changed(class_names=lambda raw: tuple(f"{random.random()}" for _ in range(4))), "other names when it is loaded"),
    (changed(train=lambda raw: Lossy(raw.train.images, raw.train.labels)), "a pickle of it holds something else"),
    (changed(train=lambda raw: NoCopy(raw.train.images, raw.train.labels)), "gives no copy"),
    (changed(train=lambda raw: Split(raw.train.images[:0], raw.train.labels[:0])), "train has no examples"),
    (data_with(folder="required", load=classmethod(lambda cls, p, root, d: 1 / 0)), "raises ZeroDivisionError"),
    (data_with(Params=type("P", (BaseModel,), {"__annotations__": {}})), "does not refuse an unknown parameter"),
    (data_with(without_effect=frozenset({"speed"})), "names 'speed', which is no parameter"),
    (data_with(name=""), "it has no name"),
]


def test_data_sets_that_keep_it_pass(tmp_path: Path) -> None:
    check_dataset(GoodData, params=[{}, {"count": 4}])
    check_dataset(Rooted, root=tmp_path)
    check_dataset(find_data("fake"), params=[{"shape": [3, 7, 5], "classes": 3, "count": {"train": 20, "test": 10}}])
    check_dataset(find_data("mnist5k"))


@pytest.mark.parametrize(("kind", "said"), BROKEN_DATA, ids=range(len(BROKEN_DATA)))
def test_each_rule_of_data_sets_is_broken_by_something(kind: type[DataSet], said: str) -> None:
    with pytest.raises(ContractError) as error:
        check_dataset(kind)
    assert said in str(error.value)


def test_a_folder_that_is_not_there_must_be_said(tmp_path: Path) -> None:
    class Traceback(Rooted):
        @classmethod
        def info(cls, params: Any, root: Path | None) -> DataInfo:
            assert root is not None
            list(root.iterdir())
            return GoodData.info(params, root)

    with pytest.raises(ContractError, match="a folder that is not there raises FileNotFoundError, and not UserError"):
        check_dataset(Traceback, root=tmp_path)
    assert len(DATA_RULES) == 5
