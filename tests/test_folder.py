"""The stream of a folder's images: the same whoever decodes them, and whether they are decoded or kept."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from ablate.augmentations.horizontal_flip import HorizontalFlip
from ablate.augmentations.random_resized_crop import RandomResizedCrop
from ablate.data import folder as folders
from ablate.data import pixelcache
from ablate.data.batches import Batches, evaluation_batches
from ablate.data.dataset import DataSpec, ImageData, load
from ablate.data.folder import FolderSplit
from ablate.streams import generator

COUNT = 11
CROP = RandomResizedCrop()


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where decoded pixels are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(pixelcache, "LEFT_FREE", 0.0)  # where these tests run the disk may be nearly full
    return tmp_path / "cache" / "ablate" / "pixels"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """22 train images in two classes, each of another size, tall and wide."""
    for label, name in enumerate(("ant", "bee")):
        for i in range(COUNT):
            write(tmp_path / "set" / "train" / name / f"{i:02}.JPEG", 19 + 3 * i, 53 - 2 * i, 100 * label + i)
    return tmp_path / "set"


def write(path: Path, height: int, width: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=95)


def loaded(root: Path, /, **fields: Any) -> ImageData:
    settings = {"size": 17, "test_folder": "none", "normalize": "none", "workers": 0, **fields}
    return load(DataSpec.model_validate({"name": "image_folder", "root": "set", **settings}), base=root.parent)


def training(data: ImageData, epoch: int = 0) -> list[torch.Tensor]:
    return [x for x, _ in Batches(data.train, data, [CROP, HorizontalFlip()], 5, 3).epoch(epoch)]


def evaluation(data: ImageData) -> list[torch.Tensor]:
    return [x for x, _ in evaluation_batches(data.train, data, 7)]


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, one, other)) and len(one) == len(other)


def pixels(x: torch.Tensor) -> torch.Tensor:
    return (x * 255).round().to(torch.uint8)


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read from now on, in this process."""
    names: list[str] = []
    plain: Callable[..., Any] = folders.read_stamped
    monkeypatch.setattr(folders, "read_stamped", lambda folder, name: names.append(name) or plain(folder, name))
    return names


# ---- whoever decodes ----


@pytest.mark.parametrize("cache", ["none", "3MiB"])
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_and_kept_pixels_change_no_batch(
    root: Path, monkeypatch: pytest.MonkeyPatch, workers: int, cache: str
) -> None:
    monkeypatch.setattr(folders, "rows_a_task", lambda workers, image_bytes: 2)  # a batch is several workers' work
    plain, other = loaded(root, cache="none"), loaded(root, cache=cache, workers=workers)
    for epoch in (0, 1, 0):
        assert equal(training(plain, epoch), training(other, epoch))
        assert equal(evaluation(plain), evaluation(other))
    assert not equal(training(plain, 0), training(plain, 1))


def test_an_epoch_that_is_left_and_begun_again_is_the_same(root: Path) -> None:
    plain, other = loaded(root, cache="none"), loaded(root, workers=2)
    batches = Batches(other.train, other, [CROP, HorizontalFlip()], 5, 3)
    begun = batches.epoch(4)
    first = [next(begun)[0], next(begun)[0]]
    begun.close()
    again = [x for x, _ in batches.epoch(4)]
    assert equal(again, training(plain, 4))
    assert equal(first, again[:2])


def test_two_epochs_under_way_at_once_do_not_mix(root: Path) -> None:
    plain, data = loaded(root, cache="none"), loaded(root, workers=1)
    batches = Batches(data.train, data, [CROP, HorizontalFlip()], 5, 3)
    list(batches.epoch(0))  # its process waits now, and only one of the two can have it
    pairs = list(zip(batches.epoch(1), batches.epoch(2), strict=True))
    assert equal([x for (x, _), _ in pairs], training(plain, 1))
    assert equal([x for _, (x, _) in pairs], training(plain, 2))


def test_a_trials_processes_stay_for_its_next_epoch_and_others_do_not(root: Path) -> None:
    data = loaded(root, workers=1)
    assert isinstance(data.train, FolderSplit)

    def processes() -> set[int | None]:
        return {child.pid for child in multiprocessing.active_children()}

    before = processes()
    list(data.train.stream([np.arange(5)]))  # what reads once: the statistics of normalize
    assert processes() == before
    training(data)
    first = processes() - before
    evaluation(data)
    training(data)
    assert processes() - before == first
    assert len(first) == 1
    del data
    assert processes() == before


# ---- whether decoded or kept ----


def test_the_second_epoch_decodes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = loaded(root, val=0.3)
    assert data.val is not None
    for split in (data.train, data.val):
        rows = [np.arange(len(split))]
        before = next(split.stream(rows))
        names = reads(monkeypatch)
        assert np.array_equal(next(split.stream(rows)), before)
        assert names == []
    names = reads(monkeypatch)
    first = training(data)
    assert len(names) == len(data.train)
    again = training(data)
    assert len(names) == len(data.train)
    assert equal(first, again)
    whole = loaded(root)  # another study, and the same files
    evaluation(whole)
    assert len(names) == len(data.train)


def test_no_more_is_kept_than_fits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = loaded(
        root, cache="1MiB", size=[128, 124]
    )  # centres: 22 × 46.5 KiB are 1,023 KiB; one pixel more do not fit
    evaluation(data)
    names = reads(monkeypatch)
    evaluation(data)
    assert len(names) < 22 * 0.1
    wider = loaded(root, cache="1MiB", size=[128, 125])
    names.clear()
    evaluation(wider)
    evaluation(wider)
    assert len(names) == 44


def test_an_image_larger_than_its_part_of_the_room_is_decoded_every_time(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root / "train" / "ant" / "large.JPEG", 89, 97, 1)  # 25.3 KiB; a 23rd of half a MiB is 22.3 KiB
    data = loaded(root, cache="1MiB")
    training(data)
    names = reads(monkeypatch)
    training(data)
    assert names == ["ant/large.JPEG"]


def test_kept_pixels_that_are_damaged_are_decoded_again(root: Path, kept: Path) -> None:
    plain, data = loaded(root, cache="none"), loaded(root, cache="1MiB")
    training(data)
    evaluation(data)
    files = list(kept.iterdir())
    assert len(files) == 2
    for file in files:
        with file.open("r+b") as opened:
            for place in range(0, file.stat().st_size, 997):
                opened.seek(place)
                opened.write(b"?")
    assert equal(training(data), training(plain))
    assert equal(evaluation(data), evaluation(plain))


def test_a_folder_that_changed_is_decoded_anew(root: Path) -> None:
    before = loaded(root)
    old = evaluation(before)
    training(before)
    write(root / "train" / "ant" / "03.JPEG", 19 + 9, 53 - 6, 1234)
    now = loaded(root)
    assert not equal(evaluation(now), old)
    assert equal(evaluation(now), evaluation(loaded(root, cache="none")))
    assert equal(training(now), training(loaded(root, cache="none")))


def test_a_file_that_changes_after_it_was_hashed_is_never_kept(root: Path, tmp_path: Path) -> None:
    """Else its pixels would stand for those that the hash was taken of, also when these are back."""
    path = root / "train" / "bee" / "07.JPEG"
    shutil.copy2(path, tmp_path / "backup")
    data = loaded(root)
    write(path, 40, 39, 4321)
    evaluation(data)
    training(data)
    shutil.copy2(tmp_path / "backup", path)
    restored, plain = loaded(root), loaded(root, cache="none")
    assert restored.content_hash == data.content_hash
    assert equal(evaluation(restored), evaluation(plain))
    assert equal(training(restored), training(plain))


def digest_of_epochs(root: Path, start: Any, answers: Any) -> None:
    torch.set_num_threads(1)
    data = loaded(root, cache="2MiB")
    start.wait()
    digest = hashlib.sha256()
    for x in [*training(data), *evaluation(data), *training(data, 1), *evaluation(data)]:
        digest.update(x.numpy().tobytes())
    answers.put(digest.hexdigest())


def test_processes_that_fill_one_cache_at_once_read_the_same(root: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(3), context.Queue()
    processes = [context.Process(target=digest_of_epochs, args=(root, start, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    found = {answers.get(timeout=120) for _ in processes}
    for process in processes:
        process.join()
    digest = hashlib.sha256()
    plain = loaded(root, cache="none")
    for x in [*training(plain), *evaluation(plain), *training(plain, 1), *evaluation(plain)]:
        digest.update(x.numpy().tobytes())
    assert found == {digest.hexdigest()}


# ---- against torchvision's own transforms ----


@pytest.mark.parametrize("cache", ["none", "8GiB"])
def test_batches_are_what_torchvisions_transforms_make_of_the_same_boxes(root: Path, cache: str) -> None:
    data = loaded(root, cache=cache)
    training(data)  # what can be kept is
    (x,) = [x for x, _ in Batches(data.train, data, [CROP], 22, 3).epoch(1)]
    order = torch.randperm(22, generator=generator(3, "order", 1)).tolist()
    draws = CROP.draw(22, generator(3, "augment", 1, "random_resized_crop"))
    files = sorted((root / "train").glob("*/*"))
    theirs, to_tensor = v2.RandomResizedCrop(17), v2.PILToTensor()
    for ours, row in zip(x, order, strict=True):
        image = Image.open(files[row])
        box = CROP.boxes(draws[row : row + 1], image.height, image.width)[0].tolist()
        params = dict(zip(("top", "left", "height", "width"), box, strict=True))
        assert torch.equal(pixels(ours), to_tensor(theirs.transform(image, params)))
    shown = v2.Compose([v2.Resize(round(17 * 8 / 7)), v2.CenterCrop(17), to_tensor])
    assert torch.equal(pixels(torch.cat(evaluation(data))), torch.stack([shown(Image.open(file)) for file in files]))


def test_what_keeps_and_who_decodes_is_no_part_of_the_identity(root: Path) -> None:
    one, other = ({"name": "image_folder", "root": "set", "size": 17} | extra for extra in ({}, {"cache": "none"}))
    assert DataSpec.model_validate(one).identity() == DataSpec.model_validate(other).identity()
    assert loaded(root).content_hash == loaded(root, cache="none", workers="auto").content_hash


@pytest.mark.parametrize("cache", ["8", "8GB", "0GiB", "-1GiB", "8 GiB", "all", 8])
def test_a_size_that_is_none_is_refused(cache: Any) -> None:
    with pytest.raises(ValueError, match="cache"):
        DataSpec.model_validate({"name": "image_folder", "root": "set", "size": 17, "cache": cache})


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_goes_to_a_cuda_device_is_pinned_and_the_same(root: Path) -> None:
    plain, data = loaded(root, cache="none"), loaded(root, workers=2)
    images = list(data.train.stream([np.arange(5), np.arange(5, 22)], device="cuda"))
    assert all(torch.from_numpy(array).is_pinned() for array in images)
    for epoch in range(2):
        there = [x for x, _ in Batches(data.train, data, [CROP], 5, 3, "cuda").epoch(epoch)]
        here = [x for x, _ in Batches(plain.train, plain, [CROP], 5, 3).epoch(epoch)]
        assert equal([x.cpu() for x in there], here)


def test_pixels_are_kept_in_the_users_cache_folder(root: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation(loaded(root))
    assert [file.suffix for file in kept.iterdir()] == [".bin"]
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", os.fspath(root.parent / "home"))
    evaluation(loaded(root))
    assert len(list((root.parent / "home" / ".cache" / "ablate" / "pixels").iterdir())) == 1
