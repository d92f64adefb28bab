"""The Python way in says the same words as the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import fx

import ablate
from ablate.design import study_plan
from ablate.prepare import prepare


def test_the_public_names_are_there_whatever_was_imported_before() -> None:
    imports = "import ablate, ablate.builder, ablate.costing, ablate.sweeping"
    check = "assert all(callable(getattr(ablate, name)) for name in ablate.__all__)"
    code = f"{imports}\n{check}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import ablate, sys; print(sorted({'torch', 'ray', 'numpy', 'yaml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1], capture_output=True)
    assert done.stdout.strip() == b"[]"


def test_a_network_is_built_costed_and_run(tiny: Path) -> None:
    spec = ablate.load(tiny, set={"train.epochs": 1})
    network = ablate.build(spec, variant="between", seed=0)
    assert isinstance(network, fx.GraphModule)
    cost = ablate.cost(network, input_shape=(1, 3, 11, 13))
    assert cost.params == sum(parameter.numel() for parameter in network.parameters())
    assert cost.flops == sum(row.flops for row in cost.rows)
    assert network(torch.zeros(2, 3, 11, 13)).shape == (2, 5)
    written = ablate.build(spec)
    assert {name for name, _ in written.named_modules()} != {name for name, _ in network.named_modules()}


def test_a_mapping_is_a_spec_too(tiny: Path) -> None:
    data = yaml.safe_load(tiny.read_text())
    ours = ablate.build(ablate.load(data), variant="se").state_dict()
    theirs = ablate.build(ablate.load(tiny), variant="se").state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_errors_are_those_of_the_command_line(tiny: Path) -> None:
    data = yaml.safe_load(tiny.read_text())
    data["train"]["epochs"] = 3.7
    with pytest.raises(ablate.UserError, match=r"train\.epochs: 3\.7 is not a whole number"):
        ablate.load(data)


def test_a_study_is_swept_and_opened_again(tiny: Path, tmp_path: Path) -> None:
    spec = ablate.load(tiny, set={"train.epochs": 1, "ablation.seeds": 2})
    study = ablate.sweep(spec, folder=tmp_path / "s", executor="local")
    again = ablate.Study(tmp_path / "s")
    assert again.results() == study.results()
    table = again.values()
    assert [cell.text for cell in table.column("variant")] == ["none", "se", "between"]
    assert all(cell.n == 2 for cell in table.column("test.accuracy"))


def held(count: int, classes: int = 5) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Images (N, H, W, C), each class of a brightness of its own, and labels."""
    labels = np.arange(count) % classes
    noise = np.random.default_rng(count).integers(0, 30, (count, 11, 13, 3), dtype=np.uint8)
    return noise + (40 * labels).astype(np.uint8)[:, None, None, None], labels


def torch_pair(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = held(count)
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)


def with_data(tiny: Path, **data: Any) -> dict[str, Any]:
    """One variant, one seed, one epoch."""
    spec = yaml.safe_load(tiny.read_text())
    train = {**spec["train"], "epochs": 1}
    return {"name": "tiny", "data": data, "train": train, "network": spec["network"]}


EXECUTORS = ["local", pytest.param("ray", marks=pytest.mark.ray)]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_arrays_of_a_program_are_certified_and_swept(
    tiny: Path, tmp_path: Path, executor: Any, request: pytest.FixtureRequest
) -> None:
    if executor == "ray":
        request.getfixturevalue("ray_session")
    written = with_data(tiny, name="arrays", val="own", mix={"name": "cutmix"}, augment=["random_resized_crop"])
    data = {"train": held(47), "val": held(11), "test": torch_pair(13), "classes": "abcde"}
    spec = ablate.load(written, data=data)
    study = ablate.sweep(spec, folder=tmp_path / "s", executor=executor)
    assert [result["status"] for result in study.results().values()] == ["finished"]
    assert study.variants[0]["data"] == "arrays (arrays): 47 train, 11 val, 13 test"
    assert study.variants[0]["certificate"]["failures"] == []


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_folder_of_images_is_certified_and_swept(
    tiny: Path, tmp_path: Path, executor: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if executor == "ray":
        request.getfixturevalue("ray_session")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for i, (image, label) in enumerate(zip(*held(40), strict=True)):
        folder = tmp_path / "set" / ("val" if i < 10 else "train") / f"class{label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.jpg")
    written = with_data(tiny, name="image_folder", root="set", size=8, val=0.34, augment=["random_resized_crop"])
    tiny.write_text(yaml.safe_dump(written, sort_keys=False))
    study = ablate.sweep(ablate.load(tiny), folder=tmp_path / "s", executor=executor)
    assert [result["status"] for result in study.results().values()] == ["finished"]
    assert study.variants[0]["data"] == "image_folder (set, 8×8 pixels): 20 train, 10 val, 10 test"


def test_other_arrays_are_other_trials_and_the_same_are_the_same(tiny: Path) -> None:
    def trials(count: int) -> set[str]:
        spec = ablate.load(with_data(tiny, name="arrays", val=0.3), data={"train": held(count)})
        return {key for seeds in prepare(study_plan(spec)).hashes.values() for key in seeds.values()}

    assert trials(47) == trials(47)
    assert not trials(47) & trials(48)


def test_arrays_are_asked_for_where_a_spec_only_names_them(tiny: Path) -> None:
    with pytest.raises(ablate.UserError, match=r"data\.name: 'arrays' are handed over by a Python program"):
        ablate.load(with_data(tiny, name="arrays"))
    with pytest.raises(ablate.UserError, match=r"data\.content has no effect in any variant"):
        ablate.load(tiny, data={"train": held(47)})


def test_variants_that_differ_in_augmentation_alone_share_their_images(tiny: Path) -> None:
    written = with_data(tiny, name="arrays", val=0.3)
    levels = {"none": {"data.augment": []}, "flip": {"data.augment": ["horizontal_flip"]}}
    mixing = {"none": {"data.mix": {"name": "mixup"}}, "more": {"data.mix": {"name": "mixup", "alpha": 0.9}}}
    written["ablation"] = {"seeds": 1, "factors": {"augment": levels, "mix": mixing}}
    prepared = prepare(study_plan(ablate.load(written, data={"train": held(47)})))
    assert len(prepared.trials) == 4
    assert len(prepared.data) == 1
