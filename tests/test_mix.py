"""Mixing: torchvision's formulas, streams of its own, and labels that say what is in an image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from torchvision.transforms import v2

from ablate.augmentations.horizontal_flip import HorizontalFlip
from ablate.data.batches import Batches
from ablate.data.dataset import ImageData, Split
from ablate.data.mix import Cutmix, Mix, Mixing, Mixup, MixupOrCutmix, cutmix, mixup

CLASSES = 5
ALL: list[Mixing] = [
    Mixup(name="mixup"),
    Cutmix(name="cutmix"),
    MixupOrCutmix(name="mixup_or_cutmix"),
]


def batch(count: int = 7, height: int = 11, width: int = 13) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(3))
    return x.contiguous(memory_format=torch.channels_last), torch.arange(count) % CLASSES


def soft(y: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(y, CLASSES).float()


def image_data(count: int = 53) -> ImageData:
    noise = np.random.default_rng(5).integers(0, 256, (count, 3, 7, 11), dtype=np.uint8)
    split = Split(noise, np.arange(count, dtype=np.int64) % CLASSES)
    return ImageData(split, None, None, CLASSES, ("a",) * CLASSES, (0.4,) * 3, (0.3,) * 3, "", "")


def batches(mix: Mixing | None, batch_size: int = 8, seed: int = 0) -> Batches:
    data = image_data()
    return Batches(data.train, data, [HorizontalFlip()], batch_size, seed, mix=mix)


@given(share=st.floats(0, 1))
@settings(max_examples=20)
def test_mixup_is_torchvisions(share: float) -> None:
    x, y = batch()
    published = v2.MixUp(num_classes=CLASSES)
    ours_x, ours_y = mixup(x, soft(y), share)
    torch.testing.assert_close(ours_x, published.transform(x, {"labels": y, "batch_size": 7, "lam": share}))
    torch.testing.assert_close(ours_y, published._mixup_label(y, lam=share))


@given(share=st.floats(0, 1), across=st.integers(0, 12), down=st.integers(0, 10))
@settings(max_examples=60)
def test_cutmix_is_torchvisions(share: float, across: int, down: int) -> None:
    x, y = batch()
    params = published_box(share, across, down)
    published = v2.CutMix(num_classes=CLASSES)
    ours_x, ours_y = cutmix(x, soft(y), share, (across + 0.5) / 13, (down + 0.5) / 11)
    assert torch.equal(ours_x, published.transform(x, {"labels": y, "batch_size": 7, **params}))
    torch.testing.assert_close(ours_y, published._mixup_label(y, lam=params["lam_adjusted"]))


def published_box(share: float, across: int, down: int) -> dict[str, Any]:
    """``v2.CutMix.make_params`` with its draws given."""
    drawn = [torch.tensor([across]), torch.tensor([down])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randint", lambda *a, **k: drawn.pop(0))
        transform = v2.CutMix(num_classes=CLASSES)
        transform._dist = type("Given", (), {"sample": lambda self, shape: torch.tensor(share, dtype=torch.float64)})()
        return dict(transform.make_params([torch.zeros(7, 3, 11, 13)]))


@pytest.mark.parametrize("mix", ALL)
def test_labels_are_shares_of_the_classes_and_images_keep_shape_type_and_layout(mix: Mixing) -> None:
    x, y = batch()
    mixed, labels = mix(x, y, CLASSES, "test")
    assert (mixed.shape, mixed.dtype) == (x.shape, torch.float32)
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert (labels.shape, labels.dtype) == ((7, CLASSES), torch.float32)
    torch.testing.assert_close(labels.sum(1), torch.ones(7))
    assert not torch.equal(mixed, x)


def test_the_share_is_that_of_the_beta_distribution() -> None:
    # Beta(α, α) has mean ½ and variance 1 / (4 (2α + 1))
    x, y = torch.zeros(2, 1, 1, 1), torch.tensor([0, 1])
    mix = Mixup(name="mixup", alpha=0.7)
    shares = [float(mix(x, y, 2, "test", i)[1][0, 0]) for i in range(3001)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.03)
    assert np.var(shares) == pytest.approx(1 / (4 * 2.4), rel=0.05)


def test_the_share_of_mixed_batches_and_of_cutmix_is_as_asked_for() -> None:
    x, y = batch()
    rare = Mixup(name="mixup", p=0.2)
    mixed = [not torch.equal(rare(x, y, CLASSES, "test", i)[0], x) for i in range(1009)]
    assert np.mean(mixed) == pytest.approx(0.2, abs=0.05)
    either = MixupOrCutmix(name="mixup_or_cutmix", cutmix_p=0.7, mixup_alpha=100.0)
    # of cutmix, unlike of mixup, many pixels stay as they were
    cut = [bool((either(x, y, CLASSES, "test", i)[0] == x).float().mean() > 0.01) for i in range(1009)]
    assert np.mean(cut) == pytest.approx(0.7, abs=0.06)


def test_a_batch_that_is_not_mixed_has_soft_labels_all_the_same() -> None:
    x, y = batch()
    same, labels = Mixup(name="mixup", p=0.0)(x, y, CLASSES, "test")
    assert torch.equal(same, x)
    assert torch.equal(labels, soft(y))


@pytest.mark.parametrize("mix", ALL)
def test_mixing_leaves_order_and_augmentation_as_they_were(mix: Mixing) -> None:
    never = mix.model_copy(update={"p": 0.0})
    for (x, y), (plain_x, plain_y) in zip(batches(never).epoch(2), batches(None).epoch(2), strict=True):
        assert torch.equal(x, plain_x)
        assert torch.equal(y, soft(plain_y))


@pytest.mark.parametrize("mix", ALL)
def test_every_batch_epoch_and_seed_draws_its_own_and_again_the_same(mix: Mixing) -> None:
    def labels(seed: int, epoch: int) -> list[torch.Tensor]:
        return [y for _, y in batches(mix, seed=seed).epoch(epoch)]

    first = labels(0, 1)
    assert all(torch.equal(one, other) for one, other in zip(first, labels(0, 1), strict=True))
    assert not torch.equal(first[0].sort()[0], labels(0, 2)[0].sort()[0])
    assert not torch.equal(first[0].sort()[0], labels(1, 1)[0].sort()[0])
    shares = {round(float(y.sort()[0].sum(0)[-1]), 6) for y in first}
    assert len(shares) > 1


def test_the_grammar_knows_them_by_name() -> None:
    adapter: TypeAdapter[Mixing] = TypeAdapter(Mix)
    assert adapter.validate_python({"name": "mixup"}) == Mixup(name="mixup", alpha=0.2)
    assert adapter.validate_python({"name": "cutmix", "alpha": 0.5}) == Cutmix(name="cutmix", alpha=0.5)
    for wrong in ({"name": "mixup", "alpha": 0.0}, {"name": "mixup", "alpha": math.inf}, {"name": "cutmix", "p": 1.1}):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)
