"""``ablate explain`` from a trained study to files, by the command line; what can't be explained is said."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ablate
from ablate.cli import main
from ablate.design import study_plan
from ablate.errors import UserError
from ablate.explaining import Wanted, explain
from ablate.explaining.learnt import joins_by_epoch
from ablate.explaining.make import check_explainable
from ablate.explaining.sources import Sources
from ablate.exporting import as_trained
from ablate.prepare import loader
from ablate.report import write_report
from ablate.spec import load
from ablate.store import EXPLAINED, Study
from ablate.store.explained import read_explained, save_explained
from tests.explain.studies import SPEC, trained


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("explained")).folder


@pytest.fixture(scope="module")
def default(original: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A study that is explained by the command line, without any choice, and what that said; to be read only."""
    folder = Path(shutil.copytree(original, tmp_path_factory.mktemp("default") / "study"))
    said = io.StringIO()
    with redirect_stdout(said):
        assert main(["explain", str(folder)]) == 0
    return folder, said.getvalue()


def record_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / EXPLAINED / "explanation.json").read_text())
    return found


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of the study, of which nothing was explained yet."""
    return Path(shutil.copytree(original, tmp_path / "study"))


def made(folder: Path, **wanted: Any) -> dict[str, Any]:
    """The record of an explanation; no page is written."""
    return explain(study_plan(load(folder / "spec.yaml")), Study.open(folder), Wanted(**wanted)).record


def refused(folder: Path, *options: str, capsys: pytest.CaptureFixture[str]) -> str:
    before = sorted((folder / EXPLAINED).glob("*")), (folder / "exposures.jsonl").read_bytes()
    assert main(["explain", str(folder), *options]) == 2
    assert before == (sorted((folder / EXPLAINED).glob("*")), (folder / "exposures.jsonl").read_bytes())
    return capsys.readouterr().err


def arrays(folder: Path, name: str) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(folder / EXPLAINED / f"{name}.npz", allow_pickle=False) as found:
        return dict(found)


def test_a_study_is_explained_as_pictures_arrays_and_a_section_of_its_page(default: tuple[Path, str]) -> None:
    folder, said = default
    record = record_of(folder)
    names = [figure["name"] for figure in record["figures"]]
    assert names == [
        "gradcam",
        "attention",
        "matrices",
        "spatial-gates",
        "channel-gates",
        "heads-1",
        "reductions",
        "joins",
    ]
    assert {each.name for each in (folder / EXPLAINED).iterdir()} == {
        "explanation.json",
        *(f"{name}.{suffix}" for name in names for suffix in ("svg", "png", "npz")),
    }
    for figure in record["figures"]:
        found = arrays(folder, figure["name"])
        assert found.keys() == figure["arrays"].keys()
        with Image.open(folder / EXPLAINED / f"{figure['name']}.png") as image:
            assert image.width > 300
    assert [each["name"] for each in record["variants"]] == ["plain", "heads", "gated2", "gated4"]
    assert [each["layer"] for each in record["variants"]] == [
        "stage1.act",
        "stage1_mix_residual",
        "stage1_gate",
        "stage1_gate",
    ]
    page = (folder / "report" / "report.html").read_text()
    assert "What the networks look at" in page
    assert page.count('id="x-') > 0
    assert "Grad-CAM of stage1_mix_residual" in said
    assert [line for line in said.splitlines() if line.startswith("next: ")] == [
        f"next: {folder / 'report' / 'report.html'} shows them"
    ]


def test_what_is_shown_is_what_the_trained_network_gives(folder: Path) -> None:
    record = made(folder, images=(7, 2), seed=1, of="predicted")
    plan = study_plan(load(folder / "spec.yaml"))
    study = Study.open(folder)
    shown = arrays(folder, "gradcam")
    assert shown["index"].tolist() == [7, 2]
    for number, name in enumerate(["plain", "heads", "gated2", "gated4"]):
        hash = record["variants"][number]["trial"]
        assert hash == next(each["trials"]["1"] for each in study.variants if each["name"] == name)
        stored = study.predictions(hash)
        assert shown["label"].tolist() == stored["label"][[7, 2]].tolist()
        assert shown[f"scores_{number}"].argmax(1).tolist() == stored["predicted"][[7, 2]].tolist()
        assert record["variants"][number]["recorded"] == stored["predicted"][[7, 2]].tolist()
        losses = -np.log(shown[f"scores_{number}"][[0, 1], shown["label"]])
        np.testing.assert_allclose(losses, stored["loss"][[7, 2]], rtol=1e-3)
        assert shown[f"of_{number}"].tolist() == stored["predicted"][[7, 2]].tolist()
        probabilities = [each["probability"] for each in record["variants"][number]["predictions"]]
        np.testing.assert_allclose(probabilities, shown[f"scores_{number}"].max(1), atol=1e-4)
    assert as_trained(plan, folder, "plain", 1).origin.endswith(record["variants"][0]["trial"])


def test_from_python_it_is_what_the_command_draws(default: tuple[Path, str], folder: Path) -> None:
    pictures = ablate.Study(folder).explain()
    assert list(pictures) == [figure["name"] for figure in record_of(default[0])["figures"]]
    for name, picture in pictures.items():
        assert picture.png == (default[0] / EXPLAINED / f"{name}.png").read_bytes()
        assert picture.svg == (default[0] / EXPLAINED / f"{name}.svg").read_text(encoding="utf-8")
        for key, values in arrays(default[0], name).items():
            np.testing.assert_array_equal(picture.numbers[key], values)
    few = ablate.Study(folder).explain(images=[3], variants=["plain"])
    assert [image["index"] for image in record_of(folder)["images"]] == [3]
    assert "gradcam" in few
    assert "gradcam" in ablate.Study(folder).explain(of_class=2, count=1)
    assert [image["label"] for image in record_of(folder)["images"]] == [2]
    for wrong, said in (
        ({"split": "train"}, "split"),
        ({"imges": [3]}, "did you mean .images"),
        ({"images": 5}, "images"),
        ({"of": "x"}, "of"),
        ({"nodes": "stem"}, "nodes"),
        ({"count": 0}, "count"),
    ):
        with pytest.raises(UserError, match=said):
            ablate.Study(folder).explain(**wrong)
    with pytest.raises(UserError, match="whoever looks has to name the folder"):
        _moved(folder, "/elsewhere").explain()


def _moved(folder: Path, root: str) -> ablate.Study:
    study = ablate.Study(folder)
    study.spec["data"]["root"] = root
    return study


def test_the_same_choice_gives_the_same_bytes(default: tuple[Path, str], folder: Path) -> None:
    made(folder, images=(0,), variants=("heads",))
    made(folder)
    wanted = {each.name: each.read_bytes() for each in (default[0] / EXPLAINED).iterdir()}
    assert {each.name: each.read_bytes() for each in (folder / EXPLAINED).iterdir()} == wanted


def test_what_an_earlier_explanation_had_is_gone(folder: Path) -> None:
    made(folder, images=(0,), variants=("heads",))
    assert (folder / EXPLAINED / "attention.svg").exists()
    made(folder, images=(0,), variants=("plain",))
    assert {each.name for each in (folder / EXPLAINED).iterdir()} == {
        "explanation.json",
        *(f"gradcam.{suffix}" for suffix in ("svg", "png", "npz")),
    }


def test_images_are_chosen_by_class_and_by_disagreement(folder: Path) -> None:
    study = Study.open(folder)
    predicted = {each["name"]: study.predictions(each["trials"]["0"]) for each in study.variants}
    labels = predicted["plain"]["label"]
    record = made(folder, of_class="2", count=3, variants=("plain",))
    assert [image["index"] for image in record["images"]] == np.flatnonzero(labels == 2)[:3].tolist()
    apart = np.flatnonzero(predicted["plain"]["predicted"] != predicted["heads"]["predicted"])
    assert len(apart)
    record = made(folder, disagree=("plain", "heads"), count=20, variants=("plain",))
    assert sorted(image["index"] for image in record["images"]) == apart.tolist()
    record = made(folder, variants=("plain",))
    firsts = sorted(int(np.flatnonzero(labels == label)[0]) for label in set(labels.tolist()))
    assert [image["index"] for image in record["images"]][: len(firsts)] == firsts


def test_nodes_and_pixels_choose_whose_attention_is_shown(folder: Path) -> None:
    options = ["--nodes", "stage1_*", "--pixel", "7,11", "--pixel", "0,0", "--images", "3", "--variants", "heads"]
    assert main(["explain", str(folder), *options]) == 0
    shown, matrix = arrays(folder, "attention"), arrays(folder, "matrices")["matrix_0"]
    assert shown["maps_0"].shape == (1, 2, 2, 8, 12)
    assert np.array_equal(shown["maps_0"][:, :, 0].reshape(1, 2, -1), matrix[:, :, 95])
    assert np.array_equal(shown["maps_0"][:, :, 1].reshape(1, 2, -1), matrix[:, :, 0])
    np.testing.assert_allclose(matrix.sum(-1), 1, rtol=1e-5)


def test_readings_of_test_images_go_on_record_and_those_of_val_do_not(folder: Path) -> None:
    before = Study.open(folder).exposures()
    made(folder, split="val", images=(0,))
    assert Study.open(folder).exposures() == before
    record = made(folder, images=(0, 1), variants=("plain", "heads"))
    added = Study.open(folder).exposures()[len(before) :]
    assert [(each["by"], each["variant"], each["seed"], each["images"]) for each in added] == [
        ("explain", "plain", 0, 2),
        ("explain", "heads", 0, 2),
    ]
    assert [each["trial"] for each in added] == [each["trial"] for each in record["variants"]]


def test_rows_have_the_learnt_joins_and_the_last_is_that_of_the_weights(default: tuple[Path, str]) -> None:
    folder, _ = default
    study = Study.open(folder)
    trials = next(each["trials"] for each in study.variants if each["name"] == "heads")
    shown = arrays(folder, "joins")
    for number, (seed, hash) in enumerate(sorted(trials.items())):
        rows = study.metrics(hash)
        values = [row["joins"]["stage1_mix_residual"] for row in rows]
        weights = torch.load(study.weights(hash), weights_only=True)
        assert values[-1] == weights["stage1_mix_residual.weight"].item(), seed
        assert 0.0 not in values
        assert shown[f"weight_{number}"].tolist() == [[0, 0], [1, values[0]], [2, values[1]]]
    plain = next(each["trials"]["0"] for each in study.variants if each["name"] == "plain")
    assert all("joins" not in row for row in study.metrics(plain))


def test_of_rows_without_joins_start_and_end_are_shown(original: Path) -> None:
    study = Study.open(original)
    sources = Sources.of(study_plan(load(original / "spec.yaml")), study, Wanted())
    wanted = joins_by_epoch(sources, ["heads"])["heads"]["stage1_mix_residual"]["0"]
    rows = Study.metrics
    study.metrics = lambda *given: [  # type: ignore[method-assign]
        {key: value for key, value in row.items() if key != "joins"} for row in rows(study, *given)
    ]
    found = joins_by_epoch(sources, ["heads"])["heads"]["stage1_mix_residual"]["0"]
    assert found == [wanted[0], wanted[-1]]


def test_gates_are_compared_by_reduction_ratio(default: tuple[Path, str], folder: Path) -> None:
    shown, _ = default
    record = record_of(shown)
    channel = [row for row in record["reductions"] if row["part"] == "channel"]
    assert [(row["variant"], row["reduction"], row["hidden"], row["images"]) for row in channel] == [
        ("gated2", 2, 4, 20),
        ("gated4", 4, 2, 20),
    ]
    gates = arrays(shown, "reductions")
    network = as_trained(study_plan(load(folder / "spec.yaml")), folder, "gated2", 0).network
    first = network.get_submodule("stage1_gate.channel.fc1").weight  # type: ignore[union-attr]
    assert channel[0]["weight"] == pytest.approx(float(first.detach().pow(2).mean().sqrt()), rel=1e-6)  # type: ignore[operator, union-attr]
    assert channel[0]["mean"] == pytest.approx(float(gates["gates_0"].mean()))
    assert gates["gates_0"].shape == (8,)
    record = made(folder, variants=("gated2", "plain"), images=(0,))
    assert record["reductions"] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--variants", "plian"], "has no variant 'plian'"),
        (["--disagree", "plain", "nothing"], "has no variant 'nothing'"),
        (["--seed", "9"], "has no trial of seed 9; its seeds: 0, 1"),
        (["--images", "20"], "image 20: the split has 20, numbered from 0 to 19"),
        (["--images", "9", "--split", "val", "--images", "12"], "image 12: the split has 12"),
        (["--class", "zebra"], "no class 'zebra'; there are 4"),
        (["--nodes", "stage9.*"], "--nodes stage9.* matches nothing in these variants"),
        (["--nodes", "stem*("], "--nodes stem*("),
        (["--nodes", "head.fc", "--variants", "plain"], "no attention and no gate among these nodes"),
        (["--layer", "stage7"], "'plain' has no node or scope 'stage7'"),
        (["--layer", "head"], "has no height and width"),
        (["--pixel", "8,0"], "--pixel 8,0: the images have 8 rows and 12 columns"),
        (["--disagree", "plain", "heads", "--split", "val"], "predictions are on record for the test split alone"),
        (["--disagree", "plain", "plain"], "no image of the test split is taken for different classes"),
        (["--set", "train.epochs=3"], "the networks are as they were trained"),
    ],
)
def test_what_is_not_there_is_said_and_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert said in refused(folder, *options, capsys=capsys)


def test_variants_without_weights_are_left_out_or_refused_by_name(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hash = next(each["trials"]["0"] for each in Study.open(folder).variants if each["name"] == "heads")
    (folder / "trials" / hash / "checkpoint.pt").unlink()
    assert "the weights of trial" in refused(folder, "--variants", "heads", capsys=capsys)
    record = made(folder, images=(3,))
    assert [each["name"] for each in record["variants"]] == ["plain", "gated2", "gated4"]
    assert "the weights of trial" in record["left_out"]["heads"]
    assert "attention" not in [figure["name"] for figure in record["figures"]]


def test_of_a_study_that_is_not_done_no_test_image_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hash = next(each["trials"]["1"] for each in Study.open(folder).variants if each["name"] == "gated4")
    (folder / "trials" / hash / "result.json").unlink()
    assert "nothing is told of the test split" in refused(folder, capsys=capsys)
    assert main(["explain", str(folder), "--split", "val", "--images", "1", "--variants", "plain"]) == 0
    assert "What the networks look at" in (folder / "report" / "report.html").read_text()


def test_pictures_of_test_images_leave_the_page_while_a_study_grows(folder: Path) -> None:
    made(folder, images=(1,), variants=("plain",))
    hash = next(each["trials"]["1"] for each in Study.open(folder).variants if each["name"] == "gated4")
    (folder / "trials" / hash / "result.json").unlink()
    write_report(Study.open(folder))
    page = (folder / "report" / "report.html").read_text()
    assert 'id="x-' not in page
    assert "They are of test images" in page


def test_images_other_than_those_that_it_was_trained_with_are_refused(tmp_path: Path) -> None:
    folder = trained(tmp_path, SPEC.replace("seeds: 2", "seeds: 1")).folder
    plan = study_plan(load(folder / "spec.yaml"))
    study = Study.open(folder)
    study.spec["numerics"]["threads"] += 1  # the hash of a trial is of this, too
    with pytest.raises(UserError, match="are others than those that 'plain' was trained with"):
        explain(plan, study, Wanted())


def test_a_damaged_explanation_is_told_and_shown_by_nobody(folder: Path) -> None:
    made(folder, images=(1,), variants=("heads",))
    picture = folder / EXPLAINED / "gradcam.svg"
    picture.write_bytes(picture.read_bytes().replace(b"heads", b"hands"))
    found = read_explained(folder)
    assert found is not None
    assert found.damaged == {"explained/gradcam.svg": "it is not as it was written"}
    assert Study.open(folder).verify() == found.damaged
    assert "gradcam" not in found.pictures
    assert "attention" in found.pictures
    write_report(Study.open(folder))
    page = (folder / "report" / "report.html").read_text()
    assert "explained/gradcam.svg" in page
    assert "The picture can't be shown here" in page
    (folder / EXPLAINED / "attention.npz").write_bytes(b"")
    assert Study.open(folder).verify().keys() == {"explained/gradcam.svg", "explained/attention.npz"}
    record = folder / EXPLAINED / "explanation.json"
    record.write_text(record.read_text().replace("by number", "by chance"))
    found = read_explained(folder)
    assert found is not None
    assert found.pictures == {}
    assert found.damaged == {"explained/explanation.json": "it is not as it was written"}


def test_a_record_of_another_shape_is_no_explanation(tmp_path: Path) -> None:
    save_explained(tmp_path, {"split": 3}, {"a.svg": b"<svg/>"})
    found = read_explained(tmp_path)
    assert found is not None
    assert found.pictures == {}
    assert "split" in found.damaged["explained/explanation.json"]


def test_an_explanation_is_written_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / EXPLAINED).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link"):
        save_explained(tmp_path, {}, {"a.svg": b""})
    assert not list((tmp_path / "elsewhere").iterdir())
    assert read_explained(tmp_path) is None
    (tmp_path / EXPLAINED).unlink()
    with pytest.raises(UserError, match="cannot name a file"):
        save_explained(tmp_path, {}, {"../a.svg": b""})


def test_a_page_without_an_explanation_has_no_such_section(folder: Path) -> None:
    write_report(Study.open(folder))
    assert "What the networks look at" not in (folder / "report" / "report.html").read_text()


def test_a_search_is_refused(folder: Path) -> None:
    study = Study.open(folder)
    study.spec["search"] = {"objectives": {"val.accuracy": "maximize"}}
    with pytest.raises(UserError, match="is a search"):
        check_explainable(study, Wanted())


def test_pictures_are_the_images_of_the_split(folder: Path) -> None:
    made(folder, images=(4, 9), variants=("plain",))
    plan = study_plan(load(folder / "spec.yaml"))
    test = loader(plan)(plan.variants[0].data).test
    assert test is not None
    assert np.array_equal(arrays(folder, "gradcam")["images"], test.batch(np.array([4, 9])).transpose(0, 2, 3, 1))


def test_of_a_vision_transformer_the_class_token_s_attention_is_drawn(tmp_path: Path) -> None:
    graph = """\
    patch:    {block: patch_embed, width: 8, patch: 4}
    token:    {block: class_token}
    position: {block: position_embedding, kind: learned_1d}
    encoder:  {block: transformer, heads: 2, mlp_ratio: 2, repeat: 2}
    head:     {block: token_classifier, pool: class}
"""
    start = SPEC.index("    stem:")
    text = SPEC[:start] + graph + "ablation: {seeds: 1}\n"
    folder = trained(tmp_path, text).folder
    said = io.StringIO()
    with redirect_stdout(said):
        assert main(["explain", str(folder), "--images", "3,7"]) == 0
    assert "no Grad-CAM: it pools no map" in said.getvalue()
    assert [figure["name"] for figure in record_of(folder)["figures"]] == ["attention", "matrices", "heads-1"]
    (heads,) = [values for name, values in arrays(folder, "heads-1").items() if name == "maps"]
    assert heads.shape == (2, 2, 2, 3)  # images, heads, and a patch for each four by four pixels
    page = (folder / "report" / "report.html").read_text(encoding="utf-8")
    assert "encoder.1.attn: what one pixel (the square) reads, by head" in page
