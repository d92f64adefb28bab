"""Folders of image files: streamed, and to the pixel what torchvision's ImageFolder and transforms make of them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder as Published
from torchvision.transforms import functional as reference

from ablate.augmentations.horizontal_flip import HorizontalFlip
from ablate.augmentations.random_resized_crop import RandomResizedCrop
from ablate.data import dataset
from ablate.data import folder as folders
from ablate.data.batches import Batches, evaluation_batches
from ablate.data.dataset import DataSpec, ImageData, load, shape_of
from ablate.data.folder import FolderSplit
from ablate.errors import UserError
from ablate.streams import generator

NAMES = ("ant", "bee", "cat")
COUNTS = {"train": 7, "val": 3}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ablate" / "digests"


def write(path: Path, height: int, width: int, mode: str = "RGB", seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((width, height)).convert(mode).save(path, quality=95)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """21 train and 9 test images, each of another size, tall and wide; JPEG, and one PNG."""
    for split, count in COUNTS.items():
        for label, name in enumerate(NAMES):
            for i in range(count):
                seed = 100 * label + 10 * i + len(split)
                kind = "png" if (label, i) == (1, 2) else "JPEG"
                write(tmp_path / "set" / split / name / f"{i}.{kind}", 19 + 5 * i, 41 - 4 * i, seed=seed)
    return tmp_path / "set"


def spec(**fields: Any) -> DataSpec:
    return DataSpec.model_validate({"name": "image_folder", "root": "set", "size": 17, **fields})


def loaded(root: Path, /, **fields: Any) -> ImageData:
    return load(spec(**fields), base=root.parent)


def refusal(root: Path, /, **fields: Any) -> str:
    with pytest.raises(UserError) as caught:
        loaded(root, **fields)
    return str(caught.value)


def published_centre(image: Image.Image, size: int) -> np.ndarray[Any, Any]:
    whole = reference.resize(image, [round(size * 8 / 7)])
    return np.asarray(reference.center_crop(whole, [size, size])).transpose(2, 0, 1)


# ---- what comes out ----


def test_evaluation_sees_what_torchvision_would_make_of_every_file(root: Path) -> None:
    data = loaded(root)
    for split, folder in ((data.train, "train"), (data.test, "val")):
        assert split is not None
        published = Published(str(root / folder))
        assert split.labels.tolist() == published.targets
        theirs = np.stack([published_centre(image, 17) for image, _ in published])
        assert np.array_equal(split.batch(np.arange(len(split))), theirs)
    assert data.class_names == NAMES
    assert data.input_shape == (3, 17, 17)
    assert data.description == "image_folder (set, 17×17 pixels): 21 train, 9 test"


def test_224_pixels_are_the_centre_of_256(root: Path) -> None:
    split = loaded(root, size=224).train
    first = Image.open(root / "train" / "ant" / "0.JPEG").convert("RGB")
    theirs = reference.center_crop(reference.resize(first, [256]), [224, 224])
    assert np.array_equal(split.batch(np.array([0]))[0], np.asarray(theirs).transpose(2, 0, 1))


@pytest.mark.parametrize("size", [[13, 29], [29, 13]])
def test_a_size_that_is_not_square_is_covered(root: Path, size: list[int]) -> None:
    data = loaded(root, size=size, normalize="none")
    assert data.input_shape == (3, *size)
    # black would be where an image did not cover
    assert (data.train.batch(np.arange(21)).max(1) > 0).mean() > 0.99


def test_training_crops_are_cut_from_the_full_image(root: Path) -> None:
    crop, flip = RandomResizedCrop(), HorizontalFlip()
    data = loaded(root, normalize="none")
    x = torch.cat([x for x, _ in Batches(data.train, data, [crop, flip], 5, 3).epoch(1)])
    order = torch.randperm(21, generator=generator(3, "order", 1))
    draws = crop.draw(21, generator(3, "augment", 1, "random_resized_crop"))
    flips = flip.draw(21, generator(3, "augment", 1, "horizontal_flip"))
    published = Published(str(root / "train"))
    for row, ours in zip(order.tolist(), x, strict=True):
        image = published[row][0]
        box = crop.boxes(draws[row : row + 1], image.height, image.width)[0].tolist()
        theirs = reference.to_tensor(reference.resized_crop(image, *box, [17, 17]))
        assert torch.equal(ours, theirs.flip(-1) if flips[row] else theirs)


def test_workers_change_no_image_and_no_stream(root: Path) -> None:
    own, others = loaded(root), loaded(root, workers=2)
    epochs = [Batches(data.train, data, [RandomResizedCrop()], 5, 0).epoch(0) for data in (own, others)]
    before = torch.get_rng_state()
    for (x, y), (other_x, other_y) in zip(*epochs, strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)
    assert torch.equal(torch.get_rng_state(), before)


def test_evaluation_batches_come_in_order_and_lose_nothing(root: Path) -> None:
    data = loaded(root)
    parts = list(evaluation_batches(data.train, data, 8))
    assert [len(y) for _, y in parts] == [8, 8, 5]
    assert torch.cat([y for _, y in parts]).tolist() == [0] * 7 + [1] * 7 + [2] * 7


def test_val_and_limit_choose_among_the_files(root: Path) -> None:
    data = loaded(root, val={"size": 6}, limit={"train": 9})
    assert data.val is not None
    assert np.bincount(data.val.labels).tolist() == [2, 2, 2]
    assert np.bincount(data.train.labels).tolist() == [3, 3, 3]
    assert isinstance(data.train, FolderSplit)
    assert isinstance(data.val, FolderSplit)
    assert not set(data.train.names.tolist()) & set(data.val.names.tolist())


def test_a_val_folder_is_used_by_val_own(root: Path) -> None:
    (root / "val").rename(root / "test")
    write_copy = root / "val"
    for name in NAMES:
        write(write_copy / name / "one.jpg", 20, 20, seed=ord(name[0]))
    data = loaded(root, val="own", val_folder="val", test_folder="test")
    assert [len(split) for split in (data.train, data.val, data.test) if split is not None] == [21, 3, 9]
    assert refusal(root, val_folder="val", test_folder="test").endswith("write val: own")
    assert refusal(root, val="own", val_folder="val") == "data.val_folder: 'val' is the test split as well"


def test_grey_palette_and_transparent_files_become_rgb_as_torchvision_has_it(root: Path) -> None:
    for name, mode in (("l.png", "L"), ("p.png", "P"), ("rgba.png", "RGBA"), ("cmyk.jpg", "CMYK"), ("1.bmp", "1")):
        write(root / "train" / "ant" / name, 23, 31, mode)
    split = loaded(root, normalize="none").train
    theirs = np.stack([published_centre(image, 17) for image, _ in Published(str(root / "train"))])
    assert np.array_equal(split.batch(np.arange(len(split))), theirs)


def test_a_file_is_what_its_content_says_and_not_its_suffix(root: Path) -> None:
    (root / "train" / "bee" / "2.png").rename(root / "train" / "bee" / "2.JPEG")
    assert len(loaded(root).train) == 21


# ---- statistics, hash, crossing to other processes ----


def test_statistics_are_of_a_sample_drawn_once_for_all(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = loaded(root)
    pixels = whole.train.batch(np.arange(21)) / 255
    assert whole.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert whole.std == pytest.approx(pixels.std((0, 2, 3)).tolist())
    monkeypatch.setattr(dataset, "SAMPLE", 5)
    sampled = loaded(root)
    assert sampled.mean == loaded(root).mean != whole.mean


def test_the_hash_is_of_names_and_bytes_and_size(root: Path) -> None:
    hashes = {loaded(root).content_hash, loaded(root, size=18).content_hash, loaded(root, val=0.3).content_hash}
    write(root / "train" / "cat" / "3.JPEG", 19, 41, seed=7)
    hashes.add(loaded(root).content_hash)
    (root / "train" / "cat" / "3.JPEG").rename(root / "train" / "cat" / "33.JPEG")
    hashes.add(loaded(root).content_hash)
    assert len(hashes) == 5


def test_the_hash_does_not_depend_on_where_the_folder_lies(root: Path) -> None:
    before = loaded(root).content_hash
    root.rename(root.parent / "other")
    assert loaded(root.parent / "other", root="other", workers=1, classes=3, title="x").content_hash == before


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    from ablate.datasets import image_folder

    names: list[str] = []
    plain: Callable[[str, str], bytes] = folders.read
    monkeypatch.setattr(image_folder, "read", lambda folder, name: names.append(name) or plain(folder, name))
    return names


def test_files_are_hashed_once_and_a_changed_class_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = count_reads(monkeypatch)
    first = loaded(root).content_hash
    assert len(names) == 30
    assert loaded(root).content_hash == first
    assert len(names) == 30
    os.utime(root / "train" / "bee" / "1.JPEG", ns=(1, 1))
    assert loaded(root).content_hash == first
    assert names[30:] == [f"bee/{i}.{'png' if i == 2 else 'JPEG'}" for i in range(7)]


def test_two_class_folders_that_change_names_are_other_data(tmp_path: Path) -> None:
    """Files of one size and one time of writing, as an archive unpacks them: every label is another one."""
    for split in ("train", "val"):
        for index, name in enumerate(("ant", "bee")):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (8, 8), (index * 100, number, 7 * number)).save(folder / f"{number}.bmp")
                os.utime(folder / f"{number}.bmp", ns=(1, 1))
    before = loaded(tmp_path / "set").content_hash
    train = tmp_path / "set" / "train"
    (train / "ant").rename(train / "other")
    (train / "bee").rename(train / "ant")
    (train / "other").rename(train / "bee")
    assert loaded(tmp_path / "set").content_hash != before


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"ant": 3}', b'{"ant": ["a"]}', b"\xff"])
def test_a_damaged_cache_is_as_none(root: Path, own_cache: Path, damage: bytes) -> None:
    before = loaded(root).content_hash
    for file in own_cache.iterdir():
        file.write_bytes(damage)
    assert loaded(root).content_hash == before


def test_a_cache_that_cannot_be_written_costs_nothing(root: Path, own_cache: Path) -> None:
    own_cache.parent.mkdir(parents=True)
    own_cache.write_text("a file where the folder would be")
    assert len(loaded(root).content_hash) == 64


def test_it_crosses_to_other_processes(root: Path) -> None:
    data = loaded(root, val=0.3)
    copy = pickle.loads(pickle.dumps(data))
    rows = np.array([3, 1])
    assert np.array_equal(copy.train.batch(rows), data.train.batch(rows))
    assert len(pickle.dumps(data)) < 10_000  # no images in it


# ---- check and show, before the folder is there ----


def test_the_shape_is_known_before_the_folder_is_there(tmp_path: Path) -> None:
    assert shape_of(spec(root="nowhere", size=[32, 48], classes=7), base=tmp_path) == ((3, 32, 48), 7)
    with pytest.raises(UserError, match=r"data\.root: no folder .*nowhere"):
        shape_of(spec(root="nowhere"), base=tmp_path)


def test_classes_that_are_not_those_of_the_folder_are_refused(root: Path) -> None:
    assert shape_of(spec(), base=root.parent) == ((3, 17, 17), 3)
    assert refusal(root, classes=4) == "data.classes: 4 classes are stated, and train has 3"


def test_what_changes_no_image_is_not_part_of_the_identity() -> None:
    one = spec(classes=3, workers=4, title="x", root="a")
    assert one.identity() == spec(root="b").identity()
    assert one.identity() != spec(size=18).identity()


# ---- refusals ----


def test_a_damaged_file_is_named_when_it_is_hashed_or_read(root: Path) -> None:
    path = root / "train" / "bee" / "1.JPEG"
    whole = path.read_bytes()
    path.write_bytes(b"no image")
    assert refusal(root).startswith("data: bee/1.JPEG: the image cannot be read: ")
    path.write_bytes(whole[: len(whole) // 2])  # the header is whole
    data = loaded(root, normalize="none")
    with pytest.raises(UserError, match=r"bee/1\.JPEG: the image cannot be read: image file is truncated"):
        list(evaluation_batches(data.train, data, 5))
    path.unlink()
    with pytest.raises(UserError, match=r"bee/1\.JPEG: cannot be read: .*No such file"):
        list(Batches(data.train, data, [], 5, 0).epoch(0))


def test_a_worker_names_the_damaged_file_too(root: Path) -> None:
    data = loaded(root, normalize="none", workers=1)
    (root / "train" / "bee" / "1.JPEG").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"^data: bee/1\.JPEG: the image cannot be read: "):
        list(evaluation_batches(data.train, data, 5))


def test_an_image_of_too_many_pixels_is_refused_by_its_header(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ablate.data.images.MAX_PIXELS", 40 * 40)
    write(root / "train" / "ant" / "large.png", 41, 40)
    assert refusal(root) == "data: ant/large.png: an image of 40×41 pixels; at most 1,600 in all"


def test_class_folders_must_agree(root: Path) -> None:
    (root / "val" / "bee").rename(root / "val" / "bees")
    assert refusal(root) == "data.root: val has no folder 'bee', and train has (1 such)"
    (root / "val" / "bees").rename(root / "val" / "bee")
    write(root / "val" / "dog" / "x.png", 20, 20)
    assert refusal(root) == "data.root: train has no folder 'dog', and val has (1 such)"


def test_a_missing_test_folder_is_named_beside_those_there_are(root: Path) -> None:
    assert refusal(root, test_folder="test") == f"data.root: no folder 'test' in {root}; there are: train, val"
    assert loaded(root, test_folder="none").test is None


def test_what_is_no_image_is_refused_and_what_systems_leave_is_not(root: Path) -> None:
    (root / "train" / ".DS_Store").write_bytes(b"x")
    (root / "train" / "ant" / "Thumbs.db").write_bytes(b"x")
    assert len(loaded(root).train) == 21
    (root / "train" / "ant" / "notes.txt").write_bytes(b"x")
    assert refusal(root).startswith("data.root: train/ant/notes.txt is no image file (.jpg, ")
    (root / "train" / "ant" / "notes.txt").unlink()
    (root / "train" / "ant" / "more.png").mkdir()
    assert refusal(root).startswith("data.root: train/ant/more.png is no image file")
    (root / "train" / "stray.png").write_bytes(b"x")
    assert refusal(root) == "data.root: train/stray.png is no folder; train has a folder for each class"


def test_a_class_without_images_is_refused(root: Path) -> None:
    (root / "train" / "empty").mkdir()
    (root / "val" / "empty").mkdir()
    assert refusal(root) == "data.root: class 'empty' has no example in train"


def test_links_within_root_are_followed_and_others_refused(root: Path) -> None:
    (root / "train" / "ant" / "again.JPEG").symlink_to(root / "val" / "ant" / "0.JPEG")
    assert len(loaded(root).train) == 22
    write(root.parent / "secret.png", 20, 20)
    (root / "train" / "ant" / "out.png").symlink_to(root.parent / "secret.png")
    assert refusal(root) == "data.root: 'train/ant/out.png' leads out of root"
    (root / "train" / "ant" / "out.png").unlink()
    (root.parent / "elsewhere").mkdir()
    for split in COUNTS:
        (root / split / "dog").symlink_to(root.parent / "elsewhere")
    assert refusal(root) == "data.root: 'train/dog' leads out of root"
    assert refusal(root, train_folder="../elsewhere") == "data.root: '../elsewhere' leads out of root"


def test_a_size_is_needed() -> None:
    with pytest.raises(ValueError, match="size"):
        DataSpec.model_validate({"name": "image_folder", "root": "set"})
